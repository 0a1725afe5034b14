//! The one background task of a cache with a Redis: it probes while Redis is unavailable, applies the journal, and only then
//! lets callers through again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::error;

use super::Inner;
use super::recovery::{Next, Recovery};
use crate::clock::in_real_time;
use crate::error::{Error, ErrorKind, with_causes};
use crate::store::guard::{Op, State, Via, in_runtime};
use crate::store::{Store, backoff};

/// A service does not wait longer for its cache when it starts.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);

/// A Redis that is lost this soon after it was found answers probes but serves no caller, such as a replica that rejects
/// writes. Finding it does not count as success.
const STEADY: Duration = Duration::from_secs(1);

/// How often a caller that waits for an attempt looks whether it is over.
const LOOK: Duration = Duration::from_millis(1);

/// Tries to connect once before the cache is returned. A server that the cache cannot use is an error. A server that does
/// not answer is not an error.
pub(super) async fn first_attempt(inner: &Inner) -> Result<(), Error> {
    let attempt = async { timeout(FIRST_ATTEMPT, probe(inner)).await.ok() };
    match in_real_time(FIRST_ATTEMPT, attempt).await {
        Some(Ok(())) => {
            let _ = Recovery::default().drain_and_open(inner).await;
        }
        Some(Err(error)) if error.kind() == ErrorKind::Config => return Err(error),
        Some(Err(_)) | None => {}
    }
    if !inner.guard.is_connected() {
        inner.guard.start_without(&Error::timeout(FIRST_ATTEMPT));
    }
    Ok(())
}

/// Starts the background task if there is none: at the beginning, and again after the runtime that it ran on has ended.
pub(super) fn ensure(inner: &Inner) {
    if inner.guard.is_local() {
        return;
    }
    inner.background.start(|running| {
        let (cache, wake) = (Weak::clone(&inner.this), Arc::clone(&inner.wake));
        inner.guard.beat.strike();
        async move {
            run(cache, wake).await;
            // A task that has given up is not replaced.
            running.end_for_good();
        }
    });
}

/// An operation failed. If Redis is unavailable, the background task sees to its return.
pub(super) fn see_to(inner: &Inner) {
    if !inner.guard.is_connected() {
        ensure(inner);
    }
}

/// Lets the background task work where only callers drive its runtime: a `current_thread` runtime with short `block_on`s
/// polls no other task in between. One caller at a time waits for the next attempt, for at most as long as an operation may
/// take. On any other runtime the background task shows that it is polled, and no caller waits. Returns whether this call
/// waited.
pub(super) async fn drive(inner: &Inner) -> bool {
    let guard = &inner.guard;
    if guard.is_connected() || guard.state() == State::Closed || !in_runtime() {
        return false;
    }
    ensure(inner);
    let Some(turn) = guard.beat.turn_if_starved() else {
        return false;
    };
    // Boxed: every call has room for this future, and hardly any runs it.
    Box::pin(async move {
        let attempt = async {
            while !guard.is_connected() && !turn.is_over() {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(inner.config.command_timeout, attempt).await;
    })
    .await;
    true
}

/// Keeps the cache until it is gone.
async fn run(cache: Weak<Inner>, wake: Arc<Notify>) {
    let (mut failures, mut losses) = (0, 0);
    let mut found: Option<Instant> = None;
    let mut recovery = Recovery::default();
    let signals = cache.upgrade().map(|inner| inner.guard.store().signals());
    let signals = signals.unwrap_or_default();
    loop {
        // The cache may be dropped while there is no work.
        let Some(inner) = cache.upgrade() else { return };
        let next = match inner.guard.state() {
            State::Closed => return,
            State::Connected | State::Recovering => {
                failures = 0;
                found.get_or_insert_with(Instant::now);
                let next = inner
                    .guard
                    .beat
                    .during(recovery.drain_and_open(&inner))
                    .await;
                if inner.guard.notice_loss() {
                    continue;
                }
                next
            }
            State::Fallback if was_no_success(&mut found, &mut losses) => {
                Next::Pause(backoff::pause(losses, inner.config.reconnect_max_delay))
            }
            State::Fallback => match inner.guard.beat.during(probe(&inner)).await {
                Ok(()) => {
                    recovery.begin_again(&inner);
                    continue;
                }
                Err(error) => {
                    failures += 1;
                    if inner
                        .config
                        .reconnect_max_attempts
                        .is_some_and(|most| failures >= most)
                    {
                        error!(%error, failures, "giving up on Redis: functions run uncached until the service restarts");
                        return;
                    }
                    Next::Pause(backoff::pause(failures, inner.config.reconnect_max_delay))
                }
            },
        };
        if let Next::Pause(pause) = next {
            inner.guard.beat.rest(pause);
        }
        drop(inner);
        // There is no need to wait for a server that takes the place of another.
        match next {
            Next::Pause(pause) => tokio::select! {
                () = sleep(pause) => {}
                () = signals.moved.notified() => {}
            },
            Next::WorkOrAt(at) => tokio::select! {
                () = wake.notified() => {}
                () = signals.changed.notified() => {}
                () = signals.moved.notified() => {}
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {}
            },
        }
    }
}

/// Returns whether Redis was lost as soon as it was found. Such losses are counted; the count restarts after Redis was
/// available for a while.
fn was_no_success(found: &mut Option<Instant>, losses: &mut u32) -> bool {
    let Some(found) = found.take() else {
        return false;
    };
    let was_brief = found.elapsed() < STEADY;
    *losses = if was_brief { *losses + 1 } else { 0 };
    was_brief
}

/// Probes the server.
async fn probe(inner: &Inner) -> Result<(), Error> {
    let bound = inner.config.connect_timeout + inner.config.command_timeout;
    let probed = async { timeout(bound, inner.guard.store().probe()).await.ok() };
    let probed = in_real_time(bound, probed).await;
    let probed = probed.unwrap_or_else(|| Err(Error::timeout(bound)));
    match &probed {
        Ok(()) => inner.guard.begin_recovery(),
        Err(error) => inner.guard.is_unavailable_because(with_causes(error)),
    }
    probed
}

impl Inner {
    /// Runs one operation of the store behind the guard. Where Redis is unavailable, a task sees to its return.
    pub(super) async fn run<'a, T, F: Future<Output = Result<T, Error>>>(
        &'a self,
        mut op: Op<'_>,
        operation: impl FnOnce(&'a dyn Store) -> F,
    ) -> Result<T, Error> {
        if op.via == Via::Caller && drive(self).await {
            op.began = Instant::now();
        }
        let result = self.guard.run(op, operation).await;
        if result.is_err() {
            see_to(self);
        }
        result
    }
}
