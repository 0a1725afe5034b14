//! How long things took, in buckets whose number never grows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::stats::Times;

/// Each doubling is cut into this many buckets, so the middle of a bucket differs by at most 12.5 % from any value in it.
const PER_DOUBLING: u64 = 4;

/// Up to here each nanosecond has a bucket of its own.
const EXACT: u64 = 2 * PER_DOUBLING;

/// Where the last bucket begins, which has no end: 2³⁷ ns, some 137 s.
const LAST_BEGINS: u64 = 1 << 37;

const BUCKETS: usize = bucket(LAST_BEGINS) + 1;

/// Collects durations in a fixed 1.1 KiB; recording neither allocates nor locks.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
    max_nanos: AtomicU64,
}

impl Histogram {
    pub(crate) const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_nanos: AtomicU64::new(0),
            max_nanos: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(nanos, Relaxed);
        // A new maximum is rare, and reading is cheaper than writing.
        if nanos > self.max_nanos.load(Relaxed) {
            self.max_nanos.fetch_max(nanos, Relaxed);
        }
    }

    pub(crate) fn times(&self) -> Times {
        let mut distribution = Distribution::new();
        distribution.read(self);
        distribution.times()
    }
}

/// The sum of several histograms.
#[derive(Clone, Debug)]
pub(super) struct Distribution {
    buckets: [u64; BUCKETS],
    sum_nanos: u64,
    max_nanos: u64,
}

impl Distribution {
    pub(super) const fn new() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum_nanos: 0,
            max_nanos: 0,
        }
    }

    pub(super) fn read(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Relaxed);
        }
        self.sum_nanos = self
            .sum_nanos
            .saturating_add(histogram.sum_nanos.load(Relaxed));
        self.max_nanos = self.max_nanos.max(histogram.max_nanos.load(Relaxed));
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += bucket;
        }
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
        self.max_nanos = self.max_nanos.max(other.max_nanos);
    }

    pub(super) fn times(&self) -> Times {
        let count: u64 = self.buckets.iter().sum();
        let micros = |nanos: f64| (count > 0).then_some(nanos / 1_000.0);
        Times {
            count,
            average_micros: micros(self.sum_nanos as f64 / count as f64),
            p50_micros: micros(self.percentile(count, 50)),
            p99_micros: micros(self.percentile(count, 99)),
            max_micros: micros(self.max_nanos as f64),
        }
    }

    /// The duration that `percent` of all do not exceed: the nearest rank, seen through its bucket.
    fn percentile(&self, count: u64, percent: u64) -> f64 {
        let rank = u128::from(count) * u128::from(percent);
        let mut seen = 0_u128;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += u128::from(*bucket);
            if *bucket > 0 && seen * 100 >= rank {
                return middle(index).min(self.max_nanos as f64);
            }
        }
        self.max_nanos as f64
    }
}

/// Which bucket a duration falls into.
const fn bucket(nanos: u64) -> usize {
    let nanos = if nanos > LAST_BEGINS {
        LAST_BEGINS
    } else {
        nanos
    };
    if nanos < EXACT {
        return nanos as usize;
    }
    // The leading bit selects the doubling, and the next two bits select a quarter of it.
    let doubling = nanos.ilog2() as u64;
    let quarter = (nanos >> (doubling - 2)) & (PER_DOUBLING - 1);
    (EXACT + (doubling - 3) * PER_DOUBLING + quarter) as usize
}

/// Returns the duration that a bucket represents. The last bucket has no middle and represents the longest duration that
/// was recorded.
fn middle(bucket: usize) -> f64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket as f64;
    }
    if bucket as usize == BUCKETS - 1 {
        return f64::INFINITY;
    }
    let (doubling, quarter) = (
        (bucket - EXACT) / PER_DOUBLING + 3,
        (bucket - EXACT) % PER_DOUBLING,
    );
    let width = 1_u64 << (doubling - 2);
    ((PER_DOUBLING + quarter) * width) as f64 + (width - 1) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times_of(nanos: &[u64]) -> Times {
        let histogram = Histogram::new();
        for nanos in nanos {
            histogram.record(Duration::from_nanos(*nanos));
        }
        histogram.times()
    }

    fn nearest_rank(sorted: &[u64], percent: usize) -> u64 {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted[rank - 1]
    }

    proptest! {
        #[test]
        fn percentiles_are_within_an_eighth_of_the_exact_values(
            // All magnitudes up to the last bucket are equally likely.
            mut nanos in prop::collection::vec((0_u32..37, 0.0_f64..1.0), 1..200)
                .prop_map(|parts| parts.into_iter().map(|(bits, part)| ((1_u64 << bits) as f64 * (1.0 + part)) as u64).collect::<Vec<_>>()),
        ) {
            let times = times_of(&nanos);
            nanos.sort_unstable();

            for (percent, found) in [(50, times.p50_micros), (99, times.p99_micros)] {
                let exact = nearest_rank(&nanos, percent) as f64 / 1_000.0;
                let error = (found.expect("samples") - exact).abs();
                prop_assert!(error <= exact * 0.125 + 1e-9, "p{percent}: found {found:?}, exactly {exact}");
            }
            prop_assert_eq!(times.max_micros, Some(*nanos.last().expect("not empty") as f64 / 1_000.0));
            prop_assert_eq!(times.count, nanos.len() as u64);
        }

        #[test]
        fn longer_durations_never_fall_into_earlier_buckets(a: u64, b: u64) {
            let (shorter, longer) = (a.min(b), a.max(b));

            prop_assert!(bucket(shorter) <= bucket(longer));
            prop_assert!(bucket(longer) < BUCKETS);
        }
    }

    #[test]
    fn values_beyond_the_last_bucket_are_shown_by_the_maximum() {
        let hour = Duration::from_secs(3600).as_nanos() as u64;

        let times = times_of(&[hour, hour, u64::MAX]);

        assert_eq!(times.p50_micros, Some(u64::MAX as f64 / 1_000.0));
    }

    #[test]
    fn an_empty_histogram_has_no_times() {
        let times = times_of(&[]);

        assert_eq!(
            times,
            Times {
                count: 0,
                average_micros: None,
                p50_micros: None,
                p99_micros: None,
                max_micros: None
            }
        );
    }
}
