//! The numbers that a cache reports about itself.

use std::sync::Arc;

use tokio::time::Instant;

use super::handle::HANDLE;
use super::pending::SCOPE;
use super::{Cache, INSTALLED, Inner};
use crate::catalog::Catalog;
use crate::error::Error;
use crate::metrics::{FallbackStats, Format, RedisStats, Stats, Surroundings};
use crate::registry;
use crate::store::ServerInfo;
use crate::store::guard::{On, Op};

impl Cache {
    /// Returns what was counted so far.
    ///
    /// ```
    /// use cache_runtime::{Cache, cacheable};
    ///
    /// #[cacheable(key = "double:<n>")]
    /// async fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.run(async { double(2).await + double(2).await }).await;
    ///
    /// let stats = cache.stats();
    /// assert_eq!((stats.total.hits, stats.total.misses), (1, 1));
    /// println!("{}: {:?}", stats.sites[0].name, stats.sites[0].counts.hit_rate);
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        self.inner.metrics.stats(self.inner.surroundings())
    }

    /// Returns the annotated functions of the program with the configuration of this cache, and what looks like a mistake in them.
    pub fn catalog(&self) -> Catalog {
        Catalog::new(&self.inner.config)
    }

    /// Returns all metrics in the text format of Prometheus, version 0.0.4.
    ///
    /// `docs/book/src/reference/observability.md` lists them. All annotated functions are included from the start,
    /// also before their first call. A function with `cache = …` is included in its own cache, after its first call. So is every
    /// function if another cache is installed.
    ///
    /// This does not ask Redis. What Redis reports about itself is as old as the last [`health`](Self::health) check. The service
    /// `http::metrics` asks.
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.get::<i32>("stock:7").await;
    ///
    /// let text = cache.prometheus();
    /// assert!(text.contains("# TYPE cache_gets_total counter"), "{text}");
    /// # }
    /// ```
    pub fn prometheus(&self) -> String {
        self.exposition(Format::Prometheus)
    }

    /// Returns the same metrics in the format of OpenMetrics 1.0.
    pub fn openmetrics(&self) -> String {
        self.exposition(Format::OpenMetrics)
    }

    /// Reports all counters and gauges to the recorder of the crate [`metrics`](https://docs.rs/metrics) 0.24 that the program has
    /// installed. Call it periodically, for example from a task:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # async fn report(cache: cache_runtime::Cache) {
    /// let mut period = tokio::time::interval(Duration::from_secs(10));
    /// loop {
    ///     period.tick().await;
    ///     cache.record_metrics();
    /// }
    /// # }
    /// ```
    ///
    /// - Names and labels are those of [`prometheus`](Self::prometheus). Counters are set and not increased, so no event is counted twice.
    /// - Histograms are left out: a recorder takes single durations, and the cache keeps only counts.
    /// - Counters of the recorder are whole numbers, so `cache_fallback_seconds_total`, which has a fraction, is a gauge.
    /// - A call of an annotated function never touches the recorder.
    /// - Without a recorder this does nothing. A recorder for another version of `metrics` does not receive anything.
    #[cfg(feature = "metrics")]
    pub fn record_metrics(&self) {
        self.exposition(Format::Recorder);
    }

    /// Returns whether annotated functions without `cache = …` use this cache, as far as that is known.
    pub(crate) fn is_used(&self) -> bool {
        let installed = INSTALLED.get();
        installed.is_none_or(|installed| Arc::ptr_eq(&installed.inner, &self.inner))
    }

    fn exposition(&self, format: Format) -> String {
        let inner = &self.inner;
        let is_used = self.is_used();
        let functions = registry::sites().filter(|site| is_used && !site.has_own_cache);
        let known = functions.chain([&HANDLE, &SCOPE]).map(|site| &site.metrics);
        let metrics = &inner.metrics;
        metrics.exposition(format, &inner.surroundings(), known)
    }
}

/// What Redis reported about itself, and when.
#[derive(Debug)]
pub(super) struct Reported {
    at: Instant,
    server: ServerInfo,
}

impl Inner {
    /// Asks Redis for its state, and remembers it for the statistics.
    pub(super) async fn ask_server(&self) -> Result<Option<ServerInfo>, Error> {
        let metrics = self.metrics.site(&HANDLE.metrics);
        let info = Op::new("info", &HANDLE, &metrics, On::Server);
        let server = self.run(info, |store| store.server()).await?;
        *self.reported.lock() = server.clone().map(|server| Reported {
            at: Instant::now(),
            server,
        });
        Ok(server)
    }

    fn surroundings(&self) -> Surroundings {
        let outages = self.guard.outages();
        Surroundings {
            mode: self.guard.mode(),
            fallback: FallbackStats {
                entered: outages.entered,
                total_seconds: outages.total.as_secs_f64(),
                current_seconds: outages.current.map(|current| current.as_secs_f64()),
            },
            journal_depth: self.journal.depth(),
            loads_waiting: self.bulkhead.waiting(),
            store: self.guard.store().stats(),
            redis: self.reported.lock().as_ref().map(Reported::stats),
            local: self.local.stats(),
        }
    }
}

impl Reported {
    fn stats(&self) -> RedisStats {
        let ServerInfo {
            version: _,
            run_id: _,
            uptime_seconds,
            memory_used,
            memory_peak,
            memory_max,
            keys,
            evicted_keys,
        } = self.server;
        RedisStats {
            age_seconds: self.at.elapsed().as_secs_f64(),
            uptime_seconds,
            memory_used,
            memory_peak,
            memory_max,
            keys,
            evicted_keys,
        }
    }
}
