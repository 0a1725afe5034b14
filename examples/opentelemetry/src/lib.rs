//! Exports the statistics of a cache through OpenTelemetry.
//!
//! [`register`] creates observable instruments. The SDK calls their callbacks at each collection. So calls of cached functions do no
//! extra work, and `cache-runtime` does not depend on OpenTelemetry.
//!
//! - OpenTelemetry has no convention for caches yet. Names and units follow its general rules: no unit and no `total` in a name.
//!   Prometheus gives these metrics the names that they have in [`Cache::prometheus`]: `cache.gets` becomes `cache_gets_total`.
//! - `cache.gets` and `cache.bypass` have the labels and values of [`Cache::prometheus`]. `cache.misses` also has the labels `cache` and
//!   `function`; its sum by reason is what Prometheus has.
//! - Durations are left out, because OpenTelemetry has no observable histogram. [`Cache::prometheus`] has them.
//! - Operations in Redis are spans under the target `cache_runtime::redis`, at the level `trace`. The layer of the crate
//!   `tracing-opentelemetry` exports them if its filter enables `cache_runtime::redis=trace`.

mod snapshots;

use std::collections::BTreeMap;
use std::sync::Arc;

use cache_runtime::{Cache, Counts, Mode, Stats};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use self::snapshots::Snapshots;

/// Registers instruments for `cache`. They keep the cache alive until the provider of `meter` is dropped.
pub fn register(meter: &Meter, cache: &Cache) {
    let snapshots = Arc::new(Snapshots::new(cache));
    register_functions(meter, &snapshots);
    register_levels(meter, &snapshots);
    register_redis(meter, &snapshots);
}

/// Counters of each function.
fn register_functions(meter: &Meter, snapshots: &Arc<Snapshots>) {
    let counter = |name, unit, help, attribute, counts: fn(&Counts) -> Vec<_>| {
        let read = move |stats: &Stats, out: &dyn AsyncInstrument<u64>| {
            observe_functions(stats, out, attribute, counts);
        };
        meter
            .u64_observable_counter(name)
            .with_unit(unit)
            .with_description(help)
            .with_callback(snapshots.callback(read))
            .build();
    };
    counter("cache.gets", "{read}", "Reads.", "result", |counts| {
        let bypasses: u64 = misses(counts, Reasons::OfBypasses).values().sum();
        vec![
            ("hit", counts.hits - counts.hits_none - counts.hits_stale),
            ("none", counts.hits_none),
            ("stale", counts.hits_stale),
            ("miss", counts.misses - bypasses),
            ("bypass", bypasses),
        ]
    });
    let help = "Reads that could not use the cache.";
    counter("cache.bypass", "{read}", help, "reason", |counts| {
        misses(counts, Reasons::OfBypasses).into_iter().collect()
    });
    let help = "Reads without a usable entry.";
    counter("cache.misses", "{read}", help, "reason", |counts| {
        misses(counts, Reasons::OfMisses).into_iter().collect()
    });
    let help = "Evictions.";
    counter("cache.evictions", "{eviction}", help, "outcome", |counts| {
        vec![
            ("applied", counts.evictions_applied),
            ("journaled", counts.evictions_journaled),
            ("deferred", counts.evictions_deferred),
        ]
    });
}

/// [`Counts`] has a read that could not use the cache among the misses.
#[derive(Clone, Copy, PartialEq)]
enum Reasons {
    OfMisses,
    OfBypasses,
}

/// The reasons for which a read cannot use the cache. A test compares them with [`Cache::prometheus`].
const BYPASSES: [&str; 6] = [
    "disabled",
    "failed",
    "fallback",
    "fenced",
    "journaled",
    "scoped",
];

/// Returns the counts of reads without an entry, for these reasons.
fn misses(counts: &Counts, reasons: Reasons) -> BTreeMap<&'static str, u64> {
    let mut misses = counts.misses_by_reason.clone();
    misses.retain(|reason, _| BYPASSES.contains(reason) == (reasons == Reasons::OfBypasses));
    misses
}

/// Values that go up and down and can be summed over processes, such as the number of caches in a mode.
fn register_levels(meter: &Meter, snapshots: &Arc<Snapshots>) {
    let level = |name, unit, help, read: fn(&Stats, &dyn AsyncInstrument<i64>)| {
        meter
            .i64_observable_up_down_counter(name)
            .with_unit(unit)
            .with_description(help)
            .with_callback(snapshots.callback(read))
            .build();
    };
    let help = "1 for where entries are stored now, 0 for the others.";
    level("cache.mode", "{cache}", help, |stats, out| {
        for (name, mode) in [
            ("redis", Mode::Redis),
            ("memory", Mode::Memory),
            ("fallback", Mode::Fallback),
        ] {
            let is_in_mode = i64::from(stats.mode == mode);
            out.observe(is_in_mode, &[KeyValue::new("mode", name)]);
        }
    });
    let help = "Evicted keys and patterns that Redis has not acknowledged.";
    level("cache.journal.entries", "{entry}", help, |stats, out| {
        out.observe(stats.journal_depth as i64, &[]);
    });
    let help = "Connections to Redis.";
    level(
        "cache.pool.connections",
        "{connection}",
        help,
        |stats, out| {
            if let Some(pool) = &stats.pool {
                for (state, count) in [("open", pool.open), ("connecting", pool.connecting)] {
                    out.observe(count as i64, &[KeyValue::new("state", state)]);
                }
            }
        },
    );
    let help = "Entries in the memory of this process.";
    level("cache.memory", "By", help, |stats, out| {
        if let Some(memory) = &stats.memory {
            out.observe(memory.bytes as i64, &[]);
        }
    });
}

/// How well Redis works for the cache.
fn register_redis(meter: &Meter, snapshots: &Arc<Snapshots>) {
    meter
        .f64_observable_counter("cache.fallback")
        .with_unit("s")
        .with_description("Time in fallback mode.")
        .with_callback(snapshots.callback(|stats, out| {
            out.observe(stats.fallback.total_seconds, &[]);
        }))
        .build();
    meter
        .u64_observable_counter("cache.operation.failures")
        .with_unit("{operation}")
        .with_description("Store operations without a result.")
        .with_callback(snapshots.callback(|stats, out| {
            for failed in &stats.operations {
                for (reason, count) in [
                    ("error", failed.errors),
                    ("timeout", failed.timeouts),
                    ("released", failed.released),
                ] {
                    let operation = KeyValue::new("operation", failed.operation.replace(' ', "_"));
                    out.observe(count, &[operation, KeyValue::new("reason", reason)]);
                }
            }
        }))
        .build();
    meter
        .f64_observable_gauge("cache.pool.utilization")
        .with_unit("1")
        .with_description("The share of the connections' capacity that is in use.")
        .with_callback(snapshots.callback(|stats, out| {
            if let Some(pool) = &stats.pool {
                out.observe(pool.utilisation, &[]);
            }
        }))
        .build();
}

/// Functions of one module with the same name and the same key share their series. An instrument keeps only the last value of a
/// series, so the counts of such functions are added up here.
fn observe_functions(
    stats: &Stats,
    out: &dyn AsyncInstrument<u64>,
    attribute: &'static str,
    counts: fn(&Counts) -> Vec<(&'static str, u64)>,
) {
    let mut series = BTreeMap::new();
    for site in &stats.sites {
        for (value, count) in counts(&site.counts) {
            *series.entry([site.template, site.name, value]).or_insert(0) += count;
        }
    }
    for ([cache, function, value], count) in series {
        let attributes = [
            KeyValue::new("cache", cache),
            KeyValue::new("function", function),
            KeyValue::new(attribute, value),
        ];
        out.observe(count, &attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_of_bypasses_are_those_of_prometheus() {
        let text = Cache::memory().prometheus();

        let mut reasons: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("cache_bypass_total{"))
            .filter_map(|line| line.split_once("reason=\"")?.1.split('"').next())
            .collect();
        reasons.sort_unstable();
        reasons.dedup();

        assert_eq!(reasons, BYPASSES);
    }
}
