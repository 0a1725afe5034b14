//! Loads: a body runs, and is counted.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

use super::boxed;
use super::call::CallContext;
use super::call_report::{CallMetrics, Spent};
use super::caller;
use super::chain::Chain;
use crate::metrics::{Event, Timer};
use crate::store::BoxFuture;

tokio::task_local! {
    /// Wraps every call that warms.
    static WARMING: Cell<Loaded>;
}

impl CallContext<'_> {
    /// Runs the body as the load of the key, together with the future that prolongs its hold. Returns whether it succeeded,
    /// and how long it took.
    pub(super) async fn load(&self, mut hold: Option<BoxFuture<'_, ()>>) -> (bool, Duration) {
        let _permits = match self.is_limited() {
            true => {
                let admission = boxed(|| self.admission(&mut hold));
                self.metrics.spend(Spent::Waiting, admission).await
            }
            false => None,
        };
        let loading = Loading::begin(&self.metrics);
        let chain = Chain::around(self.inner, self.key);
        let mut body = pin!(caller::run_body(Some(chain)));
        let is_ok = match hold {
            None => body.await,
            Some(hold) => tokio::select! {
                biased;
                is_ok = &mut body => is_ok,
                () = hold => body.await,
            },
        };
        (is_ok, loading.end(is_ok))
    }
}

/// Counts a load, also one that panics or is dropped.
struct Loading<'a> {
    metrics: &'a CallMetrics,
    began: Instant,
    is_over: bool,
}

impl<'a> Loading<'a> {
    fn begin(metrics: &'a CallMetrics) -> Self {
        Self {
            metrics,
            began: Instant::now(),
            is_over: false,
        }
    }

    /// The body returned. Returns how long it took.
    fn end(mut self, is_ok: bool) -> Duration {
        self.is_over = true;
        let took = self.began.elapsed();
        note(is_ok);
        self.metrics.count(match is_ok {
            true => Event::LoadDone,
            false => Event::LoadErr,
        });
        self.metrics.time(Timer::Load, took);
        self.metrics.spent(Spent::Loading, took);
        took
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            note(false);
            self.metrics.count(Event::LoadDropped);
        }
    }
}

/// How the loads inside a call ended. The last load counts, because the others ran inside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Loaded {
    /// No body ran.
    #[default]
    Nothing,
    Done,
    /// The call may still have returned a stale value.
    Failed,
}

/// Runs a call that warms: stale values are refreshed before it returns.
pub(crate) async fn watched<T>(call: impl Future<Output = T>) -> (T, Loaded) {
    let watched = async {
        let output = call.await;
        (output, WARMING.try_with(Cell::get).unwrap_or_default())
    };
    WARMING.scope(Cell::default(), watched).await
}

/// Returns whether this call warms.
pub(super) fn is_warming() -> bool {
    WARMING.try_with(|_| ()).is_ok()
}

/// A load ended.
fn note(is_ok: bool) {
    let loaded = if is_ok { Loaded::Done } else { Loaded::Failed };
    // Hardly any load is in a call that warms.
    let _ = WARMING.try_with(|last| last.set(loaded));
}
