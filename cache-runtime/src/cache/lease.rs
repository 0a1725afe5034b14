//! One load per key among all processes: the lease in the store, and the wait for whoever has it.

use std::collections::HashMap;
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until};

use super::Inner;
use super::flight::Leader;
use super::recovery::BACKGROUND;
use super::refresh::Stale;
use super::stored::{Answer, Obstacle};
use super::visit::Visit;
use crate::entry::{self, Stamp};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::metrics::Event;
use crate::site::{CacheValue, Outcome};
use crate::store::guard::{On, Op};
use crate::store::{Mark, Refreshing, Replaced};

/// How soon to look again for what another process loads, and how rarely at most.
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// Unreadable entries are deleted on the way to a lease. More than so many in a row come from somebody who writes them as
/// fast as they are deleted.
const UNREADABLE_IN_A_ROW: u32 = 3;

/// What a load keeps others in all processes from loading by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hold {
    /// The entry of this stamp under the key.
    Lease(Stamp),
    /// The mark in the stale entry of this stamp.
    Refresh(Stamp),
}

/// What came of asking for a lease.
pub(super) enum Claim<T> {
    /// It is this call's.
    Won(Stamp),
    /// Somebody else was faster.
    Found {
        output: T,
        entry: Vec<u8>,
        /// When it was asked for.
        at: Instant,
        /// The lease that stood there before.
        before: Option<Stamp>,
    },
    /// The result may not be stored; this is the claim of somebody else that stands, if that is known.
    Refused(Option<Stamp>),
}

impl Visit<'_> {
    /// Asks for the lease, and waits for whoever has it.
    pub(super) async fn claim<O: Outcome>(&self, leader: &Leader<'_>) -> Claim<O::Output>
    where
        O::Value: CacheValue,
    {
        let life = self.inner.config.lease;
        let lease = entry::lease(self.key, self.now(), life);
        leader.asks_for(lease.stamp());
        let give_up = Instant::now() + self.inner.config.lease_wait;
        let (mut pause, longest) = POLL;
        let mut unreadable = 0;
        let mut before = None;
        // The claim that was found to be alive.
        let mut alive = None;
        loop {
            let at = Instant::now();
            let asking = Asking::begin(self.inner, self.key, lease.stamp());
            let answer = self
                .ask("lease", |store| {
                    store.lease(self.key, lease.as_bytes(), life)
                })
                .await;
            let there = match answer {
                Ok(None) => {
                    asking.settle();
                    return Claim::Won(lease.stamp());
                }
                Ok(Some(there)) => there,
                Err(error) if error.kind() == ErrorKind::Foreign => Vec::new(),
                Err(error) => {
                    if error.kind() == ErrorKind::Unavailable {
                        asking.settle();
                    }
                    return Claim::Refused(None);
                }
            };
            asking.settle();
            if self.inner.journal.blocks(self.key) {
                // What another process loads may be what is still to be evicted.
                return Claim::Refused(None);
            }
            let found = self.output::<O>(&there);
            if matches!(found, Err(Obstacle::Lease | Obstacle::Fence)) {
                let stamp = entry::whole_stamp_of(&there);
                if stamp != alive && self.buried(stamp).await {
                    continue;
                }
                alive = stamp;
            }
            match found {
                Ok(Answer::Fresh(output, _) | Answer::Stale(Stale { output, .. })) => {
                    self.metrics.count(Event::LoadAwaited);
                    return Claim::Found {
                        output,
                        entry: there,
                        at,
                        before,
                    };
                }
                Err(Obstacle::Fence) => return Claim::Refused(entry::whole_stamp_of(&there)),
                Err(Obstacle::Lease) => {
                    before = entry::whole_stamp_of(&there);
                    let is_mine = |stamp: &Stamp| {
                        leader.has_asked_for(*stamp) || self.inner.orphans.take(stamp)
                    };
                    if let Some(stamp) = before.filter(is_mine) {
                        return Claim::Won(stamp);
                    }
                    if Instant::now() + pause > give_up {
                        return Claim::Refused(before);
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
                Err(Obstacle::Expired | Obstacle::Unreadable(_)) => {
                    unreadable += 1;
                    let stamp = entry::stamp_of(&there);
                    let deleted = self
                        .ask("delete unreadable", |store| {
                            store.delete_if(self.key, stamp)
                        })
                        .await;
                    if deleted.is_err() || unreadable == UNREADABLE_IN_A_ROW {
                        return Claim::Refused(None);
                    }
                }
            }
        }
    }

    /// Whether the claim of this stamp was a dead one: without an expiry, or with one that no claim has. Nobody else would remove
    /// it.
    async fn buried(&self, stamp: Option<Stamp>) -> bool {
        let Some(stamp) = stamp else {
            return false;
        };
        self.ask("delete dead", |store| store.delete_dead(self.key, stamp))
            .await
            .unwrap_or(false)
    }

    /// Prolongs what a load holds, up to the deadline, when it gives it up.
    pub(super) async fn keep(&self, hold: Hold) {
        let life = self.inner.config.lease;
        let deadline = Instant::now() + self.inner.config.load_deadline;
        loop {
            let renewal = Instant::now() + life / 3;
            sleep_until(renewal.min(deadline)).await;
            if renewal >= deadline {
                break;
            }
            if !self.prolong(hold, life).await {
                self.metrics.count(Event::LeaseLost);
                sleep_until(deadline).await;
                return;
            }
        }
        self.let_go(hold).await;
    }

    async fn prolong(&self, hold: Hold, life: Duration) -> bool {
        let prolonged = match hold {
            Hold::Lease(stamp) => {
                let lease = entry::renewed_lease(stamp, self.key, self.now(), life);
                self.ask("renew", |store| {
                    store.replace(self.key, stamp, lease.as_bytes(), life)
                })
                .await
                .map(|replaced| replaced == Replaced::Done)
            }
            Hold::Refresh(stamp) => self
                .ask("renew", |store| {
                    store.refresh(self.key, stamp, life, Mark::Own)
                })
                .await
                .map(|marked| marked == Refreshing::Marked),
        };
        prolonged.unwrap_or(false)
    }

    /// If it fails, the hold ends by itself.
    async fn let_go(&self, hold: Hold) {
        match hold {
            Hold::Lease(stamp) => {
                let released = self.ask("release", |store| store.delete_if(self.key, &stamp));
                let _ = released.await;
            }
            Hold::Refresh(stamp) => {
                let released = self.ask("release", |store| {
                    store.refresh(self.key, stamp, Duration::ZERO, Mark::Own)
                });
                let _ = released.await;
            }
        }
    }
}

/// Leases of this process that may stand in the store and that nobody holds: the call that asked for one was dropped, or
/// waited in vain for the answer, and Redis may have placed it all the same. Whoever meets one takes it over, where it would
/// else wait for a load that nobody runs.
#[derive(Debug)]
pub(super) struct Orphans {
    stamps: Mutex<HashMap<Stamp, Instant>>,
    /// How many there are, to be read without the lock.
    count: AtomicUsize,
    /// For how long one is remembered: a command that waits in a stalled connection is carried out when that goes on.
    memory: Duration,
}

/// More are the mark of a long outage, in which they will not be met again.
const MOST_ORPHANS: usize = 10_000;

impl Orphans {
    pub(super) fn new(memory: Duration) -> Self {
        Self {
            stamps: Mutex::default(),
            count: AtomicUsize::new(0),
            memory,
        }
    }

    pub(super) fn add(&self, stamp: Stamp) {
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps.len() >= MOST_ORPHANS {
            stamps.retain(|_, since| since.elapsed() < self.memory);
        }
        if stamps.len() < MOST_ORPHANS {
            stamps.insert(stamp, Instant::now());
        }
        self.count.store(stamps.len(), Ordering::Release);
    }

    /// Whether `stamp` is one of these; it is one no longer.
    fn take(&self, stamp: &Stamp) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let is_taken = stamps.remove(stamp).is_some();
        self.count.store(stamps.len(), Ordering::Release);
        is_taken
    }
}

/// A question for a lease whose answer is not known yet. Dropped without one, the lease goes back, if it can; else whoever
/// meets it takes it over.
struct Asking<'a> {
    inner: &'a Inner,
    key: &'a Key,
    stamp: Stamp,
}

impl<'a> Asking<'a> {
    fn begin(inner: &'a Inner, key: &'a Key, stamp: Stamp) -> Self {
        Self { inner, key, stamp }
    }

    /// The answer is known.
    fn settle(self) {
        mem::forget(self);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.inner.orphans.add(self.stamp);
        release_later(&self.inner.this, self.key, self.stamp);
    }
}

/// Gives back a lease whose holder is gone.
pub(super) fn release_later(cache: &Weak<Inner>, key: &Key, lease: Stamp) {
    let Some(inner) = cache.upgrade() else {
        return;
    };
    let (is_local, key) = (inner.guard.is_local(), key.clone());
    later(is_local, async move {
        let metrics = inner.metrics.site(&BACKGROUND);
        let op = Op::new("release", &BACKGROUND, &metrics, On::Key(&key));
        // If it fails, the lease ends by itself.
        let _ = inner.run(op, |store| store.delete_if(&key, &lease)).await;
    });
}

/// Takes back the mark of a refresh that nobody runs any more, or lets it stand for so long.
pub(super) fn mark_later(inner: &Arc<Inner>, key: &Key, entry: Stamp, life: Duration) {
    let (inner, key) = (Arc::clone(inner), key.clone());
    later(inner.guard.is_local(), async move {
        let metrics = inner.metrics.site(&BACKGROUND);
        let op = Op::new("release", &BACKGROUND, &metrics, On::Key(&key));
        let _ = inner
            .run(op, |store| store.refresh(&key, entry, life, Mark::Own))
            .await;
    });
}

/// Runs a step of the store that nobody waits for.
fn later(is_local: bool, release: impl Future<Output = ()> + Send + 'static) {
    if is_local {
        // A store in this process answers at the first poll, and needs no runtime.
        let _ = pin!(release).poll(&mut Context::from_waker(Waker::noop()));
    } else if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_nobody_holds_can_be_taken_over_once() {
        let orphans = Orphans::new(Duration::from_secs(30));
        let (lost, held) = (entry::new_stamp(), entry::new_stamp());

        orphans.add(lost);

        assert!(!orphans.take(&held));
        assert!(orphans.take(&lost));
        assert!(!orphans.take(&lost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_outage_is_forgotten_and_not_kept_for_ever() {
        let orphans = Orphans::new(Duration::from_secs(30));
        for _ in 0..2 * MOST_ORPHANS {
            orphans.add(entry::new_stamp());
        }
        assert_eq!(orphans.count.load(Ordering::Relaxed), MOST_ORPHANS);

        tokio::time::advance(Duration::from_secs(31)).await;
        orphans.add(entry::new_stamp());

        assert_eq!(orphans.count.load(Ordering::Relaxed), 1);
    }
}
