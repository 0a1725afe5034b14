//! Calls that are charged before it is known whether they count.
//!
//! A limit on failures charges each call before it is known whether it failed, because calls at the same moment must be counted. The
//! charge is given back if the call did not fail. Until then, the limit may be used up by calls that will not count. A call that
//! finds nothing left therefore waits for the undecided calls of its client in this process, and is not rejected because of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::{Decision, Identity, Inner, Limit, Limited};
use crate::clock::whole_millis;
use crate::sync::Mutex;

/// How long a call waits for undecided ones. Then it is decided as if they counted.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a call waits for calls that are just being decided: an operation of the store takes no longer by default.
const TURN: Duration = Duration::from_millis(100);

/// The most calls of one client that wait. Any more are decided immediately: a crowd over its limit must not become a crowd of tasks.
const MAX_WAITING: usize = 64;

/// A call that is charged, and gets its charge back if it turns out not to count: see [`Limit::reserve`]. Dropped, it stays
/// charged.
///
/// See [`Limit::reserve`] for an example.
#[must_use = "dropped, the call counts"]
pub struct Reservation {
    limit: Limit,
    client: Identity,
    decision: Decision,
    /// By the limiter's time, no later than it was.
    charged_at: u64,
    undecided: Undecided,
}

impl Reservation {
    /// The answer of the limiter.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The call counts.
    pub fn count(self) -> Decision {
        self.decision
    }

    /// The call does not count: gives back what it was charged, as [`Limit::refund`] does.
    pub async fn cancel(mut self) -> Decision {
        let (limit, decision) = (&self.limit, &mut self.decision);
        let age = limit.inner.now().saturating_sub(self.charged_at);
        // After its window a refund would give back what another call was charged.
        let charged = limit.policies.iter().zip(&decision.policies);
        let standing: Vec<usize> = charged
            .filter(|(_, status)| age < whole_millis(status.window))
            .map(|(policy, _)| *policy)
            .collect();
        limit.inner.refund(&standing, &self.client, decision).await;
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
    /// If nothing is left only because of calls of the same client that this process has not decided yet, the call waits for them, for up
    /// to 10 s. So right passwords that arrive together get through, and no more wrong ones than the limit. Up to 64 calls of a client
    /// wait; any more are decided immediately.
    ///
    /// - Calls of other processes, and of a [`Limit`] with other policies, are not waited for. They count until they are cancelled.
    /// - A cancellation gives back the newest unit in the window, as [`refund`](Self::refund) does. A call that is cancelled after its window
    ///   is over gives nothing back.
    ///
    /// # Errors
    ///
    /// The call is not allowed.
    pub async fn reserve(&self, client: &Identity) -> Result<Reservation, Limited> {
        let place = self.queue(client);
        let asking = place.queue.turn().await;
        let charged_at = self.inner.now();
        let decision = self.check(client).await;
        asking.answered(&decision);
        Ok(Reservation {
            decision: decision.into_result()?,
            limit: self.clone(),
            client: client.clone(),
            charged_at,
            undecided: Undecided {
                place,
                is_cancelled: false,
            },
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
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Calls that are being decided by the limiter.
    asking: usize,
    /// When the last of them asked.
    asked_at: Option<Instant>,
    /// Calls that are allowed and not counted or cancelled yet.
    undecided: usize,
    waiting: usize,
    /// What is left at least. [`None`] is unknown.
    left: Option<Left>,
}

#[derive(Clone, Copy)]
struct Left {
    units: usize,
    /// From then on there may be more.
    until: Instant,
}

impl Queues {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Arc<Queue>>> {
        self.0.lock()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Waits while calls under way may use everything that is left, and one of them may give it back.
    async fn turn(&self) -> Asking<'_> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let changed = self.changed.notified();
            let until = match self.step(give_up) {
                Step::Ask(asking) => return asking,
                Step::Wait(until) => until,
            };
            let waiting = Waiting(self);
            let _ = timeout_at(until, changed).await;
            drop(waiting);
        }
    }

    fn step(&self, give_up: Instant) -> Step<'_> {
        let mut state = self.lock();
        let until = state.worth_waiting().map(|until| until.min(give_up));
        match until.filter(|until| Instant::now() < *until && state.waiting < MAX_WAITING) {
            Some(until) => {
                state.waiting += 1;
                Step::Wait(until)
            }
            None => {
                state.asking += 1;
                state.asked_at = Some(Instant::now());
                Step::Ask(Asking { queue: self })
            }
        }
    }
}

/// The next step of a call. The call is already counted as that.
enum Step<'a> {
    Ask(Asking<'a>),
    Wait(Instant),
}

impl State {
    /// Until when it makes sense to wait.
    fn worth_waiting(&self) -> Option<Instant> {
        let left = self.left.filter(|left| Instant::now() < left.until);
        match left {
            Some(left) if left.units > self.asking => None,
            Some(left) if self.undecided > 0 => Some(left.until),
            _ if self.asking > 0 => self.asked_at.map(|asked_at| asked_at + TURN),
            _ => None,
        }
    }
}

/// A call that waits.
struct Waiting<'a>(&'a Queue);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// A call that the limiter is being asked about.
struct Asking<'a> {
    queue: &'a Queue,
}

impl Asking<'_> {
    fn answered(self, decision: &Decision) {
        let mut state = self.queue.lock();
        let tightest = decision
            .policies
            .iter()
            .min_by_key(|policy| policy.remaining);
        let now = Instant::now();
        // The answers to calls that ask together may arrive in another order, and may lack later cancellations. So an answer
        // never raises what is known to be left.
        let known = state.left.filter(|left| now < left.until);
        let known = known.map_or(usize::MAX, |left| left.units.saturating_sub(1));
        state.left = tightest.map(|policy| Left {
            units: if decision.is_allowed() {
                known.min(usize::try_from(policy.remaining).unwrap_or(usize::MAX))
            } else {
                0
            },
            until: now + policy.more_after,
        });
        state.undecided += usize::from(decision.is_allowed());
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.queue.lock().asking -= 1;
        self.queue.changed.notify_one();
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
        // The one here and the one in the map. More clones are made only under the lock.
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
        let queue = &self.place.queue;
        let mut state = queue.lock();
        state.undecided -= 1;
        if self.is_cancelled
            && let Some(left) = &mut state.left
        {
            left.units = left.units.saturating_add(1);
        }
        drop(state);
        queue.changed.notify_one();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::limit::{Policy, RateLimiter};

    #[tokio::test]
    async fn a_late_answer_does_not_raise_the_remaining_units() {
        let policy = Policy::new("test").limit(2).per("1h");
        let limiter = RateLimiter::new(&Cache::memory(), [policy]).expect("a policy");
        let limit = limiter.limit(&["test"]).expect("the policy");
        let client = Identity::key(7);
        let (first, second) = (limit.check(&client).await, limit.check(&client).await);
        let queue = Queue::default();
        queue.lock().asking = 2;

        for decision in [second, first] {
            Asking { queue: &queue }.answered(&decision);
        }

        assert!(queue.lock().worth_waiting().is_some());
    }
}
