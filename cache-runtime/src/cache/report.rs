//! What a cache says about itself.

use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tracing::warn;

use super::{Cache, Inner, keeper};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::metrics::{
    Event, FallbackStats, MemoryStats, Mode, SiteMetrics, Stats, Surroundings, Timer, Warning,
};
use crate::site::Site;
use crate::store::ServerInfo;
use crate::store::guard::{Answer, State};

/// How a cache is, for health checks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The verdict.
    pub status: Status,
    /// Where entries are kept at this moment.
    pub mode: Mode,
    /// Whether a Redis answers.
    pub connected: bool,
    /// What the Redis says about itself; `None` where there is none, or none that answers.
    pub server: Option<ServerInfo>,
    /// For how long the fallback mode has lasted; `None` while Redis answers, and in memory mode.
    pub fallback_for: Option<Duration>,
    /// Why Redis could not be reached when that was tried last; `None` while it answers, and in memory mode.
    pub fallback_reason: Option<String>,
    /// Keys and patterns in the journal: evicted, but not seen by Redis yet. One eviction may name several.
    pub journal_depth: usize,
}

/// Whether a cache does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Redis answers, or none is configured.
    Healthy,
    /// Redis is away: functions run uncached.
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
            mode: inner.mode(),
            fallback: FallbackStats {
                entered: outages.entered,
                total_seconds: outages.total.as_secs_f64(),
                current_seconds: outages.current.map(|current| current.as_secs_f64()),
            },
            journal_depth: inner.journal.depth(),
            pool: inner.guard.store().pool(),
            memory: inner.memory.as_ref().map(|memory| {
                let (entries, bytes) = memory.usage();
                MemoryStats {
                    entries: entries as u64,
                    bytes: bytes as u64,
                }
            }),
        })
    }

    /// Asks the Redis how it is. Waits no longer than one `command_timeout`, and not at all while Redis is known to be away.
    pub async fn health(&self) -> Health {
        let inner = &self.inner;
        let server = inner
            .guard
            .call(|store| store.server())
            .await
            .ok()
            .flatten();
        let mode = inner.mode();
        Health {
            status: match (inner.guard.state(), mode) {
                (State::Closed, _) => Status::Down,
                (_, Mode::Fallback) => Status::Degraded,
                _ => Status::Healthy,
            },
            mode,
            connected: server.is_some(),
            server,
            fallback_for: inner.guard.outages().current,
            fallback_reason: inner.why_away(),
            journal_depth: inner.journal.depth(),
        }
    }
}

impl Inner {
    pub(super) fn mode(&self) -> Mode {
        match self.guard.state() {
            State::Connected if self.guard.is_local() => Mode::Memory,
            State::Connected => Mode::Redis,
            State::Fallback | State::Recovering | State::Closed => Mode::Fallback,
        }
    }

    /// Runs one store operation that `began` just now and keeps the books: its time, its failure, and a line in the log if it was slow.
    pub(super) async fn observed<T>(
        &self,
        metrics: &SiteMetrics,
        name: &'static str,
        site: &Site,
        key: &Key,
        began: Instant,
        operation: impl Future<Output = Answer<T>>,
    ) -> Result<T, Error> {
        let Answer { result, at } = operation.await;
        if result.is_err() && !self.guard.is_connected() {
            keeper::ensure(self);
        }
        match result.as_ref().map_err(Error::kind) {
            Err(ErrorKind::Unavailable) => return result,
            Err(ErrorKind::Timeout) => metrics.count(Event::OperationTimedOut),
            Err(ErrorKind::Stalled) => metrics.count(Event::OperationReleased),
            Err(kind) => {
                metrics.count(Event::OperationFailed);
                if kind == ErrorKind::Command && metrics.warn_once(Warning::Command) {
                    let error = result
                        .as_ref()
                        .err()
                        .and_then(StdError::source)
                        .map(ToString::to_string);
                    let site = site.name;
                    warn!(
                        site,
                        operation = name,
                        error,
                        "Redis refuses an operation; this is said once per function"
                    );
                }
            }
            Ok(_) => {}
        }
        let took = at - began;
        metrics.time(Timer::Operation, took);
        if took >= self.config.slow_threshold {
            metrics.count(Event::SlowOperation);
            warn!(
                target: "cache_runtime::slow",
                operation = name,
                site = site.name,
                key = %key.shown(self.config.mask_keys),
                elapsed = ?took,
                elapsed_secs = took.as_secs_f64(),
                mode = ?self.mode(),
                "slow cache operation"
            );
        }
        result
    }
}
