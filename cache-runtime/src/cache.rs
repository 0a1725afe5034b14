//! The cache: what happens to a call, from the key to the value.
//!
//! ```text
//!  call ─► key ─► Redis GET ──value──────────────────────────► value
//!                   │    └───stale, within its grace─────────► value; one caller across all processes refreshes it
//!                   │ absent (or Redis is known to be down)
//!                   ▼
//!                flight        one loader per key in the process; waiters share its encoded result
//!                   │ leader
//!                   ▼
//!                lease         one loader per key among all processes (SET NX GET: one round trip); skipped while Redis is down
//!                   ▼
//!                body ──► fill if the lease still stands ────► value
//! ```

mod bulkhead;
mod call;
mod call_report;
mod caller;
mod captured;
#[cfg(feature = "admin")]
mod census;
mod chain;
mod codec;
mod disabled;
mod flight;
mod function;
#[cfg(test)]
mod futurelock;
mod handle;
mod health;
#[cfg(feature = "admin")]
mod inspect;
#[cfg(test)]
mod interleavings;
mod invalidate;
mod journal;
mod keys;
mod lease;
mod lent;
mod load;
mod local;
mod locally;
mod log;
mod lookup;
mod misfit;
mod pending;
mod pulse;
mod purge;
mod read;
pub(crate) mod recent;
mod reconnect;
mod records;
mod recovery;
mod refresh;
mod reloads;
mod removal;
pub(crate) mod replay;
mod report;
mod scope;
mod shutdown;
mod steps;
mod tagged;
mod tags;
mod types;
#[cfg(test)]
mod unannotated;
mod used;
mod warming;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use once_cell::sync::OnceCell;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::info;

use self::bulkhead::Bulkhead;
pub(crate) use self::call::ValueType;
pub(crate) use self::call_report::{
    Call, CallReport, Calls, Lease, Spent, Wanted, collect, in_current_view,
};
use self::disabled::Disabled;
use self::flight::Flights;
pub use self::function::{Bodied, Bodiless};
pub(crate) use self::function::{Detachable, Evicting, Storing, find_locally};
pub use self::health::{Health, HealthCheck, HealthStatus};
use self::journal::Journal;
pub use self::keys::KeyStream;
use self::lease::Orphans;
pub(crate) use self::load::{Loaded, watched};
use self::local::Local;
pub(crate) use self::read::Refresh;
use self::refresh::Refreshes;
use self::reloads::Reloads;
use self::replay::Replays;
use self::report::Reported;
pub use self::scope::CacheScope;
use self::shutdown::Owed;
pub(crate) use self::steps::{Steps, evict, read, write};
pub use self::tagged::TaggedCache;
use self::types::Types;
pub(crate) use self::used::Used;
pub(crate) use self::warming::Duty;
use crate::catalog;
use crate::config::Config;
use crate::entry::Build;
use crate::error::{AlreadyInstalled, Error, ErrorKind};
use crate::key::Key;
use crate::metrics::Metrics;
use crate::singleton::Singleton;
use crate::store::Moves;
use crate::store::guard::Guard;
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisStore;
use crate::sync::Mutex;
use crate::throttle::Throttle;

/// A cache. Cloning is cheap. All clones are the same cache.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::Cache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory(); // a service calls `Cache::connect`
///
/// cache.set("greeting:ada", &"hello, Ada".to_owned(), Duration::from_secs(60)).await;
/// assert_eq!(cache.get("greeting:ada").await, Some("hello, Ada".to_owned()));
///
/// cache.delete("greeting:ada").await;
/// assert_eq!(cache.get::<String>("greeting:ada").await, None);
/// # }
/// ```
///
/// The methods are named after Redis's commands and never fail the caller: while Redis is unavailable, reads find nothing
/// and writes are not stored. The methods that begin with `try_` are the same operations and return errors. An invalid
/// key or pattern is logged and matches nothing; `try_` returns it as an error.
///
/// Keys and patterns are used as they are stored in Redis, without the prefix. These methods do not escape anything.
/// Attributes escape the values of placeholders, so under `user:<name>` the entry of `"a:b"` is at `user:a%3Ab`, that of
/// `"a b"` at `user:a%20b`, and that of a `None` at `user:%n`. A text over 128 bytes is replaced by a hash.
/// [`key!`](macro@crate::key) writes such a key by hand. [`keys`](Self::keys) lists the keys that exist.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

/// The state that all clones share.
struct Inner {
    config: Config,
    guard: Guard,
    flights: Flights,
    journal: Journal,
    orphans: Orphans,
    refreshes: Refreshes,
    reloads: Reloads,
    bulkhead: Bulkhead,
    local: Local,
    /// Of the line about a method call with an invalid argument.
    refused: Throttle,
    replays: Replays,
    metrics: Metrics,
    /// What the server last reported about itself.
    reported: Mutex<Option<Reported>>,
    disabled: Disabled,
    build: Build,
    types: Types,
    /// The concrete type of the store; [`None`] behind a wrapper.
    backend: Option<Backend>,
    /// The background task. It ends with the runtime that it was started on. The next call that finds it missing starts
    /// another.
    background: Singleton,
    this: Weak<Self>,
    /// Evictions that calls and scopes have yet to make.
    owed: Owed,
    /// Prefixes of other caches that begin with this cache's prefix, as far as they were noticed.
    neighbours: Mutex<BTreeSet<String>>,
    /// Wakes the background task when fallback mode begins, an eviction is journaled, or the cache is dropped.
    wake: Arc<Notify>,
}

/// Where entries are kept.
enum Backend {
    Memory,
    Redis(Arc<RedisStore>),
}

/// The outcome of an eviction.
///
/// ```
/// use cache_runtime::{Cache, Evicted};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory();
///
/// let status = match cache.delete("event:42").await {
///     Evicted::Applied { .. } => 200,
///     Evicted::Journaled | Evicted::Deferred => 202, // it is removed later
///     Evicted::Refused => 400,
///     _ => 500,
/// };
/// assert_eq!(status, 200);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Evicted {
    /// No process serves a matching entry any more. With `local`, another process may serve its copy for at most `local_staleness`
    /// plus the duration of one operation.
    Applied {
        /// The number of removed keys. Entries that are evicted by a tag are not counted.
        keys: u64,
    },
    /// Redis is unavailable. This process serves no matching entry. Other processes may, until the journal is applied.
    Journaled,
    /// Nothing was removed yet: the eviction joined a [`CacheScope`] and waits for its commit.
    Deferred,
    /// Nothing was removed, because a key, the pattern or the tag is invalid. The cache logged a warning. The methods whose names
    /// begin with `try_` return the error instead.
    Refused,
}

static INSTALLED: OnceCell<Cache> = OnceCell::new();

impl Cache {
    /// Connects to the Redis that `config` names, or to none if it names none.
    ///
    /// It is not an error if Redis is unavailable: the cache then starts in fallback mode and connects later. This waits
    /// for the first attempt, for at most 1 s.
    ///
    /// ```no_run
    /// use cache_runtime::{Cache, Config};
    ///
    /// # async fn start() -> Result<(), cache_runtime::Error> {
    /// let defaults = Config::default().client_name("shop");
    /// let cache = Cache::connect(Config::from_env_over(defaults)?).await?; // reads `REDIS_URL`
    /// cache.install()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - The configuration is invalid. The error contains every problem.
    /// - Redis is not configured but [`require_redis`](Config::require_redis) is set, as in production.
    /// - The cache cannot use the server: Redis before 7.0, a replica, a sentinel, or a node of a Redis Cluster without
    ///   `redis+cluster://`.
    /// - The call is outside a tokio runtime, which the connections need.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        config.check()?;
        if config.redis.is_none() {
            config.check_memory_mode()?;
            info!("caching in this process's memory; set REDIS_URL to share entries through Redis");
            return Ok(Self::local(config));
        }
        Handle::try_current().map_err(|error| {
            Error::new(
                ErrorKind::Config,
                "`Cache::connect` must be called inside a tokio runtime",
            )
            .because(error)
        })?;
        let store = Arc::new(RedisStore::new(&config)?);
        let backend = Backend::Redis(Arc::clone(&store));
        let cache = Self::around(config, Some(backend), |config, wake| {
            Guard::remote(store, config, wake)
        });
        if let Some(Backend::Redis(store)) = &cache.inner.backend {
            store.tell(Weak::clone(&cache.inner.this) as Weak<dyn Moves>);
        }
        reconnect::first_attempt(&cache.inner).await?;
        reconnect::ensure(&cache.inner);
        Ok(cache)
    }

    /// Creates a cache in this process's memory, without Redis. It also suits unit tests.
    ///
    /// ```
    /// use cache_runtime::{Cache, cacheable};
    ///
    /// #[cacheable(key = "double:<n>")]
    /// async fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory();
    /// cache.run(double(2)).await;
    /// assert_eq!(cache.get("double:2").await, Some(4));
    /// # }
    /// ```
    pub fn memory() -> Self {
        Self::local(Config::default())
    }

    pub(crate) fn local(config: Config) -> Self {
        let memory = MemoryStore::new(config.memory_capacity, config.clock.clone());
        Self::around(config, Some(Backend::Memory), |config, wake| {
            Guard::local(Arc::new(memory), config, wake)
        })
    }

    fn around(
        config: Config,
        backend: Option<Backend>,
        guard: impl FnOnce(&Config, Arc<Notify>) -> Guard,
    ) -> Self {
        let wake = Arc::new(Notify::new());
        let inner = Arc::new_cyclic(|this| {
            let cache = Weak::clone(this);
            let release = move |key: &Key, stamp| lease::release_in_background(&cache, key, stamp);
            Inner {
                guard: guard(&config, Arc::clone(&wake)),
                flights: Flights::new(config.load_deadline, release),
                journal: Journal::new(config.journal_capacity, Arc::clone(&wake)),
                orphans: Orphans::new(config.load_deadline),
                refreshes: Refreshes::new(config.max_refreshes),
                reloads: Reloads::default(),
                bulkhead: Bulkhead::new(&config),
                local: Local::new(&config, matches!(backend, Some(Backend::Memory))),
                refused: Throttle::new(),
                replays: Replays::new(
                    &config,
                    match &backend {
                        Some(Backend::Redis(store)) => store.confirmations(&config),
                        Some(Backend::Memory) | None => None,
                    },
                ),
                metrics: Metrics::new(),
                reported: Mutex::default(),
                disabled: Disabled::new(&config),
                types: Types::default(),
                build: match backend {
                    Some(Backend::Memory) => Build::Process,
                    Some(Backend::Redis(_)) | None => Build::program(),
                },
                backend,
                background: Singleton::default(),
                this: Weak::clone(this),
                owed: Owed::default(),
                neighbours: Mutex::default(),
                wake,
                config,
            }
        });
        Self { inner }
    }

    /// Installs this cache for the rest of the process. All annotated functions that name no other cache use it.
    ///
    /// It logs each finding of the [`catalog`](Self::catalog), such as an eviction that matches no key of a function that stores.
    ///
    /// In tests, use [`run`](Self::run) instead: it gives each test its own cache.
    ///
    /// ```
    /// use cache_runtime::{Cache, cacheable};
    ///
    /// #[cacheable(key = "triple:<n>")]
    /// async fn triple(n: u32) -> u32 {
    ///     3 * n
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cache_runtime::Error> {
    /// let cache = Cache::memory();
    /// cache.install()?;
    ///
    /// assert_eq!(triple(2).await, 6);
    /// assert!(cache.exists("triple:2").await);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If another cache is already installed; that cache does not change. Installing the same cache again is not an
    /// error.
    pub fn install(&self) -> Result<(), AlreadyInstalled> {
        let installed = INSTALLED.get_or_init(|| {
            catalog::report(&self.inner.config);
            self.clone()
        });
        match Arc::ptr_eq(&installed.inner, &self.inner) {
            true => Ok(()),
            false => Err(AlreadyInstalled::cache()),
        }
    }

    /// Returns the installed cache. [`current`](Self::current) returns the cache that annotated functions use.
    pub fn installed() -> Option<&'static Self> {
        INSTALLED.get()
    }

    /// Returns the configuration that this cache was created with.
    ///
    /// ```
    /// use cache_runtime::Cache;
    ///
    /// let cache = Cache::memory();
    /// assert_eq!(cache.config().prefix, "dev_");
    /// ```
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.inner.config.prefix
    }
}

/// Boxes a future. A function that awaits it needs only a pointer in its own future and on the stack, because bodies may
/// be deeply nested.
#[inline(never)]
fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}

impl Inner {
    /// Returns whether the stored value of `key` must not be served: the key is disabled, or its eviction is still in the
    /// journal.
    fn is_hidden(&self, key: &Key) -> bool {
        self.disabled.is_off(key) || self.journal.blocks(key)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The background task wakes, finds that the cache was dropped, and ends.
        self.wake.notify_one();
    }
}

impl AsRef<Self> for Cache {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("config", &self.inner.config)
            .field("mode", &self.inner.guard.mode())
            .finish()
    }
}
