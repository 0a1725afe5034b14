//! The statistics of a cache, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::histogram::{Distribution, Times};
use super::{Event, Kind, LimitStats, OperationStats, SessionStats, Snapshot, Timer};

/// The statistics of a cache at one moment.
///
/// ```
/// use cache_runtime::{Cache, Mode};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// cache.set("stock:7", &12, 60).await;
/// cache.get::<i32>("stock:7").await;
/// cache.get::<i32>("stock:8").await;
///
/// let stats = cache.stats();
/// assert_eq!((stats.mode, stats.total.hit_rate), (Mode::Memory, Some(0.5)));
/// # }
/// ```
///
/// Counters cover this process since the cache was created. If other tasks count at the same time, related numbers may differ by
/// 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Where entries are stored now.
    pub mode: Mode,
    /// Seconds since the cache was created.
    pub uptime_seconds: f64,
    /// The counts of all sites together.
    pub total: Counts,
    /// The counts of each annotated function that was called, by name.
    pub sites: Vec<SiteStats>,
    /// The statistics of each policy of a rate limiter, by name.
    pub limits: Vec<LimitStats>,
    /// The statistics of sessions.
    pub sessions: SessionStats,
    /// The statistics of each store operation that was called, such as `get`.
    pub operations: Vec<OperationStats>,
    /// The time without Redis.
    pub fallback: FallbackStats,
    /// The number of keys, patterns and tags in the journal. They were evicted, but Redis has not acknowledged it yet. One eviction may
    /// name several of them.
    pub journal_depth: usize,
    /// Loads that wait at this moment because `max_loads` bodies run.
    pub loads_waiting: usize,
    /// The state of the connections. `None` in memory mode.
    pub pool: Option<PoolStats>,
    /// What Redis reported about itself when it was asked last: by a health check, or when metrics were read. `None` in memory
    /// mode, and until it was asked.
    pub redis: Option<RedisStats>,
    /// What this process stores. `None` unless in memory mode.
    pub memory: Option<MemoryStats>,
    /// The values that functions with `local` keep in this process. `None` before the first call of such a function, and in memory mode until
    /// it keeps a value.
    pub local: Option<LocalStats>,
}

/// Where a cache stores its entries.
///
/// ```
/// use cache_runtime::{Cache, Mode};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// match cache.stats().mode {
///     Mode::Redis => println!("cached in Redis"),
///     Mode::Memory => println!("cached in this process"),
///     Mode::Fallback => println!("not cached until Redis is back"),
///     _ => {}
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// In this process, because no Redis is configured.
    Memory,
    /// In Redis.
    Redis,
    /// Nowhere: Redis is unavailable, and functions run as if they were not cached.
    Fallback,
}

/// The counts of one annotated function.
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
/// cache.run(async { double(2).await + double(2).await }).await;
///
/// let stats = cache.stats();
/// let site = stats.sites.iter().find(|site| site.template == "double:<n>").expect("it was called");
/// assert_eq!((site.counts.loads, site.counts.hits), (1, 1));
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SiteStats {
    /// The function with its module path. `overflow` counts all functions after the first 256.
    pub name: &'static str,
    /// The key, pattern or target, as written.
    pub template: &'static str,
    /// The counts.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The counts of one site, or of all sites.
///
/// ```
/// use cache_runtime::Cache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// cache.get::<i32>("stock:7").await;
///
/// let counts = cache.stats().total;
/// assert_eq!((counts.gets, counts.misses), (1, 1));
/// for (reason, misses) in &counts.misses_by_reason {
///     println!("{misses} misses: {reason}");
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Reads. Every read is either a hit or a miss.
    pub gets: u64,
    /// Reads that returned an entry, including stored `None`s.
    pub hits: u64,
    /// Hits that returned a stored `None`.
    pub hits_none: u64,
    /// Hits that were served a stale value within its grace.
    pub hits_stale: u64,
    /// Hits that were served from this process, for functions with `local`.
    pub hits_local: u64,
    /// Hits that were served from this process while Redis was unavailable, with `local_outage = "serve"`. They are not in
    /// [`hits_local`](Self::hits_local).
    pub hits_outage: u64,
    /// Reads that did not return an entry, for any reason.
    pub misses: u64,
    /// Misses by reason. Reasons that never occurred are left out.
    pub misses_by_reason: BTreeMap<&'static str, u64>,
    /// The share of hits among the reads, from 0 to 1. `None` without reads.
    pub hit_rate: Option<f64>,
    /// The share of misses among the reads, from 0 to 1. `None` without reads.
    pub miss_rate: Option<f64>,
    /// Entries of another build or type that were used. Each was decoded and encoded again to check that it fits.
    pub entries_checked: u64,
    /// Bodies that ran to their end after a miss, including failed ones.
    pub loads: u64,
    /// Misses that got the value of another caller's load in this process.
    pub loads_shared: u64,
    /// Misses that got the value of a load in another process.
    pub loads_awaited: u64,
    /// Loads that ended in `Err`, by a panic or by cancellation.
    pub loads_failed: u64,
    /// Loads that ran longer than `load_deadline`. Other callers may load the same key after that.
    pub loads_overdue: u64,
    /// Loads that were woken, but that their task did not poll for 50 ms. Another caller loaded instead.
    pub loads_stuck: u64,
    /// Loads that waited because `max_loads` bodies ran. A load that waits for both the limit of its policy and the limit of the
    /// cache counts twice.
    pub loads_queued: u64,
    /// Refreshes of stale values that began, by a caller or in the background.
    pub refreshes: u64,
    /// Refreshes that failed. Callers get the stale value until the next attempt.
    pub refreshes_failed: u64,
    /// Stale values that a caller refreshed itself because `max_refreshes` refreshes already ran in the background.
    pub refreshes_crowded: u64,
    /// Loaded values that were stored.
    pub fills: u64,
    /// Loaded values that were not stored because the key was evicted or written during the load.
    pub fills_refused: u64,
    /// Loaded values that could not be stored because the store failed.
    pub fills_failed: u64,
    /// Values that were not stored because of `unless`.
    pub skipped_unless: u64,
    /// `None`s that were not stored because the site has no `none_ttl`.
    pub skipped_none: u64,
    /// Values that were not stored because they exceed `max_value`.
    pub refused_too_large: u64,
    /// Values that were not stored because they contain a payment card number.
    pub refused_card: u64,
    /// Values that were not stored because they could not be serialized.
    pub encode_failed: u64,
    /// Values that were not stored because their type does not read back what it writes. A hit would have returned a different
    /// value, or no value.
    pub refused_lossy: u64,
    /// Leases and refresh marks that ended before their load.
    pub leases_lost: u64,
    /// Calls of `#[cache_put]` whose body returned something to store, including degraded ones.
    pub puts: u64,
    /// Puts that stored their value.
    pub puts_stored: u64,
    /// Puts that evicted the entry because they could not store their value.
    pub puts_degraded: u64,
    /// Degraded puts by reason. Reasons that never occurred are left out.
    ///
    /// - `joined`: another writer had already fenced the key.
    /// - `replaced`: another writer fenced the key during the put.
    /// - `gone`: the fence was evicted, expired or lost.
    /// - `unanswered`: Redis did not answer.
    /// - `scoped`: the put ran inside a [`CacheScope`](crate::CacheScope).
    pub puts_degraded_by_reason: BTreeMap<&'static str, u64>,
    /// Evictions that were issued. This includes journaled evictions, and evictions inside a [`CacheScope`](crate::CacheScope).
    pub evictions: u64,
    /// Entries that evictions removed, as far as the store reported.
    pub evicted_keys: u64,
    /// Evictions of all kinds that the store acknowledged, also of puts, of scopes and through methods of
    /// [`Cache`](crate::Cache).
    pub evictions_applied: u64,
    /// Evictions that joined a [`CacheScope`](crate::CacheScope) and wait for its commit.
    pub evictions_deferred: u64,
    /// Evictions that were put into the journal until Redis is back.
    pub evictions_journaled: u64,
    /// Values stored through methods of [`Cache`](crate::Cache).
    pub sets: u64,
    /// Removals through methods of [`Cache`](crate::Cache).
    pub deletes: u64,
    /// Store operations that failed for any reason except a timeout.
    pub errors: u64,
    /// Store operations that did not get an answer in time.
    pub timeouts: u64,
    /// Store operations that ended early because Redis did not answer any operation.
    pub released: u64,
    /// Operations that took `slow_threshold` or longer.
    pub slow_operations: u64,
    /// Reads, puts, evictions, sets and deletes together.
    pub operations: u64,
    /// Operations in the last 60 s.
    pub operations_per_minute: u64,
    /// How long hits took, from the call to the value. Hits in the process are not timed, because that would take as long as such a
    /// hit itself: this counts all [`hits`](Self::hits) without [`hits_local`](Self::hits_local) and
    /// [`hits_outage`](Self::hits_outage).
    pub hit_time: Times,
    /// How long bodies ran after a miss.
    pub load_time: Times,
}

/// The time that a cache spent without Redis.
///
/// ```
/// use cache_runtime::Cache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// let fallback = cache.stats().fallback;
/// match fallback.current_seconds {
///     Some(seconds) => println!("no Redis for {seconds:.0} s"),
///     None => println!("{} outages, {:.0} s in total", fallback.entered, fallback.total_seconds),
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FallbackStats {
    /// How often fallback mode was entered, including a start without Redis.
    pub entered: u64,
    /// Seconds in fallback mode since the start, including the current period.
    pub total_seconds: f64,
    /// Seconds since the current period began. `None` while Redis answers.
    pub current_seconds: Option<f64>,
}

/// The state of the connections at one moment.
///
/// ```
/// use cache_runtime::Cache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// match cache.stats().pool {
///     Some(pool) if pool.utilisation > 0.8 => println!("raise `pool_max` of {}", pool.max),
///     Some(pool) => println!("{} connections", pool.open),
///     None => println!("memory mode"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// Open connections.
    pub open: usize,
    /// Connections that are being opened.
    pub connecting: usize,
    /// The most connections that may be open.
    pub max: usize,
    /// Commands in flight.
    pub in_flight: usize,
    /// The share of the total capacity that is in use, counted in commands or in bytes, whichever share is larger. It can exceed 1.
    pub utilisation: f64,
    /// Connections opened since the start.
    pub opened: u64,
    /// Connections lost since the start.
    pub lost: u64,
    /// Batches of reads. Reads are sent in batches while many commands are under way.
    pub batches: u64,
    /// Keys in these batches.
    pub batched_reads: u64,
    /// How long commands waited in this process before they were sent. While commands are under way, each connection samples one
    /// command every half `command_timeout`. Each batch adds its oldest read.
    pub send_wait: Times,
    /// How late the timers of the pool's maintenance task fired. While commands are under way, there is a sample every half
    /// `command_timeout`. High values show that the process lacks processor time, or that something blocks its runtime. Timers
    /// have a resolution of 1 ms.
    pub lag: Times,
    /// The same as histograms.
    #[serde(skip)]
    pub(crate) sampled: Sampled,
}

impl PoolStats {
    /// The connections to two servers together. The busier server gives the utilisation.
    pub(crate) fn plus(self, other: Self) -> Self {
        let mut sampled = self.sampled;
        sampled.send_wait.add(&other.sampled.send_wait);
        sampled.lag.add(&other.sampled.lag);
        Self {
            open: self.open + other.open,
            connecting: self.connecting + other.connecting,
            max: self.max + other.max,
            in_flight: self.in_flight + other.in_flight,
            utilisation: self.utilisation.max(other.utilisation),
            opened: self.opened + other.opened,
            lost: self.lost + other.lost,
            batches: self.batches + other.batches,
            batched_reads: self.batched_reads + other.batched_reads,
            send_wait: sampled.send_wait.times(),
            lag: sampled.lag.times(),
            sampled,
        }
    }
}

/// What the pool samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sampled {
    pub(crate) send_wait: Distribution,
    pub(crate) lag: Distribution,
}

/// What Redis reported about itself when it was asked last.
///
/// ```
/// use cache_runtime::Cache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// cache.health().detail().await; // asks Redis
/// if let Some(redis) = cache.stats().redis {
///     println!("{} keys in {} of {:?} bytes", redis.keys, redis.memory_used, redis.memory_max);
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RedisStats {
    /// Seconds since it was asked.
    pub age_seconds: f64,
    /// Seconds since the server started, when it was asked.
    pub uptime_seconds: u64,
    /// Bytes in use.
    pub memory_used: u64,
    /// The most bytes that were ever in use.
    pub memory_peak: u64,
    /// `maxmemory` in bytes. `None` means no limit.
    pub memory_max: Option<u64>,
    /// Keys in all databases.
    pub keys: u64,
    /// Keys that the server evicted because of `maxmemory`, since its start.
    pub evicted_keys: u64,
}

/// What memory mode stores.
///
/// ```
/// use cache_runtime::Cache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// cache.set("stock:7", &12, 60).await;
///
/// let memory = cache.stats().memory.expect("memory mode");
/// assert_eq!(memory.entries, 1);
/// assert!(memory.bytes < cache.config().memory_capacity as u64);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Entries, including leases and fences.
    pub entries: u64,
    /// Their size in bytes, as counted against `memory_capacity`.
    pub bytes: u64,
}

/// The values in this process, for functions with `local`.
///
/// ```
/// use cache_runtime::{Cache, LocalState};
///
/// let cache = Cache::memory();
/// match cache.stats().local {
///     Some(local) if local.state == LocalState::Off => println!("Redis does not report changes"),
///     Some(local) => println!("{} values, {} reads asked Redis", local.entries, local.doubtful),
///     None => println!("no function with `local` was called"),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LocalStats {
    /// Whether they are served without asking Redis.
    pub state: LocalState,
    /// Values.
    pub entries: u64,
    /// Their size in bytes, as counted against `local_capacity`. The size of a decoded value is an estimate.
    pub bytes: u64,
    /// Reads that found a value that may have changed, so that Redis was asked.
    pub doubtful: u64,
    /// Values that Redis confirmed. Callers that wait for the same answer count as one.
    pub confirmed: u64,
    /// Values that had changed or were gone when Redis was asked.
    pub dropped: u64,
    /// Values that made room for others.
    pub evicted: u64,
}

/// Whether values in this process are served without asking Redis.
///
/// ```
/// use cache_runtime::{Cache, LocalState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// match cache.health().detail().await.local {
///     Some(LocalState::Certain) => println!("values are served without Redis"),
///     Some(LocalState::Doubtful) => println!("Redis is asked about each value"),
///     Some(LocalState::Off) => println!("no values are kept"),
///     _ => println!("no function with `local` was called"),
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LocalState {
    /// They are: this process hears of all changes.
    Certain,
    /// Redis is asked whether a value has changed, because this process does not hear of changes at present.
    Doubtful,
    /// No values are kept: Redis does not report changes, or this process has not begun to listen.
    Off,
}

/// Values that [`Metrics::stats`](super::Metrics::stats) gets from outside the metrics.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) mode: Mode,
    pub(crate) fallback: FallbackStats,
    pub(crate) journal_depth: usize,
    pub(crate) loads_waiting: usize,
    pub(crate) store: StoreStats,
    pub(crate) redis: Option<RedisStats>,
    pub(crate) local: Option<LocalStats>,
}

/// The statistics of a store, by its kind.
#[derive(Clone, Debug)]
pub(crate) enum StoreStats {
    Memory(MemoryStats),
    Redis(Box<PoolStats>),
}

impl Counts {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let count = |event| snapshot.count(event);
        let of_kind = |wanted: fn(&Kind) -> bool| -> u64 {
            Event::ALL
                .iter()
                .filter(|(_, kind)| wanted(kind))
                .map(|(event, _)| count(*event))
                .sum()
        };
        let hits = of_kind(|kind| matches!(kind, Kind::Hit));
        let misses = of_kind(|kind| kind.miss_reason().is_some());
        let gets = hits + misses;
        let by_reason = |reason_of: fn(&Kind) -> Option<&'static str>| {
            let counted = Event::ALL
                .iter()
                .filter_map(|(event, kind)| Some((reason_of(kind)?, count(*event))));
            counted.filter(|(_, count)| *count > 0).collect()
        };
        let rate = |part: u64| (gets > 0).then(|| part as f64 / gets as f64);
        Self {
            gets,
            hits,
            hits_none: count(Event::HitNone),
            hits_stale: count(Event::HitStale),
            hits_local: count(Event::HitLocal),
            hits_outage: count(Event::HitOutage),
            misses,
            misses_by_reason: by_reason(Kind::miss_reason),
            hit_rate: rate(hits),
            miss_rate: rate(misses),
            entries_checked: count(Event::Checked),
            loads: count(Event::LoadDone) + count(Event::LoadErr),
            loads_shared: count(Event::LoadShared),
            loads_awaited: count(Event::LoadAwaited),
            loads_failed: count(Event::LoadErr) + count(Event::LoadDropped),
            loads_overdue: count(Event::LoadOverdue),
            loads_stuck: count(Event::LoadStuck),
            loads_queued: count(Event::LoadQueued),
            refreshes: count(Event::Refresh),
            refreshes_failed: count(Event::RefreshFailed),
            refreshes_crowded: count(Event::RefreshCrowded),
            fills: count(Event::Fill),
            fills_refused: count(Event::FillRefused),
            fills_failed: count(Event::FillFailed),
            skipped_unless: count(Event::SkippedUnless),
            skipped_none: count(Event::SkippedNone),
            refused_too_large: count(Event::TooLarge),
            refused_card: count(Event::Card),
            encode_failed: count(Event::EncodeFailed),
            refused_lossy: count(Event::Lossy),
            leases_lost: count(Event::LeaseLost),
            puts: count(Event::Put),
            puts_stored: count(Event::PutStored),
            puts_degraded: of_kind(|kind| matches!(kind, Kind::Degraded(_))),
            puts_degraded_by_reason: by_reason(|kind| match kind {
                Kind::Degraded(reason) => Some(reason),
                _ => None,
            }),
            evictions: count(Event::Evict),
            evicted_keys: count(Event::EvictedKeys),
            evictions_applied: count(Event::EvictApplied),
            evictions_deferred: count(Event::EvictDeferred),
            evictions_journaled: count(Event::EvictJournaled),
            sets: count(Event::Set),
            deletes: count(Event::Delete),
            errors: count(Event::OperationFailed),
            timeouts: count(Event::OperationTimedOut),
            released: count(Event::OperationReleased),
            slow_operations: count(Event::SlowOperation),
            operations: of_kind(Kind::is_operation),
            operations_per_minute: snapshot.last_minute,
            hit_time: snapshot.times(Timer::Hit),
            load_time: snapshot.times(Timer::Load),
        }
    }
}
