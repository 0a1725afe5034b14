//! How much happened in the last minute.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A minute, and some room so that a slot is never reused while it still counts.
const SLOTS: usize = 64;
const MINUTE: u64 = 60;

/// The lower bits of a slot, which hold a total.
const TOTAL: u64 = (1 << 40) - 1;

/// The total at the start of each recent second that had events. Only the first event of a second writes here.
#[derive(Debug)]
pub(super) struct Recent {
    /// The second that began last, plus 1.
    begun: AtomicU64,
    /// The upper bits hold how often the slot was used, with which its index makes up the second.
    slots: [AtomicU64; SLOTS],
}

impl Recent {
    pub(super) const fn new() -> Self {
        Self {
            begun: AtomicU64::new(0),
            slots: [const { AtomicU64::new(0) }; SLOTS],
        }
    }

    /// Something is about to be counted in `second`, which is counted from any fixed moment. `total` is what was counted before.
    #[inline]
    pub(super) fn begin(&self, second: u64, total: impl FnOnce() -> u64) {
        let begun = self.begun.load(Relaxed);
        // A past second does not begin again. Late events count for the current one.
        if begun <= second
            && self
                .begun
                .compare_exchange(begun, second + 1, Relaxed, Relaxed)
                .is_ok()
        {
            let round = second / SLOTS as u64 + 1;
            self.slots[second as usize % SLOTS].store(round << 40 | total() & TOTAL, Relaxed);
        }
    }

    /// What was counted in the 60 seconds that end with `second`, of this `total`.
    pub(super) fn minute_until(&self, second: u64, total: u64) -> u64 {
        let slots = self.slots.iter().zip(0..);
        let begun = slots.filter_map(|(slot, index)| {
            let slot = slot.load(Relaxed);
            let then = (slot >> 40).checked_sub(1)? * SLOTS as u64 + index;
            let is_recent = second.checked_sub(then)? < MINUTE;
            is_recent.then_some((then, slot & TOTAL))
        });
        let first = begun.min_by_key(|(then, _)| *then);
        first.map_or(0, |(_, before)| total.wrapping_sub(before) & TOTAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts as the statistics do.
    struct Counter {
        recent: Recent,
        total: u64,
    }

    impl Counter {
        fn new() -> Self {
            Self {
                recent: Recent::new(),
                total: 0,
            }
        }

        fn count(&mut self, second: u64, n: u64) {
            self.recent.begin(second, || self.total);
            self.total += n;
        }

        fn minute_until(&self, second: u64) -> u64 {
            self.recent.minute_until(second, self.total)
        }
    }

    #[test]
    fn a_minute_ends_with_the_current_second_and_excludes_older_counts() {
        let mut counter = Counter::new();
        counter.count(0, 1);
        counter.count(1, 2);
        counter.count(60, 4);

        assert_eq!(counter.minute_until(60), 6);
        assert_eq!(counter.minute_until(61), 4);
        assert_eq!(counter.minute_until(119), 4);
        assert_eq!(counter.minute_until(120), 0);
    }

    #[test]
    fn a_reused_slot_counts_for_its_new_second_only() {
        let mut counter = Counter::new();
        counter.count(5, 100);

        counter.count(5 + SLOTS as u64, 1);

        assert_eq!(counter.minute_until(5 + SLOTS as u64), 1);
    }

    #[test]
    fn several_counts_of_a_second_and_late_ones_are_all_counted() {
        let mut counter = Counter::new();
        counter.count(7, 1);
        counter.count(7, 2);
        counter.count(8, 4);
        counter.count(7, 8);

        assert_eq!(counter.minute_until(8), 15);
        assert_eq!(counter.minute_until(67), 12);
    }

    #[test]
    fn a_minute_of_billions_is_counted() {
        let mut counter = Counter::new();
        counter.count(7, (3 << 39) + 5);

        counter.count(100, 10 << 30);
        counter.count(101, 10 << 30);

        assert_eq!(counter.minute_until(101), 20 << 30);
    }
}
