//! The pause before the next attempt to reach an unavailable Redis.

use std::time::Duration;

/// The pause after a first failed attempt; it doubles with each further one.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Doubles from attempt to attempt up to `longest`, and spreads each pause over its upper half, so that the processes that
/// lost the same Redis do not come back at the same moment.
pub(crate) fn pause(failures: u32, longest: Duration) -> Duration {
    let whole = FIRST_PAUSE
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(longest);
    whole.mul_f64(0.5 + jitter() / 2.0)
}

/// A number from 0 to 1.
fn jitter() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_keep_at_least_half() {
        let longest = Duration::from_secs(3);

        for (failures, whole) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (5, 1600),
            (6, 3000),
            (40, 3000),
        ] {
            let pause = pause(failures, longest);
            let whole = Duration::from_millis(whole);
            assert!(
                pause >= whole / 2 && pause <= whole,
                "{failures}: {pause:?}"
            );
        }
    }
}
