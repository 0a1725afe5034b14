//! The entries of each route: keys and ttls.

use std::time::{Duration, Instant};

use cache_runtime::testing::RedisServer;
use serde_json::Value;

use crate::support::Service;

/// The route, the key, and the ttl in seconds.
const TABLE: &[(&str, &str, i64)] = &[
    ("/api/events/1", "event:1", 1800),
    ("/api/events", "events:published:page:1", 300),
    ("/api/events?page=2", "events:published:page:2", 300),
    ("/api/events/trending", "events:trending:page:1", 600),
    (
        "/api/events/near/Dakar?page=3",
        "events:location:Dakar:page:3",
        300,
    ),
    (
        "/api/events/near/New%20York",
        "events:location:New%20York:page:1",
        300,
    ),
    ("/api/users/1", "user:profile:1", 3600),
    ("/api/users/1/followers", "user:followers:1", 300),
    (
        "/api/events?state=Lagos",
        "event:list:state:Lagos:type:all:page:1",
        300,
    ),
    (
        "/api/events?state=North%20Holland&type=concert&page=1",
        "event:list:state:North%20Holland:type:concert:page:1",
        300,
    ),
    (
        "/api/users/1/events?page=2",
        "events:organizer:1:page:2",
        600,
    ),
    ("/api/users/1/tickets", "ticket:user:1", 300),
    (
        "/api/users/1/tickets?status=used",
        "ticket:user:1:status:used",
        300,
    ),
    ("/api/referrals/REF-000007", "referral:REF-000007", 1800),
    ("/api/events/1/analytics", "analytics:1", 1800),
    (
        "/api/leaderboard/referrals",
        "leaderboard:referral:top100",
        1800,
    ),
];

#[test]
fn every_read_is_cached_under_its_key_for_its_ttl() {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    let mut redis = connection(&server);
    let (user, stranger) = (service.log_in(1), service.client());

    for &(path, key, seconds) in TABLE {
        let reader = match path.contains("/tickets") {
            true => &user,
            false => &stranger,
        };
        let miss = reader.get(path);
        let kept: i64 = redis::cmd("TTL")
            .arg(format!("dev_{key}"))
            .query(&mut redis)
            .expect("an answer");
        assert!((seconds - 5..=seconds).contains(&kept), "{key}: {kept} s");

        let before = service.counts();
        let hit = reader.get(path);
        let after = service.counts();
        assert_eq!(hit.body, miss.body, "{path}");
        assert_eq!(grown(&before, &after, "hits"), 1, "{path}");
        assert_eq!(grown(&before, &after, "misses"), 0, "{path}");
    }
}

#[test]
fn a_payment_is_cached_when_it_is_created() {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    let mut redis = connection(&server);

    let body = r#"{"user_id":1,"event_id":1,"amount_cents":100,"card_number":"4111111111111111"}"#;
    let client = service.log_in(1);
    let payment = client.send("POST", "/api/payments", Some(body)).body;
    let (tx, reference) = (text(&payment["tx"]), text(&payment["reference"]));
    let mut ttl = |key: String| {
        redis::cmd("TTL")
            .arg(key)
            .query::<i64>(&mut redis)
            .expect("an answer")
    };
    assert!((1795..=1800).contains(&ttl(format!("dev_payment:transaction:{tx}"))));

    client.get(&format!("/api/payments/{tx}/status"));
    assert!((55..=60).contains(&ttl(format!("dev_payment:status:{tx}"))));

    client.get(&format!("/api/payments/verify/{reference}"));
    assert!((295..=300).contains(&ttl(format!("dev_payment:verification:{reference}"))));

    let before = service.counts();
    client.get(&format!("/api/payments/{tx}"));
    client.get(&format!("/api/payments/{tx}/status"));
    client.get(&format!("/api/payments/verify/{reference}"));
    assert_eq!(grown(&before, &service.counts(), "hits"), 3);
}

#[test]
fn a_hit_does_not_wait_for_a_slow_database() {
    let slow = Duration::from_millis(400);
    let service = Service::with(&[("SLOW_DB_MS", "400")]);
    let took = || {
        let began = Instant::now();
        service.get("/api/events/1");
        began.elapsed()
    };

    let (miss, hit) = (took(), took());

    assert!(miss >= slow, "{miss:?}");
    assert!(hit < slow, "{hit:?}");
}

fn connection(server: &RedisServer) -> redis::Connection {
    redis::Client::open(server.url())
        .and_then(|client| client.get_connection())
        .expect("a connection")
}

fn grown(before: &Value, after: &Value, counter: &str) -> i64 {
    after[counter].as_i64().expect("a counter") - before[counter].as_i64().expect("a counter")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}
