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

mod call;
mod caller;
mod catalogue;
mod chain;
mod codec;
mod disabled;
mod flight;
mod function;
#[cfg(test)]
mod futurelock;
mod handle;
#[cfg(test)]
mod interleavings;
mod invalidate;
mod journal;
mod lease;
mod lent;
mod load;
mod log;
mod lookup;
mod misfit;
mod pending;
mod policy_check;
mod pulse;
mod purge;
mod read;
pub(crate) mod recent;
mod reconnect;
mod records;
mod recovery;
mod refresh;
mod removal;
pub(crate) mod replay;
mod report;
mod scope;
mod shutdown;
mod types;
#[cfg(test)]
mod unannotated;
mod warming;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use once_cell::sync::OnceCell;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::info;

use self::call::CallContext;
pub(crate) use self::call::ValueType;
pub(crate) use self::caller::{Shell, Walk};
use self::disabled::Disabled;
use self::flight::Flights;
pub(crate) use self::function::{Bodied, Detachable, Evicting, Storing};
use self::journal::Journal;
use self::lease::Orphans;
pub(crate) use self::load::{Loaded, watched};
pub(crate) use self::read::Refresh;
use self::refresh::Refreshes;
use self::replay::Replays;
pub use self::report::{Health, Status};
pub use self::scope::CacheScope;
use self::shutdown::Owed;
use self::types::Types;
pub(crate) use self::warming::Duty;
use self::write::EvictCall;
use crate::config::Config;
use crate::entry::Build;
use crate::error::{AlreadyInstalled, Error, ErrorKind};
use crate::key::Key;
use crate::metrics::Metrics;
use crate::plan::{EvictPlan, ReadPlan};
use crate::registry;
use crate::singleton::Singleton;
use crate::store::guard::Guard;
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisStore;
use crate::sync::Mutex;

/// A cache. A cheap clone: all clones are the same cache.
///
/// Its methods speak Redis's verbs and never fail the caller: while Redis is away, reads find nothing and writes are not
/// stored. The methods that begin with `try_` are the same operations for callers who want to know. A key or a pattern that
/// cannot be used is logged and names nothing; `try_` returns it as an error.
///
/// Keys and patterns are taken as they stand in Redis, without the prefix: nothing is escaped here. Attributes escape what
/// stands in a placeholder, so under `user:<name>` the entry of `"a:b"` is at `user:a%3Ab`, that of `"a b"` at `user:a%20b`,
/// and that of a `None` at `user:%n`; a text over 128 bytes becomes a hash. [`keys`](Self::keys) shows what there is. To
/// remove the entries of any text, call a function with `#[cache_evict]` and the same key.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

/// What all clones share.
struct Inner {
    config: Config,
    guard: Guard,
    flights: Flights,
    journal: Journal,
    orphans: Orphans,
    refreshes: Refreshes,
    replays: Replays,
    metrics: Metrics,
    disabled: Disabled,
    build: Build,
    types: Types,
    /// The store as what it is; [`None`] behind a wrapper.
    backend: Option<Backend>,
    /// The background task. It ends with the runtime that it was started on; the next call that misses it starts another.
    background: Singleton,
    this: Weak<Self>,
    /// Evictions that calls and scopes still have to make.
    owed: Owed,
    /// Prefixes of other caches that begin with this one's, as far as that was noticed.
    neighbours: Mutex<BTreeSet<String>>,
    /// Wakes the background task: the fallback mode was entered, an eviction was journaled, or the cache is gone.
    wake: Arc<Notify>,
}

/// The cache of a call. The installed one is not cloned: its count of clones would be written by all threads, for every hit.
#[derive(Clone, Debug)]
pub enum Used {
    /// The process-wide one.
    Installed(&'static Cache),
    /// One that the attribute names, whose place the body may move, or that of a [`Cache::run`].
    Named(Cache),
}

impl Deref for Used {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        match self {
            Self::Installed(cache) => cache,
            Self::Named(cache) => cache,
        }
    }
}

/// Where entries are kept.
enum Backend {
    Memory,
    Redis(Arc<RedisStore>),
}

/// What came of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Evicted {
    /// Nothing that it names is served any more, by any process.
    Applied {
        /// How many keys there were.
        keys: u64,
    },
    /// Redis is away. This process serves nothing that it names; others may, until the journal is applied.
    Journaled,
    /// Nothing yet: it has joined a [`CacheScope`], and waits for its commit.
    Deferred,
}

static INSTALLED: OnceCell<Cache> = OnceCell::new();

impl Cache {
    /// Connects to the Redis that `config` names, or to none if it names none.
    ///
    /// An absent Redis is no error: the cache then begins in fallback mode and connects when it can. It waits for the first
    /// attempt, but no longer than a second.
    ///
    /// # Errors
    ///
    /// - A wrong configuration, with every problem in it.
    /// - No Redis where [`require_redis`](Config::require_redis) wants one, as in production.
    /// - A server that the cache cannot use: Redis before 7.0, a replica, a sentinel, or a node of a Redis Cluster.
    /// - A call outside a tokio runtime, which the connections live on.
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
        reconnect::first_attempt(&cache.inner).await?;
        reconnect::ensure(&cache.inner);
        Ok(cache)
    }

    /// A cache without any Redis, in this process's memory; also for unit tests.
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
            let release = move |key: &Key, stamp| lease::release_later(&cache, key, stamp);
            Inner {
                guard: guard(&config, Arc::clone(&wake)),
                flights: Flights::new(config.load_deadline, release),
                journal: Journal::new(config.journal_capacity, Arc::clone(&wake)),
                orphans: Orphans::new(config.load_deadline),
                refreshes: Refreshes::new(config.max_refreshes),
                replays: Replays::new(&config),
                metrics: Metrics::new(),
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

    /// Makes this the cache of all annotated functions that name no other, for the rest of the process. Warns about policies
    /// that functions name and the configuration lacks, and about the other way round; about evictions that match no key of a
    /// function that stores; and about keys with a text that a client may choose.
    ///
    /// Tests use [`run`](Self::run) instead: it gives each of them a cache of its own.
    ///
    /// # Errors
    ///
    /// Another cache is installed already, and stays. Installing the same one again is not an error.
    pub fn install(&self) -> Result<(), AlreadyInstalled> {
        let installed = INSTALLED.get_or_init(|| {
            policy_check::report(&self.inner.config, registry::sites());
            catalogue::report(registry::sites());
            self.clone()
        });
        match Arc::ptr_eq(&installed.inner, &self.inner) {
            true => Ok(()),
            false => Err(AlreadyInstalled::cache()),
        }
    }

    /// The installed cache. See [`current`](Self::current) for the one that annotated functions use.
    pub fn installed() -> Option<&'static Self> {
        INSTALLED.get()
    }

    /// The configuration that this cache was made with.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.inner.config.prefix
    }
}

/// The path of `#[cacheable]`, which owns what it needs: a stored value, or the body's. There is none without a cache.
pub(crate) fn read(
    call: Option<(Used, ReadPlan)>,
    of: ValueType,
    refresh: Refresh,
) -> Option<Walk<'static>> {
    let (cache, plan) = call?;
    Some(Walk::new(boxed(|| async move {
        CallContext::new(&cache.inner, &plan, of)
            .read(refresh)
            .await
    })))
}

/// The path of `#[cache_put]`: the body's value, which is stored.
pub(crate) fn write(call: Option<(Used, ReadPlan)>, of: ValueType) -> Option<Walk<'static>> {
    let (cache, plan) = call?;
    Some(Walk::new(boxed(|| async move {
        CallContext::new(&cache.inner, &plan, of).write().await
    })))
}

/// The path of `#[cache_evict]`: the body, and then the removal.
pub(crate) fn evict(call: Option<(Used, EvictPlan)>) -> Option<Walk<'static>> {
    let (cache, plan) = call?;
    Some(Walk::new(boxed(|| async move {
        EvictCall::new(&cache.inner, &plan).evict().await
    })))
}

/// Makes a future in a box of its own. A function that awaits it has room for a pointer in its own future and on the stack,
/// where a body may be one level of many.
#[inline(never)]
fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}

impl Inner {
    /// Whether what the store has under `key` is not to be served: it is switched off, or its eviction waits in the journal.
    fn is_hidden(&self, key: &Key) -> bool {
        self.disabled.is_off(key) || self.journal.blocks(key)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The background task looks, finds nothing to keep, and ends.
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
