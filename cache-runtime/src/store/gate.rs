//! A store that stops where a test wants it to: before an operation is sent, or between what it did and its answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::script::Scripts;
use super::{
    BoxFuture, Cursor, Deleted, Found, Mark, NodeHealth, Refreshing, Replaced, Scanned, ServerInfo,
    Signals, Store, Walk, Walked,
};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::key::{Key, Pattern};
use crate::metrics::StoreStats;
use crate::sync::Mutex;
use crate::tag::Tag;

/// Counts the points that a task passes, and stops it at the point that the test names.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    /// The number of points that are still passed. [`None`] stops nothing.
    left: Mutex<Option<usize>>,
    reached: Notify,
    open: Semaphore,
    refuses: AtomicBool,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            left: Mutex::default(),
            reached: Notify::new(),
            open: Semaphore::new(0),
            refuses: AtomicBool::new(false),
        }
    }
}

impl Gate {
    /// Stops the next task after `points` points.
    pub(crate) fn stop_after(&self, points: usize) {
        *self.left() = Some(points);
    }

    /// Stops nothing any more.
    pub(crate) fn disarm(&self) {
        *self.left() = None;
    }

    /// Waits until a task is stopped.
    pub(crate) async fn reached(&self) {
        self.shared.reached.notified().await;
    }

    /// Lets the stopped task continue.
    pub(crate) fn open(&self) {
        self.shared.open.add_permits(1);
    }

    /// From now on removals are not carried out and end in an error, or are again.
    pub(crate) fn refuse_removals(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
    }

    /// A point at which one may be stopped.
    pub(crate) async fn point(&self) {
        if self.is_here() {
            self.shared.reached.notify_one();
            if let Ok(permit) = self.shared.open.acquire().await {
                permit.forget();
            }
        }
    }

    fn is_here(&self) -> bool {
        let mut left = self.left();
        match *left {
            None => false,
            Some(0) => {
                *left = None;
                true
            }
            Some(more) => {
                *left = Some(more - 1);
                false
            }
        }
    }

    fn left(&self) -> std::sync::MutexGuard<'_, Option<usize>> {
        self.shared.left.lock()
    }
}

/// Any store, with a point before and a point behind each of its operations.
pub(crate) struct Gated {
    store: Arc<dyn Store>,
    gate: Gate,
}

impl Gated {
    pub(crate) fn new(store: Arc<dyn Store>, gate: Gate) -> Self {
        Self { store, gate }
    }

    fn between<'a, T: Send + 'a>(
        &'a self,
        operation: BoxFuture<'a, Result<T, Error>>,
    ) -> BoxFuture<'a, Result<T, Error>> {
        Box::pin(async move {
            self.gate.point().await;
            let answer = operation.await;
            self.gate.point().await;
            answer
        })
    }
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gated").field(&self.store).finish()
    }
}

macro_rules! gated {
    ($($name:ident($($argument:ident: $given:ty),*) -> $answer:ty;)*) => {
        $(fn $name<'a>(&'a self, $($argument: $given),*) -> BoxFuture<'a, Result<$answer, Error>> {
            self.between(self.store.$name($($argument),*))
        })*
    };
}

impl Store for Gated {
    gated! {
        get(key: &'a Key, expected: usize) -> Option<Vec<u8>>;
        find(key: &'a Key, tags: &'a [Tag], expected: usize) -> Found;
        get_many(keys: &'a [Key]) -> Vec<Option<Vec<u8>>>;
        lease(key: &'a Key, lease: &'a [u8], ttl: Duration) -> Option<Vec<u8>>;
        replace(key: &'a Key, stamp: [u8; 8], entry: &'a [u8], ttl: Duration) -> Replaced;
        fill(key: &'a Key, claim: &'a Entry, entry: &'a [u8], ttl: Duration) -> Replaced;
        refresh(key: &'a Key, stamp: [u8; 8], ttl: Duration, mark: Mark) -> Refreshing;
        capture(tags: &'a [Key], stamp: [u8; 8], ttl: Duration) -> Vec<Option<[u8; 8]>>;
        fence(fences: &'a [(Key, Vec<u8>)], ttl: Duration) -> Vec<u32>;
        set_many(entries: &'a [(Key, Vec<u8>)], ttl: Duration) -> ();
        delete_if(key: &'a Key, stamp: &'a [u8]) -> bool;
        delete_dead(key: &'a Key, stamp: [u8; 8]) -> bool;
        delete_each(keys: &'a [Key]) -> Vec<Result<bool, Error>>;
        delete_entries(keys: &'a [Key]) -> Deleted;
        scan(patterns: &'a [Pattern], cursor: Cursor) -> Scanned;
        walk(patterns: &'a [Pattern], walk: &'a Walk) -> Walked;
        peek(keys: &'a [Key], length: usize) -> Vec<Option<Vec<u8>>>;
        measure(key: &'a Key) -> Option<(usize, Duration)>;
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<u64, Error>> {
        if self.gate.shared.refuses.load(Ordering::SeqCst) {
            return Box::pin(async { Err(Error::new(ErrorKind::Command, "refused by the test")) });
        }
        self.between(self.store.delete(keys))
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.store.probe()
    }

    fn server(&self) -> BoxFuture<'_, Result<Option<ServerInfo>, Error>> {
        self.store.server()
    }

    fn scripts(&self) -> Option<&dyn Scripts> {
        self.store.scripts()
    }

    fn term(&self) -> u64 {
        self.store.term()
    }

    fn admit(&self, term: u64) -> bool {
        self.store.admit(term)
    }

    fn reopened(&self) -> u64 {
        self.store.reopened()
    }

    fn nodes(&self) -> Vec<NodeHealth> {
        self.store.nodes()
    }

    fn problems(&self) -> Vec<String> {
        self.store.problems()
    }

    fn for_recovery(&self) -> &dyn Store {
        self
    }

    fn signals(&self) -> Arc<Signals> {
        self.store.signals()
    }

    fn confirmed(&self) -> Instant {
        self.store.confirmed()
    }

    fn last_arrival(&self) -> Option<Instant> {
        self.store.last_arrival()
    }

    fn is_open(&self) -> bool {
        self.store.is_open()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close()
    }
}
