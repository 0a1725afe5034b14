//! Random numbers that can be repeated.

use std::time::Duration;

use crate::service::KEYS;

/// Three of four reads and writes use these keys, so that writers overlap.
const HOT_KEYS: u64 = 5;

/// Xorshift: the same numbers for the same seed.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mixed = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // Xorshift must not start at 0.
        Self(mixed.max(1))
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) % limit
    }

    pub(crate) fn key(&mut self) -> u64 {
        let limit = if self.below(4) > 0 { HOT_KEYS } else { KEYS };
        self.below(limit)
    }

    /// Returns a duration of less than `limit` milliseconds.
    pub(crate) fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit))
    }

    pub(crate) fn between(&mut self, shortest: u64, longest: u64) -> Duration {
        Duration::from_millis(shortest) + self.millis(longest - shortest)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
