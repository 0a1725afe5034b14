//! What a cache reports about itself.

use serde::Serialize;

use super::Cache;
use super::handle::HANDLE;
use crate::metrics::{FallbackStats, Mode, Stats, Surroundings};
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
        let inner = &self.inner;
        let outages = inner.guard.outages();
        inner.metrics.stats(Surroundings {
            mode: inner.guard.mode(),
            fallback: FallbackStats {
                entered: outages.entered,
                total_seconds: outages.total.as_secs_f64(),
                current_seconds: outages.current.map(|current| current.as_secs_f64()),
            },
            journal_depth: inner.journal.depth(),
            loads_waiting: inner.bulkhead.waiting(),
            store: inner.guard.store().stats(),
        })
    }

    /// Asks Redis for its state. Waits for at most one `command_timeout_max`, and not at all while Redis is known to be
    /// unavailable.
    pub async fn health(&self) -> Health {
        let inner = &self.inner;
        let metrics = inner.metrics.site(&HANDLE.metrics);
        let info = Op::new("info", &HANDLE, &metrics, On::Server);
        let server = inner.run(info, |store| store.server()).await;
        let server = server.ok().flatten();
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
