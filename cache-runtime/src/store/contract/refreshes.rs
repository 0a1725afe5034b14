//! Marks of a refresh inside stale entries.

use std::time::Duration;

use super::{LIFE, Subject, at_once, entry, key, memory, redis};
use crate::entry::REFRESH_AT;
use crate::store::{Mark, Refreshing, Replaced};

on_every_store! {
    of_many_who_claim_a_stale_entry_one_may_refresh_it
    a_mark_ends_by_the_stores_clock
    whoever_has_a_mark_prolongs_it_and_takes_it_back
    what_was_not_seen_is_not_marked
    a_mark_changes_nothing_else
    what_is_too_short_for_a_mark_stays_as_it_is
    replacing_tells_another_entry_from_none
}

const SHORT: Duration = Duration::from_secs(3);

async fn with_entry(subject: &Subject) -> Vec<u8> {
    let mut entry = entry(1, b"stamp--1");
    entry[REFRESH_AT..REFRESH_AT + 8].fill(0);
    subject.store.set(&key("a"), &entry, LIFE).await.unwrap();
    entry
}

async fn claim(subject: &Subject) -> Refreshing {
    mark(subject, b"stamp--1", SHORT, Mark::Claim).await
}

async fn mark(subject: &Subject, stamp: &[u8; 8], life: Duration, mark: Mark) -> Refreshing {
    let key = key("a");
    let marked = subject.store.refresh(&key, *stamp, life, mark);
    marked.await.unwrap()
}

fn is_held(refreshing: Refreshing) -> bool {
    matches!(refreshing, Refreshing::Held(left) if left > SHORT / 2 && left <= SHORT)
}

async fn of_many_who_claim_a_stale_entry_one_may_refresh_it(subject: Subject) {
    with_entry(&subject).await;

    let claims = at_once(&subject, |store, _| async move {
        let key = key("a");
        let claim = store.refresh(&key, *b"stamp--1", SHORT, Mark::Claim);
        claim.await.unwrap()
    });

    let (won, rest): (Vec<_>, Vec<_>) = claims
        .await
        .into_iter()
        .partition(|claim| *claim == Refreshing::Marked);
    assert_eq!(won.len(), 1);
    assert!(rest.into_iter().all(is_held));
}

async fn a_mark_ends_by_the_stores_clock(subject: Subject) {
    with_entry(&subject).await;
    let short = Duration::from_millis(20);
    assert_eq!(
        mark(&subject, b"stamp--1", short, Mark::Claim).await,
        Refreshing::Marked
    );

    subject.clock.advance(short);
    let taken = loop {
        match claim(&subject).await {
            Refreshing::Held(left) => assert!(left <= short),
            other => break other,
        }
    };

    assert_eq!(taken, Refreshing::Marked);
    assert!(is_held(claim(&subject).await));
}

async fn whoever_has_a_mark_prolongs_it_and_takes_it_back(subject: Subject) {
    with_entry(&subject).await;
    mark(&subject, b"stamp--1", SHORT / 10, Mark::Claim).await;

    let prolonged = mark(&subject, b"stamp--1", SHORT, Mark::Own).await;
    let held = claim(&subject).await;
    let taken_back = mark(&subject, b"stamp--1", Duration::ZERO, Mark::Own).await;

    assert_eq!(prolonged, Refreshing::Marked);
    assert!(is_held(held), "{held:?}");
    assert_eq!(taken_back, Refreshing::Marked);
    assert_eq!(claim(&subject).await, Refreshing::Marked);
}

async fn what_was_not_seen_is_not_marked(subject: Subject) {
    let before = with_entry(&subject).await;

    for of in [Mark::Claim, Mark::Own] {
        assert_eq!(
            mark(&subject, b"another1", SHORT, of).await,
            Refreshing::Gone
        );
    }
    assert_eq!(subject.get(&key("a")).await, Some(before));
    subject.store.delete(&[key("a")]).await.unwrap();
    for of in [Mark::Claim, Mark::Own] {
        assert_eq!(
            mark(&subject, b"stamp--1", SHORT, of).await,
            Refreshing::Gone
        );
    }
    assert_eq!(subject.get(&key("a")).await, None);
}

async fn a_mark_changes_nothing_else(subject: Subject) {
    let before = with_entry(&subject).await;

    claim(&subject).await;

    let mut after = subject.get(&key("a")).await.unwrap();
    assert_ne!(after[REFRESH_AT..REFRESH_AT + 8], [0; 8]);
    after[REFRESH_AT..REFRESH_AT + 8].fill(0);
    assert_eq!(after, before);
    let left = subject.store.ttl(&key("a")).await.unwrap().unwrap();
    assert!(left > LIFE / 2 && left <= LIFE, "{left:?}");
}

async fn what_is_too_short_for_a_mark_stays_as_it_is(subject: Subject) {
    let short = b"another_stamp--1, and no header".to_vec();
    let stamp: [u8; 8] = short[8..16].try_into().unwrap();
    subject.store.set(&key("a"), &short, LIFE).await.unwrap();

    let marked = mark(&subject, &stamp, SHORT, Mark::Claim).await;

    assert_eq!(marked, Refreshing::Gone);
    assert_eq!(subject.get(&key("a")).await, Some(short));
}

async fn replacing_tells_another_entry_from_none(subject: Subject) {
    let replace = async |stamp: &[u8; 8]| {
        let (key, new) = (key("a"), entry(1, b"stamp--2"));
        let replaced = subject.store.replace(&key, *stamp, &new, LIFE);
        replaced.await.unwrap()
    };

    let absent = replace(b"stamp--1").await;
    with_entry(&subject).await;
    let other = replace(b"another1").await;
    let same = replace(b"stamp--1").await;

    assert_eq!(
        [absent, other, same],
        [Replaced::Gone, Replaced::Other, Replaced::Done]
    );
}
