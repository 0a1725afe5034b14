//! The report of a call: one small record of what it did, for the views that somebody asks for.
//!
//! A call counts through its [`CallMetrics`], which also writes the record. So a view never differs from the metrics. A call looks
//! once whether a view is on. If none is, it keeps no record.

use std::future::Future;
use std::mem;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Evicted;
use crate::entry::{Meta, Stamp};
use crate::metrics::{Event, SiteMetrics, SiteRef};
use crate::site::Site;
use crate::sync::Mutex;

/// The most calls of which reports are kept. Further calls are only counted.
const MAX_CALLS: usize = 256;

tokio::task_local! {
    /// Collects the reports of the calls inside. [`None`] for a task that was started outside of any view and inherited that.
    static COLLECTOR: Option<Arc<Collector>>;
}

/// What one call did. Durations are in microseconds and end at 71 minutes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallReport {
    pub(crate) site: &'static Site,
    /// The stamp of the entry that was found or stored.
    pub(crate) stamp: Stamp,
    /// For how many milliseconds that entry is fresh, or since when it is not, at the time of the call.
    pub(crate) ttl_left: i64,
    /// How old it is, in milliseconds. It ends at 49 days.
    pub(crate) age: u32,
    /// When the call began, counted from the beginning of the view.
    pub(crate) at: u32,
    pub(crate) took: u32,
    pub(crate) spent: [u32; 3],
    /// The event that ended the lookup, the put or the eviction.
    pub(crate) result: Option<Event>,
    /// How the body ended, or which other load provided the value.
    pub(crate) load: Option<Event>,
    /// What became of the value or of the eviction.
    pub(crate) outcome: Option<Event>,
    pub(crate) lease: Lease,
    /// Whether an entry was found or stored.
    pub(crate) has_entry: bool,
}

const _: () = assert!(size_of::<CallReport>() < 64);

/// How a call asked for the right to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// It did not ask.
    Unasked,
    Won,
    /// Another process had it, and provided the value.
    Awaited,
    /// Another caller had it, or Redis did not answer.
    Refused,
    /// It won the right to refresh a stale value.
    Refresh,
    /// It won the right, and lost it before its load ended.
    Lost,
}

/// What a call spends time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// Operations of the store.
    Store,
    /// Loads of others, and its turn to load.
    Waiting,
    /// Its body.
    Loading,
}

impl CallReport {
    fn new(site: &'static Site, at: Duration) -> Self {
        Self {
            site,
            stamp: Stamp::default(),
            ttl_left: 0,
            age: 0,
            at: micros(at),
            took: 0,
            spent: [0; 3],
            result: None,
            load: None,
            outcome: None,
            lease: Lease::Unasked,
            has_entry: false,
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            _ if event.load().is_some() => self.load = Some(event),
            Event::LeaseLost => self.lease = Lease::Lost,
            _ if event.result().is_some() => self.result = Some(event),
            _ if event.outcome().is_some() => self.outcome = Some(event),
            _ => {}
        }
    }
}

/// The reports of the calls in a view, in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) calls: Vec<Call>,
    /// How many more calls there were.
    pub(crate) omitted: u64,
}

/// A call, and what its report has no place for.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) report: CallReport,
    /// [`None`] unless the view asks for it.
    pub(crate) detail: Option<Box<Detail>>,
}

#[derive(Debug)]
pub(crate) struct Detail {
    /// The key or the targets, as logs show them.
    pub(crate) key: String,
    pub(crate) metrics: SiteRef,
}

/// What a view needs of each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Reports,
    ReportsAndDetails,
}

#[derive(Debug)]
struct Collector {
    wanted: Wanted,
    began: Instant,
    calls: Mutex<Calls>,
}

impl Collector {
    fn new(wanted: Wanted) -> Arc<Self> {
        Arc::new(Self {
            wanted,
            began: Instant::now(),
            calls: Mutex::default(),
        })
    }

    fn take(&self) -> Calls {
        let mut calls = mem::take(&mut *self.calls.lock());
        // Methods of `Cache` that only prepared a call.
        calls
            .calls
            .retain(|call| call.report.result.is_some() || !call.report.site.template.is_empty());
        calls
    }
}

impl Calls {
    fn push(&mut self, call: Call) -> Option<usize> {
        if self.calls.len() >= MAX_CALLS {
            self.omitted += 1;
            return None;
        }
        self.calls.push(call);
        Some(self.calls.len() - 1)
    }
}

/// Runs `work` and returns the reports of its calls. A view around this one gets them too.
pub(crate) async fn collect<T>(wanted: Wanted, work: impl Future<Output = T>) -> (T, Calls) {
    let outer = current();
    let wanted = match &outer {
        Some(outer) if outer.wanted == Wanted::ReportsAndDetails => outer.wanted,
        _ => wanted,
    };
    let collector = Collector::new(wanted);
    let output = COLLECTOR.scope(Some(Arc::clone(&collector)), work).await;
    let calls = collector.take();
    if let Some(outer) = outer {
        outer.add(&calls, collector.began);
    }
    (output, calls)
}

/// Passes the view around this call to `work`, which may then run in another task.
pub(crate) fn in_current_view<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    COLLECTOR.scope(current(), work)
}

/// Returns whether somebody wants the report of a call that begins here.
#[inline]
pub(super) fn is_viewed() -> bool {
    COLLECTOR.try_with(Option::is_some).unwrap_or(false)
}

fn current() -> Option<Arc<Collector>> {
    COLLECTOR.try_with(Clone::clone).ok().flatten()
}

impl Collector {
    /// Adds the calls of a view inside this one.
    fn add(&self, inner: &Calls, began: Instant) {
        let later = micros(began - self.began);
        let mut calls = self.calls.lock();
        for Call { report, detail } in &inner.calls {
            let detail = detail.as_ref().map(|detail| {
                Box::new(Detail {
                    key: detail.key.clone(),
                    metrics: detail.metrics.clone(),
                })
            });
            let report = CallReport {
                at: report.at.saturating_add(later),
                ..*report
            };
            calls.push(Call { report, detail });
        }
        calls.omitted += inner.omitted;
    }
}

/// The counters of the function of a call, and the call's report if a view is on. What is counted here is also reported.
#[derive(Debug)]
pub(super) struct CallMetrics {
    counted: SiteRef,
    report: Option<Place>,
}

/// Where the report of a call is.
#[derive(Debug)]
struct Place {
    collector: Arc<Collector>,
    index: usize,
    began: Instant,
}

impl CallMetrics {
    /// A call begins. `key` is what it is about, in case a view wants to show it.
    pub(super) fn begin(
        counted: SiteRef,
        site: &'static Site,
        began: Instant,
        key: impl FnOnce() -> String,
    ) -> Self {
        let report = match is_viewed() {
            true => Place::new(&counted, site, began, key),
            false => None,
        };
        Self { counted, report }
    }

    /// `event` happened.
    pub(super) fn count(&self, event: Event) {
        self.counted.count(event);
        self.note(event);
    }

    /// `event` happened at `now`, for callers that have read the clock already.
    pub(super) fn count_at(&self, event: Event, now: std::time::Instant) {
        self.counted.count_at(event, now);
        self.note(event);
    }

    /// `event` happened, and was counted elsewhere.
    pub(super) fn note(&self, event: Event) {
        self.write(|report| report.apply(event));
    }

    /// An eviction was made.
    pub(super) fn evicted(&self, evicted: Evicted) {
        self.note(match evicted {
            Evicted::Applied { .. } => Event::EvictApplied,
            Evicted::Journaled => Event::EvictJournaled,
            Evicted::Deferred => Event::EvictDeferred,
            Evicted::Refused => return,
        });
    }

    /// An entry was found.
    pub(super) fn found(&self, meta: &Meta, now: u64) {
        self.write(|report| {
            report.stamp = meta.stamp;
            report.ttl_left = meta.fresh_until.saturating_sub(now).cast_signed();
            if meta.is_stale(now) {
                report.ttl_left = -now.saturating_sub(meta.fresh_until).cast_signed();
            }
            report.age = u32::try_from(now.saturating_sub(meta.stored)).unwrap_or(u32::MAX);
            report.has_entry = true;
        });
    }

    /// An entry was stored that is fresh for `ttl`.
    pub(super) fn stored(&self, stamp: Stamp, ttl: Duration) {
        self.write(|report| {
            report.stamp = stamp;
            report.ttl_left = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            report.age = 0;
            report.has_entry = true;
        });
    }

    pub(super) fn set_lease(&self, lease: Lease) {
        self.write(|report| report.lease = lease);
    }

    /// Runs `work`, and reports how long it takes.
    pub(super) async fn spend<T>(&self, on: Spent, work: impl Future<Output = T>) -> T {
        let began = self.report.as_ref().map(|_| Instant::now());
        let output = work.await;
        if let Some(began) = began {
            self.spent(on, began.elapsed());
        }
        output
    }

    /// Reports how long something took.
    pub(super) fn spent(&self, on: Spent, took: Duration) {
        self.write(|report| {
            let spent = &mut report.spent[on as usize];
            *spent = spent.saturating_add(micros(took));
        });
    }

    /// The same for something that began at `began`.
    pub(super) fn spent_since(&self, on: Spent, began: Instant) {
        if self.report.is_some() {
            self.spent(on, began.elapsed());
        }
    }

    fn write(&self, change: impl FnOnce(&mut CallReport)) {
        if let Some(place) = &self.report {
            place.write(change);
        }
    }
}

impl Deref for CallMetrics {
    type Target = SiteMetrics;

    fn deref(&self) -> &SiteMetrics {
        &self.counted
    }
}

impl Place {
    #[cold]
    fn new(
        counted: &SiteRef,
        site: &'static Site,
        began: Instant,
        key: impl FnOnce() -> String,
    ) -> Option<Self> {
        let collector = current()?;
        let detail = match collector.wanted {
            Wanted::Reports => None,
            Wanted::ReportsAndDetails => Some(Box::new(Detail {
                key: key(),
                metrics: counted.clone(),
            })),
        };
        let report = CallReport::new(site, began.saturating_duration_since(collector.began));
        let index = collector.calls.lock().push(Call { report, detail })?;
        Some(Self {
            collector,
            index,
            began,
        })
    }

    #[cold]
    fn write(&self, change: impl FnOnce(&mut CallReport)) {
        // A call may outlive its view.
        if let Some(call) = self.collector.calls.lock().calls.get_mut(self.index) {
            change(&mut call.report);
        }
    }
}

/// The call ends, perhaps because its caller gave up.
impl Drop for Place {
    fn drop(&mut self) {
        self.write(|report| report.took = micros(self.began.elapsed()));
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
