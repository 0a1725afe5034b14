//! Coalesced reads: while many `GET`s are under way, new reads are sent together as one `MGET`.
//!
//! In a batch, a read takes a seventh of the server's time for a single `GET`, and this process makes far fewer writes. With few
//! callers a batch would only make them wait for each other. Batches therefore begin when [`CROWD`] commands are under way on a
//! connection. From then on, reads gather while [`BATCHES`] batches are outstanding. This ends when no read waits.
//!
//! Tags that many reads name are asked for once.
//!
//! A batch never fails a read. If its `MGET` fails, for example because one value is too long, each of its callers reads alone.
//! A node of a cluster gets the reads of its keys as one batch of `GET`s, because it refuses an `MGET` of several slots. A caller
//! whose key it does not serve reads alone.

use std::cmp;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Peer;
use crate::config::Config;
use crate::entry::{STAMP_TEXT, stamp_in};
use crate::key::Key;
use crate::store::Found;
use crate::store::pool::Access;
use crate::store::reply;
use crate::sync::Mutex;
use crate::tag::Tag;

/// With fewer commands under way, each read is sent alone.
const CROWD: usize = 48;

/// The usual number of keys of a batch.
const KEYS: usize = 64;

/// The most keys of a batch. If thousands of reads wait, the time between two batches is not that of Redis: this process polls
/// all its other tasks in between. With [`KEYS`] only, 10,000 callers waited for longer than `command_timeout_max`.
const MAX_KEYS: usize = 256;

/// A batch takes this part of the waiting reads, within these limits.
const SHARE: usize = 16;

/// The most bytes that a batch is expected to return, so that small replies do not wait behind it for long.
const BYTES: usize = 64 << 10;

/// The most batches that are outstanding at the same time.
const BATCHES: usize = 2;

/// A larger value is read alone, because receiving it takes longer than a batch saves.
const SMALL: usize = 1 << 10;

/// The reads that wait for a batch.
pub(super) struct Batches {
    state: Mutex<State>,
    /// Whether batches run. Read without the lock.
    is_running: AtomicBool,
    /// A batch that takes longer is abandoned. Its callers have timed out before that.
    patience: Duration,
    sent: AtomicU64,
    keys: AtomicU64,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    running: usize,
}

struct Waiting {
    since: Instant,
    key: Key,
    tags: Vec<Tag>,
    /// How many bytes the value is expected to have.
    expected: usize,
    found: oneshot::Sender<Found>,
}

impl Batches {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            is_running: AtomicBool::new(false),
            patience: config.operation_max(),
            sent: AtomicU64::new(0),
            keys: AtomicU64::new(0),
        })
    }

    /// Returns how many batches were sent, and how many keys they had.
    pub(super) fn counts(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.sent), of(&self.keys))
    }

    /// Adds a read to the next batch. Returns the runner of another batch, if one may begin.
    fn join(
        self: &Arc<Self>,
        key: &Key,
        tags: &[Tag],
        expected: usize,
    ) -> (oneshot::Receiver<Found>, Option<Runner>) {
        let (found, value) = oneshot::channel();
        let waiting = Waiting {
            since: Instant::now(),
            key: key.clone(),
            tags: tags.to_vec(),
            expected,
            found,
        };
        let mut state = self.state.lock();
        state.waiting.push_back(waiting);
        let begins = state.running < BATCHES;
        if begins {
            state.running += 1;
            self.is_running.store(true, Ordering::Relaxed);
        }
        drop(state);
        let runner = begins.then(|| Runner {
            batches: Arc::clone(self),
            is_over: false,
        });
        (value, runner)
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// Sends batches until no read waits.
struct Runner {
    batches: Arc<Batches>,
    is_over: bool,
}

impl Runner {
    async fn run(mut self, peer: Peer) {
        while let Some(batch) = self.next() {
            peer.read_batch(batch).await;
        }
    }

    /// Takes the reads of the next batch.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut state = self.batches.state.lock();
        let most = (state.waiting.len() / SHARE).clamp(KEYS, MAX_KEYS);
        let (mut batch, mut keys, mut bytes) = (Vec::new(), 0, 0);
        let mut seen = SeenTags::default();
        while keys < most && bytes < BYTES {
            let Some(waiting) = state.waiting.pop_front() else {
                break;
            };
            // Skips the reads of cancelled callers.
            if !waiting.found.is_closed() {
                bytes += waiting.expected;
                keys += 1 + seen.add(&waiting.tags);
                batch.push(waiting);
            }
        }
        if batch.is_empty() {
            self.is_over = true;
            self.batches.leave(&mut state);
            return None;
        }
        Some(batch)
    }
}

impl Drop for Runner {
    /// The runtime of the runner may have ended. Waiting callers of other runtimes then read alone.
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.batches.state.lock();
            state.waiting.clear();
            self.batches.leave(&mut state);
        }
    }
}

/// The tags that a batch asks for, by some bits of their hashes. An estimate is enough to limit a batch.
#[derive(Default)]
struct SeenTags([u64; 8]);

impl SeenTags {
    /// Returns how many of these tags are new.
    fn add(&mut self, tags: &[Tag]) -> usize {
        let is_new = |tag: &&Tag| {
            let hash = tag.key().hash();
            let bit = 1 << (hash % 64);
            let word = &mut self.0[(hash / 64 % 8) as usize];
            let is_new = *word & bit == 0;
            *word |= bit;
            is_new
        };
        tags.iter().filter(is_new).count()
    }
}

impl Batches {
    fn leave(&self, state: &mut State) {
        state.running -= 1;
        self.is_running.store(state.running > 0, Ordering::Relaxed);
    }
}

impl Peer {
    /// Returns whether reads are sent in batches now.
    fn is_crowded(&self) -> bool {
        self.batches.is_running.load(Ordering::Relaxed) || self.pool.commands_ahead() >= CROWD
    }

    /// Reads a value of about `expected` bytes in a batch, together with the stamps of tags. Returns [`None`] if the caller
    /// should read it alone.
    pub(super) async fn read_in_batch(
        &self,
        key: &Key,
        tags: &[Tag],
        expected: usize,
    ) -> Option<Found> {
        if expected > SMALL || self.access != Access::Caller || !self.is_crowded() {
            return None;
        }
        let (value, runner) = self.batches.join(key, tags, expected);
        if let Some(runner) = runner {
            tokio::spawn(runner.run(self.clone()));
        }
        value.await.ok()
    }

    /// Reads the values of a batch and answers its callers. It answers none of them if the server answers nothing.
    async fn read_batch(&self, mut batch: Vec<Waiting>) {
        if let Some(oldest) = batch.first() {
            self.pool.send_wait.record(oldest.since.elapsed());
        }
        batch.sort_unstable_by_key(|waiting| waiting.key.hash());
        let mut keys: Vec<Key> = Vec::with_capacity(batch.len());
        let mut readers: Vec<Vec<_>> = Vec::with_capacity(batch.len());
        let mut tags = tags_of(&batch);
        let mut bytes = tags.len() * STAMP_TEXT;
        for Waiting {
            key,
            tags: wanted,
            expected,
            found,
            ..
        } in batch
        {
            match (keys.last(), readers.last_mut()) {
                (Some(last), Some(others)) if *last == key => others.push((found, wanted)),
                _ => {
                    bytes += expected;
                    keys.push(key);
                    readers.push(vec![(found, wanted)]);
                }
            }
        }
        let entries = keys.len();
        keys.append(&mut tags);
        let batches = &self.batches;
        batches.sent.fetch_add(1, Ordering::Relaxed);
        batches.keys.fetch_add(keys.len() as u64, Ordering::Relaxed);
        let read = self.fetch_each(&keys, bytes);
        let Ok(Ok(values)) = timeout(batches.patience, read).await else {
            return;
        };
        // A node of a cluster answers some keys and not others.
        let mut values: Vec<_> = values
            .into_iter()
            .map(|value| reply::string(value).ok())
            .collect();
        let records = values.split_off(entries);
        let tags = keys.get(entries..).unwrap_or_default();
        let stamp_of = |tag: &Tag| {
            let at = tags.binary_search_by(|there| by_hash(there, tag.key()));
            let record = records.get(at.ok()?)?.as_ref()?;
            Some(record.as_deref().and_then(stamp_in))
        };
        for (readers, entry) in readers.into_iter().zip(values) {
            let Some(entry) = entry else { continue };
            let mut readers = readers.into_iter();
            let last = readers.next_back();
            let answer = |(found, wanted): (oneshot::Sender<_>, Vec<Tag>), entry| {
                let stamps: Option<Vec<_>> = wanted.iter().map(stamp_of).collect();
                if let Some(stamps) = stamps {
                    // An error means that the caller was cancelled.
                    let _ = found.send(Found { entry, stamps });
                }
            };
            for reader in readers {
                answer(reader, entry.clone());
            }
            if let Some(last) = last {
                answer(last, entry);
            }
        }
    }
}

/// Returns the records of the tags of these reads, each of them once, in the order of [`by_hash`].
fn tags_of(batch: &[Waiting]) -> Vec<Key> {
    let tags = batch.iter().flat_map(|waiting| &waiting.tags);
    let mut tags: Vec<_> = tags.map(Tag::key).collect();
    tags.sort_unstable_by(|one, other| by_hash(one, other));
    tags.dedup();
    tags.into_iter().cloned().collect()
}

/// Compares hashes first, which is faster than to compare names.
fn by_hash(one: &Key, other: &Key) -> cmp::Ordering {
    let by_name = || one.as_str().cmp(other.as_str());
    one.hash().cmp(&other.hash()).then_with(by_name)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    #[test]
    fn a_tag_that_all_reads_name_takes_one_place_in_a_batch() {
        let batches = Batches::new(&Config::default());
        let tag = Tag::parse("dev_", "events").expect("a valid tag");
        let (mut runners, mut values) = (Vec::new(), Vec::new());
        for id in 0..KEYS {
            let key = Key::parse("dev_", &format!("event:{id}")).expect("a valid key");
            let (value, runner) = batches.join(&key, slice::from_ref(&tag), 0);
            values.push(value);
            runners.extend(runner);
        }

        let batch = runners[0].next().expect("reads wait");

        assert_eq!(batch.len() + 1, KEYS);
    }
}
