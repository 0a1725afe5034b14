//! The interface for generated code. It is not for direct use, and nothing here is stable.

pub use inventory;

pub use crate::__register as register;
#[cfg(feature = "limits")]
pub use crate::__register_limit as register_limit;
pub use crate::background::{background, cacheable_background, cacheable_background_local};
use crate::cache::{self, Evicting, Refresh, Steps, Storing, ValueType};
pub use crate::cache::{Bodied, Bodiless, Cache};
pub use crate::calls::{EvictCall, ReadCall};
pub use crate::key::{KeyPart, KeyWriter, PatternWriter, TypeName, key_text, tag_text};
#[cfg(feature = "limits")]
pub use crate::limit::RateLimiter;
#[cfg(feature = "limits")]
pub use crate::limited::{LimitCall, LimitSite, limited, refused};
pub use crate::registry::Registered;
#[cfg(feature = "limits")]
pub use crate::registry::RegisteredLimit;
pub use crate::site::{
    CacheValue, LocalValue, Outcome, Returns, Site, Ttl, locally_storable, storable, ttl_of,
};
use crate::site::{NoRules, OwnRules};
pub use crate::tag::TagWriter;

/// `#[cacheable]`: the call returns the stored value, or the body's. Of the outcome only the type counts.
pub fn cacheable<O: Outcome<Value: CacheValue>>(
    call: ReadCall,
    _outcome: Option<O>,
) -> impl Bodiless<Output = O::Output> {
    Storing::<O, _, _>::new(read::<O>(call), NoRules)
}

/// The same with `unless`, with a `ttl` that is computed from each value, or with a tag over the returned value.
pub fn cacheable_with_rules<O: Outcome<Value: CacheValue>>(
    call: ReadCall,
    _outcome: Option<O>,
    unless: impl Fn(&O::Returned) -> bool,
    ttl: impl Fn(&O::Value) -> Option<Ttl>,
    tags: impl Fn(&O::Value, &mut TagWriter),
) -> impl Bodiless<Output = O::Output> {
    Storing::<O, _, _>::new(read::<O>(call), OwnRules { unless, ttl, tags })
}

/// The same with `local`: a value that Redis returned is also kept in the memory of the process.
pub fn cacheable_local<O: Outcome<Value: CacheValue + LocalValue>>(
    call: ReadCall,
    _outcome: Option<O>,
    unless: impl Fn(&O::Returned) -> bool,
    ttl: impl Fn(&O::Value) -> Option<Ttl>,
    tags: impl Fn(&O::Value, &mut TagWriter),
) -> impl Bodiless<Output = O::Output> {
    let (steps, found) = call.find_locally::<O>(Refresh::Caller);
    Storing::<O, _, _>::local(steps, found, OwnRules { unless, ttl, tags })
}

/// `#[cache_put]`: the call returns the body's value and stores it.
pub fn cache_put<O: Outcome<Value: CacheValue>>(
    call: ReadCall,
    _outcome: Option<O>,
) -> impl Bodiless<Output = O::Output> {
    Storing::<O, _, _>::new(write::<O>(call), NoRules)
}

/// The same with `unless`, with a `ttl` that is computed from each value, or with a tag over the returned value.
pub fn cache_put_with_rules<O: Outcome<Value: CacheValue>>(
    call: ReadCall,
    _outcome: Option<O>,
    unless: impl Fn(&O::Returned) -> bool,
    ttl: impl Fn(&O::Value) -> Option<Ttl>,
    tags: impl Fn(&O::Value, &mut TagWriter),
) -> impl Bodiless<Output = O::Output> {
    Storing::<O, _, _>::new(write::<O>(call), OwnRules { unless, ttl, tags })
}

/// `#[cache_evict]`: the call returns the body's value after it removed the targets. `more` adds the targets that
/// `<return.…>` names.
pub fn cache_evict<O: Outcome>(
    call: EvictCall,
    _outcome: Option<O>,
    more: impl Fn(&O::Value, EvictCall) -> EvictCall,
) -> impl Bodiless<Output = O::Output> {
    let (named, call) = call.split();
    Evicting::<O, _, _>::new(cache::evict(call), more, named)
}

#[inline(always)]
fn read<O: Outcome>(call: ReadCall) -> Option<Steps> {
    let of = ValueType::of_outcome::<O>();
    cache::read(call.into_parts(), of, Refresh::Caller)
}

#[inline(always)]
fn write<O: Outcome>(call: ReadCall) -> Option<Steps> {
    cache::write(call.into_parts(), ValueType::of_outcome::<O>())
}

/// The default of `unless` beside a `ttl`. As a function, it is shared by all functions with the same return type.
pub fn keep<T>(_: &T) -> bool {
    false
}

/// The same for `ttl` beside an `unless`.
pub fn no_own_ttl<T>(_: &T) -> Option<Ttl> {
    None
}

/// The default of `tags`, if no tag names the returned value.
pub fn no_tags<T>(_: &T, _: &mut TagWriter) {}

/// The default of `more`, if no target names the returned value.
pub fn no_more<T>(_: &T, call: EvictCall) -> EvictCall {
    call
}
