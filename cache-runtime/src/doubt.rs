//! What this process knows about changes of entries: whether a value that it keeps may have changed since it was read.
//!
//! A change does not have to find the value. It raises a counter that the key shares with others by its hash. A reader takes a
//! [`Reading`] of the counter before it asks the store, and keeps it with the value. As long as a new reading is the same, the
//! value has not changed. So a change between a read and its insertion cannot be missed: the value is inserted with a reading
//! that is no longer current.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::{COARSE, Clock, whole_millis};

/// A change of one key makes the values of all keys with the same counter doubtful, which costs each of them one look at its
/// stamp. With this many counters, 1,000 changes a second affect a value once a minute. They take 512 KiB.
const COUNTERS: usize = 1 << 16;

/// The changes that a process has heard of, and until when it hears of all of them.
#[derive(Debug)]
pub(crate) struct Doubts {
    clock: Clock,
    /// Keys come from users, who must not be able to choose keys with the same hash.
    seed: u64,
    /// Made with the first reading: without one there is no value to doubt.
    counters: OnceLock<Box<[AtomicU64]>>,
    /// Changes that may concern any key.
    sweeping: AtomicU64,
    /// Changes may have been missed this many times.
    gaps: AtomicU64,
    /// Beginnings of the keys whose changes are heard. None of them is ever given up.
    heard: ArcSwapOption<Vec<String>>,
    /// Why no changes are heard, if the server does not report them.
    refused: ArcSwapOption<String>,
    /// Until when the process knows all changes that are older than its staleness allows, by [`Clock::coarse_millis`].
    trusted_until: AtomicU64,
}

/// The counters of a key at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The sum of its counters. Each of them only grows, so the sum is the same only if all of them are.
    pub(crate) changes: u64,
    pub(crate) gaps: u64,
}

impl Reading {
    /// Adds the reading of another key, for a value that depends on both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            changes: self.changes.wrapping_add(other.changes),
            // The older of both: a gap between them is one after this reading.
            gaps: self.gaps.min(other.gaps),
        }
    }
}

impl Doubts {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            seed: getrandom::u64().unwrap_or_default(),
            counters: OnceLock::new(),
            sweeping: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            heard: ArcSwapOption::empty(),
            refused: ArcSwapOption::empty(),
            trusted_until: AtomicU64::new(0),
        }
    }

    /// Returns the hash of a key, by which it is looked up here.
    #[inline]
    pub(crate) fn hash(&self, name: &[u8]) -> u64 {
        xxh3_64_with_seed(name, self.seed)
    }

    /// Reads the counters of a key. To be taken before the store is asked.
    #[inline]
    pub(crate) fn reading(&self, hash: u64) -> Reading {
        let counter = self.counters.get_or_init(counters);
        let changes = counter[index(hash)].load(Ordering::Acquire);
        Reading {
            changes: changes.wrapping_add(self.sweeping.load(Ordering::Acquire)),
            gaps: self.gaps.load(Ordering::Acquire),
        }
    }

    /// The entry of a key has changed. To be called after the change, and by the caller that makes it also before.
    pub(crate) fn changed(&self, name: &[u8]) {
        if let Some(counters) = self.counters.get() {
            counters[index(self.hash(name))].fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Any entry may have changed.
    pub(crate) fn all_changed(&self) {
        self.sweeping.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on the changes of all keys with one of these beginnings are heard. Earlier changes may have been missed.
    pub(crate) fn hears(&self, beginnings: Vec<String>) {
        self.refused.store(None);
        self.heard.store(Some(Arc::new(beginnings)));
        self.gaps.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns whether changes of this key are heard. A value of any other key must not be kept.
    pub(crate) fn is_heard(&self, name: &str) -> bool {
        let heard = self.heard.load();
        heard
            .iter()
            .any(|heard| heard.iter().any(|beginning| name.starts_with(beginning)))
    }

    /// No changes are heard, and none will be: the server does not report them.
    pub(crate) fn hears_nothing(&self, reason: String) {
        self.refused.store(Some(Arc::new(reason)));
        self.heard.store(None);
        self.distrust();
    }

    /// Returns why the server does not report changes, if it refused that.
    pub(crate) fn refusal(&self) -> Option<Arc<String>> {
        self.refused.load_full()
    }

    /// Returns whether the changes of any keys are heard.
    pub(crate) fn hears_any(&self) -> bool {
        self.heard.load().is_some()
    }

    /// Changes may have been missed, and more may be.
    pub(crate) fn lost_track(&self) {
        self.distrust();
        self.gaps.fetch_add(1, Ordering::AcqRel);
    }

    /// All changes up to `heard`, by the coarse clock, are counted. For `staleness` from then on, values are served unasked.
    pub(crate) fn trust(&self, heard: u64, staleness: Duration) {
        let until = heard.saturating_add(whole_millis(staleness));
        self.trusted_until.fetch_max(until, Ordering::AcqRel);
    }

    /// Changes are no longer heard.
    pub(crate) fn distrust(&self) {
        self.trusted_until.store(0, Ordering::Release);
    }

    /// Returns whether values are served unasked. To be called before a [`reading`](Self::reading), which then includes all
    /// changes that this promises.
    #[inline]
    pub(crate) fn is_trusted(&self, now: u64) -> bool {
        now < self.trusted_until.load(Ordering::Acquire)
    }

    /// Returns the time that has passed at least.
    pub(crate) fn earliest(&self) -> u64 {
        self.clock.coarse_millis()
    }

    /// Returns the time that has passed at most, in which a value must still be good.
    #[inline]
    pub(crate) fn latest(&self) -> u64 {
        self.clock.coarse_millis().saturating_add(COARSE)
    }
}

fn counters() -> Box<[AtomicU64]> {
    (0..COUNTERS).map(|_| AtomicU64::new(0)).collect()
}

/// The lower bits choose the slot in the maps of the values.
#[inline]
fn index(hash: u64) -> usize {
    (hash >> 48) as usize % COUNTERS
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALENESS: Duration = Duration::from_secs(2);

    fn reading_of(doubts: &Doubts, name: &str) -> Reading {
        doubts.reading(doubts.hash(name.as_bytes()))
    }

    #[test]
    fn a_change_is_seen_by_its_own_key_and_hardly_by_others() {
        let doubts = Doubts::new(Clock::stopped());
        let names: Vec<_> = (0..100).map(|id| format!("user:{id}")).collect();
        let before: Vec<_> = names.iter().map(|name| reading_of(&doubts, name)).collect();

        doubts.changed(b"user:7");

        let changed = |(name, before): &(&String, &Reading)| reading_of(&doubts, name) != **before;
        let changed: Vec<_> = names.iter().zip(&before).filter(changed).collect();
        assert!(changed.iter().any(|(name, _)| *name == "user:7"));
        assert!(changed.len() < 10, "{changed:?}");
    }

    #[test]
    fn a_change_of_everything_and_a_gap_are_seen_by_every_key_and_told_apart() {
        let doubts = Doubts::new(Clock::stopped());
        let before = reading_of(&doubts, "user:1");

        doubts.all_changed();
        let swept = reading_of(&doubts, "user:1");
        doubts.hears(vec!["user:".to_owned()]);
        let missed = reading_of(&doubts, "user:1");

        assert_ne!(before.changes, swept.changes);
        assert_eq!(before.gaps, swept.gaps);
        assert_eq!(swept.changes, missed.changes);
        assert_ne!(swept.gaps, missed.gaps);
    }

    #[test]
    fn only_keys_with_a_known_beginning_are_heard() {
        let doubts = Doubts::new(Clock::stopped());
        assert!(!doubts.is_heard("user:1"));

        doubts.hears(vec!["event:".to_owned(), "user:".to_owned()]);
        assert!(doubts.is_heard("user:1") && !doubts.is_heard("users:1"));

        doubts.hears_nothing("refused".to_owned());
        assert!(!doubts.is_heard("user:1"));
    }

    #[test]
    fn a_change_before_the_first_reading_needs_no_counter() {
        let doubts = Doubts::new(Clock::stopped());

        doubts.changed(b"user:1");

        assert!(doubts.counters.get().is_none());
    }

    #[test]
    fn trust_ends_one_staleness_after_what_was_heard_and_is_never_shortened() {
        let clock = Clock::stopped();
        let doubts = Doubts::new(clock.clone());
        assert!(!doubts.is_trusted(doubts.latest()));

        let heard = doubts.earliest();
        doubts.trust(heard, STALENESS);
        doubts.trust(heard - 1_000, STALENESS);
        clock.advance(STALENESS - Duration::from_millis(COARSE + 1));
        assert!(doubts.is_trusted(doubts.latest()));

        clock.advance(Duration::from_millis(1));
        assert!(!doubts.is_trusted(doubts.latest()));
    }

    #[test]
    fn distrust_is_immediate() {
        let doubts = Doubts::new(Clock::stopped());
        doubts.trust(doubts.earliest(), STALENESS);

        doubts.distrust();

        assert!(!doubts.is_trusted(doubts.latest()));
    }
}
