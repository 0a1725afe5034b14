//! The only door for generated code. Nothing here is for people, and nothing here is stable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Once;

pub use inventory;
use tracing::warn;

pub use crate::__register as register;
#[cfg(feature = "limits")]
pub use crate::__register_limit as register_limit;
pub use crate::background::{background, cacheable_background};
pub use crate::cache::{Cache, Used};
use crate::key::{Key, Pattern};
pub use crate::key::{KeyWriter, PatternWriter, TypeName};
#[cfg(feature = "limits")]
pub use crate::limit::RateLimiter;
#[cfg(feature = "limits")]
pub use crate::limited::{LimitCall, LimitSite, limited, refused};
use crate::plan::{EvictPlan, ReadPlan};
pub use crate::registry::Registered;
#[cfg(feature = "limits")]
pub use crate::registry::RegisteredLimit;
use crate::site::Rules;
pub use crate::site::{CacheValue, Outcome, Returns, Site, Ttl, life_of, storable};
use crate::target::Target;

/// One call of a function with `#[cacheable]` or `#[cache_put]`: the cache, and what is asked of it.
///
/// It holds no cache when none is installed or when `condition` is false; then no argument is evaluated and the body runs
/// as if the attribute were not there.
#[derive(Debug)]
pub struct ReadCall {
    cache: Option<Used>,
    site: &'static Site,
    ttl: Option<Ttl>,
    key: Option<Key>,
}

/// One call of a function with `#[cache_evict]`, in the same way.
#[derive(Debug)]
pub struct EvictCall {
    cache: Option<Used>,
    plan: EvictPlan,
}

impl ReadCall {
    /// A call of the function that `site` describes.
    pub fn new(site: &'static Site, cache: Option<Used>) -> Self {
        Self {
            cache,
            site,
            ttl: None,
            key: None,
        }
    }

    /// `condition = …`
    #[must_use]
    pub fn when(mut self, condition: impl FnOnce() -> bool) -> Self {
        self.cache = self.cache.filter(|_| condition());
        self
    }

    /// `ttl = …`, where it is an expression.
    #[must_use]
    pub fn ttl<T: Into<Ttl>>(mut self, ttl: impl FnOnce() -> T) -> Self {
        if self.cache.is_some() {
            self.ttl = Some(ttl().into());
        }
        self
    }

    /// `key = …`
    #[must_use]
    pub fn key(mut self, write: impl FnOnce(&mut KeyWriter<'_>)) -> Self {
        if let Some(cache) = &self.cache {
            self.key = Some(Key::render(cache.prefix(), write));
        }
        self
    }

    /// What is asked of which cache, if there is one.
    pub(crate) fn into_parts(self) -> Option<(Used, ReadPlan)> {
        let Self {
            cache,
            site,
            ttl,
            key,
        } = self;
        Some((
            cache?,
            ReadPlan {
                site,
                key: key?,
                ttl,
            },
        ))
    }
}

impl EvictCall {
    /// A call of the function that `site` describes.
    pub fn new(site: &'static Site, cache: Option<Used>) -> Self {
        Self {
            cache,
            plan: EvictPlan::new(site),
        }
    }

    /// `condition = …`
    #[must_use]
    pub fn when(mut self, condition: impl FnOnce() -> bool) -> Self {
        self.cache = self.cache.filter(|_| condition());
        self
    }

    /// `key = …`
    #[must_use]
    pub fn key(mut self, write: impl FnOnce(&mut KeyWriter<'_>)) -> Self {
        if let Some(cache) = &self.cache {
            let key = Key::render(cache.prefix(), write);
            self.plan.targets.push(Target::Key(key));
        }
        self
    }

    /// `pattern = …`
    #[must_use]
    pub fn pattern(mut self, write: impl FnOnce(&mut PatternWriter<'_>)) -> Self {
        if let Some(cache) = &self.cache {
            let pattern = Pattern::render(cache.prefix(), write);
            self.plan.targets.push(Target::Pattern(pattern));
        }
        self
    }

    /// `all_entries`
    #[must_use]
    pub fn all_entries(mut self) -> Self {
        self.plan.targets.push(Target::All);
        self
    }

    /// `before`
    #[must_use]
    pub fn before(mut self) -> Self {
        self.plan.before = true;
        self
    }

    /// `fence`
    #[must_use]
    pub fn fence(mut self) -> Self {
        self.plan.fence = true;
        self
    }

    /// `always`
    #[must_use]
    pub fn always(mut self) -> Self {
        self.plan.always = true;
        self
    }
}

/// The cache of the [`Cache::run`] around the call, else the process-wide one. Without either the body runs, and the first time
/// a warning says so.
pub fn installed() -> Option<Used> {
    static WARNING: Once = Once::new();
    if let Some(cache) = Cache::of_run() {
        return Some(Used::Named(cache));
    }
    let installed = Cache::installed();
    if installed.is_none() {
        WARNING.call_once(|| {
            warn!(
                "no cache is installed, so annotated functions run uncached; call `cache.install()`, or in a test `cache.run(…)`"
            );
        });
    }
    installed.map(Used::Installed)
}

/// `cache = …`
pub fn using(cache: impl AsRef<Cache>) -> Option<Used> {
    Some(Used::Named(cache.as_ref().clone()))
}

/// `#[cacheable]`: the stored value, or what the body returns. `ttl` is asked about each value that is stored.
pub fn cacheable<O: Outcome>(
    call: ReadCall,
    _outcome: O,
    unless: impl Fn(&O::Returned) -> bool,
    ttl: impl Fn(&O::Value) -> Option<Ttl>,
    body: Pin<&mut impl Future<Output = O::Output>>,
) -> impl Future<Output = O::Output>
where
    O::Value: CacheValue,
{
    Cache::read::<O>(call.into_parts(), Rules { unless, ttl }, body)
}

/// `#[cache_put]`: what the body returns, stored. `ttl` is asked about each value that is stored.
pub fn cache_put<O: Outcome>(
    call: ReadCall,
    _outcome: O,
    unless: impl Fn(&O::Returned) -> bool,
    ttl: impl Fn(&O::Value) -> Option<Ttl>,
    body: Pin<&mut impl Future<Output = O::Output>>,
) -> impl Future<Output = O::Output>
where
    O::Value: CacheValue,
{
    Cache::write::<O>(call.into_parts(), Rules { unless, ttl }, body)
}

/// `#[cache_evict]`: what the body returns; then the targets are gone. `more` adds those that `<return.…>` names.
pub fn cache_evict<O: Outcome>(
    call: EvictCall,
    _outcome: O,
    more: impl FnOnce(&O::Value, EvictCall) -> EvictCall,
    body: Pin<&mut impl Future<Output = O::Output>>,
) -> impl Future<Output = O::Output> {
    let EvictCall { cache, plan } = call;
    let named = EvictCall::new(plan.site, cache.clone());
    let more = |value: &O::Value| more(value, named).plan.targets;
    Cache::evict::<O>(cache.map(|cache| (cache, plan)), more, body)
}
