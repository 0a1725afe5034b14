//! Rate limiting: a maximum number of calls of each client in any window, across all processes. While Redis is unavailable, each
//! process decides with the same rules.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cache_runtime::Cache;
//! use cache_runtime::limit::{Identity, Policy, RateLimiter};
//!
//! let cache = Cache::memory(); // a service calls `Cache::connect(Config::from_env()?).await?`
//! let limiter = RateLimiter::new(&cache, [Policy::api(), Policy::new("search").limit(2).per("1m")])?;
//!
//! let client = Identity::user(42);
//! assert!(limiter.check("search", &client).await?.is_allowed());
//! assert!(limiter.check("search", &client).await?.is_allowed());
//! let third = limiter.check("search", &client).await?;
//! assert!(!third.is_allowed() && third.retry_after.is_some());
//! # Ok(())
//! # }
//! ```

//!
//! # Guarantees
//!
//! - While Redis answers, a client gets at most its limit in any window, over all processes together. The time is that of Redis.
//!   With [`Algorithm::Gcra`] a client gets at most twice its limit, less 1.
//! - A rejection uses no units and writes nothing, except for a strike. A client that retries at the stated time, without other
//!   calls before it, is admitted. A client that retries 1 ms earlier is not.
//! - Several policies of one client are decided together: all of them count a call, or none does.
//! - If 4 equal calls of one client are on their way, further equal calls are decided in batches. As many calls as fit are admitted,
//!   in order of arrival. The answers are the same as for calls one after another. A caller that is cancelled before its batch is
//!   sent is not charged.
//! - While Redis is unavailable, the process decides from what it has seen. With one process the decisions do not change. With
//!   several processes, each process grants at most its [`Share`].
//! - When Redis is back, both Redis and the process must allow a call for one window. So neither the loss nor the return of Redis
//!   grants a new quota.
//! - A [`reset`](RateLimiter::reset) or [`unblock`](RateLimiter::unblock) reaches other processes within 1 s. During an outage it
//!   applies only to this process. In the window after the outage, the other processes may still refuse from memory.
//!
//! A call waits at most for the cache's `command_timeout_max`, and at most for `command_timeout` if Redis is silent. While Redis is
//! known to be unavailable, a call does not wait.
//!
//! # Logins
//!
//! - Count only failures ([`Limit::reserve`]). Otherwise any web page can lock out its visitors: it can make their browsers send
//!   requests.
//! - Limit by address, with penalties.
//! - Also limit by account, because one account can be attacked from many addresses. With a limit by account name, anybody can
//!   lock out the owner. Use a much higher limit and no penalty: `Policy::new("account").limit(100).per("1h")` with
//!   [`Identity::key`] of the name.

mod answer;
mod ask;
mod buckets;
mod crowd;
mod decision;
mod driver;
mod gcra;
mod identity;
mod local;
mod log;
mod policy;
mod reservation;
mod rule;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod top;
mod wire;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use tracing::{debug, error, warn};

use self::ask::{Call, SITE, Step};
#[cfg(feature = "http")]
pub(crate) use self::decision::whole_seconds;
pub use self::decision::{Backend, Decision, Limited, Status, Verdict};
pub use self::identity::Identity;
pub use self::policy::{OnOutage, Penalty, Policy, Share, Window};
use self::reservation::Queues;
pub use self::reservation::Reservation;
pub use self::rule::Algorithm;
use self::state::How;
use self::table::Table;
use self::top::Top;
use crate::cache::Cache;
use crate::clock::{Clock, whole_millis};
use crate::error::{AlreadyInstalled, Error, ErrorKind};
use crate::escape::excerpt;
use crate::key::Key;
use crate::metrics::LimitMetrics;
use crate::registry;
use crate::singleton::Singleton;
use crate::store::script::Reply;
use crate::throttle::Throttle;

/// How often the counts of rejected clients are sent to Redis.
const FLUSH: Duration = Duration::from_secs(5);

/// How long the counts of an hour are kept: as long as a query can include them.
const KEPT_FOR: Duration = Duration::from_secs((top::HOURS + 1) * 3600);

/// Decides how often clients may do something.
///
/// Cloning is cheap. All clones are the same limiter.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::Cache;
/// use cache_runtime::limit::{Identity, Policy, RateLimiter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_runtime::Error> {
/// let cache = Cache::memory();
/// let limiter = RateLimiter::new(&cache, [Policy::api(), Policy::auth()])?;
/// let client = Identity::ip([203, 0, 113, 7].into());
///
/// limiter.block("api", &client, Duration::from_secs(3600)).await?;
/// assert!(!limiter.check("api", &client).await?.is_allowed());
///
/// limiter.reset("api", &client).await?; // also clears its usage
/// assert!(limiter.check("api", &client).await?.is_allowed());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RateLimiter {
    inner: Arc<Inner>,
}

/// Some policies of a limiter that are decided together: either all of them count a call, or none does. Cloning is cheap.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::limit::{Identity, Policy, RateLimiter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_runtime::Error> {
/// let cache = Cache::memory();
/// let limiter = RateLimiter::new(&cache, [Policy::api(), Policy::new("rows").limit(1000).per("1h")])?;
/// let export = limiter.limit(&["api", "rows"])?;
///
/// let decision = export.check_cost(&Identity::user(42), 90).await; // for 90 rows
/// assert!(decision.is_allowed());
/// assert_eq!(decision.policies[1].remaining, 910);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Limit {
    inner: Arc<Inner>,
    policies: Arc<[usize]>,
}

/// The state that all clones share.
struct Inner {
    cache: Cache,
    policies: Vec<policy::Checked>,
    names: Vec<Arc<str>>,
    metrics: Vec<Arc<LimitMetrics>>,
    table: Table,
    queues: Queues,
    top: Top,
    clock: Clock,
    began: Instant,
    /// The time of day at `began`. The limiter's time is monotonic from then on, even if the system clock changes.
    base: u64,
    /// The last time at which Redis may have missed a call; 0 means never.
    doubted: AtomicU64,
    losses: AtomicU64,
    /// Whether Redis did not answer the last request in time. Then no call waits for a batch: the guard needs several unanswered
    /// requests to notice an outage.
    is_silent: AtomicBool,
    /// After how long a client should retry during an outage.
    reconnect: Duration,
    flushing: Singleton,
    /// Limits the log line about a client that makes far too many calls.
    suspicious: Throttle,
    this: Weak<Self>,
}

static INSTALLED: OnceCell<RateLimiter> = OnceCell::new();

impl RateLimiter {
    /// Creates a limiter that enforces `policies`.
    ///
    /// The limits apply across all processes that use the Redis of `cache`, or within this process if the cache has no Redis.
    /// Quotas in the cache's configuration override the quotas of the policies that they name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with every problem of the policies.
    pub fn new(cache: &Cache, policies: impl IntoIterator<Item = Policy>) -> Result<Self, Error> {
        let config = cache.config();
        let replicas = u32::try_from(config.replicas).unwrap_or(u32::MAX);
        let mut problems = Vec::new();
        let mut checked: Vec<policy::Checked> = Vec::new();
        for policy in policies {
            let policy = match config.quota_of(policy.name()) {
                Some(quota) => policy.overridden(quota),
                None => policy,
            };
            match policy.checked(replicas) {
                Ok(policy) if checked.iter().any(|known| known.name == policy.name) => {
                    problems.push(format!(
                        "`{}` is listed twice; give each policy its own name",
                        policy.name
                    ));
                }
                Ok(policy) => checked.push(policy),
                Err(wrong) => problems.extend(wrong),
            }
        }
        problems.extend(config.braces_around("clients"));
        Error::refuse_any("invalid rate limiter", problems)?;
        let names = || checked.iter().map(|policy| policy.name.as_str());
        for policy in config.unmatched_limits(names()) {
            warn!(
                policy,
                variable = format!("CACHE_LIMIT_{}", policy.to_ascii_uppercase()),
                known = names().collect::<Vec<_>>().join(", "),
                "the configuration has a limit for a policy that this limiter does not have; check its spelling"
            );
        }
        if replicas == 1 && !cache.is_local() && checked.iter().any(|policy| policy.wants_replicas)
        {
            warn!(
                "set `CACHE_REPLICAS` to the number of processes: otherwise each process grants the full limits during an outage of Redis, also for logins and payments"
            );
        }
        Ok(Self::around(cache, checked))
    }

    fn around(cache: &Cache, policies: Vec<policy::Checked>) -> Self {
        let config = cache.config();
        let inner = Arc::new_cyclic(|this| Inner {
            names: policies
                .iter()
                .map(|policy| policy.name.as_str().into())
                .collect(),
            metrics: policies
                .iter()
                .map(|policy| cache.metrics().limit(&policy.name))
                .collect(),
            table: Table::new(config.max_clients),
            queues: Queues::default(),
            top: Top::new(policies.len()),
            clock: config.clock.clone(),
            began: Instant::now(),
            base: config.clock.now_millis(),
            doubted: AtomicU64::new(0),
            losses: AtomicU64::new(cache.losses()),
            is_silent: AtomicBool::new(false),
            reconnect: config.reconnect_max_delay,
            flushing: Singleton::default(),
            suspicious: Throttle::new(),
            this: Weak::clone(this),
            cache: cache.clone(),
            policies,
        });
        Self { inner }
    }

    /// Installs this limiter for the rest of the process. All functions with `#[rate_limit]` and without `limiter = …` use it.
    ///
    /// It logs an error for each function that names a policy that the limiter does not have.
    ///
    /// In tests, use [`run`](Self::run) instead: it gives each test its own limiter.
    ///
    /// # Errors
    ///
    /// If another limiter is already installed; that limiter does not change. Installing the same limiter again is not an error.
    pub fn install(&self) -> Result<(), AlreadyInstalled> {
        let installed = INSTALLED.get_or_init(|| {
            for (function, policies) in registry::limit_sites() {
                if let Err(error) = self.limit(policies) {
                    error!(function, %error, "a function is not limited");
                }
            }
            self.clone()
        });
        match Arc::ptr_eq(&installed.inner, &self.inner) {
            true => Ok(()),
            false => Err(AlreadyInstalled::limiter()),
        }
    }

    /// Returns the installed limiter. [`current`](Self::current) returns the limiter that annotated functions ask.
    pub fn installed() -> Option<&'static Self> {
        INSTALLED.get()
    }

    /// Returns the policies with these names, to be decided together. Decisions list them in the order in which they were passed
    /// to [`new`](Self::new).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`] if `policies` is empty, contains a name that this limiter does not have, or contains a name twice.
    pub fn limit(&self, policies: &[&str]) -> Result<Limit, Error> {
        let refuse = |text: String| Err(Error::new(ErrorKind::Input, text));
        if policies.is_empty() {
            return refuse("no policy is named; name at least one".to_owned());
        }
        let mut found = Vec::with_capacity(policies.len());
        for name in policies {
            match self.inner.names.iter().position(|known| **known == **name) {
                Some(policy) if found.contains(&policy) => {
                    return refuse(format!("policy `{name}` is named twice; name it once"));
                }
                Some(policy) => found.push(policy),
                None => {
                    let known = self.inner.names.join("`, `");
                    return refuse(format!(
                        "the limiter has no policy `{}`; it has `{known}`",
                        excerpt(name, usize::MAX)
                    ));
                }
            }
        }
        found.sort_unstable();
        Ok(Limit {
            inner: Arc::clone(&self.inner),
            policies: found.into(),
        })
    }

    /// Decides one call of `client` and counts it if it is allowed. To ask several policies, or to ask often, use
    /// [`limit`](Self::limit).
    ///
    /// # Errors
    ///
    /// The same as [`limit`](Self::limit).
    pub async fn check(&self, policy: &str, client: &Identity) -> Result<Decision, Error> {
        Ok(self.limit(&[policy])?.check(client).await)
    }

    /// Returns what `check` would return now, without counting.
    ///
    /// # Errors
    ///
    /// The same as [`limit`](Self::limit).
    pub async fn peek(&self, policy: &str, client: &Identity) -> Result<Decision, Error> {
        Ok(self.limit(&[policy])?.peek(client).await)
    }

    /// Clears the usage, the strikes and the block of `client`. Other processes see this within 1 s.
    ///
    /// # Errors
    ///
    /// The same as [`limit`](Self::limit). Also if Redis is unavailable or does not answer in time. In this case only this process
    /// has cleared the client, and the old state returns when Redis is back. Repeat the call then.
    pub async fn reset(&self, policy: &str, client: &Identity) -> Result<(), Error> {
        let policy = self.one(policy)?;
        let inner = &self.inner;
        let outcome = if inner.cache.is_local() {
            Ok(())
        } else {
            let record = inner.key(policy, client);
            inner.cache.remove_record(&ask::SITE, &record).await
        };
        inner
            .table
            .with(client.as_str(), &inner.policies, inner.now(), |known| {
                if !known.is_shared {
                    known.forget(policy, &inner.policies);
                }
            });
        outcome
    }

    /// Blocks `client` for `duration`, regardless of its usage. Other processes see this the next time that they ask Redis.
    ///
    /// # Errors
    ///
    /// The same as [`reset`](Self::reset); if Redis is unavailable, only this process blocks the client. Also if `duration` is less
    /// than 1 ms or more than 31 days.
    pub async fn block(
        &self,
        policy: &str,
        client: &Identity,
        duration: Duration,
    ) -> Result<(), Error> {
        let millis = whole_millis(duration);
        if millis == 0 || duration > policy::MAX_WINDOW {
            return Err(Error::new(
                ErrorKind::Input,
                format!("invalid block of {duration:?}; use 1 ms to 31 days"),
            ));
        }
        self.set_block(policy, client, millis).await
    }

    /// Ends the block of `client`. Its usage and strikes do not change, so the next rejection may block it for longer.
    /// [`reset`](Self::reset) clears everything.
    ///
    /// # Errors
    ///
    /// The same as [`reset`](Self::reset).
    pub async fn unblock(&self, policy: &str, client: &Identity) -> Result<(), Error> {
        self.set_block(policy, client, 0).await
    }

    async fn set_block(&self, policy: &str, client: &Identity, millis: u64) -> Result<(), Error> {
        let policy = self.one(policy)?;
        let inner = &self.inner;
        let rule = &inner.policies[policy].rule;
        let outcome = if inner.cache.is_local() {
            Ok(())
        } else {
            inner
                .run(&[policy], client, Step::Block, millis)
                .await
                .map(drop)
        };
        let now = inner.now();
        inner
            .table
            .with(client.as_str(), &inner.policies, now, |known| {
                if known.is_shared {
                    return;
                }
                for slot in known.slots(&[policy], &inner.policies) {
                    slot.state.block(rule, millis, now);
                    slot.denied = None;
                }
            });
        outcome
    }

    /// Returns the `count` clients that this policy rejected most often, with the number of rejections, highest first.
    ///
    /// - With Redis, the counts cover all processes, the last 24 hours and the current hour. The counts of other processes may be
    ///   up to 5 s late.
    /// - Without Redis, the counts cover this process since the limiter was created.
    /// - Each name is that of [`Identity::as_str`].
    /// - Memory is bounded. With very many clients, the counts are estimates.
    ///
    /// ```
    /// use cache_runtime::Cache;
    /// use cache_runtime::limit::{Identity, Policy, RateLimiter};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cache_runtime::Error> {
    /// let cache = Cache::memory();
    /// let limiter = RateLimiter::new(&cache, [Policy::new("search").limit(1).per("1m")])?;
    /// for _ in 0..3 {
    ///     limiter.check("search", &Identity::user(42)).await?;
    /// }
    ///
    /// assert_eq!(limiter.top_limited("search", 10).await?, [("user:42".to_owned(), 2)]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`limit`](Self::limit). Also if Redis is unavailable or does not answer in time.
    pub async fn top_limited(
        &self,
        policy: &str,
        count: usize,
    ) -> Result<Vec<(String, u64)>, Error> {
        let policy = self.one(policy)?;
        let inner = &self.inner;
        if inner.cache.is_local() {
            return Ok(inner.top.most(policy, count));
        }
        inner.flush(policy).await?;
        let hour = inner.hour();
        let keys: Vec<Key> = (hour.saturating_sub(top::HOURS)..=hour)
            .map(|hour| inner.top_key(policy, hour))
            .collect();
        let names: Vec<&str> = keys.iter().map(Key::as_str).collect();
        let wanted = count.min(top::KEPT * names.len()).to_string();
        let reply = inner
            .cache
            .run_script(&SITE, &top::READ, &keys[0], &names, &[wanted.as_bytes()])
            .await?;
        let Reply::List(items) = reply else {
            return Err(Error::new(
                ErrorKind::Command,
                "unexpected reply from the script of the most limited clients",
            ));
        };
        let text = |reply: &Reply| match reply {
            Reply::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        };
        let pairs = items
            .chunks_exact(2)
            .map(|pair| (text(&pair[0]), text(&pair[1]).parse().unwrap_or(0)));
        Ok(top::highest(pairs.collect(), count))
    }

    fn one(&self, policy: &str) -> Result<usize, Error> {
        self.limit(&[policy]).map(|limit| limit.policies[0])
    }
}

impl Limit {
    /// Decides one call of `client` and counts it if all policies allow it. It never waits longer than the cache's
    /// `command_timeout_max`.
    #[must_use = "a call that is not allowed must not go on; see `Decision::into_result`"]
    pub async fn check(&self, client: &Identity) -> Decision {
        self.check_cost(client, 1).await
    }

    /// Decides a call that costs `cost` units. A call that costs 0 is allowed unless the client is blocked.
    #[must_use = "a call that is not allowed must not go on; see `Decision::into_result`"]
    pub async fn check_cost(&self, client: &Identity, cost: u32) -> Decision {
        self.decide(client, cost, How::Take).await
    }

    /// Returns what `check` would return now, without counting.
    #[must_use]
    pub async fn peek(&self, client: &Identity) -> Decision {
        self.decide(client, 1, How::Peek).await
    }

    /// Refunds the units of an allowed call that turned out not to count.
    ///
    /// It sets `decision.charged` to 0, so a second refund of the same decision does nothing. A refund of a rejection does nothing
    /// either. If many calls of one client may run at the same time, use [`reserve`](Self::reserve) instead: it does not reject a
    /// call because of other calls that are refunded a moment later.
    ///
    /// - A refund removes the newest units, even if another call used them. So a window may hold more units than the limit, by as
    ///   many as were refunded while the refunded calls ran.
    /// - Strikes and blocks do not change.
    /// - If Redis does not answer, the units count until their window ends.
    pub async fn refund(&self, client: &Identity, decision: &mut Decision) {
        self.inner.refund(&self.policies, client, decision).await;
    }

    /// Counts a rejection in the statistics, under a route template such as `/api/events/{id}`. Pass a text from the program, never
    /// from a request.
    pub fn count_rejection(&self, decision: &Decision, route: &str) {
        for (policy, status) in self.policies.iter().zip(&decision.policies) {
            if status.verdict != Verdict::Allowed {
                self.inner.metrics[*policy].count_route(route);
            }
        }
    }

    async fn decide(&self, client: &Identity, cost: u32, how: How) -> Decision {
        let call = Call {
            policies: &self.policies,
            client,
            cost,
            how,
        };
        self.inner.decide(call).await
    }
}

impl Inner {
    /// Returns monotonic milliseconds that start near the time of day.
    fn now(&self) -> u64 {
        self.clock
            .driven()
            .unwrap_or_else(|| self.base.saturating_add(whole_millis(self.began.elapsed())))
    }

    /// Returns the key of a client's state in Redis. The braces put all policies of a client into one slot.
    fn key(&self, policy: usize, client: &Identity) -> Key {
        let prefix = &self.cache.config().prefix;
        Key::of_record(format!(
            "{prefix}ratelimit:{{{client}}}:{}",
            self.names[policy]
        ))
    }

    fn top_key(&self, policy: usize, hour: u64) -> Key {
        let prefix = &self.cache.config().prefix;
        Key::of_record(format!(
            "{prefix}ratelimit:{{top:{}}}:{hour}",
            self.names[policy]
        ))
    }

    fn hour(&self) -> u64 {
        self.clock.now_millis() / 3_600_000
    }

    /// Schedules sending the counts of rejected clients to Redis.
    fn flush_in_background(&self) {
        if self.cache.is_local() {
            return;
        }
        let this = Weak::clone(&self.this);
        self.flushing.start(|running| async move {
            tokio::time::sleep(FLUSH).await;
            // The next task sends later counts.
            drop(running);
            let Some(inner) = this.upgrade() else {
                return;
            };
            for policy in 0..inner.policies.len() {
                if let Err(error) = inner.flush(policy).await {
                    debug!(%error, "could not store the most limited clients; they are kept for the next attempt");
                }
            }
        });
    }

    async fn flush(&self, policy: usize) -> Result<(), Error> {
        let counts = self.top.take(policy);
        if counts.is_empty() {
            return Ok(());
        }
        let key = self.top_key(policy, self.hour());
        let mut numbers = vec![top::KEPT.to_string(), KEPT_FOR.as_millis().to_string()];
        numbers.extend(counts.iter().map(|(_, count)| count.to_string()));
        let mut arguments: Vec<&[u8]> = numbers[..2].iter().map(String::as_bytes).collect();
        for ((client, _), count) in counts.iter().zip(&numbers[2..]) {
            arguments.push(client.as_bytes());
            arguments.push(count.as_bytes());
        }
        let added = self
            .cache
            .run_script(&SITE, &top::ADD, &key, &[key.as_str()], &arguments)
            .await;
        if added.is_err() {
            self.top.put_back(policy, counts);
        }
        added.map(drop)
    }
}

impl AsRef<Self> for RateLimiter {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("policies", &self.inner.policies)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self
            .policies
            .iter()
            .map(|policy| &self.inner.names[*policy])
            .collect();
        f.debug_struct("Limit")
            .field("policies", &names)
            .finish_non_exhaustive()
    }
}
