//! Evictions as calls owe them, and the fences that stand until they are made. What an eviction does is in `invalidate.rs`.

use std::mem;
use std::sync::Arc;

use super::pending::{self, Collected};
use super::{Evicted, Inner};
use crate::entry::{self, FENCED};
use crate::error::{Error, ErrorKind};
use crate::metrics::{Event, SiteMetrics};
use crate::site::Site;
use crate::store::guard::{On, Op};
use crate::tag::Tag;
use crate::target::Target;

impl Inner {
    /// Places a fence at every key and tag among `targets`, and at the markers of the families of tags. While a fence exists no
    /// process stores a value under it, so a process that ends between its commit and its eviction leaves no stale value.
    /// Returns those targets, and whether Redis has answered.
    pub(super) async fn fence(
        &self,
        site: &'static Site,
        metrics: &SiteMetrics,
        targets: &[Target],
    ) -> (Vec<Target>, bool) {
        let now = self.config.clock.now_millis();
        let ttl = self.config.fence_ttl;
        let (mut fenced, mut fences, mut records) = (Vec::new(), Vec::new(), Vec::new());
        for target in targets {
            match target {
                Target::Key(key) => {
                    fences.push((key.clone(), entry::fence(key, now, ttl).into_bytes()));
                }
                Target::Tag(tag) => {
                    // A load that began before the end of the fence may end after it, and only then name this tag.
                    let marker = Tag::marker(&self.config.prefix, tag.family());
                    for record in [marker, tag.key().clone()] {
                        records.push((record, FENCED.to_vec()));
                    }
                }
                Target::Pattern(_) | Target::All => continue,
            }
            fenced.push(target.clone());
        }
        // Without a fence, the later eviction is an ordinary one.
        let keys = async {
            let Some((first, _)) = fences.first() else {
                return true;
            };
            let op = Op::new("fence", site, metrics, On::Key(first));
            is_answered(self.run(op, |store| store.fence(&fences, ttl)).await)
        };
        let tags = async {
            let Some((first, _)) = records.first() else {
                return true;
            };
            let op = Op::new("fence", site, metrics, On::Key(first));
            is_answered(self.run(op, |store| store.set_many(&records, ttl)).await)
        };
        let (keys, tags) = tokio::join!(keys, tags);
        (fenced, keys && tags)
    }
}

fn is_answered<T>(answer: Result<T, Error>) -> bool {
    !matches!(
        answer.map_err(|error| error.kind()),
        Err(ErrorKind::Timeout | ErrorKind::Stalled | ErrorKind::Connection)
    )
}

/// An eviction that is owed from the moment the body runs. Even if the call is cancelled, the eviction is issued or
/// collected by its scope.
pub(super) struct Eviction<'a> {
    /// Remembered, because a call may be dropped elsewhere.
    scope: Option<Arc<Collected>>,
    inner: &'a Inner,
    site: &'static Site,
    metrics: &'a SiteMetrics,
    targets: Vec<Target>,
}

impl<'a> Eviction<'a> {
    /// Owes `targets`. It is created right before the body is polled: a call that never got there owes nothing.
    pub(super) fn begin(
        inner: &'a Inner,
        site: &'static Site,
        metrics: &'a SiteMetrics,
        targets: Vec<Target>,
    ) -> Self {
        Self::begin_in(pending::current(), inner, site, metrics, targets)
    }

    /// The same in a given scope, or in none.
    pub(super) fn begin_in(
        scope: Option<Arc<Collected>>,
        inner: &'a Inner,
        site: &'static Site,
        metrics: &'a SiteMetrics,
        targets: Vec<Target>,
    ) -> Self {
        inner.owed.begin();
        Self {
            scope,
            inner,
            site,
            metrics,
            targets,
        }
    }

    /// Owes more.
    pub(super) fn also(&mut self, targets: Vec<Target>) {
        self.targets.extend(targets);
    }

    /// Pays. Cancelled on the way, the background task pays.
    pub(super) async fn apply(mut self) -> Evicted {
        let evicted = match self.is_deferred() {
            true => {
                self.metrics.count(Event::EvictDeferred);
                Evicted::Deferred
            }
            false => {
                self.inner
                    .invalidate(self.site, self.metrics, &self.targets)
                    .await
            }
        };
        self.targets.clear();
        evicted
    }

    /// Returns whether it is made inside a scope.
    pub(super) fn is_scoped(&self) -> bool {
        self.scope.is_some()
    }

    /// Leaves it to its scope. Returns whether there is a scope that has not ended.
    fn is_deferred(&self) -> bool {
        self.scope
            .as_ref()
            .is_some_and(|scope| scope.collect(self.inner, &self.targets))
    }

    /// Leaves it to the background task or to its scope. No caller waits for it.
    pub(super) fn defer(self) {}

    /// Clears the debt. Returns what was owed.
    pub(super) fn disarm(mut self) -> Vec<Target> {
        mem::take(&mut self.targets)
    }
}

impl Drop for Eviction<'_> {
    fn drop(&mut self) {
        if !self.targets.is_empty() {
            if self.is_deferred() {
                self.metrics.count(Event::EvictDeferred);
            } else {
                self.metrics.count(Event::EvictJournaled);
                self.inner
                    .invalidate_in_background(self.site, &self.targets);
            }
        }
        self.inner.owed.end();
    }
}
