//! A clock that is read in a few nanoseconds: the kernel writes its time down at every tick, and reading it is one load.

use std::sync::LazyLock;

use super::{since_1970, whole_millis};

/// The time of day when the program first asked, and the time of the coarse clock at that moment.
static BEGINNING: LazyLock<(u64, u64)> = LazyLock::new(|| (whole_millis(since_1970()), elapsed()));

/// Milliseconds since 1970 as they were known at the beginning. The clock of the system may be set later; this one is not.
#[inline]
pub(super) fn millis() -> u64 {
    let (day, beginning) = *BEGINNING;
    day.saturating_add(elapsed().saturating_sub(beginning))
}

#[cfg(target_os = "linux")]
fn elapsed() -> u64 {
    use rustix::time::{ClockId, clock_gettime};

    let now = clock_gettime(ClockId::MonotonicCoarse);
    let part = now.tv_nsec.cast_unsigned() / 1_000_000;
    now.tv_sec
        .cast_unsigned()
        .saturating_mul(1_000)
        .saturating_add(part)
}

#[cfg(not(target_os = "linux"))]
fn elapsed() -> u64 {
    static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    whole_millis(START.elapsed())
}
