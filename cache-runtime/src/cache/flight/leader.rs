//! The caller that loads for all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{Flight, Flights, Phase, Snapshot};
use crate::cache::pulse::Pulse;
use crate::entry::Stamp;
use crate::key::Key;

/// The caller that loads. If it is dropped before it lands, the next waiter takes over.
#[derive(Debug)]
pub(crate) struct Leader<'a> {
    flights: &'a Flights,
    key: &'a Key,
    flight: Arc<Flight>,
    relieves: Option<Relieved>,
    end: End,
}

/// A leader that is replaced by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relieved {
    /// Its load is older than the deadline, and this was not known yet.
    Overdue,
    /// It was woken and not polled.
    Stuck,
}

/// How a leadership ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Dropped before the body came to an end.
    Dropped,
    /// The body's result is not worth sharing, and the leadership is handed over already.
    Failed,
    Landed,
}

impl<'a> Leader<'a> {
    /// The leader of a load that has begun, after another or as the first.
    pub(super) fn new(flights: &'a Flights, key: &'a Key, flight: Arc<Flight>) -> Self {
        flight.pulse.restart();
        Self::relieving(flights, key, flight, None)
    }

    /// The same, in place of a leader that is too slow or stuck. Its pulse has been started.
    pub(super) fn relieving(
        flights: &'a Flights,
        key: &'a Key,
        flight: Arc<Flight>,
        relieves: Option<Relieved>,
    ) -> Self {
        Self {
            flights,
            key,
            flight,
            relieves,
            end: End::Dropped,
        }
    }

    /// Shows waiters whether this leader is polled.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.flight.pulse)
    }

    /// The lease under which the result may be stored. A leader that was deposed has none any more.
    pub(crate) fn lease(&self) -> Option<Stamp> {
        self.flight.state().claims.lease
    }

    /// A lease is about to be asked for.
    pub(crate) fn asks_for(&self, lease: Stamp) {
        self.flight.state().claims.asked.push(lease);
    }

    /// Returns whether this leader, or a leader that it replaced, asked for this lease.
    pub(crate) fn has_asked_for(&self, lease: Stamp) -> bool {
        self.flight.state().claims.asked.contains(&lease)
    }

    /// The lease is this leader's. Returns whether it still leads.
    pub(crate) fn set_lease(&self, lease: Stamp) -> bool {
        let mut state = self.flight.state();
        if let Phase::Deposed = state.phase {
            return false;
        }
        state.claims.lease = Some(lease);
        true
    }

    /// The result was or will be loaded after `at`, while `claim` was in the store.
    pub(crate) fn set_snapshot(&self, at: Instant, claim: Option<Stamp>) {
        self.flight.state().snapshot = Some(Snapshot { at, claim });
    }

    /// Gives a lease back in the background.
    pub(crate) fn release(&self, lease: Stamp) {
        (self.flights.release)(self.key, lease);
    }

    pub(crate) fn relieves(&self) -> Option<Relieved> {
        self.relieves
    }

    /// The load is older than the deadline and no longer keeps other callers from loading. Returns whether this was not
    /// known yet.
    pub(crate) fn abandon(&self) -> bool {
        self.flights.forget(self.key, &self.flight);
        self.flight.set_overdue()
    }

    pub(crate) fn is_invalidated(&self) -> bool {
        self.flight.invalidated.load(Ordering::Acquire)
    }

    /// Returns whether a caller waits for the encoded result.
    pub(crate) fn is_awaited(&self) -> bool {
        self.flight.state().waiting > 0
    }

    /// Gives the result to all waiters, and to all callers that arrive until this leader is dropped.
    pub(crate) fn land(&mut self, entry: Arc<[u8]>) {
        self.end = End::Landed;
        self.flight.state().phase = Phase::Landed(entry);
        self.flight.changed.notify_waiters();
        self.flights.advance(self.key);
    }

    /// There is no result to share: one waiter takes over with the lease, and all others run their own bodies. Returns the
    /// lease if there is no waiter.
    pub(crate) fn give_up(mut self) -> Option<Stamp> {
        self.end = End::Failed;
        self.flights.hand_over(self.key, &self.flight, true)
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        match self.end {
            End::Landed => self.flights.forget(self.key, &self.flight),
            End::Failed => {}
            End::Dropped => {
                if let Some(lease) = self.flights.hand_over(self.key, &self.flight, false) {
                    self.release(lease);
                }
            }
        }
    }
}
