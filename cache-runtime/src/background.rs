//! What `refresh = "background"` asks of a function. Apart from [`__private`](crate::__private), which rustc would name to the
//! user whose function cannot give it.

use crate::__private::Call;
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
pub async fn cacheable_background<O>(
    call: Call,
    _outcome: O,
    unless: impl Fn(&O::Returned) -> bool + Send + Sync + 'static,
    ttl: impl Fn(&O::Value) -> Option<Ttl> + Send + Sync + 'static,
    body: impl Future<Output = O::Output> + Send + 'static,
) -> O::Output
where
    O: Outcome<Output: Send, Value: CacheValue> + 'static,
{
    match call.cache {
        Some(cache) => {
            let rules = Rules { unless, ttl };
            // A refresh runs in another task, and calls what this one would call.
            let body = in_current_run(body);
            cache.read_behind::<O>(call.plan, rules, body).await
        }
        None => body.await,
    }
}
