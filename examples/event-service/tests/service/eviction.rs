//! The entries that each write evicts. It evicts no others.

use std::collections::BTreeSet;

use cache_runtime::Cache;
use cache_runtime::testing::RedisServer;

use crate::support::{Service, entries};

/// Reads that fill every kind of entry. Event 1 is in Dakar and is organised by user 8.
const READS: &[&str] = &[
    "/api/events/1",
    "/api/events/2",
    "/api/events",
    "/api/events?page=2",
    "/api/events/trending",
    "/api/events/near/Dakar",
    "/api/events/near/Oslo",
    "/api/users/1",
    "/api/users/2",
    "/api/users/8",
    "/api/users/1/followers",
    "/api/users/2/followers",
    "/api/users/8/events",
    "/api/users/1/events",
    "/api/events/1/analytics",
    "/api/events/2/analytics",
    "/api/leaderboard/referrals",
];

/// Returns the routes that only this user may read.
const OWN_READS: &[(i64, &str)] = &[
    (1, "/api/users/1/events"),
    (1, "/api/users/1/tickets"),
    (2, "/api/users/2/tickets"),
    (8, "/api/users/8/events"),
];

const LISTS: &[&str] = &[
    "events:published:page:1",
    "events:published:page:2",
    "events:trending:page:1",
    "events:location:Dakar:page:1",
    "events:location:Oslo:page:1",
    "user:events:8:page:1",
    "user:events:8:all:page:1",
];

const ABOUT_EVENT_1: &[&str] = &["event:1", "analytics:1"];

const ABOUT_USER_1: &[&str] = &[
    "user:profile:1",
    "user:followers:1",
    "user:events:1:page:1",
    "user:events:1:all:page:1",
    "ticket:user:1",
];

const NEW_EVENT: &str = r#"{"organizer_id": 8, "title": "Opening", "description": "All are welcome.", "location": "Rome",
                            "starts_at": 1900000000, "price_cents": 0, "capacity": 5}"#;

#[test]
fn creating_an_event_evicts_the_lists() {
    assert_evicts(8, "POST", "/api/events", Some(NEW_EVENT), &[LISTS]);
}

#[test]
fn updating_an_event_evicts_it_and_the_lists() {
    assert_evicts(
        8,
        "PUT",
        "/api/events/1",
        Some(r#"{"title": "New"}"#),
        &[ABOUT_EVENT_1, LISTS],
    );
}

#[test]
fn publishing_an_event_evicts_it_and_the_lists() {
    assert_evicts(
        8,
        "POST",
        "/api/events/1/publish",
        None,
        &[ABOUT_EVENT_1, LISTS],
    );
}

#[test]
fn deleting_an_event_evicts_it_and_the_lists() {
    assert_evicts(8, "DELETE", "/api/events/1", None, &[ABOUT_EVENT_1, LISTS]);
}

#[test]
fn a_purchase_evicts_the_event_the_lists_and_the_buyers_tickets() {
    let purchase = r#"{"user_id": 2, "quantity": 1}"#;
    assert_evicts(
        2,
        "POST",
        "/api/events/1/tickets",
        Some(purchase),
        &[ABOUT_EVENT_1, LISTS, &["ticket:user:2"]],
    );
}

#[test]
fn a_failed_purchase_evicts_nothing() {
    assert_evicts(
        2,
        "POST",
        "/api/events/1/tickets",
        Some(r#"{"user_id": 2, "quantity": 1000}"#),
        &[],
    );
}

#[test]
fn changing_a_profile_evicts_it() {
    assert_evicts(
        1,
        "PUT",
        "/api/users/1",
        Some(r#"{"name": "Zoé"}"#),
        &[&["user:profile:1"]],
    );
}

#[test]
fn changing_the_verification_evicts_all_entries_of_the_user() {
    assert_evicts(1, "DELETE", "/api/users/1/verify", None, &[ABOUT_USER_1]);
    assert_evicts(1, "POST", "/api/users/1/verify", None, &[ABOUT_USER_1]);
}

#[test]
fn logging_in_evicts_all_entries_of_the_user() {
    let login = r#"{"username": "user1", "password": "password1"}"#;
    assert_evicts(2, "POST", "/api/auth/login", Some(login), &[ABOUT_USER_1]);
}

#[test]
fn a_wrong_password_evicts_nothing() {
    let guess = r#"{"username": "user1", "password": "password2"}"#;
    assert_evicts(2, "POST", "/api/auth/login", Some(guess), &[]);
}

#[test]
fn following_and_unfollowing_evict_the_count() {
    assert_evicts(
        2,
        "POST",
        "/api/users/1/followers/2",
        None,
        &[&["user:followers:1"]],
    );
    assert_evicts(
        2,
        "DELETE",
        "/api/users/1/followers/2",
        None,
        &[&["user:followers:1"]],
    );
}

#[test]
fn settling_a_payment_evicts_it_and_its_verification() {
    for amount_cents in [100, 1_000_001] {
        let server = RedisServer::start().expect("redis-server starts");
        let service = Service::on(&server);
        let client = service.log_in(1);
        let pay = |cents| {
            let body = format!(
                r#"{{"user_id":1,"event_id":1,"amount_cents":{cents},"card_number":"4111111111111111"}}"#
            );
            let payment = client.send("POST", "/api/payments", Some(&body)).body;
            client.get(&format!(
                "/api/payments/verify/{}",
                payment["reference"].as_str().expect("text")
            ));
            payment["tx"].as_str().expect("text").to_owned()
        };
        let (tx, other) = (pay(amount_cents), pay(200));
        let before = entries(&server);

        client.send("POST", &format!("/api/payments/{tx}/confirm"), None);

        let gone: BTreeSet<_> = before.difference(&entries(&server)).cloned().collect();
        assert_eq!(
            gone,
            set(&[
                &format!("payment:transaction:{tx}"),
                &format!("payment:verification:ref-{tx}")
            ])
        );
        assert!(before.contains(&format!("dev_payment:transaction:{other}")));
    }
}

/// Returns the entries that this request of a logged-in user evicts.
fn assert_evicts(user: i64, method: &str, path: &str, body: Option<&str>, evicted: &[&[&str]]) {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    // Before anything is cached, because logging in also evicts.
    let readers = OWN_READS.iter().map(|(user, _)| service.log_in(*user));
    let readers: Vec<_> = readers.collect();
    let client = service.log_in(user);
    for read in READS {
        assert_eq!(service.get(read).status, 200, "{read}");
    }
    for (reader, (_, read)) in std::iter::zip(&readers, OWN_READS) {
        assert_eq!(reader.get(read).status, 200, "{read}");
    }
    let before = entries(&server);
    assert_eq!(before.len(), READS.len() + OWN_READS.len());

    let answer = client.send(method, path, body);

    assert_ne!(answer.status, 403, "{answer:?}");
    let after = fresh(&server, &before);
    let gone: BTreeSet<_> = before.difference(&after).cloned().collect();
    assert_eq!(gone, set(&evicted.concat()), "{method} {path}");
    let stored = entries(&server);
    assert!(stored.is_subset(&before), "{stored:?}");
}

/// Returns which of these entries are still served. An entry with an evicted tag stays in Redis.
fn fresh(server: &RedisServer, names: &BTreeSet<String>) -> BTreeSet<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let config = server.config().prefix("dev_");
        let cache = Cache::connect(config).await.expect("a cache");
        let mut fresh = BTreeSet::new();
        for name in names {
            let key = name
                .strip_prefix("dev_")
                .expect("the prefix of the service");
            if cache.try_exists(key).await.expect("Redis answers") {
                fresh.insert(name.clone());
            }
        }
        fresh
    })
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| format!("dev_{key}")).collect()
}
