//! How long things took, in buckets whose number never grows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

/// Durations of operations, in microseconds. Until something is timed, all fields except `count` are `None`.
///
/// ```
/// use cache_runtime::{Cache, cacheable};
///
/// #[cacheable(key = "double:<n>")]
/// async fn double(n: u32) -> u32 {
///     2 * n
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// cache.run(double(2)).await;
///
/// let loads = cache.stats().total.load_time;
/// assert_eq!(loads.count, 1);
/// assert!(loads.p99_micros.is_some());
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Times {
    /// The number of timed operations.
    pub count: u64,
    /// The average duration, exact.
    pub average_micros: Option<f64>,
    /// The median, with an error of at most 12.5 %.
    pub p50_micros: Option<f64>,
    /// The 99th percentile, with an error of at most 12.5 %.
    pub p99_micros: Option<f64>,
    /// The longest duration since the start, exact.
    pub max_micros: Option<f64>,
}

/// Where the buckets of one decade end, in parts of 10: at most a quarter above the last end. So the middle of a bucket differs by
/// at most 12.5 % from any value in it, and the ends that people ask about, such as 1 ms and 100 ms, are exact.
const STEPS: [u64; 13] = [12, 15, 17, 20, 25, 30, 35, 40, 50, 60, 70, 80, 100];

/// Up to here each number has a bucket of its own.
const EXACT: u64 = 10;

/// From 10 ns to 1,000 s.
const DECADES: usize = 11;

const BOUNDS: usize = EXACT as usize + 1 + DECADES * STEPS.len();

/// The largest number in each bucket. One more bucket holds everything above.
const ENDS: [u64; BOUNDS] = {
    let mut ends = [0; BOUNDS];
    let mut bound = 0;
    while bound <= EXACT as usize {
        ends[bound] = bound as u64;
        bound += 1;
    }
    let (mut decade, mut scale) = (0, 1);
    while decade < DECADES {
        let mut step = 0;
        while step < STEPS.len() {
            ends[bound] = STEPS[step] * scale;
            bound += 1;
            step += 1;
        }
        decade += 1;
        scale *= 10;
    }
    ends
};

const BUCKETS: usize = BOUNDS + 1;

/// The first bucket that the numbers with this leading bit and these two bits behind it can be in. It saves a search: at most
/// three buckets end among them.
const FIRST: [u8; 256] = {
    let mut first = [0; 256];
    let mut bucket = 0;
    let mut lead = 0;
    while lead < 256 {
        let least = match lead {
            0..8 => 0,
            _ => (4 + lead % 4) << (lead / 4 - 2),
        };
        while bucket < BOUNDS && ENDS[bucket] < least {
            bucket += 1;
        }
        first[lead as usize] = bucket as u8;
        lead += 1;
    }
    first
};

/// Collects durations, or other numbers, in a fixed 1.2 KiB; recording neither allocates nor locks.
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
        self.record_number(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Records something that is not a duration, such as a size in bytes.
    pub(super) fn record_number(&self, nanos: u64) {
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(nanos, Relaxed);
        // A new maximum is rare, and reading is cheaper than writing.
        if nanos > self.max_nanos.load(Relaxed) {
            self.max_nanos.fetch_max(nanos, Relaxed);
        }
    }

    pub(crate) fn distribution(&self) -> Distribution {
        let mut distribution = Distribution::new();
        distribution.read(self);
        distribution
    }

    #[cfg(test)]
    fn times(&self) -> Times {
        self.distribution().times()
    }
}

/// The sum of several histograms.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distribution {
    buckets: [u64; BUCKETS],
    sum_nanos: u64,
    max_nanos: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self::new()
    }
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

    /// Returns how many numbers do not exceed each of `ends`, which are ends of buckets.
    pub(super) fn up_to<'a, T>(&'a self, ends: &'a [(u64, T)]) -> impl Iterator<Item = u64> + 'a {
        ends.iter()
            .map(|(end, _)| self.buckets[..=bucket(*end)].iter().sum())
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(super) fn sum(&self) -> u64 {
        self.sum_nanos
    }

    pub(crate) fn times(&self) -> Times {
        let count = self.count();
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

/// Returns the bucket of a number.
const fn bucket(number: u64) -> usize {
    if number <= EXACT {
        return number as usize;
    }
    let doubling = number.ilog2();
    let quarter = (number >> (doubling - 2)) % 4;
    let mut bucket = FIRST[doubling as usize * 4 + quarter as usize] as usize;
    while bucket < BOUNDS && ENDS[bucket] < number {
        bucket += 1;
    }
    bucket
}

/// Returns the number that a bucket represents. The last bucket has no middle and represents the largest number that was
/// recorded.
fn middle(bucket: usize) -> f64 {
    match (bucket, ENDS.get(bucket)) {
        (_, None) => f64::INFINITY,
        (0, Some(end)) => *end as f64,
        (_, Some(end)) => (ENDS[bucket - 1] + 1 + end) as f64 / 2.0,
    }
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

    proptest! {
        #[test]
        fn each_number_is_in_the_first_bucket_that_does_not_end_below_it(
            number in prop_oneof![any::<u64>(), (0_u32..42).prop_flat_map(|bits| 1_u64 << bits..2 << bits)],
        ) {
            prop_assert_eq!(bucket(number), ENDS.partition_point(|end| *end < number));
        }
    }

    #[test]
    fn counts_up_to_the_end_of_a_bucket_are_exact() {
        let histogram = Histogram::new();
        let ms = 1_000_000;
        for nanos in [0, 100 * ms - 1, 100 * ms, 100 * ms + 1, 3_600_000 * ms] {
            histogram.record_number(nanos);
        }
        let mut distribution = Distribution::new();
        distribution.read(&histogram);

        let up_to: Vec<_> = distribution
            .up_to(&[(ms, ()), (100 * ms, ()), (1_000 * ms, ())])
            .collect();

        assert_eq!((up_to, distribution.count()), (vec![1, 3, 4], 5));
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
