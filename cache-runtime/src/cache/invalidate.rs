//! The single path of all evictions: from attributes, by hand, from a committed scope, in the background and after
//! shutdown.
//!
//! ```text
//! this process ─► what is replayed on another server ─► store ─► journal, for the rest ─► this process again
//! ```
//!
//! [`Inner::invalidate_here`] drops what this process keeps of an entry: the loads under way, and its value in the local
//! tier. Every path calls it last.

use futures_util::FutureExt;
use tokio::time::Instant;

use super::purge::{Behalf, Progress, Purge};
use super::recovery::Recovery;
use super::{Evicted, Inner, log, reconnect};
use crate::metrics::{Event, SiteMetrics};
use crate::site::Site;
use crate::store::guard::{State, Via};
use crate::store::reach::Reach;
use crate::target::Target;

impl Inner {
    /// Removes `targets` for a caller. What the store does not acknowledge goes into the journal.
    ///
    /// They are a list and not a set: most evictions name a single key.
    pub(super) async fn invalidate(
        &self,
        site: &'static Site,
        metrics: &SiteMetrics,
        targets: &[Target],
    ) -> Evicted {
        let began = Instant::now();
        self.invalidate_here(targets);
        if self.guard.state() == State::Closed {
            return self.invalidate_after_shutdown(site, metrics, targets).await;
        }
        self.note(targets.iter().cloned());
        let term = self.guard.store().term();
        let everywhere = Reach::Everything;
        let mut purge = Purge::new(targets.iter().cloned(), everywhere, &self.config.prefix);
        let behalf = Behalf {
            site,
            metrics,
            via: Via::Caller,
        };
        // The store has recorded the cause, and the rest goes into the journal.
        let _ = purge.run(self, behalf).await;
        let Progress {
            removed,
            applied: _,
            refused,
            missed,
        } = purge.take_progress();
        let rest = purge.into_rest();
        metrics.add(Event::EvictedKeys, removed);
        let evicted = if refused.is_empty() && rest.is_empty() && missed.is_empty() {
            metrics.count(Event::EvictApplied);
            self.confirm(targets, term).await;
            Evicted::Applied { keys: removed }
        } else {
            metrics.count(Event::EvictJournaled);
            self.journal.add_refused(&refused);
            self.journal.add_missed(&missed);
            self.enqueue(&rest);
            Evicted::Journaled
        };
        // A load that began in between may have read an entry that was removed a moment later or whose removal is
        // pending.
        self.invalidate_here(targets);
        log::invalidated(self, site, targets, evicted, began.elapsed());
        evicted
    }

    /// Removes `targets` when no caller waits: from now on this process neither reads nor fills them, and the background task
    /// removes them from the store.
    pub(super) fn invalidate_in_background(&self, site: &'static Site, targets: &[Target]) {
        let is_closed = self.guard.state() == State::Closed;
        if is_closed {
            self.spawn_after_shutdown(site, targets);
        } else {
            self.enqueue(targets);
        }
        self.invalidate_here(targets);
        if !is_closed && self.guard.is_local() {
            // A store in this process answers at the first poll, and there is no background task.
            let mut recovery = Recovery::default();
            let _ = recovery.apply(self).now_or_never();
        }
    }

    /// Drops what this process keeps of `targets`. A caller that has replaced the entries in the store needs nothing
    /// else: later callers are detached from the loads under way.
    pub(super) fn invalidate_here(&self, targets: &[Target]) {
        self.flights.invalidate(targets);
        self.local.doubt(targets);
    }

    /// Leaves `targets` to the background task.
    fn enqueue(&self, targets: &[Target]) {
        self.journal.add(targets);
        reconnect::ensure(self);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    use tokio::sync::oneshot;

    use crate::Cache;

    async fn read(cache: &Cache, load: impl Future<Output = u32>) -> u32 {
        let load = async { Ok::<_, Infallible>(load.await) };
        let cache = cache.tagged(&["rows"]);
        let Ok(value) = cache.get_or_load("row:1", 60_u64, load).await;
        value
    }

    /// Evicts the key during its load. Returns the results of that load and of a later call.
    async fn evict_during_a_load(cache: &Cache, evict: impl AsyncFnOnce(&Cache)) -> (u32, u32) {
        let (loaded, load) = oneshot::channel();
        let mut first = pin!(read(cache, async {
            load.await.expect("the value is sent")
        }));
        let began = poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx))).await;
        assert!(began.is_pending());

        evict(cache).await;
        let mut second = pin!(read(cache, async { 2 }));
        let early = poll_fn(|cx| Poll::Ready(second.as_mut().poll(cx))).await;
        loaded.send(1).expect("the load waits for it");

        let first = first.await;
        match early {
            Poll::Ready(second) => (first, second),
            Poll::Pending => (first, second.await),
        }
    }

    #[tokio::test]
    async fn an_eviction_after_the_shutdown_detaches_later_callers_from_a_load() {
        let cache = Cache::memory();
        cache.shutdown().await;

        let by_key = evict_during_a_load(&cache, async |cache| {
            cache.delete("row:1").await;
        })
        .await;
        let by_pattern = evict_during_a_load(&cache, async |cache| {
            cache.delete_matching("row:*").await;
        })
        .await;
        let by_tag = evict_during_a_load(&cache, async |cache| {
            cache.delete_tagged("rows").await;
        })
        .await;

        assert_eq!((by_key, by_pattern, by_tag), ((1, 2), (1, 2), (1, 2)));
    }
}
