//! Callers that are answered together, because it costs a server less to answer many at once.
//!
//! Callers that join wait for a task. While as many tasks run as may, further callers gather for the next one. A caller that may
//! begin a task does so, because a caller itself may stop being polled.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

use crate::sync::Mutex;

/// Callers that ask `Q` and wait for `A`.
pub(crate) struct Queue<Q, A> {
    waiting: Mutex<VecDeque<Waiting<Q, A>>>,
    /// How many tasks run. It changes only under the lock.
    running: AtomicUsize,
    /// How many tasks may run.
    most: usize,
}

pub(crate) struct Waiting<Q, A> {
    pub(crate) question: Q,
    pub(crate) caller: oneshot::Sender<A>,
}

/// A task that answers callers until none of them waits.
///
/// If it is dropped before, because its runtime ended, the waiting callers get an error. They belong to other runtimes, and ask alone.
pub(crate) struct Runner<Q, A> {
    queue: Arc<Queue<Q, A>>,
    is_over: bool,
}

impl<Q, A> Queue<Q, A> {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            running: AtomicUsize::new(0),
            most,
        })
    }

    /// Returns whether a task runs.
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    /// Waits for an answer. Returns the runner of a task that the caller should spawn, if one may begin.
    pub(crate) fn join(
        self: &Arc<Self>,
        question: Q,
    ) -> (oneshot::Receiver<A>, Option<Runner<Q, A>>) {
        let (caller, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.push_back(Waiting { question, caller });
        let begins = self.running.load(Ordering::Relaxed) < self.most;
        if begins {
            self.running.fetch_add(1, Ordering::Relaxed);
        }
        drop(waiting);
        let runner = begins.then(|| Runner {
            queue: Arc::clone(self),
            is_over: false,
        });
        (answer, runner)
    }
}

impl<Q, A> fmt::Debug for Queue<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl<Q, A> Runner<Q, A> {
    /// Takes the callers that have waited longest. `fill` is called with the number of them and returns a function that takes one
    /// and returns whether there is room for another. Returns [`None`] if nobody waits. The runner is over then.
    pub(crate) fn next<F: FnMut(&Q) -> bool>(
        &mut self,
        fill: impl FnOnce(usize) -> F,
    ) -> Option<Vec<Waiting<Q, A>>> {
        let mut waiting = self.queue.waiting.lock();
        let mut has_room_after = fill(waiting.len());
        let mut taken = Vec::new();
        while let Some(next) = waiting.pop_front() {
            // Skips the callers that were cancelled.
            if next.caller.is_closed() {
                continue;
            }
            let has_room = has_room_after(&next.question);
            taken.push(next);
            if !has_room {
                break;
            }
        }
        if taken.is_empty() {
            self.is_over = true;
            self.queue.running.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(taken)
    }
}

impl<Q, A> Drop for Runner<Q, A> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut waiting = self.queue.waiting.lock();
            waiting.clear();
            self.queue.running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Arc<Queue<u32, u32>> {
        Queue::new(1)
    }

    fn questions(taken: Option<Vec<Waiting<u32, u32>>>) -> Vec<u32> {
        let taken = taken.into_iter().flatten();
        taken.map(|waiting| waiting.question).collect()
    }

    #[tokio::test]
    async fn callers_gather_while_a_task_runs_and_those_who_were_cancelled_are_skipped() {
        let queue = queue();
        let (_first, runner) = queue.join(1);
        let mut runner = runner.expect("a task may begin");
        let (second, none) = queue.join(2);
        assert!(none.is_none() && queue.is_running());
        let (_third, _) = queue.join(3);
        drop(second);

        assert_eq!(questions(runner.next(|_| |_: &u32| true)), [1, 3]);
        assert!(runner.next(|_| |_: &u32| true).is_none());
        assert!(!queue.is_running());
        assert!(queue.join(4).1.is_some());
    }

    #[tokio::test]
    async fn a_task_takes_as_many_callers_as_it_has_room_for() {
        let queue = queue();
        let (_first, runner) = queue.join(1);
        let _others: Vec<_> = (2..=5).map(|number| queue.join(number)).collect();
        let mut runner = runner.expect("a task may begin");
        let half = |waiting: usize| {
            let mut room = waiting.div_ceil(2);
            move |_: &u32| {
                room -= 1;
                room > 0
            }
        };

        assert_eq!(questions(runner.next(half)), [1, 2, 3]);
        assert_eq!(questions(runner.next(half)), [4]);
        assert_eq!(questions(runner.next(half)), [5]);
    }

    #[tokio::test]
    async fn the_end_of_a_runtime_lets_waiting_callers_ask_alone() {
        let queue = queue();
        let (first, runner) = queue.join(1);
        let mut runner = runner.expect("a task may begin");
        let taken = runner.next(|_| |_: &u32| false);
        let (second, _) = queue.join(2);

        drop((taken, runner));

        assert!(first.await.is_err() && second.await.is_err());
        assert!(!queue.is_running() && queue.join(3).1.is_some());
    }
}
