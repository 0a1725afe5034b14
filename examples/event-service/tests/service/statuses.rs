//! Tickets are valid until the organiser of their event checks them in.

use serde_json::{Value, json};

use crate::support::{Client, Service};

#[test]
fn a_ticket_is_valid_and_then_used() {
    let service = Service::start();
    let (buyer, organiser) = (service.log_in(2), service.log_in(8));
    let before = lists(&buyer);
    assert_eq!(before, [ids_of(&buyer, ""), vec![]]);

    let bought = buy(&buyer);
    assert_eq!(bought["status"], "valid");
    let [valid, used] = lists(&buyer);
    assert_eq!((valid.last(), used.len()), (Some(&bought["id"]), 0));

    let path = format!("/api/tickets/{}/use", bought["id"]);
    let answer = organiser.send("POST", &path, None);

    assert_eq!(
        (answer.status, &answer.body["status"]),
        (200, &json!("used"))
    );
    assert_eq!(
        lists(&buyer),
        [before[0].clone(), vec![bought["id"].clone()]]
    );
    let all = buyer.get("/api/users/2/tickets").body;
    assert_eq!(
        all.as_array().and_then(|all| all.last()),
        Some(&answer.body)
    );
}

#[test]
fn a_ticket_is_used_once() {
    let service = Service::start();
    let (buyer, organiser) = (service.log_in(2), service.log_in(8));
    let path = format!("/api/tickets/{}/use", buy(&buyer)["id"]);

    let mut statuses: Vec<_> = std::thread::scope(|scope| {
        let uses: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| organiser.send("POST", &path, None).status))
            .collect();
        let uses = uses.into_iter();
        uses.map(|used| used.join().expect("an answer")).collect()
    });

    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
}

#[test]
fn only_the_organiser_of_its_event_uses_a_ticket() {
    let service = Service::start();
    let (nobody, buyer) = (service.client(), service.log_in(2));
    let path = format!("/api/tickets/{}/use", buy(&buyer)["id"]);

    let statuses = [&nobody, &buyer].map(|client| client.send("POST", &path, None).status);

    assert_eq!(statuses, [401, 403]);
    assert_eq!(lists(&buyer)[1], Vec::<Value>::new());
}

/// User 2 buys a ticket for event 1, which user 8 organises.
fn buy(buyer: &Client<'_>) -> Value {
    let purchase = r#"{"user_id": 2, "quantity": 1}"#;
    let bought = buyer.send("POST", "/api/events/1/tickets", Some(purchase));
    assert_eq!(bought.status, 201, "{bought:?}");
    bought.body
}

/// Returns the ids of the valid and of the used tickets of user 2.
fn lists(buyer: &Client<'_>) -> [Vec<Value>; 2] {
    ["?status=valid", "?status=used"].map(|query| ids_of(buyer, query))
}

fn ids_of(buyer: &Client<'_>, query: &str) -> Vec<Value> {
    let found = buyer.get(&format!("/api/users/2/tickets{query}"));
    let tickets = found.body.as_array().expect("a list").iter();
    tickets.map(|ticket| ticket["id"].clone()).collect()
}
