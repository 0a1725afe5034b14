//! Why calls were answered as they were: a report of every call in some work, with warnings.

mod warnings;

use std::future::Future;

use serde::Serialize;

use crate::cache::{Cache, Call, Calls, Lease, Spent, Wanted, collect};
use crate::catalog::Evictors;
use crate::metrics::Event;

/// The calls in some work, in the order in which they began. [`Cache::explain`] returns it.
///
/// ```
/// use cache_runtime::{Cache, cacheable};
///
/// #[cacheable(key = "greeting:<name>", ttl = 60)]
/// async fn greeting(name: &str) -> String {
///     format!("hello, {name}")
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// let (_, report) = cache.explain(greeting("Ada")).await;
///
/// for call in &report.calls {
///     println!("{} of {}: {:?} in {} µs", call.function, call.key, call.result, call.took_micros);
///     for warning in &call.warnings {
///         println!("{}: {}; {}", warning.code, warning.message, warning.advice);
///     }
/// }
/// assert_eq!(report.calls[0].key, "dev_greeting:Ada"); // with the prefix
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The first 256 calls of annotated functions, and of methods that read, such as [`Cache::get`]. A call inside the body of another
    /// one follows it.
    pub calls: Vec<ExplainedCall>,
    /// How many more calls there were.
    pub omitted: u64,
}

/// What one call did, and what looks wrong about it. Words are those of the [metrics](Cache::prometheus). [`Explanation`] has an
/// example.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExplainedCall {
    /// The function with its module path. `Cache` for a method of a cache.
    pub function: &'static str,
    /// The key, pattern or target, as written.
    pub template: &'static str,
    /// The key with its prefix, or the targets of an eviction. Only hashes, if [`mask_keys`](crate::Config::mask_keys) is set.
    pub key: String,
    /// `hit`, `local`, `outage`, `none`, `stale`, `miss` or `bypass` of a read, `put` or `evict`. `None` if the call was cancelled, or if its body failed, so
    /// that nothing was stored or evicted.
    pub result: Option<&'static str>,
    /// Why it is a miss or a bypass.
    pub reason: Option<&'static str>,
    /// How the call asked for the right to load: `won`, `refused`, `awaited` (another process had it, and provided the value),
    /// `refresh` (won for a stale value) or `lost` (it ended before the load). `None` if it did not ask.
    pub lease: Option<&'static str>,
    /// How the body ended after a miss: `success`, `failure` or `cancelled`. Or where another load provided the value: in this
    /// `process` or in the `cluster`.
    pub load: Option<&'static str>,
    /// What became of the value that the body returned, as `cache_fills_total` and `cache_puts_degraded_total` name it.
    pub fill: Option<&'static str>,
    /// `applied`, `journaled` or `deferred` of an eviction.
    pub eviction: Option<&'static str>,
    /// The stamp of the entry that was found or stored, which tells it apart from others under its key.
    pub stamp: Option<String>,
    /// How old that entry was.
    pub age_seconds: Option<f64>,
    /// For how long it was still fresh. Negative if it was stale.
    pub ttl_left_seconds: Option<f64>,
    /// When the call began, from the beginning of the work.
    pub began_micros: u32,
    /// How long it took.
    pub took_micros: u32,
    /// How long it waited for Redis, or for the memory of this process.
    pub redis_micros: u32,
    /// How long it waited for loads of other callers, and for its turn to load.
    pub waited_micros: u32,
    /// How long its body ran, with the calls inside.
    pub loaded_micros: u32,
    /// What looks wrong.
    pub warnings: Vec<ExplainWarning>,
}

/// Something that looks wrong about a call.
///
/// See [`Explanation`] for an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainWarning {
    /// The same for each warning of this kind. `docs/book/src/reference/observability.md` lists them.
    pub code: &'static str,
    /// What was found.
    pub message: String,
    /// What to do.
    pub advice: &'static str,
}

impl Cache {
    /// [Runs](Self::run) `work` with this cache, and returns how its calls were answered, and what looks wrong:
    ///
    /// ```
    /// use cache_runtime::{Cache, cacheable};
    ///
    /// #[cacheable(key = "greeting:<name>", ttl = 60)]
    /// async fn greeting(name: &str) -> String {
    ///     format!("hello, {name}")
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// let (_, report) = cache
    ///     .explain(async {
    ///         greeting("Ada").await;
    ///         greeting("Ada").await
    ///     })
    ///     .await;
    ///
    /// let results: Vec<_> = report.calls.iter().map(|call| call.result).collect();
    /// assert_eq!(results, [Some("miss"), Some("hit")]);
    /// assert_eq!(report.calls[0].warnings[0].code, "not-evicted"); // only its TTL ends it
    /// # }
    /// ```
    ///
    /// Only the calls until the end of `work` are reported. Work in another task is reported if it is wrapped in
    /// [`in_current_run`](crate::in_current_run). Calls of functions with a cache of their own are reported, too.
    ///
    /// The report contains keys, unless [`mask_keys`](crate::Config::mask_keys) is set. It does not contain values.
    pub async fn explain<T>(&self, work: impl Future<Output = T>) -> (T, Explanation) {
        let work = collect(Wanted::ReportsAndDetails, work);
        let (output, calls) = self.run(work).await;
        (output, Explanation::of(&calls))
    }
}

impl Explanation {
    fn of(calls: &Calls) -> Self {
        let evictors = Evictors::known();
        Self {
            calls: calls
                .calls
                .iter()
                .map(|call| ExplainedCall::of(call, &evictors))
                .collect(),
            omitted: calls.omitted,
        }
    }
}

impl ExplainedCall {
    fn of(call: &Call, evictors: &Evictors) -> Self {
        let report = &call.report;
        let site = report.site;
        let detail = call.detail.as_deref();
        let is_eviction = report.outcome.is_some_and(Event::is_eviction);
        let outcome = report.outcome.and_then(Event::outcome);
        let spent = |on: Spent| report.spent[on as usize];
        let seconds = |millis: i64| millis as f64 / 1_000.0;
        Self {
            function: site.name,
            template: site.template,
            key: detail.map(|detail| detail.key.clone()).unwrap_or_default(),
            result: report.result.and_then(Event::result),
            reason: report.result.and_then(Event::miss_reason),
            lease: match report.lease {
                Lease::Unasked => None,
                Lease::Won => Some("won"),
                Lease::Awaited => Some("awaited"),
                Lease::Refused => Some("refused"),
                Lease::Refresh => Some("refresh"),
                Lease::Lost => Some("lost"),
            },
            load: report.load.and_then(Event::load),
            fill: outcome.filter(|_| !is_eviction),
            eviction: outcome.filter(|_| is_eviction),
            stamp: report
                .has_entry
                .then(|| format!("{:016x}", u64::from_be_bytes(report.stamp))),
            age_seconds: report.has_entry.then(|| seconds(report.age.into())),
            ttl_left_seconds: report.has_entry.then(|| seconds(report.ttl_left)),
            began_micros: report.at,
            took_micros: report.took,
            redis_micros: spent(Spent::Store),
            waited_micros: spent(Spent::Waiting),
            loaded_micros: spent(Spent::Loading),
            warnings: warnings::of(site, detail.map(|detail| &*detail.metrics), evictors),
        }
    }
}

#[cfg(test)]
mod tests;
