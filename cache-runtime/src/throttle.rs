//! Limits how often a line is logged that every call could cause.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The shortest time between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// Where the times of a throttle begin.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Admits one line per second and counts the others. It uses real time also in tests that pause tokio's clock.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// When the next line may be logged, in milliseconds after [`START`].
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

    /// Returns how many lines were suppressed since the last one, if a line may be logged now. Otherwise counts this line.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_after(START.elapsed())
    }

    fn admit_after(&self, elapsed: Duration) -> Option<u64> {
        let now = millis(elapsed);
        let next = self.next.load(Ordering::Relaxed);
        let is_mine = now >= next
            && self
                .next
                .compare_exchange(
                    next,
                    now + millis(INTERVAL),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if is_mine {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_second_is_admitted_and_the_others_are_counted() {
        let throttle = Throttle::new();
        let after = |millis| throttle.admit_after(Duration::from_millis(millis));

        assert_eq!(after(0), Some(0));
        assert_eq!(after(1), None);
        assert_eq!(after(999), None);
        assert_eq!(after(1_000), Some(2));
        assert_eq!(after(5_000), Some(0));
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
