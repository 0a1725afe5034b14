//! What can happen, counted.
//!
//! Counting is meant for the path of a hit: it takes no lock and does not allocate. Each site keeps [`STRIPES`] sets of
//! counters, and a thread sticks to one of them: a counter that two threads share costs three times what a private one
//! does.

mod event;
mod exposition;
#[cfg(feature = "metrics")]
mod facade;
mod family;
mod histogram;
#[cfg(feature = "admin")]
mod hot;
#[cfg(feature = "admin")]
mod latency;
mod limits;
mod operations;
mod prometheus;
mod recent;
mod reloads;
mod sessions;
mod stats;

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub(crate) use self::event::Event;
use self::event::Kind;
pub(crate) use self::exposition::Format;
use self::histogram::Distribution;
pub(crate) use self::histogram::Histogram;
pub use self::histogram::Times;
#[cfg(feature = "admin")]
pub(crate) use self::hot::Hot;
#[cfg(feature = "admin")]
pub(crate) use self::latency::{Latencies, STEPS, Slow};
#[cfg(feature = "limits")]
pub(crate) use self::limits::LimitEvent;
pub(crate) use self::limits::LimitMetrics;
pub use self::limits::LimitStats;
use self::limits::Limits;
pub use self::operations::OperationStats;
pub(crate) use self::operations::label as operation_label;
use self::operations::{Operation, Operations};
use self::recent::Recent;
use self::reloads::ReloadCounters;
pub(crate) use self::reloads::{Reload, ReloadCounts};

#[cfg(feature = "sessions")]
pub(crate) use self::sessions::SessionEvent;
pub(crate) use self::sessions::SessionMetrics;
pub use self::sessions::SessionStats;
pub use self::stats::{
    Counts, FallbackStats, LocalState, LocalStats, MemoryStats, Mode, PoolStats, RedisStats,
    SiteStats, Stats,
};
pub(crate) use self::stats::{Sampled, StoreStats, Surroundings};
use crate::error::ErrorKind;
use crate::sync::RwLock;
use crate::throttle::Throttle;

/// Sites come from source text, so there are few; the cap holds whatever generates them.
const MAX_SITES: usize = 256;

/// Enough that the threads of a usual service rarely meet, at 15 KiB a site.
const STRIPES: usize = 4;

/// The largest value with which a connection of the pool still takes its full 1,024 commands.
const UNKNOWN_BYTES: usize = 1 << 10;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A whole hit, from call to value.
    Hit,
    /// A body that runs after a miss.
    Load,
}

const TIMERS: usize = Timer::Load as usize + 1;

/// What a site is warned about once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Warning {
    /// A value exceeds `max_value`.
    TooLarge,
    /// A value contains a payment card number.
    Card,
    /// A value does not turn into bytes.
    Encode,
    /// The configuration has no policy of that name.
    UnknownPolicy,
    /// Redis answers an operation with an error, such as one that it has no memory left.
    Command,
    /// A value does not come back as it was stored.
    Lossy,
    /// Another type's value is under a key.
    OtherShape,
    /// Another program's data is under a key.
    Foreign,
    /// An eviction by pattern looks at very many keys.
    LongWalk,
}

/// The numbers of one cache.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Tells caches apart in the [`SiteSlot`]s, which outlive them.
    id: u64,
    started: Instant,
    registry: RwLock<Registry>,
    shared: Arc<Shared>,
    limits: Limits,
    sessions: SessionMetrics,
}

/// What is not counted by site, because a series for each of them would be too many.
#[derive(Debug, Default)]
struct Shared {
    operations: Operations,
    values: Values,
    #[cfg(feature = "admin")]
    hot: hot::Hot,
    #[cfg(feature = "admin")]
    slow: latency::SlowLog,
}

/// The sizes of values, in bytes.
#[derive(Debug)]
struct Values {
    /// As JSON.
    encoded: Histogram,
    /// As an entry: with its header, and perhaps compressed.
    stored: Histogram,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            encoded: Histogram::new(),
            stored: Histogram::new(),
        }
    }
}

#[derive(Debug)]
struct Registry {
    /// By the address of the [`SiteSlot`]; sites above the cap all lead to `overflow`.
    sites: HashMap<usize, Arc<SiteMetrics>>,
    own: usize,
    overflow: Option<Arc<SiteMetrics>>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            started: Instant::now(),
            registry: RwLock::new(Registry {
                sites: HashMap::new(),
                own: 0,
                overflow: None,
            }),
            shared: Arc::default(),
            limits: Limits::default(),
            sessions: SessionMetrics::default(),
        }
    }

    /// The numbers of a limiter's policy.
    pub(crate) fn limit(&self, policy: &str) -> Arc<LimitMetrics> {
        self.limits.of(policy)
    }

    /// The keys that are read most.
    #[cfg(feature = "admin")]
    pub(crate) fn hot(&self) -> &Hot {
        &self.shared.hot
    }

    /// The numbers of sessions.
    pub(crate) fn sessions(&self) -> &SessionMetrics {
        &self.sessions
    }

    /// The numbers of `site` in this cache. Takes no lock, unless the site is also used with a cache that came first.
    #[inline]
    pub(crate) fn site(&self, site: &'static SiteSlot) -> SiteRef {
        let (owner, metrics) = site.metrics.get_or_init(|| (self.id, self.register(site)));
        if *owner == self.id {
            SiteRef::Slot(metrics)
        } else {
            SiteRef::Shared(self.register(site))
        }
    }

    fn register(&self, site: &'static SiteSlot) -> Arc<SiteMetrics> {
        let address = ptr::from_ref(site).addr();
        let registry = self.registry.read();
        if let Some(metrics) = registry.sites.get(&address) {
            return Arc::clone(metrics);
        }
        drop(registry);
        let mut registry = self.registry.write();
        registry.register(address, || {
            SiteMetrics::new(site, self.started, Arc::clone(&self.shared))
        })
    }

    /// What was counted so far, in `surroundings` that others know.
    pub(crate) fn stats(&self, surroundings: Surroundings) -> Stats {
        let mut total = Snapshot::new();
        let mut sites: Vec<_> = self
            .listed()
            .iter()
            .map(|site| {
                let snapshot = site.snapshot();
                total.add(&snapshot);
                SiteStats {
                    name: site.name,
                    template: site.template,
                    counts: Counts::of(&snapshot),
                }
            })
            .collect();
        sites.sort_by_key(|site| (site.name, site.template));
        let Surroundings {
            mode,
            fallback,
            journal_depth,
            loads_waiting,
            store,
            redis,
            local,
        } = surroundings;
        let (pool, memory) = match store {
            StoreStats::Redis(pool) => (Some(*pool), None),
            StoreStats::Memory(memory) => (None, Some(memory)),
        };
        let uptime_seconds = self.started.elapsed().as_secs_f64();
        Stats {
            mode,
            uptime_seconds,
            total: Counts::of(&total),
            sites,
            limits: self.limits.stats(),
            sessions: self.sessions.stats(),
            operations: self
                .shared
                .operations
                .read()
                .iter()
                .filter_map(Operation::stats)
                .collect(),
            fallback,
            journal_depth,
            loads_waiting,
            pool,
            redis,
            memory,
            local,
        }
    }

    fn listed(&self) -> Vec<Arc<SiteMetrics>> {
        let registry = self.registry.read();
        let overflow = registry.overflow.iter();
        let is_overflow =
            |site: &&Arc<SiteMetrics>| overflow.clone().any(|overflow| Arc::ptr_eq(site, overflow));
        registry
            .sites
            .values()
            .filter(|site| !is_overflow(site))
            .chain(overflow.clone())
            .map(Arc::clone)
            .collect()
    }
}

impl Registry {
    fn register(&mut self, address: usize, make: impl FnOnce() -> SiteMetrics) -> Arc<SiteMetrics> {
        if let Some(metrics) = self.sites.get(&address) {
            return Arc::clone(metrics);
        }
        let metrics = if self.own < MAX_SITES {
            self.own += 1;
            Arc::new(make())
        } else {
            Arc::clone(self.overflow.get_or_insert_with(|| {
                let first = make();
                tracing::warn!(
                    site = first.name,
                    "more than {MAX_SITES} cached functions: this function and all later ones are counted together, as `overflow`"
                );
                Arc::new(SiteMetrics {
                    name: "overflow",
                    template: "",
                    series: Series::Reads,
                    ..first
                })
            }))
        };
        self.sites.insert(address, Arc::clone(&metrics));
        metrics
    }
}

/// Which series a function has, as metrics. Each kind has those of the kinds before it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Series {
    Evictions,
    Puts,
    Reads,
}

/// Where a function remembers its numbers, for the first cache that it is used with.
pub(crate) struct SiteSlot {
    name: &'static str,
    template: &'static str,
    pub(crate) series: Series,
    metrics: OnceLock<(u64, Arc<SiteMetrics>)>,
}

impl SiteSlot {
    pub(crate) const fn new(name: &'static str, template: &'static str) -> Self {
        Self {
            name,
            template,
            series: Series::Evictions,
            metrics: OnceLock::new(),
        }
    }
}

impl fmt::Debug for SiteSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SiteSlot").field(&self.name).finish()
    }
}

/// The numbers of a site, to be kept as long as anybody likes.
///
/// The usual one costs nothing to take: not even a reference count, which all threads would share, is touched.
#[derive(Clone, Debug)]
pub(crate) enum SiteRef {
    Slot(&'static SiteMetrics),
    Shared(Arc<SiteMetrics>),
}

impl Deref for SiteRef {
    type Target = SiteMetrics;

    fn deref(&self) -> &SiteMetrics {
        match self {
            Self::Slot(metrics) => metrics,
            Self::Shared(metrics) => metrics,
        }
    }
}

/// The numbers of one site in one cache.
#[derive(Debug)]
pub(crate) struct SiteMetrics {
    name: &'static str,
    template: &'static str,
    series: Series,
    started: Instant,
    shared: Arc<Shared>,
    stripes: [Stripe; STRIPES],
    /// The moving average times [`WEIGHT`], so that small differences are not lost in rounding; 0 is none yet.
    weighed_bytes: AtomicUsize,
    warned: AtomicU16,
    reloads: ReloadCounters,
    /// Of the line about a slow operation.
    pub(crate) slow: Throttle,
    /// Of the line about a reply that belongs to another key.
    pub(crate) misplaced: Throttle,
}

/// How many values the moving average of sizes looks back on.
const WEIGHT: usize = 16;

/// What the threads of one stripe count. Two cache lines: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe {
    counters: [AtomicU64; Event::ALL.len()],
    histograms: [Histogram; TIMERS],
    recent: Recent,
}

impl Stripe {
    /// How many operations were counted.
    fn operations(&self) -> u64 {
        let counters = Event::ALL.iter().zip(&self.counters);
        let operations = counters.filter(|((_, kind), _)| kind.is_operation());
        operations.map(|(_, counter)| counter.load(Relaxed)).sum()
    }
}

impl SiteMetrics {
    fn new(site: &SiteSlot, started: Instant, shared: Arc<Shared>) -> Self {
        let stripe = || Stripe {
            counters: [const { AtomicU64::new(0) }; Event::ALL.len()],
            histograms: [const { Histogram::new() }; TIMERS],
            recent: Recent::new(),
        };
        Self {
            name: site.name,
            template: site.template,
            series: site.series,
            started,
            shared,
            stripes: std::array::from_fn(|_| stripe()),
            weighed_bytes: AtomicUsize::new(0),
            warned: AtomicU16::new(0),
            reloads: ReloadCounters::default(),
            slow: Throttle::new(),
            misplaced: Throttle::new(),
        }
    }

    /// `event` happened.
    pub(crate) fn count(&self, event: Event) {
        self.add(event, 1);
    }

    /// `event` happened `n` times.
    pub(crate) fn add(&self, event: Event, n: u64) {
        self.record(event, n, Instant::now);
    }

    /// `event` happened at `now`, for callers who have read the clock already.
    pub(crate) fn count_at(&self, event: Event, now: Instant) {
        self.record(event, 1, || now);
    }

    /// `event` happened in this second since the start, for callers that need no exact time.
    #[inline]
    pub(crate) fn count_in(&self, event: Event, second: u64) {
        let stripe = self.stripe();
        stripe.recent.begin(second, || stripe.operations());
        stripe.counters[event as usize].fetch_add(1, Relaxed);
    }

    fn record(&self, event: Event, n: u64, now: impl FnOnce() -> Instant) {
        let stripe = self.stripe();
        let index = event as usize;
        if Event::ALL[index].1.is_operation() {
            let second = now().saturating_duration_since(self.started).as_secs();
            stripe.recent.begin(second, || stripe.operations());
        }
        stripe.counters[index].fetch_add(n, Relaxed);
    }

    /// Something that is timed took this long.
    pub(crate) fn time(&self, timer: Timer, took: Duration) {
        self.stripe().histograms[timer as usize].record(took);
    }

    /// A store operation ended after `took`, as a success if there is no `failure`.
    pub(crate) fn operated(
        &self,
        operation: &str,
        took: Duration,
        failure: Option<ErrorKind>,
        is_slow: bool,
    ) {
        let operations = &self.shared.operations;
        operations.record(operation, took, failure, is_slow);
    }

    /// There was a hit at `key`.
    #[cfg(feature = "admin")]
    pub(crate) fn saw_hit(&self, key: &str) {
        self.shared.hot.see(self.name, key);
    }

    /// A store operation on `key`, as logs show it, was slow.
    #[cfg(feature = "admin")]
    pub(crate) fn saw_slow(&self, operation: &'static str, key: String, took: Duration) {
        self.shared.slow.add(operation, self.name, key, took);
    }

    /// A value was encoded: its size as JSON and as an entry, in bytes.
    pub(crate) fn saw_value(&self, encoded: usize, stored: usize) {
        let values = &self.shared.values;
        values.encoded.record_number(encoded as u64);
        values.stored.record_number(stored as u64);
    }

    /// A key was loaded that was loaded before.
    pub(crate) fn reloaded(&self, reload: Reload) {
        self.reloads.add(reload);
    }

    pub(crate) fn reloads(&self) -> ReloadCounts {
        self.reloads.read()
    }

    /// How long something took so far.
    pub(crate) fn times(&self, timer: Timer) -> Times {
        let mut distribution = Distribution::new();
        for stripe in &self.stripes {
            distribution.read(&stripe.histograms[timer as usize]);
        }
        distribution.times()
    }

    /// The size of entry to plan for: what this site's entries had lately, in bytes.
    pub(crate) fn expected_bytes(&self) -> usize {
        match self.weighed_bytes.load(Relaxed) {
            0 => UNKNOWN_BYTES,
            weighed => weighed / WEIGHT,
        }
    }

    /// An entry of this size was read or written.
    pub(crate) fn saw_bytes(&self, bytes: usize) {
        let bytes = bytes.clamp(1, usize::MAX / WEIGHT);
        let before = self.weighed_bytes.load(Relaxed);
        let after = if before == 0 {
            bytes * WEIGHT
        } else {
            (before - before / WEIGHT).saturating_add(bytes)
        };
        // Two threads at once may lose one of their sizes; an average can bear that. Equal sizes write nothing.
        if after != before {
            self.weighed_bytes.store(after, Relaxed);
        }
    }

    /// Whether this is the first time that the site is warned about this.
    pub(crate) fn warn_once(&self, warning: Warning) -> bool {
        let bit = 1 << warning as u8;
        self.warned.load(Relaxed) & bit == 0 && self.warned.fetch_or(bit, Relaxed) & bit == 0
    }

    #[inline]
    fn stripe(&self) -> &Stripe {
        &self.stripes[stripe()]
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        let second = self.started.elapsed().as_secs();
        for stripe in &self.stripes {
            for (sum, counter) in snapshot.counters.iter_mut().zip(&stripe.counters) {
                *sum += counter.load(Relaxed);
            }
            for (sum, histogram) in snapshot.distributions.iter_mut().zip(&stripe.histograms) {
                sum.read(histogram);
            }
            snapshot.last_minute += stripe.recent.minute_until(second, stripe.operations());
        }
        snapshot
    }
}

/// The stripe of this thread. Threads take turns in choosing one.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static STRIPE: usize = NEXT.fetch_add(1, Relaxed) % STRIPES);
    STRIPE.with(|stripe| *stripe)
}

/// What was counted at one moment, by one site or several.
#[derive(Debug)]
struct Snapshot {
    counters: [u64; Event::ALL.len()],
    distributions: [Distribution; TIMERS],
    last_minute: u64,
}

impl Snapshot {
    fn new() -> Self {
        Self {
            counters: [0; Event::ALL.len()],
            distributions: [const { Distribution::new() }; TIMERS],
            last_minute: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, counter) in self.counters.iter_mut().zip(&other.counters) {
            *sum += counter;
        }
        for (sum, distribution) in self.distributions.iter_mut().zip(&other.distributions) {
            sum.add(distribution);
        }
        self.last_minute += other.last_minute;
    }

    fn count(&self, event: Event) -> u64 {
        self.counters[event as usize]
    }

    fn times(&self, timer: Timer) -> Times {
        self.distributions[timer as usize].times()
    }
}

#[cfg(test)]
mod tests;
