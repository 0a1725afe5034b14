//! One load per key in this process. Whoever comes while a load runs waits for its encoded result.
//!
//! A leader may fail, panic or be dropped. Then one of those who wait takes over at once, together with the lease that the
//! leader held in the store, so that nobody waits for a claim of the dead.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::entry::Stamp;
use crate::key::Key;
use crate::target::Target;

/// Keys meet on a lock only when they share one of so many shards; loads are rare enough for this to suffice.
const SHARDS: usize = 16;

/// The loads under way.
pub(crate) struct Flights {
    shards: [Mutex<HashMap<Key, Arc<Flight>>>; SHARDS],
    /// A load that is older no longer keeps others from starting their own.
    deadline: Duration,
    /// Gives back a lease that nobody is there to take over.
    release: Release,
}

type Release = Box<dyn Fn(&Key, Stamp) + Send + Sync>;

#[derive(Debug)]
struct Flight {
    started: Instant,
    state: Mutex<State>,
    changed: Notify,
    /// An eviction came since the load began: what it returns is for those who wait already, and for nobody else.
    doomed: AtomicBool,
    /// It is older than the deadline, and others may load.
    overdue: AtomicBool,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    waiting: usize,
    /// Counts loads that ended without a result to share.
    fruitless: u32,
    /// What the result rests on, as soon as that is known.
    basis: Option<Basis>,
}

/// From when on no eviction can have been missed by what is loaded.
#[derive(Clone, Copy, Debug)]
struct Basis {
    at: Instant,
    /// The claim in the store that stood before, and that every eviction takes away.
    claim: Option<Stamp>,
}

/// When a caller came, and what it saw in the store: whether another's load is recent enough for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) since: Instant,
    pub(crate) saw: Saw,
}

/// What stood under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saw {
    /// The store is away. Nobody can know of another process's evictions then, and loads are shared all the more.
    Unknown,
    Nothing,
    Entry(Stamp),
}

impl State {
    /// Another process may have evicted the key since the load began, which nobody here was told. Its eviction has taken away
    /// the claim that the load rests on: who still saw that claim, or came before the load, misses nothing.
    fn serves(&self, sight: Sight) -> bool {
        let Sight { since, saw } = sight;
        self.basis.is_none_or(|Basis { at, claim }| match saw {
            Saw::Unknown => true,
            Saw::Nothing => since <= at,
            Saw::Entry(stamp) => since <= at || claim == Some(stamp),
        })
    }
}

#[derive(Debug)]
enum Phase {
    /// A leader loads.
    Flying,
    /// The leader is gone; this is the lease that it left.
    Leaderless(Option<Stamp>),
    /// The encoded result.
    Landed(Arc<[u8]>),
}

/// What a caller is to do.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// Load, for everybody.
    Lead(Leader<'a>),
    /// Wait for the one who loads.
    Wait(Waiter<'a>),
}

/// What a waiter gets to know.
#[derive(Debug)]
pub(crate) enum Arrival<'a> {
    /// The result of the load.
    Landed(Arc<[u8]>),
    /// The leader is gone, and this caller is the next.
    Lead(Leader<'a>),
    /// There is nothing to share, or it takes too long: each runs its own body.
    Alone,
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

    /// Joins the load of `key`, or begins it.
    pub(crate) fn join<'a>(&'a self, key: &'a Key, sight: Sight) -> Turn<'a> {
        let mut shard = self.shard(key);
        let (under_way, overdue) = match shard.get(key).map(Arc::clone) {
            Some(flight) if flight.started.elapsed() < self.deadline => (Some(flight), None),
            overdue => (None, overdue),
        };
        if let Some(flight) = under_way {
            let mut state = flight.state();
            if let Phase::Leaderless(lease) = state.phase {
                state.phase = Phase::Flying;
                drop(state);
                return Turn::Lead(Leader::new(self, key, flight, lease));
            }
            if state.serves(sight) {
                state.waiting += 1;
                let fruitless = state.fruitless;
                drop(state);
                let since = flight.started.max(sight.since);
                return Turn::Wait(Waiter {
                    flights: self,
                    key,
                    flight,
                    fruitless,
                    sight,
                    until: since + self.deadline,
                });
            }
        }
        let flight = Flight::begin();
        shard.insert(key.clone(), Arc::clone(&flight));
        let mut leader = Leader::new(self, key, flight, None);
        leader.is_relief = overdue.is_some_and(|flight| flight.set_overdue());
        Turn::Lead(leader)
    }

    /// Dooms the loads that `target` covers: who waits for one keeps its result, who comes later begins anew.
    pub(crate) fn doom(&self, target: &Target) {
        match target {
            Target::Key(key) => {
                if let Some(flight) = self.shard(key).remove(key) {
                    flight.doomed.store(true, Ordering::Release);
                }
            }
            Target::Pattern(_) | Target::All => {
                for shard in &self.shards {
                    lock(shard).retain(|key, flight| {
                        let doomed = target.covers(key);
                        if doomed {
                            flight.doomed.store(true, Ordering::Release);
                        }
                        !doomed
                    });
                }
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        lock(&self.shards[usize::try_from(key.hash() % SHARDS as u64).unwrap_or_default()])
    }

    /// Takes `flight` off the map, if it is still there.
    fn forget(&self, key: &Key, flight: &Arc<Flight>) {
        remove(&mut self.shard(key), key, flight);
    }

    /// The leader of `flight` is gone. Whoever waits takes over; if nobody does, the lease comes back as the answer.
    fn hand_over(
        &self,
        key: &Key,
        flight: &Arc<Flight>,
        lease: Option<Stamp>,
        fruitless: bool,
    ) -> Option<Stamp> {
        // The map's lock comes first, as in `join`: nobody may begin to wait between the look and the removal.
        let mut shard = self.shard(key);
        let mut state = flight.state();
        state.fruitless += u32::from(fruitless);
        state.phase = Phase::Leaderless(lease);
        let awaited = state.waiting > 0;
        drop(state);
        if !awaited {
            remove(&mut shard, key, flight);
        }
        drop(shard);
        if awaited {
            flight.changed.notify_waiters();
            return None;
        }
        lease
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Flight {
    fn begin() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            state: Mutex::new(State {
                phase: Phase::Flying,
                waiting: 0,
                fruitless: 0,
                basis: None,
            }),
            changed: Notify::new(),
            doomed: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
        })
    }

    /// Whether this is the first that is said of it.
    fn set_overdue(&self) -> bool {
        !self.overdue.swap(true, Ordering::AcqRel)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The one who loads. Dropped without a landing, it hands over to the next.
#[derive(Debug)]
pub(crate) struct Leader<'a> {
    flights: &'a Flights,
    key: &'a Key,
    flight: Arc<Flight>,
    /// The lease in the store, which is handed over with the leadership.
    lease: Option<Stamp>,
    /// It takes the place of a load that is older than the deadline, of which nobody knew yet.
    is_relief: bool,
    end: End,
}

/// How a leadership ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Dropped before the body came to an end.
    Dropped,
    /// The body's result is not worth sharing, and the leadership is handed over already.
    Fruitless,
    Landed,
}

impl<'a> Leader<'a> {
    fn new(flights: &'a Flights, key: &'a Key, flight: Arc<Flight>, lease: Option<Stamp>) -> Self {
        Self {
            flights,
            key,
            flight,
            lease,
            is_relief: false,
            end: End::Dropped,
        }
    }

    /// The lease under which the result may be stored.
    pub(crate) fn lease(&self) -> Option<Stamp> {
        self.lease
    }

    pub(crate) fn set_lease(&mut self, lease: Option<Stamp>) {
        self.lease = lease;
    }

    /// What is returned was, or will be, loaded after `at`, while `claim` stood in the store.
    pub(crate) fn rest_on(&self, at: Instant, claim: Option<Stamp>) {
        self.flight.state().basis = Some(Basis { at, claim });
    }

    /// Gives a lease back without anybody waiting.
    pub(crate) fn release(&self, lease: Stamp) {
        (self.flights.release)(self.key, lease);
    }

    pub(crate) fn is_relief(&self) -> bool {
        self.is_relief
    }

    /// The load is older than the deadline: it keeps nobody else from loading any more. Answers whether nobody knew yet.
    pub(crate) fn abandon(&self) -> bool {
        self.flights.forget(self.key, &self.flight);
        self.flight.set_overdue()
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.flight.doomed.load(Ordering::Acquire)
    }

    /// Whether anybody waits for the encoded result.
    pub(crate) fn is_awaited(&self) -> bool {
        self.flight.state().waiting > 0
    }

    /// Gives the result to all who wait, and to all who come until this leader is dropped.
    pub(crate) fn land(&mut self, entry: Arc<[u8]>) {
        self.end = End::Landed;
        self.flight.state().phase = Phase::Landed(entry);
        self.flight.changed.notify_waiters();
    }

    /// There is nothing to share: one who waits takes over, with the lease; all others run their own bodies. Answers the
    /// lease if nobody waits.
    pub(crate) fn give_up(mut self) -> Option<Stamp> {
        self.end = End::Fruitless;
        self.flights
            .hand_over(self.key, &self.flight, self.lease, true)
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        match self.end {
            End::Landed => self.flights.forget(self.key, &self.flight),
            End::Fruitless => {}
            End::Dropped => {
                if let Some(lease) =
                    self.flights
                        .hand_over(self.key, &self.flight, self.lease, false)
                {
                    self.release(lease);
                }
            }
        }
    }
}

/// One who waits for the leader.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    flights: &'a Flights,
    key: &'a Key,
    flight: Arc<Flight>,
    fruitless: u32,
    sight: Sight,
    /// No caller waits longer.
    until: Instant,
}

impl<'a> Waiter<'a> {
    /// Waits until the load lands, until it is this caller's turn, or until it has waited for too long. When the load is too
    /// old, one of those who wait begins another, and the rest wait for that.
    pub(crate) async fn arrival(mut self) -> Arrival<'a> {
        loop {
            let overdue = self.flight.started + self.flights.deadline;
            let changed = self.flight.changed.notified();
            if let Some(arrival) = self.look() {
                return arrival;
            }
            if timeout_at(overdue.min(self.until), changed).await.is_ok() {
                continue;
            }
            match self.flights.join(self.key, self.sight) {
                Turn::Lead(leader) => return Arrival::Lead(leader),
                Turn::Wait(_) if Instant::now() >= self.until => return Arrival::Alone,
                Turn::Wait(next) => {
                    let until = self.until;
                    self = next;
                    self.until = until;
                }
            }
        }
    }

    fn look(&self) -> Option<Arrival<'a>> {
        let mut state = self.flight.state();
        match &state.phase {
            Phase::Landed(_) if !state.serves(self.sight) => Some(Arrival::Alone),
            Phase::Landed(entry) => Some(Arrival::Landed(Arc::clone(entry))),
            Phase::Leaderless(lease) => {
                let lease = *lease;
                state.phase = Phase::Flying;
                drop(state);
                Some(Arrival::Lead(Leader::new(
                    self.flights,
                    self.key,
                    Arc::clone(&self.flight),
                    lease,
                )))
            }
            Phase::Flying if state.fruitless > self.fruitless => Some(Arrival::Alone),
            Phase::Flying => None,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(self.key);
        let mut state = self.flight.state();
        state.waiting -= 1;
        let Phase::Leaderless(lease) = state.phase else {
            return;
        };
        if state.waiting > 0 {
            return;
        }
        drop(state);
        remove(&mut shard, self.key, &self.flight);
        drop(shard);
        if let Some(lease) = lease {
            (self.flights.release)(self.key, lease);
        }
    }
}

fn remove(shard: &mut HashMap<Key, Arc<Flight>>, key: &Key, flight: &Arc<Flight>) {
    if shard
        .get(key)
        .is_some_and(|there| Arc::ptr_eq(there, flight))
    {
        shard.remove(key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
