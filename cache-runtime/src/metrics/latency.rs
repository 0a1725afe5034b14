//! How long store operations took, in few steps, and which of them were slow: for charts of the last minutes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Metrics;
use crate::sync::Mutex;

/// Where the steps end, in nanoseconds, with their names. 100 ms is the default of `slow_threshold`.
pub(crate) const STEPS: [(u64, &str); 11] = [
    (50_000, "50 µs"),
    (100_000, "100 µs"),
    (250_000, "250 µs"),
    (500_000, "500 µs"),
    (1_000_000, "1 ms"),
    (2_500_000, "2.5 ms"),
    (10_000_000, "10 ms"),
    (25_000_000, "25 ms"),
    (100_000_000, "100 ms"),
    (250_000_000, "250 ms"),
    (1_000_000_000, "1 s"),
];

/// How many operations ended in each step; the last one has no end.
pub(crate) type Latencies = [u64; STEPS.len() + 1];

/// The number of slow operations that are kept.
const KEPT: usize = 50;

/// An operation that took `slow_threshold` or longer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Slow {
    #[serde(skip)]
    pub(crate) at: Instant,
    pub(crate) operation: &'static str,
    pub(crate) function: &'static str,
    /// As the log shows it.
    pub(crate) key: String,
    pub(crate) millis: f64,
}

/// The last slow operations.
#[derive(Debug, Default)]
pub(super) struct SlowLog(Mutex<VecDeque<Slow>>);

impl SlowLog {
    pub(super) fn add(
        &self,
        operation: &'static str,
        function: &'static str,
        key: String,
        took: Duration,
    ) {
        let mut kept = self.0.lock();
        kept.truncate(KEPT - 1);
        kept.push_front(Slow {
            at: Instant::now(),
            operation,
            function,
            key,
            millis: took.as_secs_f64() * 1_000.0,
        });
    }
}

impl Metrics {
    /// Returns how long all store operations took so far.
    pub(crate) fn latencies(&self) -> Latencies {
        let mut latencies = Latencies::default();
        for operation in self.shared.operations.read() {
            let mut before = 0;
            let all = [operation.time.count()];
            let up_to = operation.time.up_to(&STEPS).chain(all);
            for (sum, up_to) in latencies.iter_mut().zip(up_to) {
                *sum += up_to.saturating_sub(before);
                before = up_to;
            }
        }
        latencies
    }

    /// Returns the last slow operations, the newest first.
    pub(crate) fn slow(&self) -> Vec<Slow> {
        self.shared.slow.0.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::SiteSlot;

    #[test]
    fn operations_are_counted_in_the_step_that_they_end_in() {
        static SLOT: SiteSlot = SiteSlot::new("app::event", "event:<id>");
        let metrics = Metrics::new();
        let site = metrics.site(&SLOT);
        for micros in [1, 50, 51, 100_000, 100_001, 2_000_000] {
            site.operated("get", Duration::from_micros(micros), None, false);
        }

        assert_eq!(metrics.latencies(), [2, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1]);
    }

    #[test]
    fn only_the_last_slow_operations_are_kept() {
        let log = SlowLog::default();
        for number in 0..1_000 {
            log.add(
                "get",
                "app::event",
                number.to_string(),
                Duration::from_millis(150),
            );
        }

        let kept = log.0.lock();
        assert_eq!(
            (kept.len(), &*kept[0].key, kept[0].millis),
            (KEPT, "999", 150.0)
        );
    }
}
