//! Rate limiting that holds: at most so many calls of one client in any window, for all processes together, and the same
//! decisions while Redis is away.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cache_runtime::Cache;
//! use cache_runtime::limit::{Identity, Policy, RateLimiter};
//!
//! let cache = Cache::memory(); // a service says `Cache::connect(Config::from_env()?).await?`
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
//! # What holds
//!
//! - While Redis answers, any window of Redis's time holds no more than the limit, whichever process was asked; with
//!   [`Algorithm::Gcra`] less than twice as much.
//! - A rejection uses nothing up and writes nothing, except for a strike. A client that comes back at the stated time, and did
//!   nothing else meanwhile, is admitted; one millisecond earlier it is not.
//! - Several policies of one client are decided together: all of them count a call, or none does.
//! - While Redis is away the process decides by the same functions, from what it has seen. With one process the decisions stay
//!   what they were; of several, each also grants its [`Share`]. When Redis is back, for one window a call needs the consent of
//!   both Redis and the process, so that neither a loss of Redis nor its return is a fresh allowance.
//! - A [`reset`](RateLimiter::reset) or [`unblock`](RateLimiter::unblock) reaches other processes within a second; in an outage
//!   only this one, and in the window after it the others may go on refusing by what they remember.
//!
//! Calls never wait longer than the cache's `command_timeout`, and not at all while Redis is known to be away.
//!
//! # Logins
//!
//! Count failures only ([`Limit::reserve`]), or any page can lock its visitors out by requests that it makes their browsers send. Limit by
//! address, with penalties, and also by account, since one account can be guessed from many addresses. A limit by account name lets anybody
//! lock its owner out, so give it a much higher limit and no penalty: `Policy::new("account").limit(100).per("1h")` with
//! [`Identity::key`] of the name.

mod answer;
mod ask;
mod buckets;
mod decision;
mod gcra;
mod identity;
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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use tokio::runtime::Handle;
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
use crate::key::Key;
use crate::metrics::LimitMetrics;
use crate::registry;
use crate::store::script::Reply;

/// How often what was counted about rejected clients is brought to Redis.
const FLUSH: Duration = Duration::from_secs(5);

/// How long the counts of an hour are kept: as long as anybody looks back on it.
const KEPT_FOR: Duration = Duration::from_secs((top::HOURS + 1) * 3600);

/// Decides how often clients may do what. A cheap clone: all clones are the same limiter.
#[derive(Clone)]
pub struct RateLimiter {
    inner: Arc<Inner>,
}

/// Some policies of a limiter that are decided together: a call is counted by all of them or by none. A cheap clone.
#[derive(Clone)]
pub struct Limit {
    inner: Arc<Inner>,
    policies: Arc<[usize]>,
}

/// What all clones share.
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
    /// The time of day when it began. From then on time passes evenly, whatever becomes of the system's clock.
    base: u64,
    /// When it was last possible that Redis does not know everything; 0 is never.
    doubted: AtomicU64,
    losses: AtomicU64,
    /// When it makes sense to ask again during an outage.
    reconnect: Duration,
    is_flushing: AtomicBool,
    this: Weak<Self>,
}

static INSTALLED: OnceCell<RateLimiter> = OnceCell::new();

impl RateLimiter {
    /// Enforces `policies` for all processes that use the Redis of `cache`, or in this process where there is none. Quotas in the
    /// cache's configuration win over those of the policies that they name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with everything that is wrong with the policies.
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
                        "`{}` is there twice; give each policy a name of its own",
                        policy.name
                    ));
                }
                Ok(policy) => checked.push(policy),
                Err(wrong) => problems.extend(wrong),
            }
        }
        problems.extend(config.braces_around("clients"));
        Error::refuse_any("the rate limiter cannot be made", problems)?;
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
                "set `CACHE_REPLICAS` to the number of processes: during an outage of Redis each grants whole limits otherwise, also for logins and payments"
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
            reconnect: config.reconnect_max_delay,
            is_flushing: AtomicBool::new(false),
            this: Weak::clone(this),
            cache: cache.clone(),
            policies,
        });
        Self { inner }
    }

    /// Makes this the limiter of all functions with `#[rate_limit]` that name no other, for the rest of the process. Reports
    /// functions that name a policy which it does not have.
    ///
    /// Tests use [`run`](Self::run) instead: it gives each of them a limiter of its own.
    ///
    /// # Errors
    ///
    /// Another limiter is installed already, and stays. Installing the same one again is not an error.
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

    /// The installed limiter. See [`current`](Self::current) for the one that annotated functions ask.
    pub fn installed() -> Option<&'static Self> {
        INSTALLED.get()
    }

    /// The policies of these names, to be decided together. Decisions list them in the order in which the limiter was given them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`] for no name, one that is none of this limiter's policies, or one that is there
    /// twice.
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
                        name.escape_debug()
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

    /// Decides one call of `client`, and counts it if it is allowed. To decide by several policies, or often, take a
    /// [`limit`](Self::limit).
    ///
    /// # Errors
    ///
    /// As [`limit`](Self::limit).
    pub async fn check(&self, policy: &str, client: &Identity) -> Result<Decision, Error> {
        Ok(self.limit(&[policy])?.check(client).await)
    }

    /// What `check` would say now; counts nothing.
    ///
    /// # Errors
    ///
    /// As [`limit`](Self::limit).
    pub async fn peek(&self, policy: &str, client: &Identity) -> Result<Decision, Error> {
        Ok(self.limit(&[policy])?.peek(client).await)
    }

    /// Forgets what `client` used, its strikes and its block. Other processes see it within a second.
    ///
    /// # Errors
    ///
    /// As [`limit`](Self::limit); or a Redis that is away or late: then only this process has forgotten, and the client is as it was
    /// when Redis is back: reset it again.
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

    /// Blocks `client` for so long, whatever it used. Other processes see it with their next question.
    ///
    /// # Errors
    ///
    /// As [`reset`](Self::reset): then only this process blocks it. Or a time of less than 1 ms or more than 31 days.
    pub async fn block(
        &self,
        policy: &str,
        client: &Identity,
        duration: Duration,
    ) -> Result<(), Error> {
        let millis = whole_millis(duration);
        if millis == 0 || duration > policy::LONGEST_WINDOW {
            return Err(Error::new(
                ErrorKind::Input,
                format!("invalid block of {duration:?}; use 1 ms to 31 days"),
            ));
        }
        self.set_block(policy, client, millis).await
    }

    /// Ends the block of `client`. What it used and its strikes stay, so that the next rejection may block it for longer;
    /// [`reset`](Self::reset) forgets all.
    ///
    /// # Errors
    ///
    /// As [`reset`](Self::reset).
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

    /// The `count` clients that this policy rejected most often, with how often, highest first: with Redis of all processes in the
    /// last 24 hours and a bit, others' counts up to 5 s late; without it of this process since it began. Each is named as
    /// [`Identity::as_str`] is. Memory is bounded, so among very many clients the counts are estimates.
    ///
    /// # Errors
    ///
    /// As [`limit`](Self::limit); or a Redis that is away or late.
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
                "the clients that were limited most are no list",
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
    /// Decides one call of `client`, and counts it if all policies allow it. Never waits longer than the cache's `command_timeout`.
    pub async fn check(&self, client: &Identity) -> Decision {
        self.check_cost(client, 1).await
    }

    /// The same for a call that costs several units. One that costs none is allowed unless the client is blocked.
    pub async fn check_cost(&self, client: &Identity, cost: u32) -> Decision {
        self.decide(client, cost, How::Take).await
    }

    /// What `check` would say now; counts nothing.
    pub async fn peek(&self, client: &Identity) -> Decision {
        self.decide(client, 1, How::Peek).await
    }

    /// Gives back what an allowed call used, once it turns out not to count, and sets `decision.charged` to 0: a second refund of the same
    /// decision does nothing, and neither does one of a rejection. Where many calls of one client may be under way at the same time, take
    /// [`reserve`](Self::reserve) instead: there none is rejected because of calls that are refunded a moment later.
    ///
    /// The newest units are given back, whoever used them, so a window may hold as many more units as were refunded in the time that the
    /// refunded calls took. Strikes and blocks stay. If Redis does not answer, the units count until their window ends.
    pub async fn refund(&self, client: &Identity, decision: &mut Decision) {
        self.inner.refund(&self.policies, client, decision).await;
    }

    /// Counts a rejection for the statistics, under the template of the route that it was about, such as `/api/events/{id}`: a text
    /// from the program, never one from a request.
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
    /// Milliseconds that pass evenly, from about the time of day.
    fn now(&self) -> u64 {
        self.clock
            .driven()
            .unwrap_or_else(|| self.base.saturating_add(whole_millis(self.began.elapsed())))
    }

    /// Where Redis keeps a client's state. The braces put all of a client's policies into one slot.
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

    /// Sees to it that what was counted about rejected clients gets to Redis before long.
    fn flush_later(&self) {
        if self.cache.is_local() || self.is_flushing.swap(true, Ordering::Relaxed) {
            return;
        }
        let flush = Flush(Weak::clone(&self.this));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(FLUSH).await;
                let Some(inner) = flush.0.upgrade() else {
                    return;
                };
                drop(flush);
                for policy in 0..inner.policies.len() {
                    if let Err(error) = inner.flush(policy).await {
                        debug!(%error, "the clients that were limited most are kept for later");
                    }
                }
            });
        }
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

/// Says, when it is dropped, that nobody is about to flush: it may go with the runtime that it waits on.
struct Flush(Weak<Inner>);

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.is_flushing.store(false, Ordering::Relaxed);
        }
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
