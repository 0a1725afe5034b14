//! Lists of the events in a state.

use serde_json::{Value, json};

use crate::support::Service;

#[test]
fn a_list_has_the_events_of_a_state_and_a_type() {
    let service = Service::start();

    let all = service.get("/api/events?state=Lagos").body;
    let concerts = service.get("/api/events?state=Lagos&type=concert").body;

    assert_eq!((&all["total"], &all["pages"]), (&json!(50), &json!(3)));
    assert!(list(&all).iter().all(|event| event["state"] == "Lagos"));
    let both = |event: &Value| event["state"] == "Lagos" && event["type"] == "concert";
    assert!(!list(&concerts).is_empty() && list(&concerts).iter().all(both));
    assert_eq!(concerts["total"], list(&concerts).len());
}

#[test]
fn pages_and_types_of_a_state_have_each_event_once() {
    let service = Service::start();
    let ids = |query: &str| -> Vec<i64> {
        let found = service.get(&format!("/api/events?state=Lazio{query}")).body;
        let ids = list(&found).iter().map(|event| event["id"].as_i64());
        ids.map(|id| id.expect("a number")).collect()
    };

    let pages = (1..=3).flat_map(|page| ids(&format!("&page={page}")));
    let mut by_page: Vec<_> = pages.collect();
    let types = [
        "concert",
        "meetup",
        "workshop",
        "reading",
        "exhibition",
        "festival",
        "conference",
    ];
    let types = types.iter().flat_map(|kind| ids(&format!("&type={kind}")));
    let mut by_type: Vec<_> = types.collect();

    by_page.sort_unstable();
    by_type.sort_unstable();
    assert_eq!(by_page.len(), 50);
    assert_eq!(by_page, by_type);
}

#[test]
fn a_state_without_events_is_an_empty_list() {
    let service = Service::start();

    let nowhere = service.get("/api/events?state=Atlantis");

    assert_eq!(
        (nowhere.status, nowhere.body["events"].clone()),
        (200, json!([]))
    );
}

#[test]
fn an_event_that_moves_leaves_one_list_and_enters_another() {
    let service = Service::start();
    let organiser = service.log_in(8);
    let total = |query: &str| {
        let found = service.get(&format!("/api/events?{query}"));
        found.body["total"].as_i64().expect("a number")
    };
    let totals = || {
        [
            "state=Dakar",
            "state=Dakar&type=meetup",
            "state=Lagos",
            "state=Lagos&type=festival",
        ]
        .map(total)
    };
    let before = totals();

    let change = r#"{"state": "Lagos", "type": "festival"}"#;
    let moved = organiser.send("PUT", "/api/events/1", Some(change));

    assert_eq!(
        (&moved.body["state"], &moved.body["type"]),
        (&json!("Lagos"), &json!("festival"))
    );
    let [dakar, meetups, lagos, festivals] = before;
    assert_eq!(totals(), [dakar - 1, meetups - 1, lagos + 1, festivals + 1]);
}

fn list(page: &Value) -> &[Value] {
    page["events"].as_array().expect("a list")
}
