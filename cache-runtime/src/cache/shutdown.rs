//! The shutdown of a cache: what it waits for, and what happens to later evictions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use super::purge::{Behalf, Purge};
use super::recovery::Recovery;
use super::{Cache, Evicted, Inner};
use crate::metrics::{Event, SiteMetrics};
use crate::site::Site;
use crate::store::guard::{Guard, Via, in_runtime};
use crate::store::reach::Reach;
use crate::store::redis::RedisStore;
use crate::target::Target;

/// How long a shutdown waits for evictions that calls still owe, and again for the journal. A service that is told to stop
/// usually has 30 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// Counts evictions that are owed by calls and by scopes.
#[derive(Debug, Default)]
pub(super) struct Owed {
    count: AtomicUsize,
    is_none: Notify,
}

impl Owed {
    pub(super) fn begin(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn end(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.is_none.notify_waiters();
        }
    }

    async fn none(&self) {
        loop {
            // Subscribes before it checks.
            let none = self.is_none.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Cache {
    /// Waits up to 5 s for calls that still have to evict something, applies the journal if Redis answers, and closes the
    /// connections. Annotated functions run uncached from then on.
    ///
    /// A later eviction is tried once, on its own connection. If that fails, it is logged with its targets: other processes
    /// may serve those entries until their TTL ends.
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// // When the server has answered its last request:
    /// cache.shutdown().await;
    /// assert!(!cache.health().ready());
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        if !inner.guard.is_local() && in_runtime() {
            let _ = timeout(PATIENCE, inner.owed.none()).await;
            if inner.guard.is_connected() {
                let _ = timeout(PATIENCE, Recovery::default().apply(inner)).await;
            }
        }
        let evictions = inner.journal.depth();
        if evictions > 0 {
            let targets = inner.named(inner.journal.some().iter());
            warn!(
                evictions,
                targets,
                "shut down with evictions that Redis has not received: it may serve the affected entries until they expire"
            );
        }
        inner.guard.close();
        inner.guard.store().close().await;
    }
}

impl Inner {
    /// Removes `targets` after the shutdown, on a connection of its own.
    pub(super) async fn invalidate_after_shutdown(
        &self,
        site: &'static Site,
        metrics: &SiteMetrics,
        targets: &[Target],
    ) -> Evicted {
        if self.guard.is_local() {
            // Everything went with the store.
            metrics.count(Event::EvictApplied);
            return Evicted::Applied { keys: 0 };
        }
        // Connecting may take longer than an operation may. It then continues without the caller.
        let removed = match self.spawn_after_shutdown(site, targets) {
            Some(task) => timeout(self.config.command_timeout, task).await,
            None => Ok(Ok(None)),
        };
        match removed {
            Ok(Ok(Some(keys))) => {
                metrics.count(Event::EvictApplied);
                Evicted::Applied { keys }
            }
            _ => {
                metrics.count(Event::EvictJournaled);
                Evicted::Journaled
            }
        }
    }

    /// The same in the background. The task returns the number of entries, if all of them are removed.
    pub(super) fn spawn_after_shutdown(
        &self,
        site: &'static Site,
        targets: &[Target],
    ) -> Option<JoinHandle<Option<u64>>> {
        if self.guard.is_local() {
            return None;
        }
        let (Some(inner), Ok(runtime)) = (self.this.upgrade(), Handle::try_current()) else {
            self.warn_after_shutdown(targets);
            return None;
        };
        let targets = targets.to_vec();
        Some(runtime.spawn(async move {
            match inner.try_after_shutdown(site, &targets).await {
                Ok(keys) => {
                    let metrics = inner.metrics.site(&site.metrics);
                    metrics.add(Event::EvictedKeys, keys);
                    Some(keys)
                }
                Err(left) => {
                    inner.warn_after_shutdown(&left);
                    None
                }
            }
        }))
    }

    fn warn_after_shutdown(&self, targets: &[Target]) {
        let targets = self.named(targets.iter());
        warn!(
            targets,
            "an eviction after the shutdown could not be applied: Redis may serve the affected entries until they expire"
        );
    }

    /// Returns how many entries there were, or what is left.
    async fn try_after_shutdown(
        &self,
        site: &'static Site,
        targets: &[Target],
    ) -> Result<u64, Vec<Target>> {
        let all = || targets.to_vec();
        if !in_runtime() {
            return Err(all());
        }
        let store = RedisStore::new(&self.config).map_err(|_| all())?;
        let cache = Cache::around(self.config.clone(), None, |config, wake| {
            Guard::remote(Arc::new(store), config, wake)
        });
        let inner = &cache.inner;
        let patience = self.config.connect_timeout + self.config.command_timeout;
        let probed = timeout(patience, inner.guard.store().probe()).await;
        let left = match probed {
            Ok(Ok(())) => {
                inner.guard.begin_recovery();
                inner.guard.finish_recovery(inner.guard.store().term());
                let metrics = self.metrics.site(&site.metrics);
                let behalf = Behalf {
                    site,
                    metrics: &metrics,
                    via: Via::Caller,
                };
                let mut purge = Purge::new(all(), Reach::Everything, &self.config.prefix);
                let _ = purge.run(inner, behalf).await;
                let progress = purge.take_progress();
                let mut left = purge.into_rest();
                left.extend(progress.refused.into_iter().map(|(target, _)| target));
                if left.is_empty() {
                    Ok(progress.removed)
                } else {
                    Err(left)
                }
            }
            _ => Err(all()),
        };
        inner.guard.close();
        inner.guard.store().close().await;
        left
    }
}
