//! How long calls wait for the cache: the time in a call without the time in its own body. It is compared with the bound in
//! `docs/book/src/reference/consistency.md` and with the delays that this machine causes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use cache_runtime::{Config, Topology};
use serde::{Deserialize, Serialize};
use tokio::task::{self, Id};
use tokio::time::sleep;

use crate::report::SHOWN;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    Read,
    Evict,
    EvictFenced,
    EvictMatching,
    EvictTag,
    EvictTagFenced,
    Put,
}

/// The longest wait of calls of one kind, as documented under "How long a call waits for the cache".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Each ends within the `command_timeout_max`.
    operations: u32,
    /// Waiting for other callers, without their bodies.
    others: Duration,
    /// Whether the body of another caller may run in place of its own.
    joins: bool,
    each: Duration,
}

/// Timers end with a whole millisecond, and the work around an operation takes time, too.
const EDGE: Duration = Duration::from_millis(5);

/// About one for every 250 keys in Redis: the rows, and the fillers of the chaos.
const SLICES: u32 = 4;

/// The table of slots, the keys of all nodes and their removal, and the table again. While a slot is under way, a second scan follows.
const SLICES_IN_A_CLUSTER: u32 = 8;

/// The tags of an eviction, and the markers of their families, are one operation. In a cluster they may be at two nodes, and the
/// markers are removed first.
const TAGS_IN_A_CLUSTER: u32 = 2;

impl Bound {
    pub(crate) fn of(kind: Kind, config: &Config) -> Self {
        let is_cluster = matches!(config.redis, Some(Topology::Cluster { .. }));
        let tags = if is_cluster { TAGS_IN_A_CLUSTER } else { 1 };
        let operations = match kind {
            // Look up, mark a stale value, ask for the lease if the value is gone by then, and fill.
            Kind::Read => 4,
            Kind::Evict => 1,
            Kind::EvictTag => tags,
            Kind::EvictFenced => 2,
            Kind::EvictTagFenced => 1 + tags,
            Kind::EvictMatching if is_cluster => SLICES_IN_A_CLUSTER,
            Kind::EvictMatching => SLICES,
            // Fence, store, and evict if storing failed.
            Kind::Put => 3,
        };
        let joins = kind == Kind::Read;
        Self {
            operations,
            others: if joins {
                config.lease_wait
            } else {
                Duration::ZERO
            },
            joins,
            each: config.command_timeout_max,
        }
    }

    /// Returns the bound on a machine without delays, if no body is longer than `longest_body`.
    pub(crate) fn limit(&self, longest_body: Duration) -> Duration {
        let joined = if self.joins {
            longest_body
        } else {
            Duration::ZERO
        };
        self.each * self.operations + self.others + joined
    }

    /// Returns how much longer a call may take if the machine is late for so long during it.
    fn slack(&self, lateness: Duration) -> Duration {
        // Another caller may be late as well.
        lateness * (1 + u32::from(self.joins)) + EDGE * self.operations
    }
}

/// A call of an annotated function. Its body records how long it ran.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    dawdle: Duration,
    began: Instant,
    task: Option<Id>,
    own: AtomicU64,
    is_body_failed: AtomicBool,
}

impl Call {
    pub(crate) fn begin(kind: Kind, dawdle: Duration) -> Self {
        Self {
            kind,
            dawdle,
            began: Instant::now(),
            task: task::try_id(),
            own: AtomicU64::new(0),
            is_body_failed: AtomicBool::new(false),
        }
    }

    /// Runs the body: the access to the table, and the work of a service before it returns.
    pub(crate) async fn body<T>(&self, table: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let result = table.await;
        if self.dawdle.is_zero() {
            task::yield_now().await;
        } else {
            sleep(self.dawdle).await;
        }
        // The caller does not wait for a background task.
        if task::try_id() == self.task {
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.own.fetch_add(took, Ordering::Relaxed);
        }
        if result.is_err() {
            self.is_body_failed.store(true, Ordering::Relaxed);
        }
        result
    }

    pub(crate) fn is_body_failed(&self) -> bool {
        self.is_body_failed.load(Ordering::Relaxed)
    }
}

/// The waits of calls of one kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Waits {
    pub(crate) calls: u64,
    pub(crate) worst: Duration,
    /// The number of calls that waited longer than the bound.
    pub(crate) above: u64,
    /// The number of those that exceeded it by more than the machine was late at that time.
    pub(crate) beyond: u64,
}

impl Waits {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.worst = self.worst.max(other.worst);
        self.above += other.above;
        self.beyond += other.beyond;
    }
}

/// Measures the calls of this process.
pub(crate) struct Watch {
    config: Config,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    waits: BTreeMap<Kind, Waits>,
    longest_body: Duration,
    /// Calls above the bound that are not judged yet: the next tick shows how late the machine is.
    pending: Vec<Overrun>,
    complaints: Vec<String>,
    /// When the ticks that were late were due, and when they came, in this order.
    late: Vec<(Instant, Instant)>,
    ticked: Option<Instant>,
}

struct Overrun {
    kind: Kind,
    began: Instant,
    ended: Instant,
    wait: Duration,
}

/// The measurements of a [`Watch`].
pub(crate) struct Sighting {
    pub(crate) waits: BTreeMap<Kind, Waits>,
    pub(crate) longest_body: Duration,
    pub(crate) latest_tick: Duration,
    pub(crate) complaints: Vec<String>,
}

const TICK: Duration = Duration::from_millis(5);

impl Watch {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            seen: Mutex::default(),
        }
    }

    /// Measures how late tasks of this process are woken. Never returns.
    pub(crate) async fn tick(&self) {
        loop {
            let due = Instant::now() + TICK;
            tokio::time::sleep_until(due.into()).await;
            let now = Instant::now();
            let mut seen = self.seen();
            if now - due > TICK {
                seen.late.push((due, now));
            }
            seen.ticked = Some(now);
        }
    }

    /// Records the end of a call.
    pub(crate) fn over(&self, call: &Call) {
        let ended = Instant::now();
        let own = Duration::from_nanos(call.own.load(Ordering::Relaxed));
        let wait = (ended - call.began).saturating_sub(own);
        let mut seen = self.seen();
        seen.longest_body = seen.longest_body.max(own);
        let waits = seen.waits.entry(call.kind).or_default();
        waits.calls += 1;
        waits.worst = waits.worst.max(wait);
        if wait > Bound::of(call.kind, &self.config).limit(Duration::ZERO) {
            seen.pending.push(Overrun {
                kind: call.kind,
                began: call.began,
                ended,
                wait,
            });
        }
    }

    pub(crate) fn sighting(&self) -> Sighting {
        let mut seen = self.seen();
        self.judge(&mut seen);
        Sighting {
            waits: seen.waits.clone(),
            longest_body: seen.longest_body,
            latest_tick: seen.latest_tick(),
            complaints: seen.complaints.clone(),
        }
    }

    fn judge(&self, seen: &mut Seen) {
        let ticked = seen.ticked;
        let is_known = |overrun: &mut Overrun| ticked.is_some_and(|ticked| overrun.ended < ticked);
        let known: Vec<Overrun> = seen.pending.extract_if(.., is_known).collect();
        for Overrun {
            kind,
            began,
            ended,
            wait,
        } in known
        {
            let bound = Bound::of(kind, &self.config);
            let limit = bound.limit(seen.longest_body);
            let late = seen.lateness(began, ended);
            let is_beyond = wait > limit + bound.slack(late);
            let waits = seen.waits.entry(kind).or_default();
            waits.above += u64::from(wait > limit);
            waits.beyond += u64::from(is_beyond);
            if is_beyond && seen.complaints.len() < SHOWN {
                let complaint = format!(
                    "{kind:?} waited {wait:.1?} of {limit:.1?}; the machine was late for {late:.1?} of it"
                );
                seen.complaints.push(complaint);
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn latest_tick(&self) -> Duration {
        let late = self.late.iter().map(|(due, now)| *now - *due);
        late.max().unwrap_or_default()
    }

    /// Returns for how much of a call the machine was late.
    fn lateness(&self, began: Instant, ended: Instant) -> Duration {
        let later = self.late.partition_point(|(_, now)| *now <= began);
        let during = self.late[later..].iter();
        let during = during.take_while(|(due, _)| *due < ended);
        during
            .map(|(due, now)| *now.min(&ended) - *due.max(&began))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a watch with a bound of 100 ms that has seen a call wait for `wait`.
    fn watched(wait: Duration) -> Watch {
        let config = Config::default();
        let each = config.command_timeout;
        let watch = Watch::new(config.command_timeout_max(each));
        let mut call = Call::begin(Kind::Evict, Duration::ZERO);
        call.began = Instant::now().checked_sub(wait).expect("an uptime");
        watch.over(&call);
        watch
    }

    /// Reports two late ticks during the call.
    fn tick(watch: &Watch, late: [Duration; 2]) {
        let mut seen = watch.seen();
        let mut due = seen.pending[0].began;
        for late in late {
            seen.late.push((due, due + late));
            due += late + TICK;
        }
        seen.ticked = Some(Instant::now());
    }

    #[test]
    fn a_call_above_its_bound_is_reported() {
        let watch = watched(Duration::from_millis(180));

        tick(&watch, [Duration::from_millis(15); 2]);

        let waits = &watch.sighting().waits[&Kind::Evict];
        assert_eq!((waits.above, waits.beyond), (1, 1));
    }

    #[test]
    fn a_call_delayed_by_the_machine_is_not_reported() {
        let watch = watched(Duration::from_millis(120));

        tick(&watch, [Duration::from_millis(15); 2]);

        let waits = &watch.sighting().waits[&Kind::Evict];
        assert_eq!((waits.above, waits.beyond), (1, 0));
    }

    #[test]
    fn the_steps_of_a_call_are_together_as_late_as_the_machine_was() {
        let bound = Bound::of(Kind::EvictFenced, &Config::default());

        let late = Duration::from_millis(100);
        assert_eq!(bound.slack(late), late + 2 * EDGE);
    }

    #[tokio::test]
    async fn the_own_body_does_not_count_as_waiting() {
        let watch = Watch::new(Config::default());
        let call = Call::begin(Kind::Evict, Duration::from_millis(120));

        call.body(async { Ok(()) })
            .await
            .expect("the body returns Ok");
        watch.over(&call);

        let seen = watch.sighting();
        assert!(seen.longest_body >= Duration::from_millis(120));
        assert!(seen.waits[&Kind::Evict].worst < Duration::from_millis(100));
    }
}
