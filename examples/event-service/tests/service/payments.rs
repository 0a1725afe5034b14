//! Payments, and places that must not contain a card number.

use cache_runtime::testing::RedisServer;
use serde_json::Value;

use crate::support::{Answer, Client, Service, everything_in};
use crate::tickets::DatabaseFile;

const CARD: &str = "4111111111111111";

#[test]
fn a_payment_is_pending_until_it_is_confirmed() {
    let service = Service::start();
    let client = service.log_in(1);
    let initiated = pay(&client, 2_500, CARD);
    let (payment, verification) = paths(&initiated.body);
    assert_eq!(
        (initiated.status, initiated.body["status"].as_str()),
        (201, Some("pending"))
    );
    assert_eq!(client.get(&payment).body, initiated.body);
    assert_eq!(client.get(&verification).body["status"], "pending");

    let confirmed = client.send("POST", &format!("{payment}/confirm"), None);

    assert_eq!(
        (confirmed.status, confirmed.body["status"].as_str()),
        (200, Some("confirmed"))
    );
    assert_eq!(client.get(&payment).body["status"], "confirmed");
    assert_eq!(client.get(&verification).body["status"], "confirmed");
    let again = client.send("POST", &format!("{payment}/confirm"), None);
    assert_eq!(
        (again.status, again.body["field"].as_str()),
        (409, Some("tx"))
    );
}

#[test]
fn a_payment_declined_by_the_gateway_has_failed() {
    let service = Service::start();
    let client = service.log_in(1);
    let initiated = pay(&client, 1_000_001, CARD).body;
    let (payment, verification) = paths(&initiated);
    assert_eq!(client.get(&verification).body["status"], "pending");

    let declined = client.send("POST", &format!("{payment}/confirm"), None);

    assert_eq!(
        (declined.status, declined.body["status"].as_str()),
        (200, Some("failed"))
    );
    assert_eq!(client.get(&payment).body["status"], "failed");
    assert_eq!(client.get(&verification).body["status"], "failed");
}

#[test]
fn one_of_several_concurrent_confirmations_asks_the_gateway() {
    let redis = RedisServer::start().expect("redis-server starts");
    let environment = [
        ("REDIS_URL", &*redis.url()),
        ("RUST_LOG", "event_service=debug,info"),
    ];
    let (one, other) = (Service::with(&environment), Service::with(&environment));
    let client = one.log_in(1);
    let (payment, _) = paths(&pay(&client, 100, CARD).body);
    let confirm = format!("{payment}/confirm");

    let mut statuses: Vec<_> = std::thread::scope(|scope| {
        let confirmations: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| client.send("POST", &confirm, None).status))
            .collect();
        confirmations
            .into_iter()
            .map(|confirmation| confirmation.join().expect("an answer"))
            .collect()
    });
    statuses.push(client.send("POST", &confirm, None).status);

    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(one.times_said("capturing"), 1);
    // Each process has its own temporary database, so the other does not know the payment.
    let stranger = other.client_with(&client.cookie());
    assert_eq!(stranger.send("POST", &confirm, None).status, 404);
    assert_eq!(other.times_said("capturing"), 0);
}

#[test]
fn the_token_of_the_gateway_is_not_in_redis() {
    let redis = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&redis);
    let client = service.log_in(1);

    let (payment, _) = paths(&pay(&client, 100, CARD).body);
    client.send("POST", &format!("{payment}/confirm"), None);

    let kept = everything_in(&redis);
    assert!(contains(&kept, "payment:transaction") || contains(&kept, "dev_"));
    assert!(!contains(&kept, "token-1-") && !contains(&kept, "payment:token"));
}

#[test]
fn only_card_numbers_are_accepted_as_card_numbers() {
    let service = Service::start();
    let client = service.log_in(1);

    for wrong in [
        r#""4111111111111112""#,
        r#""""#,
        r#""4111-1111""#,
        r#""42""#,
        "4111111111111111",
        "null",
        "{}",
    ] {
        let body =
            format!(r#"{{"user_id":1,"event_id":1,"amount_cents":100,"card_number":{wrong}}}"#);
        let answer = client.send("POST", "/api/payments", Some(&body));

        assert_eq!(
            (answer.status, answer.body["field"].as_str()),
            (422, Some("card_number")),
            "{wrong}: {answer:?}"
        );
        assert!(!answer.body.to_string().contains("4111"), "{answer:?}");
    }
}

#[test]
fn a_payment_needs_an_existing_event_and_the_paying_user() {
    let service = Service::start();
    let client = service.log_in(1);
    let pay = |user, event| {
        let body = format!(
            r#"{{"user_id":{user},"event_id":{event},"amount_cents":100,"card_number":"{CARD}"}}"#
        );
        client.send("POST", "/api/payments", Some(&body))
    };

    let (another, nothing) = (pay(2, 1), pay(1, 4711));

    assert_eq!(
        (another.status, another.body["field"].as_str()),
        (403, Some("user_id"))
    );
    assert_eq!(
        (nothing.status, nothing.body["field"].as_str()),
        (404, Some("event_id"))
    );
}

#[test]
fn a_card_number_is_stored_nowhere() {
    let redis = RedisServer::start().expect("redis-server starts");
    let file = DatabaseFile::new("card");
    let environment = [
        ("REDIS_URL", &*redis.url()),
        ("DATABASE_URL", &file.url()),
        ("RUST_LOG", "trace"),
    ];
    let mut service = Service::with(&environment);

    let client = service.log_in(1);
    let initiated = pay(&client, 100, CARD).body;
    let (payment, verification) = paths(&initiated);
    client.get(&payment);
    client.get(&verification);

    assert!(!contains(&everything_in(&redis), CARD));
    for part in file.parts().filter(|part| part.exists()) {
        assert!(
            !contains(&std::fs::read(&part).expect("a file"), CARD),
            "{}",
            part.display()
        );
    }
    service.terminate();
    let (_, log) = service.wait();
    assert!(log.contains("authorizing") && !log.contains(CARD));
}

fn pay(client: &Client<'_>, amount_cents: i64, card: &str) -> Answer {
    let body = format!(
        r#"{{"user_id":1,"event_id":1,"amount_cents":{amount_cents},"card_number":"{card}"}}"#
    );
    client.send("POST", "/api/payments", Some(&body))
}

fn paths(payment: &Value) -> (String, String) {
    let text = |field: &str| payment[field].as_str().expect("text").to_owned();
    (
        format!("/api/payments/{}", text("tx")),
        format!("/api/payments/verify/{}", text("reference")),
    )
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}
