//! What a limiter enforces: how many calls in which time, and what follows for those who do not stop.

use std::time::Duration;

use super::rule::{Algorithm, Penalties, Rule};
use crate::clock::whole_millis;
use crate::config::Quota;
use crate::escape::excerpt;

/// The longest time that a policy may count: a calendar month.
pub(super) const LONGEST_WINDOW: Duration = Duration::from_secs(31 * 86_400);

/// From here on a log would cost too much: a number for every call.
const LONGEST_LOG: u32 = 1_000;

/// The longest name: it is part of every key and of every response.
const LONGEST_NAME: usize = 64;

/// How often a client may do something.
///
/// ```
/// use cache_runtime::limit::{Penalty, Policy};
///
/// let search = Policy::new("search").limit(30).per("1m");
/// let login = Policy::new("login").limit(5).per("10m").penalty(Penalty::default());
/// ```
///
/// Nothing is checked here: [`RateLimiter::new`](super::RateLimiter::new) reports everything that is wrong, at once. The
/// configuration's quota of the same name, from `CACHE_LIMIT_SEARCH=60/1m` for example, wins over `limit` and `per`.
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

/// A time, or a text that is to be one: `"60s"`, `"10m"`.
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

/// What is decided while Redis is away. `Memory` suits nearly all; `Deny` only where one call too many is worse than no service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnOutage {
    /// The process decides by what it knows, with the same functions.
    #[default]
    Memory,
    /// Everything is allowed.
    Allow,
    /// Nothing is allowed: 503.
    Deny,
}

/// How much of a limit one of several processes grants by itself while Redis is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Share {
    /// All of it: clients notice nothing, and those whom the balancer spreads over all processes get more than the limit.
    #[default]
    Full,
    /// The limit divided by the configuration's `replicas`, rounded up: together the processes grant little more than the limit.
    Replica,
}

/// What follows for a client who goes on over the limit.
///
/// A *strike* is a rejection over the limit, counted once in a window at most. The first costs nothing; from the second on
/// the client is blocked, twice as long each time. Strikes are forgiven one by one while nothing happens.
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
            // The window: whoever waited as long as the first rejection said is not hit.
            first: None,
            // A shift of support staff can wait that long; an attacker gets nowhere in it.
            longest: Duration::from_secs(3600),
            // Shorter than a pause between two visits of a person, longer than one between two attempts of a script.
            forgive_after: Duration::from_secs(600),
        }
    }
}

impl Penalty {
    /// How long the first block lasts; left out, as long as the window.
    pub fn first(mut self, first: Duration) -> Self {
        self.first = Some(first);
        self
    }

    /// How long a block lasts at most: 1 hour unless said.
    pub fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// After how long without a strike one is forgiven: 10 minutes unless said.
    pub fn forgive_after(mut self, after: Duration) -> Self {
        self.forgive_after = after;
        self
    }
}

impl Policy {
    /// A policy with this name, which limits, metrics and responses show: letters, digits, `_`, `-` and `.`, 64 at most.
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

    /// For an API as a whole: 100 a minute for each client, without penalties, since an office shares its address.
    pub fn api() -> Self {
        Self::new("api").limit(100).per(MINUTE)
    }

    /// For logging in and the like: 10 a minute for each client, with penalties.
    pub fn auth() -> Self {
        Self::new("auth")
            .limit(10)
            .per(MINUTE)
            .penalty(Penalty::default())
            .share(Share::Replica)
    }

    /// For paying: 5 a minute for each user, with penalties.
    pub fn payment() -> Self {
        Self::new("payment")
            .limit(5)
            .per(MINUTE)
            .penalty(Penalty::default())
            .share(Share::Replica)
    }

    /// How many units a client may use in any window; a call costs one unless it says otherwise.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// The length of the window: a [`Duration`] or a text such as `"60s"`, from 1 ms to 31 days.
    pub fn per(mut self, window: impl Into<Window>) -> Self {
        self.window = window.into();
        self
    }

    /// How units are counted; left out, a log up to a limit of 1,000 and buckets above.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = Some(algorithm);
        self
    }

    /// What follows for a client who goes on over the limit; `None` is nothing.
    pub fn penalty(mut self, penalty: impl Into<Option<Penalty>>) -> Self {
        self.penalty = penalty.into();
        self
    }

    /// What is decided while Redis is away.
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.on_outage = on_outage;
        self
    }

    /// How much of the limit this process grants by itself while Redis is away.
    pub fn share(mut self, share: Share) -> Self {
        self.share = share;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes limit and window from the configuration.
    pub(super) fn overridden(mut self, quota: Quota) -> Self {
        self.limit = quota.limit;
        self.window = quota.window.into();
        self
    }

    /// What the script and the functions need to know, or everything that is wrong with it.
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
        let shown = excerpt(&name, LONGEST_NAME);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_plain) {
            problems.push(format!(
                "`{shown}` is no name for a policy; use 1 to {LONGEST_NAME} ASCII letters, digits, `_`, `-` and `.`"
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
                    "`{shown}` counts per `{text}`, which is no time; write it as \"60s\", \"10m\" or \"1h\""
                ));
                LONGEST_WINDOW
            }
        };
        let millis = whole_millis(window);
        if millis == 0 || window > LONGEST_WINDOW {
            problems.push(format!(
                "`{shown}` counts per {window:?}; a window is from 1 ms to 31 days, such as `.per(\"60s\")`"
            ));
        }
        let algorithm = algorithm.unwrap_or(if limit <= LONGEST_LOG {
            Algorithm::SlidingLog
        } else {
            Algorithm::SlidingBuckets
        });
        if algorithm == Algorithm::SlidingLog && limit > MOST_LOGGED {
            problems.push(format!(
                "`{shown}` would log {limit} calls of each client; up to {MOST_LOGGED} can be, use `Algorithm::SlidingBuckets`"
            ));
        }
        // The drained part of a bucket is counted in fractions of a millisecond, as one whole number.
        if algorithm == Algorithm::Gcra && u64::from(limit).saturating_mul(millis) > 1 << 53 {
            problems.push(format!(
                "`{shown}` is too fine for `Algorithm::Gcra`: limit times window, in milliseconds, may be 2^53; shorten the window"
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
                if value == 0 || value > whole_millis(LONGEST_WINDOW) {
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

/// A policy without a mistake in it.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) rule: Rule,
    /// What this process grants by itself while Redis is away, where that is less than the limit.
    pub(super) share: Option<u32>,
    /// Whether it should be divided among the replicas.
    pub(super) wants_replicas: bool,
    pub(super) on_outage: OnOutage,
}

const MINUTE: Duration = Duration::from_secs(60);

/// The script reads the whole log at every call.
const MOST_LOGGED: u32 = 10_000;
