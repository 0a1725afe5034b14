//! Cases that need a Redis that other programs also use.

use std::time::Duration;

use super::{Mark, SingleEntry, TTL, ask, fence, key, redis};
use crate::entry::{self, FENCE_COUNT_AT};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::store::redis::RedisStore;
use crate::store::{Replaced, Store, support};
use crate::testing::RedisServer;

#[tokio::test]
async fn a_value_that_is_not_a_string_is_foreign_and_can_be_deleted() {
    let subject = redis().await;
    let server = subject.server.as_ref().unwrap();
    let (store, key) = (&subject.store, key("list"));
    let () = ask(server, &["RPUSH", "dev_list", "mine"]);

    let kinds = [
        store.get(&key, 0).await.unwrap_err().kind(),
        store.lease(&key, b"lease", TTL).await.unwrap_err().kind(),
        store
            .delete_dead(&key, *b"stamp--1")
            .await
            .unwrap_err()
            .kind(),
        store
            .replace(&key, *b"stamp--1", b"entry", TTL)
            .await
            .unwrap_err()
            .kind(),
        store
            .refresh(&key, *b"stamp--1", TTL, Mark::Claim)
            .await
            .unwrap_err()
            .kind(),
        store
            .fence(&[(key.clone(), fence(b"stamp--1"))], TTL)
            .await
            .unwrap_err()
            .kind(),
        store.set(&key, b"entry", TTL).await.unwrap_err().kind(),
        store
            .set_many(&[(key.clone(), b"entry".to_vec())], TTL)
            .await
            .unwrap_err()
            .kind(),
        store.ttl(&key).await.unwrap_err().kind(),
    ];

    assert_eq!(kinds, [ErrorKind::Foreign; 9]);
    assert_eq!(
        ask::<Vec<String>>(server, &["LRANGE", "dev_list", "0", "-1"]),
        ["mine"]
    );
    assert_eq!(
        store.get_many(std::slice::from_ref(&key)).await.unwrap(),
        [None]
    );
    assert_eq!(subject.keys("*").await, ["dev_list"]);
    assert_eq!(
        store.peek(std::slice::from_ref(&key), 8).await.unwrap(),
        [None]
    );
    assert_eq!(subject.delete_matching("*").await, 0);
    assert!(store.delete_if(&key, b"stamp--1").await.unwrap());
    assert_eq!(ask::<u32>(server, &["EXISTS", "dev_list"]), 0);
}

#[tokio::test]
async fn a_value_that_may_not_be_read_is_not_deleted() {
    let subject = redis().await;
    let server = subject.server.as_ref().unwrap();
    let (store, key) = (&subject.store, key("a"));
    store.set(&key, b"another entry", TTL).await.unwrap();
    let () = ask(server, &["ACL", "SETUSER", "app", "-getrange"]);

    let deleted = store.delete_if(&key, b"stamp--1").await;

    assert!(deleted.is_err(), "{deleted:?}");
    assert_eq!(ask::<u32>(server, &["EXISTS", "dev_a"]), 1);
}

#[tokio::test]
async fn a_claim_without_an_expiry_is_always_dead() {
    let subject = redis().await;
    let server = subject.server.as_ref().unwrap();
    let (store, key) = (&subject.store, key("a"));
    let lease = entry::lease(&key, subject.now(), TTL);
    let fence = || entry::fence(&key, subject.now(), TTL).into_bytes();

    store.set(&key, lease.as_bytes(), TTL).await.unwrap();
    let () = ask(server, &["PERSIST", key.as_str()]);
    assert!(store.delete_dead(&key, lease.stamp()).await.unwrap());

    store.set(&key, &fence(), TTL).await.unwrap();
    let () = ask(server, &["PERSIST", key.as_str()]);
    assert_eq!(
        store.fence(&[(key.clone(), fence())], TTL).await.unwrap(),
        [1]
    );
}

#[tokio::test]
async fn scripts_are_sent_again_if_the_server_lost_them() {
    let subject = redis().await;
    assert_eq!(
        subject
            .store
            .fence(&[(key("a"), fence(b"stamp--1"))], TTL)
            .await
            .unwrap(),
        [1]
    );

    let () = ask(subject.server.as_ref().unwrap(), &["SCRIPT", "FLUSH"]);

    assert_eq!(
        subject
            .store
            .fence(&[(key("a"), fence(b"stamp--2"))], TTL)
            .await
            .unwrap(),
        [2]
    );
}

#[tokio::test]
async fn a_server_that_does_not_compare_is_asked_to_once() {
    let server = RedisServer::start().unwrap();
    let store = RedisStore::new(&support::config(&server)).unwrap();
    store.probe().await.unwrap();
    let known = store.server_of(&key("a")).unwrap();
    let by_version = known.compares();
    known.set_compares(true);

    for name in ["a", "b"] {
        let key = key(name);
        let claim = entry::lease(&key, 0, TTL);
        store.lease(&key, claim.as_bytes(), TTL).await.unwrap();
        let filled = store.fill(&key, &claim, b"entry", TTL).await.unwrap();
        assert_eq!(filled, Replaced::Done);
    }

    assert_eq!(known.compares(), by_version);
    let info: String = ask(&server, &["INFO", "commandstats"]);
    let mut lines = info.lines();
    let refused =
        lines.any(|line| line.starts_with("cmdstat_set:") && line.ends_with("failed_calls=1"));
    let ran_as_script = info.contains("cmdstat_eval:calls=1,");
    assert_eq!([refused, ran_as_script], [!by_version; 2], "{info}");
}

#[tokio::test]
async fn fences_are_placed_once_if_the_server_lost_the_script() {
    let subject = redis().await;
    let server = subject.server.as_ref().unwrap();
    let fences: Vec<_> = (0..1_201)
        .map(|n| (key(&format!("k{n}")), fence(b"stamp--1")))
        .collect();
    let () = ask(server, &["SCRIPT", "FLUSH"]);

    let first = subject.store.fence(&fences, TTL).await.unwrap();
    let () = ask(server, &["SCRIPT", "FLUSH"]);
    let second = subject.store.fence(&fences, TTL).await.unwrap();

    assert_eq!((first, second), (vec![1; 1_201], vec![2; 1_201]));
    // The text of the script is expensive to send, so it is sent once for all.
    let commands: String = ask(server, &["INFO", "commandstats"]);
    assert!(commands.contains("cmdstat_eval:calls=2,"), "{commands}");
}

#[tokio::test]
async fn a_key_that_cannot_be_fenced_does_not_affect_other_fences() {
    let subject = redis().await;
    let server = subject.server.as_ref().unwrap();
    let () = ask(server, &["RPUSH", "dev_k3", "mine"]);
    let fences: Vec<_> = (0..1_201)
        .map(|n| (key(&format!("k{n}")), fence(b"stamp--1")))
        .collect();

    let error = subject.store.fence(&fences, TTL).await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Foreign);
    assert!(
        error.to_string().starts_with("fence of 1201 keys: "),
        "{error}"
    );
    for (key, _) in fences.iter().filter(|(key, _)| key.as_str() != "dev_k3") {
        let mut expected = fence(b"stamp--1");
        expected[FENCE_COUNT_AT] = 1;
        assert_eq!(subject.get(key).await, Some(expected), "{key:?}");
    }
    assert_eq!(
        ask::<Vec<String>>(server, &["LRANGE", "dev_k3", "0", "-1"]),
        ["mine"]
    );
}

#[tokio::test]
async fn an_entry_without_an_expiry_is_kept() {
    let subject = redis().await;
    let () = ask(
        subject.server.as_ref().unwrap(),
        &["SET", "dev_a", "somebody's"],
    );

    assert_eq!(
        subject.store.ttl(&key("a")).await.unwrap(),
        Some(Duration::MAX)
    );
}

#[tokio::test]
async fn the_server_reports_its_version_and_memory() {
    let subject = redis().await;
    let () = ask(
        subject.server.as_ref().unwrap(),
        &["CONFIG", "SET", "maxmemory", "512mb"],
    );

    let info = subject.store.server().await.unwrap().unwrap();

    assert!(info.version.split('.').count() >= 3, "{info:?}");
    assert!(
        info.memory_used > 100_000 && info.memory_peak >= info.memory_used / 2,
        "{info:?}"
    );
    assert_eq!(info.memory_max, Some(512 << 20));
}

#[tokio::test]
async fn a_scan_removes_only_entries_of_its_own_prefix() {
    let subject = redis().await;
    let server = subject.server.as_ref().unwrap();
    let store = &subject.store;
    let other = Key::parse("dev_shop_", "event:1").unwrap();
    let theirs = crate::entry::lease(&other, 0, TTL);
    let mine = crate::entry::lease(&key("shop_event:2"), 0, TTL);
    let mut old = mine.as_bytes().to_vec();
    // The format before entries named their cache.
    (old[3], old[6]) = (2, 0);
    store.set(&other, theirs.as_bytes(), TTL).await.unwrap();
    subject.set("shop_event:2", mine.as_bytes()).await;
    subject.set("old", &old).await;
    subject.set("text", b"somebody's").await;
    subject.set("empty", b"").await;
    let () = ask(server, &["HSET", "dev_hash", "field", "value"]);

    let names = [
        key("shop_event:1"),
        key("shop_event:2"),
        key("old"),
        key("text"),
        key("empty"),
        key("hash"),
        key("absent"),
    ];
    let deleted = store.delete_entries(&names).await.unwrap();

    assert_eq!(deleted.removed, 2);
    assert_eq!(deleted.other_prefix.as_deref(), Some("dev_shop_"));
    let mut left: Vec<String> = ask(server, &["KEYS", "*"]);
    left.sort();
    assert_eq!(
        left,
        ["dev_empty", "dev_hash", "dev_shop_event:1", "dev_text"]
    );
}
