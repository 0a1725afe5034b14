//! The cache: what happens to a call, from the key to the value.
//!
//! ```text
//!  call ─► key ─► Redis GET ──value──────────────────────────► value
//!                   │    └───stale, within its grace─────────► value; one caller of all refreshes it
//!                   │ absent (or Redis is known to be down)
//!                   ▼
//!                flight        one loader per key in the process; those who wait share its encoded result
//!                   │ leader
//!                   ▼
//!                lease         one loader per key among all processes (SET NX GET: one round trip)
//!                   ▼
//!                body ──► fill if the lease still stands ────► value
//! ```

mod above;
mod catalogue;
mod flight;
#[cfg(test)]
mod futurelock;
mod handle;
mod journal;
mod keeper;
mod lease;
mod loading;
mod log;
mod misfit;
mod policies;
mod pulse;
mod purge;
pub(crate) mod recent;
mod recovery;
mod refresh;
mod removal;
pub(crate) mod replay;
mod report;
#[cfg(test)]
mod schedules;
mod scope;
mod shutdown;
mod stored;
mod switches;
mod types;
mod visit;
mod warming;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use once_cell::sync::OnceCell;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::info;

use self::flight::{Arrival, Flights, Relieved, Saw, Turn};
use self::journal::Journal;
use self::lease::Orphans;
use self::pulse::Watched;
use self::refresh::{Behind, Refreshed, Refreshes};
use self::removal::Eviction;
use self::replay::Replays;
pub use self::report::{Health, Status};
pub use self::scope::CacheScope;
use self::shutdown::Owed;
use self::switches::Switches;
use self::types::Types;
use self::visit::{Fence, Look, Right, Visit};
pub(crate) use self::warming::{Duty, Loaded, watched};
use crate::config::Config;
use crate::entry::Build;
use crate::error::{AlreadyInstalled, Error, ErrorKind};
use crate::key::Key;
use crate::metrics::{Event, Metrics};
use crate::plan::Plan;
use crate::registry;
use crate::site::{CacheValue, Outcome, Rules, Ttl};
use crate::store::guard::{Guard, in_runtime};
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisStore;
use crate::target::Target;

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
    switches: Switches,
    build: Build,
    types: Types,
    /// The store, where it is this process's own memory.
    memory: Option<Arc<MemoryStore>>,
    /// Whether there is a keeper. It ends with the runtime that it was started on; the next call that misses it starts another.
    is_kept: AtomicBool,
    this: Weak<Self>,
    /// Evictions that calls and scopes still have to make.
    owed: Owed,
    /// Prefixes of other caches that begin with this one's, as far as that was noticed.
    neighbours: Mutex<BTreeSet<String>>,
    /// Wakes the keeper: the fallback mode was entered, an eviction was journaled, or the cache is gone.
    wake: Arc<Notify>,
}

/// What came of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let store = RedisStore::new(&config)?;
        let cache = Self::around(config, None, |config, wake| {
            Guard::remote(Arc::new(store), config, wake)
        });
        keeper::first_attempt(&cache.inner).await?;
        keeper::ensure(&cache.inner);
        Ok(cache)
    }

    /// A cache without any Redis, in this process's memory; also for unit tests.
    pub fn memory() -> Self {
        Self::local(Config::default())
    }

    pub(crate) fn local(config: Config) -> Self {
        let memory = MemoryStore::new(config.memory_capacity, config.clock.clone());
        let memory = Arc::new(memory);
        let store = Arc::clone(&memory);
        Self::around(config, Some(memory), |config, wake| {
            Guard::local(store, config, wake)
        })
    }

    fn around(
        config: Config,
        memory: Option<Arc<MemoryStore>>,
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
                switches: Switches::new(&config),
                types: Types::default(),
                build: match memory {
                    Some(_) => Build::Process,
                    None => Build::program(),
                },
                memory,
                is_kept: AtomicBool::new(false),
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
            policies::report(&self.inner.config, registry::sites());
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

    /// Reads through the cache: `#[cacheable]`. Without one the body runs.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would hold its arguments twice"
    )]
    pub(crate) fn read<O: Outcome>(
        cache: Option<impl Deref<Target = Self>>,
        plan: Plan,
        rules: Rules<impl Fn(&O::Returned) -> bool, impl Fn(&O::Value) -> Option<Ttl>>,
        body: Pin<&mut impl Future<Output = O::Output>>,
    ) -> impl Future<Output = O::Output>
    where
        O::Value: CacheValue,
    {
        async move {
            let Some(visit) = Visit::of(cache.as_deref(), &plan) else {
                return body.await;
            };
            match visit.look::<O>().await {
                Look::Found(output) => output,
                look => boxed(|| role::<O>(&visit, look, &rules, body)).await.await,
            }
        }
    }

    /// The same, but a stale value is refreshed where nobody waits: `#[cacheable(…, refresh = "background")]`. There the body
    /// is `carried` into a task of its own.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would hold its arguments twice"
    )]
    pub(crate) fn read_behind<O, B, C>(
        cache: Option<impl Deref<Target = Self>>,
        plan: Plan,
        rules: Rules<
            impl Fn(&O::Returned) -> bool + Send + Sync + 'static,
            impl Fn(&O::Value) -> Option<Ttl> + Send + Sync + 'static,
        >,
        body: B,
        carried: impl FnOnce(B) -> C,
    ) -> impl Future<Output = O::Output>
    where
        O: Outcome<Output: Send, Value: CacheValue> + 'static,
        B: Future<Output = O::Output>,
        C: Future<Output = O::Output> + Send + 'static,
    {
        async move {
            let Some(visit) = Visit::of(cache.as_deref(), &plan) else {
                return boxed(|| body).await;
            };
            let look = match visit.look::<O>().await {
                Look::Found(output) => return output,
                Look::Stale(stale) => match visit.behind(&stale) {
                    Behind::Mine(attempt, permit) => {
                        let output = visit.serve(stale);
                        drop(visit);
                        refresh::spawn::<O>(attempt, permit, plan, rules, carried(body));
                        return output;
                    }
                    Behind::Others => return visit.serve(stale),
                    Behind::Crowded => Look::Stale(stale),
                },
                look => look,
            };
            let mut body = boxed(|| body);
            boxed(|| role::<O>(&visit, look, &rules, body.as_mut()))
                .await
                .await
        }
    }

    /// Runs the body and stores what it returns: `#[cache_put]`.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would hold its arguments twice"
    )]
    pub(crate) fn write<O: Outcome>(
        cache: Option<impl Deref<Target = Self>>,
        plan: Plan,
        rules: Rules<impl Fn(&O::Returned) -> bool, impl Fn(&O::Value) -> Option<Ttl>>,
        body: Pin<&mut impl Future<Output = O::Output>>,
    ) -> impl Future<Output = O::Output>
    where
        O::Value: CacheValue,
    {
        async move {
            let Some(visit) = Visit::of(cache.as_deref(), &plan) else {
                return body.await;
            };
            let fence = boxed(|| visit.fence()).await;
            let eviction = Eviction::begin(visit.inner, visit.site, &visit.metrics, plan.targets());
            let output = body.await;

            let stored = match visit.fresh::<O>(&output, &rules, Duration::ZERO) {
                Some(fresh) => boxed(|| visit.store_put(fence, &fresh)).await,
                None if fence == Fence::Unknown => None,
                None => Some(false),
            };
            match stored {
                Some(true) => visit.inner.doom(&eviction.settle()),
                Some(false) => drop(boxed(|| eviction.apply()).await),
                // Redis was waited for once already; the journal does the rest.
                None => drop(eviction),
            }
            output
        }
    }

    /// Runs the body and then removes: `#[cache_evict]`. `more` adds the targets that what came back names.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would hold its arguments twice"
    )]
    pub(crate) fn evict<O: Outcome>(
        cache: Option<impl Deref<Target = Self>>,
        plan: Plan,
        more: impl FnOnce(&O::Value, Plan) -> Plan,
        body: Pin<&mut impl Future<Output = O::Output>>,
    ) -> impl Future<Output = O::Output> {
        async move {
            let Some(inner) = cache.as_deref().map(|cache| &*cache.inner) else {
                return body.await;
            };
            let metrics = inner.metrics.site(plan.site);
            let targets = plan.targets();
            let journaled = plan.before
                && boxed(|| inner.remove(plan.site, &metrics, &targets)).await
                    == Evicted::Journaled;
            let fenced = match plan.fence {
                true => boxed(|| inner.fence(plan.site, &metrics, &targets)).await,
                false => Vec::new(),
            };
            let mut eviction = Eviction::begin(inner, plan.site, &metrics, targets);
            let output = body.await;

            match O::returned(&output) {
                Some(returned) => {
                    if let Some(value) = O::value(returned) {
                        eviction.also(more(value, plan.without_targets()).targets());
                    }
                }
                None if plan.always => {}
                None => {
                    // In a scope another step may rely on the same fences: they expire.
                    let is_scoped = eviction.is_scoped();
                    eviction.settle();
                    if !fenced.is_empty() && !is_scoped {
                        // The values are gone already; now the fences only keep new ones out.
                        boxed(|| inner.remove(plan.site, &metrics, &fenced)).await;
                    }
                    return output;
                }
            }
            metrics.count(Event::Evict);
            if journaled && inner.journal.depth() > 0 {
                // Redis was waited for once already, and still owes the answer.
                drop(eviction);
            } else {
                boxed(|| eviction.apply()).await;
            }
            output
        }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.inner.config.prefix
    }
}

/// Finds out what a caller does that found no fresh value. Waits for the load of another, where there is one.
async fn role<'a, O: Outcome>(
    visit: &'a Visit<'a>,
    look: Look<O::Output>,
    rules: &'a Rules<impl Fn(&O::Returned) -> bool, impl Fn(&O::Value) -> Option<Ttl>>,
    body: Pin<&'a mut impl Future<Output = O::Output>>,
) -> Role<
    O::Output,
    impl Future<Output = O::Output>,
    impl Future<Output = O::Output>,
    impl Future<Output = O::Output>,
>
where
    O::Value: CacheValue,
{
    let (right, saw) = match look {
        Look::Found(output) => return Role::Answered(Some(output)),
        Look::Stale(stale) => match visit.who_refreshes(stale).await {
            Refreshed::Here(stale, attempt) => {
                return Role::Refresh(boxed(|| visit.refresh::<O>(stale, attempt, rules, body)));
            }
            Refreshed::Elsewhere(stale) => return Role::Answered(Some(visit.serve(stale))),
            Refreshed::Gone => (Right::Fill, Saw::Nothing),
        },
        Look::Nothing(right, saw, _) => (right, saw),
    };
    if right == Right::Alone || visit.is_loading_already() || !in_runtime() {
        return Role::Alone(boxed(|| visit.load::<O>(body)));
    }
    let leader = match visit.inner.flights.join(visit.key, visit.sight(saw)) {
        Turn::Lead(leader) => leader,
        Turn::Wait(waiter) => match waiter.arrival().await {
            Arrival::Lead(leader) => leader,
            Arrival::Landed(entry) => match visit.landed::<O>(&entry) {
                Some(output) => return Role::Answered(Some(output)),
                None => return Role::Alone(boxed(|| visit.load::<O>(body))),
            },
            Arrival::Alone => return Role::Alone(boxed(|| visit.load::<O>(body))),
        },
    };
    match leader.relieves() {
        Some(Relieved::Overdue) => visit.metrics.count(Event::LoadOverdue),
        Some(Relieved::Stuck) => visit.metrics.count(Event::LoadStuck),
        None => {}
    }
    let pulse = leader.pulse();
    let leading = boxed(|| visit.lead::<O>(leader, (right, saw), rules, body));
    Role::Lead(Watched::new(leading, pulse))
}

/// What a caller does that found no fresh value.
enum Role<T, A, L, R> {
    /// It has what another's load returned, or a stale value that others refresh.
    Answered(Option<T>),
    /// It runs its body for itself.
    Alone(Pin<Box<A>>),
    /// It loads for all.
    Lead(Watched<L>),
    Refresh(Pin<Box<R>>),
}

// What it holds by value is never pinned.
impl<T, A, L, R> Unpin for Role<T, A, L, R> {}

impl<T, A, L, R> Future for Role<T, A, L, R>
where
    A: Future<Output = T>,
    L: Future<Output = T>,
    R: Future<Output = T>,
{
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.get_mut() {
            Self::Answered(output) => output.take().map_or(Poll::Pending, Poll::Ready),
            Self::Alone(load) => load.as_mut().poll(cx),
            Self::Lead(load) => Pin::new(load).poll(cx),
            Self::Refresh(load) => load.as_mut().poll(cx),
        }
    }
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
        self.switches.is_off(key) || self.journal.blocks(key)
    }

    /// Detaches later callers from the loads that `targets` cover.
    fn doom(&self, targets: &[Target]) {
        for target in targets {
            self.flights.doom(target);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The keeper looks, finds nothing to keep, and ends.
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
