//! The keys that are read most: a sketch of fixed size that sees a sample of the hits while somebody looks at it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde::Serialize;

use crate::sketch::Sketch;
use crate::sync::Mutex;

/// Keys in the sketch.
const SLOTS: usize = 100;

/// One of so many hits is seen.
const SAMPLE: u32 = 16;

/// While nobody looks, a hit costs the read of one flag. While somebody looks, one hit of 16 is counted, unless another thread is
/// counting: a hit never waits.
#[derive(Debug)]
pub(crate) struct Hot {
    is_on: AtomicBool,
    /// Keys with their functions.
    slots: Mutex<Sketch<&'static str>>,
}

impl Default for Hot {
    fn default() -> Self {
        Self {
            is_on: AtomicBool::new(false),
            slots: Mutex::new(Sketch::new(SLOTS)),
        }
    }
}

/// A key that is read often.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HotKey {
    pub(crate) key: String,
    pub(crate) function: &'static str,
    /// About how many hits it had since counting began.
    pub(crate) hits: u64,
    /// By how much `hits` may be too high.
    pub(crate) error: u64,
}

impl Hot {
    /// Counts from now on, or stops and forgets everything.
    pub(crate) fn set(&self, is_on: bool) {
        if self.is_on.swap(is_on, Relaxed) && !is_on {
            self.slots.lock().clear();
        }
    }

    /// There was a hit at `key`.
    pub(super) fn see(&self, function: &'static str, key: &str) {
        if !self.is_on.load(Relaxed) {
            return;
        }
        thread_local!(static SKIPPED: Cell<u32> = const { Cell::new(0) });
        let skipped = SKIPPED.get() + 1;
        SKIPPED.set(skipped % SAMPLE);
        if skipped == SAMPLE
            && let Some(mut slots) = self.slots.try_lock()
        {
            slots.add(key, 1, function);
        }
    }

    /// Returns the keys with the most hits, the highest first, without the prefix.
    pub(crate) fn top(&self, prefix: &str, most: usize) -> Vec<HotKey> {
        let sampled = u64::from(SAMPLE);
        let mut top: Vec<_> = self
            .slots
            .lock()
            .iter()
            .map(|(key, slot)| HotKey {
                key: key.strip_prefix(prefix).unwrap_or(key).to_owned(),
                function: slot.of,
                hits: slot.count * sampled,
                error: slot.error * sampled,
            })
            .collect();
        top.sort_unstable_by(|one, other| (other.hits, &one.key).cmp(&(one.hits, &other.key)));
        top.truncate(most);
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_key_is_found_among_many_in_bounded_memory() {
        let hot = Hot::default();
        hot.set(true);

        // 17 and 16 have no common divisor, so the sample sees every kind.
        for round in 0..17_000 {
            match round % 17 {
                0..6 => hot.see("app::event", "dev_event:1"),
                _ => hot.see("app::event", &format!("dev_event:{round}")),
            }
        }

        let top = hot.top("dev_", 3);
        assert_eq!(
            (top[0].key.as_str(), top[0].function),
            ("event:1", "app::event")
        );
        assert!((5_900..=6_100).contains(&top[0].hits), "{top:?}");
        assert!(top[1].hits < 3_000 && top.len() == 3, "{top:?}");
        assert_eq!(hot.slots.lock().len(), SLOTS);
    }

    #[test]
    fn nothing_is_counted_while_nobody_looks() {
        let hot = Hot::default();
        for _ in 0..100 {
            hot.see("app::event", "event:1");
        }
        assert!(hot.top("", 9).is_empty());

        hot.set(true);
        for _ in 0..100 {
            hot.see("app::event", "event:1");
        }
        assert_eq!(hot.top("", 9).len(), 1);

        hot.set(false);
        assert!(hot.top("", 9).is_empty());
    }
}
