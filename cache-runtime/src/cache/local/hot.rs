//! The values that are hit often, where a hit finds them without a lock and without writing to memory that threads share.
//!
//! A value is here only while it is in the map, which counts its weight and decides whether it stays. Nothing here decides
//! whether a value is certain: that is read from the value itself, wherever a call found it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::{ArcSwapOption, Guard};

use super::Kept;

/// Two keys with the same slot take turns, and a call of the other key goes through the map. With this many slots and 1,000
/// keys, 6 % of the keys share a slot. They take 128 KiB.
const SLOTS: usize = 1 << 14;

/// How long a value is found here, in milliseconds. The next hit goes through the map, which records the use.
pub(super) const HOT_MILLIS: u64 = 100;

/// The table of hot values.
pub(super) struct HotTable {
    slots: Box<[ArcSwapOption<Kept>]>,
}

impl HotTable {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| ArcSwapOption::empty()).collect(),
        }
    }

    /// Returns what is in the slot of this hash: perhaps the value of another key, or one that is not hot any more.
    #[inline]
    pub(super) fn get(&self, hash: u64) -> Guard<Option<Arc<Kept>>> {
        self.slot(hash).load()
    }

    /// Makes a value hot that the map has returned, unless another value is hot in its slot. Returns whether the value was put here.
    /// Then the caller must [`remove`](Self::remove) it if the map no longer has it.
    pub(super) fn promote(&self, kept: &Arc<Kept>, now: u64) -> bool {
        let slot = self.slot(kept.hash);
        let there = slot.load();
        let is_here = there.as_ref().is_some_and(|there| Arc::ptr_eq(there, kept));
        if !is_here && there.as_ref().is_some_and(|there| there.is_hot(now)) {
            return false;
        }
        kept.hot_until
            .store(now.saturating_add(HOT_MILLIS), Relaxed);
        if !is_here {
            slot.store(Some(Arc::clone(kept)));
        }
        !is_here
    }

    /// Removes a value that the map no longer has.
    pub(super) fn remove(&self, kept: &Arc<Kept>) {
        let slot = self.slot(kept.hash);
        let there = slot.load();
        if there.as_ref().is_some_and(|there| Arc::ptr_eq(there, kept)) {
            slot.compare_and_swap(&there, None);
        }
    }

    #[inline]
    fn slot(&self, hash: u64) -> &ArcSwapOption<Kept> {
        &self.slots[Self::index(hash)]
    }

    /// The lower bits choose the slot in the map, and the highest ones the counter of changes.
    #[inline]
    pub(super) fn index(hash: u64) -> usize {
        (hash >> 32) as usize % SLOTS
    }
}
