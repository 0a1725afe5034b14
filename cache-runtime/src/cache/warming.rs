//! What warming needs from the cache: whether it makes sense to continue, and which process runs a job.

use std::fmt;
use std::future::{self, Future};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{Cache, Inner, lease, reconnect};
use crate::entry::{self, Entry, Stamp};
use crate::error::Error;
use crate::key::Key;
use crate::site::Site;
use crate::store::guard::{On, Op, State, in_runtime};
use crate::store::{BoxFuture, Replaced, Store};

/// The site in the statistics for the leases of scheduled jobs.
static DUTY: Site = Site::new("Schedule", "");

impl Cache {
    /// Returns whether what is loaded now can be stored.
    pub(crate) fn can_store(&self) -> bool {
        let is_connected = self.inner.guard.is_connected();
        if !is_connected {
            reconnect::ensure(&self.inner);
        }
        is_connected
    }

    /// The same, but an unavailable store may become available within `patience`.
    pub(crate) async fn can_store_within(&self, patience: Duration) -> bool {
        self.can_store() || (in_runtime() && self.is_back_within(patience).await)
    }

    /// Waits until the store is back. Returns whether it came back within `patience`. The future does not keep the cache alive, and
    /// ends with it.
    pub(crate) fn is_back_within(&self, patience: Duration) -> impl Future<Output = bool> + use<> {
        let mut states = self.inner.guard.states();
        async move {
            let back = states.wait_for(|state| *state == State::Connected);
            matches!(timeout(patience, back).await, Ok(Ok(_)))
        }
    }
}

/// Lets one instance at a time run a job. Its lease lasts while the job runs and for the rest of the period. Without Redis
/// there is one instance, and it always runs the job.
pub(crate) struct Duty {
    inner: Arc<Inner>,
    key: Key,
    held: Held,
}

/// What this instance has in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    /// The lease of a job that runs.
    Running(Stamp),
    /// A lease that keeps other instances from running the job, if it still exists.
    Left(Stamp),
}

impl Duty {
    /// For the job `name`.
    pub(crate) fn new(cache: &Cache, name: &str) -> Self {
        let inner = Arc::clone(&cache.inner);
        Self {
            key: Key::record(&inner.config.prefix, "warm", name),
            held: Held::Nothing,
            inner,
        }
    }

    /// Asks for the lease of one round. A lease that this instance left in the store does not block it.
    pub(crate) async fn take(&mut self) -> Result<bool, Error> {
        let config = &self.inner.config;
        if self.inner.guard.is_local() {
            return Ok(true);
        }
        reconnect::ensure(&self.inner);
        let key = &self.key;
        if let Held::Left(stamp) = self.held {
            self.ask("release", |store| store.delete_if(key, &stamp))
                .await?;
        }
        let lease = entry::lease(key, config.clock.now_millis(), config.lease);
        // It may be placed without an answer.
        self.held = Held::Left(lease.stamp());
        let mut there = self.place(&lease).await?;
        if let Some(found) = &there
            && self.is_removed(found).await?
        {
            there = self.place(&lease).await?;
        }
        self.held = match there {
            None => Held::Running(lease.stamp()),
            Some(_) => Held::Nothing,
        };
        Ok(there.is_none())
    }

    /// Prolongs the lease. Does not return.
    pub(crate) async fn keep(&self) {
        let ttl = self.inner.config.lease;
        if let Held::Running(stamp) = self.held {
            loop {
                sleep(ttl / 3).await;
                match self.prolong(stamp, ttl).await {
                    Ok(true) => {}
                    Ok(false) => {
                        debug!(key = %self.shown(), "lost the lease of a job; another instance may run it too");
                        break;
                    }
                    Err(error) => {
                        debug!(key = %self.shown(), %error, "could not renew the lease of a job");
                    }
                }
            }
        }
        future::pending::<()>().await;
    }

    /// The job is over. No instance runs it again for `rest`.
    pub(crate) async fn leave(&mut self, rest: Duration) {
        let Held::Running(stamp) = self.held else {
            return;
        };
        if rest.is_zero() {
            self.release();
            return;
        }
        self.held = Held::Left(stamp);
        if let Err(error) = self.prolong(stamp, rest).await {
            debug!(key = %self.shown(), %error, "could not record a finished round; another instance may run it again");
        }
    }

    async fn place(&self, lease: &Entry) -> Result<Option<Vec<u8>>, Error> {
        let ttl = self.inner.config.lease;
        self.ask("lease", |store| {
            store.lease(&self.key, lease.as_bytes(), ttl)
        })
        .await
    }

    /// Removes what is stored in the place of a lease if it is not a valid lease: it is not a lease, it is over, or it has
    /// no expiry.
    async fn is_removed(&self, found: &[u8]) -> Result<bool, Error> {
        let key = &self.key;
        let now = self.inner.config.clock.now_millis();
        match entry::whole_stamp_of(found) {
            Some(stamp) if entry::is_standing_claim(found, key, now) => {
                self.ask("delete dead", |store| store.delete_dead(key, stamp))
                    .await
            }
            _ => {
                let stamp = entry::stamp_of(found);
                self.ask("delete unreadable", |store| store.delete_if(key, stamp))
                    .await
            }
        }
    }

    async fn prolong(&self, stamp: Stamp, ttl: Duration) -> Result<bool, Error> {
        let now = self.inner.config.clock.now_millis();
        let lease = entry::renewed_lease(stamp, &self.key, now, ttl);
        self.ask("renew", |store| {
            store.replace(&self.key, stamp, lease.as_bytes(), ttl)
        })
        .await
        .map(|replaced| replaced == Replaced::Done)
    }

    async fn ask<'a, T>(
        &'a self,
        name: &'static str,
        operation: impl FnOnce(&'a dyn Store) -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        let metrics = self.inner.metrics.site(&DUTY.metrics);
        let op = Op::new(name, &DUTY, &metrics, On::Key(&self.key));
        self.inner.run(op, operation).await
    }

    fn release(&mut self) {
        if let Held::Running(stamp) = self.held {
            self.held = Held::Nothing;
            lease::release_in_background(&self.inner.this, &self.key, stamp);
        }
    }

    fn shown(&self) -> impl fmt::Display + '_ {
        self.key.shown(self.inner.config.mask_keys)
    }
}

/// The next to look need not wait for the lease to end.
impl Drop for Duty {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::config::Config;
    use crate::store::guard::Guard;
    use crate::store::memory::MemoryStore;

    /// A cache that stays in fallback mode.
    fn in_fallback() -> Cache {
        Cache::around(Config::default(), None, |config, wake| {
            let store = MemoryStore::new(config.memory_capacity, config.clock.clone());
            Guard::remote(Arc::new(store), config, wake)
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_the_store_ends_as_soon_as_it_is_back() {
        let cache = in_fallback();
        let began = Instant::now();
        let back = tokio::spawn(cache.is_back_within(Duration::from_secs(60)));
        tokio::task::yield_now().await;

        cache.inner.guard.begin_recovery();
        cache.inner.guard.finish_recovery(0);

        assert!(back.await.expect("no panic"));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_the_store_ends_at_its_limit() {
        let (cache, patience) = (in_fallback(), Duration::from_secs(60));
        let began = Instant::now();

        assert!(!cache.is_back_within(patience).await);

        assert!(began.elapsed() >= patience);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_the_store_ends_with_the_cache() {
        let cache = in_fallback();
        let began = Instant::now();
        let back = cache.is_back_within(Duration::from_secs(60));

        drop(cache);

        assert!(!back.await);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
