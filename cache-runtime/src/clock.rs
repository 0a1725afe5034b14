//! The time of day, which tests can drive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Judges the age of entries. All clones show the same time.
///
/// Nothing is ordered by it: two processes whose clocks differ disagree on how old a value is, never on which is newer.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_millis: Arc<AtomicU64>,
}

impl Clock {
    /// Milliseconds since 1970.
    pub(crate) fn now_millis(&self) -> u64 {
        let system = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(system.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(self.ahead_millis.load(Ordering::Relaxed))
    }

    /// Lets time pass for everybody who holds this clock, so that a test need not wait.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.ahead_millis.fetch_add(millis, Ordering::Relaxed);
    }
}
