//! Calls of one client that arrive while others of its calls are on their way.
//!
//! They wait, and leave together as one call of the script, which charges as many as fit, in order of arrival. So a crowd behind
//! one address costs Redis a few scripts, not one for each call. Only equal calls leave together: those under the same policies and
//! with the same cost. A call that finds few on their way is sent alone, without a task. `driver.rs` sends the others.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::decision::Backend;
use super::rule::Answer;
use crate::store::guard::in_runtime;

/// This many calls are sent alone at the same time. Fewer calls would only wait for each other. With the first batch they are as
/// many unanswered operations as the guard needs to notice an outage.
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
    /// Whether a driver sends those that wait.
    is_driven: bool,
    waiting: VecDeque<Waiting>,
}

/// What equal calls have in common: their policies and their cost.
pub(super) type Kind<'a> = (&'a Arc<[usize]>, u32);

/// A call that waits for the next batch.
pub(super) type Waiting = oneshot::Sender<Told>;

/// What a batch brings to each of its callers.
#[derive(Debug)]
pub(super) enum Told {
    Decided(Vec<Answer>, Backend),
    /// Redis did not answer.
    Outage,
}

impl Crowds {
    /// Adds a call. [`None`] if it is to be sent alone. Otherwise it waits; the flag tells whether it needs a driver.
    pub(super) fn enter(
        &mut self,
        kind: Kind<'_>,
        is_silent: bool,
    ) -> Option<(oneshot::Receiver<Told>, bool)> {
        let Some(crowd) = self.find(kind) else {
            // Most clients have one kind of calls.
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

    /// A call that was sent alone is answered or cancelled.
    pub(super) fn leave(&mut self, kind: Kind<'_>) {
        if let Some(crowd) = self.find(kind) {
            crowd.alone = crowd.alone.saturating_sub(1);
            self.clear();
        }
    }

    /// Takes the first calls, at most this many, and returns how many remain. [`None`] if no call waits; then the driver is over.
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

    /// Takes all calls that wait.
    pub(super) fn take(&mut self, kind: Kind<'_>) -> VecDeque<Waiting> {
        let crowd = self.find(kind);
        crowd.map_or_else(VecDeque::new, |crowd| mem::take(&mut crowd.waiting))
    }

    /// The same, and no driver is expected any more.
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
