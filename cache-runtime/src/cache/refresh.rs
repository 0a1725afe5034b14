//! Stale values within their grace: one caller among all processes refreshes, and all others get the stale value.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::call::{CallContext, ValueType};
use super::call_report::Lease;
use super::caller::{self, Source};
use super::captured::Captured;
use super::codec::NewEntry;
use super::lease::{self, Hold};
use super::write::Claimed;
use super::{Inner, boxed, load};
use crate::entry::Stamp;
use crate::key::Key;
use crate::metrics::{Event, Timer};
use crate::plan::ReadPlan;
use crate::store::guard::in_runtime;
use crate::store::{Mark, Refreshing};
use crate::sync::Mutex;

/// A failed refresh is not tried again for this long, or a tenth of the grace where that is less.
const MAX_THROTTLE: Duration = Duration::from_secs(30);

/// The number of stale entries that are remembered at a time. Beyond it, the store is asked more often than necessary.
const MAX_RESTING: usize = 100_000;

/// How often room is made among them at most.
const SWEEP: Duration = Duration::from_secs(1);

/// Who refreshes a stale value.
pub(super) enum Refreshed {
    /// This caller.
    Here(Attempt),
    Elsewhere,
    /// No caller. The entry is gone, so this caller may load.
    Gone,
}

/// The refreshes of this process.
pub(super) struct Refreshes {
    resting: Mutex<Resting>,
    background: Arc<Semaphore>,
    #[cfg(test)]
    most_in_background: usize,
}

/// Until when this process does not ask to refresh an entry. A new entry has a new stamp and is asked for at once.
struct Resting {
    until: HashMap<Stamp, Instant>,
    /// When those whose time is over were last forgotten.
    swept: Instant,
}

impl Refreshes {
    pub(super) fn new(most_in_background: usize) -> Self {
        Self {
            resting: Mutex::new(Resting {
                until: HashMap::new(),
                swept: Instant::now(),
            }),
            background: Arc::new(Semaphore::new(most_in_background)),
            #[cfg(test)]
            most_in_background,
        }
    }

    /// How many refreshes run in the background.
    #[cfg(test)]
    pub(super) fn in_background(&self) -> usize {
        self.most_in_background - self.background.available_permits()
    }

    /// Returns whether this caller may try: no other caller in this process refreshes the entry, or recently failed to.
    fn begin(&self, stamp: Stamp, longest: Duration) -> bool {
        let mut resting = self.lock();
        let now = Instant::now();
        if resting.until.get(&stamp).is_some_and(|until| *until > now) {
            return false;
        }
        resting.add(stamp, now + longest);
        true
    }

    fn rest(&self, stamp: Stamp, ttl: Duration) {
        self.lock().add(stamp, Instant::now() + ttl);
    }

    fn wake(&self, stamp: Stamp) {
        self.lock().until.remove(&stamp);
    }

    fn lock(&self) -> MutexGuard<'_, Resting> {
        self.resting.lock()
    }
}

impl fmt::Debug for Refreshes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refreshes").finish_non_exhaustive()
    }
}

impl Resting {
    fn add(&mut self, stamp: Stamp, until: Instant) {
        // Not every time that it is full, because checking all of them is slow.
        if self.until.len() >= MAX_RESTING && self.swept.elapsed() >= SWEEP {
            let now = Instant::now();
            self.until.retain(|_, until| *until > now);
            self.swept = now;
        }
        if self.until.len() < MAX_RESTING {
            self.until.insert(stamp, until);
        }
    }
}

/// The only attempt in this process to refresh an entry. If it is dropped early, another caller may try at once.
pub(super) struct Attempt {
    inner: Arc<Inner>,
    key: Key,
    stamp: Stamp,
    throttle: Duration,
    /// What was captured together with the mark.
    captured: Captured,
    /// Whether the entry may have a mark.
    may_be_marked: bool,
    is_over: bool,
}

impl Attempt {
    /// The entry was replaced or is gone.
    fn end(mut self) {
        self.is_over = true;
        self.inner.refreshes.wake(self.stamp);
    }

    /// No caller in this process tries for this long.
    fn rest(mut self, ttl: Duration) {
        self.is_over = true;
        self.inner.refreshes.rest(self.stamp, ttl);
    }

    /// The load failed: no process tries again before the throttle ends.
    async fn fail(self, call: &CallContext<'_>) {
        let (stamp, throttle) = (self.stamp, self.throttle);
        call.metrics.count(Event::RefreshFailed);
        self.rest(throttle);
        let _ = call
            .ask("throttle", |store| {
                store.refresh(call.key, stamp, throttle, Mark::Own)
            })
            .await;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // A body that panics will panic again. A cancelled body might have succeeded.
        let pause = if std::thread::panicking() {
            self.inner.refreshes.rest(self.stamp, self.throttle);
            self.throttle
        } else {
            self.inner.refreshes.wake(self.stamp);
            Duration::ZERO
        };
        if self.may_be_marked {
            lease::mark_in_background(&self.inner, &self.key, self.stamp, pause);
        }
    }
}

impl CallContext<'_> {
    /// Serves a stale value and refreshes it in the background, unless another caller already does. Returns whether that is
    /// possible.
    pub(super) async fn refresh_in_background(&self, stamp: Stamp) -> bool {
        if !in_runtime() || load::is_warming() {
            return false;
        }
        if let Some(attempt) = self.attempt(stamp) {
            match Arc::clone(&self.inner.refreshes.background).try_acquire_owned() {
                Ok(permit) => {
                    let plan = ReadPlan {
                        site: self.site,
                        key: self.key.clone(),
                        ttl: self.asked_ttl,
                        tags: self.tags.to_vec(),
                    };
                    let path = refresh_detached(attempt, permit, plan, self.of);
                    caller::detach(boxed(|| path)).await;
                }
                Err(_) => {
                    self.metrics.count(Event::RefreshCrowded);
                    return false;
                }
            }
        }
        self.serve_stale();
        true
    }

    /// Returns the right to refresh, unless another caller in this process already refreshes, or this call is inside a
    /// scope.
    fn attempt(&self, stamp: Stamp) -> Option<Attempt> {
        if self.is_scoped() {
            return None;
        }
        let inner = self.inner.this.upgrade()?;
        let config = &inner.config;
        if !inner.refreshes.begin(stamp, config.load_deadline) {
            return None;
        }
        Some(Attempt {
            key: self.key.clone(),
            stamp,
            throttle: MAX_THROTTLE.min(self.grace / 10),
            captured: Captured::default(),
            may_be_marked: false,
            is_over: false,
            inner,
        })
    }

    /// Counts that the stale value is the answer.
    pub(super) fn serve_stale(&self) {
        let now = Instant::now();
        self.metrics.count_at(Event::HitStale, now.into_std());
        self.log_hit(Event::HitStale, now - self.started);
        self.metrics.time(Timer::Hit, now - self.started);
    }

    /// Decides which caller refreshes a stale value before it returns: one caller among all processes.
    pub(super) async fn who_refreshes(&self, stamp: Stamp) -> Refreshed {
        if !in_runtime() {
            return Refreshed::Gone;
        }
        let Some(attempt) = self.attempt(stamp) else {
            return Refreshed::Elsewhere;
        };
        match self.mark(attempt).await {
            Marked::Mine(attempt) => Refreshed::Here(attempt),
            Marked::Others => Refreshed::Elsewhere,
            Marked::Gone => {
                self.metrics.count(Event::MissStale);
                self.log_miss(Event::MissStale);
                Refreshed::Gone
            }
        }
    }

    /// Refreshes before the call returns: the caller gets what its body returned, and all others get the stale value. If
    /// its body failed, it gets the stale value too.
    pub(super) async fn refresh(&self, mut attempt: Attempt) -> Source {
        let hold = Hold::Refresh(attempt.stamp);
        let held = boxed(|| async {
            self.keep(hold).await;
            self.metrics.count(Event::LoadOverdue);
        });
        let (is_ok, cost) = self.load(Some(held)).await;
        if !is_ok {
            attempt.fail(self).await;
            self.serve_stale();
            return Source::Entry;
        }
        self.metrics.count(Event::MissStale);
        self.log_miss(Event::MissStale);
        let entry = self.encode(cost, mem::take(&mut attempt.captured)).await;
        self.put_in_place(attempt, entry).await;
        Source::Body
    }

    /// Refreshes in the background. A refresh that takes longer than the deadline has failed.
    async fn refresh_unwatched(&self, attempt: Attempt) {
        let Marked::Mine(mut attempt) = self.mark(attempt).await else {
            return;
        };
        let hold = Hold::Refresh(attempt.stamp);
        let loaded = tokio::select! {
            biased;
            loaded = self.load(None) => Some(loaded),
            () = self.keep(hold) => None,
        };
        if loaded.is_none() {
            caller::stop_body();
            self.metrics.count(Event::LoadOverdue);
        }
        match loaded {
            Some((true, cost)) => {
                let entry = self.encode(cost, mem::take(&mut attempt.captured)).await;
                self.put_in_place(attempt, entry).await;
            }
            Some((false, _)) | None => attempt.fail(self).await,
        }
    }

    /// Asks the store whether another process refreshes.
    async fn mark(&self, mut attempt: Attempt) -> Marked {
        let stamp = attempt.stamp;
        attempt.may_be_marked = true;
        let ttl = self.inner.config.lease;
        let marking = self.ask("refresh", |store| {
            store.refresh(self.key, stamp, ttl, Mark::Claim)
        });
        let (marked, captured) = tokio::join!(marking, self.capture());
        attempt.captured = captured;
        match marked {
            Ok(Refreshing::Marked) => {
                self.metrics.count(Event::Refresh);
                self.metrics.set_lease(Lease::Refresh);
                return Marked::Mine(attempt);
            }
            Ok(Refreshing::Gone) => {
                attempt.end();
                return Marked::Gone;
            }
            Ok(Refreshing::Held(ttl)) => attempt.rest(ttl),
            // A store that does not answer this would not take the value either.
            Err(_) => attempt.rest(ttl),
        }
        Marked::Others
    }

    /// Replaces the stale entry with the loaded value, if that entry is still there. A value that may not be stored still
    /// shows that the stale value is outdated.
    async fn put_in_place(&self, attempt: Attempt, entry: Option<NewEntry>) {
        match entry {
            Some(new) => self.fill(Claimed::Stamp(attempt.stamp), &new).await,
            None => {
                let _ = self
                    .ask("delete stale", |store| {
                        store.delete_if(self.key, &attempt.stamp)
                    })
                    .await;
            }
        }
        attempt.end();
    }
}

/// Which process holds the mark of a refresh.
enum Marked {
    Mine(Attempt),
    Others,
    Gone,
}

/// The path of a refresh in a task of its own.
async fn refresh_detached(
    attempt: Attempt,
    permit: OwnedSemaphorePermit,
    plan: ReadPlan,
    of: ValueType,
) -> Source {
    let _permit = permit;
    let inner = Arc::clone(&attempt.inner);
    let call = CallContext::new(&inner, &plan, of);
    call.refresh_unwatched(attempt).await;
    Source::Body
}

#[cfg(test)]
mod tests;
