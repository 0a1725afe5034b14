//! The bulkhead: how many bodies of cached functions run at the same time, so that an empty cache does not pass all its
//! callers on to the database.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::call::CallContext;
use super::chain::Chain;
use crate::config::{Config, named};
use crate::metrics::Event;
use crate::store::BoxFuture;
use crate::store::guard::in_runtime;

/// The limits of a cache.
pub(super) struct Bulkhead {
    all: Option<Semaphore>,
    by_policy: BTreeMap<String, Semaphore>,
    waiting: AtomicUsize,
}

/// The right to run a body.
pub(super) struct Permits<'a> {
    _of_policy: Option<SemaphorePermit<'a>>,
    _of_all: Option<SemaphorePermit<'a>>,
}

impl Bulkhead {
    pub(super) fn new(config: &Config) -> Self {
        let semaphore = |limit: u32| {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            Semaphore::new(limit.min(Semaphore::MAX_PERMITS))
        };
        Self {
            all: config.max_loads.map(semaphore),
            by_policy: config
                .policies
                .iter()
                .filter_map(|(name, policy)| Some((name.clone(), semaphore(policy.max_loads?))))
                .collect(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// How many loads wait at this moment.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn is_limited(&self) -> bool {
        self.all.is_some() || !self.by_policy.is_empty()
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

impl CallContext<'_> {
    /// Returns whether the body of this load waits for others. A load inside a load does not wait: it could wait for itself.
    pub(super) fn is_limited(&self) -> bool {
        self.inner.bulkhead.is_limited() && !Chain::is_nested() && in_runtime()
    }

    /// Waits until fewer bodies run than may, while `hold` prolongs what this load holds. Returns [`None`] after `load_deadline`:
    /// then the body runs anyway.
    pub(super) async fn admission(
        &self,
        hold: &mut Option<BoxFuture<'_, ()>>,
    ) -> Option<Permits<'_>> {
        let bulkhead = &self.inner.bulkhead;
        let of_policy = self
            .site
            .policy
            .and_then(|name| named(&bulkhead.by_policy, name));
        let admitted = async {
            Permits {
                _of_policy: self.permit(of_policy).await,
                _of_all: self.permit(bulkhead.all.as_ref()).await,
            }
        };
        let mut admitted = pin!(timeout(self.inner.config.load_deadline, admitted));
        if let Some(holding) = hold {
            tokio::select! {
                biased;
                permits = &mut admitted => return permits.ok(),
                () = holding => *hold = None,
            }
        }
        admitted.await.ok()
    }

    /// Permits are given in the order in which they are asked for.
    async fn permit<'b>(&self, semaphore: Option<&'b Semaphore>) -> Option<SemaphorePermit<'b>> {
        let semaphore = semaphore?;
        if let Ok(permit) = semaphore.try_acquire() {
            return Some(permit);
        }
        self.metrics.count(Event::LoadQueued);
        let _waiting = Waiting::begin(&self.inner.bulkhead.waiting);
        // It is never closed.
        semaphore.acquire().await.ok()
    }
}

/// A load that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
