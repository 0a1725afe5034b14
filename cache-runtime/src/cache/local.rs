//! The local tier: decoded values in this process, in front of the store, for the functions that say `local`.
//!
//! A value is *certain* as long as its changes are heard, no change was, and its time is not over. Any other value is
//! *doubtful*: it is kept, and the next caller asks the store whether its entry still has the same stamp
//! (`confirm.rs`). What is heard, and until when that is everything, is in `doubt.rs`.

mod confirm;
mod gather;
mod hot;

use std::any::Any;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use quick_cache::sync::Cache as QuickCache;
use quick_cache::{Equivalent, Lifecycle, OptionsBuilder, Weighter};

use self::confirm::Confirming;
pub(super) use self::confirm::{Asking, Doubt, HEAD};
use self::gather::Gathering;
pub(super) use self::gather::{Heads, Question, Runner, Turn};
use self::hot::HotTable;
use crate::clock::whole_millis;
use crate::config::{Config, Topology};
use crate::doubt::{Doubts, Place, Reading};
use crate::entry::{self, Meta, Stamp};
use crate::key::Key;
use crate::metrics::{LocalState, LocalStats};
use crate::singleton::Singleton;
use crate::slot::Slot;
use crate::store::listener::Wanted;
use crate::tag::Tag;
use crate::target::Target;

/// What a decoded value weighs for each byte of its entry: text has its bytes, and around them are pointers and spare room. An
/// estimate; the size in memory depends on the type.
const DECODED: usize = 2;

/// The weight of a value besides its name and itself: its metadata, its slot, and the overhead of the allocator.
const OVERHEAD: usize = 256;

/// The weight of a tag besides its name.
const TAG: usize = 64;

/// A shard is never smaller, so that a large value fits into one.
const SHARD_BYTES: usize = 4 << 20;
const MAX_SHARDS: usize = 64;

/// What an entry weighs usually, from which the map computes its sizes.
const USUAL_WEIGHT: usize = 1 << 10;

/// The local tier of one cache.
pub(super) struct Local {
    pub(super) doubts: Arc<Doubts>,
    /// The keys whose changes are wanted, and the task that listens for them.
    pub(super) wanted: Arc<Wanted>,
    pub(super) listening: Singleton,
    /// Wants the keys of all known functions, with the first call.
    pub(super) first: Once,
    capacity: usize,
    /// Made with the first value.
    values: OnceLock<Values>,
    confirming: Confirming,
    gathering: Gathering,
    counts: Arc<Counts>,
    /// When the cache was made, by the coarse clock.
    made: u64,
}

/// All values, and those that are hit often a second time.
struct Values {
    map: QuickCache<Name, Arc<Kept>, Weight, ByHash, Evictions>,
    hot: Arc<HotTable>,
}

/// A value, or a remembered `None`: the type is an `Option` of what the function stores.
pub(crate) type KeptValue = Box<dyn Any + Send + Sync>;

/// A value in this process, with the facts of its entry.
#[derive(Debug)]
pub(crate) struct Kept {
    facts: KeptFacts,
    /// The whole name of its key, and the hash of that.
    name: Box<str>,
    hash: u64,
    /// The reading with which it is certain.
    changes: AtomicU64,
    gaps: AtomicU64,
    /// Until when it is certain, by the coarse clock.
    certain_until: AtomicU64,
    /// Until when a hit need not go through the map, by the coarse clock.
    hot_until: AtomicU64,
    value: KeptValue,
}

/// What is known about a value when it is kept.
#[derive(Debug)]
pub(super) struct KeptFacts {
    /// The type of what the function stores, and `version` of its attribute.
    shape: Shape,
    pub(super) meta: Meta,
    /// The slot of its key.
    slot: Slot,
    /// When the time of its entry is over, by the coarse clock.
    gone_at: u64,
    weight: usize,
    reading: Reading,
    certain_until: u64,
    /// The tags of its entry.
    tags: Box<[KeptTag]>,
}

/// A tag of an entry, and the stamp that the entry names.
#[derive(Clone, Debug)]
pub(super) struct KeptTag {
    tag: Tag,
    place: Place,
    stamp: Stamp,
}

/// What tells values of one key apart that different functions keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) of_type: u64,
    pub(super) version: u64,
}

/// What the tier knows of a key.
pub(super) enum Found {
    Certain(Arc<Kept>),
    Doubtful(Arc<Kept>),
    Nothing,
}

/// What happened in the tier, besides the hits, which count for their function.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) doubtful: AtomicU64,
    pub(super) confirmed: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) evicted: AtomicU64,
}

impl Kept {
    #[inline]
    fn is_named(&self, hash: u64, name: &str) -> bool {
        self.hash == hash && *self.name == *name
    }

    /// Returns the value, if it is of this type.
    #[inline(always)]
    pub(super) fn value<T: 'static>(&self) -> Option<&T> {
        self.value.downcast_ref()
    }

    pub(super) fn facts(&self) -> &KeptFacts {
        &self.facts
    }

    #[inline]
    fn place(&self) -> Place {
        Place {
            hash: self.hash,
            slot: self.facts.slot,
        }
    }

    /// Whether nothing was heard of a change since the value was read. Changes that nobody reported do not count.
    #[inline]
    pub(super) fn is_unchanged(&self, reading: Reading) -> bool {
        self.changes.load(Relaxed) == reading.changes
    }

    /// Returns the tags of its entry.
    pub(super) fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.facts.tags.iter().map(|kept| &kept.tag)
    }

    /// Returns whether its entry has all of these tags.
    #[inline]
    fn has_all<'a>(&self, mut tags: impl Iterator<Item = &'a str>) -> bool {
        tags.all(|tag| self.tags().any(|kept| kept.key().as_str() == tag))
    }

    /// Returns whether a hit need not go through the map.
    #[inline]
    fn is_hot(&self, now: u64) -> bool {
        now < self.hot_until.load(Relaxed)
    }

    #[inline]
    fn is_certain(&self, reading: Reading, now: u64) -> bool {
        self.is_unchanged(reading)
            && self.gaps.load(Relaxed) == reading.gaps
            && now < self.certain_until.load(Relaxed)
    }

    /// Its entry was seen unchanged after `reading` was taken. If two callers write at the same time, each part of the mixture
    /// was true after a look at the entry, and readings only grow, so it is certain only if it is unchanged.
    fn confirm(&self, reading: Reading, certain_until: u64) {
        self.changes.store(reading.changes, Relaxed);
        self.gaps.store(reading.gaps, Relaxed);
        self.certain_until
            .store(certain_until.min(self.facts.gone_at), Relaxed);
    }
}

impl Local {
    /// `is_alone` is whether no other process changes entries, so that there is nothing to listen for.
    pub(super) fn new(config: &Config, is_alone: bool) -> Self {
        let clock = config.clock.clone();
        let doubts = match &config.redis {
            Some(Topology::Cluster { .. }) if !is_alone => Doubts::of_cluster(clock),
            _ => Doubts::new(clock),
        };
        if is_alone {
            let feed = doubts.feed();
            feed.covers(vec![config.prefix.clone()]);
            feed.trust(u64::MAX, Duration::ZERO);
        }
        Self {
            wanted: Arc::default(),
            listening: Singleton::default(),
            first: Once::new(),
            capacity: config.local_capacity,
            values: OnceLock::new(),
            confirming: Confirming::default(),
            gathering: Gathering::default(),
            counts: Arc::default(),
            made: doubts.earliest(),
            doubts: Arc::new(doubts),
        }
    }

    /// Returns the time by which a value must still be good, by the coarse clock.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.doubts.latest()
    }

    /// Returns how many seconds after the cache was made `now` is.
    #[inline]
    pub(super) fn second(&self, now: u64) -> u64 {
        now.saturating_sub(self.made) / 1_000
    }

    /// Returns whether the configuration allows values in this process.
    pub(super) fn is_on(&self) -> bool {
        self.capacity > 0
    }

    /// Returns whether a value of a key with these tags would be kept.
    pub(super) fn keeps(&self, key: &Key, tags: &[Tag]) -> bool {
        let is_heard = |key: &Key| self.doubts.is_heard(key.as_str());
        self.is_on() && is_heard(key) && tags.iter().all(|tag| is_heard(tag.key()))
    }

    /// Returns the reading that belongs to a read of `key` and of these tags that is about to be sent.
    pub(super) fn reading(&self, key: &Key, tags: &[Tag]) -> Reading {
        self.reading_with(self.doubts.reading(self.place(key)), tags)
    }

    /// Adds the counters of tags, each of them once.
    pub(super) fn reading_with(&self, reading: Reading, tags: &[Tag]) -> Reading {
        let is_first = |(at, tag): &(usize, &Tag)| !tags[..*at].contains(tag);
        let first = tags.iter().enumerate().filter(is_first);
        self.sum(reading, first.map(|(_, tag)| self.place(tag.key())))
    }

    /// Returns the reading that a value must have to be certain.
    #[inline]
    pub(super) fn reading_of(&self, kept: &Kept) -> Reading {
        let tags = kept.facts.tags.iter().map(|tag| tag.place);
        self.sum(self.doubts.reading(kept.place()), tags)
    }

    #[inline]
    fn sum(&self, reading: Reading, tags: impl Iterator<Item = Place>) -> Reading {
        tags.fold(reading, |reading, tag| {
            reading.and(self.doubts.reading(tag))
        })
    }

    /// Returns the tags of an entry of a cache with this prefix, each of them once.
    pub(super) fn tags(&self, prefix: &str, entry: &[u8]) -> Box<[KeptTag]> {
        let mut tags: Vec<KeptTag> = Vec::new();
        for (name, stamp) in entry::tags(entry) {
            let tag = Tag::named(prefix, name);
            if tags.iter().all(|kept| kept.tag != tag) {
                let place = self.place(tag.key());
                tags.push(KeptTag { tag, place, stamp });
            }
        }
        tags.into()
    }

    /// Looks for a value of this shape and with these tags whose time is not over. `key` and `tags` are whole names.
    pub(super) fn find<'a>(
        &self,
        key: &str,
        tags: impl Iterator<Item = &'a str>,
        shape: Shape,
        now: u64,
    ) -> Found {
        let Some(values) = self.values.get() else {
            return Found::Nothing;
        };
        let hash = self.doubts.hash(key.as_bytes());
        let Some(kept) = values.map.get(&Asked { hash, name: key }) else {
            return Found::Nothing;
        };
        match self.is_certain(&kept, tags, shape, now) {
            Some(true) => Found::Certain(kept),
            Some(false) => Found::Doubtful(kept),
            None => Found::Nothing,
        }
    }

    /// Passes a certain value to `take`: the path of a hit. Returns [`None`] if [`find`](Self::find) must be asked.
    #[inline]
    pub(super) fn find_certain<'a, R>(
        &self,
        key: &str,
        tags: impl Iterator<Item = &'a str>,
        shape: Shape,
        now: u64,
        take: impl FnOnce(&Kept) -> R,
    ) -> Option<R> {
        let values = self.values.get()?;
        let hash = self.doubts.hash(key.as_bytes());
        let hot = values.hot.get(hash);
        if let Some(kept) = &*hot
            && kept.is_named(hash, key)
            && kept.is_hot(now)
        {
            let is_certain = self.is_certain(kept, tags, shape, now);
            return (is_certain == Some(true)).then(|| take(kept));
        }
        drop(hot);
        let kept = values.map.get(&Asked { hash, name: key })?;
        let is_certain = self.is_certain(&kept, tags, shape, now);
        (is_certain == Some(true)).then(|| {
            values.promote(&kept, now);
            take(&kept)
        })
    }

    /// Returns whether a value is certain, or [`None`] if it is not for a call of this shape and with these tags, or too old.
    #[inline]
    fn is_certain<'a>(
        &self,
        kept: &Kept,
        tags: impl Iterator<Item = &'a str>,
        shape: Shape,
        now: u64,
    ) -> Option<bool> {
        if kept.facts.shape != shape || now >= kept.facts.gone_at || !kept.has_all(tags) {
            return None;
        }
        // Before the reading, which then includes all changes that the trust is about.
        let is_trusted = self.is_trusted(kept, now);
        let reading = self.reading_of(kept);
        Some(is_trusted && kept.is_certain(reading, now))
    }

    #[inline]
    fn is_trusted(&self, kept: &Kept, now: u64) -> bool {
        let mut tags = kept.facts.tags.iter();
        self.doubts.is_trusted(kept.place(), now)
            && tags.all(|tag| self.doubts.is_trusted(tag.place, now))
    }

    /// Returns the facts of a value whose entry is fresh for `fresh` and has so many bytes of JSON. It was read after `reading`
    /// was taken, and is certain for `period`.
    pub(super) fn facts(
        &self,
        (key, shape): (&Key, Shape),
        meta: Meta,
        fresh: Duration,
        json_bytes: usize,
        tags: Box<[KeptTag]>,
        (reading, period): (Reading, Duration),
    ) -> KeptFacts {
        let gone_at = self.until(fresh);
        let of_tags = tags.iter().map(|kept| kept.tag.key().as_str().len() + TAG);
        let weight = json_bytes.saturating_mul(DECODED) + OVERHEAD;
        KeptFacts {
            shape,
            meta,
            slot: self.doubts.slot(key.as_str().as_bytes()),
            gone_at,
            weight: of_tags.fold(weight, usize::saturating_add),
            tags,
            reading,
            certain_until: self.until(period).min(gone_at),
        }
    }

    /// Returns the end of a period that begins now, by the coarse clock.
    fn until(&self, period: Duration) -> u64 {
        self.doubts.earliest().saturating_add(whole_millis(period))
    }

    /// Returns how a caller asks the store for the heads of these keys.
    pub(super) fn gather(&self, keys: &[Key]) -> Turn {
        self.gathering.join(keys)
    }

    /// Keeps a value.
    pub(super) fn keep(&self, key: &Key, facts: KeptFacts, value: KeptValue) {
        let values = self.values.get_or_init(|| self.values());
        let kept = Arc::new(Kept {
            changes: AtomicU64::new(facts.reading.changes),
            gaps: AtomicU64::new(facts.reading.gaps),
            certain_until: AtomicU64::new(facts.certain_until),
            facts,
            name: key.as_str().into(),
            hash: self.hash(key),
            hot_until: AtomicU64::new(0),
            value,
        });
        // The map reports a value that an insertion replaces as evicted.
        self.forget(key);
        values.map.insert(Name(Arc::clone(&kept)), kept);
    }

    /// Forgets a value that has turned out to be another one in the store.
    pub(super) fn forget(&self, key: &Key) {
        let Some(values) = self.values.get() else {
            return;
        };
        let asked = Asked {
            hash: self.hash(key),
            name: key.as_str(),
        };
        if let Some((_, kept)) = values.map.remove(&asked) {
            values.hot.remove(&kept);
        }
    }

    /// Values of `targets` are doubtful from now on.
    pub(super) fn doubt(&self, targets: &[Target]) {
        for target in targets {
            match target {
                Target::Key(key) => self.doubts.changed(key.as_str().as_bytes()),
                Target::Tag(tag) => self.doubts.changed(tag.key().as_str().as_bytes()),
                Target::Pattern(_) | Target::All => self.doubts.all_changed(),
            }
        }
    }

    /// Returns the statistics, if a function with `local` was called.
    pub(super) fn stats(&self) -> Option<LocalStats> {
        let is_used = self.first.is_completed() || self.values.get().is_some();
        is_used.then(|| {
            let (entries, bytes) = self.usage();
            let Counts {
                doubtful,
                confirmed,
                dropped,
                evicted,
            } = &*self.counts;
            LocalStats {
                state: self.state(),
                entries: entries as u64,
                bytes,
                doubtful: doubtful.load(Relaxed),
                confirmed: confirmed.load(Relaxed),
                dropped: dropped.load(Relaxed),
                evicted: evicted.load(Relaxed),
            }
        })
    }

    fn state(&self) -> LocalState {
        match self.doubts.are_all_trusted(self.now()) {
            true => LocalState::Certain,
            false if self.doubts.hears_any() => LocalState::Doubtful,
            false => LocalState::Off,
        }
    }

    /// How many values there are, and their weight in bytes.
    pub(super) fn usage(&self) -> (usize, u64) {
        let values = self.values.get();
        values.map_or((0, 0), |values| (values.map.len(), values.map.weight()))
    }

    fn hash(&self, key: &Key) -> u64 {
        self.doubts.hash(key.as_str().as_bytes())
    }

    fn place(&self, key: &Key) -> Place {
        self.doubts.place(key.as_str().as_bytes())
    }

    fn values(&self) -> Values {
        let shards = (self.capacity / SHARD_BYTES).clamp(1, MAX_SHARDS);
        let mut options = OptionsBuilder::new();
        options
            .shards(shards)
            .estimated_items_capacity(self.capacity / USUAL_WEIGHT)
            .weight_capacity(self.capacity as u64);
        let hot = Arc::new(HotTable::new());
        let evictions = Evictions {
            counts: Arc::clone(&self.counts),
            hot: Arc::clone(&hot),
        };
        let map = match options.build() {
            Ok(options) => QuickCache::with_options(options, Weight, ByHash, evictions),
            // Both numbers are given.
            Err(_) => QuickCache::with(0, 0, Weight, ByHash, evictions),
        };
        Values { map, hot }
    }
}

impl Values {
    /// Puts a value that is hit where the next hits find it faster.
    fn promote(&self, kept: &Arc<Kept>, now: u64) {
        if !self.hot.promote(kept, now) {
            return;
        }
        // The map may have removed it after it returned it, and before it was in the hot table.
        let asked = Asked {
            hash: kept.hash,
            name: &kept.name,
        };
        let there = self.map.peek(&asked);
        if !there.is_some_and(|there| Arc::ptr_eq(&there, kept)) {
            self.hot.remove(kept);
        }
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

/// The name of a value, which is in the value.
struct Name(Arc<Kept>);

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_named(other.0.hash, &other.0.name)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

/// The same, borrowed from a key.
struct Asked<'a> {
    hash: u64,
    name: &'a str,
}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Name> for Asked<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        name.0.is_named(self.hash, self.name)
    }
}

/// Names are hashed already.
#[derive(Clone)]
struct ByHash;

struct HashOf(u64);

impl BuildHasher for ByHash {
    type Hasher = HashOf;

    fn build_hasher(&self) -> HashOf {
        HashOf(0)
    }
}

impl Hasher for HashOf {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Name, Arc<Kept>> for Weight {
    fn weight(&self, _: &Name, kept: &Arc<Kept>) -> u64 {
        (kept.name.len() + kept.facts.weight) as u64
    }
}

/// Counts values that the map evicts for others, and removes them from the hot table.
#[derive(Clone)]
struct Evictions {
    counts: Arc<Counts>,
    hot: Arc<HotTable>,
}

impl Lifecycle<Name, Arc<Kept>> for Evictions {
    /// What is evicted, to be dropped without a lock: dropping it runs the code of its type.
    type RequestState = Vec<Arc<Kept>>;

    fn on_evict(&self, evicted: &mut Vec<Arc<Kept>>, _: Name, kept: Arc<Kept>) {
        self.counts.evicted.fetch_add(1, Relaxed);
        self.hot.remove(&kept);
        evicted.push(kept);
    }
}

#[cfg(test)]
mod tests;
