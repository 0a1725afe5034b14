//! What a cache reports about itself.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use super::handle::HANDLE;
use super::pending::SCOPE;
use super::{Cache, INSTALLED, Inner};
use crate::error::Error;
use crate::metrics::{FallbackStats, Format, Mode, RedisStats, Stats, Surroundings};
use crate::registry;
use crate::store::ServerInfo;
use crate::store::guard::{On, Op, State};

/// How a cache is, for health checks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Where entries are kept at this moment.
    pub mode: Mode,
    /// Whether a Redis answers.
    pub connected: bool,
    /// What the Redis server reports about itself. `None` without Redis, or if it does not answer.
    pub server: Option<ServerInfo>,
    /// How long fallback mode has lasted, in seconds; `None` while Redis answers, and in memory mode.
    pub fallback_seconds: Option<f64>,
    /// Why the last attempt to reach Redis failed; `None` while it answers, and in memory mode.
    pub fallback_reason: Option<String>,
    /// What does not work although Redis answers, one sentence each: operations that it refuses, and pending evictions in
    /// the journal. A refusal is reported until the same operation succeeds, or for 60 s.
    pub problems: Vec<String>,
    /// Keys and patterns in the journal: evicted, but not seen by Redis yet. One eviction may name several.
    pub journal_depth: usize,
}

/// Whether a cache does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HealthStatus {
    /// Redis answers and accepts all operations, or no Redis is configured.
    Healthy,
    /// Redis is unavailable, so functions run uncached; or it refuses some operations, and [`problems`](Health::problems)
    /// lists the reasons.
    Degraded,
    /// The cache was shut down.
    Down,
}

impl Cache {
    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        self.inner.metrics.stats(self.inner.surroundings())
    }

    /// Returns all metrics in the text format of Prometheus, version 0.0.4.
    ///
    /// `docs/observability.md` lists them. All annotated functions are included from the start, also before their first call. A
    /// function with `cache = …` is included in its own cache, after its first call. So is every function if another cache is
    /// installed.
    ///
    /// This does not ask Redis. What Redis reports about itself is as old as the last [`health`](Self::health) check. The service
    /// `http::metrics` asks.
    pub fn prometheus(&self) -> String {
        self.exposition(Format::Prometheus)
    }

    /// Returns the same metrics in the format of OpenMetrics 1.0.
    pub fn openmetrics(&self) -> String {
        self.exposition(Format::OpenMetrics)
    }

    fn exposition(&self, format: Format) -> String {
        let inner = &self.inner;
        let is_used = match INSTALLED.get() {
            Some(installed) => Arc::ptr_eq(&installed.inner, inner),
            None => true,
        };
        let functions = registry::sites().filter(|site| is_used && !site.has_own_cache);
        let known = functions.chain([&HANDLE, &SCOPE]).map(|site| &site.metrics);
        let metrics = &inner.metrics;
        metrics.exposition(format, inner.surroundings(), known)
    }

    /// Asks Redis for its state. Waits for at most one `command_timeout_max`, and not at all while Redis is known to be
    /// unavailable.
    pub async fn health(&self) -> Health {
        let inner = &self.inner;
        let server = inner.ask_server().await.ok().flatten();
        let mode = inner.guard.mode();
        let mut problems = inner.guard.refusals();
        problems.extend(inner.journal.obstacle());
        Health {
            status: match (inner.guard.state(), mode) {
                (State::Closed, _) => HealthStatus::Down,
                (_, Mode::Fallback) => HealthStatus::Degraded,
                _ if !problems.is_empty() => HealthStatus::Degraded,
                _ => HealthStatus::Healthy,
            },
            mode,
            connected: server.is_some(),
            server,
            fallback_seconds: inner
                .guard
                .outages()
                .current
                .map(|current| current.as_secs_f64()),
            fallback_reason: inner.guard.why_unavailable(),
            problems,
            journal_depth: inner.journal.depth(),
        }
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
    async fn ask_server(&self) -> Result<Option<ServerInfo>, Error> {
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
