//! Operations on one key.

use std::time::Duration;

use super::{KIND_LEASE, SingleEntry, Subject, TTL, at_once, entry, fence, key};
use crate::entry::{self, CLOCK_SKEW, FENCE_COUNT_AT};
use crate::error::ErrorKind;
use crate::store::Replaced;

on_every_store! {
    every_operation_reports_an_absent_key
    values_are_read_back_byte_for_byte
    values_of_1_mib_are_read_back
    the_first_caller_gets_the_lease_and_others_get_the_content
    one_of_many_concurrent_leases_wins
    a_replacement_needs_the_stamp
    a_fill_needs_the_claim_of_its_load
    a_refused_replacement_distinguishes_another_entry_from_none
    one_of_many_concurrent_replacements_wins
    an_eviction_defeats_a_fill
    only_a_dead_claim_of_its_stamp_is_removed
    a_dead_fence_counts_no_put
    fences_count_their_puts
    concurrent_fences_get_different_counts
    a_conditional_delete_needs_the_stamp
    short_values_have_a_short_stamp
    an_entry_expires_after_its_ttl
    a_ttl_below_1_ms_is_1_ms
    a_closed_store_is_unavailable
}

async fn every_operation_reports_an_absent_key(subject: Subject) {
    let (store, key) = (&subject.store, key("absent"));

    assert_eq!(store.get(&key, 100).await.unwrap(), None);
    assert_eq!(
        store.get_many(std::slice::from_ref(&key)).await.unwrap(),
        [None]
    );
    assert!(!store.delete_dead(&key, *b"stamp--1").await.unwrap());
    assert_eq!(
        store
            .replace(&key, *b"stamp--1", b"entry", TTL)
            .await
            .unwrap(),
        Replaced::Gone
    );
    assert!(!store.delete_if(&key, b"stamp--1").await.unwrap());
    assert!(!store.delete_if(&key, b"").await.unwrap());
    assert_eq!(store.delete(std::slice::from_ref(&key)).await.unwrap(), 0);
    assert_eq!(store.ttl(&key).await.unwrap(), None);
    assert_eq!(subject.get(&key).await, None);
}

async fn values_are_read_back_byte_for_byte(subject: Subject) {
    let entry: Vec<u8> = (0..=255)
        .chain(0..=255)
        .chain(*b"\r\n\0\r\n$5\r\n")
        .collect();

    subject.store.set(&key("a"), &entry, TTL).await.unwrap();
    subject.store.set(&key("empty"), b"", TTL).await.unwrap();

    assert_eq!(subject.get(&key("a")).await, Some(entry));
    assert_eq!(subject.get(&key("empty")).await, Some(Vec::new()));
}

async fn values_of_1_mib_are_read_back(subject: Subject) {
    let big = |seed: u8, stamp: &[u8; 8]| {
        let mut entry: Vec<u8> = (0..1 << 20)
            .map(|at: u32| (at.wrapping_mul(31) as u8) ^ seed)
            .collect();
        entry[8..16].copy_from_slice(stamp);
        entry
    };
    let (old, new) = (big(1, b"stamp--1"), big(2, b"stamp--2"));

    subject.store.set(&key("a"), &old, TTL).await.unwrap();
    assert_eq!(subject.get(&key("a")).await.as_deref(), Some(&*old));
    assert_eq!(
        subject
            .store
            .replace(&key("a"), *b"stamp--1", &new, TTL)
            .await
            .unwrap(),
        Replaced::Done
    );

    assert_eq!(
        subject
            .store
            .get(&key("a"), 1 << 20)
            .await
            .unwrap()
            .as_deref(),
        Some(&*new)
    );
}

async fn the_first_caller_gets_the_lease_and_others_get_the_content(subject: Subject) {
    let (first, second) = (
        entry(KIND_LEASE, b"stamp--1"),
        entry(KIND_LEASE, b"stamp--2"),
    );

    assert_eq!(
        subject.store.lease(&key("a"), &first, TTL).await.unwrap(),
        None
    );
    assert_eq!(
        subject.store.lease(&key("a"), &second, TTL).await.unwrap(),
        Some(first.clone())
    );

    assert_eq!(subject.get(&key("a")).await, Some(first));
    assert!(
        subject
            .store
            .ttl(&key("a"))
            .await
            .unwrap()
            .is_some_and(|ttl| ttl <= TTL)
    );
}

async fn one_of_many_concurrent_leases_wins(subject: Subject) {
    let winners = at_once(&subject, |store, stamp| async move {
        store
            .lease(&key("a"), &entry(KIND_LEASE, &stamp), TTL)
            .await
            .unwrap()
            .is_none()
    });

    assert_eq!(winners.await.into_iter().filter(|won| *won).count(), 1);
}

async fn a_replacement_needs_the_stamp(subject: Subject) {
    let value = entry(1, b"stamp--2");
    subject
        .store
        .lease(
            &key("a"),
            &entry(KIND_LEASE, b"stamp--1"),
            Duration::from_secs(3),
        )
        .await
        .unwrap();

    assert_eq!(
        subject
            .store
            .replace(&key("a"), *b"another1", &value, TTL)
            .await
            .unwrap(),
        Replaced::Other
    );
    assert_eq!(
        subject
            .store
            .replace(&key("a"), *b"stamp--1", &value, TTL)
            .await
            .unwrap(),
        Replaced::Done
    );
    assert_eq!(
        subject
            .store
            .replace(&key("a"), *b"stamp--1", b"late", TTL)
            .await
            .unwrap(),
        Replaced::Other
    );

    assert_eq!(subject.get(&key("a")).await, Some(value));
    assert!(
        subject
            .store
            .ttl(&key("a"))
            .await
            .unwrap()
            .is_some_and(|ttl| ttl > Duration::from_secs(50))
    );
}

async fn a_fill_needs_the_claim_of_its_load(subject: Subject) {
    let (store, name) = (&subject.store, key("a"));
    let now = subject.now();
    let claim = entry::lease(&name, now, TTL);
    let value = entry(1, b"stamp--2");
    let fill = || store.fill(&name, &claim, &value, TTL);

    let absent = fill().await.unwrap();
    subject.set("a", &entry(KIND_LEASE, b"stamp--1")).await;
    let other = fill().await.unwrap();
    subject.set("a", claim.as_bytes()).await;
    let placed = fill().await.unwrap();
    let filled = (subject.get(&name).await, store.ttl(&name).await.unwrap());
    let again = fill().await.unwrap();
    let renewed = entry::renewed_lease(claim.stamp(), &name, now + 1, TTL);
    subject.set("a", renewed.as_bytes()).await;
    let renewed = fill().await.unwrap();

    assert_eq!(
        [absent, other, placed, again, renewed],
        [
            Replaced::Gone,
            Replaced::Other,
            Replaced::Done,
            Replaced::Other,
            Replaced::Done,
        ]
    );
    assert_eq!(filled.0.as_ref(), Some(&value));
    assert!(filled.1.is_some_and(|ttl| ttl <= TTL), "{:?}", filled.1);
    assert_eq!(subject.get(&name).await, Some(value));
}

async fn a_refused_replacement_distinguishes_another_entry_from_none(subject: Subject) {
    let name = key("a");
    let replace = || subject.store.replace(&name, *b"stamp--1", b"late", TTL);

    let absent = replace().await.unwrap();
    subject.set("a", &entry(1, b"stamp--2")).await;
    let other = replace().await.unwrap();
    subject.set("a", b"short").await;
    let short = replace().await.unwrap();
    subject.set("a", b"").await;
    let empty = replace().await.unwrap();
    subject.expire(&key("a"), TTL);
    let expired = replace().await.unwrap();

    assert_eq!((absent, expired), (Replaced::Gone, Replaced::Gone));
    assert_eq!([other, short, empty], [Replaced::Other; 3]);
    assert_eq!(subject.get(&key("a")).await, None);
}

async fn one_of_many_concurrent_replacements_wins(subject: Subject) {
    subject
        .store
        .set(&key("a"), &entry(1, b"original"), TTL)
        .await
        .unwrap();

    let winners = at_once(&subject, |store, stamp| async move {
        store
            .replace(&key("a"), *b"original", &entry(1, &stamp), TTL)
            .await
            .unwrap()
    });

    assert_eq!(
        winners
            .await
            .into_iter()
            .filter(|won| *won == Replaced::Done)
            .count(),
        1
    );
}

async fn an_eviction_defeats_a_fill(subject: Subject) {
    subject
        .store
        .lease(&key("a"), &entry(KIND_LEASE, b"stamp--1"), TTL)
        .await
        .unwrap();

    assert_eq!(subject.store.delete(&[key("a")]).await.unwrap(), 1);

    assert_eq!(
        subject
            .store
            .replace(&key("a"), *b"stamp--1", b"stale", TTL)
            .await
            .unwrap(),
        Replaced::Gone
    );
    assert_eq!(subject.get(&key("a")).await, None);
}

async fn only_a_dead_claim_of_its_stamp_is_removed(subject: Subject) {
    let (store, key) = (&subject.store, key("a"));
    let claim = |ttl| entry::lease(&key, subject.now(), ttl);
    let alive = claim(TTL);
    store.set(&key, alive.as_bytes(), TTL).await.unwrap();

    assert!(!store.delete_dead(&key, alive.stamp()).await.unwrap());
    assert!(!store.delete_dead(&key, *b"another1").await.unwrap());

    // It ends in the store later than it says, by more than any clock can be wrong.
    let too_long = 2 * CLOCK_SKEW + TTL;
    store.set(&key, alive.as_bytes(), too_long).await.unwrap();
    assert!(!store.delete_dead(&key, *b"another1").await.unwrap());
    assert!(store.delete_dead(&key, alive.stamp()).await.unwrap());
    assert_eq!(subject.get(&key).await, None);
    assert!(!store.delete_dead(&key, alive.stamp()).await.unwrap());
}

async fn a_dead_fence_counts_no_put(subject: Subject) {
    let (store, key) = (&subject.store, key("a"));
    let fence = || entry::fence(&key, subject.now(), TTL).into_bytes();
    let fences = [(key.clone(), fence())];
    store
        .set(&key, &fence(), 2 * CLOCK_SKEW + TTL)
        .await
        .unwrap();

    let counts = [
        store.fence(&fences, TTL).await.unwrap(),
        store.fence(&fences, TTL).await.unwrap(),
    ];

    assert_eq!(counts, [[1], [2]]);
}

async fn fences_count_their_puts(subject: Subject) {
    subject
        .store
        .set(&key("a"), &entry(1, b"a-value-"), TTL)
        .await
        .unwrap();

    assert_eq!(
        subject
            .store
            .fence(&[(key("a"), fence(b"stamp--1"))], TTL)
            .await
            .unwrap(),
        [1]
    );
    assert_eq!(
        subject
            .store
            .fence(&[(key("a"), fence(b"stamp--2"))], TTL)
            .await
            .unwrap(),
        [2]
    );

    let standing = subject.get(&key("a")).await.unwrap();
    let mut expected = fence(b"stamp--2");
    expected[FENCE_COUNT_AT] = 2;
    assert_eq!(standing, expected);
    assert_eq!(
        subject
            .store
            .fence(&[(key("fresh"), fence(b"stamp--1"))], TTL)
            .await
            .unwrap(),
        [1]
    );
    assert!(
        subject
            .store
            .ttl(&key("fresh"))
            .await
            .unwrap()
            .is_some_and(|ttl| ttl <= TTL)
    );
}

async fn concurrent_fences_get_different_counts(subject: Subject) {
    let counts = at_once(&subject, |store, stamp| async move {
        store
            .fence(&[(key("a"), fence(&stamp))], TTL)
            .await
            .unwrap()
    });

    let mut counts = counts.await.concat();
    counts.sort_unstable();
    assert_eq!(counts, (1..=32).collect::<Vec<u32>>());
}

async fn a_conditional_delete_needs_the_stamp(subject: Subject) {
    subject
        .store
        .set(&key("a"), &entry(1, b"stamp--1"), TTL)
        .await
        .unwrap();

    assert!(
        !subject
            .store
            .delete_if(&key("a"), b"another1")
            .await
            .unwrap()
    );
    assert!(subject.get(&key("a")).await.is_some());
    assert!(
        subject
            .store
            .delete_if(&key("a"), b"stamp--1")
            .await
            .unwrap()
    );

    assert_eq!(subject.get(&key("a")).await, None);
}

async fn short_values_have_a_short_stamp(subject: Subject) {
    subject.store.set(&key("tiny"), b"abc", TTL).await.unwrap();
    subject
        .store
        .set(&key("short"), b"01234567xyz", TTL)
        .await
        .unwrap();

    assert!(!subject.store.delete_if(&key("short"), b"").await.unwrap());
    assert!(
        subject
            .store
            .delete_if(&key("short"), b"xyz")
            .await
            .unwrap()
    );
    assert!(subject.store.delete_if(&key("tiny"), b"").await.unwrap());
}

async fn an_entry_expires_after_its_ttl(subject: Subject) {
    subject
        .store
        .set(&key("a"), &entry(1, b"stamp--1"), TTL)
        .await
        .unwrap();
    assert!(
        subject
            .store
            .ttl(&key("a"))
            .await
            .unwrap()
            .is_some_and(|ttl| ttl > Duration::from_secs(50) && ttl <= TTL)
    );

    subject.expire(&key("a"), TTL);

    assert_eq!(subject.get(&key("a")).await, None);
    assert_eq!(subject.store.ttl(&key("a")).await.unwrap(), None);
    assert_eq!(subject.store.delete(&[key("a")]).await.unwrap(), 0);
    assert_eq!(subject.keys("*").await, Vec::<String>::new());
    assert_eq!(
        subject
            .store
            .lease(&key("a"), &entry(KIND_LEASE, b"stamp--2"), TTL)
            .await
            .unwrap(),
        None
    );
}

async fn a_ttl_below_1_ms_is_1_ms(subject: Subject) {
    subject
        .store
        .set(&key("a"), &entry(1, b"stamp--1"), Duration::ZERO)
        .await
        .unwrap();
    subject
        .store
        .lease(
            &key("b"),
            &entry(KIND_LEASE, b"stamp--1"),
            Duration::from_nanos(1),
        )
        .await
        .unwrap();

    assert!(
        subject
            .store
            .ttl(&key("a"))
            .await
            .unwrap()
            .is_none_or(|ttl| ttl <= Duration::from_millis(1))
    );
}

async fn a_closed_store_is_unavailable(subject: Subject) {
    subject.store.set(&key("a"), b"entry", TTL).await.unwrap();

    subject.store.close().await;

    let kinds = [
        subject.store.get(&key("a"), 0).await.unwrap_err().kind(),
        subject
            .store
            .set(&key("a"), b"entry", TTL)
            .await
            .unwrap_err()
            .kind(),
        subject.store.delete(&[key("a")]).await.unwrap_err().kind(),
        subject.store.probe().await.unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Unavailable; 4]);
}
