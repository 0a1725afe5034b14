//! What this process loaded last under some keys, to tell how it differs from what is loaded next.

use std::time::Duration;

use crate::metrics::Reload;
use crate::sync::Mutex;

/// The number of keys that are remembered. A key takes the place of another one, so this is all the memory there is.
const SLOTS: usize = 1_024;

/// The last load of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    /// The hash of the key. 0 is none yet.
    key: u64,
    /// The hash of the value.
    value: u64,
    /// In milliseconds since 1970.
    at: u64,
    fresh_until: u64,
}

#[derive(Debug, Default)]
pub(super) struct Reloads {
    /// Empty before the first load.
    slots: Mutex<Vec<Last>>,
}

impl Reloads {
    /// A value was stored at `now` that is fresh for `ttl`. Returns how it compares to what was stored under the key before, if that
    /// is remembered.
    pub(super) fn note(&self, key: u64, value: u64, now: u64, ttl: Duration) -> Option<Reload> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let mut slots = self.slots.lock();
        if slots.is_empty() {
            slots.resize(SLOTS, Last::default());
        }
        let slot = &mut slots[key as usize % SLOTS];
        let last = *slot;
        *slot = Last {
            key,
            value,
            at: now,
            fresh_until: now.saturating_add(ttl),
        };
        (last.key == key && last.at != 0).then(|| Reload {
            is_changed: last.value != value,
            lived: Duration::from_millis(now.saturating_sub(last.at)),
            ttl: Duration::from_millis(last.fresh_until.saturating_sub(last.at)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn a_load_is_compared_to_the_last_one_of_its_key() {
        let reloads = Reloads::default();

        assert!(reloads.note(7, 1, 1_000, TTL).is_none());
        assert!(reloads.note(8, 1, 1_000, TTL).is_none());
        let early = reloads.note(7, 2, 3_000, TTL).unwrap();
        let late = reloads.note(7, 2, 64_000, TTL).unwrap();

        assert!(early.is_changed && early.is_early());
        assert_eq!((early.lived, early.ttl), (Duration::from_secs(2), TTL));
        assert!(!late.is_changed && !late.is_early());
    }

    #[test]
    fn the_memory_is_limited() {
        let reloads = Reloads::default();
        for key in 1..10 * SLOTS as u64 {
            reloads.note(key, 1, 1_000, TTL);
        }

        assert_eq!(reloads.slots.lock().len(), SLOTS);
        assert!(reloads.note(1, 1, 1_000, TTL).is_none());
    }
}
