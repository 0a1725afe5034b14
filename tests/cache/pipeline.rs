//! Hits, misses, and what is stored.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::{Cache, TtlPolicy, cacheable};
use redis::AsyncCommands;
use serde::{Deserialize, Serialize};

use crate::support::{Table, cache, connect, raw, row, server};

#[tokio::test]
async fn a_second_call_is_served_from_redis() {
    let server = server();
    let (one, two) = (cache(&server).await, cache(&server).await);
    let table = Table::default();

    row(&one, &table, 1).await;
    row(&one, &table, 1).await;
    row(&two, &table, 1).await;
    row(&two, &table, 2).await;

    assert_eq!(table.reads(), 2);
    let (first, second) = (one.stats().total, two.stats().total);
    assert_eq!((first.hits, first.misses, first.fills), (1, 1, 1));
    assert_eq!((second.hits, second.misses, second.fills), (1, 1, 1));
    assert_eq!(first.misses_by_reason["absent"], 1);
}

#[tokio::test]
async fn an_entry_expires_in_redis_after_its_ttl_and_contains_plain_json() {
    let server = server();
    let cache = cache(&server).await;

    row(&cache, &Table::default(), 1).await;

    let mut raw = raw(&server).await;
    let left: i64 = raw.pttl("test_row:1").await.unwrap();
    assert!((50_000..=60_000).contains(&left), "{left} ms");
    let stored: Vec<u8> = raw.get("test_row:1").await.unwrap();
    assert!(stored.ends_with(b"0"), "the payload is plain JSON");
}

#[tokio::test]
async fn an_expired_value_is_loaded_again() {
    let server = server();
    let config = server.config();
    let clock = config.clock.clone();
    let cache = connect(config).await;
    let table = Table::default();

    row(&cache, &table, 1).await;
    clock.advance(Duration::from_secs(59));
    row(&cache, &table, 1).await;
    assert_eq!(table.reads(), 1);

    clock.advance(Duration::from_secs(2));
    row(&cache, &table, 1).await;
    assert_eq!(table.reads(), 2);
    row(&cache, &table, 1).await;
    assert_eq!(table.reads(), 2);
}

#[cacheable(key = "maybe:<id>", ignore = [loads], ttl = 60, cache = cache)]
async fn maybe(cache: &Cache, id: u64, loads: &AtomicUsize) -> Option<String> {
    loads.fetch_add(1, Ordering::SeqCst);
    (id > 0).then(|| format!("row {id}"))
}

#[cacheable(key = "remembered:<id>", ignore = [loads], ttl = 60, none_ttl = 30, cache = cache)]
async fn remembered(
    cache: &Cache,
    id: u64,
    loads: &AtomicUsize,
) -> Result<Option<String>, std::fmt::Error> {
    loads.fetch_add(1, Ordering::SeqCst);
    Ok((id > 0).then(|| format!("row {id}")))
}

#[tokio::test]
async fn none_is_stored_only_with_none_ttl() {
    let server = server();
    let cache = cache(&server).await;
    let (plain, remembering) = (AtomicUsize::new(0), AtomicUsize::new(0));

    for _ in 0..3 {
        assert_eq!(maybe(&cache, 0, &plain).await, None);
        assert_eq!(remembered(&cache, 0, &remembering).await, Ok(None));
    }

    assert_eq!(plain.load(Ordering::SeqCst), 3);
    assert_eq!(remembering.load(Ordering::SeqCst), 1);
    let left: i64 = raw(&server).await.pttl("test_remembered:0").await.unwrap();
    assert!((20_000..=30_000).contains(&left), "{left} ms");
    assert_eq!(cache.stats().total.hits_none, 2);
}

#[cacheable(key = "policy:<id>", policy = "events", cache = cache)]
async fn by_policy(cache: &Cache, id: u64) -> u64 {
    id
}

#[tokio::test]
async fn a_policy_sets_the_ttl_and_an_unknown_policy_uses_the_default() {
    let server = server();
    let mut policy = TtlPolicy::default();
    policy.ttl = Some(Duration::from_secs(7));
    let known = connect(server.config().policy("events", policy)).await;
    let unknown = connect(server.config().prefix("other_")).await;

    by_policy(&known, 1).await;
    by_policy(&unknown, 1).await;

    let mut raw = raw(&server).await;
    let by_policy: i64 = raw.pttl("test_policy:1").await.unwrap();
    let by_default: i64 = raw.pttl("other_policy:1").await.unwrap();
    assert!((1..=7_000).contains(&by_policy), "{by_policy} ms");
    assert!(by_default > 3_500_000, "{by_default} ms");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    text: String,
}

#[cacheable(key = "text:<id>", ignore = [loads, text], ttl = 60, cache = cache)]
async fn text(cache: &Cache, id: u64, loads: &AtomicUsize, text: String) -> Row {
    loads.fetch_add(1, Ordering::SeqCst);
    Row { text }
}

#[tokio::test]
async fn large_values_and_card_numbers_are_returned_but_not_stored() {
    let server = server();
    let cache = connect(server.config().max_value(1_000).card_guard(true)).await;
    let loads = AtomicUsize::new(0);

    for _ in 0..2 {
        text(&cache, 1, &loads, "x".repeat(2_000)).await;
        let row = text(&cache, 2, &loads, "4111 1111 1111 1111".into()).await;
        assert_eq!(row.text, "4111 1111 1111 1111");
        text(&cache, 3, &loads, "4111 1111 1111 1112".into()).await;
    }

    assert_eq!(loads.load(Ordering::SeqCst), 5);
    let total = cache.stats().total;
    assert_eq!((total.refused_too_large, total.refused_card), (2, 2));
    assert_eq!(cache.keys("*").await, ["text:3"]);
}

#[tokio::test]
async fn a_large_value_is_compressed_and_decompressed() {
    let server = server();
    let cache = cache(&server).await;
    let loads = AtomicUsize::new(0);
    let long = "all work and no play ".repeat(1_000);

    text(&cache, 1, &loads, long.clone()).await;
    let row = text(&cache, 1, &loads, String::new()).await;

    assert_eq!(row.text, long);
    let stored: usize = raw(&server).await.strlen("test_text:1").await.unwrap();
    assert!(stored < long.len() / 5, "{stored} bytes");
}

#[tokio::test]
async fn an_unreadable_entry_is_a_miss_and_is_replaced() {
    let server = server();
    let cache = cache(&server).await;
    let mut raw = raw(&server).await;
    let loads = AtomicUsize::new(0);
    text(&cache, 1, &loads, "right".into()).await;
    let good: Vec<u8> = raw.get("test_text:1").await.unwrap();
    let damaged = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };

    let bad = [
        ("foreign", b"somebody else's".to_vec()),
        ("foreign", Vec::new()),
        ("format", damaged(3)),
        ("corrupted", damaged(good.len() - 3)),
        ("corrupted", good[..40].to_vec()),
    ];
    for (reason, bytes) in bad {
        let before = loads.load(Ordering::SeqCst);
        let counted = cache
            .stats()
            .total
            .misses_by_reason
            .get(reason)
            .copied()
            .unwrap_or(0);
        let () = raw.set("test_text:1", bytes).await.unwrap();

        assert_eq!(text(&cache, 1, &loads, "right".into()).await.text, "right");
        assert_eq!(
            text(&cache, 1, &loads, "not run".into()).await.text,
            "right"
        );

        assert_eq!(loads.load(Ordering::SeqCst), before + 1, "{reason}");
        assert_eq!(cache.stats().total.misses_by_reason[reason], counted + 1);
    }
}

#[tokio::test]
async fn an_entry_copied_to_another_key_is_not_served() {
    let server = server();
    let cache = cache(&server).await;
    let loads = AtomicUsize::new(0);
    text(&cache, 1, &loads, "one".into()).await;
    let () = raw(&server)
        .await
        .rename("test_text:1", "test_text:2")
        .await
        .unwrap();

    assert_eq!(text(&cache, 2, &loads, "two".into()).await.text, "two");
    assert_eq!(text(&cache, 2, &loads, "not run".into()).await.text, "two");

    assert_eq!(cache.stats().total.misses_by_reason["other_key"], 1);
}

#[cacheable(key = "readings", ttl = 60, cache = cache)]
async fn readings(cache: &Cache) -> Vec<Option<f64>> {
    vec![None, Some(f64::NAN), Some(0.1)]
}

#[tokio::test]
async fn a_value_that_json_changes_is_not_stored() {
    let cache = Cache::memory();

    for _ in 0..2 {
        assert!(readings(&cache).await[1].is_some_and(f64::is_nan));
    }
    assert_eq!(cache.stats().total.encode_failed, 2);
}

/// Panics when it is serialized, or when it is deserialized.
#[derive(Debug, PartialEq)]
enum Explosive {
    In,
    Out,
}

impl serde::Serialize for Explosive {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_eq!(*self, Self::Out, "does not serialize");
        serializer.serialize_unit()
    }
}

impl<'de> serde::Deserialize<'de> for Explosive {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("does not deserialize")
    }
}

#[cacheable(key = "explosive:<id>", ttl = 60, cache = cache)]
async fn explosive(cache: &Cache, id: u64) -> Explosive {
    match id {
        0 => Explosive::In,
        _ => Explosive::Out,
    }
}

#[tokio::test]
async fn a_value_is_returned_even_if_its_serde_code_panics() {
    let cache = Cache::memory();

    for _ in 0..2 {
        assert_eq!(explosive(&cache, 0).await, Explosive::In);
        assert_eq!(explosive(&cache, 1).await, Explosive::Out);
    }
    assert_eq!(cache.stats().total.encode_failed, 2);
}

#[tokio::test]
async fn a_redis_list_is_a_miss_and_is_replaced() {
    let server = server();
    let cache = cache(&server).await;
    let loads = AtomicUsize::new(0);
    let () = raw(&server)
        .await
        .rpush("test_text:1", "item")
        .await
        .unwrap();

    assert_eq!(text(&cache, 1, &loads, "one".into()).await.text, "one");
    assert_eq!(text(&cache, 1, &loads, "not run".into()).await.text, "one");

    assert_eq!(cache.stats().total.misses_by_reason["foreign"], 1);
}

mod old {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct Row {
        pub(super) text: u64,
    }

    #[cacheable(key = "text:<id>", ttl = 60, cache = cache)]
    pub(super) async fn text(cache: &Cache, id: u64) -> Row {
        Row { text: 7 }
    }
}

#[tokio::test]
async fn a_changed_struct_gets_misses_instead_of_wrong_values() {
    let server = server();
    let cache = cache(&server).await;
    let loads = AtomicUsize::new(0);
    assert_eq!(old::text(&cache, 1).await.text, 7);

    assert_eq!(text(&cache, 1, &loads, "new".into()).await.text, "new");

    assert_eq!(cache.stats().total.misses_by_reason["other_shape"], 1);
}

#[cacheable(key = "outer:<id>", ignore = [table], ttl = 60, cache = cache)]
async fn outer(cache: &Cache, table: &Table, id: u64) -> usize {
    inner(cache, table, id).await
}

#[cacheable(key = "outer:<id>", ignore = [table], ttl = 60, cache = cache)]
async fn inner(cache: &Cache, table: &Table, id: u64) -> usize {
    table.read()
}

#[tokio::test]
async fn nested_functions_with_the_same_key_do_not_wait_for_each_other() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();

    let call = tokio::time::timeout(Duration::from_secs(1), outer(&cache, &table, 1)).await;

    assert_eq!(call, Ok(0));
    assert_eq!(table.reads(), 1);
}

#[tokio::test]
async fn a_disabled_key_runs_uncached_and_is_still_evicted() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    row(&cache, &table, 1).await;

    cache.disable("row:*").unwrap();
    table.write();
    assert_eq!(row(&cache, &table, 1).await, 1);
    assert_eq!(row(&cache, &table, 1).await, 1);
    assert_eq!(table.reads(), 3);
    assert_eq!(cache.stats().total.misses_by_reason["disabled"], 2);
    let _ = cache.delete("row:1").await;

    assert!(cache.enable("row:*").unwrap());
    assert_eq!(row(&cache, &table, 1).await, 1);
    row(&cache, &table, 1).await;
    assert_eq!(table.reads(), 4);
}
