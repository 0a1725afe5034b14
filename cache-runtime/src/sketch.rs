//! The most frequent keys of many, in bounded memory.

use std::collections::HashMap;

/// Counts with the Space-Saving algorithm (Metwally, Agrawal and El Abbadi, 2005): when it is full, a new key takes the place and
/// the count of the key with the lowest count. No count is too low, and every key with more than 1/`width` of all counts is in it.
#[derive(Debug)]
pub(crate) struct Sketch<T = ()> {
    width: usize,
    slots: HashMap<Box<str>, Slot<T>>,
}

/// What is known of one key.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "admin"),
    allow(dead_code, reason = "only the page for operators shows all of it")
)]
pub(crate) struct Slot<T> {
    pub(crate) count: u64,
    /// By how much `count` may be too high.
    pub(crate) error: u64,
    /// What the key was counted with when it took the slot.
    pub(crate) of: T,
}

impl<T> Sketch<T> {
    /// For the `width` most frequent keys.
    pub(crate) fn new(width: usize) -> Self {
        Self {
            width,
            slots: HashMap::new(),
        }
    }

    pub(crate) fn add(&mut self, key: &str, count: u64, of: T) {
        if let Some(known) = self.slots.get_mut(key) {
            known.count += count;
            return;
        }
        let mut error = 0;
        if self.slots.len() >= self.width {
            let least = self.slots.iter().min_by_key(|(_, slot)| slot.count);
            if let Some((key, count)) = least.map(|(key, slot)| (key.clone(), slot.count)) {
                self.slots.remove(&key);
                error = count;
            }
        }
        let count = error + count;
        self.slots.insert(key.into(), Slot { count, error, of });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Slot<T>)> {
        self.slots.iter().map(|(key, slot)| (&**key, slot))
    }

    /// Returns all keys with their counts, and resets them.
    pub(crate) fn take(&mut self) -> Vec<(Box<str>, u64)> {
        let slots = std::mem::take(&mut self.slots).into_iter();
        slots.map(|(key, slot)| (key, slot.count)).collect()
    }

    #[cfg(feature = "admin")]
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}
