//! What a limiter enforces: how many calls per window, and the penalties for clients that continue.

use std::time::Duration;

use super::rule::{Algorithm, Penalties, Rule};
use crate::clock::whole_millis;
use crate::config::Quota;
use crate::escape::excerpt;

/// The longest window of a policy: a calendar month.
pub(super) const MAX_WINDOW: Duration = Duration::from_secs(31 * 86_400);

/// Above this limit a log would cost too much: it holds a number for every call.
const MAX_LOG: u32 = 1_000;

/// The longest name, in bytes. It is part of every key and of every response.
const MAX_NAME: usize = 64;

/// Sets how often a client may do something.
///
/// ```
/// use cache_runtime::limit::{Penalty, Policy};
///
/// let search = Policy::new("search").limit(30).per("1m");
/// let login = Policy::new("login").limit(5).per("10m").penalty(Penalty::default());
/// ```
///
/// Nothing is checked here: [`RateLimiter::new`](super::RateLimiter::new) reports all problems together. A quota with the same
/// name in the configuration, for example from `CACHE_LIMIT_SEARCH=60/1m`, overrides `limit` and `per`.
#[derive(Clone, Debug)]
#[must_use]
pub struct Policy {
    name: String,
    limit: u32,
    window: Window,
    algorithm: Option<Algorithm>,
    penalty: Option<Penalty>,
    on_outage: OnOutage,
    share: Share,
}

/// A window: a duration, or a text such as `"60s"` or `"10m"`.
///
/// See [`Policy`] for an example.
#[derive(Clone, Debug)]
pub struct Window(Result<Duration, String>);

impl From<Duration> for Window {
    fn from(window: Duration) -> Self {
        Self(Ok(window))
    }
}

impl From<&str> for Window {
    fn from(text: &str) -> Self {
        Self(crate::config::duration(text).ok_or_else(|| text.to_owned()))
    }
}

/// How a policy decides while Redis is unavailable.
///
/// `Memory` suits nearly all policies. Use `Deny` only if one call too many is worse than no service. Default: `Memory`.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::limit::{OnOutage, Policy, RateLimiter};
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// let cache = Cache::memory();
/// let payout = Policy::new("payout").limit(3).per("1h").on_outage(OnOutage::Deny);
/// let limiter = RateLimiter::new(&cache, [Policy::api(), payout])?;
/// # drop(limiter);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnOutage {
    /// The process decides from what it knows, with the same functions.
    #[default]
    Memory,
    /// Allows every call.
    Allow,
    /// Allows no call. Responses have status 503.
    Deny,
}

/// How much of a limit each of several processes grants by itself while Redis is unavailable. Default: `Full`.
///
/// ```
/// use cache_runtime::limit::{Policy, RateLimiter, Share};
/// use cache_runtime::{Cache, Config};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_runtime::Error> {
/// let cache = Cache::connect(Config::default().replicas(4)).await?;
/// // While Redis is unavailable, each of the 4 processes grants 5 codes.
/// let codes = Policy::new("codes").limit(20).per("10m").share(Share::Replica);
/// let limiter = RateLimiter::new(&cache, [codes])?;
/// # drop(limiter);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Share {
    /// The full limit. Clients see no difference, but a client whose calls are balanced over all processes gets more than the
    /// limit.
    #[default]
    Full,
    /// The limit divided by the configuration's `replicas`, rounded up. Together the processes grant little more than the limit.
    Replica,
}

/// The penalty for a client that continues over the limit.
///
/// A *strike* is a rejection over the limit. At most one strike is counted per window. The first strike has no effect. From the
/// second strike on the client is blocked, each time twice as long. Without new strikes, strikes are forgiven one by one.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::limit::{Penalty, Policy};
///
/// // Blocks for 1 minute, 2, 4, 8 and so on, up to a day.
/// let penalty = Penalty::default()
///     .first(Duration::from_secs(60))
///     .longest(Duration::from_secs(86_400));
/// let login = Policy::new("login").limit(5).per("10m").penalty(penalty);
/// # drop(login);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Penalty {
    first: Option<Duration>,
    longest: Duration,
    forgive_after: Duration,
}

impl Default for Penalty {
    fn default() -> Self {
        Self {
            // The window: a client that waits as long as the first rejection demands is not blocked.
            first: None,
            // A shift of support staff can wait that long; an attacker gets nowhere in it.
            longest: Duration::from_secs(3600),
            // Shorter than a pause between two visits of a person, longer than one between two attempts of a script.
            forgive_after: Duration::from_secs(600),
        }
    }
}

impl Penalty {
    /// Sets how long the first block lasts. Default: the window.
    pub fn first(mut self, first: Duration) -> Self {
        self.first = Some(first);
        self
    }

    /// Sets how long a block lasts at most. Default: 3600 s.
    pub fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Sets the time without a strike after which one strike is forgiven. Default: 600 s.
    pub fn forgive_after(mut self, after: Duration) -> Self {
        self.forgive_after = after;
        self
    }
}

impl Policy {
    /// Creates a policy with this name. Limits, metrics and responses show the name. It has 1 to 64 ASCII letters, digits, `_`, `-`
    /// and `.`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            limit: 0,
            window: Window(Ok(Duration::ZERO)),
            algorithm: None,
            penalty: None,
            on_outage: OnOutage::default(),
            share: Share::default(),
        }
    }

    /// Returns a policy for a whole API: 100 calls per minute for each client, without penalties, because the clients in an office
    /// share an address.
    pub fn api() -> Self {
        Self::new("api").limit(100).per(MINUTE)
    }

    /// Returns a policy for logins and similar actions: 10 calls per minute for each client, with penalties.
    pub fn auth() -> Self {
        Self::new("auth")
            .limit(10)
            .per(MINUTE)
            .penalty(Penalty::default())
            .share(Share::Replica)
    }

    /// Returns a policy for payments: 5 calls per minute for each user, with penalties.
    pub fn payment() -> Self {
        Self::new("payment")
            .limit(5)
            .per(MINUTE)
            .penalty(Penalty::default())
            .share(Share::Replica)
    }

    /// Sets how many units a client may use in any window. Default: none, so set it here or with a quota in the configuration. A call
    /// costs 1 unit unless it sets another cost.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the length of the window: a [`Duration`] or a text such as `"60s"`, from 1 ms to 31 days. Default: none, as for
    /// [`limit`](Self::limit).
    pub fn per(mut self, window: impl Into<Window>) -> Self {
        self.window = window.into();
        self
    }

    /// Sets how units are counted. Default: a log for limits up to 1,000, and buckets above.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = Some(algorithm);
        self
    }

    /// Sets the penalty for a client that continues over the limit. `None` means no penalty. Default: `None`.
    pub fn penalty(mut self, penalty: impl Into<Option<Penalty>>) -> Self {
        self.penalty = penalty.into();
        self
    }

    /// Sets how the policy decides while Redis is unavailable. Default: [`OnOutage::Memory`].
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.on_outage = on_outage;
        self
    }

    /// Sets how much of the limit this process grants by itself while Redis is unavailable. Default: [`Share::Full`].
    pub fn share(mut self, share: Share) -> Self {
        self.share = share;
        self
    }

    /// Returns the name of this policy.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Replaces limit and window with those of the configuration.
    pub(super) fn overridden(mut self, quota: Quota) -> Self {
        self.limit = quota.limit;
        self.window = quota.window.into();
        self
    }

    /// Returns what the script and the functions need, or all problems of the policy.
    pub(super) fn checked(self, replicas: u32) -> Result<Checked, Vec<String>> {
        let Self {
            name,
            limit,
            window,
            algorithm,
            penalty,
            on_outage,
            share,
        } = self;
        let mut problems = Vec::new();
        let shown = excerpt(&name, MAX_NAME);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
            problems.push(format!(
                "`{shown}` is not a policy name; use 1 to {MAX_NAME} ASCII letters, digits, `_`, `-` and `.`"
            ));
        }
        if limit == 0 {
            problems.push(format!(
                "`{shown}` allows nothing; give it a limit of at least 1, such as `.limit(100).per(\"60s\")`"
            ));
        }
        let window = match window.0 {
            Ok(window) => window,
            Err(text) => {
                let text = excerpt(&text, 40);
                problems.push(format!(
                    "`{shown}` has an invalid window `{text}`; use \"60s\", \"10m\" or \"1h\""
                ));
                MAX_WINDOW
            }
        };
        let millis = whole_millis(window);
        if millis == 0 || window > MAX_WINDOW {
            problems.push(format!(
                "`{shown}` has an invalid window of {window:?}; use 1 ms to 31 days, such as `.per(\"60s\")`"
            ));
        }
        let algorithm = algorithm.unwrap_or(if limit <= MAX_LOG {
            Algorithm::SlidingLog
        } else {
            Algorithm::SlidingBuckets
        });
        if algorithm == Algorithm::SlidingLog && limit > MAX_LOGGED {
            problems.push(format!(
                "`{shown}` would log {limit} calls per client; a sliding log holds at most {MAX_LOGGED}, use `Algorithm::SlidingBuckets`"
            ));
        }
        // The drained part of a bucket is counted in fractions of a millisecond, as one whole number.
        if algorithm == Algorithm::Gcra && u64::from(limit).saturating_mul(millis) > 1 << 53 {
            problems.push(format!(
                "`{shown}` is too large for `Algorithm::Gcra`: the limit times the window in milliseconds must be at most 2^53; shorten the window"
            ));
        }
        let penalties = penalty.map(|penalty| {
            let Penalty {
                first,
                longest,
                forgive_after,
            } = penalty;
            let penalties = Penalties {
                first: first.map_or(millis, whole_millis),
                longest: whole_millis(longest),
                forgive_after: whole_millis(forgive_after),
            };
            for (what, value) in [
                ("first block", penalties.first),
                ("longest block", penalties.longest),
                ("time to forgive", penalties.forgive_after),
            ] {
                if value == 0 || value > whole_millis(MAX_WINDOW) {
                    problems.push(format!(
                        "the {what} of `{shown}` must be from 1 ms to 31 days"
                    ));
                }
            }
            penalties
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let share = match share {
            Share::Replica if replicas > 1 => Some(limit.div_ceil(replicas)),
            Share::Full | Share::Replica => None,
        };
        Ok(Checked {
            name,
            rule: Rule {
                algorithm,
                limit,
                window: millis,
                penalties,
            },
            share,
            wants_replicas: self.share == Share::Replica,
            on_outage,
        })
    }
}

/// A policy without problems.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) rule: Rule,
    /// What this process grants by itself while Redis is unavailable, if that is less than the limit.
    pub(super) share: Option<u32>,
    /// Whether the limit should be divided among the replicas.
    pub(super) wants_replicas: bool,
    pub(super) on_outage: OnOutage,
}

const MINUTE: Duration = Duration::from_secs(60);

/// The script reads the whole log at every call.
const MAX_LOGGED: u32 = 10_000;
