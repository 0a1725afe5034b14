//! How repeated loads of the same keys compare, by function.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A load of a key that was loaded before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reload {
    /// Whether the value is another one.
    pub(crate) is_changed: bool,
    /// The time between the loads.
    pub(crate) lived: Duration,
    /// For how long the first value was fresh.
    pub(crate) ttl: Duration,
}

impl Reload {
    /// Returns whether the first entry was gone before its TTL was over.
    pub(crate) fn is_early(&self) -> bool {
        self.lived < self.ttl
    }
}

/// The counters of one function.
#[derive(Debug, Default)]
pub(super) struct ReloadCounters {
    count: AtomicU64,
    changed: AtomicU64,
    early: AtomicU64,
    lived_millis: AtomicU64,
    expected_millis: AtomicU64,
}

/// What they count, in this process since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReloadCounts {
    /// Repeated loads.
    pub(crate) count: u64,
    /// Those with another value.
    pub(crate) changed: u64,
    /// Those that found the entry gone before its TTL was over.
    pub(crate) early: u64,
    /// How long these entries lived, in total.
    pub(crate) lived: Duration,
    /// How long they would have been fresh, in total.
    pub(crate) expected: Duration,
}

impl ReloadCounters {
    pub(super) fn add(&self, reload: Reload) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Relaxed);
        if reload.is_changed {
            self.changed.fetch_add(1, Relaxed);
        }
        if reload.is_early() {
            self.early.fetch_add(1, Relaxed);
            self.lived_millis.fetch_add(millis(reload.lived), Relaxed);
            self.expected_millis.fetch_add(millis(reload.ttl), Relaxed);
        }
    }

    pub(super) fn read(&self) -> ReloadCounts {
        let millis = |counter: &AtomicU64| Duration::from_millis(counter.load(Relaxed));
        ReloadCounts {
            count: self.count.load(Relaxed),
            changed: self.changed.load(Relaxed),
            early: self.early.load(Relaxed),
            lived: millis(&self.lived_millis),
            expected: millis(&self.expected_millis),
        }
    }
}
