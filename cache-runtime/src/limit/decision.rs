//! What a limiter says of a call.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a limiter says of one call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Decision {
    /// Whether the call may go on.
    pub verdict: Verdict,
    /// When to try again: then the same call succeeds, unless others of the same client are faster. Of `Unavailable` a guess.
    /// `None` if it did succeed, or never will.
    pub retry_after: Option<Duration>,
    /// Each policy that was asked, in the order in which the limiter was given them.
    pub policies: Vec<Status>,
    /// Who decided.
    pub backend: Backend,
    /// How many units the call used of each policy: none if it was refused, or refunded.
    pub charged: u32,
}

/// Whether a call may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It may, and is counted.
    Allowed,
    /// It is over a limit.
    Limited,
    /// The client is blocked, as a penalty or by [`block`](super::RateLimiter::block).
    Blocked,
    /// It costs more than the whole limit, so it never may.
    TooCostly,
    /// Redis is away, and a policy allows nothing meanwhile.
    Unavailable,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Redis, for all processes.
    Redis,
    /// This process, without asking Redis: the call was rejected less than a second ago, or costs more than the whole limit.
    Known,
    /// This process by itself: there is no Redis, or it is away.
    Memory,
}

/// How a client stands with one policy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The policy's name.
    pub policy: Arc<str>,
    /// What it says. A call that another policy rejects is not counted by this one, even if it would have allowed it.
    pub verdict: Verdict,
    /// Its limit, in units.
    pub limit: u32,
    /// Its window.
    pub window: Duration,
    /// How many units are left.
    pub remaining: u32,
    /// When more will be left than now; zero if all is.
    pub more_after: Duration,
}

impl Decision {
    /// Whether the call may go on.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allowed
    }

    /// The decision, or as an error that it is not allowed.
    ///
    /// # Errors
    ///
    /// Every verdict but `Allowed`.
    pub fn into_result(self) -> Result<Self, Limited> {
        if self.is_allowed() {
            Ok(self)
        } else {
            Err(Limited(Box::new(self)))
        }
    }
}

/// A call that is not allowed. The error type of a function with `#[rate_limit]` is made [`From`] it.
#[derive(Clone, Debug)]
pub struct Limited(Box<Decision>);

impl Limited {
    /// The whole decision.
    pub fn decision(&self) -> &Decision {
        &self.0
    }

    /// When the same call would succeed; `None` if it never will.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The name of the policy that makes the call wait longest.
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

/// Rounded up, and never zero: whoever comes back a moment too early is rejected again.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
        .max(1)
}
