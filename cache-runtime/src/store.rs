//! The contract between the cache and whatever keeps its entries.

mod arrivals;
pub(crate) mod backoff;
mod connection;
#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod gate;
pub(crate) mod guard;
mod maintenance;
pub(crate) mod memory;
mod pool;
pub(crate) mod redis;
mod reply;
pub(crate) mod script;
#[cfg(test)]
pub(crate) mod support;
mod topology;
mod watch;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::script::Scripts;
use crate::error::Error;
use crate::key::{Key, Pattern};
use crate::metrics::PoolStats;

/// A boxed future, so that a store can stand behind a pointer.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps entries: bytes under names, each with a life.
///
/// Every method is one atomic step for each key and, on Redis, one round trip.
/// An `Err` means that the outcome is not known, unless its kind is `Unavailable`: then nothing was sent. An entry's *stamp*
/// is the eight bytes that follow its first eight (see `entry.rs`); a shorter value has as stamp what it has of them. A key that
/// holds something that is no string answers `Foreign` to all methods but `peek` and those that delete.
pub(crate) trait Store: Send + Sync + Debug {
    /// The entry, whatever its kind. `expected` is the size of reply to plan for, in bytes.
    fn get<'a>(
        &'a self,
        key: &'a Key,
        expected: usize,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, Error>>;

    /// The same for many keys, in their order, as one batch. What is no string is `None` here: one such key must not cost
    /// the others.
    fn get_many<'a>(
        &'a self,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, Error>>;

    /// Places `lease` where nothing is and answers `None`; otherwise changes nothing and answers what is there.
    fn lease<'a>(
        &'a self,
        key: &'a Key,
        lease: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, Error>>;

    /// Replaces the entry if it still bears `stamp`: the fill of a load, the end of a put whose fence stands, and the renewal of a
    /// lease.
    fn replace<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
        entry: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<Replaced, Error>>;

    /// Marks the entry as being refreshed for `life` from now on, by the store's own clock, if it still bears `stamp`; it
    /// stays what it is otherwise, and so does its life. A `life` of zero takes the mark away. What is no entry of this
    /// format is another one, whatever its stamp.
    fn refresh<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
        life: Duration,
        mark: Mark,
    ) -> BoxFuture<'a, Result<Refreshing, Error>>;

    /// Replaces whatever is under each key by its fence, as one batch, and answers how many writers that fence now stands
    /// for: one, or one more than the count of the fence that it replaced, unless that was [dead](crate::entry::is_dead). The count is kept in the four little-endian bytes
    /// of a fence from `FENCE_COUNT_AT`. An `Err` may have placed some of them; if it is `Foreign`, all that could be.
    fn fence<'a>(
        &'a self,
        fences: &'a [(Key, Vec<u8>)],
        life: Duration,
    ) -> BoxFuture<'a, Result<Vec<u32>, Error>>;

    /// The first `length` bytes of each entry, in the order of the keys; `None` where there is nothing or what is no string.
    fn peek<'a>(
        &'a self,
        keys: &'a [Key],
        length: usize,
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, Error>>;

    /// The size of the entry in bytes and what it has left to live; `None` where there is none.
    fn measure<'a>(
        &'a self,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<(usize, Duration)>, Error>>;

    /// For the contract's tests: stores without a condition.
    #[cfg(test)]
    fn set<'a>(
        &'a self,
        key: &'a Key,
        entry: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Stores without a condition, as one batch. An `Err` may have stored some of them.
    fn set_many<'a>(
        &'a self,
        entries: &'a [(Key, Vec<u8>)],
        life: Duration,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Removes the keys, as one batch, and answers how many there were.
    fn delete<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<u64, Error>>;

    /// The same with an answer for each key: whether it was there, or why it could not be removed.
    fn delete_each<'a>(
        &'a self,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Vec<Result<bool, Error>>, Error>>;

    /// Removes those of the keys, which have one prefix, that hold an entry of a cache with that prefix, whatever its kind.
    fn delete_entries<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Deleted, Error>>;

    /// Removes the entry if its stamp is still `stamp`, or if what is there is no string.
    fn delete_if<'a>(&'a self, key: &'a Key, stamp: &'a [u8])
    -> BoxFuture<'a, Result<bool, Error>>;

    /// Removes the claim if its stamp is still `stamp` and it is [dead](crate::entry::is_dead): it has no expiry, or a later one than it
    /// says itself.
    fn delete_dead<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Looks at one slice of the keyspace and answers the names that match any of `patterns`, which have one prefix. Begins at
    /// cursor 0; answers where to go on, 0 at the end. A name may come in two slices, and need not be that of an entry.
    fn scan<'a>(
        &'a self,
        patterns: &'a [Pattern],
        cursor: u64,
    ) -> BoxFuture<'a, Result<(u64, Vec<Key>), Error>>;

    /// Makes the store reachable if it can be: opens what is needed and asks for a sign of life.
    fn probe(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// What the server says about itself; `None` where there is no server.
    fn server(&self) -> BoxFuture<'_, Result<Option<ServerInfo>, Error>>;

    /// The same store, if it is a server that runs scripts.
    fn scripts(&self) -> Option<&dyn Scripts>;

    /// Counts the servers that stood behind the store: grows when another one takes the place of the last, or the same one
    /// after it may have forgotten what it acknowledged. The new one refuses callers until it is admitted.
    fn term(&self) -> u64;

    /// Lets callers use the server of `term`. Returns whether it still is that one.
    fn admit(&self, term: u64) -> bool;

    /// The same store for who makes a new server fit for callers.
    fn for_recovery(&self) -> &dyn Store;

    /// What tells of changes behind the store.
    fn signals(&self) -> Arc<Signals>;

    /// Until when it is known that this is the right server. Before that moment no other had taken its place.
    fn confirmed(&self) -> Instant;

    /// Returns whether a part of any answer arrived after `moment`.
    fn has_arrivals_since(&self, moment: Instant) -> bool;

    /// Returns whether a command would be sent: a connection is open, or none is needed.
    fn is_open(&self) -> bool;

    /// The connections, where there are any.
    fn pool(&self) -> Option<PoolStats>;

    /// Closes what is open. Every later operation is `Unavailable`.
    fn close(&self) -> BoxFuture<'_, ()>;
}

#[cfg(test)]
impl dyn Store {
    /// What the entry has left to live.
    pub(crate) async fn ttl(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let measured = self.measure(key).await?;
        Ok(measured.map(|(_, left)| left))
    }
}

/// What was removed of what a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) removed: u64,
    /// The prefix of another cache whose entries were among it, and were left alone.
    pub(crate) other_prefix: Option<String>,
}

/// Tells who waits for them of changes behind a store.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// No connection is open any more, or they lead to another server.
    pub(crate) changed: Notify,
    /// Another server is to be used from now on, and may be there already.
    pub(crate) moved: Notify,
}

/// What came of replacing an entry that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaced {
    Done,
    /// Another entry stands there.
    Other,
    /// There is none.
    Gone,
}

/// Whose mark of a refresh it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A new one, where none stands.
    Claim,
    /// The caller's own, whatever stands.
    Own,
}

/// What came of marking an entry as being refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refreshing {
    Marked,
    /// Somebody else's mark stands for so long.
    Held(Duration),
    /// The entry that was seen is not there any more.
    Gone,
}

/// What `INFO` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ServerInfo {
    /// `redis_version`.
    pub version: String,
    /// `run_id`: another one each time that a server starts.
    pub run_id: String,
    /// Since when the server runs, in seconds.
    pub uptime: u64,
    /// Bytes in use.
    pub memory_used: u64,
    /// The most bytes that were ever in use.
    pub memory_peak: u64,
    /// `maxmemory` in bytes; `None` means no limit.
    pub memory_max: Option<u64>,
}
