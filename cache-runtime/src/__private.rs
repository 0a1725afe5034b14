//! The interface for generated code. It is not for direct use, and nothing here is stable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Once;

pub use inventory;
use tracing::warn;

pub use crate::__register as register;
#[cfg(feature = "limits")]
pub use crate::__register_limit as register_limit;
pub use crate::background::{background, cacheable_background};
use crate::cache::{self, Bodied, Evicting, Refresh, Storing, ValueType};
pub use crate::cache::{Cache, Used};
pub use crate::calls::{EvictCall, ReadCall};
pub use crate::key::{KeyPart, KeyWriter, PatternWriter, TypeName, key_text};
#[cfg(feature = "limits")]
pub use crate::limit::RateLimiter;
#[cfg(feature = "limits")]
pub use crate::limited::{LimitCall, LimitSite, limited, refused};
pub use crate::registry::Registered;
#[cfg(feature = "limits")]
pub use crate::registry::RegisteredLimit;
use crate::site::Rules;
pub use crate::site::{CacheValue, Outcome, Returns, Site, Ttl, storable, ttl_of};

/// Returns the cache of the [`Cache::run`] around the call, or else the process-wide cache. Without either the body runs,
/// and the first call logs a warning.
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

/// `#[cacheable]`: returns the stored value, or the body's. `ttl` is called for each value that is stored.
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
    let caller = Storing::<O, _, _>::new(Rules { unless, ttl });
    let steps = cache::read(
        call.into_parts(),
        ValueType::of_outcome::<O>(),
        Refresh::Caller,
    );
    Bodied {
        steps,
        caller,
        body,
    }
}

/// `#[cache_put]`: returns the body's value and stores it. `ttl` is called for each value that is stored.
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
    let caller = Storing::<O, _, _>::new(Rules { unless, ttl });
    let steps = cache::write(call.into_parts(), ValueType::of_outcome::<O>());
    Bodied {
        steps,
        caller,
        body,
    }
}

/// `#[cache_evict]`: returns the body's value after it removed the targets. `more` adds the targets that `<return.…>`
/// names.
pub fn cache_evict<O: Outcome>(
    call: EvictCall,
    _outcome: O,
    more: impl Fn(&O::Value, EvictCall) -> EvictCall,
    body: Pin<&mut impl Future<Output = O::Output>>,
) -> impl Future<Output = O::Output> {
    let (named, call) = call.split();
    let caller = Evicting::<O, _, _>::new(more, named);
    let steps = cache::evict(call);
    Bodied {
        steps,
        caller,
        body,
    }
}

/// The default of `unless`. As a function, it is shared by all functions with the same return type.
pub fn keep<T>(_: &T) -> bool {
    false
}

/// The default of `ttl` if the attribute does not compute it from the value.
pub fn no_own_ttl<T>(_: &T) -> Option<Ttl> {
    None
}

/// The default of `more`, if no target names the returned value.
pub fn no_more<T>(_: &T, call: EvictCall) -> EvictCall {
    call
}
