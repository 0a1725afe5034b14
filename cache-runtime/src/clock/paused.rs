//! tokio's clock, where a test has paused it.
//!
//! A paused clock stands still while tasks run, and jumps to the next timer when all of them wait. An answer of Redis takes real
//! time, so without a [`hold`] every deadline would be over before it arrives.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{since_1970, whole_millis};

/// One moment on both clocks.
static MOMENT: LazyLock<(Duration, Instant)> = LazyLock::new(|| (since_1970(), Instant::now()));

/// Milliseconds since 1970 by tokio's clock, if a test moves it.
pub(super) fn millis() -> Option<u64> {
    let (then, moment) = *MOMENT;
    let now = moved()?;
    let later = now.saturating_duration_since(moment);
    let earlier = moment.saturating_duration_since(now);
    // Rounded once, at the end: a minute is a minute wherever it begins.
    Some(whole_millis((then + later).saturating_sub(earlier)))
}

/// Whether tokio's clock is known to be the real one.
static IS_REAL: AtomicBool = AtomicBool::new(false);

/// Makes the cache as fast as it is without the feature `testing`, for benchmarks: it no longer checks whether a test has paused
/// tokio's clock. With the check, a hit reads the time nine times more.
///
/// ```
/// use cache_runtime::testing::assume_real_time;
///
/// fn main() {
///     assume_real_time();
///     // … measure …
/// }
/// ```
pub fn assume_real_time() {
    IS_REAL.store(true, Ordering::Relaxed);
}

/// Returns whether a test has paused tokio's clock.
pub(crate) fn is_paused() -> bool {
    moved().is_some()
}

/// The time of tokio's clock, if it is another than the real one.
fn moved() -> Option<Instant> {
    if IS_REAL.load(Ordering::Relaxed) {
        return None;
    }
    let before = Instant::now();
    let now = tokio::time::Instant::now().into_std();
    let is_real = (before..=Instant::now()).contains(&now);
    (!is_real).then_some(now)
}

/// Keeps a paused clock from jumping.
#[derive(Debug)]
pub(crate) struct Hold {
    /// Dropped, it ends the wait.
    _ended: Sender<()>,
    wait: JoinHandle<()>,
}

/// Keeps a paused clock from jumping until the hold is dropped, but for `limit` of real time at most: then the timers of the one
/// who waits pass.
pub(crate) fn hold(limit: Duration) -> Option<Hold> {
    moved().map(|_| {
        let (ended, wait) = channel();
        // tokio does not let time jump while a blocking task runs.
        let wait = tokio::task::spawn_blocking(move || {
            let _ = wait.recv_timeout(limit);
        });
        Hold {
            _ended: ended,
            wait,
        }
    })
}

/// Waits for `work`, but no longer than `limit` of real time if the clock is paused: then `work` cannot find out that its time is
/// over while somebody else [`hold`]s it.
pub(crate) async fn in_real_time<T>(
    limit: Duration,
    work: impl Future<Output = Option<T>>,
) -> Option<T> {
    match hold(limit) {
        None => work.await,
        Some(mut hold) => tokio::select! {
            biased;
            done = work => done,
            _ = &mut hold.wait => None,
        },
    }
}
