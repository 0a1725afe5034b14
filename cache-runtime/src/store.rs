//! The contract between the cache and the store that keeps its entries.

pub(crate) mod backoff;
mod cluster;
pub(crate) mod confirm;
mod connection;
#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod gate;
pub(crate) mod guard;
pub(crate) mod listener;
mod maintenance;
pub(crate) mod memory;
mod peer;
mod pool;
pub(crate) mod reach;
pub(crate) mod redis;
mod reply;
pub(crate) mod script;
mod slots;
#[cfg(test)]
pub(crate) mod support;
mod topology;
mod traffic;
mod watch;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::cluster::Tour;
use self::reach::Reach;
use self::script::Scripts;
use crate::entry::Entry;
use crate::error::Error;
use crate::key::{Key, Pattern};
use crate::metrics::StoreStats;
use crate::tag::Tag;

/// A boxed future, so the trait of a store is object-safe.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps entries: bytes under names, each with a TTL.
///
/// Every method is one atomic step for each key and, on Redis, one round trip. An `Err` means that the outcome is not
/// known, unless its kind is `Unavailable`: then nothing was sent. The *stamp* of an entry is the eight bytes that follow
/// its first eight (see `entry.rs`). A shorter value has a shorter stamp. For a key that holds a value other than a string,
/// all methods return `Foreign`, except `peek` and those that delete.
pub(crate) trait Store: Send + Sync + Debug {
    /// The entry, whatever its kind. `expected` is the size of reply to plan for, in bytes.
    fn get<'a>(
        &'a self,
        key: &'a Key,
        expected: usize,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, Error>>;

    /// The same, together with what the records of `tags` hold, as one batch.
    fn find<'a>(
        &'a self,
        key: &'a Key,
        tags: &'a [Tag],
        expected: usize,
    ) -> BoxFuture<'a, Result<Found, Error>>;

    /// [`get`](Self::get) for many keys, in their order, as one batch. A value that is not a string is `None` here, so one such key
    /// does not affect the others.
    fn get_many<'a>(
        &'a self,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, Error>>;

    /// Places `lease` if the key is empty and returns `None`. Otherwise changes nothing and returns the existing entry.
    fn lease<'a>(
        &'a self,
        key: &'a Key,
        lease: &'a [u8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, Error>>;

    /// Replaces the entry if it still has `stamp`: for the renewal of a lease, and for a fill whose claim is known only by its
    /// stamp.
    fn replace<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
        entry: &'a [u8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Replaced, Error>>;

    /// Replaces `claim`, which this process has placed, if it is still there: for the fill of a load, and the end of a put. A
    /// lease that was renewed since is still the same claim.
    fn fill<'a>(
        &'a self,
        key: &'a Key,
        claim: &'a Entry,
        entry: &'a [u8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Replaced, Error>> {
        self.replace(key, claim.stamp(), entry, ttl)
    }

    /// Marks the entry as being refreshed for `ttl` from now on, by the store's own clock, if it still has `stamp`. The
    /// rest of the entry and its expiry do not change. A `ttl` of zero removes the mark. A value that is not an entry of
    /// this format counts as another entry, even with the same stamp.
    fn refresh<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
        ttl: Duration,
        mark: Mark,
    ) -> BoxFuture<'a, Result<Refreshing, Error>>;

    /// Replaces the value of each key by its fence, as one batch. Returns how many writers share that fence now: one, or
    /// one more than the count of the fence that it replaced, unless that was [dead](crate::entry::is_dead). The count is
    /// kept in the four little-endian bytes of a fence from `FENCE_COUNT_AT`. On `Err`, some of them may be placed. If it
    /// is `Foreign`, all that could be placed are.
    fn fence<'a>(
        &'a self,
        fences: &'a [(Key, Vec<u8>)],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Vec<u32>, Error>>;

    /// Returns what the record of each tag holds, in the order of the tags. A tag without a record gets one that holds
    /// `stamp`, and a record that holds a stamp lives for at least `ttl` from now on. [`None`] for a record that holds no
    /// stamp: the tag is [fenced](crate::entry::FENCED), or its key holds a value of another program. On `Err`, some tags may
    /// have their records.
    ///
    /// What an entry depends on is captured before it is loaded. Whoever removes a record, or the store that loses it,
    /// makes every entry that names its stamp unusable.
    fn capture<'a>(
        &'a self,
        tags: &'a [Key],
        stamp: [u8; 8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Vec<Option<[u8; 8]>>, Error>>;

    /// Returns the first `length` bytes of each entry, in the order of the keys. `None` means no value, or a value that is
    /// not a string.
    fn peek<'a>(
        &'a self,
        keys: &'a [Key],
        length: usize,
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, Error>>;

    /// Returns the size of the entry in bytes and its remaining time, or `None` if there is no entry.
    fn measure<'a>(
        &'a self,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<(usize, Duration)>, Error>>;

    /// Stores without a condition, as one batch. An `Err` may have stored some of them.
    fn set_many<'a>(
        &'a self,
        entries: &'a [(Key, Vec<u8>)],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Removes the keys, as one batch. Returns how many existed.
    fn delete<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<u64, Error>>;

    /// The same with a result for each key: whether it existed, or why it could not be removed.
    fn delete_each<'a>(
        &'a self,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Vec<Result<bool, Error>>, Error>>;

    /// Removes those of the keys, which share one prefix, that hold an entry of any kind of a cache with that prefix.
    fn delete_entries<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Deleted, Error>>;

    /// Removes the entry if its stamp is still `stamp`, or if the value is not a string.
    fn delete_if<'a>(&'a self, key: &'a Key, stamp: &'a [u8])
    -> BoxFuture<'a, Result<bool, Error>>;

    /// Removes the claim if its stamp is still `stamp` and it is [dead](crate::entry::is_dead): it has no expiry, or a
    /// later one than it records itself.
    fn delete_dead<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Scans one slice of the keyspace, from `cursor` on, and returns the names that match any of `patterns`, which share one
    /// prefix. A name may appear in two slices, and may not be the name of an entry.
    fn scan<'a>(
        &'a self,
        patterns: &'a [Pattern],
        cursor: Cursor,
    ) -> BoxFuture<'a, Result<Scanned, Error>>;

    /// The same for a removal: every name that is there all the time is among those of a walk, also if it moves between the
    /// nodes of a cluster.
    fn walk<'a>(
        &'a self,
        patterns: &'a [Pattern],
        walk: &'a Walk,
    ) -> BoxFuture<'a, Result<Walked, Error>>;

    /// Makes the store reachable if possible: opens what is needed and sends a ping.
    fn probe(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// Returns what the server reports about itself, or `None` without a server.
    fn server(&self) -> BoxFuture<'_, Result<Option<ServerInfo>, Error>>;

    /// The same store, if it is a server that runs scripts.
    fn scripts(&self) -> Option<&dyn Scripts>;

    /// Counts the servers behind the store. It grows when another server replaces the last one, or when the same server may
    /// have lost what it acknowledged. A new server refuses callers until it is admitted.
    fn term(&self) -> u64;

    /// Lets callers use the server of `term`. Returns whether it is still the current one.
    fn admit(&self, term: u64) -> bool;

    /// Returns a number that grows whenever a part of the store may be reachable again that was not. Without parts it is 0.
    fn reopened(&self) -> u64;

    /// The nodes of a cluster that take writes; none without a cluster.
    fn nodes(&self) -> Vec<NodeHealth>;

    /// What does not work besides the nodes that are away, one sentence each. Nothing without a cluster.
    fn problems(&self) -> Vec<String>;

    /// The same store for the recovery, which prepares a new server for callers.
    fn for_recovery(&self) -> &dyn Store;

    /// Returns the signals for changes behind the store.
    fn signals(&self) -> Arc<Signals>;

    /// Returns until when this is known to be the right server. No other server replaced it before that moment.
    fn confirmed(&self) -> Instant;

    /// Returns when the last part of any answer arrived. [`None`] if nothing can arrive.
    fn last_arrival(&self) -> Option<Instant>;

    /// Returns whether a command would be sent: a connection is open, or none is needed.
    fn is_open(&self) -> bool;

    /// The statistics of what the store is.
    fn stats(&self) -> StoreStats;

    /// Closes what is open. Every later operation is `Unavailable`.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// An entry, and the stamps of tags at the same time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) entry: Option<Vec<u8>>,
    /// In the order of the tags. [`None`] for a tag without a stamp.
    pub(crate) stamps: Vec<Option<[u8; 8]>>,
}

/// Where a scan continues. Only the store that returned it can read it; the default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor(u64);

#[cfg(feature = "admin")]
impl Cursor {
    /// Returns it as a number, for a client that continues the scan later.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// Returns the cursor with this number.
    pub(crate) fn of(number: u64) -> Self {
        Self(number)
    }
}

/// One slice of the keyspace.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) names: Vec<Key>,
    /// Where to continue; [`None`] at the end.
    pub(crate) next: Option<Cursor>,
    /// About how many keys it looked at.
    pub(crate) looked: usize,
}

/// A walk of the keyspace, or of a part. Only the store that returned it can go on with it; the default is the beginning.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    within: Reach,
    cursor: Cursor,
    tour: Option<Box<Tour>>,
}

impl Walk {
    /// The beginning of a walk that finds at least the keys of this part.
    pub(crate) fn within(within: Reach) -> Self {
        Self {
            within,
            cursor: Cursor::default(),
            tour: None,
        }
    }

    /// The same walk from its beginning.
    pub(crate) fn again(&self) -> Self {
        Self::within(self.within.clone())
    }

    /// What a step of a scan found, in a store whose keys do not move.
    fn step(&self, scanned: Scanned) -> Walked {
        let Scanned {
            names,
            next,
            looked,
        } = scanned;
        Walked {
            names,
            next: next.map(|cursor| Self {
                cursor,
                ..self.clone()
            }),
            looked,
            missed: Reach::nothing(),
        }
    }
}

/// One step of a walk.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) names: Vec<Key>,
    /// Where to continue; [`None`] at the end.
    pub(crate) next: Option<Walk>,
    /// About how many keys it looked at.
    pub(crate) looked: usize,
    /// At the end: the part that could not be reached.
    pub(crate) missed: Reach,
}

/// The state of a node of a cluster that takes writes.
///
/// ```
/// use cache_runtime::{Cache, NodeState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// for node in cache.health().detail().await.nodes {
///     match node.state {
///         NodeState::Connected => {}
///         NodeState::Recovering => println!("{} is back", node.address),
///         NodeState::Unavailable => println!("{} is away: {:?}", node.address, node.reason),
///         _ => {}
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct NodeHealth {
    /// Where it is reached.
    pub address: String,
    /// Whether its keys are cached.
    pub state: NodeState,
    /// Why the last attempt to reach it failed, unless it is connected.
    pub reason: Option<String>,
}

/// Whether the keys of a node are cached.
///
/// See [`NodeHealth`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NodeState {
    /// They are.
    Connected,
    /// The node answers. What it may lack is applied first.
    Recovering,
    /// They are not: functions run uncached for them.
    Unavailable,
}

/// The result of removing the keys that a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) removed: u64,
    /// The prefix of another cache whose entries were among them and were skipped.
    pub(crate) other_prefix: Option<String>,
}

/// Told of keys that another server of a store has from now on.
pub(crate) trait Moves: Send + Sync {
    /// Another server has the keys of this part now. No caller uses the part before this returns. Returns whether something must be
    /// applied there first.
    fn slots_moved(&self, part: &Reach) -> bool;
}

/// Notifies waiters of changes behind a store.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// No connection is open any more, or they lead to another server.
    pub(crate) changed: Notify,
    /// Another server must be used from now on, and may already be connected.
    pub(crate) moved: Notify,
}

/// The outcome of replacing an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaced {
    Done,
    /// The key holds another entry.
    Other,
    /// There is no entry.
    Gone,
}

/// The owner of a refresh mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A new mark, if there is none.
    Claim,
    /// The mark of the caller, even if there is one.
    Own,
}

/// The outcome of marking an entry as being refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refreshing {
    Marked,
    /// The mark of another caller lasts for this long.
    Held(Duration),
    /// The entry is gone or was replaced.
    Gone,
}

/// The reply of `INFO`.
///
/// ```
/// use cache_runtime::Cache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// match cache.health().detail().await.server {
///     Some(server) => println!("Redis {} with {} keys", server.version, server.keys),
///     None => println!("no Redis answers"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ServerInfo {
    /// `redis_version`.
    pub version: String,
    /// `run_id`: it changes each time that a server starts.
    pub run_id: String,
    /// Since when the server runs, in seconds.
    pub uptime_seconds: u64,
    /// Bytes in use.
    pub memory_used: u64,
    /// The most bytes that were ever in use.
    pub memory_peak: u64,
    /// `maxmemory` in bytes; `None` means no limit.
    pub memory_max: Option<u64>,
    /// Keys in all databases.
    pub keys: u64,
    /// `evicted_keys`: keys that the server evicted because of `maxmemory`, since its start.
    pub evicted_keys: u64,
}

impl ServerInfo {
    /// Two servers as one: sums, and the later start.
    fn plus(self, other: Self) -> Self {
        Self {
            version: self.version,
            run_id: self.run_id,
            uptime_seconds: self.uptime_seconds.min(other.uptime_seconds),
            memory_used: self.memory_used + other.memory_used,
            memory_peak: self.memory_peak + other.memory_peak,
            memory_max: self
                .memory_max
                .zip(other.memory_max)
                .map(|(one, other)| one + other),
            keys: self.keys + other.keys,
            evicted_keys: self.evicted_keys + other.evicted_keys,
        }
    }
}
