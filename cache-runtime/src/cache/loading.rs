//! The loads that are under way: who is in the middle of which, and how they are counted.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Inner, warming};
use crate::key::Key;
use crate::metrics::{Event, SiteMetrics, Timer};

tokio::task_local! {
    /// The loads that this task is in the middle of.
    static LOADING: Arc<Chain>;
}

/// A load, and those that it runs inside of.
struct Chain {
    cache: usize,
    /// Its hash: should two keys ever share one, a load is not shared, and nothing worse.
    key: u64,
    outer: Option<Arc<Self>>,
}

/// Whether this very task is in the middle of loading `key`: it must not wait for itself.
pub(super) fn is_under_way(inner: &Inner, key: &Key) -> bool {
    LOADING
        .try_with(|chain| chain.holds(inner, key))
        .unwrap_or(false)
}

/// Runs `body` as the load of `key`.
pub(super) fn run<F: Future>(inner: &Inner, key: &Key, body: F) -> impl Future<Output = F::Output> {
    let chain = Chain {
        cache: address(inner),
        key: key.hash(),
        outer: LOADING.try_with(Arc::clone).ok(),
    };
    LOADING.scope(Arc::new(chain), body)
}

/// Tells caches apart for as long as they live.
fn address(inner: &Inner) -> usize {
    std::ptr::from_ref(inner).addr()
}

impl Chain {
    fn holds(&self, inner: &Inner, key: &Key) -> bool {
        let mut link = Some(self);
        while let Some(Self {
            cache,
            key: loading,
            outer,
        }) = link
        {
            if *cache == address(inner) && *loading == key.hash() {
                return true;
            }
            link = outer.as_deref();
        }
        false
    }
}

/// Counts a load, also one that panics or is dropped.
pub(super) struct Loading<'a> {
    metrics: &'a SiteMetrics,
    began: Instant,
    is_over: bool,
}

impl<'a> Loading<'a> {
    pub(super) fn begin(metrics: &'a SiteMetrics) -> Self {
        Self {
            metrics,
            began: Instant::now(),
            is_over: false,
        }
    }

    /// The body returned. Answers how long it took.
    pub(super) fn end(mut self, is_ok: bool) -> Duration {
        self.is_over = true;
        let took = self.began.elapsed();
        warming::note(is_ok);
        self.metrics.count(Event::Load);
        self.metrics.time(Timer::Load, took);
        if !is_ok {
            self.metrics.count(Event::LoadFailed);
        }
        took
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            warming::note(false);
            self.metrics.count(Event::LoadFailed);
        }
    }
}
