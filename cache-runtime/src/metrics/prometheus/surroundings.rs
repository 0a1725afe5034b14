//! The metrics that are not of a function: of the store, its connections, limits and sessions.

use std::time::Duration;

use super::TIMES;
use crate::metrics::exposition::{BYTES, Ends, Exposition, SECONDS};
use crate::metrics::family::{Family, Labels};
use crate::metrics::histogram::{Distribution, Histogram};
use crate::metrics::{
    FallbackStats, LimitStats, LocalState, LocalStats, MemoryStats, Mode, Operation, PoolStats,
    RedisStats, Sampled, SessionStats, Surroundings, Values,
};

/// Operations of the store are faster than calls, and no longer than `command_timeout_max`.
const OPERATIONS: &Ends = TIMES.split_at(17).0;

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

pub(super) fn write_operations(out: &mut Exposition, operations: &[Operation]) {
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

pub(super) fn write_values(out: &mut Exposition, values: &Values) {
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

pub(super) fn write_state(out: &mut Exposition, surroundings: &Surroundings, uptime: Duration) {
    let mut modes = out.family(Family::gauge(
        "cache_mode",
        "1 for where entries are stored now, and 0 for the others.",
    ));
    for (name, mode) in [
        ("redis", Mode::Redis),
        ("memory", Mode::Memory),
        ("fallback", Mode::Fallback),
    ] {
        modes.add(&[("mode", name)], u64::from(surroundings.mode == mode));
    }
    let FallbackStats {
        entered,
        total_seconds,
        current_seconds: _,
    } = surroundings.fallback;
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
        surroundings.journal_depth as f64,
    );
    gauge(
        out,
        "cache_loads_waiting",
        "Loads that wait because max_loads bodies run.",
        surroundings.loads_waiting as f64,
    );
    gauge(
        out,
        "cache_uptime_seconds",
        "Time since the cache was created.",
        uptime.as_secs_f64(),
    );
}

pub(super) fn write_pool(out: &mut Exposition, pool: &PoolStats) {
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
    let Sampled { send_wait, lag } = &pool.sampled;
    for (family, sampled) in [
        (
            Family::histogram(
                "cache_send_wait_seconds",
                "How long sampled commands waited in this process before they were sent.",
            ),
            send_wait,
        ),
        (
            Family::histogram(
                "cache_process_lag_seconds",
                "How late the timers of the background task fired, sampled.",
            ),
            lag,
        ),
    ] {
        out.family(family)
            .add_histogram(&[], sampled, TIMES, SECONDS);
    }
}

/// Unknown gauges are not a number. A counter must be a number, so an unknown one is left out.
pub(super) fn write_redis(out: &mut Exposition, redis: Option<&RedisStats>, mode: Mode) {
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

pub(super) fn write_memory(out: &mut Exposition, memory: MemoryStats) {
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

pub(super) fn write_local(out: &mut Exposition, local: Option<&LocalStats>) {
    let number = |number: fn(&LocalStats) -> u64| local.map_or(0, number);
    gauge(
        out,
        "cache_local_entries",
        "Values in this process, for functions with local.",
        number(|local| local.entries) as f64,
    );
    gauge(
        out,
        "cache_local_bytes",
        "Their size, as counted against local_capacity.",
        number(|local| local.bytes) as f64,
    );
    let mut states = out.family(Family::gauge(
        "cache_local_state",
        "1 for whether they are served without asking Redis, 0 for the others. All are 0 while no function uses local.",
    ));
    let state = local.map(|local| local.state);
    for (name, each) in [
        ("certain", LocalState::Certain),
        ("doubtful", LocalState::Doubtful),
        ("off", LocalState::Off),
    ] {
        states.add(&[("state", name)], u64::from(state == Some(each)));
    }
    for (name, help, count) in [
        (
            "cache_local_doubtful",
            "Reads of values that may have changed, so that Redis was asked.",
            number(|local| local.doubtful),
        ),
        (
            "cache_local_confirmed",
            "Values that Redis confirmed.",
            number(|local| local.confirmed),
        ),
        (
            "cache_local_dropped",
            "Values that had changed or were gone when Redis was asked.",
            number(|local| local.dropped),
        ),
        (
            "cache_local_evictions",
            "Values that made room for others.",
            number(|local| local.evicted),
        ),
    ] {
        out.family(Family::counter(name, help)).add(&[], count);
    }
}

pub(super) fn write_limits(out: &mut Exposition, limits: &[LimitStats]) {
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
    let others: [(&'static str, &'static str, Number); 6] = [
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
            "cache_limit_batches",
            "Batches of calls that were decided together.",
            |limit| limit.batches,
        ),
        ("cache_limit_batched", "Calls in these batches.", |limit| {
            limit.batched
        }),
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

pub(super) fn write_sessions(out: &mut Exposition, sessions: &SessionStats) {
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
