//! All metrics for Prometheus, from the same counters as [`Stats`].
//!
//! - Names follow Micrometer where it has them, so that dashboards for Spring work: `cache_gets_total` with `cache` and `result`.
//! - Every series exists before the first call. Otherwise the first event would be missing from a rate.
//! - No counter is the difference of two others, which are read one after the other: it could shrink for a moment, and Prometheus
//!   takes that for a restart of the process.
//! - Labels are templates and names of functions from source text, policies from the configuration, and route templates. They are
//!   never keys, users or addresses.

use std::collections::BTreeMap;

use super::exposition::{BYTES, Ends, Exposition, Family, Format, Labels, SECONDS};
use super::{
    Event, FallbackStats, Kind, LimitStats, MemoryStats, Metrics, Mode, Operation, PoolStats,
    RedisStats, SiteSlot, Snapshot, Stats, Surroundings, Timer, Values,
};
use crate::metrics::histogram::{Distribution, Histogram};

/// For calls and loads. 100 ms is among them, the default of `slow_threshold`.
const CALLS: &Ends = &[
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5.0"),
    (10_000_000_000, "10.0"),
];

/// For operations of the store. They are faster than calls, and no longer than `command_timeout_max`.
const OPERATIONS: &Ends = &[
    (10_000, "1e-05"),
    (25_000, "2.5e-05"),
    (50_000, "5e-05"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
];

/// For sizes in bytes. The default of `max_value` is 1 MiB, and values are compressed above 1 KiB.
const SIZES: &Ends = &[
    (100, "100.0"),
    (250, "250.0"),
    (500, "500.0"),
    (1_000, "1000.0"),
    (2_500, "2500.0"),
    (5_000, "5000.0"),
    (10_000, "10000.0"),
    (25_000, "25000.0"),
    (50_000, "50000.0"),
    (100_000, "100000.0"),
    (250_000, "250000.0"),
    (500_000, "500000.0"),
    (1_000_000, "1e+06"),
    (10_000_000, "1e+07"),
];

/// What became of values that functions returned.
const FILLS: [(&str, Event); 9] = [
    ("stored", Event::Fill),
    ("refused", Event::FillRefused),
    ("error", Event::FillFailed),
    ("unless", Event::SkippedUnless),
    ("none", Event::SkippedNone),
    ("too_large", Event::TooLarge),
    ("card", Event::Card),
    ("encode", Event::EncodeFailed),
    ("lossy", Event::Lossy),
];

const EVICTIONS: [(&str, Event); 3] = [
    ("applied", Event::EvictApplied),
    ("journaled", Event::EvictJournaled),
    ("deferred", Event::EvictDeferred),
];

const LOADS: [(&str, Event); 3] = [
    ("success", Event::LoadDone),
    ("failure", Event::LoadErr),
    ("cancelled", Event::LoadDropped),
];

const SHARED: [(&str, Event); 2] = [
    ("process", Event::LoadShared),
    ("cluster", Event::LoadAwaited),
];

const INCIDENTS: [(&str, Event); 4] = [
    ("overdue", Event::LoadOverdue),
    ("stuck", Event::LoadStuck),
    ("queued", Event::LoadQueued),
    ("lease_lost", Event::LeaseLost),
];

const REFRESHES: [(&str, Event); 3] = [
    ("started", Event::Refresh),
    ("failed", Event::RefreshFailed),
    ("crowded", Event::RefreshCrowded),
];

impl Metrics {
    /// Writes all metrics. The functions in `known` have series even if they were never called.
    pub(crate) fn exposition(
        &self,
        format: Format,
        surroundings: Surroundings,
        known: impl Iterator<Item = &'static SiteSlot>,
    ) -> String {
        let (functions, total) = self.functions(known);
        let stats = self.stats(surroundings);
        let mut exposition = Exposition::new(format);
        let out = &mut exposition;
        write_functions(out, &functions);
        write_total(out, &total);
        write_operations(out, &self.shared.operations.read());
        write_values(out, &self.shared.values);
        write_state(out, &stats);
        if let Some(pool) = &stats.pool {
            write_pool(out, pool);
            write_redis(out, stats.redis.as_ref(), stats.mode);
        }
        if let Some(memory) = &stats.memory {
            write_memory(out, *memory);
        }
        write_limits(out, &stats.limits);
        write_sessions(out, &stats);
        exposition.finish()
    }

    /// Returns all functions, by name and template, and their sum. Two functions of one module may share both, in different `impl`
    /// blocks; equal series would make the whole scrape fail, so they are one here.
    fn functions(
        &self,
        known: impl Iterator<Item = &'static SiteSlot>,
    ) -> (Vec<Function>, Snapshot) {
        let (mut functions, mut total) = (BTreeMap::new(), Snapshot::new());
        for site in self.listed() {
            let snapshot = site.snapshot();
            total.add(&snapshot);
            // Sites of this crate that are not functions, such as the background task.
            if !site.stores
                && EVICTIONS
                    .iter()
                    .all(|(_, event)| snapshot.count(*event) == 0)
            {
                continue;
            }
            Function::of(&mut functions, site.name, site.template, site.stores)
                .snapshot
                .add(&snapshot);
        }
        let is_full = self.registry.read().overflow.is_some();
        if !is_full {
            for site in known {
                Function::of(&mut functions, site.name, site.template, site.stores);
            }
        }
        (functions.into_values().collect(), total)
    }
}

type Functions = BTreeMap<(&'static str, &'static str), Function>;

/// A function, or several of one name and template.
struct Function {
    name: &'static str,
    /// Micrometer's word for what entries have in common. By hand there is no template.
    cache: &'static str,
    /// Whether any of them reads or stores.
    stores: bool,
    snapshot: Snapshot,
}

impl Function {
    fn of<'a>(
        functions: &'a mut Functions,
        name: &'static str,
        template: &'static str,
        stores: bool,
    ) -> &'a mut Self {
        let function = functions.entry((name, template)).or_insert_with(|| Self {
            name,
            cache: if template.is_empty() { name } else { template },
            stores: false,
            snapshot: Snapshot::new(),
        });
        function.stores |= stores;
        function
    }

    fn labels(&self) -> [(&'static str, &'static str); 2] {
        [("cache", self.cache), ("function", self.name)]
    }

    fn labels_and(
        &self,
        name: &'static str,
        value: &'static str,
    ) -> [(&'static str, &'static str); 3] {
        let [cache, function] = self.labels();
        [cache, function, (name, value)]
    }

    fn count(&self, event: Event) -> u64 {
        self.snapshot.count(event)
    }

    /// Reads by result: each read is in exactly one of them.
    fn gets(&self) -> [(&'static str, u64); 5] {
        let of_kind = |wanted: fn(&Kind) -> bool| {
            let events = Event::ALL.iter().filter(|(_, kind)| wanted(kind));
            events.map(|(event, _)| self.count(*event)).sum()
        };
        [
            ("hit", self.count(Event::Hit)),
            ("stale", self.count(Event::HitStale)),
            ("none", self.count(Event::HitNone)),
            ("miss", of_kind(|kind| matches!(kind, Kind::Miss(_)))),
            ("bypass", of_kind(|kind| matches!(kind, Kind::Bypass(_)))),
        ]
    }
}

fn write_functions(out: &mut Exposition, functions: &[Function]) {
    let storing = || functions.iter().filter(|function| function.stores);

    let mut gets = out.family(Family::counter(
        "cache_gets",
        "Reads by result. A bypass is a read that could not use the cache.",
    ));
    for function in storing() {
        for (result, count) in function.gets() {
            gets.add(&function.labels_and("result", result), count);
        }
    }
    let mut bypasses = out.family(Family::counter(
        "cache_bypass",
        "Reads that could not use the cache, by reason.",
    ));
    for function in storing() {
        for (event, kind) in Event::ALL {
            if let Kind::Bypass(reason) = *kind {
                bypasses.add(
                    &function.labels_and("reason", reason),
                    function.count(*event),
                );
            }
        }
    }
    let mut puts = out.family(Family::counter(
        "cache_puts",
        "Values that were stored: by loads, by puts and by hand.",
    ));
    for function in storing() {
        let stored = [Event::Fill, Event::PutStored, Event::Set];
        let stored: u64 = stored.map(|event| function.count(event)).iter().sum();
        puts.add(&function.labels(), stored);
    }
    for (family, label, table) in [
        (
            Family::counter(
                "cache_fills",
                "What became of loaded values, and why those of loads, puts and methods were not stored.",
            ),
            "outcome",
            &FILLS[..],
        ),
        (
            Family::counter(
                "cache_load",
                "Bodies that ran after a miss, by how they ended.",
            ),
            "result",
            &LOADS[..],
        ),
        (
            Family::counter(
                "cache_loads_shared",
                "Misses that the load of another caller answered, in this process or in another.",
            ),
            "by",
            &SHARED[..],
        ),
    ] {
        let mut samples = out.family(family);
        for function in storing() {
            for (name, event) in table {
                samples.add(&function.labels_and(label, name), function.count(*event));
            }
        }
    }
    for (family, timer) in [
        (
            Family::histogram(
                "cache_hit_duration_seconds",
                "How long hits took, from the call to the value.",
            ),
            Timer::Hit,
        ),
        (
            Family::histogram(
                "cache_load_duration_seconds",
                "How long bodies ran after a miss.",
            ),
            Timer::Load,
        ),
    ] {
        let mut samples = out.family(family);
        for function in storing() {
            let times = &function.snapshot.distributions[timer as usize];
            samples.add_histogram(&function.labels(), times, CALLS, SECONDS);
        }
    }
    let mut evictions = out.family(Family::counter(
        "cache_evictions",
        "Evictions, by what happened when they were made.",
    ));
    for function in functions {
        for (outcome, event) in EVICTIONS {
            evictions.add(
                &function.labels_and("outcome", outcome),
                function.count(event),
            );
        }
    }
    let mut removals = out.family(Family::counter(
        "cache_removals",
        "Entries that evictions removed.",
    ));
    for function in functions {
        removals.add(&function.labels(), function.count(Event::EvictedKeys));
    }
}

/// What is rare enough that the function can be found in the log.
fn write_total(out: &mut Exposition, total: &Snapshot) {
    let mut misses = out.family(Family::counter(
        "cache_misses",
        "Reads that found no usable entry, by reason.",
    ));
    for (event, kind) in Event::ALL {
        if let Kind::Miss(reason) = *kind {
            misses.add(&[("reason", reason)], total.count(*event));
        }
    }
    let mut degraded = out.family(Family::counter(
        "cache_puts_degraded",
        "Puts that could only evict, by reason.",
    ));
    for (event, kind) in Event::ALL {
        if let Kind::Degraded(reason) = *kind {
            degraded.add(&[("reason", reason)], total.count(*event));
        }
    }
    for (family, label, table) in [
        (
            Family::counter(
                "cache_load_incidents",
                "Loads that waited, took too long or lost their lease.",
            ),
            "incident",
            &INCIDENTS[..],
        ),
        (
            Family::counter("cache_refreshes", "Refreshes of stale values."),
            "outcome",
            &REFRESHES[..],
        ),
    ] {
        let mut samples = out.family(family);
        for (name, event) in table {
            samples.add(&[(label, name)], total.count(*event));
        }
    }
}

fn write_operations(out: &mut Exposition, operations: &[Operation]) {
    let labels: Vec<String> = operations.iter().map(Operation::label).collect();
    let labelled = || labels.iter().map(String::as_str).zip(operations);

    let mut times = out.family(Family::histogram(
        "cache_operation_duration_seconds",
        "How long store operations took for their caller.",
    ));
    for (label, operation) in labelled() {
        times.add_histogram(
            &[("operation", label)],
            &operation.time,
            OPERATIONS,
            SECONDS,
        );
    }
    let mut failures = out.family(Family::counter(
        "cache_operation_failures",
        "Store operations without a result, by reason.",
    ));
    for (label, operation) in labelled() {
        for (reason, count) in operation.failures() {
            failures.add(&[("operation", label), ("reason", reason)], count);
        }
    }
    let mut slow = out.family(Family::counter(
        "cache_slow_operations",
        "Store operations that took slow_threshold or longer.",
    ));
    for (label, operation) in labelled() {
        slow.add(&[("operation", label)], operation.slow);
    }
}

fn write_values(out: &mut Exposition, values: &Values) {
    let mut samples = out.family(Family::histogram(
        "cache_value_bytes",
        "Sizes of values: as JSON, and as the stored entry.",
    ));
    let mut stage = |stage, histogram: &Histogram| {
        let mut sizes = Distribution::new();
        sizes.read(histogram);
        samples.add_histogram(&[("stage", stage)], &sizes, SIZES, BYTES);
    };
    let Values { encoded, stored } = values;
    stage("encoded", encoded);
    stage("stored", stored);
}

fn write_state(out: &mut Exposition, stats: &Stats) {
    let mut modes = out.family(Family::gauge(
        "cache_mode",
        "1 for where entries are stored now, and 0 for the others.",
    ));
    for (name, mode) in [
        ("redis", Mode::Redis),
        ("memory", Mode::Memory),
        ("fallback", Mode::Fallback),
    ] {
        modes.add(&[("mode", name)], u64::from(stats.mode == mode));
    }
    let FallbackStats {
        entered,
        total_seconds,
        current_seconds: _,
    } = stats.fallback;
    counter(
        out,
        "cache_fallbacks",
        "How often fallback mode began.",
        entered,
    );
    out.family(Family::counter(
        "cache_fallback_seconds",
        "Time in fallback mode.",
    ))
    .add(&[], total_seconds);
    gauge(
        out,
        "cache_journal_entries",
        "Evicted keys and patterns that Redis has not acknowledged.",
        stats.journal_depth as f64,
    );
    gauge(
        out,
        "cache_loads_waiting",
        "Loads that wait because max_loads bodies run.",
        stats.loads_waiting as f64,
    );
    gauge(
        out,
        "cache_uptime_seconds",
        "Time since the cache was created.",
        stats.uptime_seconds,
    );
}

fn write_pool(out: &mut Exposition, pool: &PoolStats) {
    let mut connections = out.family(Family::gauge(
        "cache_pool_connections",
        "Connections to Redis by state.",
    ));
    connections.add(&[("state", "open")], pool.open);
    connections.add(&[("state", "connecting")], pool.connecting);
    for (name, help, value) in [
        (
            "cache_pool_connections_max",
            "The most connections that may be open.",
            pool.max as f64,
        ),
        (
            "cache_pool_commands_in_flight",
            "Commands that wait for their reply.",
            pool.in_flight as f64,
        ),
        (
            "cache_pool_utilization_ratio",
            "Commands or bytes in flight, whichever is more, as a share of the capacity of all connections.",
            pool.utilisation,
        ),
    ] {
        gauge(out, name, help, value);
    }
    for (name, help, value) in [
        (
            "cache_pool_connections_opened",
            "Connections that were opened.",
            pool.opened,
        ),
        (
            "cache_pool_connections_lost",
            "Connections that were lost.",
            pool.lost,
        ),
        (
            "cache_pool_batches",
            "Batches of reads that were sent together.",
            pool.batches,
        ),
        (
            "cache_pool_batched_reads",
            "Reads in these batches.",
            pool.batched_reads,
        ),
    ] {
        counter(out, name, help, value);
    }
}

/// Unknown gauges are not a number. A counter must be a number, so an unknown one is left out.
fn write_redis(out: &mut Exposition, redis: Option<&RedisStats>, mode: Mode) {
    let known = redis.filter(|_| mode == Mode::Redis);
    let of = |number: fn(&RedisStats) -> u64| known.map_or(f64::NAN, |redis| number(redis) as f64);
    for (name, help, value) in [
        (
            "cache_redis_uptime_seconds",
            "How long the Redis server runs.",
            of(|redis| redis.uptime_seconds),
        ),
        (
            "cache_redis_memory_used_bytes",
            "Memory that Redis uses.",
            of(|redis| redis.memory_used),
        ),
        (
            "cache_redis_memory_peak_bytes",
            "The most memory that Redis ever used.",
            of(|redis| redis.memory_peak),
        ),
        (
            "cache_redis_memory_max_bytes",
            "The maxmemory of Redis, infinite without a limit.",
            known.map_or(f64::NAN, |redis| {
                redis.memory_max.map_or(f64::INFINITY, |most| most as f64)
            }),
        ),
        (
            "cache_redis_keys",
            "Keys in all databases of Redis.",
            of(|redis| redis.keys),
        ),
    ] {
        gauge(out, name, help, value);
    }
    let mut evicted = out.family(Family::counter(
        "cache_redis_evicted_keys",
        "Keys that Redis evicted because of maxmemory.",
    ));
    if let Some(redis) = redis {
        evicted.add(&[], redis.evicted_keys);
    }
}

fn write_memory(out: &mut Exposition, memory: MemoryStats) {
    let MemoryStats { entries, bytes } = memory;
    gauge(
        out,
        "cache_memory_entries",
        "Entries in the memory of this process.",
        entries as f64,
    );
    gauge(
        out,
        "cache_memory_bytes",
        "Their size, as counted against memory_capacity.",
        bytes as f64,
    );
}

fn write_limits(out: &mut Exposition, limits: &[LimitStats]) {
    let mut decisions = out.family(Family::counter(
        "cache_limit_decisions",
        "Decisions of rate limits by outcome.",
    ));
    for limit in limits {
        for (outcome, count) in [
            ("allowed", limit.allowed),
            ("limited", limit.limited),
            ("blocked", limit.blocked),
            ("unavailable", limit.unavailable),
        ] {
            let labels: Labels<'_> = &[("policy", &limit.policy), ("outcome", outcome)];
            decisions.add(labels, count);
        }
    }
    type Number = fn(&LimitStats) -> u64;
    let others: [(&'static str, &'static str, Number); 4] = [
        (
            "cache_limit_known",
            "Rejections that were known in the process, without asking Redis.",
            |limit| limit.known,
        ),
        (
            "cache_limit_in_memory",
            "Decisions that the process made alone.",
            |limit| limit.in_memory,
        ),
        (
            "cache_limit_suspicious",
            "Clients that tried more than ten times their limit, once for each window.",
            |limit| limit.suspicious,
        ),
        (
            "cache_limit_overflowed",
            "Decisions about clients that had no place in the table.",
            |limit| limit.overflowed,
        ),
    ];
    for (name, help, number) in others {
        let mut samples = out.family(Family::counter(name, help));
        for limit in limits {
            samples.add(&[("policy", &limit.policy)], number(limit));
        }
    }
    let mut rejections = out.family(Family::counter(
        "cache_limit_rejections",
        "Rejected requests by the template of their route.",
    ));
    for limit in limits {
        for (route, count) in &limit.rejected_by_route {
            rejections.add(&[("policy", &limit.policy), ("route", route)], *count);
        }
    }
}

fn write_sessions(out: &mut Exposition, stats: &Stats) {
    let sessions = &stats.sessions;
    let mut samples = out.family(Family::counter(
        "cache_sessions",
        "What happened to sessions.",
    ));
    for (event, count) in [
        ("created", sessions.created),
        ("loaded", sessions.loaded),
        ("not_found", sessions.not_found),
        ("refused_token", sessions.refused_tokens),
        ("tampered", sessions.tampered),
        ("saved", sessions.saved),
        ("save_refused", sessions.save_refused),
        ("rotated", sessions.rotated),
        ("destroyed", sessions.destroyed),
        ("displaced", sessions.displaced),
        ("unavailable", sessions.unavailable),
    ] {
        samples.add(&[("event", event)], count);
    }
}

fn gauge(out: &mut Exposition, name: &'static str, help: &'static str, value: f64) {
    out.family(Family::gauge(name, help)).add(&[], value);
}

fn counter(out: &mut Exposition, name: &'static str, help: &'static str, value: u64) {
    out.family(Family::counter(name, help)).add(&[], value);
}
