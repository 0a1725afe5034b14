//! The mark of the caller that refreshes a stale entry.

use std::time::Duration;

use super::{Mark, Refreshing, SingleEntry, Subject, TTL, at_once, entry, key};
use crate::entry::{self, Draft, Layers, Limits, Origin, REFRESH_AT, Read, Reader};

on_every_store! {
    one_of_many_concurrent_refreshes_wins_and_the_others_get_its_rest
    a_mark_ends_by_the_clock_of_the_store
    the_owner_of_a_mark_extends_and_removes_it
    another_stamp_and_an_absent_key_cannot_be_marked
    a_mark_changes_neither_value_nor_stamp_nor_expiry
    a_marked_entry_still_reads_as_its_value
    a_value_that_is_not_an_entry_is_never_marked
    a_damaged_mark_counts_and_can_be_replaced
}

/// The duration of a mark.
const WHILE: Duration = Duration::from_secs(10);

/// Returns how long a later caller must wait.
async fn held(subject: &Subject) -> Duration {
    match subject.refresh(b"stamp--1", WHILE, Mark::Claim).await {
        Refreshing::Held(ttl) => ttl,
        other => panic!("{other:?}"),
    }
}

fn nearly(ttl: Duration, expected: Duration) -> bool {
    ttl <= expected && ttl > expected - Duration::from_secs(5)
}

async fn one_of_many_concurrent_refreshes_wins_and_the_others_get_its_rest(subject: Subject) {
    subject.set("a", &entry(1, b"stamp--1")).await;

    let answers = at_once(&subject, |store, _| async move {
        store
            .refresh(&key("a"), *b"stamp--1", WHILE, Mark::Claim)
            .await
            .unwrap()
    });

    let (marked, others): (Vec<_>, Vec<_>) = answers
        .await
        .into_iter()
        .partition(|answer| *answer == Refreshing::Marked);
    assert_eq!((marked.len(), others.len()), (1, 31));
    for other in others {
        assert!(
            matches!(other, Refreshing::Held(ttl) if nearly(ttl, WHILE)),
            "{other:?}"
        );
    }
}

async fn a_mark_ends_by_the_clock_of_the_store(subject: Subject) {
    subject.set("a", &entry(1, b"stamp--1")).await;
    let first = subject.refresh(b"stamp--1", WHILE, Mark::Claim).await;
    assert!(nearly(held(&subject).await, WHILE));

    subject.end_mark(&key("a"), WHILE);

    let next = subject.refresh(b"stamp--1", WHILE, Mark::Claim).await;
    assert_eq!((first, next), (Refreshing::Marked, Refreshing::Marked));
    assert!(nearly(held(&subject).await, WHILE));
}

async fn the_owner_of_a_mark_extends_and_removes_it(subject: Subject) {
    subject.set("a", &entry(1, b"stamp--1")).await;
    subject.refresh(b"stamp--1", WHILE, Mark::Claim).await;

    let longer = subject.refresh(b"stamp--1", 3 * WHILE, Mark::Own).await;
    let prolonged = held(&subject).await;
    let gone = subject
        .refresh(b"stamp--1", Duration::ZERO, Mark::Own)
        .await;
    let mark = subject.get(&key("a")).await.unwrap()[REFRESH_AT..REFRESH_AT + 8].to_vec();
    let next = subject.refresh(b"stamp--1", WHILE, Mark::Claim).await;

    assert_eq!([longer, gone, next], [Refreshing::Marked; 3]);
    assert!(nearly(prolonged, 3 * WHILE), "{prolonged:?}");
    assert_eq!(mark, [0; 8]);
}

async fn another_stamp_and_an_absent_key_cannot_be_marked(subject: Subject) {
    let absent = [
        subject.refresh(b"stamp--1", WHILE, Mark::Claim).await,
        subject.refresh(b"stamp--1", WHILE, Mark::Own).await,
    ];
    let nothing = subject.get(&key("a")).await;
    subject.set("a", &entry(1, b"stamp--2")).await;

    let other = [
        subject.refresh(b"stamp--1", WHILE, Mark::Claim).await,
        subject.refresh(b"stamp--1", WHILE, Mark::Own).await,
    ];

    assert_eq!(
        (absent, other),
        ([Refreshing::Gone; 2], [Refreshing::Gone; 2])
    );
    assert_eq!(nothing, None);
    assert_eq!(subject.get(&key("a")).await, Some(entry(1, b"stamp--2")));
}

async fn a_mark_changes_neither_value_nor_stamp_nor_expiry(subject: Subject) {
    let mut expected = entry(1, b"stamp--1");
    let ttl = Duration::from_secs(20);
    subject.store.set(&key("a"), &expected, ttl).await.unwrap();

    subject.refresh(b"stamp--1", TTL, Mark::Claim).await;
    subject.refresh(b"stamp--1", 2 * TTL, Mark::Own).await;

    let marked = subject.get(&key("a")).await.unwrap();
    expected[REFRESH_AT..REFRESH_AT + 8].copy_from_slice(&marked[REFRESH_AT..REFRESH_AT + 8]);
    assert_eq!(marked, expected);
    let left = subject.store.ttl(&key("a")).await.unwrap().unwrap();
    assert!(nearly(left, ttl), "{left:?}");
}

async fn a_marked_entry_still_reads_as_its_value(subject: Subject) {
    let key = key("a");
    let limits = Limits {
        max_value: 1 << 20,
        compress_above: 1 << 10,
        card_guard: false,
        checks: false,
    };
    let origin = Origin::of::<String>(7, 0);
    let draft = Draft {
        key: &key,
        origin,
        layers: Layers::Nothing,
        now: 1_000,
        fresh: TTL,
        cost: Duration::ZERO,
        tags: &[],
    };
    let entry = entry::value(&draft, &"value".to_owned(), &limits).unwrap();
    subject.set("a", entry.as_bytes()).await;

    let answer = subject.refresh(&entry.stamp(), WHILE, Mark::Claim).await;

    let bytes = subject.get(&key).await.unwrap();
    assert_eq!(answer, Refreshing::Marked);
    assert_ne!(bytes, entry.as_bytes());
    let reader = Reader {
        key: &key,
        origin,
        now: 1_000,
        grace: 0,
        max_value: limits.max_value,
    };
    let read = entry::read_as::<String>(&bytes, &reader);
    assert!(
        matches!(&read, Read::Value(value, meta) if value == "value" && meta.stamp == entry.stamp()),
        "{read:?}"
    );
}

async fn a_value_that_is_not_an_entry_is_never_marked(subject: Subject) {
    let mut foreign = entry(1, b"stamp--1");
    foreign[0] = b'x';
    let mut of_another_format = entry(1, b"stamp--1");
    of_another_format[3] = 1;
    let cut = entry(1, b"stamp--1")[..REFRESH_AT + 7].to_vec();

    for bytes in [
        foreign,
        of_another_format,
        cut,
        b"01234567stamp--1".to_vec(),
    ] {
        subject.set("a", &bytes).await;

        let answers = [
            subject.refresh(b"stamp--1", WHILE, Mark::Claim).await,
            subject.refresh(b"stamp--1", WHILE, Mark::Own).await,
        ];

        assert_eq!(answers, [Refreshing::Gone; 2], "{bytes:?}");
        assert_eq!(subject.get(&key("a")).await, Some(bytes));
    }
}

async fn a_damaged_mark_counts_and_can_be_replaced(subject: Subject) {
    for mark in [u64::MAX, 1 << 63, 1 << 62] {
        let mut damaged = entry(1, b"stamp--1");
        damaged[REFRESH_AT..REFRESH_AT + 8].copy_from_slice(&mark.to_le_bytes());
        subject.set("a", &damaged).await;

        let standing = held(&subject).await;
        let replaced = subject.refresh(b"stamp--1", WHILE, Mark::Own).await;

        assert!(standing > 1_000_000 * TTL, "{mark}: {standing:?}");
        assert_eq!(replaced, Refreshing::Marked);
        assert!(nearly(held(&subject).await, WHILE));
    }
}
