//! The whole backend when there is no Redis: entries in this process, bounded by weight.
//!
//! It consists of sharded maps behind mutexes, and the clock algorithm chooses what to remove. It does not use a concurrent
//! cache crate: every write here is a compare-and-set under the lock of its shard, and with that lock little else is
//! needed.

mod shard;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use self::shard::Shard;
use super::script::Scripts;
use super::{
    BoxFuture, Cursor, Deleted, Found, Mark, NodeHealth, Refreshing, Replaced, Scanned, ServerInfo,
    Signals, Store, Walk, Walked,
};
use crate::clock::{Clock, whole_millis};
use crate::entry::{self, FENCE_COUNT_AT, HEAD, stamp_of};
use crate::error::{Error, ErrorKind};
use crate::key::{Key, Pattern};
use crate::metrics::{MemoryStats, StoreStats};
use crate::sync::Mutex;
use crate::tag::Tag;

/// A shard is never smaller, so that a large value fits into one.
const SHARD_BYTES: usize = 8 << 20;
const MAX_SHARDS: usize = 16;

/// Keeps entries in this process.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    clock: Clock,
    closed: AtomicBool,
}

impl MemoryStore {
    /// Holds at most `capacity` bytes of keys, entries and their overhead.
    pub(crate) fn new(capacity: usize, clock: Clock) -> Self {
        let shards = (capacity / SHARD_BYTES).clamp(1, MAX_SHARDS);
        let each = capacity / shards;
        Self {
            shards: (0..shards).map(|_| Mutex::new(Shard::new(each))).collect(),
            hasher: RandomState::new(),
            clock,
            closed: AtomicBool::new(false),
        }
    }

    /// How many entries there are and how many bytes they weigh; those that expired and were not missed yet included.
    fn usage(&self) -> (usize, usize) {
        self.shards
            .iter()
            .map(Mutex::lock)
            .fold((0, 0), |(entries, bytes), shard| {
                (entries + shard.places.len(), bytes + shard.bytes)
            })
    }

    fn done<'a, T: Send + 'a>(
        &'a self,
        step: impl FnOnce() -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, Error>> {
        Box::pin(async move {
            match self.closed.load(Ordering::Relaxed) {
                true => Err(Error::new(
                    ErrorKind::Unavailable,
                    "the cache was shut down",
                )),
                false => Ok(step()),
            }
        })
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(key.as_str()) % self.shards.len() as u64;
        self.shards[index as usize].lock()
    }

    fn now(&self) -> u64 {
        self.clock.now_millis()
    }

    fn end_of(&self, ttl: Duration) -> u64 {
        self.now().saturating_add(whole_millis(ttl).max(1))
    }

    fn read(&self, key: &Key) -> Option<Vec<u8>> {
        let entry = self
            .shard(key)
            .get(key.as_str(), self.now())
            .map(|slot| slot.entry.clone());
        // Copied without the lock.
        entry.map(|entry| entry.to_vec())
    }

    fn stamp(&self, tag: &Tag) -> Option<[u8; 8]> {
        let mut shard = self.shard(tag.key());
        let slot = shard.get(tag.key().as_str(), self.now())?;
        entry::stamp_in(&slot.entry)
    }

    /// Places a fence. Returns how many writers share it.
    fn place(&self, key: &Key, mut fence: Vec<u8>, ttl: Duration) -> u32 {
        let mut shard = self.shard(key);
        let now = self.now();
        let head = ..fence.len().min(HEAD);
        let standing = shard
            .get(key.as_str(), now)
            .filter(|slot| slot.entry.starts_with(&fence[head]))
            .filter(|slot| !entry::is_dead(&slot.entry, now, slot.end));
        let count = standing
            .and_then(|slot| fence_count(&slot.entry))
            .map_or(1, |count| count.saturating_add(1));
        if let Some(place) = fence.get_mut(FENCE_COUNT_AT..FENCE_COUNT_AT + 4) {
            place.copy_from_slice(&count.to_le_bytes());
        }
        shard.put(key.as_str(), fence.into(), self.end_of(ttl), now);
        count
    }

    fn write(&self, key: &Key, entry: &[u8], ttl: Duration) {
        self.shard(key)
            .put(key.as_str(), entry.into(), self.end_of(ttl), self.now());
    }
}

impl Store for MemoryStore {
    fn get<'a>(
        &'a self,
        key: &'a Key,
        _expected: usize,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, Error>> {
        self.done(move || self.read(key))
    }

    fn find<'a>(
        &'a self,
        key: &'a Key,
        tags: &'a [Tag],
        _expected: usize,
    ) -> BoxFuture<'a, Result<Found, Error>> {
        self.done(move || Found {
            entry: self.read(key),
            stamps: tags.iter().map(|tag| self.stamp(tag)).collect(),
        })
    }

    fn get_many<'a>(
        &'a self,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, Error>> {
        self.done(move || keys.iter().map(|key| self.read(key)).collect())
    }

    fn lease<'a>(
        &'a self,
        key: &'a Key,
        lease: &'a [u8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, Error>> {
        self.done(move || {
            let mut shard = self.shard(key);
            let now = self.now();
            let there = shard.get(key.as_str(), now).map(|slot| slot.entry.clone());
            if there.is_none() {
                shard.put(key.as_str(), lease.into(), self.end_of(ttl), now);
            }
            there.map(|entry| entry.to_vec())
        })
    }

    fn replace<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
        entry: &'a [u8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Replaced, Error>> {
        self.done(move || {
            let mut shard = self.shard(key);
            let now = self.now();
            match shard.get(key.as_str(), now) {
                None => Replaced::Gone,
                Some(slot) if stamp_of(&slot.entry) != stamp => Replaced::Other,
                Some(_) => {
                    shard.put(key.as_str(), entry.into(), self.end_of(ttl), now);
                    Replaced::Done
                }
            }
        })
    }

    fn refresh<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
        ttl: Duration,
        mark: Mark,
    ) -> BoxFuture<'a, Result<Refreshing, Error>> {
        self.done(move || {
            let mut shard = self.shard(key);
            let now = self.now();
            let slot = shard
                .get(key.as_str(), now)
                .filter(|slot| stamp_of(&slot.entry) == stamp);
            let Some((slot, held)) =
                slot.and_then(|slot| entry::refreshed_until(&slot.entry).map(|held| (slot, held)))
            else {
                return Refreshing::Gone;
            };
            if mark == Mark::Claim && held > now {
                return Refreshing::Held(Duration::from_millis(held - now));
            }
            let until = if ttl.is_zero() { 0 } else { self.end_of(ttl) };
            entry::set_refreshed_until(Arc::make_mut(&mut slot.entry), until);
            Refreshing::Marked
        })
    }

    fn fence<'a>(
        &'a self,
        fences: &'a [(Key, Vec<u8>)],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Vec<u32>, Error>> {
        self.done(move || {
            fences
                .iter()
                .map(|(key, fence)| self.place(key, fence.clone(), ttl))
                .collect()
        })
    }

    fn capture<'a>(
        &'a self,
        tags: &'a [Key],
        stamp: [u8; 8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Vec<Option<[u8; 8]>>, Error>> {
        self.done(move || {
            let stamp_of = |tag: &Key| {
                let mut shard = self.shard(tag);
                let (now, end) = (self.now(), self.end_of(ttl));
                match shard.get(tag.as_str(), now) {
                    Some(slot) => {
                        let there = entry::stamp_in(&slot.entry)?;
                        slot.end = slot.end.max(end);
                        Some(there)
                    }
                    None => {
                        let record = entry::stamp_text(stamp);
                        shard.put(tag.as_str(), record[..].into(), end, now);
                        Some(stamp)
                    }
                }
            };
            tags.iter().map(stamp_of).collect()
        })
    }

    fn set_many<'a>(
        &'a self,
        entries: &'a [(Key, Vec<u8>)],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.done(move || {
            for (key, entry) in entries {
                self.write(key, entry, ttl);
            }
        })
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<u64, Error>> {
        self.done(move || {
            keys.iter()
                .map(|key| u64::from(self.shard(key).remove(key.as_str(), self.now())))
                .sum()
        })
    }

    fn delete_if<'a>(
        &'a self,
        key: &'a Key,
        stamp: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.done(move || {
            let mut shard = self.shard(key);
            let now = self.now();
            let is_same = shard
                .get(key.as_str(), now)
                .is_some_and(|slot| stamp_of(&slot.entry) == stamp);
            is_same && shard.remove(key.as_str(), now)
        })
    }

    fn delete_dead<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.done(move || {
            let mut shard = self.shard(key);
            let now = self.now();
            let is_dead = shard.get(key.as_str(), now).is_some_and(|slot| {
                stamp_of(&slot.entry) == stamp && entry::is_dead(&slot.entry, now, slot.end)
            });
            is_dead && shard.remove(key.as_str(), now)
        })
    }

    fn delete_each<'a>(
        &'a self,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Vec<Result<bool, Error>>, Error>> {
        self.done(move || {
            keys.iter()
                .map(|key| Ok(self.shard(key).remove(key.as_str(), self.now())))
                .collect()
        })
    }

    /// No other program stores data here.
    fn delete_entries<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Deleted, Error>> {
        self.done(move || Deleted {
            removed: keys
                .iter()
                .map(|key| u64::from(self.shard(key).remove(key.as_str(), self.now())))
                .sum(),
            other_prefix: None,
        })
    }

    fn scan<'a>(
        &'a self,
        patterns: &'a [Pattern],
        _cursor: Cursor,
    ) -> BoxFuture<'a, Result<Scanned, Error>> {
        self.done(move || {
            let (mut names, mut looked) = (Vec::new(), 0);
            for shard in &self.shards {
                let shard = shard.lock();
                looked += shard.slots.len();
                let now = self.now();
                let alive = shard.slots.iter().flatten().filter(|slot| slot.end > now);
                names.extend(alive.filter_map(|slot| {
                    let is_meant = |pattern: &&Pattern| pattern.matches(&slot.name);
                    let pattern = patterns.iter().find(is_meant)?;
                    Some(pattern.key(slot.name.to_string()))
                }));
            }
            Scanned {
                names,
                next: None,
                looked,
            }
        })
    }

    fn peek<'a>(
        &'a self,
        keys: &'a [Key],
        length: usize,
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, Error>> {
        self.done(move || {
            let head = |key: &Key| {
                let mut shard = self.shard(key);
                let slot = shard.get(key.as_str(), self.now())?;
                Some(slot.entry[..length.min(slot.entry.len())].to_vec())
            };
            keys.iter().map(head).collect()
        })
    }

    fn measure<'a>(
        &'a self,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<(usize, Duration)>, Error>> {
        self.done(move || {
            let now = self.now();
            self.shard(key)
                .get(key.as_str(), now)
                .map(|slot| (slot.entry.len(), Duration::from_millis(slot.end - now)))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.done(move || ())
    }

    fn walk<'a>(
        &'a self,
        patterns: &'a [Pattern],
        walk: &'a Walk,
    ) -> BoxFuture<'a, Result<Walked, Error>> {
        Box::pin(async move {
            let scanned = self.scan(patterns, walk.cursor).await?;
            Ok(walk.step(scanned))
        })
    }

    fn server(&self) -> BoxFuture<'_, Result<Option<ServerInfo>, Error>> {
        self.done(move || None)
    }

    fn scripts(&self) -> Option<&dyn Scripts> {
        None
    }

    fn term(&self) -> u64 {
        0
    }

    fn admit(&self, _term: u64) -> bool {
        true
    }

    fn reopened(&self) -> u64 {
        0
    }

    fn nodes(&self) -> Vec<NodeHealth> {
        Vec::new()
    }

    fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    fn for_recovery(&self) -> &dyn Store {
        self
    }

    fn signals(&self) -> Arc<Signals> {
        Arc::default()
    }

    fn confirmed(&self) -> Instant {
        Instant::now()
    }

    fn last_arrival(&self) -> Option<Instant> {
        None
    }

    fn is_open(&self) -> bool {
        true
    }

    fn stats(&self) -> StoreStats {
        let (entries, bytes) = self.usage();
        StoreStats::Memory(MemoryStats {
            entries: entries as u64,
            bytes: bytes as u64,
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.closed.store(true, Ordering::Relaxed);
            for shard in &self.shards {
                let mut shard = shard.lock();
                *shard = Shard::new(shard.capacity);
            }
        })
    }
}

fn fence_count(entry: &[u8]) -> Option<u32> {
    let bytes = entry.get(FENCE_COUNT_AT..FENCE_COUNT_AT + 4)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::support::SingleEntry;

    const TTL: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_store_never_weighs_more_than_its_capacity() {
        let store = MemoryStore::new(100_000, Clock::default());

        for n in 0..1_000 {
            store.set(&key(n), &[0; 900], TTL).await.unwrap();
            assert!(store.usage().1 <= 100_000);
        }

        let (entries, bytes) = store.usage();
        assert!(
            entries > 80 && bytes > 90_000,
            "{entries} entries of {bytes} bytes"
        );
    }

    #[tokio::test]
    async fn used_entries_outlive_unused_ones() {
        let store = MemoryStore::new(100_000, Clock::default());
        store.set(&key(0), &[7; 900], TTL).await.unwrap();

        for n in 1..1_000 {
            store.set(&key(n), &[0; 900], TTL).await.unwrap();
            assert!(
                store.get(&key(0), 0).await.unwrap().is_some(),
                "gone after {n}"
            );
        }

        assert_eq!(store.get(&key(1), 0).await.unwrap(), None);
    }

    #[tokio::test]
    async fn expired_entries_are_removed_before_used_ones() {
        let clock = Clock::default();
        let store = MemoryStore::new(100_000, clock.clone());
        for n in 0..50 {
            store.set(&key(n), &[0; 900], TTL / 2).await.unwrap();
            store.set(&key(100 + n), &[0; 700], TTL).await.unwrap();
        }

        clock.advance(TTL / 2);
        for n in 0..40 {
            store.set(&key(200 + n), &[0; 900], TTL).await.unwrap();
            for n in 0..50 {
                assert!(store.get(&key(100 + n), 0).await.unwrap().is_some());
            }
        }
    }

    #[tokio::test]
    async fn an_entry_above_the_capacity_is_not_stored_and_removes_the_old_one() {
        let store = MemoryStore::new(10_000, Clock::default());
        store.set(&key(0), b"small", TTL).await.unwrap();
        store.set(&key(1), b"small", TTL).await.unwrap();

        store.set(&key(0), &[0; 20_000], TTL).await.unwrap();

        assert_eq!(store.get(&key(0), 0).await.unwrap(), None);
        assert!(store.get(&key(1), 0).await.unwrap().is_some());
        assert_eq!(store.usage().0, 1);
    }

    #[tokio::test]
    async fn the_weight_of_removed_entries_is_released() {
        let store = MemoryStore::new(64 << 20, Clock::default());
        for round in 0..3 {
            for n in 0..100 {
                store
                    .set(&key(n), &vec![0; 100 * (round + 1)], TTL)
                    .await
                    .unwrap();
            }
        }

        let keys: Vec<_> = (0..100).map(key).collect();
        assert_eq!(store.delete(&keys).await.unwrap(), 100);

        assert_eq!(store.usage(), (0, 0));
    }

    fn key(n: u32) -> Key {
        Key::render("dev_", |key| {
            key.text(&n.to_string());
        })
    }
}
