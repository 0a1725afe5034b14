//! One load per key in this process. A caller that arrives while a load runs waits for its encoded result.
//!
//! A leader may fail, panic or be dropped. Then one of the waiters takes over at once, together with the lease that the
//! leader held in the store, so no caller waits for an abandoned claim. A leader may also exist but not be polled by its
//! task, which may itself wait for that leader. A leader that was woken and not polled for 50 ms is replaced: the next
//! waiter loads under its lease.
//!
//! A caller cannot join a load that may have read the database before an eviction that the caller must not miss. Then it
//! begins another load, but at most two loads of a key run at the same time. A caller that can join neither waits for the
//! next load, which begins when one of the two ends, and so after all its waiters arrived.

mod leader;
mod waiter;

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) use self::leader::{Leader, Relieved};
use self::waiter::Waiter;
use super::pulse::Pulse;
use crate::entry::Stamp;
use crate::key::Key;
use crate::sync::Mutex;
use crate::tag::family_hash;
use crate::target::Target;

/// The number of shards. Keys contend for a lock only if they share a shard. Loads are rare, so this is enough.
const SHARDS: usize = 16;

/// The number of loads of one key that run at the same time in this process. Not one: a caller that cannot join a load would
/// wait for twice its time although it may load at once.
const MAX_AT_ONCE: usize = 2;

/// The number of tags that are remembered for one key. A call has few, but callers of one key may have different ones, and the loads of
/// a key that is always loaded never end.
const MAX_TAGS: usize = 64;

/// The loads under way.
pub(crate) struct Flights {
    shards: [Mutex<HashMap<Key, Loads>>; SHARDS],
    /// A load that is older no longer keeps others from starting their own.
    deadline: Duration,
    /// Gives back a lease that no waiter takes over.
    release: Release,
}

type Release = Box<dyn Fn(&Key, Stamp) + Send + Sync>;

/// The loads of one key.
#[derive(Debug, Default)]
struct Loads {
    /// The load that callers join, if it serves them.
    current: Option<Arc<Flight>>,
    /// Loads that run and that no caller joins.
    older: Vec<Arc<Flight>>,
    /// The load that begins when another ends. Callers wait for it already.
    next: Option<Arc<Flight>>,
    /// The hashes of the tags and families of all callers so far, at most [`MAX_TAGS`].
    tags: Vec<u64>,
    /// There were more. Then an eviction of any tag counts as one of theirs.
    has_more_tags: bool,
}

#[derive(Debug)]
struct Flight {
    state: Mutex<State>,
    changed: Notify,
    /// An eviction arrived after the load began. The result is only for callers that already wait.
    invalidated: AtomicBool,
    /// It is older than the deadline, and others may load.
    overdue: AtomicBool,
    pulse: Arc<Pulse>,
}

#[derive(Debug)]
struct State {
    started: Instant,
    phase: Phase,
    waiting: usize,
    /// Counts loads that ended without a result to share.
    failed_loads: u32,
    /// What the result rests on, as soon as that is known.
    snapshot: Option<Snapshot>,
    claims: Claims,
}

/// What a leader has in the store. The next leader takes it over.
#[derive(Debug, Default)]
struct Claims {
    lease: Option<Stamp>,
    /// Leases that it and the leaders before it have asked for: one may have been placed for a leader that is not polled, and so
    /// does not know.
    asked: Vec<Stamp>,
}

/// From `at` on, the load misses no eviction.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    at: Instant,
    /// The claim that was in the store before. Every eviction removes it.
    claim: Option<Stamp>,
}

/// When a caller arrived, and what it observed in the store. It decides whether the load of another caller is recent
/// enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation {
    pub(crate) since: Instant,
    pub(crate) observed: Observed,
}

/// What the store held under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observed {
    /// The store is unavailable. No process can see evictions of other processes then, so loads are always shared.
    Unknown,
    Nothing,
    Entry(Stamp),
}

impl State {
    /// Another process may have evicted the key after the load began, without notice to this process. Its eviction removed
    /// the claim of the load. A caller that still observed that claim, or arrived before the load, misses no eviction.
    fn serves(&self, observation: Observation) -> bool {
        let Observation { since, observed } = observation;
        self.snapshot
            .is_none_or(|Snapshot { at, claim }| match observed {
                Observed::Unknown => true,
                Observed::Nothing => since <= at,
                Observed::Entry(stamp) => since <= at || claim == Some(stamp),
            })
    }
}

#[derive(Debug)]
enum Phase {
    /// It begins when another load of the key ends. These run now.
    Queued(Vec<Arc<Flight>>),
    /// A leader loads.
    Flying,
    /// The leader is gone.
    Leaderless,
    /// The leader is not polled; another has begun a load with what it claimed.
    Deposed,
    /// The encoded result.
    Landed(Arc<[u8]>),
}

/// What a caller is to do.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// Load for all callers.
    Lead(Leader<'a>),
    /// Wait for the leader.
    Wait(Waiter<'a>),
}

/// What a waiter gets to know.
#[derive(Debug)]
pub(crate) enum Arrival<'a> {
    /// The result of the load.
    Landed(Arc<[u8]>),
    /// The leader is gone, and this caller is the next.
    Lead(Leader<'a>),
    /// There is no result to share, or the load takes too long: each caller runs its own body.
    Alone,
}

/// What happens to a load whose leader is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stuck {
    /// It is joined like any other: the waiter finds out whether its leader is just late.
    Joined,
    Deposed,
}

impl Flights {
    pub(crate) fn new(
        deadline: Duration,
        release: impl Fn(&Key, Stamp) + Send + Sync + 'static,
    ) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            deadline,
            release: Box::new(release),
        }
    }

    /// Joins the load of `key`, or begins it. `tags` are the hashes of the tags and families of the call.
    pub(crate) fn join<'a>(
        &'a self,
        key: &'a Key,
        tags: &'a [u64],
        observation: Observation,
    ) -> Turn<'a> {
        self.enter(key, tags, observation, Stuck::Joined)
    }

    fn enter<'a>(
        &'a self,
        key: &'a Key,
        tags: &'a [u64],
        observation: Observation,
        stuck: Stuck,
    ) -> Turn<'a> {
        let mut shard = self.shard(key);
        let loads = match shard.get_mut(key) {
            Some(loads) => loads,
            None => shard.entry(key.clone()).or_default(),
        };
        loads.add_tags(tags);
        let (mut relieves, mut claims, mut lag) = (None, Claims::default(), Duration::ZERO);
        if let Some(flight) = loads.current.clone() {
            if flight.age() >= self.deadline {
                relieves = flight.set_overdue().then_some(Relieved::Overdue);
                loads.current = None;
            } else if let Some(left) = flight.depose_if(stuck) {
                (relieves, claims) = (Some(Relieved::Stuck), left);
                lag = flight.pulse.lag();
                loads.current = None;
            } else {
                let mut state = flight.state();
                if let Phase::Leaderless = state.phase {
                    state.phase = Phase::Flying;
                    drop(state);
                    return Turn::Lead(Leader::new(self, key, flight));
                }
                if state.serves(observation) {
                    drop(state);
                    return Turn::Wait(self.wait(key, tags, flight, observation));
                }
                drop(state);
                loads.retire_current();
            }
        }
        loads.older.retain(|older| match older.depose_if(stuck) {
            Some(left) => {
                if let Some(lease) = left.lease {
                    (self.release)(key, lease);
                }
                relieves = Some(Relieved::Stuck);
                false
            }
            None => older.is_running(self.deadline),
        });
        if loads.older.len() < MAX_AT_ONCE {
            let flight = match loads.next.take() {
                Some(next) => {
                    next.begin();
                    next.state().phase = Phase::Flying;
                    next.changed.notify_waiters();
                    next
                }
                None => Flight::new(Phase::Flying),
            };
            flight.state().claims = claims;
            loads.current = Some(Arc::clone(&flight));
            flight.pulse.restart();
            flight.pulse.saw_lag(lag);
            return Turn::Lead(Leader::relieving(self, key, flight, relieves));
        }
        let Loads { older, next, .. } = loads;
        let next = next.get_or_insert_with(|| Flight::new(Phase::Queued(older.clone())));
        let next = Arc::clone(next);
        Turn::Wait(self.wait(key, tags, next, observation))
    }

    fn wait<'a>(
        &'a self,
        key: &'a Key,
        tags: &'a [u64],
        flight: Arc<Flight>,
        observation: Observation,
    ) -> Waiter<'a> {
        let mut state = flight.state();
        state.waiting += 1;
        let (failed_loads, is_queued) = (state.failed_loads, state.is_queued());
        let since = match is_queued {
            true => observation.since,
            false => state.started.max(observation.since),
        };
        drop(state);
        Waiter {
            flights: self,
            key,
            tags,
            flight,
            failed_loads,
            observation,
            is_queued,
            until: since + self.deadline,
        }
    }

    /// Invalidates the loads that `targets` cover. Callers that wait for such a load still get its result; later callers
    /// start a new load.
    pub(crate) fn invalidate(&self, targets: &[Target]) {
        let mut is_any_wide = false;
        for target in targets {
            match target {
                Target::Key(key) => {
                    if let Some(loads) = self.shard(key).get_mut(key) {
                        loads.invalidate();
                    }
                }
                Target::Pattern(_) | Target::Tag(_) | Target::All => is_any_wide = true,
            }
        }
        if !is_any_wide {
            return;
        }
        for shard in &self.shards {
            for (key, loads) in &mut *shard.lock() {
                let is_meant = |target: &Target| target.covers(key) || loads.have_tag_of(target);
                if targets.iter().any(is_meant) {
                    loads.invalidate();
                }
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let of = |loads: &Loads| loads.older.len() + usize::from(loads.current.is_some());
        let shards = self.shards.iter();
        shards
            .map(|shard| shard.lock().values().map(of).sum::<usize>())
            .sum()
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Loads>> {
        self.shards[usize::try_from(key.hash() % SHARDS as u64).unwrap_or_default()].lock()
    }

    /// Takes `flight` off the map, if it is still there.
    fn forget(&self, key: &Key, flight: &Arc<Flight>) {
        self.remove(&mut self.shard(key), key, flight);
    }

    /// The same with the lock held.
    fn remove(&self, shard: &mut HashMap<Key, Loads>, key: &Key, flight: &Arc<Flight>) {
        let Some(loads) = shard.get_mut(key) else {
            return;
        };
        loads.remove(flight);
        loads.advance(self.deadline);
        if loads.is_empty() {
            shard.remove(key);
        }
    }

    /// A body of a load of `key` ended, so the next load may begin.
    fn advance(&self, key: &Key) {
        if let Some(loads) = self.shard(key).get_mut(key) {
            loads.advance(self.deadline);
        }
    }

    /// The leader of `flight` is gone. A waiter takes over. Returns the lease if there is no waiter.
    fn hand_over(&self, key: &Key, flight: &Arc<Flight>, failed_loads: bool) -> Option<Stamp> {
        // The lock of the map is taken first, as in `join`: no caller may begin to wait between the check and the removal.
        let mut shard = self.shard(key);
        let mut state = flight.state();
        if let Phase::Deposed = state.phase {
            return None;
        }
        state.failed_loads += u32::from(failed_loads);
        state.phase = Phase::Leaderless;
        if state.waiting == 0 {
            let lease = state.claims.lease;
            drop(state);
            self.remove(&mut shard, key, flight);
            return lease;
        }
        drop(state);
        drop(shard);
        flight.changed.notify_waiters();
        None
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Loads {
    /// A caller with these tags arrives. A load that no such caller has joined so far was not invalidated by an eviction of
    /// them, so this one may not join it.
    fn add_tags(&mut self, tags: &[u64]) {
        for tag in tags {
            if self.has_more_tags || self.tags.contains(tag) {
                continue;
            }
            match self.tags.len() < MAX_TAGS {
                true => self.tags.push(*tag),
                false => self.has_more_tags = true,
            }
            self.retire_current();
        }
    }

    fn have_tag_of(&self, target: &Target) -> bool {
        match target {
            Target::Tag(tag) => {
                self.has_more_tags
                    || [tag.key().hash(), family_hash(tag.family())]
                        .iter()
                        .any(|hash| self.tags.contains(hash))
            }
            Target::Key(_) | Target::Pattern(_) | Target::All => false,
        }
    }

    /// The current load may go on, but no caller joins it.
    fn retire_current(&mut self) {
        self.older.extend(self.current.take());
    }

    fn invalidate(&mut self) {
        self.retire_current();
        for flight in &self.older {
            flight.invalidated.store(true, Ordering::Release);
        }
    }

    fn remove(&mut self, flight: &Arc<Flight>) {
        let is_this = |there: &Arc<Flight>| Arc::ptr_eq(there, flight);
        self.older.retain(|older| !is_this(older));
        for place in [&mut self.current, &mut self.next] {
            if place.as_ref().is_some_and(is_this) {
                *place = None;
            }
        }
    }

    /// Begins the next load, if callers wait for it and few enough loads run. One of the waiters leads it.
    fn advance(&mut self, deadline: Duration) {
        let running = self.older.iter().chain(&self.current);
        let running = running.filter(|flight| flight.is_running(deadline)).count();
        if running >= MAX_AT_ONCE {
            return;
        }
        if let Some(next) = self.next.take() {
            self.retire_current();
            self.older.retain(|older| older.is_running(deadline));
            next.begin();
            next.changed.notify_waiters();
            self.current = Some(next);
        }
    }

    fn is_empty(&self) -> bool {
        self.older.is_empty() && self.current.is_none() && self.next.is_none()
    }
}

impl State {
    fn is_queued(&self) -> bool {
        matches!(self.phase, Phase::Queued(_))
    }
}

impl Flight {
    fn new(phase: Phase) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                started: Instant::now(),
                phase,
                waiting: 0,
                failed_loads: 0,
                snapshot: None,
                claims: Claims::default(),
            }),
            changed: Notify::new(),
            invalidated: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            pulse: Arc::default(),
        })
    }

    /// Its turn has come. It has no leader yet.
    fn begin(&self) {
        let mut state = self.state();
        state.started = Instant::now();
        state.phase = Phase::Leaderless;
    }

    fn age(&self) -> Duration {
        self.state().started.elapsed()
    }

    /// Returns whether its body runs, or is about to, and is not older than the deadline.
    fn is_running(&self, deadline: Duration) -> bool {
        let state = self.state();
        matches!(state.phase, Phase::Flying | Phase::Leaderless)
            && state.started.elapsed() < deadline
    }

    /// Takes over the claims of a leader that is not polled.
    fn depose_if(&self, stuck: Stuck) -> Option<Claims> {
        let mut state = self.state();
        let Phase::Flying = state.phase else {
            return None;
        };
        if stuck == Stuck::Joined || !self.pulse.is_stuck() {
            return None;
        }
        state.phase = Phase::Deposed;
        let claims = mem::take(&mut state.claims);
        drop(state);
        self.changed.notify_waiters();
        Some(claims)
    }

    /// Returns whether this is the first report about it.
    fn set_overdue(&self) -> bool {
        !self.overdue.swap(true, Ordering::AcqRel)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests;
