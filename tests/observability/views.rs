//! How single calls were answered: `CacheStatus` and `Cache::explain`, with a real Redis and several processes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, CacheStatus, Clock, Explanation, cache_evict, cache_put, cacheable};
use tokio::sync::Barrier;
use tokio::time::{sleep, timeout};

use crate::exposition::in_redis;

#[cacheable(key = "views:<id>", ttl = 60, grace = 60)]
async fn find(id: u32) -> Result<u32, String> {
    match id {
        0 => Err("not found".to_owned()),
        _ => Ok(id),
    }
}

#[cacheable(key = "views:slow:<id>", ttl = 60, ignore = [loading])]
async fn slow(id: u32, loading: &Barrier) -> u32 {
    // It runs, and it may end.
    loading.wait().await;
    loading.wait().await;
    id
}

#[cache_put(key = "views:<id>", ttl = 60)]
async fn save(id: u32) -> u32 {
    id
}

#[cache_evict(key = "views:<id>")]
async fn remove(id: u32) {}

#[cacheable(key = "views:text:<length>", ttl = 60)]
async fn text(length: usize) -> String {
    "x".repeat(length)
}

/// Evicts more than has changed.
#[cache_evict(pattern = "views:*")]
async fn remove_all() {}

/// Another process, as far as the cache is concerned.
async fn another(server: &RedisServer) -> Cache {
    let cache = Cache::connect(server.config()).await;
    cache.expect("a valid configuration")
}

async fn status<T>(cache: &Cache, work: impl Future<Output = T>) -> String {
    let (_, status) = cache.run(CacheStatus::of(work)).await;
    status.map(|status| status.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn the_status_follows_the_life_of_an_entry() {
    let server = RedisServer::start().expect("redis-server starts");
    let clock = Clock::stopped();
    let config = server.config().clock(clock.clone());
    let cache = Cache::connect(config).await.expect("connects");

    assert_eq!(status(&cache, find(1)).await, "fwd=miss; stored");
    clock.advance(Duration::from_secs(10));
    assert_eq!(status(&cache, find(1)).await, "hit; ttl=50");
    clock.advance(Duration::from_secs(62));
    assert_eq!(status(&cache, find(1)).await, "fwd=stale; stored");
    assert_eq!(status(&cache, remove(1)).await, "");
    assert_eq!(status(&cache, find(1)).await, "fwd=miss; stored");
    assert_eq!(status(&cache, save(1)).await, "");
    assert_eq!(status(&cache, find(0)).await, "fwd=miss");
}

#[tokio::test]
async fn a_value_that_another_process_loads_is_collapsed() {
    let (server, one) = in_redis().await;
    let other = another(&server).await;
    let loading = Arc::new(Barrier::new(2));
    let first = tokio::spawn({
        let (one, loading) = (one.clone(), Arc::clone(&loading));
        async move { status(&one, slow(1, &loading)).await }
    });
    loading.wait().await;

    let here = status(&one, slow(1, &loading));
    let elsewhere = other.explain(CacheStatus::of(slow(1, &loading)));
    let is_waited_for = || {
        let operations = other.stats().operations;
        let leases = operations.iter().find(|stats| stats.operation == "lease");
        one.stats().total.misses == 2 && leases.is_some_and(|leases| leases.time.count > 0)
    };
    let release = async {
        while !is_waited_for() {
            sleep(Duration::from_millis(1)).await;
        }
        loading.wait().await;
    };
    let (here, ((_, elsewhere), report), ()) = tokio::join!(here, elsewhere, release);

    assert_eq!(first.await.expect("no panic"), "fwd=miss; stored");
    assert_eq!(here, "fwd=miss; collapsed");
    let elsewhere = elsewhere.expect("a read").to_string();
    assert_eq!(elsewhere, "fwd=miss; collapsed");
    let call = &report.calls[0];
    assert_eq!((call.lease, call.load), (Some("awaited"), Some("cluster")));
    assert!(call.waited_micros > 0, "{call:?}");
}

#[tokio::test]
async fn an_outage_is_a_bypass_with_its_reason() {
    let (mut server, cache) = in_redis().await;
    status(&cache, find(1)).await;
    server.kill();

    let fallback = async {
        while status(&cache, find(1)).await != "fwd=bypass; detail=fallback" {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let fallback = timeout(Duration::from_secs(10), fallback).await;
    let (_, report) = cache.explain(find(1)).await;

    assert!(fallback.is_ok(), "{report:?}");
    let call = &report.calls[0];
    assert_eq!(
        (call.result, call.reason),
        (Some("bypass"), Some("fallback"))
    );
    assert_eq!(
        (call.load, call.fill, call.stamp.as_ref()),
        (Some("success"), None, None)
    );
}

#[tokio::test]
async fn a_report_has_the_times_in_redis_and_serializes() {
    let (_server, cache) = in_redis().await;

    let (found, report) = cache
        .explain(async {
            let found = find(7).await;
            save(7).await;
            remove(7).await;
            found
        })
        .await;

    assert_eq!(found, Ok(7));
    let results: Vec<_> = report.calls.iter().map(|call| call.result).collect();
    assert_eq!(results, [Some("miss"), Some("put"), Some("evict")]);
    assert!(
        report.calls.iter().all(|call| call.redis_micros > 0),
        "{report:?}"
    );
    let [read, put, evict] = &report.calls[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        (read.fill, put.fill, evict.eviction),
        (Some("stored"), Some("stored"), Some("applied"))
    );
    assert!(read.stamp.is_some() && read.stamp != put.stamp);
    let json = serde_json::to_value::<&Explanation>(&report).expect("JSON");
    assert_eq!(json["calls"][0]["key"], "test_views:7");
    assert_eq!(json["omitted"], 0);
}

/// The hit rate has dropped for one of several reasons. One explained request shows which.
#[tokio::test]
async fn one_explained_call_shows_why_a_function_misses() {
    let (_server, cache) = in_redis().await;
    let explain = async |id| cache.explain(find(id)).await.1.calls.remove(0);
    cache
        .run(async {
            for _ in 0..4 {
                find(1).await.expect("a value");
                remove_all().await;
            }
        })
        .await;

    let evicted = explain(1).await;
    cache.disable("views:2").expect("a pattern");
    let disabled = explain(2).await;
    let (_, report) = cache.explain(text(cache.config().max_value + 1)).await;
    let too_large = &report.calls[0];

    let codes: Vec<_> = evicted
        .warnings
        .iter()
        .map(|warning| warning.code)
        .collect();
    assert_eq!(codes, ["ttl-too-long", "scans-keyspace"]);
    let by = &evicted.warnings[1].message;
    assert!(by.contains("remove_all` with `views:*`"), "{by}");
    assert_eq!(disabled.reason, Some("disabled"));
    assert_eq!(
        (too_large.result, too_large.fill),
        (Some("miss"), Some("too_large"))
    );
}
