//! What was counted, as people and programs read it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Event, Kind, LimitStats, SessionStats, Snapshot, Timer};

/// Everything that a cache knows about itself, at one moment.
///
/// Counters are those of this process since the cache was made; numbers that are read while others count may be one
/// apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Where entries are kept at this moment.
    pub mode: Mode,
    /// Seconds since the cache was made.
    pub uptime_seconds: f64,
    /// All sites together.
    pub total: Counts,
    /// Each annotated function that was called, by name.
    pub sites: Vec<SiteStats>,
    /// Each policy of a rate limiter, by name.
    pub limits: Vec<LimitStats>,
    /// Sessions.
    pub sessions: SessionStats,
    /// The time without Redis.
    pub fallback: FallbackStats,
    /// Keys and patterns in the journal: evicted, but not seen by Redis yet. One eviction may name several.
    pub journal_depth: usize,
    /// The connections; `None` in memory mode.
    pub pool: Option<PoolStats>,
    /// What this process keeps; `None` unless in memory mode.
    pub memory: Option<MemoryStats>,
}

/// Where a cache keeps its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// In this process, because no Redis is configured.
    Memory,
    /// In Redis.
    Redis,
    /// Nowhere: Redis is away, and functions run as if they were not cached.
    Fallback,
}

/// What happened at one annotated function.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SiteStats {
    /// The function with its module path; `overflow` stands for all that came after the first 256.
    pub name: &'static str,
    /// Its key, pattern or target, as written.
    pub template: &'static str,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What was counted, at one site or at all.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Reads: every one is either a hit or a miss.
    pub gets: u64,
    /// Reads that an entry answered, remembered `None`s included.
    pub hits: u64,
    /// Those of the hits that a remembered `None` answered.
    pub hits_none: u64,
    /// Those of the hits that were served a stale value within its grace.
    pub hits_stale: u64,
    /// Reads that no entry answered, for whatever reason.
    pub misses: u64,
    /// The misses by their reason; a reason that never occurred is left out.
    pub misses_by_reason: BTreeMap<&'static str, u64>,
    /// Hits among the reads, from 0 to 1; `None` without a read.
    pub hit_rate: Option<f64>,
    /// Misses among the reads, from 0 to 1; `None` without a read.
    pub miss_rate: Option<f64>,
    /// Entries of another build or type that were used: they were decoded and encoded again to see whether they fit.
    pub entries_checked: u64,
    /// Bodies that ran to an end after a miss, failed ones included.
    pub loads: u64,
    /// Misses that another caller's load in this process answered.
    pub loads_shared: u64,
    /// Misses that another process's load answered.
    pub loads_awaited: u64,
    /// Loads that ended in `Err`, by a panic or by cancellation.
    pub loads_failed: u64,
    /// Loads that ran longer than `load_deadline`: others may load the same key since.
    pub loads_overdue: u64,
    /// Loads that were woken and then not polled for 50 ms by the task that holds them: another caller loaded in their place.
    pub loads_stuck: u64,
    /// Refreshes of stale values that were begun, by a caller or in the background.
    pub refreshes: u64,
    /// Those of the refreshes that failed: the stale value is served for the time being.
    pub refreshes_failed: u64,
    /// Stale values that a caller refreshed himself because `max_refreshes` ran in the background.
    pub refreshes_crowded: u64,
    /// Loaded values that were stored.
    pub fills: u64,
    /// Loaded values that were not stored because the key was evicted or written meanwhile.
    pub fills_refused: u64,
    /// Loaded values that could not be stored because the store failed.
    pub fills_failed: u64,
    /// Values that `unless` kept from being stored.
    pub skipped_unless: u64,
    /// `None`s that were not stored because the site has no `none_ttl`.
    pub skipped_none: u64,
    /// Values that were not stored because they exceed `max_value`.
    pub refused_too_large: u64,
    /// Values that were not stored because they contain a payment card number.
    pub refused_card: u64,
    /// Values that were not stored because they could not be turned into bytes.
    pub encode_failed: u64,
    /// Values that were not stored because a hit would have returned another value, or none: their type does not read what it
    /// writes.
    pub refused_lossy: u64,
    /// Leases, and marks of refreshes, that ended before their load did.
    pub leases_lost: u64,
    /// Calls of `#[cache_put]` whose body returned something to store, degraded ones included.
    pub puts: u64,
    /// Those of the puts that could only evict.
    pub puts_degraded: u64,
    /// The degraded puts by the reason; one that never occurred is left out. `joined`: another writer fenced the key before;
    /// `replaced`: another fenced it meanwhile; `gone`: the fence was evicted, expired or lost; `unanswered`: Redis did not say;
    /// `scoped`: it was made inside a [`CacheScope`](crate::CacheScope).
    pub puts_degraded_by_reason: BTreeMap<&'static str, u64>,
    /// Evictions that were issued, journaled ones and those that joined a [`CacheScope`](crate::CacheScope) included.
    pub evictions: u64,
    /// Entries that evictions removed, as far as the store said.
    pub evicted_keys: u64,
    /// Those of the evictions that wait in the journal until Redis is back.
    pub evictions_journaled: u64,
    /// Values stored through [`Cache`](crate::Cache)'s own methods.
    pub sets: u64,
    /// Removals through [`Cache`](crate::Cache)'s own methods.
    pub deletes: u64,
    /// Store operations that failed for any reason but time.
    pub errors: u64,
    /// Store operations that had no answer in time.
    pub timeouts: u64,
    /// Store operations that were given up early because Redis answered nobody.
    pub released: u64,
    /// Operations that took longer than `slow_threshold`.
    pub slow_operations: u64,
    /// Reads, puts, evictions, sets and deletes together.
    pub operations: u64,
    /// Those of the operations that belong to the last 60 seconds.
    pub operations_per_minute: u64,
    /// How long hits took, from call to value.
    pub hit_time: Times,
    /// How long bodies ran after a miss.
    pub load_time: Times,
    /// How long single store operations took, as their caller saw it.
    pub operation_time: Times,
}

/// How long something took, in microseconds. All but the count are `None` as long as nothing was timed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Times {
    /// How many were timed.
    pub count: u64,
    /// The sum of all durations over their count, exact.
    pub average_micros: Option<f64>,
    /// Half of all took no longer; at most 12.5 % off.
    pub p50_micros: Option<f64>,
    /// 99 of 100 took no longer; at most 12.5 % off.
    pub p99_micros: Option<f64>,
    /// The longest since the start, exact.
    pub max_micros: Option<f64>,
}

/// The time that a cache spent without its Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FallbackStats {
    /// How often fallback mode was entered, a start without Redis included.
    pub entered: u64,
    /// Seconds in fallback mode since the start, the current spell included.
    pub total_seconds: f64,
    /// Seconds since the current spell began; `None` while Redis answers.
    pub current_seconds: Option<f64>,
}

/// The state of the connections at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// Connections that are open.
    pub open: usize,
    /// Connections that are being opened.
    pub connecting: usize,
    /// The most that may be open.
    pub max: usize,
    /// Commands under way.
    pub in_flight: usize,
    /// The larger of commands and bytes in flight over the whole capacity, from 0 to 1 and above.
    pub utilisation: f64,
    /// Connections opened since the start.
    pub opened: u64,
    /// Connections lost since the start.
    pub lost: u64,
}

/// What memory mode keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Entries, leases and fences included.
    pub entries: u64,
    /// What they weigh against `memory_capacity`.
    pub bytes: u64,
}

/// What [`Metrics::stats`](super::Metrics::stats) cannot count by itself.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) mode: Mode,
    pub(crate) fallback: FallbackStats,
    pub(crate) journal_depth: usize,
    pub(crate) pool: Option<PoolStats>,
    pub(crate) memory: Option<MemoryStats>,
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
        let misses = of_kind(|kind| matches!(kind, Kind::Miss(_)));
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
            misses,
            misses_by_reason: by_reason(|kind| match kind {
                Kind::Miss(reason) => Some(reason),
                _ => None,
            }),
            hit_rate: rate(hits),
            miss_rate: rate(misses),
            entries_checked: count(Event::Checked),
            loads: count(Event::Load),
            loads_shared: count(Event::LoadShared),
            loads_awaited: count(Event::LoadAwaited),
            loads_failed: count(Event::LoadFailed),
            loads_overdue: count(Event::LoadOverdue),
            loads_stuck: count(Event::LoadStuck),
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
            puts_degraded: of_kind(|kind| matches!(kind, Kind::Degraded(_))),
            puts_degraded_by_reason: by_reason(|kind| match kind {
                Kind::Degraded(reason) => Some(reason),
                _ => None,
            }),
            evictions: count(Event::Evict),
            evicted_keys: count(Event::EvictedKeys),
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
            operation_time: snapshot.times(Timer::Operation),
        }
    }
}
