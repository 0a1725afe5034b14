//! Calls that are charged before it is known whether they count.
//!
//! Whoever counts only failures charges first, since guesses at the same moment must be counted, and gives back what did not fail.
//! Meanwhile a limit may look used up by calls that will not count at all. A call that finds nothing left therefore waits for those of
//! its client that are undecided in this process, instead of being rejected for their sake.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{self, Notify};
use tokio::time::timeout;

use super::{Decision, Identity, Inner, Limit, Limited};

/// How long a call waits for undecided ones. Then it is decided as if they counted.
const PATIENCE: Duration = Duration::from_secs(10);

/// A call that is charged, and gets its charge back if it turns out not to count: see [`Limit::reserve`]. Dropped, it stays charged.
#[must_use = "dropped, the call counts"]
pub struct Reservation {
    limit: Limit,
    client: Identity,
    decision: Decision,
    undecided: Undecided,
}

impl Reservation {
    /// What the limiter said.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The call counts.
    pub fn count(self) -> Decision {
        self.decision
    }

    /// The call does not count: gives back what it was charged, as [`Limit::refund`] does.
    pub async fn cancel(mut self) -> Decision {
        self.limit.refund(&self.client, &mut self.decision).await;
        self.undecided.is_cancelled = true;
        self.decision
    }
}

impl Limit {
    /// Decides one call of `client` of which it is known only later whether it counts, such as a login, which counts if its password is
    /// wrong. It is charged unless the [`Reservation`] is cancelled.
    ///
    /// ```
    /// # use cache_runtime::limit::{Identity, Limit, Limited};
    /// # async fn log_in(limit: Limit, client: Identity) -> Result<bool, Limited> {
    /// let attempt = limit.reserve(&client).await?;
    /// let is_right = true; // check the password
    /// if is_right {
    ///     attempt.cancel().await;
    /// }
    /// # Ok(is_right)
    /// # }
    /// ```
    ///
    /// Where nothing is left only because of calls of the same client that this process has not decided yet, it waits for these: in the
    /// order of the calls, and for 10 s at most. So any number of right passwords at the same moment get through, and no more wrong
    /// ones than the limit. Undecided calls of other processes are not waited for; they count until they are cancelled.
    ///
    /// # Errors
    ///
    /// The call is not allowed.
    pub async fn reserve(&self, client: &Identity) -> Result<Reservation, Limited> {
        let place = self.queue(client);
        // One call at a time asks, and none while all that is left is reserved.
        let turn = timeout(PATIENCE, place.queue.turn()).await;
        let decision = self.check(client).await.into_result()?;
        let is_last = decision.policies.iter().any(|policy| policy.remaining == 0);
        place.queue.admit(is_last);
        drop(turn);
        let undecided = Undecided {
            place,
            is_cancelled: false,
        };
        Ok(Reservation {
            limit: self.clone(),
            client: client.clone(),
            decision,
            undecided,
        })
    }

    fn queue(&self, client: &Identity) -> Place {
        let name = (Arc::clone(&self.policies), client.clone());
        let mut queues = self.inner.queues.lock();
        let queue = Arc::clone(queues.entry(name.clone()).or_default());
        Place {
            inner: Arc::clone(&self.inner),
            name,
            queue,
        }
    }
}

/// The queue of each client that has undecided calls, by the policies that decide together.
#[derive(Default)]
pub(super) struct Queues(Mutex<HashMap<Name, Arc<Queue>>>);

type Name = (Arc<[usize]>, Identity);

#[derive(Default)]
struct Queue {
    /// Held by the call that asks, or is the next to ask.
    turn: sync::Mutex<()>,
    state: Mutex<State>,
    decided: Notify,
}

#[derive(Default)]
struct State {
    undecided: usize,
    /// Whether the last one that was admitted left nothing, and none was cancelled since.
    is_used_up: bool,
}

impl Queues {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Arc<Queue>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is this call's turn, and there is room or nothing left to wait for.
    async fn turn(&self) -> sync::MutexGuard<'_, ()> {
        let turn = self.turn.lock().await;
        while self.is_worth_waiting() {
            self.decided.notified().await;
        }
        turn
    }

    fn is_worth_waiting(&self) -> bool {
        let state = self.lock();
        state.is_used_up && state.undecided > 0
    }

    fn admit(&self, is_last: bool) {
        let mut state = self.lock();
        state.undecided += 1;
        state.is_used_up = is_last;
    }

    fn decide(&self, is_cancelled: bool) {
        let mut state = self.lock();
        state.undecided -= 1;
        state.is_used_up &= !is_cancelled;
        drop(state);
        // Only who has the turn waits.
        self.decided.notify_one();
    }
}

/// A place in a queue, which is gone with the last one.
struct Place {
    inner: Arc<Inner>,
    name: Name,
    queue: Arc<Queue>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queues = self.inner.queues.lock();
        // Ours and the one in the map; more of them are made under the lock only.
        if Arc::strong_count(&self.queue) == 2 {
            queues.remove(&self.name);
        }
    }
}

struct Undecided {
    place: Place,
    is_cancelled: bool,
}

impl Drop for Undecided {
    fn drop(&mut self) {
        self.place.queue.decide(self.is_cancelled);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("limit", &self.limit)
            .field("client", &self.client)
            .field("decision", &self.decision)
            .finish_non_exhaustive()
    }
}
