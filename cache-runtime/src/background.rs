//! What `refresh = "background"` asks of a function. Apart from [`__private`](crate::__private), which rustc would name to the
//! user whose function cannot give it.

use crate::cache::Cache;
use crate::calls::ReadCall;
use crate::run::in_current_run;
use crate::site::{CacheValue, Outcome, Rules, Ttl};

/// Asks, where nothing else can go wrong, whether a body can run in a task of its own.
pub const fn background<F>(body: F) -> F
where
    F: Future + Send + 'static,
{
    body
}

/// `#[cacheable]`, but a stale value is served at once, and the body runs in a task of its own.
pub fn cacheable_background<O>(
    call: ReadCall,
    _outcome: O,
    unless: impl Fn(&O::Returned) -> bool + Send + Sync + 'static,
    ttl: impl Fn(&O::Value) -> Option<Ttl> + Send + Sync + 'static,
    body: impl Future<Output = O::Output> + Send + 'static,
) -> impl Future<Output = O::Output>
where
    O: Outcome<Output: Send, Value: CacheValue> + 'static,
{
    let rules = Rules { unless, ttl };
    // A refresh runs in another task, and calls what this one would call.
    Cache::read_with_background_refresh::<O, _, _>(call.into_parts(), rules, body, in_current_run)
}
