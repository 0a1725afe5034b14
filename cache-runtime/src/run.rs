//! The cache and the rate limiter that annotated functions use: those of the [`Cache::run`] and [`RateLimiter::run`] around the
//! call, or else the installed ones.

use std::future::Future;

use crate::cache::{Cache, in_current_view};
#[cfg(feature = "limits")]
use crate::limit::RateLimiter;

tokio::task_local! {
    /// The cache of the innermost `run`. [`None`] for a task that was started outside of any `run` and inherited that.
    static CACHE: Option<Cache>;
}

#[cfg(feature = "limits")]
tokio::task_local! {
    /// The same for the rate limiter. It is a separate task-local because `cache.run(limiter.run(work))` creates the inner future
    /// first.
    static LIMITER: Option<RateLimiter>;
}

impl Cache {
    /// Runs `work` with this cache instead of the installed one. All annotated functions use it, except those with `cache = …`.
    ///
    /// This gives each test its own cache:
    ///
    /// ```
    /// use cache_runtime::{Cache, cacheable};
    /// # use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// # static LOADS: AtomicU32 = AtomicU32::new(0);
    ///
    /// #[cacheable(key = "greeting:<name>")]
    /// async fn greeting(name: &str) -> String {
    ///     # LOADS.fetch_add(1, Relaxed);
    ///     format!("hello, {name}")
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.run(async {
    ///     greeting("Ada").await;
    ///     greeting("Ada").await; // from `cache`
    /// })
    /// .await;
    /// assert!(cache.exists("greeting:Ada").await);
    /// # assert_eq!(LOADS.load(Relaxed), 1);
    /// # }
    /// ```
    ///
    /// - It applies to everything that the task does inside, across `.await`. The innermost `run` wins.
    /// - Only the time of the call matters: a future that is created inside but first polled outside is outside.
    /// - A task or thread that `work` spawns does **not** inherit it. Wrap the spawned work in [`in_current_run`] or in another
    ///   `run`.
    /// - Background refreshes and the jobs of [`warm::every`](crate::warm::every) inherit it.
    pub fn run<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        CACHE.scope(Some(self.clone()), work)
    }

    /// Returns the cache that annotated functions use here: that of the [`run`](Self::run) around the call, or else the
    /// [`installed`](Self::installed) one.
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// let found = cache.run(async { Cache::current() }).await;
    /// found.expect("the cache of the `run`").set("stock:7", &12, 60).await;
    ///
    /// assert!(cache.exists("stock:7").await);
    /// assert!(Cache::current().is_none()); // outside, because none is installed
    /// # }
    /// ```
    pub fn current() -> Option<Self> {
        Self::of_run().or_else(|| Self::installed().cloned())
    }

    pub(crate) fn of_run() -> Option<Self> {
        CACHE.try_with(Clone::clone).ok().flatten()
    }
}

#[cfg(feature = "limits")]
impl RateLimiter {
    /// Runs `work` with this limiter instead of the installed one, for tests. All functions with `#[rate_limit]` ask it, except
    /// those with `limiter = …`.
    ///
    /// The rules of [`Cache::run`] apply.
    pub fn run<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        LIMITER.scope(Some(self.clone()), work)
    }

    /// Returns the limiter that functions with `#[rate_limit]` ask here: that of the [`run`](Self::run) around the call, or else
    /// the [`installed`](Self::installed) one.
    pub fn current() -> Option<Self> {
        Self::of_run().or_else(|| Self::installed().cloned())
    }

    pub(crate) fn of_run() -> Option<Self> {
        LIMITER.try_with(Clone::clone).ok().flatten()
    }
}

/// Passes the cache and the limiter of the [`Cache::run`] and [`RateLimiter::run`] around this call to `work`, which can then be
/// spawned:
///
/// ```
/// # use cache_runtime::{Cache, cacheable, in_current_run};
/// # #[cacheable(key = "greeting")]
/// # async fn greeting() -> String { "hello".to_owned() }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let cache = Cache::memory();
/// # cache.run(async {
/// let task = tokio::spawn(in_current_run(async { greeting().await }));
/// # task.await.ok();
/// # }).await;
/// # assert!(cache.exists("greeting").await);
/// # }
/// ```
///
/// Outside any `run`, as in production, functions in `work` use the installed ones.
///
/// Calls in `work` also count for the [`Cache::explain`] and the [`CacheStatus::of`](crate::CacheStatus::of) around this call, and for the
/// `http::CacheStatusLayer` and the `http::ExplainLayer` of the request.
pub fn in_current_run<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    #[cfg(feature = "limits")]
    let work = LIMITER.scope(RateLimiter::of_run(), work);
    let work = in_current_view(work);
    CACHE.scope(Cache::of_run(), work)
}
