//! Changes that are written to the cache, so that the next read causes no query.

use cache_runtime::testing::RedisServer;

use crate::support::{Answer, Service};
use crate::tickets::DatabaseFile;

#[test]
fn an_updated_event_is_a_hit() {
    let service = Service::start();
    let organiser = service.log_in(8);
    service.get("/api/events/1");

    let change = r#"{"title": "New", "price_cents": 700}"#;
    let updated = organiser.send("PUT", "/api/events/1", Some(change));
    let read = service.get("/api/events/1");

    assert_eq!(
        (updated.status, &updated.body["title"]),
        (200, &"New".into())
    );
    assert_eq!(read.body, updated.body);
    assert_hit(&read);
}

#[test]
fn a_published_event_is_a_hit() {
    let service = Service::start();
    let organiser = service.log_in(3);
    let draft = r#"{"organizer_id": 3, "title": "Opening", "description": "All are welcome.", "location": "Oslo",
                    "state": "Oslo", "type": "meetup", "starts_at": 1900000000, "price_cents": 0, "capacity": 5}"#;
    let created = organiser.send("POST", "/api/events", Some(draft)).body;
    let path = format!("/api/events/{}", created["id"]);

    let published = organiser.send("POST", &format!("{path}/publish"), None);
    let read = service.get(&path);

    assert_eq!(read.body, published.body);
    assert_hit(&read);
}

#[test]
fn an_updated_profile_is_a_hit() {
    let service = Service::start();
    let user = service.log_in(7);
    user.get("/api/users/7");

    let updated = user.send("PUT", "/api/users/7", Some(r#"{"bio": "I like jazz."}"#));
    let read = user.get("/api/users/7");

    assert_eq!(read.body["bio"], "I like jazz.");
    assert_eq!(read.body, updated.body);
    assert_hit(&read);
}

#[test]
fn other_processes_read_what_was_written_through() {
    let (server, file) = (
        RedisServer::start().expect("redis-server starts"),
        DatabaseFile::new("through"),
    );
    let environment = [("REDIS_URL", &*server.url()), ("DATABASE_URL", &file.url())];
    let (one, other) = (Service::with(&environment), Service::with(&environment));
    let (organiser, user) = (one.log_in(8), one.log_in(7));
    for path in ["/api/events/1", "/api/users/7"] {
        other.get(path);
    }

    organiser.send("PUT", "/api/events/1", Some(r#"{"title": "New"}"#));
    user.send("PUT", "/api/users/7", Some(r#"{"name": "Zoé"}"#));
    let (event, profile) = (other.get("/api/events/1"), other.get("/api/users/7"));

    assert_eq!(
        (&event.body["title"], &profile.body["name"]),
        (&"New".into(), &"Zoé".into())
    );
    assert_hit(&event);
    assert_hit(&profile);
}

#[test]
fn a_purchase_after_an_update_is_seen() {
    let service = Service::start();
    let (organiser, buyer) = (service.log_in(8), service.log_in(2));
    let change = r#"{"title": "New"}"#;
    let updated = organiser.send("PUT", "/api/events/1", Some(change)).body;

    let purchase = r#"{"user_id": 2, "quantity": 2}"#;
    buyer.send("POST", "/api/events/1/tickets", Some(purchase));

    let left = |event: &serde_json::Value| event["tickets_left"].as_i64().expect("a number");
    let read = service.get("/api/events/1").body;
    assert_eq!(
        (&read["title"], left(&read)),
        (&"New".into(), left(&updated) - 2)
    );
}

/// A hit runs no function, so it causes no query.
fn assert_hit(answer: &Answer) {
    let status = answer.header("cache-status");
    assert!(status.starts_with("event-service; hit;"), "{status}");
}
