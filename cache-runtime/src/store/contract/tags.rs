//! The records of tags.

use std::time::Duration;

use super::{SingleEntry, Subject, TTL, at_once, key};
use crate::entry::FENCED;

on_every_store! {
    a_tag_keeps_the_stamp_that_it_got_first
    callers_that_capture_a_new_tag_at_once_get_one_stamp
    a_removed_tag_gets_another_stamp
    a_captured_tag_lives_longer_but_never_shorter
    a_fenced_tag_has_no_stamp_and_ends_in_time
    a_value_of_another_program_is_not_a_stamp
}

async fn capture(subject: &Subject, names: &[&str], stamp: &[u8; 8]) -> Vec<Option<[u8; 8]>> {
    capture_for(subject, names, stamp, TTL).await
}

async fn capture_for(
    subject: &Subject,
    names: &[&str],
    stamp: &[u8; 8],
    ttl: Duration,
) -> Vec<Option<[u8; 8]>> {
    let tags: Vec<_> = names.iter().copied().map(key).collect();
    subject.store.capture(&tags, *stamp, ttl).await.unwrap()
}

async fn a_tag_keeps_the_stamp_that_it_got_first(subject: Subject) {
    assert_eq!(
        capture(&subject, &["a"], b"stamp--1").await,
        [Some(*b"stamp--1")]
    );

    let stamps = capture(&subject, &["b", "a", "b"], b"stamp--2").await;

    let (first, second) = (Some(*b"stamp--1"), Some(*b"stamp--2"));
    assert_eq!(stamps, [second, first, second]);
    let record = subject.get(&key("a")).await;
    assert_eq!(record.as_deref(), Some(&b"7374616d702d2d31"[..]));
    assert_eq!(capture(&subject, &[], b"stamp--3").await, []);
}

async fn callers_that_capture_a_new_tag_at_once_get_one_stamp(subject: Subject) {
    let mut stamps = at_once(&subject, async |store, stamp| {
        store.capture(&[key("a")], stamp, TTL).await.unwrap()
    })
    .await;

    stamps.dedup();

    assert_eq!(stamps.len(), 1);
    assert!(stamps[0][0].is_some());
}

async fn a_removed_tag_gets_another_stamp(subject: Subject) {
    capture(&subject, &["a"], b"stamp--1").await;

    subject.store.delete(&[key("a")]).await.unwrap();

    assert_eq!(
        capture(&subject, &["a"], b"stamp--2").await,
        [Some(*b"stamp--2")]
    );
}

async fn a_captured_tag_lives_longer_but_never_shorter(subject: Subject) {
    let left = async || subject.store.ttl(&key("a")).await.unwrap().unwrap();
    capture(&subject, &["a"], b"stamp--1").await;
    let first = left().await;
    assert!(first > TTL - TTL / 10 && first <= 2 * TTL, "{first:?}");

    capture_for(&subject, &["a"], b"stamp--1", TTL / 10).await;
    assert!(left().await > TTL - TTL / 10);

    capture_for(&subject, &["a"], b"stamp--1", 10 * TTL).await;
    let longest = left().await;
    assert!(
        longest > 9 * TTL && longest <= 20 * TTL,
        "{longest:?} is left"
    );
}

async fn a_fenced_tag_has_no_stamp_and_ends_in_time(subject: Subject) {
    capture(&subject, &["a"], b"stamp--1").await;
    subject.store.set(&key("a"), FENCED, TTL).await.unwrap();

    let stamps = capture_for(&subject, &["a"], b"stamp--2", 10 * TTL).await;

    assert_eq!(stamps, [None]);
    let left = subject.store.ttl(&key("a")).await.unwrap();
    assert!(left.is_some_and(|left| left <= TTL), "{left:?} is left");
    subject.expire(&key("a"), TTL);
    assert_eq!(
        capture(&subject, &["a"], b"stamp--2").await,
        [Some(*b"stamp--2")]
    );
}

async fn a_value_of_another_program_is_not_a_stamp(subject: Subject) {
    for (name, record) in [
        ("empty", &b""[..]),
        ("long", &[b'a'; 17]),
        ("capital", b"7374616D702D2D31"),
        ("text", b"no stamp is here"),
    ] {
        subject.set(name, record).await;

        assert_eq!(
            capture(&subject, &[name], b"stamp--1").await,
            [None],
            "{name}"
        );
    }
}
