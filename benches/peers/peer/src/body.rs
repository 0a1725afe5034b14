//! The body of every cached function.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::Event;

static LOADS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(200);
static MILLIS: AtomicU64 = AtomicU64::new(0);
static ROW_READ: Notify = Notify::const_new();

/// Reads the row of an event, which takes as long as the driver has set.
pub async fn load(id: u64) -> Event {
    let event = Event::of_size(id, now(), bytes());
    LOADS.fetch_add(1, Ordering::Relaxed);
    ROW_READ.notify_one();
    let millis = MILLIS.load(Ordering::Relaxed);
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    event
}

pub(crate) fn set(bytes: usize, millis: u64) {
    BYTES.store(bytes, Ordering::Relaxed);
    MILLIS.store(millis, Ordering::Relaxed);
}

pub(crate) fn bytes() -> usize {
    BYTES.load(Ordering::Relaxed)
}

/// Returns how many bodies of this process have read their row.
pub(crate) fn loads() -> u64 {
    LOADS.load(Ordering::Relaxed)
}

/// Waits until more than `before` bodies of this process have read their row.
pub(crate) async fn row_read(before: u64) {
    while loads() <= before {
        ROW_READ.notified().await;
    }
}

/// Returns the nanoseconds since the Unix epoch, which all processes of the machine agree on.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
