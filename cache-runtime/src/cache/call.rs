//! The context of one call: its site and key, the TTL of what it stores, and when it began.

use std::any::type_name;
use std::ops::Deref;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Inner;
use super::call_report::{CallMetrics, Spent};
use super::flight::{Observation, Observed};
use super::pending::{self, ScopeState};
use crate::doubt::Reading;
use crate::entry::{Layers, Origin};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::metrics::Warning;
use crate::plan::ReadPlan;
use crate::site::{Outcome, Site, Ttl};
use crate::store::guard::{On, Op};
use crate::store::{BoxFuture, Store};
use crate::tag::Tag;

/// One call about one key.
pub(super) struct CallContext<'a> {
    pub(super) inner: &'a Inner,
    pub(super) key: &'a Key,
    /// The tags over arguments.
    pub(super) tags: &'a [Tag],
    facts: Facts,
}

/// What one call knows besides its cache and its key.
pub(super) struct Facts {
    pub(super) site: &'static Site,
    pub(super) metrics: CallMetrics,
    pub(super) ttl: Duration,
    /// The TTL, if the attribute computes it with an expression.
    pub(super) asked_ttl: Option<Ttl>,
    pub(super) none_ttl: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) ttl_jitter: u8,
    pub(super) is_off: bool,
    /// Of the key and the tags over arguments, taken before the store is asked, if the value is to be kept in this process.
    pub(super) reading: Option<Reading>,
    pub(super) scope: ScopeState,
    pub(super) started: Instant,
    /// The type of what is stored.
    pub(super) of: ValueType,
}

impl Deref for CallContext<'_> {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

/// A type whose values are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueType {
    pub(super) name: &'static str,
    pub(super) number: u64,
    pub(super) layers: Layers,
}

impl ValueType {
    #[inline(always)]
    pub(super) fn of<T>(layers: Layers) -> Self {
        Self {
            name: type_name::<T>(),
            number: Self::number_of::<T>(),
            layers,
        }
    }

    /// A number of a type that is meaningful only in this build.
    #[inline(always)]
    pub(super) fn number_of<T>() -> u64 {
        Origin::number_of(typeid::of::<T>())
    }

    /// The type of which an annotated function stores values.
    #[inline(always)]
    pub(crate) fn of_outcome<O: Outcome>() -> Self {
        Self::of::<O::Value>(O::layers())
    }
}

impl<'a> CallContext<'a> {
    /// A call for the key of `plan`.
    pub(super) fn new(inner: &'a Inner, plan: &'a ReadPlan, of: ValueType) -> Self {
        let ReadPlan {
            site,
            key,
            ttl,
            tags,
        } = plan;
        let started = Instant::now();
        let metrics = CallMetrics::begin(inner.metrics.site(&site.metrics), site, started, || {
            key.shown(inner.config.mask_keys).to_string()
        });
        let policy = site.policy.and_then(|name| {
            let policy = inner.config.policy_of(name);
            // Installing a cache already warns about the policies that it lacks.
            if policy.is_none() && site.has_own_cache && metrics.warn_once(Warning::UnknownPolicy) {
                warn!(
                    site = site.name,
                    policy = name,
                    "the configuration has no such policy; the defaults apply"
                );
            }
            policy
        });
        let asked_ttl = *ttl;
        let ttl = asked_ttl
            .map(|ttl| ttl.as_duration())
            .or(site.ttl)
            .or(policy.and_then(|policy| policy.ttl));
        let facts = Facts {
            ttl: ttl.unwrap_or(inner.config.default_ttl),
            asked_ttl,
            none_ttl: site.none_ttl.or(policy.and_then(|policy| policy.none_ttl)),
            grace: site
                .grace
                .or(policy.and_then(|policy| policy.grace))
                .unwrap_or_default(),
            ttl_jitter: site.ttl_jitter.unwrap_or(inner.config.ttl_jitter),
            is_off: inner.disabled.is_off(key),
            scope: pending::scope_state(inner, key, tags, site.tag_families),
            reading: site.local.and_then(|_| inner.reading_of(plan)),
            started,
            of,
            site,
            metrics,
        };
        Self {
            inner,
            key,
            tags,
            facts,
        }
    }

    /// The call for `plan` that knows `facts`.
    pub(super) fn again(inner: &'a Inner, plan: &'a ReadPlan, facts: Facts) -> Self {
        Self {
            inner,
            key: &plan.key,
            tags: &plan.tags,
            facts,
        }
    }

    pub(super) fn into_facts(self) -> Facts {
        self.facts
    }

    /// Returns whether a read must not use what the store holds: the key is disabled, or it is evicted here but not yet in
    /// the store.
    pub(super) fn is_hidden(&self) -> bool {
        self.scope == ScopeState::Evicted || self.inner.is_hidden(self.key) || self.is_blocked()
    }

    /// Returns whether this call is made inside a scope. Nothing that may never be committed is stored then.
    pub(super) fn is_scoped(&self) -> bool {
        self.scope != ScopeState::Outside
    }

    /// Refuses to store a value that may never be committed.
    pub(super) fn check_unscoped(&self) -> Result<(), Error> {
        match self.is_scoped() {
            true => Err(Error::new(
                ErrorKind::Refused,
                "cannot store inside a `CacheScope`; store after the commit",
            )),
            false => Ok(()),
        }
    }

    /// Refuses to store a value that no caller may read.
    pub(super) fn check_switched_on(&self) -> Result<(), Error> {
        match self.is_off {
            true => Err(Error::new(
                ErrorKind::Refused,
                "the key is disabled; nothing is stored until it is enabled",
            )),
            false => Ok(()),
        }
    }

    /// Returns when this call began, and what it observed.
    pub(super) fn observation(&self, observed: Observed) -> Observation {
        Observation {
            since: self.started,
            observed,
        }
    }

    pub(super) async fn ask<'b, T>(
        &'b self,
        name: &'static str,
        operation: impl FnOnce(&'b dyn Store) -> BoxFuture<'b, Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = self.inner.run(self.op(name, Instant::now()), operation);
        self.metrics.spend(Spent::Store, answer).await
    }

    pub(super) fn op(&self, name: &'static str, began: Instant) -> Op<'_> {
        Op::since(began, name, self.site, &self.metrics, On::Key(self.key))
    }

    /// The program and the type that write and read here.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            build: self.inner.build.id(),
            of_type: self.of.number,
            version: self.site.version,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.inner.config.clock.now_millis()
    }
}
