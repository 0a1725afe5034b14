//! Whether the runtime of the maintenance task is driven.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::interval;

use crate::clock::whole_millis;

/// How often the maintenance task shows that it is polled, while it works.
const BEAT: Duration = Duration::from_millis(50);

/// If the task shows no activity for this long, no thread drives its runtime.
const STARVED: Duration = Duration::from_millis(250);

/// Shows whether the maintenance task is polled.
///
/// It uses the real clock, because a runtime with a paused clock is driven all the same.
#[derive(Debug)]
pub(crate) struct Beat {
    made: Instant,
    /// When it was polled last, or will be next, in milliseconds since `made`.
    last: AtomicU64,
    /// Attempts of the maintenance task that have ended.
    attempts: AtomicU64,
    is_turn_taken: AtomicBool,
}

/// The right of one caller to wait for the maintenance task.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    beat: &'a Beat,
    attempts: u64,
}

impl Beat {
    pub(super) fn new() -> Self {
        Self {
            made: Instant::now(),
            last: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            is_turn_taken: AtomicBool::new(false),
        }
    }

    /// The maintenance task is polled, or must be polled from now on.
    pub(crate) fn strike(&self) {
        self.rest(Duration::ZERO);
    }

    /// The maintenance task has nothing to do for this long.
    pub(crate) fn rest(&self, pause: Duration) {
        let due = whole_millis(self.made.elapsed() + pause);
        self.last.store(due, Ordering::Relaxed);
    }

    /// Shows that the maintenance task is polled for as long as it works on this.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut beats = interval(BEAT);
        loop {
            tokio::select! {
                biased;
                output = &mut work => {
                    self.strike();
                    self.attempts.fetch_add(1, Ordering::Relaxed);
                    return output;
                }
                _ = beats.tick() => self.strike(),
            }
        }
    }

    /// Returns the right to wait for the maintenance task, if it shows no activity for too long and no other caller waits.
    pub(crate) fn turn_if_starved(&self) -> Option<Turn<'_>> {
        let last = self.last.load(Ordering::Relaxed);
        let silent = whole_millis(self.made.elapsed()).saturating_sub(last);
        let is_mine =
            silent > whole_millis(STARVED) && !self.is_turn_taken.swap(true, Ordering::Relaxed);
        is_mine.then(|| Turn {
            beat: self,
            attempts: self.attempts.load(Ordering::Relaxed),
        })
    }
}

impl Turn<'_> {
    /// Returns whether the maintenance task has ended an attempt since the turn began.
    pub(crate) fn is_over(&self) -> bool {
        self.beat.attempts.load(Ordering::Relaxed) != self.attempts
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // The next turn is as far away as the first was, also if the maintenance task runs on another runtime.
        self.beat.strike();
        self.beat.is_turn_taken.store(false, Ordering::Relaxed);
    }
}
