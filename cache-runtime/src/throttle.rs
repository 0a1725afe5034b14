//! Limits how often a log line appears that every call could cause.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock::whole_millis;

/// The shortest time between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// While lines are suppressed, the time doubles at most this many times, which makes 32 s.
const MAX_DOUBLINGS: u64 = 5;

/// [`Throttle::next`] holds the number of doublings in this many lowest bits.
const DOUBLING_BITS: u32 = 3;

/// The zero of the times in a throttle.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Admits at most one line per second and counts the suppressed lines. While lines are suppressed, the time to the next line
/// doubles: a minute of overload makes 6 lines instead of 60. A throttle uses real time, even in tests that pause tokio's clock.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// The time of the next line, in milliseconds after [`START`], and the number of doublings.
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl Throttle {
    pub(crate) const fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Returns how many lines were suppressed since the last logged line, if a line may be logged now. Otherwise counts this line
    /// as suppressed.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_after(START.elapsed())
    }

    fn admit_after(&self, elapsed: Duration) -> Option<u64> {
        let now = whole_millis(elapsed);
        let found = self.next.load(Ordering::Relaxed);
        let (next, doublings) = (found >> DOUBLING_BITS, found % (1 << DOUBLING_BITS));
        if now >= next {
            let interval = |doublings: u64| whole_millis(INTERVAL) << doublings;
            let is_busy = self.suppressed.load(Ordering::Relaxed) > 0
                && now < next.saturating_add(interval(doublings));
            let doublings = match is_busy {
                true => (doublings + 1).min(MAX_DOUBLINGS),
                false => 0,
            };
            let later = now.saturating_add(interval(doublings)) << DOUBLING_BITS | doublings;
            let is_mine = self
                .next
                .compare_exchange(found, later, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
            if is_mine {
                return Some(self.suppressed.swap(0, Ordering::Relaxed));
            }
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(throttle: &Throttle, seconds: f64) -> Option<u64> {
        throttle.admit_after(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn at_most_one_line_per_second_is_admitted_and_the_others_are_counted() {
        let throttle = Throttle::new();

        assert_eq!(at(&throttle, 0.0), Some(0));
        assert_eq!(at(&throttle, 0.001), None);
        assert_eq!(at(&throttle, 0.999), None);
        assert_eq!(at(&throttle, 1.0), Some(2));
        assert_eq!(at(&throttle, 6.0), Some(0));
        assert_eq!(at(&throttle, 7.0), Some(0));
    }

    #[test]
    fn a_minute_of_overload_makes_six_lines() {
        let throttle = Throttle::new();
        let admitted = (0..6_000).filter(|step| at(&throttle, f64::from(*step) / 100.0).is_some());

        let seconds: Vec<_> = admitted.map(|step| step / 100).collect();

        assert_eq!(seconds, [0, 1, 3, 7, 15, 31]);
        assert_eq!(at(&throttle, 63.0), Some(2_899));
        // The time has reached its maximum of 32 s.
        assert_eq!(at(&throttle, 64.0), None);
        assert_eq!(at(&throttle, 95.0), Some(1));
    }

    #[test]
    fn after_a_calm_time_lines_are_admitted_every_second_again() {
        let throttle = Throttle::new();
        for step in 0..600 {
            at(&throttle, f64::from(step) / 10.0);
        }

        assert_eq!(at(&throttle, 1_000.0), Some(289));
        assert_eq!(at(&throttle, 1_001.0), Some(0));
    }

    #[test]
    fn of_lines_at_the_same_time_one_is_admitted() {
        let throttle = Throttle::new();
        let admitted = AtomicU64::new(0);

        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let at = throttle.admit_after(Duration::ZERO);
                        admitted.fetch_add(u64::from(at.is_some()), Ordering::Relaxed);
                    }
                });
            }
        });

        assert_eq!(admitted.into_inner(), 1);
        assert_eq!(throttle.admit_after(INTERVAL), Some(3_999));
    }
}
