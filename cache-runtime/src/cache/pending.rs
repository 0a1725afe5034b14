//! Evictions that scopes have collected, and which scopes a task is in.

use std::future::Future;
use std::slice;
use std::sync::{Arc, MutexGuard};

use tracing::warn;

use super::Inner;
use crate::key::Key;
use crate::metrics::SiteRef;
use crate::site::Site;
use crate::sync::Mutex;
use crate::tag::Tag;
use crate::target::{Target, TargetSet};

/// The site in the statistics for evictions that a scope applies on commit.
pub(super) static SCOPE: Site = Site::new("CacheScope", "");

tokio::task_local! {
    /// The scopes that this task is in.
    static CURRENT: Arc<Link>;
}

/// A scope that a task is in, and those around it.
struct Link {
    scope: Arc<Collected>,
    outer: Option<Arc<Self>>,
}

/// How a call relates to the scopes that it is made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScopeState {
    Outside,
    Inside,
    /// Inside a scope that evicts this key.
    Evicted,
}

/// Returns how a call for `key`, with these tags and families, relates to its scopes.
pub(super) fn scope_state(inner: &Inner, key: &Key, tags: &[Tag], families: &[&str]) -> ScopeState {
    let is_evicted =
        |targets: &TargetSet| targets.covers(key) || targets.covers_tags(tags, families);
    CURRENT
        .try_with(|link| match link.any(inner, is_evicted) {
            true => ScopeState::Evicted,
            false => ScopeState::Inside,
        })
        .unwrap_or(ScopeState::Outside)
}

/// Returns whether a scope that this task is in evicts `tag`.
pub(super) fn covers_tag(inner: &Inner, tag: &Tag) -> bool {
    let is_evicted = |targets: &TargetSet| targets.covers_tags(slice::from_ref(tag), &[]);
    CURRENT
        .try_with(|link| link.any(inner, is_evicted))
        .unwrap_or(false)
}

/// Returns whether this task is in a scope.
#[inline]
pub(super) fn is_scoped() -> bool {
    CURRENT.try_with(|_| ()).is_ok()
}

/// Does `work` inside of a scope.
pub(super) async fn within<F: Future>(scope: &Arc<Collected>, work: F) -> F::Output {
    let link = Link {
        scope: Arc::clone(scope),
        outer: CURRENT.try_with(Arc::clone).ok(),
    };
    CURRENT.scope(Arc::new(link), work).await
}

/// The innermost scope that this task is in.
pub(super) fn current() -> Option<Arc<Collected>> {
    CURRENT.try_with(|link| Arc::clone(&link.scope)).ok()
}

impl Link {
    /// Returns whether `holds` holds for what any of the scopes has collected.
    fn any(&self, inner: &Inner, holds: impl Fn(&TargetSet) -> bool) -> bool {
        let mut link = Some(self);
        while let Some(Self { scope, outer }) = link {
            if scope.any(inner, &holds) {
                return true;
            }
            link = outer.as_deref();
        }
        false
    }
}

/// The targets that a scope collected. [`None`] after the scope has ended.
pub(super) struct Collected {
    shares: Mutex<Option<Vec<Share>>>,
}

impl Collected {
    pub(super) fn new() -> Self {
        Self {
            shares: Mutex::new(Some(Vec::new())),
        }
    }

    /// How many evictions it has collected.
    pub(super) fn len(&self) -> usize {
        let shares = self.lock();
        let collected = shares.iter().flatten();
        collected.map(|share| share.targets.len()).sum()
    }

    /// Takes over `targets`. Returns whether it did: a scope that has ended accepts nothing.
    pub(super) fn collect(&self, inner: &Inner, targets: &[Target]) -> bool {
        let (mut shares, Some(cache)) = (self.lock(), inner.this.upgrade()) else {
            return false;
        };
        let Some(shares) = shares.as_mut() else {
            return false;
        };
        let capacity = cache.config.journal_capacity;
        let index = shares
            .iter()
            .position(|share| Arc::ptr_eq(&share.cache, &cache))
            .unwrap_or_else(|| {
                shares.push(Share::new(cache));
                shares.len() - 1
            });
        if let Some(share) = shares.get_mut(index) {
            share.targets.collect(targets, capacity);
        }
        true
    }

    fn any(&self, inner: &Inner, holds: impl Fn(&TargetSet) -> bool) -> bool {
        self.lock()
            .iter()
            .flatten()
            .any(|share| std::ptr::eq(&*share.cache, inner) && holds(&share.targets))
    }

    /// Ends the scope.
    pub(super) fn close(&self) -> Vec<Share> {
        self.lock().take().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Share>>> {
        self.shares.lock()
    }
}

/// What a scope has collected for one cache.
pub(super) struct Share {
    pub(super) cache: Arc<Inner>,
    pub(super) metrics: SiteRef,
    pub(super) targets: TargetSet,
}

impl Share {
    fn new(cache: Arc<Inner>) -> Self {
        cache.owed.begin();
        Self {
            metrics: cache.metrics.site(&SCOPE.metrics),
            targets: TargetSet::default(),
            cache,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.cache.owed.end();
    }
}

impl TargetSet {
    /// Adds what a scope collects. More than `capacity` become "all entries".
    pub(super) fn collect(&mut self, targets: &[Target], capacity: usize) {
        for target in targets {
            if self.is_all() {
                return;
            }
            match target {
                Target::All => self.widen(()),
                Target::Key(_) | Target::Pattern(_) | Target::Tag(_) => self.insert(target, ()),
            }
            if self.named() > capacity {
                warn!(
                    capacity,
                    "a scope collected more evictions than the journal can hold; all entries will be evicted instead"
                );
                self.widen(());
            }
        }
    }
}
