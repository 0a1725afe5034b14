//! Bad requests and their responses.

use crate::support::{Client, Service};

/// The method, the path and the body; then the status and the field.
type Case = (
    &'static str,
    &'static str,
    Option<&'static str>,
    u16,
    Option<&'static str>,
);

/// Requests of user 1.
#[rustfmt::skip] // One case, one line.
const CASES: &[Case] = &[
    // Missing resources.
    ("GET", "/api/events/4711", None, 404, Some("id")),
    ("GET", "/api/events/-1", None, 404, Some("id")),
    ("GET", "/api/events/4711/analytics", None, 404, Some("id")),
    ("PUT", "/api/events/4711", Some("{}"), 404, Some("id")),
    ("POST", "/api/events/4711/publish", None, 404, Some("id")),
    ("DELETE", "/api/events/4711", None, 404, Some("id")),
    ("POST", "/api/events/4711/tickets", Some(r#"{"user_id":1,"quantity":1}"#), 404, Some("id")),
    ("GET", "/api/users/201", None, 404, Some("id")),
    ("GET", "/api/users/201/followers", None, 404, Some("id")),
    ("GET", "/api/users/201/events", None, 404, Some("id")),
    ("DELETE", "/api/users/201/followers/1", None, 404, Some("id")),
    ("GET", "/api/payments/none", None, 404, Some("tx")),
    ("POST", "/api/payments/none/confirm", None, 404, Some("tx")),
    ("GET", "/api/payments/none/status", None, 404, Some("tx")),
    ("GET", "/api/payments/verify/none", None, 404, Some("reference")),
    ("POST", "/api/tickets/4711/use", None, 404, Some("id")),
    ("GET", "/api/referrals/none", None, 404, Some("code")),
    ("POST", "/api/referrals/none/use", Some(r#"{"user_id":1}"#), 404, Some("code")),
    ("GET", "/api/groupbuys/4711", None, 404, Some("id")),
    ("POST", "/api/groupbuys/4711/join", Some(r#"{"user_id":1}"#), 404, Some("id")),
    ("POST", "/api/events/4711/groupbuys", Some(r#"{"user_id":1,"target":2,"expires_in":60}"#), 404, Some("id")),
    ("GET", "/api/nothing", None, 404, None),
    ("GET", "/", None, 404, None),
    // Unreadable input.
    ("GET", "/api/events/abc", None, 400, Some("id")),
    ("GET", "/api/events/9223372036854775808", None, 400, Some("id")),
    ("GET", "/api/users/1.5", None, 400, Some("id")),
    ("POST", "/api/users/1/followers/x", None, 400, Some("follower_id")),
    ("GET", "/api/events?page=0", None, 400, Some("page")),
    ("GET", "/api/events?page=-1", None, 400, Some("page")),
    ("GET", "/api/events/trending?page=two", None, 400, Some("page")),
    ("GET", "/api/users/1/events?page=1&page=2", None, 400, Some("page")),
    ("GET", "/api/events?state=", None, 400, Some("state")),
    ("GET", "/api/events?state=Oslo&state=Lagos", None, 400, Some("state")),
    ("GET", "/api/events?state=Oslo&type=opera", None, 400, Some("type")),
    ("GET", "/api/events?type=concert", None, 400, Some("state")),
    ("GET", "/api/users/1/tickets?status=lost", None, 400, Some("status")),
    ("GET", "/api/events/near/%FF", None, 400, Some("location")),
    ("POST", "/api/events/1/tickets", Some(r#"{"user_id":1,"#), 400, Some("body")),
    ("POST", "/api/events/1/tickets", Some(""), 400, Some("body")),
    ("POST", "/api/events/1/tickets", Some("[1,2]"), 400, Some("body")),
    ("PATCH", "/api/events/1", None, 405, None),
    ("POST", "/api/leaderboard/referrals", None, 405, None),
    ("PUT", "/api/users/1", None, 415, None),
    // Invalid values.
    ("POST", "/api/events/1/tickets", Some(r#"{"user_id":1}"#), 422, Some("quantity")),
    ("POST", "/api/events/1/tickets", Some(r#"{"user_id":1,"quantity":-2}"#), 422, Some("quantity")),
    ("POST", "/api/events/1/tickets", Some(r#"{"user_id":1,"quantity":0}"#), 422, Some("quantity")),
    ("POST", "/api/events/1/tickets", Some(r#"{"user_id":1,"quantity":"2"}"#), 422, Some("quantity")),
    ("POST", "/api/events/1/tickets", Some(r#"{"user_id":1,"quantity":1.5}"#), 422, Some("quantity")),
    ("POST", "/api/events/1/tickets", Some(r#"{"user_id":null,"quantity":1}"#), 422, Some("user_id")),
    ("POST", "/api/events/1/tickets", Some(r#"{"user_id":1,"quantity":1,"colour":"red"}"#), 422, Some("colour")),
    ("POST", "/api/events", Some("{}"), 422, Some("organizer_id")),
    ("PUT", "/api/users/1", Some(r#"{"name":17}"#), 422, Some("name")),
    ("POST", "/api/users/1/followers/1", None, 422, Some("follower_id")),
    ("POST", "/api/payments", Some(r#"{"user_id":1,"event_id":1,"amount_cents":0,"card_number":"4111111111111111"}"#), 422, Some("amount_cents")),
    ("POST", "/api/referrals/REF-000001/use", Some(r#"{"user_id":1}"#), 422, Some("code")),
    ("POST", "/api/events/1/groupbuys", Some(r#"{"user_id":1,"target":1,"expires_in":60}"#), 422, Some("target")),
    ("POST", "/api/events/1/groupbuys", Some(r#"{"user_id":1,"target":2,"expires_in":59}"#), 422, Some("expires_in")),
    // Resources of other users.
    ("POST", "/api/tickets/1000/use", None, 403, Some("id")),
    ("POST", "/api/referrals/REF-000001/use", Some(r#"{"user_id":2}"#), 403, Some("user_id")),
    ("POST", "/api/events/1/groupbuys", Some(r#"{"user_id":2,"target":2,"expires_in":60}"#), 403, Some("user_id")),
    ("POST", "/api/groupbuys/4711/join", Some(r#"{"user_id":2}"#), 403, Some("user_id")),
    ("GET", "/api/users/201/tickets", None, 403, Some("id")),
    // Changes that are not possible now.
    ("PUT", "/api/users/1", Some(r#"{"email":"user2@example.com"}"#), 409, Some("email")),
    ("POST", "/api/events/1/tickets", Some(r#"{"user_id":1,"quantity":1000}"#), 409, Some("quantity")),
];

/// Requests of user 8, who organises event 1.
#[rustfmt::skip]
const CASES_OF_AN_ORGANISER: &[Case] = &[
    ("PUT", "/api/events/1", Some(r#"{"title":""}"#), 422, Some("title")),
    ("PUT", "/api/events/1", Some(r#"{"title":" "}"#), 422, Some("title")),
    ("PUT", "/api/events/1", Some(r#"{"capacity":0}"#), 422, Some("capacity")),
    ("PUT", "/api/events/1", Some(r#"{"price_cents":-1}"#), 422, Some("price_cents")),
    ("PUT", "/api/events/1", Some(r#"{"type":"opera"}"#), 422, Some("type")),
    ("PUT", "/api/events/1", Some(r#"{"state":""}"#), 422, Some("state")),
    ("PUT", "/api/events/1", Some(r#"{"capacity":1}"#), 409, Some("capacity")),
];

#[test]
fn a_bad_request_gets_a_problem_that_names_the_field() {
    let service = Service::start();

    assert_problems(&service.log_in(1), CASES);
    assert_problems(&service.log_in(8), CASES_OF_AN_ORGANISER);
}

#[test]
fn overlong_text_is_refused() {
    let service = Service::start();
    let organiser = service.log_in(8);
    let place = "x".repeat(101);
    let title = format!(r#"{{"title": "{}"}}"#, "x".repeat(201));
    // One byte too many, so that the service reads everything and the connection ends normally.
    let enormous = " ".repeat(64 * 1024 - 1) + "{}";

    let near = service.get(&format!("/api/events/near/{place}"));
    let renamed = organiser.send("PUT", "/api/events/1", Some(&title));
    let flooded = organiser.send("PUT", "/api/events/1", Some(&enormous));

    assert_eq!(
        (near.status, near.body["field"].as_str()),
        (400, Some("location"))
    );
    assert_eq!(
        (renamed.status, renamed.body["field"].as_str()),
        (422, Some("title"))
    );
    assert_eq!(
        (flooded.status, flooded.content_type.as_str()),
        (413, "application/problem+json")
    );
}

#[test]
fn a_refused_change_changes_nothing() {
    let service = Service::start();
    let organiser = service.log_in(8);
    let before = service.get("/api/events/1").body;

    let refused = organiser.send(
        "PUT",
        "/api/events/1",
        Some(r#"{"title":"New","capacity":1}"#),
    );

    assert_eq!(refused.status, 409);
    assert_eq!(service.get("/api/events/1").body, before);
}

fn assert_problems(client: &Client<'_>, cases: &[Case]) {
    for &(method, path, body, status, field) in cases {
        let answer = client.send(method, path, body);

        let case = format!("{method} {path} {body:?}: {answer:?}");
        assert_eq!(answer.status, status, "{case}");
        assert_eq!(answer.content_type, "application/problem+json", "{case}");
        assert_eq!(answer.body["status"], status, "{case}");
        assert_eq!(answer.body["field"].as_str(), field, "{case}");
        for member in ["type", "title", "detail"] {
            assert!(
                answer.body[member]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{case}"
            );
        }
    }
}
