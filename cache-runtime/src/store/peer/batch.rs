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
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Peer;
use crate::config::Config;
use crate::entry::{STAMP_TEXT, stamp_in};
use crate::key::Key;
use crate::queue::{Queue, Runner, Waiting};
use crate::store::Found;
use crate::store::pool::Access;
use crate::store::reply;
use crate::tag::Tag;

/// With fewer commands under way, each read is sent alone.
const CROWD: usize = 48;

/// The usual number of entries of a batch. It may ask for as many tags: their records are small, and many reads share them.
const KEYS: usize = 64;

/// The most entries of a batch. If thousands of reads wait, the time between two batches is not that of Redis: this process polls
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

/// The reads that are sent in batches.
pub(super) struct Batches {
    queue: Arc<Queue<Read, Found>>,
    /// A batch that takes longer is abandoned. Its callers have timed out before that.
    patience: Duration,
    sent: AtomicU64,
    keys: AtomicU64,
}

/// A read that is sent in a batch.
struct Read {
    since: Instant,
    key: Key,
    tags: Vec<Tag>,
    /// How many bytes the value is expected to have.
    expected: usize,
}

impl Batches {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::new(BATCHES),
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
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// Sends batches until no read waits.
async fn send(mut runner: Runner<Read, Found>, peer: Peer) {
    while let Some(batch) = runner.next(room) {
        peer.read_batch(batch).await;
    }
}

/// Returns whether a batch has room after each of its reads, while so many reads wait.
fn room(waiting: usize) -> impl FnMut(&Read) -> bool {
    let most = (waiting / SHARE).clamp(KEYS, MAX_KEYS);
    let (mut entries, mut tags, mut bytes) = (0, 0, 0);
    let mut seen = SeenTags::default();
    move |read| {
        entries += 1;
        tags += seen.add(&read.tags);
        bytes += read.expected;
        entries < most && tags < most && bytes < BYTES
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

impl Peer {
    /// Returns whether reads are sent in batches now.
    fn is_crowded(&self) -> bool {
        self.batches.queue.is_running() || self.pool.commands_ahead() >= CROWD
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
        let (value, runner) = self.batches.queue.join(Read {
            since: Instant::now(),
            key: key.clone(),
            tags: tags.to_vec(),
            expected,
        });
        if let Some(runner) = runner {
            tokio::spawn(send(runner, self.clone()));
        }
        value.await.ok()
    }

    /// Reads the values of a batch and answers its callers. It answers none of them if the server answers nothing.
    async fn read_batch(&self, mut batch: Vec<Waiting<Read, Found>>) {
        if let Some(oldest) = batch.first() {
            self.pool.send_wait.record(oldest.question.since.elapsed());
        }
        batch.sort_unstable_by_key(|waiting| waiting.question.key.hash());
        let mut keys: Vec<Key> = Vec::with_capacity(batch.len());
        let mut readers: Vec<Vec<_>> = Vec::with_capacity(batch.len());
        let mut tags = tags_of(&batch);
        let mut bytes = tags.len() * STAMP_TEXT;
        for Waiting { question, caller } in batch {
            let Read {
                key,
                tags: wanted,
                expected,
                ..
            } = question;
            match (keys.last(), readers.last_mut()) {
                (Some(last), Some(others)) if *last == key => others.push((caller, wanted)),
                _ => {
                    bytes += expected;
                    keys.push(key);
                    readers.push(vec![(caller, wanted)]);
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
            let answer = |(caller, wanted): (oneshot::Sender<_>, Vec<Tag>), entry| {
                let stamps: Option<Vec<_>> = wanted.iter().map(stamp_of).collect();
                if let Some(stamps) = stamps {
                    // An error means that the caller was cancelled.
                    let _ = caller.send(Found { entry, stamps });
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
fn tags_of(batch: &[Waiting<Read, Found>]) -> Vec<Key> {
    let tags = batch.iter().flat_map(|waiting| &waiting.question.tags);
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
    use super::*;

    /// Returns how many reads a batch takes if each has these tags.
    fn taken(tags_of: impl Fn(usize) -> Vec<String>) -> usize {
        let mut has_room_after = room(KEYS);
        let mut reads = (0..2 * KEYS).map(|id| Read {
            since: Instant::now(),
            key: Key::parse("dev_", &format!("event:{id}")).expect("a valid key"),
            tags: Vec::from_iter(
                tags_of(id)
                    .iter()
                    .map(|tag| Tag::parse("dev_", tag).expect("a valid tag")),
            ),
            expected: 0,
        });
        let last = reads.position(|read| !has_room_after(&read));
        last.expect("a batch is limited") + 1
    }

    #[test]
    fn a_batch_takes_as_many_reads_with_a_tag_that_all_name_as_without() {
        assert_eq!(taken(|_| vec![]), KEYS);
        assert_eq!(taken(|_| vec!["events".to_owned()]), KEYS);
    }

    #[test]
    fn the_tags_of_a_batch_are_limited_too() {
        let three = |id| (0..3).map(|tag| format!("event:{id}:{tag}")).collect();

        // Some bits of hashes are equal.
        assert!(
            (KEYS / 3..KEYS / 2).contains(&taken(three)),
            "{}",
            taken(three)
        );
    }
}
