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
    "/api/events?state=Dakar&type=meetup",
    "/api/events?state=Oslo",
    "/api/users/1",
    "/api/users/2",
    "/api/users/8",
    "/api/users/1/followers",
    "/api/users/2/followers",
    "/api/users/8/events",
    "/api/users/1/events",
    "/api/events/1/analytics",
    "/api/events/2/analytics",
    "/api/referrals/REF-000002",
    "/api/referrals/REF-000003",
    "/api/leaderboard/referrals",
];

/// Returns the routes that only this user may read.
const OWN_READS: &[(i64, &str)] = &[
    (1, "/api/users/1/events"),
    (1, "/api/users/1/tickets"),
    (1, "/api/users/1/tickets?status=valid"),
    (2, "/api/users/2/tickets"),
    (2, "/api/users/2/tickets?status=valid"),
    (8, "/api/users/8/events"),
];

const PUBLIC_LISTS: &[&str] = &[
    "events:published:page:1",
    "events:published:page:2",
    "events:trending:page:1",
    "events:location:Dakar:page:1",
    "events:location:Oslo:page:1",
    "event:list:state:Dakar:type:meetup:page:1",
    "event:list:state:Oslo:type:all:page:1",
];

/// The lists of the organiser of event 1.
const LISTS_OF_USER_8: &[&str] = &["events:organizer:8:page:1", "events:organizer:8:all:page:1"];

const ABOUT_USER_1: &[&str] = &[
    "user:profile:1",
    "user:followers:1",
    "events:organizer:1:page:1",
    "events:organizer:1:all:page:1",
    "ticket:user:1",
    "ticket:user:1:status:valid",
];

const NEW_EVENT: &str = r#"{"organizer_id": 8, "title": "Opening", "description": "All are welcome.", "location": "Rome",
                            "state": "Lazio", "type": "meetup", "starts_at": 1900000000, "price_cents": 0, "capacity": 5}"#;

#[test]
fn creating_an_event_evicts_the_lists_of_its_organiser() {
    assert_evicts(
        8,
        "POST",
        "/api/events",
        Some(NEW_EVENT),
        &[LISTS_OF_USER_8],
    );
}

#[test]
fn updating_an_event_evicts_its_figures_and_the_lists() {
    assert_evicts(
        8,
        "PUT",
        "/api/events/1",
        Some(r#"{"title": "New"}"#),
        &[&["analytics:1"], PUBLIC_LISTS, LISTS_OF_USER_8],
    );
}

#[test]
fn publishing_an_event_evicts_its_figures_and_the_lists() {
    assert_evicts(
        8,
        "POST",
        "/api/events/1/publish",
        None,
        &[&["analytics:1"], PUBLIC_LISTS, LISTS_OF_USER_8],
    );
}

#[test]
fn deleting_an_event_evicts_it_and_the_lists() {
    assert_evicts(
        8,
        "DELETE",
        "/api/events/1",
        None,
        &[&["event:1", "analytics:1"], PUBLIC_LISTS, LISTS_OF_USER_8],
    );
}

#[test]
fn a_refused_change_of_an_event_evicts_nothing() {
    for (method, path, body) in [
        ("PUT", "/api/events/1", Some(r#"{"title": "New"}"#)),
        ("POST", "/api/events/1/publish", None),
        ("DELETE", "/api/events/1", None),
    ] {
        assert_refused(2, method, path, body, 403);
    }
}

#[test]
fn a_purchase_evicts_the_event_the_lists_and_the_buyers_tickets() {
    assert_evicts(
        2,
        "POST",
        "/api/events/1/tickets",
        Some(r#"{"user_id": 2, "quantity": 1}"#),
        &[
            &["event:1", "analytics:1"],
            PUBLIC_LISTS,
            LISTS_OF_USER_8,
            &["ticket:user:2", "ticket:user:2:status:valid"],
        ],
    );
}

#[test]
fn using_a_ticket_evicts_the_tickets_of_its_user() {
    // Ticket 1000 is a ticket of user 1 for event 1.
    assert_evicts(
        8,
        "POST",
        "/api/tickets/1000/use",
        None,
        &[&["ticket:user:1", "ticket:user:1:status:valid"]],
    );
}

#[test]
fn a_refused_check_in_evicts_nothing() {
    assert_refused(2, "POST", "/api/tickets/1000/use", None, 403);
}

#[test]
fn using_a_referral_code_evicts_the_code_and_the_leaderboard() {
    assert_evicts(
        1,
        "POST",
        "/api/referrals/REF-000002/use",
        Some(r#"{"user_id": 1}"#),
        &[&["referral:REF-000002", "leaderboard:referral:top100"]],
    );
}

#[test]
fn a_refused_referral_evicts_nothing() {
    assert_refused(
        2,
        "POST",
        "/api/referrals/REF-000003/use",
        Some(r#"{"user_id": 2}"#),
        409,
    );
}

#[test]
fn a_failed_purchase_evicts_nothing() {
    assert_refused(
        2,
        "POST",
        "/api/events/1/tickets",
        Some(r#"{"user_id": 2, "quantity": 1000}"#),
        409,
    );
}

#[test]
fn changing_a_profile_evicts_nothing() {
    assert_evicts(1, "PUT", "/api/users/1", Some(r#"{"name": "Zoé"}"#), &[]);
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
    assert_refused(2, "POST", "/api/auth/login", Some(guess), 401);
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
fn settling_a_payment_evicts_it_its_status_and_its_verification() {
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
            let tx = payment["tx"].as_str().expect("text");
            client.get(&format!("/api/payments/{tx}/status"));
            tx.to_owned()
        };
        let (tx, other) = (pay(amount_cents), pay(200));
        let before = entries(&server);

        client.send("POST", &format!("/api/payments/{tx}/confirm"), None);

        let gone: BTreeSet<_> = before.difference(&entries(&server)).cloned().collect();
        assert_eq!(
            gone,
            set(&[
                &format!("payment:transaction:{tx}"),
                &format!("payment:status:{tx}"),
                &format!("payment:verification:ref-{tx}")
            ])
        );
        assert!(before.contains(&format!("dev_payment:transaction:{other}")));
    }
}

/// Asserts that this request of a logged-in user succeeds and evicts these entries.
fn assert_evicts(user: i64, method: &str, path: &str, body: Option<&str>, evicted: &[&[&str]]) {
    let (status, gone) = evicted_by(user, method, path, body);

    assert!(status < 300, "{method} {path}: {status}");
    assert_eq!(gone, set(&evicted.concat()), "{method} {path}");
}

/// Asserts that this request of a logged-in user is refused with this status and evicts nothing.
fn assert_refused(user: i64, method: &str, path: &str, body: Option<&str>, expected: u16) {
    let (status, gone) = evicted_by(user, method, path, body);

    assert_eq!(status, expected, "{method} {path}");
    assert_eq!(gone, BTreeSet::new(), "{method} {path}");
}

/// Returns the status of this request, and the entries that it evicts.
fn evicted_by(user: i64, method: &str, path: &str, body: Option<&str>) -> (u16, BTreeSet<String>) {
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

    let after = fresh(&server, &before);
    let stored = entries(&server);
    assert!(stored.is_subset(&before), "{stored:?}");
    let gone = before.difference(&after).cloned().collect();
    (answer.status, gone)
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
