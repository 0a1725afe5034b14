//! How much happened in the last minute.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A minute, and some room so that a slot is never reused while it still counts.
const SLOTS: usize = 64;
const MINUTE: u64 = 60;

/// One slot for each of the last seconds. A slot holds its second in the upper half and its count in the lower.
#[derive(Debug)]
pub(super) struct Recent {
    slots: [AtomicU64; SLOTS],
}

impl Recent {
    pub(super) const fn new() -> Self {
        Self {
            slots: [const { AtomicU64::new(0) }; SLOTS],
        }
    }

    /// Counts `n` in `second`, which is counted from any fixed moment.
    #[inline]
    pub(super) fn record(&self, second: u64, n: u64) {
        let slot = &self.slots[(second % SLOTS as u64) as usize];
        let _ = slot.fetch_update(Relaxed, Relaxed, |packed| {
            let before = if packed >> 32 == second & HALF {
                packed & HALF
            } else {
                0
            };
            Some((second & HALF) << 32 | before.saturating_add(n).min(HALF))
        });
    }

    /// What was counted in the 60 seconds that end with `second`.
    pub(super) fn minute_until(&self, second: u64) -> u64 {
        self.slots
            .iter()
            .map(|slot| slot.load(Relaxed))
            .filter(|packed| {
                (second & HALF)
                    .checked_sub(packed >> 32)
                    .is_some_and(|age| age < MINUTE)
            })
            .map(|packed| packed & HALF)
            .sum()
    }
}

const HALF: u64 = u32::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_ends_with_the_current_second_and_excludes_older_counts() {
        let recent = Recent::new();
        recent.record(0, 1);
        recent.record(1, 2);
        recent.record(60, 4);

        assert_eq!(recent.minute_until(59), 3);
        assert_eq!(recent.minute_until(60), 6);
        assert_eq!(recent.minute_until(61), 4);
        assert_eq!(recent.minute_until(120), 0);
    }

    #[test]
    fn a_reused_slot_starts_at_0() {
        let recent = Recent::new();
        recent.record(5, 100);

        recent.record(5 + SLOTS as u64, 1);

        assert_eq!(recent.minute_until(5 + SLOTS as u64), 1);
    }

    #[test]
    fn a_count_saturates() {
        let recent = Recent::new();

        recent.record(7, u64::MAX);

        assert_eq!(recent.minute_until(7), HALF);
        assert_eq!(recent.minute_until(7 + MINUTE), 0);
    }
}
