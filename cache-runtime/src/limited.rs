//! The runtime of `#[rate_limit]`: one decision before the body. It is separate from [`__private`](crate::__private),
//! because rustc would show that path to a user whose function cannot return a rejection.

use std::ops::Deref;
use std::sync::{Once, OnceLock};

use tracing::{error, warn};

use crate::key::KeyWriter;
use crate::limit::{Identity, Limit, Limited, RateLimiter};
use crate::site::LimitFacts;

/// A function with `#[rate_limit]`: the attribute's arguments, and how the installed limiter resolved them.
#[derive(Debug)]
pub struct LimitSite {
    /// The arguments that are known at compile time.
    pub facts: LimitFacts,
    /// Resolved by the first call, so later calls neither look up names nor allocate. It holds [`None`] if a policy is
    /// unknown.
    installed: OnceLock<Option<Limit>>,
    reported: Once,
}

impl LimitSite {
    /// `name` is the function with its module path.
    pub const fn new(name: &'static str, policies: &'static [&'static str]) -> Self {
        Self {
            facts: LimitFacts {
                name,
                policies,
                has_own_limiter: false,
            },
            installed: OnceLock::new(),
            reported: Once::new(),
        }
    }

    /// `limiter = …`.
    pub const fn own_limiter(mut self) -> Self {
        self.facts.has_own_limiter = true;
        self
    }
}

/// One call of a function with `#[rate_limit]`.
///
/// It does not ask if no limiter has the policies. Then no argument is evaluated and the body runs as if the attribute
/// were absent.
#[derive(Debug)]
pub struct LimitCall(Option<Question>);

impl LimitCall {
    /// Asks the limiter of the [`RateLimiter::run`] around the call, or else the installed limiter, about the client that
    /// `write` writes.
    pub fn new(site: &'static LimitSite, write: impl FnOnce(&mut KeyWriter<'_>)) -> Self {
        let limit = match RateLimiter::of_run() {
            Some(limiter) => site.find(&limiter).map(Asked::Named),
            None => site.installed().map(Asked::Installed),
        };
        Self::asking(site, limit, write)
    }

    /// `limiter = …`
    pub fn by(
        site: &'static LimitSite,
        limiter: &RateLimiter,
        write: impl FnOnce(&mut KeyWriter<'_>),
    ) -> Self {
        Self::asking(site, site.find(limiter).map(Asked::Named), write)
    }

    fn asking(
        site: &'static LimitSite,
        limit: Option<Asked>,
        write: impl FnOnce(&mut KeyWriter<'_>),
    ) -> Self {
        Self(limit.map(|limit| {
            let mut client = String::new();
            write(&mut KeyWriter::new(&mut client));
            Question {
                function: site.facts.name,
                limit,
                client: Identity::key(client),
                cost: 1,
            }
        }))
    }

    /// `cost = …`
    #[must_use]
    pub fn cost(mut self, cost: impl FnOnce() -> u32) -> Self {
        if let Some(question) = &mut self.0 {
            question.cost = cost();
        }
        self
    }
}

/// Returns why the body may not run; [`None`] if it may run.
pub async fn limited(call: LimitCall) -> Option<Limited> {
    let Question {
        function,
        limit,
        client,
        cost,
    } = call.0?;
    let decision = limit.check_cost(&client, cost).await;
    if !decision.is_allowed() {
        limit.count_rejection(&decision, function);
    }
    decision.into_result().err()
}

/// Returns what the function returns for a rejected call.
pub fn refused<R>(limited: Limited) -> R
where
    R: Refusable<Error: FromLimited>,
{
    R::refused(FromLimited::from_limited(limited))
}

/// The return type of a function with `#[rate_limit]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot represent a refused call",
    label = "a function with `#[rate_limit]` returns a `Result`",
    note = "write `Result<_, E>`, where `E` implements `From<cache_runtime::limit::Limited>`"
)]
pub trait Refusable {
    /// The error type.
    type Error;

    /// Returns the value that a rejected call returns.
    fn refused(error: Self::Error) -> Self;
}

impl<T, E> Refusable for Result<T, E> {
    type Error = E;

    fn refused(error: E) -> Self {
        Err(error)
    }
}

/// The error of a function with `#[rate_limit]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot represent a refused call",
    label = "this error type must implement `From<cache_runtime::limit::Limited>`",
    note = "write `impl From<Limited> for {Self}`, or with `thiserror` a variant `Limited(#[from] Limited)`; for a type of another crate, such as `String`, return an error type of your own instead"
)]
pub trait FromLimited {
    /// Returns the error of a rejected call.
    fn from_limited(limited: Limited) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<Limited>> FromLimited for E {
    fn from_limited(limited: Limited) -> Self {
        limited.into()
    }
}

/// The question to a limiter.
#[derive(Debug)]
struct Question {
    function: &'static str,
    limit: Asked,
    client: Identity,
    cost: u32,
}

/// The policies to ask. Those of the installed limiter are not cloned: every call on every thread would write to their
/// reference count.
#[derive(Debug)]
enum Asked {
    /// Those of the process-wide limiter.
    Installed(&'static Limit),
    /// Those of a limiter that the attribute names, which the body may move, or of a [`RateLimiter::run`].
    Named(Limit),
}

impl Deref for Asked {
    type Target = Limit;

    fn deref(&self) -> &Limit {
        match self {
            Self::Installed(limit) => limit,
            Self::Named(limit) => limit,
        }
    }
}

impl LimitSite {
    /// Returns the policies of the installed limiter.
    fn installed(&'static self) -> Option<&'static Limit> {
        if let Some(found) = self.installed.get() {
            return found.as_ref();
        }
        let limiter = installed()?;
        self.installed.get_or_init(|| self.find(limiter)).as_ref()
    }

    /// Returns the policies of `limiter`. A missing policy is logged once.
    fn find(&self, limiter: &RateLimiter) -> Option<Limit> {
        let found = limiter.limit(self.facts.policies);
        if let Err(error) = &found {
            self.reported.call_once(|| {
                error!(
                    function = self.facts.name,
                    %error,
                    "a function runs without its rate limit; this error is logged once per function"
                );
            });
        }
        found.ok()
    }
}

/// Returns the process-wide limiter. Without it the body runs, and the first call logs a warning.
fn installed() -> Option<&'static RateLimiter> {
    static WARNING: Once = Once::new();
    let installed = RateLimiter::installed();
    if installed.is_none() {
        WARNING.call_once(|| {
            warn!(
                "no rate limiter is installed, so annotated functions run unlimited; call `limiter.install()`, or in a test `limiter.run(…)`"
            );
        });
    }
    installed
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;
    use crate::cache::Cache;
    use crate::limit::Policy;
    use crate::testing::log::Log;

    #[tokio::test]
    async fn an_unknown_policy_is_logged_once_per_function_and_limits_nothing() {
        static PAY: LimitSite = LimitSite::new("app::pay", &["payment", "pay"]);
        static REFUND: LimitSite = LimitSite::new("app::refund", &["refund"]);
        let limiter = RateLimiter::new(&Cache::memory(), [Policy::payment()]).expect("a policy");
        let log = Log::listen(Level::ERROR);

        for site in [&PAY, &PAY, &REFUND, &REFUND] {
            let call = LimitCall::by(site, &limiter, |_| {
                panic!("the client must not be computed")
            });
            assert!(limited(call.cost(|| panic!("no cost"))).await.is_none());
        }

        assert_eq!(log.take().len(), 2);
    }
}
