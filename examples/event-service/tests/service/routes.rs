//! The responses of every route.

use serde_json::json;

use crate::support::Service;

const DRAFT: &str = r#"{"organizer_id": 3, "title": "Opening", "description": "All are welcome.", "location": "Oslo",
                        "state": "Oslo", "type": "meetup", "starts_at": 1900000000, "price_cents": 0, "capacity": 5}"#;

#[test]
fn lists_come_in_pages_of_twenty_with_total_and_pages() {
    let service = Service::start();

    let first = service.get("/api/events").body;
    let last = service.get("/api/events?page=50").body;
    let beyond = service.get("/api/events?page=51").body;

    assert_eq!(
        (&first["page"], &first["pages"], &first["total"]),
        (&json!(1), &json!(50), &json!(1000))
    );
    assert_eq!(first["events"].as_array().map(Vec::len), Some(20));
    assert_eq!(last["events"].as_array().map(Vec::len), Some(20));
    assert_eq!(beyond["events"], json!([]));
    assert_ne!(first["events"][0]["id"], last["events"][0]["id"]);
}

#[test]
fn trending_events_begin_with_the_most_sold() {
    let service = Service::start();

    let events = service.get("/api/events/trending").body["events"].take();

    let sold = |event: &serde_json::Value| {
        event["capacity"]
            .as_i64()
            .zip(event["tickets_left"].as_i64())
            .map(|(all, left)| all - left)
    };
    assert!(
        events
            .as_array()
            .expect("a list")
            .is_sorted_by(|a, b| sold(a) >= sold(b)),
        "{events}"
    );
}

#[test]
fn all_events_near_a_place_are_listed() {
    let service = Service::start();

    let near = service.get("/api/events/near/S%C3%A3o%20Paulo?page=2").body;

    assert_eq!(near["total"], 50);
    assert!(
        near["events"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|event| event["location"] == "São Paulo"),
        "{near}"
    );
}

#[test]
fn an_event_goes_from_draft_to_deletion() {
    let service = Service::start();
    let organiser = service.log_in(3);

    let created = organiser.send("POST", "/api/events", Some(DRAFT));
    let path = format!("/api/events/{}", created.body["id"]);
    assert_eq!(
        (created.status, &created.body["published"]),
        (201, &json!(false))
    );
    assert_eq!(service.get("/api/events").body["total"], 1000);

    let published = organiser.send("POST", &format!("{path}/publish"), None);
    assert_eq!(
        (published.status, &published.body["published"]),
        (200, &json!(true))
    );
    assert_eq!(service.get("/api/events").body["total"], 1001);

    let updated = organiser.send("PUT", &path, Some(r#"{"title": "Closing"}"#));
    assert_eq!(
        (updated.status, &updated.body["title"]),
        (200, &json!("Closing"))
    );
    assert_eq!(updated.body["description"], "All are welcome.");
    assert_eq!(service.get(&path).body, updated.body);

    assert_eq!(organiser.send("DELETE", &path, None).status, 204);
    assert_eq!(service.get(&path).status, 404);
    assert_eq!(service.get("/api/events").body["total"], 1000);
}

#[test]
fn a_new_event_appears_in_lists_that_were_empty() {
    let service = Service::start();
    let organiser = service.log_in(3);
    assert_eq!(service.get("/api/events/1001").status, 404);

    let created = organiser.send("POST", "/api/events", Some(DRAFT));

    assert_eq!(created.body["id"], 1001);
    assert_eq!(organiser.get("/api/events/1001").status, 200);
}

#[test]
fn analytics_follow_sales() {
    let service = Service::start();
    let buyer = service.log_in(9);
    let before = service.get("/api/events/1/analytics").body;

    buyer.send(
        "POST",
        "/api/events/1/tickets",
        Some(r#"{"user_id": 9, "quantity": 3}"#),
    );

    let after = service.get("/api/events/1/analytics").body;
    assert_eq!(
        after["tickets_sold"].as_i64(),
        before["tickets_sold"].as_i64().map(|sold| sold + 3)
    );
    assert_eq!(
        after["revenue_cents"].as_i64(),
        before["revenue_cents"]
            .as_i64()
            .map(|cents| cents + 3 * 500)
    );
}

#[test]
fn a_profile_shows_each_change_immediately() {
    let service = Service::start();
    let user = service.log_in(7);
    let before = service.get("/api/users/7").body;

    user.send("PUT", "/api/users/7", Some(r#"{"name": "Zoé"}"#));
    let renamed = service.get("/api/users/7").body;
    user.send("DELETE", "/api/users/7/verify", None);
    let unverified = service.get("/api/users/7").body;
    user.send("POST", "/api/users/7/verify", None);
    let verified = service.get("/api/users/7").body;

    assert_eq!(
        (&renamed["name"], &renamed["email"]),
        (&json!("Zoé"), &before["email"])
    );
    assert_eq!(unverified["authentication"], "unverified");
    assert_eq!(verified["authentication"], "verified");
}

#[test]
fn each_follower_is_counted_once() {
    let service = Service::start();
    let follower = service.log_in(3);
    let count = || {
        service.get("/api/users/1/followers").body["count"]
            .as_i64()
            .expect("a count")
    };
    let before = count();

    for _ in 0..2 {
        assert_eq!(
            follower
                .send("POST", "/api/users/1/followers/3", None)
                .status,
            204
        );
    }
    let followed = count();
    for _ in 0..2 {
        assert_eq!(
            follower
                .send("DELETE", "/api/users/1/followers/3", None)
                .status,
            204
        );
    }

    assert_eq!(followed, before + 1);
    assert_eq!(count(), before);
}

#[test]
fn users_have_their_events_and_tickets() {
    let service = Service::start();

    let events = service.get("/api/users/1/events?page=3").body;
    let tickets = service.log_in(1).get("/api/users/1/tickets").body;

    assert_eq!(
        (&events["total"], &events["pages"]),
        (&json!(50), &json!(3))
    );
    assert_eq!(events["events"].as_array().map(Vec::len), Some(10));
    assert!(
        tickets
            .as_array()
            .is_some_and(|tickets| !tickets.is_empty() && tickets[0]["user_id"] == 1),
        "{tickets}"
    );
}

#[test]
fn the_leaderboard_is_ranked() {
    let service = Service::start();

    let leaders = service.get("/api/leaderboard/referrals").body;

    let leaders = leaders.as_array().expect("a list");
    assert!(leaders.len() <= 100 && leaders[0]["rank"] == 1);
    assert!(leaders.is_sorted_by(|a, b| a["referrals"].as_i64() >= b["referrals"].as_i64()));
}

#[test]
fn the_seed_is_always_the_same() {
    let (one, other) = (Service::start(), Service::start());

    let path = "/api/users/42/tickets";
    assert_eq!(
        one.log_in(42).get(path).body,
        other.log_in(42).get(path).body
    );
    for path in [
        "/api/events?page=17",
        "/api/events/trending",
        "/api/users/42",
        "/api/leaderboard/referrals",
    ] {
        assert_eq!(one.get(path).body, other.get(path).body, "{path}");
    }
}
