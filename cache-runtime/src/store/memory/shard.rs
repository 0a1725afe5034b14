//! One part of the memory store: a map bounded by weight. The clock algorithm chooses what to remove.

use std::collections::HashMap;
use std::sync::Arc;

/// The overhead of an entry besides its key and its bytes: the slot, the place in the map, and the overhead of the
/// allocator.
const OVERHEAD: usize = 128;

/// One part of the store, behind its own lock.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) places: HashMap<Arc<str>, usize>,
    pub(super) slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Where the search for an entry to remove continues.
    hand: usize,
    pub(super) bytes: usize,
    pub(super) capacity: usize,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: Arc<str>,
    pub(super) entry: Arc<[u8]>,
    pub(super) end: u64,
    /// Used since the hand last came by.
    used: bool,
}

impl Slot {
    fn weight(&self) -> usize {
        self.name.len() + self.entry.len() + OVERHEAD
    }
}

impl Shard {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            capacity,
        }
    }

    /// Returns the entry unless it has expired. An expired entry is removed.
    pub(super) fn get(&mut self, name: &str, now: u64) -> Option<&mut Slot> {
        let place = *self.places.get(name)?;
        if self.slots[place]
            .as_ref()
            .is_none_or(|slot| slot.end <= now)
        {
            self.clear(place);
            return None;
        }
        let slot = self.slots[place].as_mut()?;
        slot.used = true;
        Some(slot)
    }

    /// Stores an entry, or drops what was there if the new one is larger than all there is room for.
    pub(super) fn put(&mut self, name: &str, entry: Arc<[u8]>, end: u64, now: u64) {
        if let Some(place) = self.places.get(name) {
            self.clear(*place);
        }
        let slot = Slot {
            name: name.into(),
            entry,
            end,
            used: false,
        };
        let weight = slot.weight();
        if weight > self.capacity {
            return;
        }
        while self.bytes + weight > self.capacity {
            self.drop_one(now);
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.bytes += weight;
        self.places.insert(slot.name.clone(), place);
        self.slots[place] = Some(slot);
    }

    /// Returns whether there was a living entry to remove.
    pub(super) fn remove(&mut self, name: &str, now: u64) -> bool {
        let Some(place) = self.places.get(name).copied() else {
            return false;
        };
        self.clear(place).is_some_and(|slot| slot.end > now)
    }

    /// Moves the hand to the first entry that has expired or was not used since it last came by, and drops that.
    fn drop_one(&mut self, now: u64) {
        loop {
            self.hand = (self.hand + 1) % self.slots.len().max(1);
            match self.slots.get_mut(self.hand) {
                Some(Some(slot)) if slot.used && slot.end > now => slot.used = false,
                Some(Some(_)) => {
                    self.clear(self.hand);
                    return;
                }
                Some(None) if !self.places.is_empty() => {}
                _ => return,
            }
        }
    }

    fn clear(&mut self, place: usize) -> Option<Slot> {
        let slot = self.slots[place].take()?;
        self.places.remove(&slot.name);
        self.bytes -= slot.weight();
        self.free.push(place);
        Some(slot)
    }
}
