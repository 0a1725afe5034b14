//! Whether a cache works, for probes and for people.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use serde::Serialize;

use super::Cache;
use crate::metrics::{LocalState, Mode};
use crate::store::guard::State;
use crate::store::{NodeHealth, NodeState, ServerInfo};

/// The health of a cache: [`live`](Self::live) and [`ready`](Self::ready) for probes, and [`detail`](Self::detail) for people and
/// alerts. Awaiting it is the same as `detail`. See [`Cache::health`] for an example.
#[derive(Clone, Copy)]
#[must_use = "ask for `live`, `ready` or `detail`"]
pub struct HealthCheck<'a> {
    cache: &'a Cache,
}

/// How a cache is.
///
/// ```
/// use cache_runtime::{Cache, HealthStatus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// let health = cache.health().detail().await;
///
/// match health.status {
///     HealthStatus::Healthy => println!("all is well"),
///     HealthStatus::Degraded => println!("{:?} {:?}", health.fallback_reason, health.problems),
///     HealthStatus::Down => println!("the cache was shut down"),
///     _ => {}
/// }
/// assert_eq!(health.status, HealthStatus::Healthy);
/// # }
/// ```
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
    /// The nodes of a Redis Cluster that take writes. Empty without a cluster.
    pub nodes: Vec<NodeHealth>,
    /// What does not work although the cache does, one sentence each: operations that Redis refuses, pending evictions in the
    /// journal, and changes that Redis does not report. A refusal is reported until the same operation succeeds, or for 60 s.
    pub problems: Vec<String>,
    /// Keys, patterns and tags in the journal: they were evicted, but Redis has not acknowledged it yet. One eviction may name several.
    pub journal_depth: usize,
    /// Whether values in this process are served without asking Redis. `None` before the first call of a function with `local`, and in memory mode until it keeps a value.
    pub local: Option<LocalState>,
}

/// Whether a cache does its work.
///
/// See [`Health`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HealthStatus {
    /// Redis answers and accepts all operations, or no Redis is configured.
    Healthy,
    /// The cache works with a restriction. [`fallback_reason`](Health::fallback_reason) or [`problems`](Health::problems) has the
    /// reason:
    ///
    /// - Redis is unavailable, so functions run uncached.
    /// - Redis refuses some operations, for example writes because its memory is full.
    /// - Evictions wait in the journal, so other processes may serve old values.
    /// - Redis does not report changes of entries, so functions with `local` keep no values in the process.
    /// - A node of a cluster is unavailable, so functions run uncached for its keys. The slots that no node serves are named.
    /// - A cluster is down (`CLUSTERDOWN`), so its nodes refuse keys.
    Degraded,
    /// The cache was shut down.
    Down,
}

impl Cache {
    /// Returns the health of this cache.
    ///
    /// ```
    /// # async fn f(cache: cache_runtime::Cache) {
    /// let restart = !cache.health().live();    // for a liveness probe
    /// let send_traffic = cache.health().ready(); // for a readiness probe
    /// let detail = cache.health().detail().await;
    /// println!("{:?}: {:?} {:?}", detail.status, detail.fallback_reason, detail.problems);
    /// # let _ = (restart, send_traffic);
    /// # }
    /// ```
    pub fn health(&self) -> HealthCheck<'_> {
        HealthCheck { cache: self }
    }
}

#[cfg(test)]
impl Cache {
    pub(crate) fn nodes(&self) -> Vec<NodeHealth> {
        self.inner.guard.store().nodes()
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.inner.guard.store().problems()
    }
}

impl HealthCheck<'_> {
    /// Returns whether the process should be kept, for a liveness probe. That is always so: a restart does not bring Redis back, and
    /// it loses the journal of evictions. A process whose runtime is blocked does not reply to its probe. This asks nothing.
    pub fn live(self) -> bool {
        true
    }

    /// Returns whether the process should get requests, for a readiness probe: until [`Cache::shutdown`]. It is ready in fallback
    /// mode, because functions then run uncached; otherwise an outage of Redis would take all processes out of service at once.
    /// This does not ask Redis.
    pub fn ready(self) -> bool {
        self.cache.inner.guard.state() != State::Closed
    }

    /// Asks Redis for its state. Waits for at most one `command_timeout_max`, and not at all while Redis is known to be
    /// unavailable.
    pub async fn detail(self) -> Health {
        let inner = &self.cache.inner;
        let server = inner.ask_server().await.ok().flatten();
        let mode = inner.guard.mode();
        let mut problems = inner.guard.refusals();
        problems.extend(inner.journal.problem());
        problems.extend(inner.replays.problem());
        problems.extend(inner.local.doubts.refusal().map(|reason| {
            format!(
                "Redis does not report changes, so functions with `local` keep no values: {reason}"
            )
        }));
        let nodes = inner.guard.store().nodes();
        problems.extend(nodes.iter().filter_map(problem));
        problems.extend(inner.guard.store().problems());
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
            nodes,
            problems,
            journal_depth: inner.journal.depth(),
            local: inner.local.stats().map(|local| local.state),
        }
    }
}

/// What does not work because of a node.
fn problem(node: &NodeHealth) -> Option<String> {
    let NodeHealth {
        address,
        state,
        reason,
    } = node;
    let state = match state {
        NodeState::Connected => return None,
        NodeState::Recovering => "is recovering",
        NodeState::Unavailable => "is unavailable",
    };
    Some(match reason {
        Some(reason) => format!("the node {address} {state}: {reason}"),
        None => format!("the node {address} {state}"),
    })
}

impl<'a> IntoFuture for HealthCheck<'a> {
    type Output = Health;
    type IntoFuture = Pin<Box<dyn Future<Output = Health> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.detail())
    }
}

impl fmt::Debug for HealthCheck<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck")
            .field("live", &self.live())
            .field("ready", &self.ready())
            .finish()
    }
}
