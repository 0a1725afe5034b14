//! What the log says of each call, and that it names no key where keys are masked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_runtime::{Cache, Clock, Config, cache_evict, cache_put, cacheable};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{self, DefaultGuard};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps what the cache logs about calls.
#[derive(Clone)]
struct Log {
    most: Level,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// The fields of an event, and its level.
#[derive(Default)]
struct Line(BTreeMap<&'static str, String>);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most && metadata.target() == "cache_runtime::cache::log"
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        line.0.insert("level", event.metadata().level().to_string());
        self.lines.lock().expect("nobody panics").push(line);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Log {
    fn listen(most: Level) -> (Self, DefaultGuard) {
        let log = Self {
            most,
            lines: Arc::default(),
        };
        (log.clone(), subscriber::set_default(log))
    }

    /// What was logged since the last look: level, message, and these fields.
    fn take(&self, fields: &[&str]) -> Vec<String> {
        let lines = std::mem::take(&mut *self.lines.lock().expect("nobody panics"));
        let lines = lines.iter().map(|Line(line)| {
            assert!(line.contains_key("function"), "{line:?}");
            assert!(line.contains_key("elapsed"), "{line:?}");
            let shown = ["level", "message"].iter().chain(fields);
            let shown: Vec<_> = shown
                .filter_map(|field| line.get(field).map(String::as_str))
                .collect();
            shown.join(" ")
        });
        lines.collect()
    }
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
    let cache = cache.expect("the configuration is right");
    (Rows { cache }, clock)
}

#[tokio::test]
async fn each_call_is_logged_with_its_key_and_what_came_of_it() {
    let (rows, clock) = rows(Config::default()).await;
    let (log, _guard) = Log::listen(Level::TRACE);
    rows.row(7).await.expect("it returns");
    assert_eq!(
        log.take(&["key", "reason", "ttl"]),
        [
            "DEBUG cache miss dev_row:7 absent 60s",
            "DEBUG cache fill dev_row:7 60s"
        ]
    );

    rows.row(7).await.expect("it returns");
    assert_eq!(
        log.take(&["key", "ttl", "is_stale"]),
        ["TRACE cache hit dev_row:7 60s false"]
    );

    clock.advance(Duration::from_secs(61));
    rows.row(7).await.expect("it returns");
    assert_eq!(
        log.take(&["key", "reason"]),
        [
            "DEBUG cache miss dev_row:7 stale",
            "DEBUG cache fill dev_row:7"
        ]
    );

    rows.save(8).await;
    assert_eq!(log.take(&["key", "ttl"]), ["DEBUG cache put dev_row:8 30s"]);

    rows.change().await;
    assert_eq!(
        log.take(&["pattern", "count"]),
        ["DEBUG cache invalidated dev_row:* 2"]
    );

    rows.cache.set("row:9", &9_u64, 10_u64).await;
    rows.cache.get::<u64>("row:9").await;
    rows.cache.delete("row:9").await;
    assert_eq!(
        log.take(&["function", "key", "pattern", "count"]),
        [
            "DEBUG cache set Cache dev_row:9",
            "TRACE cache hit Cache dev_row:9",
            "DEBUG cache invalidated Cache dev_row:9 1"
        ]
    );
}

#[tokio::test]
async fn at_debug_hits_are_not_logged_and_masked_keys_are_named_nowhere() {
    let (rows, _) = rows(Config::default().mask_keys(true)).await;
    let (log, _guard) = Log::listen(Level::DEBUG);
    rows.row(4_242).await.expect("it returns");
    rows.row(4_242).await.expect("it returns");
    rows.save(4_242).await;
    rows.change().await;
    rows.cache.delete("row:4242").await;

    let lines = log.take(&["key", "pattern"]);
    assert_eq!(lines.len(), 5, "{lines:?}");
    for line in lines {
        assert!(!line.contains("4242") && !line.contains("row:"), "{line}");
    }
}
