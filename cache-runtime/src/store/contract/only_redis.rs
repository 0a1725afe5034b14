//! What only a server that others use too can bring about.

use std::time::Duration;

use super::{LIFE, ask, fence, key, redis};
use crate::error::ErrorKind;
use crate::store::Mark;

#[tokio::test]
async fn what_is_no_string_is_foreign_and_can_be_deleted() {
    let subject = redis().await;
    let server = subject.server.as_ref().unwrap();
    let (store, key) = (&subject.store, key("list"));
    let () = ask(server, &["RPUSH", "dev_list", "mine"]);

    let kinds = [
        store.get(&key, 0).await.unwrap_err().kind(),
        store.lease(&key, b"lease", LIFE).await.unwrap_err().kind(),
        store
            .renew(&key, *b"stamp--1", LIFE)
            .await
            .unwrap_err()
            .kind(),
        store
            .replace(&key, *b"stamp--1", b"entry", LIFE)
            .await
            .unwrap_err()
            .kind(),
        store
            .refresh(&key, *b"stamp--1", LIFE, Mark::Claim)
            .await
            .unwrap_err()
            .kind(),
        store
            .fence(&[(key.clone(), fence(b"stamp--1"))], LIFE)
            .await
            .unwrap_err()
            .kind(),
        store.set(&key, b"entry", LIFE).await.unwrap_err().kind(),
        store
            .set_many(&[(key.clone(), b"entry".to_vec())], LIFE)
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
    assert!(store.delete_if(&key, b"stamp--1").await.unwrap());
    assert_eq!(ask::<u32>(server, &["EXISTS", "dev_list"]), 0);
}

#[tokio::test]
async fn of_many_fences_each_is_placed_once_also_by_a_server_that_forgot_the_script() {
    let subject = redis().await;
    let server = subject.server.as_ref().unwrap();
    let fences: Vec<_> = (0..1_200)
        .map(|n| (key(&format!("k{n}")), fence(b"stamp--1")))
        .collect();
    subject.fence(&key("k7"), b"stamp--0").await;
    let () = ask(server, &["SCRIPT", "FLUSH"]);

    let counts = subject.store.fence(&fences, LIFE).await.unwrap();

    let expected: Vec<_> = (0..1_200).map(|n| if n == 7 { 2 } else { 1 }).collect();
    assert_eq!(counts, expected);
    assert_eq!(ask::<u32>(server, &["DBSIZE"]), 1_200);
}

#[tokio::test]
async fn scripts_come_back_when_the_server_forgot_them() {
    let subject = redis().await;
    assert_eq!(subject.fence(&key("a"), b"stamp--1").await, 1);

    let () = ask(subject.server.as_ref().unwrap(), &["SCRIPT", "FLUSH"]);

    assert_eq!(subject.fence(&key("a"), b"stamp--2").await, 2);
}

#[tokio::test]
async fn an_entry_without_expiry_lives_for_ever() {
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
async fn the_server_says_what_it_is() {
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
