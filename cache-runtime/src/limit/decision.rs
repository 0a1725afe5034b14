//! The decisions of a limiter.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The decision of a limiter about one call.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::limit::{Backend, Identity, Policy, RateLimiter, Verdict};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_runtime::Error> {
/// let cache = Cache::memory();
/// let limiter = RateLimiter::new(&cache, [Policy::api()])?;
/// let decision = limiter.check("api", &Identity::user(42)).await?;
///
/// let status = match decision.verdict {
///     Verdict::Allowed => 200,
///     Verdict::Unavailable => 503,
///     _ => 429, // with `decision.retry_after`
/// };
/// assert_eq!((status, decision.backend), (200, Backend::Memory));
///
/// let api = &decision.policies[0];
/// assert_eq!((api.remaining, api.limit), (99, 100));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Decision {
    /// Whether the call may go on.
    pub verdict: Verdict,
    /// How long to wait before trying again. Then the same call succeeds, unless other calls of the same client come first. For
    /// `Unavailable` it is an estimate. `None` if the call succeeded or never will succeed.
    pub retry_after: Option<Duration>,
    /// Each policy that was asked, in the order in which they were passed to the limiter.
    pub policies: Vec<Status>,
    /// What made the decision.
    pub backend: Backend,
    /// How many units the call used of each policy. 0 if it was refused or refunded.
    pub charged: u32,
}

/// Whether a call may go on.
///
/// See [`Decision`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The call may go on, and is counted.
    Allowed,
    /// The call is over a limit.
    Limited,
    /// The client is blocked, as a penalty or by [`block`](super::RateLimiter::block).
    Blocked,
    /// The call costs more than the whole limit, so it is never allowed.
    TooCostly,
    /// Redis is unavailable, and a policy allows no call during an outage.
    Unavailable,
}

/// What made a decision.
///
/// See [`Decision`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Redis, for all processes.
    Redis,
    /// This process, without asking Redis: the call was rejected less than a second ago, or costs more than the whole limit.
    Known,
    /// This process by itself: Redis is not configured, or it is unavailable.
    Memory,
}

/// The state of a client under one policy.
///
/// See [`Decision`] for an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The name of the policy.
    pub policy: Arc<str>,
    /// The verdict of this policy. It does not count a call that another policy rejects, even if its own verdict is `Allowed`.
    pub verdict: Verdict,
    /// The limit, in units.
    pub limit: u32,
    /// The length of the window.
    pub window: Duration,
    /// How many units are left.
    pub remaining: u32,
    /// How long until more units are left than now. Zero if all units are left.
    pub more_after: Duration,
}

impl Decision {
    /// Returns whether the call may go on.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allowed
    }

    /// Returns the decision, or [`Limited`] if the call is not allowed.
    ///
    /// # Errors
    ///
    /// Any verdict except `Allowed`.
    pub fn into_result(self) -> Result<Self, Limited> {
        if self.is_allowed() {
            Ok(self)
        } else {
            Err(Limited(Box::new(self)))
        }
    }
}

/// The error of a call that is not allowed. The error type of a function with `#[rate_limit]` must implement [`From`] it.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::limit::{Limited, Policy, RateLimiter};
/// use cache_runtime::{Cache, rate_limit};
///
/// #[derive(Debug)]
/// enum PayError {
///     TooOften { wait: Option<Duration> },
/// }
///
/// impl From<Limited> for PayError {
///     fn from(limited: Limited) -> Self {
///         Self::TooOften { wait: limited.retry_after() }
///     }
/// }
///
/// #[rate_limit(policy = "payment", key = "<user_id>")]
/// async fn pay(user_id: i64) -> Result<(), PayError> {
///     Ok(()) // or ask the bank
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_runtime::Error> {
/// let cache = Cache::memory();
/// let limiter = RateLimiter::new(&cache, [Policy::new("payment").limit(1).per("1m")])?;
/// limiter.run(async {
///     assert!(pay(42).await.is_ok());
///     assert!(matches!(pay(42).await, Err(PayError::TooOften { wait: Some(_) })));
/// })
/// .await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Limited(Box<Decision>);

impl Limited {
    /// Returns the whole decision.
    pub fn decision(&self) -> &Decision {
        &self.0
    }

    /// Returns how long to wait until the same call would succeed, or `None` if it never will.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the name of the policy that makes the call wait longest.
    pub fn policy(&self) -> &str {
        let rejecting = self
            .0
            .policies
            .iter()
            .filter(|status| status.verdict != Verdict::Allowed);
        rejecting
            .max_by_key(|status| status.more_after)
            .map_or("", |status| &status.policy)
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.policy();
        match self.0.verdict {
            Verdict::Unavailable => write!(f, "rate limit `{policy}` cannot be checked now")?,
            Verdict::TooCostly => {
                return write!(
                    f,
                    "the call costs more than the whole rate limit `{policy}`"
                );
            }
            Verdict::Blocked => write!(f, "blocked by rate limit `{policy}`")?,
            Verdict::Allowed | Verdict::Limited => write!(f, "rate limit `{policy}` exceeded")?,
        }
        match self.retry_after() {
            Some(wait) => write!(f, "; try again in {} s", whole_seconds(wait)),
            None => Ok(()),
        }
    }
}

impl StdError for Limited {}

/// Returns the wait in whole seconds, rounded up and at least 1. A client that retries too early is rejected again.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
        .max(1)
}
