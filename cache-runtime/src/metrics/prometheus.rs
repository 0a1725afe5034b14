//! All metrics for Prometheus, from the same counters as [`Stats`](super::Stats).
//!
//! - Names follow Micrometer where it has them, so that dashboards for Spring work: `cache_gets_total` with `cache` and `result`.
//! - Every series exists before the first call. Otherwise the first event would be missing from a rate.
//! - No counter is the difference of two others, which are read one after the other: it could shrink for a moment, and Prometheus
//!   takes that for a restart of the process.
//! - Labels are templates and names of functions from source text, policies from the configuration, and route templates. They are
//!   never keys, users or addresses.

mod surroundings;

use std::collections::BTreeMap;

use self::surroundings::{
    write_limits, write_local, write_memory, write_operations, write_pool, write_redis,
    write_sessions, write_state, write_values,
};
use super::exposition::{Ends, Exposition, Format, SECONDS};
use super::family::Family;
use super::{Event, Kind, Metrics, Series, SiteSlot, Snapshot, StoreStats, Surroundings, Timer};

/// Durations. 100 ms is among them, the default of `slow_threshold`.
const TIMES: &Ends = &[
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
    (5_000_000_000, "5.0"),
    (10_000_000_000, "10.0"),
];

/// Each function has these, so there are not as many.
const CALLS: &Ends = TIMES.split_at(3).1;

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

impl Event {
    /// Returns what became of a value or of an eviction, as metrics name it, or [`None`] if the event does not tell.
    pub(crate) fn outcome(self) -> Option<&'static str> {
        let stored = (self == Self::PutStored).then_some("stored");
        stored
            .or(self.degraded_reason())
            .or_else(|| named(&FILLS, self))
            .or_else(|| named(&EVICTIONS, self))
    }

    /// Returns how a load ended, or which other load provided the value, or [`None`] if the event is not about a load.
    pub(crate) fn load(self) -> Option<&'static str> {
        named(&LOADS, self).or_else(|| named(&SHARED, self))
    }
}

fn named(table: &[(&'static str, Event)], wanted: Event) -> Option<&'static str> {
    let found = table.iter().find(|(_, event)| *event == wanted);
    found.map(|(name, _)| *name)
}

impl Metrics {
    /// Writes all metrics. The functions in `known` have series even if they were never called.
    pub(crate) fn exposition(
        &self,
        format: Format,
        surroundings: &Surroundings,
        known: impl Iterator<Item = &'static SiteSlot>,
    ) -> String {
        let (functions, total) = self.functions(known);
        let mut exposition = Exposition::new(format);
        let out = &mut exposition;
        write_functions(out, &functions);
        write_total(out, &total);
        write_operations(out, &self.shared.operations.read());
        write_values(out, &self.shared.values);
        write_state(out, surroundings, self.started.elapsed());
        match &surroundings.store {
            StoreStats::Redis(pool) => {
                write_pool(out, pool);
                write_redis(out, surroundings.redis.as_ref(), surroundings.mode);
            }
            StoreStats::Memory(memory) => write_memory(out, *memory),
        }
        write_local(out, surroundings.local.as_ref());
        write_limits(out, &self.limits.stats());
        write_sessions(out, &self.sessions.stats());
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
            if site.series == Series::Evictions
                && EVICTIONS
                    .iter()
                    .all(|(_, event)| snapshot.count(*event) == 0)
            {
                continue;
            }
            Function::of(&mut functions, site.name, site.template, site.series)
                .snapshot
                .add(&snapshot);
        }
        let is_full = self.registry.read().overflow.is_some();
        if !is_full {
            for site in known {
                Function::of(&mut functions, site.name, site.template, site.series);
            }
        }
        (functions.into_values().collect(), total)
    }
}

/// By name and template.
type Functions = BTreeMap<(&'static str, &'static str), Function>;

/// A function, or several of one name and template.
struct Function {
    name: &'static str,
    /// Micrometer's word for what entries have in common. By hand there is no template.
    cache: &'static str,
    /// Those of all of them.
    series: Series,
    snapshot: Snapshot,
}

impl Function {
    fn of<'a>(
        functions: &'a mut Functions,
        name: &'static str,
        template: &'static str,
        series: Series,
    ) -> &'a mut Self {
        let function = functions.entry((name, template)).or_insert_with(|| Self {
            name,
            cache: if template.is_empty() { name } else { template },
            series,
            snapshot: Snapshot::new(),
        });
        function.series = function.series.max(series);
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
    fn gets(&self) -> [(&'static str, u64); 7] {
        let of_kind = |wanted: fn(&Kind) -> bool| {
            let events = Event::ALL.iter().filter(|(_, kind)| wanted(kind));
            events.map(|(event, _)| self.count(*event)).sum()
        };
        [
            ("hit", self.count(Event::Hit)),
            ("local", self.count(Event::HitLocal)),
            ("outage", self.count(Event::HitOutage)),
            ("stale", self.count(Event::HitStale)),
            ("none", self.count(Event::HitNone)),
            ("miss", of_kind(|kind| matches!(kind, Kind::Miss(_)))),
            ("bypass", of_kind(|kind| matches!(kind, Kind::Bypass(_)))),
        ]
    }
}

fn write_functions(out: &mut Exposition, functions: &[Function]) {
    let with = |series| {
        functions
            .iter()
            .filter(move |function| function.series >= series)
    };

    let mut gets = out.family(Family::counter(
        "cache_gets",
        "Reads by result. A bypass is a read that could not use the cache.",
    ));
    for function in with(Series::Reads) {
        for (result, count) in function.gets() {
            gets.add(&function.labels_and("result", result), count);
        }
    }
    let mut bypasses = out.family(Family::counter(
        "cache_bypass",
        "Reads that could not use the cache, by reason.",
    ));
    for function in with(Series::Reads) {
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
    for function in with(Series::Puts) {
        let stored = [Event::Fill, Event::PutStored, Event::Set];
        let stored: u64 = stored.map(|event| function.count(event)).iter().sum();
        puts.add(&function.labels(), stored);
    }
    for (family, label, table, series) in [
        (
            Family::counter(
                "cache_fills",
                "What became of loaded values, and why those of loads, puts and methods were not stored.",
            ),
            "outcome",
            &FILLS[..],
            Series::Puts,
        ),
        (
            Family::counter(
                "cache_load",
                "Bodies that ran after a miss, by how they ended.",
            ),
            "result",
            &LOADS[..],
            Series::Reads,
        ),
        (
            Family::counter(
                "cache_loads_shared",
                "Misses that the load of another caller answered, in this process or in another.",
            ),
            "by",
            &SHARED[..],
            Series::Reads,
        ),
    ] {
        let mut samples = out.family(family);
        for function in with(series) {
            for (name, event) in table {
                samples.add(&function.labels_and(label, name), function.count(*event));
            }
        }
    }
    for (family, timer) in [
        (
            Family::histogram(
                "cache_hit_duration_seconds",
                "How long hits took, from the call to the value, without hits in the process, which are not timed.",
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
        for function in with(Series::Reads) {
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
