//! What this process knows about changes of entries: whether a value that it keeps may have changed since it was read.
//!
//! A change does not have to find the value. It raises a counter that the key shares with others by its hash. A reader takes a
//! [`Reading`] of the counter before it asks the store, and keeps it with the value. As long as a new reading is the same, the
//! value has not changed. So a change between a read and its insertion cannot be missed: the value is inserted with a reading
//! that is no longer current.

mod sources;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(crate) use self::sources::Feed;
use self::sources::{Source, Sources};
use crate::clock::{COARSE, Clock, whole_millis};
use crate::slot::Slot;

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
    sources: Arc<Sources>,
}

/// Where a key is looked up here. It does not change, so a value keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) hash: u64,
    /// Which server reports its changes. Without a cluster all keys share one slot.
    pub(crate) slot: Slot,
}

/// The counters of a key at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The sum of its counters. Each of them only grows, so the sum is the same only if all of them are.
    pub(crate) changes: u64,
    /// The same of what may have been missed.
    pub(crate) gaps: u64,
}

impl Reading {
    /// Adds the reading of another key, for a value that depends on both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            changes: self.changes.wrapping_add(other.changes),
            gaps: self.gaps.wrapping_add(other.gaps),
        }
    }
}

impl Doubts {
    /// For a server, or without any.
    pub(crate) fn new(clock: Clock) -> Self {
        Self::with(clock, Sources::one())
    }

    /// For the primaries of a cluster.
    pub(crate) fn of_cluster(clock: Clock) -> Self {
        Self::with(clock, Sources::of_cluster())
    }

    fn with(clock: Clock, sources: Sources) -> Self {
        Self {
            clock,
            seed: getrandom::u64().unwrap_or_default(),
            counters: OnceLock::new(),
            sweeping: AtomicU64::new(0),
            sources: Arc::new(sources),
        }
    }

    /// Returns the hash of a key.
    #[inline]
    pub(crate) fn hash(&self, name: &[u8]) -> u64 {
        xxh3_64_with_seed(name, self.seed)
    }

    /// Returns the slot of a key.
    #[inline]
    pub(crate) fn slot(&self, name: &[u8]) -> Slot {
        self.sources.slot_of(name)
    }

    /// Returns where a key is looked up here.
    pub(crate) fn place(&self, name: &[u8]) -> Place {
        Place {
            hash: self.hash(name),
            slot: self.slot(name),
        }
    }

    /// Reads the counters of a key. To be taken before the store is asked.
    #[inline]
    pub(crate) fn reading(&self, place: Place) -> Reading {
        let counter = self.counters.get_or_init(counters);
        let changes = counter[index(place.hash)].load(Ordering::Acquire);
        Reading {
            changes: changes.wrapping_add(self.sweeping.load(Ordering::Acquire)),
            gaps: self.sources.gaps(place.slot),
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

    /// Returns what a new listener tells about its server.
    pub(crate) fn feed(&self) -> Feed {
        Feed {
            place: self.sources.take(),
            sources: Arc::clone(&self.sources),
        }
    }

    /// The server of `owner` owns a slot of the cluster from now on. To be called before and after callers learn it: a value that was
    /// read from the last owner is then doubtful, however late it arrives.
    pub(crate) fn give(&self, slot: Slot, owner: Option<&Feed>) {
        let place = owner.map_or(sources::NOBODY, |feed| feed.place);
        self.sources.give(slot, place);
    }

    /// A key of a slot was read from a server that does not own it.
    pub(crate) fn missed_in(&self, slot: Slot) {
        self.sources.missed_in(slot);
    }

    /// Returns whether changes of this key are heard. A value of any other key must not be kept.
    pub(crate) fn is_heard(&self, name: &str) -> bool {
        let source = self.sources.owner(self.slot(name.as_bytes()));
        let heard = source.heard.load();
        heard
            .iter()
            .any(|heard| heard.iter().any(|beginning| name.starts_with(beginning)))
    }

    /// Returns why a server does not report changes, if one refused that.
    pub(crate) fn refusal(&self) -> Option<Arc<String>> {
        self.sources
            .used()
            .find_map(|source| source.refused.load_full())
    }

    /// Returns whether the changes of any keys are heard.
    pub(crate) fn hears_any(&self) -> bool {
        self.sources
            .used()
            .any(|source| source.heard.load().is_some())
    }

    /// Changes may have been missed, and more may be.
    pub(crate) fn lost_track(&self) {
        for source in self.sources.used() {
            source.distrust();
            source.missed();
        }
    }

    /// Returns whether the value of a key is served unasked. To be called before a [`reading`](Self::reading), which then includes all
    /// changes that this promises.
    #[inline]
    pub(crate) fn is_trusted(&self, place: Place, now: u64) -> bool {
        self.sources.owner(place.slot).is_trusted(now)
    }

    /// Returns whether the values of all servers are served unasked.
    pub(crate) fn are_all_trusted(&self, now: u64) -> bool {
        let mut used = self.sources.used().peekable();
        used.peek().is_some() && used.all(|source| source.is_trusted(now))
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

impl Feed {
    fn source(&self) -> &Source {
        self.sources.at(self.place)
    }

    /// Returns whether it has a place: a cluster may have too many primaries.
    pub(crate) fn has_place(&self) -> bool {
        self.place != sources::NOBODY
    }

    /// From now on the changes of all keys with one of these beginnings are heard. Earlier changes may have been missed.
    pub(crate) fn covers(&self, beginnings: Vec<String>) {
        let source = self.source();
        source.refused.store(None);
        source.heard.store(Some(Arc::new(beginnings)));
        source.missed();
    }

    /// No changes are heard, and none will be: the server does not report them.
    pub(crate) fn refused(&self, reason: String) {
        let source = self.source();
        source.refused.store(Some(Arc::new(reason)));
        source.heard.store(None);
        source.distrust();
    }

    /// Changes may have been missed, and more may be.
    pub(crate) fn lost_track(&self) {
        self.source().distrust();
        self.source().missed();
    }

    /// All changes up to `heard`, by the coarse clock, are counted. For `staleness` from then on, values are served unasked.
    pub(crate) fn trust(&self, heard: u64, staleness: Duration) {
        let until = heard.saturating_add(whole_millis(staleness));
        let known = &self.source().trusted_until;
        known.fetch_max(until, Ordering::AcqRel);
    }

    /// Changes are no longer heard.
    pub(crate) fn distrust(&self) {
        self.source().distrust();
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
        doubts.reading(doubts.place(name.as_bytes()))
    }

    fn is_trusted(doubts: &Doubts, name: &str) -> bool {
        doubts.is_trusted(doubts.place(name.as_bytes()), doubts.latest())
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
        doubts.feed().covers(vec!["user:".to_owned()]);
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

        let feed = doubts.feed();
        feed.covers(vec!["event:".to_owned(), "user:".to_owned()]);
        assert!(doubts.is_heard("user:1") && !doubts.is_heard("users:1"));

        feed.refused("refused".to_owned());
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
        let feed = doubts.feed();
        assert!(!is_trusted(&doubts, "user:1"));

        let heard = doubts.earliest();
        feed.trust(heard, STALENESS);
        feed.trust(heard - 1_000, STALENESS);
        clock.advance(STALENESS - Duration::from_millis(COARSE + 1));
        assert!(is_trusted(&doubts, "user:1"));

        clock.advance(Duration::from_millis(1));
        assert!(!is_trusted(&doubts, "user:1"));
    }

    #[test]
    fn distrust_is_immediate() {
        let doubts = Doubts::new(Clock::stopped());
        let feed = doubts.feed();
        feed.trust(doubts.earliest(), STALENESS);

        feed.distrust();

        assert!(!is_trusted(&doubts, "user:1"));
    }

    /// A cluster of two primaries that report changes, and a key of each of them.
    struct Primaries {
        doubts: Doubts,
        feeds: [Feed; 2],
    }

    impl Primaries {
        const KEYS: [&str; 2] = ["user:1", "user:2"];

        fn new() -> Self {
            let doubts = Doubts::of_cluster(Clock::stopped());
            let feeds = [doubts.feed(), doubts.feed()];
            for (key, feed) in Self::KEYS.iter().zip(&feeds) {
                doubts.give(Slot::of(key.as_bytes()), Some(feed));
                feed.covers(vec!["user:".to_owned()]);
                feed.trust(doubts.earliest(), STALENESS);
            }
            Self { doubts, feeds }
        }

        fn readings(&self) -> [Reading; 2] {
            Self::KEYS.map(|key| reading_of(&self.doubts, key))
        }

        fn trusted(&self) -> [bool; 2] {
            Self::KEYS.map(|key| is_trusted(&self.doubts, key))
        }
    }

    #[test]
    fn the_loss_of_a_primary_concerns_its_keys_only() {
        let primaries = Primaries::new();
        let before = primaries.readings();

        primaries.feeds[0].distrust();
        assert_eq!(primaries.trusted(), [false, true]);

        primaries.feeds[0].covers(vec!["user:".to_owned()]);
        let after = primaries.readings();
        assert_ne!(before[0].gaps, after[0].gaps);
        assert_eq!(before[1], after[1]);
    }

    #[test]
    fn a_slot_that_moves_there_and_back_leaves_its_values_doubtful() {
        let Primaries { doubts, feeds } = &Primaries::new();
        let slot = Slot::of(Primaries::KEYS[0].as_bytes());
        let reading = || reading_of(doubts, Primaries::KEYS[0]).gaps;
        // A new owner may have had more gaps, fewer, or as many.
        for gaps in 0..3 {
            for _ in 0..gaps {
                feeds[0].lost_track();
            }
            let before = reading();
            doubts.give(slot, Some(&feeds[1]));
            let moved = reading();
            doubts.give(slot, Some(&feeds[0]));
            let back = reading();

            assert!(before < moved && moved < back, "{before} {moved} {back}");
        }
    }

    #[test]
    fn a_key_without_an_owner_is_neither_heard_nor_trusted() {
        let primaries = Primaries::new();
        let doubts = &primaries.doubts;
        assert!(doubts.is_heard("user:1") && !doubts.is_heard("user:3"));
        assert!(!is_trusted(doubts, "user:3"));

        doubts.give(Slot::of(b"user:1"), None);

        assert!(!doubts.is_heard("user:1") && !is_trusted(doubts, "user:1"));
    }

    #[test]
    fn the_place_of_a_primary_that_is_gone_is_used_again_without_its_trust() {
        let Primaries { doubts, feeds } = Primaries::new();
        let [gone, stays] = feeds;
        let place = gone.place;
        doubts.give(Slot::of(b"user:1"), Some(&stays));
        drop(gone);

        let next = doubts.feed();
        doubts.give(Slot::of(b"user:1"), Some(&next));

        assert_eq!(next.place, place);
        assert!(!is_trusted(&doubts, "user:1") && !doubts.is_heard("user:1"));
        assert!(is_trusted(&doubts, "user:2"));
    }
}
