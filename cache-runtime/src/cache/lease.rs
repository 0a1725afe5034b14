//! One load per key among all processes: the lease in the store, and the wait for its holder.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until};

use super::Inner;
use super::call::CallContext;
use super::call_report::Spent;
use super::flight::Leader;
use super::recovery::BACKGROUND;
use crate::entry::{self, Entry, Kind, Stamp};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::metrics::Event;
use crate::store::guard::{On, Op};
use crate::store::{Mark, Refreshing, Replaced};
use crate::sync::Mutex;

/// The shortest and the longest pause between two checks for a value that another process loads.
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// Unreadable entries are deleted on the way to a lease. More than this many in a row come from a program that writes them
/// as fast as they are deleted.
const UNREADABLE_IN_A_ROW: u32 = 3;

/// How often the release of an abandoned lease is tried. After as many timeouts in a row the cache is in fallback mode.
const RELEASES: u32 = 5;

/// What a load holds in the store so that no other process loads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hold {
    /// The entry of this stamp under the key.
    Lease(Stamp),
    /// The mark in the stale entry of this stamp.
    Refresh(Stamp),
}

/// The outcome of asking for a lease.
pub(super) enum Claim {
    /// This call has it.
    Won(Stamp),
    /// Another caller has stored this already.
    Found {
        entry: Vec<u8>,
        /// When it was asked for.
        at: Instant,
        /// The lease that stood there before.
        before: Option<Stamp>,
    },
    /// The result may not be stored. This is the claim of another holder, if it is known.
    Refused(Option<Stamp>),
}

/// Asks for the lease of a key, and waits while another caller has it.
pub(super) struct LeaseRequest<'a> {
    call: &'a CallContext<'a>,
    lease: Entry,
    give_up: Instant,
    pause: Duration,
    unreadable: u32,
    before: Option<Stamp>,
    /// The claim that was found to be alive.
    alive: Option<Stamp>,
    /// The entry that the lease may replace.
    outdated: Option<Stamp>,
}

impl<'a> LeaseRequest<'a> {
    pub(super) fn new(call: &'a CallContext<'a>) -> Self {
        let config = &call.inner.config;
        Self {
            lease: entry::lease(call.key, call.now(), config.lease),
            give_up: Instant::now() + config.lease_wait,
            pause: POLL.0,
            unreadable: 0,
            before: None,
            alive: None,
            outdated: None,
            call,
        }
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.lease.stamp()
    }

    /// Returns the lease as it was placed, if that is the one with `stamp`.
    pub(super) fn placed(self, stamp: Stamp) -> Option<Entry> {
        Some(self.lease).filter(|lease| lease.stamp() == stamp)
    }

    /// The lease may take the place of this entry, which no call may use.
    pub(super) fn replaces(&mut self, entry: Stamp) {
        self.outdated = Some(entry);
    }

    /// Asks until there is an answer. It may be called again after the found entry is [discarded](Self::discard).
    pub(super) async fn ask(&mut self, leader: &Leader<'_>) -> Claim {
        let call = self.call;
        let inner = call.inner;
        loop {
            let at = Instant::now();
            let asking = Asking::begin(inner, call.key, self.stamp());
            let (lease, ttl) = (self.lease.as_bytes(), inner.config.lease);
            let answer = match self.outdated.take() {
                Some(entry) => {
                    let replaced =
                        call.ask("lease", |store| store.replace(call.key, entry, lease, ttl));
                    match replaced.await {
                        Ok(Replaced::Done) => Ok(None),
                        // Another caller was faster.
                        Ok(Replaced::Other | Replaced::Gone) => {
                            asking.answered();
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
                None => {
                    call.ask("lease", |store| store.lease(call.key, lease, ttl))
                        .await
                }
            };
            let there = match answer {
                Ok(None) => {
                    asking.answered();
                    return Claim::Won(self.stamp());
                }
                Ok(Some(there)) => there,
                Err(error) if error.kind() == ErrorKind::Foreign => Vec::new(),
                Err(error) => {
                    if error.kind() == ErrorKind::Unavailable {
                        asking.answered();
                    }
                    return Claim::Refused(None);
                }
            };
            asking.answered();
            if call.is_blocked() {
                // Another process may be loading a value that is still to be evicted.
                return Claim::Refused(None);
            }
            let found = entry::peek(&there, call.key, call.now());
            let stamp = entry::whole_stamp_of(&there);
            if matches!(found, Ok(Kind::Lease | Kind::Fence)) {
                if stamp != self.alive && call.buried(stamp).await {
                    continue;
                }
                self.alive = stamp;
            }
            match found {
                Ok(Kind::Value | Kind::None) => {
                    return Claim::Found {
                        entry: there,
                        at,
                        before: self.before,
                    };
                }
                Ok(Kind::Fence) => return Claim::Refused(stamp),
                Ok(Kind::Lease) => {
                    self.before = stamp;
                    let is_mine =
                        |stamp: &Stamp| leader.has_asked_for(*stamp) || inner.orphans.take(stamp);
                    if let Some(stamp) = stamp.filter(is_mine) {
                        return Claim::Won(stamp);
                    }
                    if Instant::now() + self.pause > self.give_up {
                        return Claim::Refused(stamp);
                    }
                    call.metrics.spend(Spent::Waiting, sleep(self.pause)).await;
                    self.pause = (self.pause * 2).min(POLL.1);
                }
                Err(_) => {
                    if !self.discard(&there).await {
                        return Claim::Refused(None);
                    }
                }
            }
        }
    }

    /// The lease may take the place of a found entry whose tags make it unusable. Returns whether it makes sense to ask again.
    ///
    /// It does any number of times: as long as a tag is evicted often, slow loads of other processes fill such entries.
    pub(super) async fn outdates(&mut self, entry: &[u8]) -> bool {
        match entry::whole_stamp_of(entry) {
            Some(stamp) => {
                self.replaces(stamp);
                Instant::now() < self.give_up
            }
            None => self.discard(entry).await,
        }
    }

    /// Removes an unreadable entry. Returns whether it makes sense to ask again.
    pub(super) async fn discard(&mut self, entry: &[u8]) -> bool {
        self.unreadable += 1;
        let call = self.call;
        let stamp = entry::stamp_of(entry);
        let deleted = call
            .ask("delete unreadable", |store| {
                store.delete_if(call.key, stamp)
            })
            .await;
        deleted.is_ok() && self.unreadable < UNREADABLE_IN_A_ROW
    }
}

impl CallContext<'_> {
    /// Returns whether the claim with this stamp was dead: it had no expiry, or an expiry that no claim has. Nothing else
    /// would remove it.
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
        let ttl = self.inner.config.lease;
        let deadline = Instant::now() + self.inner.config.load_deadline;
        loop {
            let renewal = Instant::now() + ttl / 3;
            sleep_until(renewal.min(deadline)).await;
            if renewal >= deadline {
                break;
            }
            if !self.prolong(hold, ttl).await {
                self.metrics.count(Event::LeaseLost);
                sleep_until(deadline).await;
                return;
            }
        }
        self.let_go(hold).await;
    }

    async fn prolong(&self, hold: Hold, ttl: Duration) -> bool {
        let prolonged = match hold {
            Hold::Lease(stamp) => {
                let lease = entry::renewed_lease(stamp, self.key, self.now(), ttl);
                self.ask("renew", |store| {
                    store.replace(self.key, stamp, lease.as_bytes(), ttl)
                })
                .await
                .map(|replaced| replaced == Replaced::Done)
            }
            Hold::Refresh(stamp) => self
                .ask("renew", |store| {
                    store.refresh(self.key, stamp, ttl, Mark::Own)
                })
                .await
                .map(|marked| marked == Refreshing::Marked),
        };
        prolonged.unwrap_or(false)
    }

    /// If it fails, the hold ends by itself.
    pub(super) async fn let_go(&self, hold: Hold) {
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

/// Leases of this process that may be in the store without a holder: the call that asked for the lease was dropped, or got
/// no answer, but Redis may have placed it. A caller that finds such a lease takes it over. Otherwise it would wait for a
/// load that does not run.
#[derive(Debug)]
pub(super) struct Orphans {
    stamps: Mutex<HashMap<Stamp, Instant>>,
    /// How many there are, to be read without the lock.
    count: AtomicUsize,
    /// How long an orphan is remembered: a command in a stalled connection runs when the connection continues.
    memory: Duration,
}

/// More than this many are the mark of a long outage, and no caller will find them again.
const MAX_ORPHANS: usize = 10_000;

impl Orphans {
    pub(super) fn new(memory: Duration) -> Self {
        Self {
            stamps: Mutex::default(),
            count: AtomicUsize::new(0),
            memory,
        }
    }

    pub(super) fn add(&self, stamp: Stamp) {
        let mut stamps = self.stamps.lock();
        if stamps.len() >= MAX_ORPHANS {
            stamps.retain(|_, since| since.elapsed() < self.memory);
        }
        if stamps.len() < MAX_ORPHANS {
            stamps.insert(stamp, Instant::now());
        }
        self.count.store(stamps.len(), Ordering::Release);
    }

    /// Returns whether `stamp` is one of these; it is one no longer.
    fn take(&self, stamp: &Stamp) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut stamps = self.stamps.lock();
        let is_taken = stamps.remove(stamp).is_some();
        self.count.store(stamps.len(), Ordering::Release);
        is_taken
    }
}

/// A request for a lease whose answer is not known yet. If it is dropped without an answer, the lease is given back if
/// possible. Otherwise the next caller that finds it takes it over.
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
    fn answered(self) {
        mem::forget(self);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.inner.orphans.add(self.stamp);
        release_in_background(&self.inner.this, self.key, self.stamp);
    }
}

/// Gives back a lease whose holder is gone. A release that got no answer in time may not have run, so it is tried again:
/// otherwise all other processes would wait for a load that does not run.
pub(super) fn release_in_background(cache: &Weak<Inner>, key: &Key, lease: Stamp) {
    let Some(inner) = cache.upgrade() else {
        return;
    };
    let (is_local, key) = (inner.guard.is_local(), key.clone());
    in_background(is_local, async move {
        let metrics = inner.metrics.site(&BACKGROUND.metrics);
        // If all fail, the lease ends by itself.
        for _ in 0..RELEASES {
            let op = Op::new("release", &BACKGROUND, &metrics, On::Key(&key));
            match inner.run(op, |store| store.delete_if(&key, &lease)).await {
                Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Stalled) => {
                    sleep(inner.config.command_timeout).await;
                }
                _ => break,
            }
        }
    });
}

/// Removes the mark of a refresh that no longer runs, or keeps the mark for this long.
pub(super) fn mark_in_background(inner: &Arc<Inner>, key: &Key, entry: Stamp, ttl: Duration) {
    let (inner, key) = (Arc::clone(inner), key.clone());
    in_background(inner.guard.is_local(), async move {
        let metrics = inner.metrics.site(&BACKGROUND.metrics);
        let op = Op::new("release", &BACKGROUND, &metrics, On::Key(&key));
        let _ = inner
            .run(op, |store| store.refresh(&key, entry, ttl, Mark::Own))
            .await;
    });
}

/// Runs a store operation in the background.
fn in_background(is_local: bool, release: impl Future<Output = ()> + Send + 'static) {
    if is_local {
        // A store in this process answers at the first poll, and needs no runtime.
        let _ = release.now_or_never();
    } else if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_without_an_owner_can_be_taken_over_once() {
        let orphans = Orphans::new(Duration::from_secs(30));
        let (lost, held) = (entry::new_stamp(), entry::new_stamp());

        orphans.add(lost);

        assert!(!orphans.take(&held));
        assert!(orphans.take(&lost));
        assert!(!orphans.take(&lost));
    }

    #[tokio::test(start_paused = true)]
    async fn abandoned_leases_are_limited_and_expire() {
        let orphans = Orphans::new(Duration::from_secs(30));
        for _ in 0..2 * MAX_ORPHANS {
            orphans.add(entry::new_stamp());
        }
        assert_eq!(orphans.count.load(Ordering::Relaxed), MAX_ORPHANS);

        tokio::time::advance(Duration::from_secs(31)).await;
        orphans.add(entry::new_stamp());

        assert_eq!(orphans.count.load(Ordering::Relaxed), 1);
    }
}
