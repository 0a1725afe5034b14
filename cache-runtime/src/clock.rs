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
    /// Where it stands, if it does.
    stopped_at: Option<u64>,
}

impl Clock {
    /// A clock that stands still until it is advanced, for tests that need exact times.
    ///
    /// A rate limiter takes a clock that a test drives for that of Redis, too.
    pub fn stopped() -> Self {
        Self {
            ahead_millis: Arc::default(),
            stopped_at: Some(system_millis()),
        }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_millis(&self) -> u64 {
        self.stopped_at
            .unwrap_or_else(system_millis)
            .saturating_add(self.ahead_millis.load(Ordering::Relaxed))
    }

    /// The same if a test drives this clock.
    pub(crate) fn driven(&self) -> Option<u64> {
        let is_driven = self.stopped_at.is_some() || self.ahead_millis.load(Ordering::Relaxed) > 0;
        is_driven.then(|| self.now_millis())
    }

    /// Lets time pass for everybody who holds this clock, so that a test need not wait.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.ahead_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

fn system_millis() -> u64 {
    let system = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(system.as_millis()).unwrap_or(u64::MAX)
}
