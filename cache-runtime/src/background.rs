//! What `refresh = "background"` asks of a function. Apart from [`__private`](crate::__private), which rustc would name to the
//! user whose function cannot give it.

use crate::cache::{self, Detachable, Refresh, Shell, ValueType};
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
    let caller = Detachable::<O, _, _, _, _>::new(rules, body, in_current_run);
    let of = ValueType::of::<O::Value>(O::layers());
    Shell::new(
        cache::read(call.into_parts(), of, Refresh::Background),
        caller,
    )
}
