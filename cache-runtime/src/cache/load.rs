//! The loads that are under way: who is in the middle of which, and how they are counted.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::{Inner, warming};
use crate::key::Key;
use crate::metrics::{Event, SiteMetrics, Timer};
use crate::site::Outcome;
use crate::store::BoxFuture;

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

/// A body that runs as the load of a key, and what is done beside it. Resolves to what it returned, and how long it took.
///
/// By hand: a body may be one level of many, and each of the futures that this would else be made of takes its part of the stack.
pub(super) struct Load<'a, O, B> {
    chain: Arc<Chain>,
    loading: Option<Loading<'a>>,
    held: Option<BoxFuture<'a, ()>>,
    body: Pin<&'a mut B>,
    outcome: PhantomData<fn() -> O>,
}

impl<'a, O, B> Load<'a, O, B> {
    pub(super) fn new(
        inner: &Inner,
        key: &Key,
        metrics: &'a SiteMetrics,
        held: Option<BoxFuture<'a, ()>>,
        body: Pin<&'a mut B>,
    ) -> Self {
        let chain = Chain {
            cache: address(inner),
            key: key.hash(),
            outer: LOADING.try_with(Arc::clone).ok(),
        };
        Self {
            chain: Arc::new(chain),
            loading: Some(Loading::begin(metrics)),
            held,
            body,
            outcome: PhantomData,
        }
    }
}

impl<O: Outcome, B: Future<Output = O::Output>> Future for Load<'_, O, B> {
    type Output = (O::Output, Duration);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let body = this.body.as_mut();
        let polled = LOADING.sync_scope(Arc::clone(&this.chain), || body.poll(cx));
        if let Poll::Ready(output) = polled {
            this.held = None;
            let loading = this.loading.take();
            let took = loading.map(|loading| loading.end(O::returned(&output).is_some()));
            return Poll::Ready((output, took.unwrap_or_default()));
        }
        let held = this.held.as_mut();
        if held.is_some_and(|held| held.as_mut().poll(cx).is_ready()) {
            this.held = None;
        }
        Poll::Pending
    }
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
struct Loading<'a> {
    metrics: &'a SiteMetrics,
    began: Instant,
    is_over: bool,
}

impl<'a> Loading<'a> {
    fn begin(metrics: &'a SiteMetrics) -> Self {
        Self {
            metrics,
            began: Instant::now(),
            is_over: false,
        }
    }

    /// The body returned. Answers how long it took.
    fn end(mut self, is_ok: bool) -> Duration {
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
