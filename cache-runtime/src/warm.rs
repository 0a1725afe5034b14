//! Warming: fills the cache before values are needed, once or on a schedule.
//!
//! Each item is one call of an annotated function, which works as always:
//!
//! - A fresh value does not change.
//! - A missing value is loaded and stored.
//! - If another process loads the value, the call waits for it.
//! - A stale value is refreshed before the call returns, even if `refresh = "background"` would serve it.
//!
//! ```
//! use cache_runtime::{Cache, cacheable};
//!
//! #[cacheable(key = "event:<id>", ttl = "30m", cache = cache)]
//! async fn event(cache: &Cache, id: i64) -> Result<String, std::io::Error> {
//!     Ok(format!("event {id}")) // or ask a database
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let cache = Cache::memory();
//! event(&cache, 1).await.ok();
//!
//! let summary = cache
//!     .warm(1..=100, |id| event(&cache, id))
//!     .concurrency(4)
//!     .on_progress(|progress| println!("{} of {:?}", progress.done, progress.total))
//!     .run()
//!     .await;
//!
//! assert_eq!((summary.loaded, summary.fresh, summary.failed), (99, 1, 0));
//! # }
//! ```
//!
//! To warm items of different kinds in one run, make them an enum and match on it in the call. [`every`] repeats a run on a
//! schedule, on one instance at a time.

mod schedule;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

pub use self::schedule::{Schedule, every};
use crate::cache::{Cache, Loaded, watched};
use crate::error::with_causes;

/// Enough calls to hide the database's latency, and few enough to leave the database to the service's own callers.
const CONCURRENCY: usize = 8;

/// How long a run waits for Redis. Enough for a hiccup or a restart; a run is not worth a longer wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most errors in a summary. The first errors show what is wrong; more errors do not add information.
const MAX_FAILURES: usize = 10;

type BoxError = Box<dyn StdError + Send + Sync>;

impl Cache {
    /// Calls an annotated function once for each of `items`, so that the results are in the cache: see [`warm`](crate::warm).
    ///
    /// - The function must use this cache.
    /// - Items are taken one by one when a call can start, so there can be many of them.
    /// - The error of a call is any type that converts into a boxed error, including a text.
    /// - While Redis is unavailable, nothing could be stored, so nothing is called. If Redis is not back within 2 s, the remaining
    ///   items count as failed.
    pub fn warm<I, F, C, T, E>(&self, items: I, call: F) -> Warm<I::IntoIter, F>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> C,
        C: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        Warm {
            cache: self.clone(),
            items: items.into_iter(),
            call,
            concurrency: CONCURRENCY,
            progress: |_| {},
        }
    }
}

/// A run that fills the cache. Created by [`Cache::warm`].
///
/// See [`warm`](crate::warm) for an example.
#[must_use = "nothing is called before `run`"]
pub struct Warm<I, F, P = fn(&Progress)> {
    cache: Cache,
    items: I,
    call: F,
    concurrency: usize,
    progress: P,
}

impl<I, F, P> Warm<I, F, P> {
    /// Sets how many calls run at a time, at least 1. Default: 8.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls.max(1);
        self
    }

    /// Calls `progress` after each item. Default: nothing is called.
    pub fn on_progress<Q: FnMut(&Progress)>(self, progress: Q) -> Warm<I, F, Q> {
        let Self {
            cache,
            items,
            call,
            concurrency,
            progress: _,
        } = self;
        Warm {
            cache,
            items,
            call,
            concurrency,
            progress,
        }
    }

    /// Runs the calls. If the future is dropped early, it drops the running calls and starts no more.
    pub async fn run<C, T, E>(self) -> Summary
    where
        I: Iterator,
        F: FnMut(I::Item) -> C,
        C: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
        P: FnMut(&Progress),
    {
        let Self {
            cache,
            items,
            mut call,
            concurrency,
            progress,
        } = self;
        let mut tally = Tally::begin(items.size_hint(), progress);
        let mut items = items.enumerate().fuse().peekable();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < concurrency && cache.can_store() {
                let Some((index, item)) = items.next() else {
                    break;
                };
                let call = watched(call(item));
                under_way.push(async move { (index, call.await) });
            }
            let Some((index, (output, loaded))) = under_way.next().await else {
                let Some((index, _)) = items.peek() else {
                    break;
                };
                let index = *index;
                if cache.can_store_within(PATIENCE).await {
                    continue;
                }
                tally.fail(items.by_ref().count(), index, || {
                    "Redis is unavailable: this item and all later items were not called, because nothing could be stored"
                        .to_owned()
                });
                break;
            };
            match (output, loaded) {
                (Err(error), _) => tally.fail(1, index, || with_causes(&*error.into())),
                (Ok(_), Loaded::Nothing) => tally.fresh(),
                (Ok(_), Loaded::Done) if cache.can_store() => tally.loaded(),
                (Ok(_), Loaded::Done) => {
                    tally.fail(1, index, || "Redis became unavailable during the call".to_owned());
                }
                (Ok(_), Loaded::Failed) => tally.fail(1, index, || {
                    "the call returned a value although its load failed; the cached value is unchanged"
                        .to_owned()
                }),
            }
            // Calls that find everything in memory never wait, so this task yields to other tasks.
            consume_budget().await;
        }
        tally.end()
    }
}

impl<I, F, P> fmt::Debug for Warm<I, F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warm")
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// The progress of a run.
///
/// See [`warm`](crate::warm) for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of finished items: the sum of `loaded`, `fresh` and `failed`.
    pub done: usize,
    /// The number of all items, if their iterator knows it.
    pub total: Option<usize>,
    /// Items whose body ran.
    pub loaded: usize,
    /// Items that needed no load by this run: the value was stored, or another caller was loading it.
    pub fresh: usize,
    /// Items that failed, or were not called because Redis was unavailable.
    pub failed: usize,
}

/// The result of a run. `Display` prints one line, without the errors.
///
/// ```
/// use std::io;
///
/// use cache_runtime::{Cache, cacheable};
///
/// #[cacheable(key = "event:<id>", ttl = "30m", cache = cache)]
/// async fn event(cache: &Cache, id: i64) -> io::Result<String> {
///     match id {
///         2 => Err(io::Error::other("event 2 is broken")),
///         id => Ok(format!("event {id}")),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
/// let summary = cache.warm(1..=3, |id| event(&cache, id)).run().await;
///
/// assert_eq!((summary.loaded, summary.failed), (2, 1));
/// for failure in &summary.errors {
///     println!("item {}: {}", failure.index, failure.error); // item 1: event 2 is broken
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "items that failed are not in the cache"]
#[non_exhaustive]
pub struct Summary {
    /// Items whose body ran.
    pub loaded: usize,
    /// Items that needed no load by this run: the value was stored, or another caller was loading it.
    pub fresh: usize,
    /// Items that failed, or were not called because Redis was unavailable.
    pub failed: usize,
    /// The errors of the first 10 failures.
    pub errors: Vec<Failure>,
    /// How long the run took.
    pub took: Duration,
}

/// The error of an item.
///
/// See [`Summary`] for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The index of the item, from 0.
    pub index: usize,
    /// The error and its causes.
    pub error: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            loaded,
            fresh,
            failed,
            errors: _,
            took,
        } = self;
        write!(
            f,
            "{loaded} loaded, {fresh} fresh, {failed} failed in {took:.1?}"
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, error } = self;
        write!(f, "item {index}: {error}")
    }
}

/// Counts items and reports the progress.
struct Tally<P> {
    progress: Progress,
    errors: Vec<Failure>,
    say: P,
    began: Instant,
}

impl<P: FnMut(&Progress)> Tally<P> {
    fn begin(size_hint: (usize, Option<usize>), say: P) -> Self {
        let (least, most) = size_hint;
        Self {
            progress: Progress {
                total: most.filter(|most| *most == least),
                ..Progress::default()
            },
            errors: Vec::new(),
            say,
            began: Instant::now(),
        }
    }

    fn loaded(&mut self) {
        self.progress.loaded += 1;
        self.done(1);
    }

    fn fresh(&mut self) {
        self.progress.fresh += 1;
        self.done(1);
    }

    fn fail(&mut self, many: usize, index: usize, error: impl FnOnce() -> String) {
        if self.errors.len() < MAX_FAILURES {
            let error = error();
            self.errors.push(Failure { index, error });
        }
        self.progress.failed += many;
        self.done(many);
    }

    fn done(&mut self, many: usize) {
        self.progress.done += many;
        (self.say)(&self.progress);
    }

    fn end(self) -> Summary {
        let Progress {
            done: _,
            total: _,
            loaded,
            fresh,
            failed,
        } = self.progress;
        Summary {
            loaded,
            fresh,
            failed,
            errors: self.errors,
            took: self.began.elapsed(),
        }
    }
}
