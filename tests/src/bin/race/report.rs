//! The report of a process, for people and for the parent of several workers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cache_runtime::{Cache, Config, Mode};
use serde::{Deserialize, Serialize};
use tests::figures::Figures;

use crate::hammer::Tally;
use crate::waits::{Bound, Kind, Sighting, Waits};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) connected: bool,
    pub(crate) journal: usize,
    pub(crate) counts: BTreeMap<String, u64>,
    waits: BTreeMap<Kind, Waits>,
    longest_body: Duration,
    latest_tick: Duration,
    /// The age of the oldest answer.
    pub(crate) oldest: Duration,
    complaints: Vec<String>,
}

impl Report {
    pub(crate) fn of(cache: &Cache, tally: &Tally) -> Self {
        let stats = cache.stats();
        let total = &stats.total;
        let misses = |reason| total.misses_by_reason.get(reason).copied();
        let Sighting {
            waits,
            longest_body,
            latest_tick,
            mut complaints,
        } = tally.watch.sighting();
        complaints.extend(tally.complaints());
        let counts = [
            ("reads", tally.reads.load(Ordering::Relaxed)),
            ("writes", tally.writes.load(Ordering::Relaxed)),
            (FAILED, tally.failed.load(Ordering::Relaxed)),
            (BODIES_FAILED, tally.bodies_failed.load(Ordering::Relaxed)),
            (OUTDATED, tally.outdated.load(Ordering::Relaxed)),
            (TOO_OLD, tally.too_old.load(Ordering::Relaxed)),
            (OTHER_KEY, misses("other_key").unwrap_or_default()),
            ("hits", total.hits),
            (
                "reads in batches",
                stats.pool.map_or(0, |pool| pool.batched_reads),
            ),
            ("hits, stale", total.hits_stale),
            (HITS_LOCAL, total.hits_local),
            (
                "values confirmed",
                stats.local.map_or(0, |local| local.confirmed),
            ),
            (
                "values dropped",
                stats.local.map_or(0, |local| local.dropped),
            ),
            ("loads", total.loads),
            ("loads overdue", total.loads_overdue),
            ("refreshes", total.refreshes),
            ("refreshes failed", total.refreshes_failed),
            ("refreshes crowded", total.refreshes_crowded),
            ("fills", total.fills),
            ("fills refused", total.fills_refused),
            ("puts", total.puts),
            ("puts degraded", total.puts_degraded),
            ("evictions", total.evictions),
            ("evictions journaled", total.evictions_journaled),
            ("fallbacks entered", stats.fallback.entered),
            ("operations timed out", total.timeouts),
            ("operations released", total.released),
            ("operations failed", total.errors),
        ];
        let counts = counts.map(|(name, count)| (name.to_owned(), count));
        let degraded = total.puts_degraded_by_reason.iter();
        let degraded = degraded.map(|(reason, count)| (format!("puts degraded, {reason}"), *count));
        Self {
            connected: stats.mode == Mode::Redis,
            journal: stats.journal_depth,
            counts: counts.into_iter().chain(degraded).collect(),
            waits,
            longest_body,
            latest_tick,
            oldest: Duration::from_nanos(tally.oldest.load(Ordering::Relaxed)),
            complaints,
        }
    }

    /// Adds the counts of another process.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
        for (kind, waits) in &other.waits {
            self.waits.entry(*kind).or_default().merge(waits);
        }
        self.longest_body = self.longest_body.max(other.longest_body);
        self.latest_tick = self.latest_tick.max(other.latest_tick);
        self.oldest = self.oldest.max(other.oldest);
        self.complaints.extend(other.complaints.iter().cloned());
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// Returns the number of store operations that failed in any way.
    pub(crate) fn troubles(&self) -> u64 {
        ["timed out", "released", "failed"]
            .iter()
            .map(|how| self.count(&format!("operations {how}")))
            .sum()
    }

    pub(crate) fn print(&self, figures: &mut Figures) {
        let must_be_none = [FAILED, BODIES_FAILED, OUTDATED, TOO_OLD, OTHER_KEY];
        figures.note(
            "oldest answer, since any process had evicted it",
            format_args!("{:.1?}", self.oldest),
        );
        for (name, count) in &self.counts {
            if !must_be_none.contains(&name.as_str()) {
                figures.note(name, count);
            }
        }
        for name in must_be_none {
            let count = self.count(name);
            figures.check(name, count, "must be 0", count == 0);
        }
    }

    /// Prints how long calls waited, next to their bounds.
    pub(crate) fn print_waits(&self, config: &Config, figures: &mut Figures) {
        let (body, tick) = (self.longest_body, self.latest_tick);
        figures.note(
            "longest body, for which another call may wait",
            format_args!("{body:.1?}"),
        );
        figures.note(
            "longest delay of a task by the machine",
            format_args!("{tick:.1?}"),
        );
        for (kind, waits) in &self.waits {
            let bound = Bound::of(*kind, config).limit(body);
            let Waits {
                calls,
                worst,
                above,
                beyond,
            } = waits;
            figures.check(
                &format!("{kind:?}: longest added wait of {calls} calls"),
                format_args!("{worst:.1?}, {above} above the bound, {beyond} of them by more than the machine was late"),
                &format!("bound {bound:.1?}"),
                *beyond == 0,
            );
        }
    }

    pub(crate) fn print_complaints(&self, figures: &Figures) {
        for complaint in self.complaints.iter().take(SHOWN) {
            figures.note("seen", complaint);
        }
    }
}

/// The most errors that are printed.
pub(crate) const SHOWN: usize = 5;

const FAILED: &str = "calls that failed although their body did not";
const BODIES_FAILED: &str = "bodies that failed";
const OUTDATED: &str = "reads of an older version than an earlier eviction or put of the process";
pub(crate) const HITS_LOCAL: &str = "hits in the process";
const TOO_OLD: &str = "reads of a value in a process that was evicted longer ago than the bound";
const OTHER_KEY: &str = "answers with the value of another key";
