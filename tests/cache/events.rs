//! The log describes each call, and contains no key if keys are masked.

use std::time::Duration;

use cache_runtime::{Cache, Clock, Config, cache_evict, cache_put, cacheable};
use tracing::Level;

use crate::log::Log;

/// Returns what the cache logged about calls since the last look: the level, the message and the fields below, if present.
fn take(log: &Log, fields: &[&str]) -> Vec<String> {
    let lines = log.take().into_iter();
    let calls = lines.filter(|line| line.target == "cache_runtime::cache::log");
    let shown = calls.map(|line| {
        for field in ["function", "elapsed"] {
            assert!(line.fields.contains_key(field), "{line}");
        }
        let fields = ["message"].iter().chain(fields);
        let values = fields.filter_map(|field| line.fields.get(field));
        values.fold(line.level.to_string(), |shown, value| shown + " " + value)
    });
    shown.collect()
}

struct Rows {
    cache: Cache,
}

impl Rows {
    #[cacheable(key = "row:<id>", ttl = 60, grace = 600, cache = self.cache)]
    async fn row(&self, id: u64) -> Result<u64, String> {
        Ok(id)
    }

    #[cache_put(key = "row:<id>", ttl = 30, cache = self.cache)]
    async fn save(&self, id: u64) -> u64 {
        id
    }

    #[cache_evict(pattern = "row:*", cache = self.cache)]
    async fn change(&self) {}
}

async fn rows(config: Config) -> (Rows, Clock) {
    let clock = Clock::default();
    let cache = Cache::connect(config.clock(clock.clone())).await;
    let cache = cache.expect("a valid configuration");
    (Rows { cache }, clock)
}

#[tokio::test]
async fn each_call_is_logged_with_its_key_and_result() {
    let (rows, clock) = rows(Config::default()).await;
    let log = Log::listen(Level::TRACE);
    rows.row(7).await.expect("it returns");
    assert_eq!(
        take(&log, &["key", "reason", "ttl"]),
        [
            "DEBUG cache miss dev_row:7 absent 60s",
            "DEBUG cache fill dev_row:7 60s"
        ]
    );

    rows.row(7).await.expect("it returns");
    assert_eq!(
        take(&log, &["key", "ttl", "is_stale"]),
        ["TRACE cache hit dev_row:7 60s false"]
    );

    clock.advance(Duration::from_secs(61));
    rows.row(7).await.expect("it returns");
    assert_eq!(
        take(&log, &["key", "reason"]),
        [
            "DEBUG cache miss dev_row:7 stale",
            "DEBUG cache fill dev_row:7"
        ]
    );

    rows.save(8).await;
    assert_eq!(
        take(&log, &["key", "ttl"]),
        ["DEBUG cache put dev_row:8 30s"]
    );

    rows.change().await;
    assert_eq!(
        take(&log, &["pattern", "count"]),
        ["DEBUG cache invalidated dev_row:* 2"]
    );

    rows.cache.set("row:9", &9_u64, 10_u64).await;
    rows.cache.get::<u64>("row:9").await;
    rows.cache.delete("row:9").await;
    assert_eq!(
        take(&log, &["function", "key", "pattern", "count"]),
        [
            "DEBUG cache set Cache dev_row:9",
            "TRACE cache hit Cache dev_row:9",
            "DEBUG cache invalidated Cache dev_row:9 1"
        ]
    );
}

#[tokio::test]
async fn the_debug_log_has_no_hits_and_no_masked_keys() {
    let (rows, _) = rows(Config::default().mask_keys(true)).await;
    let log = Log::listen(Level::DEBUG);
    rows.row(4_242).await.expect("it returns");
    rows.row(4_242).await.expect("it returns");
    rows.save(4_242).await;
    rows.change().await;
    rows.cache.delete("row:4242").await;

    let lines = take(&log, &["key", "pattern"]);
    assert_eq!(lines.len(), 5, "{lines:?}");
    for line in lines {
        assert!(!line.contains("4242") && !line.contains("row:"), "{line}");
    }
}
