//! The time of day, which tests can control.

mod coarse;
#[cfg(any(test, feature = "testing"))]
mod paused;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(any(test, feature = "testing"))]
pub use self::paused::assume_real_time;
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::paused::{hold, in_real_time, is_paused};

/// How far [`Clock::coarse_millis`] may be behind: a tick of the kernel, which is 10 ms at most.
pub(crate) const COARSE: u64 = 10;

/// The clock for the age of entries. All clones show the same time.
///
/// With the feature `testing` it follows tokio's clock if a test pauses or advances that clock: see
/// [`testing`](crate::testing#time).
///
/// Nothing is ordered by this clock: two processes whose clocks differ disagree on the age of a value, never on which
/// value is newer.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::{Cache, Clock, Config};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_runtime::Error> {
/// let clock = Clock::stopped();
/// let cache = Cache::connect(Config::default().clock(clock.clone())).await?;
/// cache.set("stock:7", &12, 60).await;
///
/// clock.advance(Duration::from_secs(59));
/// assert_eq!(cache.ttl("stock:7").await, Some(Duration::from_secs(1)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_millis: Arc<AtomicU64>,
    /// The current time, if the clock is stopped.
    stopped_at: Option<u64>,
}

impl Clock {
    /// Creates a clock that does not move until it is advanced, for tests that need exact times.
    ///
    /// A rate limiter also uses a test's clock instead of Redis's clock.
    pub fn stopped() -> Self {
        Self {
            ahead_millis: Arc::default(),
            stopped_at: Some(system_millis()),
        }
    }

    /// Returns milliseconds since 1970.
    pub(crate) fn now_millis(&self) -> u64 {
        self.stopped_at
            .unwrap_or_else(system_millis)
            .saturating_add(self.ahead_millis.load(Ordering::Relaxed))
    }

    /// Returns the same time if a test controls this clock or tokio's clock.
    pub(crate) fn driven(&self) -> Option<u64> {
        let is_driven = self.stopped_at.is_some()
            || self.ahead_millis.load(Ordering::Relaxed) > 0
            || tokio_millis().is_some();
        is_driven.then(|| self.now_millis())
    }

    /// Returns milliseconds that never go back, for periods inside this process. It is read much faster than other clocks and
    /// is up to [`COARSE`] behind.
    #[inline]
    pub(crate) fn coarse_millis(&self) -> u64 {
        self.stopped_at
            .or_else(tokio_millis)
            .unwrap_or_else(coarse::millis)
            .saturating_add(self.ahead_millis.load(Ordering::Relaxed))
    }

    /// Advances the time for all clones of this clock, so a test does not have to wait.
    pub fn advance(&self, by: Duration) {
        self.ahead_millis
            .fetch_add(whole_millis(by), Ordering::Relaxed);
    }
}

/// Returns whole milliseconds, saturating.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn system_millis() -> u64 {
    tokio_millis().unwrap_or_else(|| whole_millis(since_1970()))
}

#[cfg(any(test, feature = "testing"))]
use self::paused::millis as tokio_millis;

/// Production never pauses tokio's clock, and checking for it takes time.
#[cfg(not(any(test, feature = "testing")))]
fn tokio_millis() -> Option<u64> {
    None
}

/// Returns whether a test has paused tokio's clock.
#[cfg(not(any(test, feature = "testing")))]
pub(crate) fn is_paused() -> bool {
    false
}

/// Keeps tokio's paused clock from advancing automatically, in builds where tests may pause it.
#[cfg(not(any(test, feature = "testing")))]
pub(crate) fn hold(_limit: Duration) -> impl Sized {}

/// Waits for `work`. Its timers use real time unless tokio's clock is paused.
#[cfg(not(any(test, feature = "testing")))]
pub(crate) fn in_real_time<F: Future>(_limit: Duration, work: F) -> F {
    work
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Returns once the system clock shows a different millisecond than at the call.
    fn let_the_system_clock_move() {
        let begun = system_millis();
        while system_millis() == begun {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_plain_clock_shows_the_time_of_the_system() {
        let clock = Clock::default();

        let before = system_millis();
        let shown = clock.now_millis();

        assert!((before..=system_millis()).contains(&shown), "{shown}");
    }

    #[test]
    fn an_advanced_clock_continues_from_there_for_all_clones() {
        let clock = Clock::default();
        let held = clock.clone();

        clock.advance(MINUTE);
        let before = system_millis();
        let shown = held.now_millis();
        let_the_system_clock_move();

        assert!((before + 60_000..=system_millis() + 60_000).contains(&shown));
        assert!(held.now_millis() > shown);
    }

    #[test]
    fn a_stopped_clock_shows_the_time_of_its_creation() {
        let before = system_millis();
        let clock = Clock::stopped();
        let after = system_millis();
        let shown = clock.now_millis();

        let_the_system_clock_move();

        assert!((before..=after).contains(&shown), "{shown}");
        assert_eq!(clock.now_millis(), shown);
    }

    #[test]
    fn a_stopped_clock_advances_exactly_for_all_clones() {
        let clock = Clock::stopped();
        let held = clock.clone();
        let shown = clock.now_millis();

        clock.advance(MINUTE);
        held.advance(Duration::from_millis(1));

        assert_eq!(clock.now_millis(), shown + 60_001);
        assert_eq!(held.now_millis(), shown + 60_001);
    }

    #[test]
    fn a_plain_clock_is_not_driven() {
        assert_eq!(Clock::default().driven(), None);
    }

    #[test]
    fn a_stopped_clock_is_driven_from_the_start() {
        let clock = Clock::stopped();

        assert_eq!(clock.driven(), Some(clock.now_millis()));
    }

    #[test]
    fn a_clock_is_driven_after_it_was_advanced() {
        let clock = Clock::default();
        let held = clock.clone();

        held.advance(MINUTE);

        let before = system_millis() + 60_000;
        let driven = clock.driven().expect("advanced");
        assert!((before..=system_millis() + 60_000).contains(&driven));
    }
}
