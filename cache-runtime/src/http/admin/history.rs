//! The last minutes, for charts: a sample every 5 s, of fixed size. It is taken while the service exists, so that a page which is
//! opened during an incident shows how it began.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::Shared;
use crate::cache::Cache;
use crate::metrics::{Latencies, Mode, Stats};
use crate::singleton::{Running, Singleton};
use crate::sync::Mutex;

/// The time between two samples.
const TICK: Duration = Duration::from_secs(5);

/// Samples that are kept: 10 minutes.
pub(super) const KEPT: usize = 120;

/// Functions whose samples are kept, as many as have counters of their own.
const MAX_FUNCTIONS: usize = 257;

/// Periods of one mode that are kept.
const MAX_PERIODS: usize = 50;

/// Hot keys are counted for this long after somebody looked at them.
const WATCHED: Duration = Duration::from_secs(5 * 60);

/// A function by its name and its template.
pub(super) type Function = (&'static str, &'static str);

#[derive(Debug, Default)]
pub(super) struct History {
    rings: Mutex<Rings>,
    sampler: Singleton,
}

#[derive(Debug, Default)]
struct Rings {
    functions: HashMap<Function, Ring>,
    /// Operations in each step of latency, of each sample.
    heat: VecDeque<Latencies>,
    seen: Option<Latencies>,
    /// The last one goes on.
    periods: VecDeque<Period>,
    looked: Option<Instant>,
}

/// The hits and reads of one function.
#[derive(Debug, Default)]
struct Ring {
    seen: (u64, u64),
    samples: VecDeque<(u32, u32)>,
}

/// A time in one mode.
#[derive(Debug)]
struct Period {
    mode: Mode,
    since: Instant,
    reason: Option<String>,
}

/// Starts the task that takes samples, unless it runs or there is no runtime. It ends with the last clone of the service.
pub(super) fn ensure(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    shared.history.sampler.start(|running| run(weak, running));
}

async fn run(shared: Weak<Shared>, _running: Running) {
    let Some(mut states) = shared.upgrade().map(|shared| shared.cache.states()) else {
        return;
    };
    let mut next = Instant::now();
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let now = Instant::now();
        shared
            .history
            .see_mode(shared.cache.mode(), &shared.cache, now);
        if now >= next {
            next = now + TICK;
            let stats = shared.cache.stats();
            let latencies = shared.cache.latencies();
            let is_watched = shared.history.sample(&stats, &latencies, now);
            shared.cache.hot_keys().set(is_watched);
        }
        drop(shared);
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = sleep_until(next) => {}
        }
    }
}

impl History {
    fn see_mode(&self, mode: Mode, cache: &Cache, now: Instant) {
        let reason = match mode {
            Mode::Fallback => cache.why_unavailable(),
            _ => None,
        };
        let mut rings = self.rings.lock();
        let periods = &mut rings.periods;
        match periods.back_mut() {
            Some(period) if period.mode == mode => {
                // The first reason is the cause.
                period.reason = period.reason.take().or(reason);
            }
            _ => {
                if periods.len() == MAX_PERIODS {
                    periods.pop_front();
                }
                periods.push_back(Period {
                    mode,
                    since: now,
                    reason,
                });
            }
        }
    }

    /// Takes a sample. Returns whether somebody looks at the hot keys.
    fn sample(&self, stats: &Stats, latencies: &Latencies, now: Instant) -> bool {
        let mut rings = self.rings.lock();
        let mut reads: HashMap<Function, (u64, u64)> = HashMap::new();
        for site in &stats.sites {
            let sum = reads.entry((site.name, site.template)).or_default();
            sum.0 += site.counts.hits;
            sum.1 += site.counts.gets;
        }
        for (function, (hits, gets)) in reads {
            if rings.functions.len() >= MAX_FUNCTIONS && !rings.functions.contains_key(&function) {
                continue;
            }
            let ring = rings.functions.entry(function).or_default();
            let change =
                |now: u64, before| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
            let sample = (change(hits, ring.seen.0), change(gets, ring.seen.1));
            ring.seen = (hits, gets);
            push(&mut ring.samples, sample);
        }
        let before = rings.seen.replace(*latencies).unwrap_or(*latencies);
        let mut change = *latencies;
        for (now, before) in change.iter_mut().zip(before) {
            *now = now.saturating_sub(before);
        }
        push(&mut rings.heat, change);
        rings
            .looked
            .is_some_and(|looked| now.saturating_duration_since(looked) < WATCHED)
    }

    /// Somebody looks.
    pub(super) fn look(&self) {
        self.rings.lock().looked = Some(Instant::now());
    }

    /// Returns the share of hits in each sample in percent, the oldest first; -1 where there were no reads.
    pub(super) fn hit_rates(&self) -> HashMap<Function, Vec<i32>> {
        let rings = self.rings.lock();
        let rate = |(hits, gets): &(u32, u32)| match gets {
            0 => -1,
            gets => (100.0 * f64::from(*hits) / f64::from(*gets)).round() as i32,
        };
        let functions = rings.functions.iter();
        functions
            .map(|(function, ring)| (*function, ring.samples.iter().map(rate).collect()))
            .collect()
    }

    /// Returns the operations in each step of latency, by sample, the oldest first.
    pub(super) fn heat(&self) -> Vec<Latencies> {
        self.rings.lock().heat.iter().copied().collect()
    }

    /// Returns the periods of one mode, the oldest first.
    pub(super) fn periods(&self) -> Vec<Value> {
        let rings = self.rings.lock();
        let periods = rings.periods.iter();
        let ends = periods.clone().skip(1).map(|period| Some(period.since));
        let shown = periods.zip(ends.chain([None])).map(|(period, end)| {
            let began = period.since.elapsed().as_secs_f64();
            let ended = end.map(|end| end.elapsed().as_secs_f64());
            json!({
                "mode": period.mode,
                "began_seconds_ago": began,
                "ended_seconds_ago": ended,
                "reason": period.reason,
            })
        });
        shown.collect()
    }
}

fn push<T>(ring: &mut VecDeque<T>, sample: T) {
    if ring.len() == KEPT {
        ring.pop_front();
    }
    ring.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn samples_hold_what_changed_and_their_number_is_bounded() {
        let cache = Cache::memory();
        let history = History::default();
        let now = Instant::now();
        let sample = || history.sample(&cache.stats(), &cache.latencies(), now);
        cache.set("event:1", &1, 60_u64).await;
        cache.get::<i32>("event:1").await;
        sample();
        cache.get::<i32>("event:1").await;
        cache.get::<i32>("event:2").await;
        sample();
        sample();

        assert_eq!(history.hit_rates()[&("Cache", "")], [100, 50, -1]);
        let operations = |sample: &Latencies| sample.iter().sum::<u64>();
        let heat: Vec<_> = history.heat().iter().map(operations).collect();
        assert_eq!(
            heat,
            [0, 2, 0],
            "the first sample has nothing to compare with"
        );

        for _ in 0..2 * KEPT {
            sample();
        }
        assert_eq!(
            (
                history.heat().len(),
                history.hit_rates()[&("Cache", "")].len()
            ),
            (KEPT, KEPT)
        );
    }

    #[tokio::test]
    async fn periods_follow_the_mode_and_their_number_is_bounded() {
        let (cache, history, now) = (Cache::memory(), History::default(), Instant::now());
        for _ in 0..MAX_PERIODS {
            history.see_mode(Mode::Redis, &cache, now);
            history.see_mode(Mode::Fallback, &cache, now);
            history.see_mode(Mode::Fallback, &cache, now);
        }

        let periods = history.periods();

        assert_eq!(periods.len(), MAX_PERIODS);
        let last = &periods[MAX_PERIODS - 1];
        assert_eq!(
            (&last["mode"], &last["ended_seconds_ago"]),
            (&json!("fallback"), &Value::Null)
        );
        let before = &periods[MAX_PERIODS - 2];
        assert_eq!(before["mode"], "redis");
        assert!(before["ended_seconds_ago"].is_f64());
    }

    #[test]
    fn a_history_of_100_functions_takes_less_than_256_kib() {
        let ring = size_of::<Ring>() + KEPT.next_power_of_two() * size_of::<(u32, u32)>();
        let heat = KEPT.next_power_of_two() * size_of::<Latencies>();
        assert!(100 * ring + heat < 256 * 1024, "{ring} {heat}");
    }
}
