//! The requirements of `refresh = "background"` on a function. They are separate from [`__private`](crate::__private),
//! because rustc would show that path to a user whose function does not meet them.

use crate::cache::{self, Detachable, Refresh, ValueType};
use crate::calls::ReadCall;
use crate::run::in_current_run;
use crate::site::{CacheValue, LocalValue, Outcome, OwnRules, Rules, Ttl};
use crate::tag::TagWriter;

/// Checks that a body can run in its own task, at a place where nothing else can fail to compile.
pub const fn background<F>(body: F) -> F
where
    F: Future + Send + 'static,
{
    body
}

/// The same as `#[cacheable]`, but a stale value is served at once and the body runs in its own task.
pub fn cacheable_background<O>(
    call: ReadCall,
    _outcome: O,
    unless: impl Fn(&O::Returned) -> bool + Send + Sync + 'static,
    ttl: impl Fn(&O::Value) -> Option<Ttl> + Send + Sync + 'static,
    tags: impl Fn(&O::Value, &mut TagWriter) + Send + Sync + 'static,
    body: impl Future<Output = O::Output> + Send + 'static,
) -> impl Future<Output = O::Output>
where
    O: Outcome<Output: Send, Value: CacheValue> + 'static,
{
    detachable::<O, _, _>(call, OwnRules { unless, ttl, tags }, body)
}

/// The same with `local`: a value that Redis returned is also kept in the memory of the process.
pub fn cacheable_background_local<O>(
    call: ReadCall,
    _outcome: O,
    unless: impl Fn(&O::Returned) -> bool + Send + Sync + 'static,
    ttl: impl Fn(&O::Value) -> Option<Ttl> + Send + Sync + 'static,
    tags: impl Fn(&O::Value, &mut TagWriter) + Send + Sync + 'static,
    body: impl Future<Output = O::Output> + Send + 'static,
) -> impl Future<Output = O::Output>
where
    O: Outcome<Output: Send, Value: CacheValue + LocalValue> + 'static,
{
    let rules = OwnRules { unless, ttl, tags };
    // A refresh runs in another task and must use the same cache and limiter as this task.
    let (steps, found) = call.find_locally::<O>(Refresh::Background);
    Detachable::<O, _, _, _, _>::local(steps, found, rules, body, in_current_run)
}

#[inline(always)]
fn detachable<O, R, B>(call: ReadCall, rules: R, body: B) -> impl Future<Output = O::Output>
where
    O: Outcome<Output: Send, Value: CacheValue> + 'static,
    R: Rules<O> + Send + Sync + 'static,
    B: Future<Output = O::Output> + Send + 'static,
{
    let of = ValueType::of_outcome::<O>();
    let steps = cache::read(call.into_parts(), of, Refresh::Background);
    // A refresh runs in another task and must use the same cache and limiter as this task.
    Detachable::<O, _, _, _, _>::new(steps, rules, body, in_current_run)
}
