//! Operations on many keys, by name or by pattern.

use super::{KIND_LEASE, SingleEntry, Subject, TTL, entry, fence, key};
use crate::entry::FENCE_COUNT_AT;
use crate::key::Key;

on_every_store! {
    batches_keep_their_order
    batches_can_be_large
    a_pattern_removes_what_matches_and_counts_it
    patterns_stay_within_their_prefix_and_skip_reserved_roots
    a_scan_finds_the_names_of_all_patterns_once
    heads_are_returned_in_the_order_of_their_keys
    separate_removals_have_separate_answers
    scans_find_every_one_of_many_keys
    fences_of_one_batch_have_separate_counts
}

async fn batches_keep_their_order(subject: Subject) {
    let pairs: Vec<_> = (0..7)
        .map(|n| (key(&format!("k{n}")), format!("value {n}").into_bytes()))
        .collect();
    subject.store.set_many(&pairs, TTL).await.unwrap();
    let asked = [key("k3"), key("absent"), key("k0"), key("k3")];

    let values = subject.store.get_many(&asked).await.unwrap();

    assert_eq!(
        values,
        [
            Some(b"value 3".to_vec()),
            None,
            Some(b"value 0".to_vec()),
            Some(b"value 3".to_vec())
        ]
    );
    assert_eq!(subject.store.delete(&asked[..3]).await.unwrap(), 2);
    assert!(
        subject
            .store
            .ttl(&key("k6"))
            .await
            .unwrap()
            .is_some_and(|ttl| ttl <= TTL)
    );
}

async fn batches_can_be_large(subject: Subject) {
    let pairs: Vec<_> = (0..1_201)
        .map(|n| (key(&format!("k{n}")), vec![n as u8; 3_000]))
        .collect();
    let keys: Vec<_> = pairs.iter().map(|(key, _)| key.clone()).collect();

    subject.store.set_many(&pairs, TTL).await.unwrap();

    let values = subject.store.get_many(&keys).await.unwrap();
    assert!(
        values
            .iter()
            .zip(&pairs)
            .all(|(value, (_, entry))| value.as_ref() == Some(entry))
    );
    assert_eq!(subject.store.delete(&keys).await.unwrap(), 1_201);
    assert_eq!(
        subject.store.get_many(&[]).await.unwrap(),
        Vec::<Option<Vec<u8>>>::new()
    );
    assert_eq!(subject.store.delete(&[]).await.unwrap(), 0);
    subject.store.set_many(&[], TTL).await.unwrap();
}

async fn a_pattern_removes_what_matches_and_counts_it(subject: Subject) {
    for name in ["event:1", "event:22", "event:1:page:2", "events", "user:1"] {
        subject
            .store
            .set(&key(name), &entry(1, b"stamp--1"), TTL)
            .await
            .unwrap();
    }
    subject
        .store
        .lease(&key("event:leased"), &entry(KIND_LEASE, b"stamp--1"), TTL)
        .await
        .unwrap();

    assert_eq!(subject.delete_matching("event:?").await, 1);
    assert_eq!(subject.delete_matching("event:*").await, 3);
    assert_eq!(subject.delete_matching("event:*").await, 0);

    assert_eq!(subject.get(&key("event:leased")).await, None);
    assert_eq!(subject.keys("*").await, ["dev_events", "dev_user:1"]);
}

async fn patterns_stay_within_their_prefix_and_skip_reserved_roots(subject: Subject) {
    let mine = key("event:1");
    let others: Vec<_> = [
        ("prod_", "event:1"),
        ("dev", ""),
        ("dev_session:", "{a}:1"),
        ("dev_sessions:", "user:{a}"),
        ("dev_ratelimit:", "{ip:1}:p"),
        ("dev_cache:", "own"),
    ]
    .map(|(prefix, rest)| {
        Key::render(prefix, |key| {
            key.text(rest);
        })
    })
    .into();
    for key in others.iter().chain([&mine]) {
        let entry = entry(1, b"stamp--1");
        subject.store.set(key, &entry, TTL).await.unwrap();
    }

    assert_eq!(subject.keys("*").await, ["dev_event:1"]);
    assert_eq!(subject.delete_matching("*").await, 1);

    assert!(
        subject
            .store
            .get_many(&others)
            .await
            .unwrap()
            .iter()
            .all(Option::is_some)
    );
}

async fn a_scan_finds_the_names_of_all_patterns_once(subject: Subject) {
    for name in ["event:1", "event:[2]", "events", "user:1", "x"] {
        subject.set(name, &entry(1, b"stamp--1")).await;
    }
    subject
        .set("event:lease", &entry(KIND_LEASE, b"stamp--1"))
        .await;

    let found = subject.scan(&["event:*", "e*:1", "user:?", "none:*"]).await;

    let expected = [
        "dev_event:1",
        "dev_event:[2]",
        "dev_event:lease",
        "dev_user:1",
    ];
    assert_eq!(found, expected);
    assert_eq!(
        subject.scan(&["event:[2]", "event:[3]"]).await,
        ["dev_event:[2]"]
    );
}

async fn heads_are_returned_in_the_order_of_their_keys(subject: Subject) {
    subject.set("long", b"0123456789").await;
    subject.set("short", b"01").await;

    let keys = [key("short"), key("absent"), key("long")];
    let heads = subject.store.peek(&keys, 4).await.unwrap();

    assert_eq!(heads, [Some(b"01".to_vec()), None, Some(b"0123".to_vec())]);
    assert_eq!(subject.store.peek(&[], 4).await.unwrap(), []);
    let measured = subject.store.measure(&key("long")).await.unwrap();
    assert!(measured.is_some_and(|(size, left)| size == 10 && left <= TTL));
    assert_eq!(subject.store.measure(&key("absent")).await.unwrap(), None);
}

async fn separate_removals_have_separate_answers(subject: Subject) {
    subject.set("a", b"value").await;
    subject.set("c", b"value").await;

    let keys = [key("a"), key("b"), key("c")];
    let answers = subject.store.delete_each(&keys).await.unwrap();

    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [true, false, true]);
    assert!(subject.store.delete_each(&[]).await.unwrap().is_empty());
    assert_eq!(subject.get(&key("c")).await, None);
}

async fn scans_find_every_one_of_many_keys(subject: Subject) {
    let pairs: Vec<_> = (0..3_000)
        .map(|n| (key(&format!("k:{n}")), entry(1, b"stamp--1")))
        .collect();
    subject.store.set_many(&pairs, TTL).await.unwrap();
    subject.set("other", &entry(1, b"stamp--1")).await;

    assert_eq!(subject.keys("k:*").await.len(), 3_000);
    assert_eq!(subject.delete_matching("k:*").await, 3_000);

    assert_eq!(subject.keys("*").await, ["dev_other"]);
}

async fn fences_of_one_batch_have_separate_counts(subject: Subject) {
    let fences = |stamp| -> Vec<_> {
        (0..1_201)
            .map(|n| (key(&format!("k{n}")), fence(stamp)))
            .collect()
    };
    subject.set("k0", &entry(1, b"a-value-")).await;
    let (first, last) = (fences(b"stamp--1"), fences(b"stamp--2"));

    let alone = subject.store.fence(&first[600..], TTL).await.unwrap();
    let mixed = subject.store.fence(&last, TTL).await.unwrap();
    let twice = [("x", b"stamp--3"), ("y", b"stamp--4"), ("x", b"stamp--5")]
        .map(|(name, stamp)| (key(name), fence(stamp)));
    let twice = subject.store.fence(&twice, TTL).await.unwrap();

    assert_eq!(alone, vec![1; 601]);
    assert_eq!(mixed, [vec![1; 600], vec![2; 601]].concat());
    assert_eq!(twice, [1, 1, 2]);
    for (name, count) in [("k0", 1), ("k599", 1), ("k600", 2), ("k1200", 2)] {
        let mut expected = fence(b"stamp--2");
        expected[FENCE_COUNT_AT] = count;
        assert_eq!(subject.get(&key(name)).await, Some(expected), "{name}");
    }
    let left = subject.store.ttl(&key("k1200")).await.unwrap();
    assert!(left.is_some_and(|left| left <= TTL));
    assert_eq!(subject.store.fence(&[], TTL).await.unwrap(), [0; 0]);
}
