//! One snapshot of the statistics for all callbacks of a collection.
//!
//! Each instrument has its own callback, and nothing tells a callback which collection it belongs to. But a collection calls each
//! callback once. So a callback that has already read the latest snapshot is in a new collection, and takes a new snapshot. The other
//! callbacks of that collection read the new snapshot, so their numbers are consistent. This holds in any order of the callbacks, and also
//! if a view drops instruments.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cache_runtime::{Cache, Stats};
use opentelemetry::metrics::AsyncInstrument;

/// If two readers collect at the same time, their callbacks alternate. Some callbacks may not have read the latest snapshot when the next
/// collection begins. They must not read it then, so a snapshot is not used after this time.
const MAX_AGE: Duration = Duration::from_secs(5);

pub(crate) struct Snapshots {
    cache: Cache,
    latest: Mutex<Snapshot>,
}

struct Snapshot {
    number: u64,
    taken: Instant,
    stats: Arc<Stats>,
}

impl Snapshot {
    fn take(cache: &Cache, number: u64) -> Self {
        Self {
            number,
            taken: Instant::now(),
            stats: Arc::new(cache.stats()),
        }
    }
}

impl Snapshots {
    pub(crate) fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            latest: Mutex::new(Snapshot::take(cache, 0)),
        }
    }

    /// Returns a callback that passes the statistics and its instrument to `read`.
    pub(crate) fn callback<T: 'static>(
        self: &Arc<Self>,
        read: impl Fn(&Stats, &dyn AsyncInstrument<T>) + Send + Sync + 'static,
    ) -> impl Fn(&dyn AsyncInstrument<T>) + Send + Sync + 'static {
        let snapshots = Arc::clone(self);
        let last_read = AtomicU64::new(0);
        move |instrument| read(&snapshots.next(&last_read), instrument)
    }

    fn next(&self, last_read: &AtomicU64) -> Arc<Stats> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_read = last_read.load(Relaxed) == latest.number;
        if is_read || latest.taken.elapsed() > MAX_AGE {
            *latest = Snapshot::take(&self.cache, latest.number + 1);
        }
        last_read.store(latest.number, Relaxed);
        Arc::clone(&latest.stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callbacks_of_a_collection_read_one_snapshot() {
        let snapshots = Snapshots::new(&Cache::memory());
        let (one, other) = (AtomicU64::new(0), AtomicU64::new(0));

        let first = [snapshots.next(&one), snapshots.next(&other)];
        let second = [snapshots.next(&other), snapshots.next(&one)];

        assert!(Arc::ptr_eq(&first[0], &first[1]));
        assert!(Arc::ptr_eq(&second[0], &second[1]));
        assert!(!Arc::ptr_eq(&first[0], &second[0]));
    }

    #[test]
    fn an_old_snapshot_is_not_read_by_a_callback_that_missed_it() {
        let snapshots = Snapshots::new(&Cache::memory());
        let (one, other) = (AtomicU64::new(0), AtomicU64::new(0));
        let old = snapshots.next(&one);
        let mut latest = snapshots.latest.lock().unwrap();
        latest.taken = latest.taken.checked_sub(2 * MAX_AGE).unwrap();
        drop(latest);

        let new = snapshots.next(&other);

        assert!(!Arc::ptr_eq(&old, &new));
    }
}
