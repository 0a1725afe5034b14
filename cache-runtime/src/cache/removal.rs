//! Evictions: from the process, from the store, and, where the store cannot be reached, into the journal.

use std::future::Future;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::time::Instant;

use super::scope::{self, Collected};
use super::{Evicted, Inner, keeper};
use crate::entry;
use crate::error::Error;
use crate::key::{Key, Pattern};
use crate::metrics::{Event, SiteMetrics};
use crate::site::Site;
use crate::store::{BoxFuture, Store};
use crate::target::Target;

/// On whose behalf the store is asked: callers are refused while it recovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Caller,
    Keeper,
}

impl Inner {
    /// Removes `targets` for a caller. What the store does not acknowledge goes into the journal.
    pub(super) async fn remove(&self, metrics: &SiteMetrics, targets: &[Target]) -> Evicted {
        self.doom(targets);
        let removed = self.remove_from_store(targets, Via::Caller).await;
        let evicted = match removed {
            Ok(keys) => {
                metrics.add(Event::EvictedKeys, keys);
                Evicted::Applied { keys }
            }
            Err(_) => {
                metrics.count(Event::EvictJournaled);
                self.owe(targets);
                Evicted::Journaled
            }
        };
        // A load that began in between may have found what was removed a moment later, or is owed.
        self.doom(targets);
        evicted
    }

    /// Puts a fence in place of every key among `targets`, and answers those keys. While it stands nobody stores a value, so
    /// that a process that ends between its commit and its eviction leaves no stale one behind.
    pub(super) async fn fence(
        &self,
        metrics: &SiteMetrics,
        site: &Site,
        targets: &[Target],
    ) -> Vec<Target> {
        let now = self.config.clock.now_millis();
        let keys = targets.iter().filter_map(|target| match target {
            Target::Key(key) => Some(key),
            Target::Pattern(_) | Target::All => None,
        });
        let fences: Vec<_> = keys
            .map(|key| (key.clone(), entry::fence(key, now).into_bytes()))
            .collect();
        let Some((first, _)) = fences.first() else {
            return Vec::new();
        };
        let (began, life) = (Instant::now(), self.config.fence_ttl);
        let placed = self
            .guard
            .call_since(began, |store| store.fence(&fences, life));
        // Without it the eviction that follows is one like any other.
        let _ = self
            .observed(metrics, "fence", site, first, began, placed)
            .await;
        fences
            .into_iter()
            .map(|(key, _)| Target::Key(key))
            .collect()
    }

    /// Removes `targets` without anybody waiting: from now on this process neither reads nor fills them, and the keeper
    /// takes them from the store.
    pub(super) fn remove_later(&self, targets: &[Target]) {
        self.owe(targets);
        self.doom(targets);
        if self.guard.is_local() {
            // A store in this process answers at the first poll, and there is no keeper.
            let _ = pin!(keeper::apply_journal(self)).poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Leaves `targets` to the keeper.
    fn owe(&self, targets: &[Target]) {
        self.journal.add(targets);
        keeper::ensure(self);
    }

    /// Answers how many keys there were.
    pub(super) async fn remove_from_store(
        &self,
        targets: &[Target],
        via: Via,
    ) -> Result<u64, Error> {
        let mut removed = 0;
        let mut keys: Vec<Key> = Vec::new();
        for target in targets {
            match target {
                Target::Key(key) => keys.push(key.clone()),
                Target::Pattern(pattern) => removed += self.sweep(pattern, via).await?,
                Target::All => {
                    removed += self.sweep(&Pattern::all(&self.config.prefix), via).await?;
                }
            }
        }
        if !keys.is_empty() {
            removed += self.ask(via, |store| store.delete(&keys)).await?;
        }
        Ok(removed)
    }

    /// Walks the keyspace slice by slice, so that each step has the deadline of one operation.
    async fn sweep(&self, pattern: &Pattern, via: Via) -> Result<u64, Error> {
        let (mut cursor, mut removed) = (0, 0);
        loop {
            let (next, keys) = self
                .ask(via, |store| store.delete_slice(pattern, cursor))
                .await?;
            removed += keys;
            cursor = next;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }

    async fn ask<'a, T>(
        &'a self,
        via: Via,
        operation: impl FnOnce(&'a dyn Store) -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        match via {
            Via::Caller => self.guard.call(operation).await,
            Via::Keeper => self.guard.repair(operation).await,
        }
    }
}

/// An eviction that is owed from the moment the body runs. Whatever happens to the call, it is issued, or collected by the
/// scope that it belongs to.
pub(super) struct Eviction<'a> {
    /// Remembered, because a call may be dropped elsewhere.
    scope: Option<Arc<Collected>>,
    inner: &'a Inner,
    metrics: &'a SiteMetrics,
    targets: Vec<Target>,
}

impl<'a> Eviction<'a> {
    /// Owes `targets`. Made right before the body is polled: a call that never got there owes nothing.
    pub(super) fn begin(inner: &'a Inner, metrics: &'a SiteMetrics, targets: Vec<Target>) -> Self {
        Self::begin_in(scope::current(), inner, metrics, targets)
    }

    /// The same in a given scope, or in none.
    pub(super) fn begin_in(
        scope: Option<Arc<Collected>>,
        inner: &'a Inner,
        metrics: &'a SiteMetrics,
        targets: Vec<Target>,
    ) -> Self {
        Self {
            scope,
            inner,
            metrics,
            targets,
        }
    }

    /// Owes more.
    pub(super) fn also(&mut self, targets: Vec<Target>) {
        self.targets.extend(targets);
    }

    /// Pays. Cancelled on the way, the keeper pays.
    pub(super) async fn apply(mut self) -> Evicted {
        let evicted = match self.is_deferred() {
            true => Evicted::Deferred,
            false => self.inner.remove(self.metrics, &self.targets).await,
        };
        self.targets.clear();
        evicted
    }

    /// Whether it is made inside a scope.
    pub(super) fn is_scoped(&self) -> bool {
        self.scope.is_some()
    }

    /// Leaves it to its scope. Answers whether there is one that has not ended.
    fn is_deferred(&self) -> bool {
        self.scope
            .as_ref()
            .is_some_and(|scope| scope.collect(self.inner, &self.targets))
    }

    /// Nothing is owed any more. Answers what was.
    pub(super) fn settle(mut self) -> Vec<Target> {
        mem::take(&mut self.targets)
    }
}

impl Drop for Eviction<'_> {
    fn drop(&mut self) {
        if !self.targets.is_empty() && !self.is_deferred() {
            self.metrics.count(Event::EvictJournaled);
            self.inner.remove_later(&self.targets);
        }
    }
}
