//! Puts and evictions, around the body.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use super::call::CallContext;
use super::call_report::{CallMetrics, Spent};
use super::caller::{self, Source};
use super::captured::Captured;
use super::codec::NewEntry;
use super::removal::Eviction;
use super::{Evicted, Inner, log};
use crate::entry::{self, Entry, Stamp};
use crate::error::Error;
use crate::metrics::Event;
use crate::plan::EvictPlan;
use crate::store::Replaced;
use crate::target::Target;

/// A put whose body runs. Dropped before its end, it evicts its key.
struct Put<'a> {
    call: &'a CallContext<'a>,
    fence: Fence,
    captured: Captured,
    eviction: Eviction<'a>,
}

/// The state of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fence {
    /// Behind a fence of its own.
    Alone(Entry),
    /// Behind a fence with others: it may not store.
    Joined,
    /// Without one, because the key is switched off: it may not store either.
    None,
    /// Redis did not answer, or is unavailable.
    Unknown,
}

/// What a load or a put claimed: the entry that its result may replace.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claimed<'a> {
    /// This call placed it.
    Whole(&'a Entry),
    /// It is a stale value, or a lease that another call placed.
    Stamp(Stamp),
}

/// Whether the result of a put is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Yes,
    No,
    /// Redis did not answer.
    Unknown,
}

impl<'a> Put<'a> {
    /// Before the body: puts a fence where the entry is.
    async fn begin(call: &'a CallContext<'a>) -> Self {
        let (fence, captured) = tokio::join!(call.fence(), call.capture());
        let targets = vec![Target::Key(call.key.clone())];
        Self {
            fence,
            captured,
            eviction: Eviction::begin(call.inner, call.site, &call.metrics, targets),
            call,
        }
    }

    /// After the body: stores what it returned, or evicts the key if that is not stored.
    async fn end(self, entry: Option<NewEntry>) {
        let Self {
            call,
            fence,
            captured: _,
            eviction,
        } = self;
        let stored = match entry {
            Some(new) => call.store_put(&fence, &new).await,
            None if fence == Fence::Unknown => Stored::Unknown,
            None => Stored::No,
        };
        match stored {
            Stored::Yes => call.inner.invalidate_here(&eviction.disarm()),
            Stored::No => {
                let evicted = call.metrics.spend(Spent::Store, eviction.apply());
                evicted.await;
            }
            // Redis was waited for once already; the journal does the rest.
            Stored::Unknown => eviction.defer(),
        }
    }
}

impl CallContext<'_> {
    /// Puts a fence where the entry is.
    async fn fence(&self) -> Fence {
        if self.is_off {
            return Fence::None;
        }
        let ttl = self.inner.config.fence_ttl;
        let fence = entry::fence(self.key, self.now(), ttl);
        let fences = [(self.key.clone(), fence.as_bytes().to_vec())];
        let placed = self.ask("fence", |store| store.fence(&fences, ttl));
        match placed.await.as_deref() {
            Ok([1]) => Fence::Alone(fence),
            Ok(_) => Fence::Joined,
            Err(_) => Fence::Unknown,
        }
    }

    /// Stores the result of a put if its fence is still there, unchanged and the only one.
    async fn store_put(&self, fence: &Fence, new: &NewEntry) -> Stored {
        self.metrics.count(Event::Put);
        let (degraded, stored) = match fence {
            _ if self.is_scoped() => (Event::PutScoped, Stored::No),
            Fence::Alone(fence) => match self.put(fence, new).await {
                Ok(Replaced::Done) => {
                    self.metrics.count(Event::PutStored);
                    self.metrics
                        .stored(new.entry.stamp(), self.ttl_without_grace(new));
                    self.log_put(new);
                    return Stored::Yes;
                }
                Ok(Replaced::Other) => (Event::PutReplaced, Stored::No),
                Ok(Replaced::Gone) => (Event::PutGone, Stored::No),
                Err(_) => (Event::PutUnanswered, Stored::Unknown),
            },
            Fence::Joined => (Event::PutJoined, Stored::No),
            Fence::None => (Event::PutUnanswered, Stored::No),
            Fence::Unknown => (Event::PutUnanswered, Stored::Unknown),
        };
        self.metrics.count(degraded);
        stored
    }

    /// Stores the loaded value if what the load claimed is still there.
    pub(super) async fn fill(&self, claim: Claimed<'_>, new: &NewEntry) {
        let event = match self.replace("fill", claim, new).await {
            Ok(Replaced::Done) => Event::Fill,
            Ok(Replaced::Other | Replaced::Gone) => Event::FillRefused,
            Err(_) => Event::FillFailed,
        };
        self.metrics.count(event);
        if event == Event::Fill {
            self.remember(new);
        }
        self.log_fill(event, new);
    }

    /// Compares a loaded value to the one that was loaded before.
    fn remember(&self, new: &NewEntry) {
        let ttl = self.ttl_without_grace(new);
        self.metrics.stored(new.entry.stamp(), ttl);
        let value = entry::value_hash(new.entry.as_bytes());
        let reloads = &self.inner.reloads;
        if let Some(reload) = reloads.note(self.key.hash(), value, self.now(), ttl) {
            self.metrics.reloaded(reload);
        }
    }

    /// A server that does not know of a put would serve the value before it.
    async fn put(&self, fence: &Entry, new: &NewEntry) -> Result<Replaced, Error> {
        self.inner.note([Target::Key(self.key.clone())]);
        self.replace("put", Claimed::Whole(fence), new).await
    }

    async fn replace(
        &self,
        name: &'static str,
        claim: Claimed<'_>,
        new: &NewEntry,
    ) -> Result<Replaced, Error> {
        let (entry, life) = (new.entry.as_bytes(), new.expires_in);
        self.ask(name, |store| match claim {
            Claimed::Whole(claim) => store.fill(self.key, claim, entry, life),
            Claimed::Stamp(stamp) => store.replace(self.key, stamp, entry, life),
        })
        .await
    }
}

impl CallContext<'_> {
    /// Answers a call of a function with `#[cache_put]`.
    pub(super) async fn write(&self) -> Source {
        let mut put = Put::begin(self).await;
        let body = caller::run_body(None);
        self.metrics.spend(Spent::Loading, body).await;
        let captured = mem::take(&mut put.captured);
        let entry = self.encode(Duration::ZERO, captured).await;
        put.end(entry).await;
        Source::Body
    }
}

/// One call that evicts.
pub(super) struct EvictContext<'a> {
    inner: &'a Inner,
    plan: &'a EvictPlan,
    metrics: CallMetrics,
}

/// An eviction whose body runs. Dropped before its end, it evicts.
struct PendingEviction<'a> {
    eviction: Eviction<'a>,
    /// The keys that are behind a fence.
    fenced: Vec<Target>,
    /// Whether the eviction before the body is in the journal.
    is_journaled: bool,
    /// Whether Redis has answered to the fence, or was not asked for one.
    is_answered: bool,
}

impl<'a> EvictContext<'a> {
    pub(super) fn new(inner: &'a Inner, plan: &'a EvictPlan) -> Self {
        Self {
            metrics: CallMetrics::begin(
                inner.metrics.site(&plan.site.metrics),
                plan.site,
                Instant::now(),
                || log::shown(&plan.targets, inner.config.mask_keys).to_string(),
            ),
            inner,
            plan,
        }
    }

    /// Answers a call of a function with `#[cache_evict]`.
    pub(super) async fn evict(&self) -> Source {
        let evicting = self.begin().await;
        let body = caller::run_body(None);
        let named = match self.metrics.spend(Spent::Loading, body).await {
            true => Some(caller::named().await),
            false => None,
        };
        self.end(evicting, named).await;
        Source::Body
    }

    /// Before the body.
    async fn begin(&self) -> PendingEviction<'_> {
        let Self {
            inner,
            plan,
            metrics,
        } = self;
        let EvictPlan {
            site,
            targets,
            before,
            always: _,
            fence,
        } = *plan;
        let is_journaled = *before && self.invalidate(targets).await == Evicted::Journaled;
        let (fenced, is_answered) = match fence {
            // A call waits for Redis once.
            true if !is_journaled => {
                let placed = inner.fence(site, metrics, targets);
                metrics.spend(Spent::Store, placed).await
            }
            _ => (Vec::new(), true),
        };
        PendingEviction {
            eviction: Eviction::begin(inner, site, metrics, targets.clone()),
            fenced,
            is_journaled,
            is_answered,
        }
    }

    /// After the body: evicts, including the targets that the returned value names. The value is [`None`] if the body
    /// returned an `Err`.
    async fn end(&self, evicting: PendingEviction<'_>, named: Option<Vec<Target>>) {
        let PendingEviction {
            mut eviction,
            fenced,
            is_journaled,
            is_answered,
        } = evicting;
        match named {
            Some(targets) => eviction.also(targets),
            None if self.plan.always => {}
            None => {
                // In a scope another step may rely on the same fences, so they are left to expire.
                let is_scoped = eviction.is_scoped();
                eviction.disarm();
                // The values are gone already; now the fences only keep new ones out.
                match is_answered {
                    _ if fenced.is_empty() || is_scoped => {}
                    true => drop(self.invalidate(&fenced).await),
                    false => self.inner.invalidate_in_background(self.plan.site, &fenced),
                }
                return;
            }
        }
        self.metrics.count(Event::Evict);
        if !is_answered || (is_journaled && self.inner.journal.depth() > 0) {
            // The call has waited for Redis once.
            self.metrics.note(match eviction.is_scoped() {
                true => Event::EvictDeferred,
                false => Event::EvictJournaled,
            });
            eviction.defer();
        } else {
            let evicted = self.metrics.spend(Spent::Store, eviction.apply()).await;
            self.metrics.evicted(evicted);
        }
    }

    async fn invalidate(&self, targets: &[Target]) -> Evicted {
        let evicted = self
            .inner
            .invalidate(self.plan.site, &self.metrics, targets);
        let evicted = self.metrics.spend(Spent::Store, evicted).await;
        self.metrics.evicted(evicted);
        evicted
    }
}
