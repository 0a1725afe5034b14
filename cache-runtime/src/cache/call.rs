//! One call's dealings with its one key: the steps that `cache.rs` puts in order.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::flight::{Leader, Saw, Sight};
use super::lease::{Claim, Hold};
use super::loading::{self, Load};
use super::refresh::Stale;
use super::scope::{self, Standing};
use super::stored::{Answer, Fresh, Obstacle};
use super::{Cache, Inner, boxed, keeper};
use crate::entry::{self, Stamp, Unreadable};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::metrics::{Event, SiteRef, Timer, Warning};
use crate::plan::Plan;
use crate::site::{CacheValue, Outcome, Rules, Site, Ttl};
use crate::store::guard::{On, Op};
use crate::store::{BoxFuture, Replaced, Store};
use crate::target::Target;

/// What one call knows: where it goes, how long what it stores shall live, and when it began.
pub(super) struct Visit<'a> {
    pub(super) inner: &'a Inner,
    pub(super) site: &'static Site,
    pub(super) metrics: SiteRef,
    pub(super) key: &'a Key,
    pub(super) ttl: Duration,
    pub(super) none_ttl: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) ttl_jitter: u8,
    pub(super) is_off: bool,
    pub(super) standing: Standing,
    pub(super) started: Instant,
}

/// What a look into the store found.
pub(super) enum Look<T> {
    Found(T),
    /// A value within its grace. It is counted when it is served, or when a caller refreshes it.
    Stale(Stale<T>),
    /// No value, what was there instead, and the error that kept the store from answering.
    Nothing(Right, Saw, Option<Error>),
}

/// What a caller that found nothing may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Load for everybody, and store the result under a lease.
    Fill,
    /// Load for those in this process who wait.
    Load,
    /// Run the body and nothing else: this call has waited for Redis once, is switched off, or is inside a scope.
    Alone,
}

/// How a put stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    /// Behind a fence of its own.
    Alone(Stamp),
    /// Behind a fence with others: it may not store.
    Joined,
    /// Without one, because the key is switched off: it may not store either.
    None,
    /// Redis did not say, or is away.
    Unknown,
}

impl<'a> Visit<'a> {
    /// A visit of `cache` to the key of `plan`; [`None`] where either is missing.
    pub(super) fn of(cache: Option<&'a Cache>, plan: &'a Plan) -> Option<Self> {
        Self::new(&cache?.inner, plan)
    }

    /// A visit to the key of `plan`; [`None`] where it has none.
    pub(super) fn new(inner: &'a Inner, plan: &'a Plan) -> Option<Self> {
        let key = plan.key.as_ref()?;
        let site = plan.site;
        let metrics = inner.metrics.site(site);
        let policy = site.policy.and_then(|name| {
            let policy = inner.config.policy_of(name);
            // What the installed cache lacks was said when it was installed.
            if policy.is_none() && site.has_own_cache && metrics.warn_once(Warning::UnknownPolicy) {
                warn!(
                    site = site.name,
                    policy = name,
                    "the configuration has no such policy; the defaults apply"
                );
            }
            policy
        });
        let ttl = plan
            .ttl
            .map(|ttl| ttl.as_duration())
            .or(site.ttl)
            .or(policy.and_then(|policy| policy.ttl));
        Some(Self {
            ttl: ttl.unwrap_or(inner.config.default_ttl),
            none_ttl: site.none_ttl.or(policy.and_then(|policy| policy.none_ttl)),
            grace: site
                .grace
                .or(policy.and_then(|policy| policy.grace))
                .unwrap_or_default(),
            ttl_jitter: site.ttl_jitter.unwrap_or(inner.config.ttl_jitter),
            is_off: inner.switches.is_off(key),
            standing: scope::standing(inner, key),
            started: Instant::now(),
            inner,
            site,
            metrics,
            key,
        })
    }

    /// Asks the store for the value. Every look counts as one hit or one miss, a stale value's in the end.
    pub(super) async fn look<O: Outcome>(&self) -> Look<O::Output>
    where
        O::Value: CacheValue,
    {
        // The clock was read just now: a hit reads it as rarely as it can.
        let began = match keeper::drive(self.inner).await {
            true => Instant::now(),
            false => self.started,
        };
        if let Some(closed) = self.closed() {
            return closed;
        }
        let answer = boxed(|| self.fetch(began)).await;
        self.judge::<O>(answer)
    }

    async fn fetch(&self, began: Instant) -> Result<Option<Vec<u8>>, Error> {
        let expected = self.metrics.expected_bytes();
        let op = self.op_since(began, "get");
        self.inner
            .run(op, |store| store.get(self.key, expected))
            .await
    }

    /// Why the store is not even asked, if that is so.
    pub(super) fn closed<T>(&self) -> Option<Look<T>> {
        let (event, right, saw, failure) = if self.is_off {
            (Event::MissDisabled, Right::Alone, Saw::Nothing, None)
        } else if self.standing == Standing::Evicted {
            (Event::MissScoped, Right::Alone, Saw::Nothing, None)
        } else if !self.inner.guard.is_connected() {
            keeper::ensure(self.inner);
            let away = Some(Error::away());
            (Event::MissFallback, Right::Load, Saw::Unknown, away)
        } else if self.inner.journal.blocks(self.key) {
            (Event::MissJournaled, Right::Load, Saw::Nothing, None)
        } else {
            return None;
        };
        self.metrics.count_at(event, self.started.into_std());
        self.log_miss(event);
        Some(self.nothing(right, saw, failure))
    }

    /// Whether a read of the key would not be told what the store has: it is switched off, or evicted here and not yet there.
    pub(super) fn is_hidden(&self) -> bool {
        self.standing == Standing::Evicted || self.inner.is_hidden(self.key)
    }

    /// What the store's answer means.
    pub(super) fn judge<O: Outcome>(
        &self,
        answer: Result<Option<Vec<u8>>, Error>,
    ) -> Look<O::Output>
    where
        O::Value: CacheValue,
    {
        let mut failure = None;
        let saw = match &answer {
            Ok(Some(bytes)) => entry::whole_stamp_of(bytes).map_or(Saw::Nothing, Saw::Entry),
            Ok(None) => Saw::Nothing,
            Err(_) => Saw::Unknown,
        };
        let (event, right) = match answer {
            Ok(Some(bytes)) => match self.output::<O>(&bytes) {
                Ok(Answer::Stale(stale)) => return Look::Stale(stale),
                Ok(Answer::Fresh(output, event)) => {
                    self.metrics.saw_bytes(bytes.len());
                    let now = Instant::now();
                    self.metrics.count_at(event, now.into_std());
                    self.log_hit(event, now - self.started);
                    self.metrics.time(Timer::Hit, now - self.started);
                    return Look::Found(output);
                }
                // Whoever asks for the lease sees whether the fence is a dead one.
                Err(Obstacle::Fence) => (Event::MissFenced, Right::Fill),
                Err(Obstacle::Lease) => (Event::MissLeased, Right::Fill),
                Err(Obstacle::Expired) => (Event::MissStale, Right::Fill),
                Err(Obstacle::Unreadable(reason)) => (
                    self.unreadable::<O::Value>(&reason, Some(&bytes)),
                    Right::Fill,
                ),
            },
            Ok(None) => (Event::MissAbsent, Right::Fill),
            Err(error) => {
                let kind = error.kind();
                failure = Some(error);
                match kind {
                    ErrorKind::Unavailable => (Event::MissFallback, Right::Load),
                    ErrorKind::Foreign => (
                        self.unreadable::<O::Value>(&Unreadable::Foreign, None),
                        Right::Fill,
                    ),
                    _ => (Event::MissFailed, Right::Alone),
                }
            }
        };
        self.metrics.count(event);
        self.log_miss(event);
        self.nothing(right, saw, failure)
    }

    /// Inside a scope a load may see what is not committed: it is for this caller alone.
    fn nothing<T>(&self, right: Right, saw: Saw, failure: Option<Error>) -> Look<T> {
        let right = if self.is_scoped() {
            Right::Alone
        } else {
            right
        };
        Look::Nothing(right, saw, failure)
    }

    /// When this call came, and what it saw.
    pub(super) fn sight(&self, saw: Saw) -> Sight {
        Sight {
            since: self.started,
            saw,
        }
    }

    /// Loads for everybody who waits, under a lease if there may be one.
    pub(super) async fn lead<O: Outcome>(
        &self,
        mut leader: Leader<'_>,
        (right, saw): (Right, Saw),
        rules: &Rules<impl Fn(&O::Returned) -> bool, impl Fn(&O::Value) -> Option<Ttl>>,
        body: Pin<&mut impl Future<Output = O::Output>>,
    ) -> O::Output
    where
        O::Value: CacheValue,
    {
        if let Some(output) = boxed(|| self.take_lease::<O>(&mut leader, right, saw)).await {
            return output;
        }
        let hold = leader.lease().map(Hold::Lease);
        let held = hold.map(|hold| -> BoxFuture<'_, ()> {
            let leader = &leader;
            boxed(|| async move {
                self.keep(hold).await;
                if leader.abandon() {
                    self.metrics.count(Event::LoadOverdue);
                }
            })
        });
        let (output, cost) = self.timed_load::<O>(held, body).await;

        let is_wanted = leader.lease().is_some() || leader.is_awaited();
        let fresh = is_wanted
            .then(|| self.fresh::<O>(&output, rules, cost))
            .flatten();
        boxed(|| self.finish(leader, fresh)).await;
        output
    }

    /// Asks for the lease, where there may be one. Answers what another process has loaded meanwhile, if it has.
    async fn take_lease<O: Outcome>(
        &self,
        leader: &mut Leader<'_>,
        right: Right,
        saw: Saw,
    ) -> Option<O::Output>
    where
        O::Value: CacheValue,
    {
        let mut standing = match saw {
            Saw::Entry(stamp) => Some(stamp),
            Saw::Nothing | Saw::Unknown => None,
        };
        if right == Right::Fill && leader.lease().is_none() {
            match self.claim::<O>(leader).await {
                Claim::Won(stamp) if leader.set_lease(stamp) => {}
                // Whoever leads now takes it over when it meets it.
                Claim::Won(stamp) => self.inner.orphans.add(stamp),
                Claim::Found {
                    output,
                    entry,
                    at,
                    before,
                } => {
                    leader.rest_on(at, before);
                    leader.land(entry.into());
                    return Some(output);
                }
                Claim::Refused(claim) => standing = claim,
            }
        }
        leader.rest_on(Instant::now(), leader.lease().or(standing));
        None
    }

    /// Gives what was loaded to those who wait, and stores it.
    async fn finish(&self, mut leader: Leader<'_>, fresh: Option<Fresh>) {
        let Some(fresh) = fresh else {
            if let Some(stamp) = leader.give_up() {
                // If it fails, the lease ends by itself.
                let _ = self
                    .ask("release", |store| store.delete_if(self.key, &stamp))
                    .await;
            }
            return;
        };
        leader.land(fresh.entry.as_bytes().into());
        match leader.lease() {
            // The store would refuse it, too, unless the lease is younger than the eviction.
            Some(stamp) if leader.is_doomed() => {
                self.metrics.count(Event::FillRefused);
                leader.release(stamp);
            }
            Some(stamp) => self.fill(stamp, &fresh).await,
            None => {}
        }
    }

    /// Runs the body for this call alone.
    pub(super) async fn load<O: Outcome>(
        &self,
        body: Pin<&mut impl Future<Output = O::Output>>,
    ) -> O::Output {
        self.timed_load::<O>(None, body).await.0
    }

    /// Runs the body, and what keeps its hold beside it until that ends. Answers how long the body took, too.
    pub(super) fn timed_load<'b, O: Outcome>(
        &'b self,
        held: Option<BoxFuture<'b, ()>>,
        body: Pin<&'b mut impl Future<Output = O::Output>>,
    ) -> impl Future<Output = (O::Output, Duration)> {
        Load::<O, _>::new(self.inner, self.key, &self.metrics, held, body)
    }

    /// What another caller's load in this process returned; [`None`] if it cannot be read as what this function returns.
    pub(super) fn landed<O: Outcome>(&self, entry: &[u8]) -> Option<O::Output>
    where
        O::Value: CacheValue,
    {
        let (Answer::Fresh(output, _) | Answer::Stale(Stale { output, .. })) =
            self.output::<O>(entry).ok()?;
        self.metrics.count(Event::LoadShared);
        Some(output)
    }

    /// Puts a fence where the entry is.
    pub(super) async fn fence(&self) -> Fence {
        if self.is_off {
            return Fence::None;
        }
        let fence = entry::fence(self.key, self.now(), self.inner.config.fence_ttl);
        let stamp = fence.stamp();
        let fences = [(self.key.clone(), fence.into_bytes())];
        let life = self.inner.config.fence_ttl;
        let placed = self.ask("fence", |store| store.fence(&fences, life));
        match placed.await.as_deref() {
            Ok([1]) => Fence::Alone(stamp),
            Ok(_) => Fence::Joined,
            Err(_) => Fence::Unknown,
        }
    }

    /// Stores the result of a put, if its fence still stands, alone and unchanged. Answers whether it is stored, [`None`] where
    /// Redis did not say.
    pub(super) async fn store_put(&self, fence: Fence, fresh: &Fresh) -> Option<bool> {
        self.metrics.count(Event::Put);
        let (degraded, stored) = match fence {
            _ if self.is_scoped() => (Event::PutScoped, Some(false)),
            Fence::Alone(stamp) => match self.put(stamp, fresh).await {
                Ok(Replaced::Done) => {
                    self.log_put(fresh);
                    return Some(true);
                }
                Ok(Replaced::Other) => (Event::PutReplaced, Some(false)),
                Ok(Replaced::Gone) => (Event::PutGone, Some(false)),
                Err(_) => (Event::PutUnanswered, None),
            },
            Fence::Joined => (Event::PutJoined, Some(false)),
            Fence::None => (Event::PutUnanswered, Some(false)),
            Fence::Unknown => (Event::PutUnanswered, None),
        };
        self.metrics.count(degraded);
        stored
    }

    /// Whether this call is made inside a scope: then nothing is stored that may never be committed.
    pub(super) fn is_scoped(&self) -> bool {
        self.standing != Standing::Outside
    }

    /// Refuses to store what may never be committed.
    pub(super) fn check_unscoped(&self) -> Result<(), Error> {
        match self.is_scoped() {
            true => Err(Error::new(
                ErrorKind::Refused,
                "inside a `CacheScope` nothing is stored; set it after the commit",
            )),
            false => Ok(()),
        }
    }

    /// Whether this very task is in the middle of loading this key: it must not wait for itself.
    pub(super) fn is_loading_already(&self) -> bool {
        loading::is_under_way(self.inner, self.key)
    }

    /// Stores what was loaded, if the lease still stands.
    pub(super) async fn fill(&self, lease: Stamp, fresh: &Fresh) {
        let event = match self.replace("fill", lease, fresh).await {
            Ok(Replaced::Done) => Event::Fill,
            Ok(Replaced::Other | Replaced::Gone) => Event::FillRefused,
            Err(_) => Event::FillFailed,
        };
        self.metrics.count(event);
        self.log_fill(event, fresh);
    }

    /// A server that does not know of a put would serve the value before it.
    async fn put(&self, fence: Stamp, fresh: &Fresh) -> Result<Replaced, Error> {
        self.inner.note([Target::Key(self.key.clone())]);
        self.replace("put", fence, fresh).await
    }

    async fn replace(
        &self,
        name: &'static str,
        stamp: Stamp,
        fresh: &Fresh,
    ) -> Result<Replaced, Error> {
        self.ask(name, |store| {
            store.replace(self.key, stamp, fresh.entry.as_bytes(), fresh.life)
        })
        .await
    }

    pub(super) async fn ask<'b, T>(
        &'b self,
        name: &'static str,
        operation: impl FnOnce(&'b dyn Store) -> BoxFuture<'b, Result<T, Error>>,
    ) -> Result<T, Error> {
        self.inner.run(self.op(name), operation).await
    }

    fn op(&self, name: &'static str) -> Op<'_> {
        self.op_since(Instant::now(), name)
    }

    fn op_since(&self, began: Instant, name: &'static str) -> Op<'_> {
        Op::since(began, name, self.site, &self.metrics, On::Key(self.key))
    }

    pub(super) fn now(&self) -> u64 {
        self.inner.config.clock.now_millis()
    }
}
