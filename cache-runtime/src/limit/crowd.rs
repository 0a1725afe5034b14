//! Calls of one client that arrive while other calls of this client are on their way.
//!
//! These calls wait, and are sent together as one call of the script. The script charges as many of them as fit, in order of
//! arrival. So a crowd behind one address needs a few scripts instead of one for each call. Only equal calls are sent together:
//! calls with the same policies and the same cost. If fewer than [`ALONE`] equal calls are on their way, a call is sent alone,
//! without a task. `driver.rs` sends the waiting calls.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::decision::Backend;
use super::rule::Answer;
use crate::store::guard::in_runtime;

/// How many equal calls are sent alone at the same time. With a lower number, calls would only wait for each other. These calls
/// and the first batch make as many unanswered operations as the guard needs to notice an outage.
pub(super) const ALONE: u32 = 4;

/// The calls of one client that Redis is being asked about.
#[derive(Debug, Default)]
pub(super) struct Crowds(Vec<Crowd>);

/// Equal calls.
#[derive(Debug)]
struct Crowd {
    policies: Arc<[usize]>,
    cost: u32,
    /// Calls that were sent alone and are not answered yet.
    alone: u32,
    /// Whether a driver sends the waiting calls.
    is_driven: bool,
    waiting: VecDeque<Waiting>,
}

/// What equal calls have in common: their policies and their cost.
pub(super) type Kind<'a> = (&'a Arc<[usize]>, u32);

/// A call that waits for the next batch.
pub(super) type Waiting = oneshot::Sender<Told>;

/// The answer of a batch to each of its callers.
#[derive(Debug)]
pub(super) enum Told {
    Decided(Vec<Answer>, Backend),
    /// Redis did not answer.
    Outage,
}

impl Crowds {
    /// Adds a call. Returns [`None`] if the caller should send it alone. Otherwise the call waits, and the flag is true if the
    /// caller must start a driver.
    pub(super) fn enter(
        &mut self,
        kind: Kind<'_>,
        is_silent: bool,
    ) -> Option<(oneshot::Receiver<Told>, bool)> {
        let Some(crowd) = self.find(kind) else {
            // Most clients have only one kind of call.
            self.0.reserve_exact(1);
            self.0.push(Crowd {
                policies: Arc::clone(kind.0),
                cost: kind.1,
                alone: 1,
                is_driven: false,
                waiting: VecDeque::new(),
            });
            return None;
        };
        if !crowd.is_driven && (crowd.alone < ALONE || is_silent || !in_runtime()) {
            crowd.alone += 1;
            return None;
        }
        let (told, answer) = oneshot::channel();
        crowd.waiting.push_back(told);
        let drives = !mem::replace(&mut crowd.is_driven, true);
        Some((answer, drives))
    }

    /// Removes a call that was sent alone, after it was answered or cancelled.
    pub(super) fn leave(&mut self, kind: Kind<'_>) {
        if let Some(crowd) = self.find(kind) {
            crowd.alone = crowd.alone.saturating_sub(1);
            self.clear();
        }
    }

    /// Takes at most `most` of the waiting calls, the oldest first, and returns how many remain. Returns [`None`] if no call
    /// waits. The driver ends then.
    pub(super) fn next(&mut self, kind: Kind<'_>, most: usize) -> Option<(Vec<Waiting>, usize)> {
        let crowd = self.find(kind)?;
        if crowd.waiting.is_empty() {
            self.abandon(kind);
            return None;
        }
        let count = crowd.waiting.len().min(most);
        let first = crowd.waiting.drain(..count).collect();
        Some((first, crowd.waiting.len()))
    }

    /// Takes all waiting calls.
    pub(super) fn take(&mut self, kind: Kind<'_>) -> VecDeque<Waiting> {
        let crowd = self.find(kind);
        crowd.map_or_else(VecDeque::new, |crowd| mem::take(&mut crowd.waiting))
    }

    /// Takes all waiting calls, and records that no driver runs.
    pub(super) fn abandon(&mut self, kind: Kind<'_>) -> VecDeque<Waiting> {
        let waiting = self.take(kind);
        if let Some(crowd) = self.find(kind) {
            crowd.is_driven = false;
            self.clear();
        }
        waiting
    }

    fn find(&mut self, (policies, cost): Kind<'_>) -> Option<&mut Crowd> {
        let is_equal = |crowd: &&mut Crowd| crowd.cost == cost && crowd.policies == *policies;
        self.0.iter_mut().find(is_equal)
    }

    fn clear(&mut self) {
        self.0.retain(|crowd| crowd.alone > 0 || crowd.is_driven);
    }
}
