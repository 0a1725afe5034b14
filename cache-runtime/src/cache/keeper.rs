//! The one background task of a cache with a Redis: it probes while Redis is away, applies the journal, and only then lets
//! callers through again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use super::Inner;
use crate::error::{Error, with_causes};
use crate::site::Site;
use crate::store::guard::{Op, State, Via};
use crate::store::{BoxFuture, Store, backoff};

/// Stands in the statistics for what no call waits for: recovery, and leases that are given back.
pub(super) static BACKGROUND: Site = Site::new("background", "");

/// A service does not wait longer for its cache when it starts.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);

/// A Redis that is lost again so soon after it was found answers probes and serves nobody, such as a replica that takes no
/// writes. Finding it was no success.
const STEADY: Duration = Duration::from_secs(1);

/// One attempt to connect before the cache is handed out.
pub(super) async fn first_attempt(inner: &Inner) {
    if timeout(FIRST_ATTEMPT, probe(inner))
        .await
        .is_ok_and(|probed| probed.is_ok())
    {
        settle(inner).await;
    }
    if !inner.guard.is_connected() {
        inner.guard.start_without();
        if inner.why_away().is_none() {
            inner.say_why_away(&Error::timeout(FIRST_ATTEMPT));
        }
    }
}

/// Starts the keeper if there is none: at first, and again where the runtime that it lived on has ended.
pub(super) fn ensure(inner: &Inner) {
    if inner.guard.is_local() || inner.is_kept.swap(true, Ordering::AcqRel) {
        return;
    }
    let kept = Kept(Weak::clone(&inner.this));
    if let Ok(runtime) = Handle::try_current() {
        let (cache, wake) = (Weak::clone(&inner.this), Arc::clone(&inner.wake));
        runtime.spawn(async move {
            run(cache, wake).await;
            // One that has given up is not to be replaced.
            std::mem::forget(kept);
        });
    }
}

/// Says, when it is dropped, that the keeper is gone.
struct Kept(Weak<Inner>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.is_kept.store(false, Ordering::Release);
        }
    }
}

/// Keeps the cache until it is gone.
async fn run(cache: Weak<Inner>, wake: Arc<Notify>) {
    let (mut failures, mut losses) = (0, 0);
    let mut found: Option<Instant> = None;
    loop {
        // The cache may go away while nothing is to be done.
        let Some(inner) = cache.upgrade() else { return };
        let pause = match inner.guard.state() {
            State::Closed => return,
            State::Connected | State::Recovering => {
                failures = 0;
                found.get_or_insert_with(Instant::now);
                settle(&inner).await
            }
            State::Fallback if was_no_success(&mut found, &mut losses) => {
                Some(backoff::pause(losses, inner.config.reconnect_max_delay))
            }
            State::Fallback => match probe(&inner).await {
                Ok(()) => continue,
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
                    Some(backoff::pause(failures, inner.config.reconnect_max_delay))
                }
            },
        };
        drop(inner);
        match pause {
            Some(pause) => sleep(pause).await,
            None => wake.notified().await,
        }
    }
}

/// Whether Redis was lost as soon as it was found, which is counted; if it was there for a while, counting begins anew.
fn was_no_success(found: &mut Option<Instant>, losses: &mut u32) -> bool {
    let Some(found) = found.take() else {
        return false;
    };
    let was_brief = found.elapsed() < STEADY;
    *losses = if was_brief { *losses + 1 } else { 0 };
    was_brief
}

/// Asks for a sign of life.
async fn probe(inner: &Inner) -> Result<(), Error> {
    let bound = inner.config.connect_timeout + inner.config.command_timeout;
    let probed = timeout(bound, inner.guard.store().probe()).await;
    let probed = probed.unwrap_or_else(|_| Err(Error::timeout(bound)));
    match &probed {
        Ok(()) => {
            *inner.known_reason() = None;
            inner.guard.begin_recovery();
        }
        Err(error) => inner.say_why_away(error),
    }
    probed
}

impl Inner {
    /// Runs one operation of the store behind the guard. Where Redis is away, a task sees to its return.
    pub(super) async fn run<'a, T>(
        &'a self,
        op: Op<'_>,
        operation: impl FnOnce(&'a dyn Store) -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        let result = self.guard.run(op, operation).await;
        if result.is_err() && !self.guard.is_connected() {
            ensure(self);
        }
        result
    }

    /// Says why Redis cannot be reached, once for each reason: an attempt a second would fill the log with the same line.
    fn say_why_away(&self, error: &Error) {
        let why = with_causes(error);
        let mut known = self.known_reason();
        if known.as_ref() != Some(&why) {
            warn!(
                why,
                "Redis cannot be reached; functions run uncached until it can"
            );
            *known = Some(why);
        }
    }

    /// Why Redis could not be reached when that was tried last; [`None`] since it answered.
    pub(super) fn why_away(&self) -> Option<String> {
        self.known_reason().clone()
    }

    fn known_reason(&self) -> MutexGuard<'_, Option<String>> {
        self.why_away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Applies the journal, and opens the cache if it is empty. Answers how long to wait before the next look, if at all.
async fn settle(inner: &Inner) -> Option<Duration> {
    match apply_journal(inner).await {
        Ok(()) => {
            inner.journal.if_empty(|| inner.guard.finish_recovery());
            (inner.journal.depth() > 0).then_some(Duration::ZERO)
        }
        Err(error) => {
            debug!(%error, "the journal could not be applied yet");
            Some(backoff::FIRST_PAUSE)
        }
    }
}

/// Applies what is in the journal at this moment.
pub(super) async fn apply_journal(inner: &Inner) -> Result<(), Error> {
    while let Some(batch) = inner.journal.pending() {
        inner
            .remove_from_store(&BACKGROUND, &batch.targets(), Via::Recovery)
            .await?;
        inner.journal.applied(&batch);
    }
    Ok(())
}
