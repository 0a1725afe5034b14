//! The decisions of limiters, counted by policy. The metrics never name a client: only policies and route templates, of
//! which there are few.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::event::counted;
use crate::sync::{Mutex, RwLock};

/// Routes come from source text, so there are few. The cap limits callers that pass anything else as a template.
const MAX_ROUTES: usize = 256;

/// What a limiter decided under one policy, in this process since the start.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::limit::{Identity, Policy, RateLimiter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_runtime::Error> {
/// let cache = Cache::memory();
/// let limiter = RateLimiter::new(&cache, [Policy::new("search").limit(1).per("1m")])?;
/// limiter.check("search", &Identity::user(42)).await?;
/// limiter.check("search", &Identity::user(42)).await?;
///
/// let search = &cache.stats().limits[0];
/// assert_eq!((search.policy.as_str(), search.allowed, search.limited), ("search", 1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitStats {
    /// The policy's name.
    pub policy: String,
    /// Calls that were allowed.
    pub allowed: u64,
    /// Calls that this policy rejected because they were over its limit.
    pub limited: u64,
    /// Calls that this policy rejected because the client was blocked.
    pub blocked: u64,
    /// Calls that were refused because Redis was unavailable and the policy denies calls during an outage.
    pub unavailable: u64,
    /// Rejections that this process already knew, so it did not ask Redis.
    pub known: u64,
    /// Decisions that this process made alone: all of them in memory mode, otherwise those while Redis was unavailable or
    /// just recovered.
    pub in_memory: u64,
    /// Batches of calls. Calls are sent in batches while other equal calls of the same client are on their way.
    pub batches: u64,
    /// Calls in these batches.
    pub batched: u64,
    /// Clients that tried more than 10 times their limit in one window. Each client counts once in a window.
    pub suspicious: u64,
    /// Decisions about clients that had no place in the table and shared one allowance.
    pub overflowed: u64,
    /// Rejected requests by the template of their route; `other` counts all routes after the first 256.
    pub rejected_by_route: BTreeMap<String, u64>,
}

counted! {
    /// What is counted.
    LimitEvent:
    Allowed,
    Limited,
    Blocked,
    Unavailable,
    Known,
    InMemory,
    Batches,
    Batched,
    Suspicious,
    Overflowed,
}

/// The numbers of one policy.
#[derive(Debug, Default)]
pub(crate) struct LimitMetrics {
    counters: [AtomicU64; LimitEvent::COUNT],
    routes: Mutex<BTreeMap<String, u64>>,
}

impl LimitMetrics {
    pub(crate) fn count(&self, event: LimitEvent) {
        self.add(event, 1);
    }

    pub(crate) fn add(&self, event: LimitEvent, count: u64) {
        self.counters[event as usize].fetch_add(count, Relaxed);
    }

    /// A rejected request to a route.
    pub(crate) fn count_route(&self, route: &str) {
        let mut routes = self.routes.lock();
        let route = if routes.len() < MAX_ROUTES || routes.contains_key(route) {
            route
        } else {
            "other"
        };
        match routes.get_mut(route) {
            Some(count) => *count += 1,
            None => drop(routes.insert(route.to_owned(), 1)),
        }
    }

    fn stats(&self, policy: &str) -> LimitStats {
        let count = |event: LimitEvent| self.counters[event as usize].load(Relaxed);
        LimitStats {
            policy: policy.to_owned(),
            allowed: count(LimitEvent::Allowed),
            limited: count(LimitEvent::Limited),
            blocked: count(LimitEvent::Blocked),
            unavailable: count(LimitEvent::Unavailable),
            known: count(LimitEvent::Known),
            in_memory: count(LimitEvent::InMemory),
            batches: count(LimitEvent::Batches),
            batched: count(LimitEvent::Batched),
            suspicious: count(LimitEvent::Suspicious),
            overflowed: count(LimitEvent::Overflowed),
            rejected_by_route: self.routes.lock().clone(),
        }
    }
}

/// The numbers of all policies of all limiters on one cache.
#[derive(Debug, Default)]
pub(super) struct Limits(RwLock<BTreeMap<String, Arc<LimitMetrics>>>);

impl Limits {
    /// Those of a policy; limiters that have policies of one name count together.
    pub(super) fn of(&self, policy: &str) -> Arc<LimitMetrics> {
        let mut limits = self.0.write();
        Arc::clone(limits.entry(policy.to_owned()).or_default())
    }

    pub(super) fn stats(&self) -> Vec<LimitStats> {
        let limits = self.0.read();
        limits
            .iter()
            .map(|(policy, metrics)| metrics.stats(policy))
            .collect()
    }
}
