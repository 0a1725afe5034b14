//! A read that is not a hit: which caller loads, and for which callers.

use tokio::time::Instant;

use super::boxed;
use super::call::CallContext;
use super::call_report::{Lease, Spent};
use super::caller::{self, Source};
use super::chain::Chain;
use super::codec::{Decoded, NewEntry};
use super::flight::{Arrival, Leader, Observed, Relieved, Turn};
use super::lease::{Claim, Hold, LeaseRequest};
use super::lookup::{LoadMode, Lookup, Miss};
use super::refresh::Refreshed;
use super::write::Claimed;
use crate::entry::{Entry, Stamp};
use crate::metrics::Event;
use crate::store::BoxFuture;
use crate::store::guard::in_runtime;

/// Which caller refreshes a stale value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// A caller, within its own call.
    Caller,
    /// A task, if the function allows it.
    Background,
}

/// Which process loads.
enum Taken {
    /// This one.
    Here {
        /// The lease, if this call placed it.
        lease: Option<Entry>,
        /// The claim of another caller, which may still be in the store.
        standing: Option<Stamp>,
    },
    /// Another process has loaded the value, which the caller has.
    Elsewhere,
}

impl CallContext<'_> {
    /// Answers a call of a function with `#[cacheable]` after its lookup.
    pub(super) async fn read(&self, found: Lookup, refresh: Refresh) -> Source {
        let mut miss = match found {
            Lookup::Hit => return Source::Entry,
            Lookup::Miss(miss) => miss,
            Lookup::Stale(stamp)
                if refresh == Refresh::Background && self.refresh_in_background(stamp).await =>
            {
                return Source::Entry;
            }
            Lookup::Stale(stamp) => match self.who_refreshes(stamp).await {
                Refreshed::Here(attempt) => return self.refresh(attempt).await,
                Refreshed::Elsewhere => {
                    self.serve_stale();
                    return Source::Entry;
                }
                Refreshed::Gone => self.miss(LoadMode::Store, Observed::Nothing, None),
            },
        };
        if miss.mode == LoadMode::Solo || Chain::is_loading(self.inner, self.key) || !in_runtime() {
            return self.load_alone().await;
        }
        let observed = self.observed(&mut miss).await;
        let tags = self.tag_hashes();
        let leader = match self
            .inner
            .flights
            .join(self.key, &tags, self.observation(observed))
        {
            Turn::Lead(leader) => leader,
            Turn::Wait(waiter) => {
                match self.metrics.spend(Spent::Waiting, waiter.arrival()).await {
                    Arrival::Lead(leader) => leader,
                    Arrival::Landed(entry) => match self.decode_later(entry.to_vec()).await.0 {
                        Decoded::Fresh(..) | Decoded::Stale(_) => {
                            self.metrics.count(Event::LoadShared);
                            return Source::Entry;
                        }
                        _ => return self.load_alone().await,
                    },
                    Arrival::Alone => return self.load_alone().await,
                }
            }
        };
        match leader.relieves() {
            Some(Relieved::Overdue) => self.metrics.count(Event::LoadOverdue),
            Some(Relieved::Stuck) => self.metrics.count(Event::LoadStuck),
            None => {}
        }
        caller::watch(leader.pulse()).await;
        self.lead(leader, miss).await
    }

    /// Runs the body for this call alone.
    async fn load_alone(&self) -> Source {
        self.load(None).await;
        Source::Body
    }

    /// Loads for all waiters, under a lease if possible.
    async fn lead(&self, mut leader: Leader<'_>, miss: Miss) -> Source {
        let may_store = miss.mode == LoadMode::Store || leader.lease().is_some();
        let capture = self.capture_if(may_store);
        let (taken, captured) = tokio::join!(self.take_lease(&mut leader, &miss), capture);
        let Taken::Here {
            lease: placed,
            standing,
        } = taken
        else {
            return Source::Entry;
        };
        let claim = leader.lease().or(standing);
        leader.set_snapshot(Instant::now(), captured.mixed(claim));
        let hold = leader.lease().map(|lease| -> BoxFuture<'_, ()> {
            let leader = &leader;
            boxed(|| async move {
                self.keep(Hold::Lease(lease)).await;
                if leader.abandon() {
                    self.metrics.count(Event::LoadOverdue);
                }
            })
        });
        let (_, cost) = self.load(hold).await;
        let is_awaited = leader.is_awaited();
        let is_wanted = leader.lease().is_some() || is_awaited;
        let entry = match is_wanted {
            true => self.encode_for(cost, is_awaited, captured).await,
            false => None,
        };
        self.finish(leader, placed.as_ref(), entry).await;
        Source::Body
    }

    /// Asks for the lease if possible, and waits while another process loads.
    async fn take_lease(&self, leader: &mut Leader<'_>, miss: &Miss) -> Taken {
        let mut standing = match miss.observed {
            Observed::Entry(stamp) => Some(stamp),
            Observed::Nothing | Observed::Unknown => None,
        };
        let mut lease = None;
        if miss.mode == LoadMode::Store && leader.lease().is_none() {
            let mut request = LeaseRequest::new(self);
            if let (Observed::Entry(stamp), true) = (miss.observed, miss.is_outdated) {
                request.replaces(stamp);
            }
            leader.asks_for(request.stamp());
            standing = loop {
                match request.ask(leader).await {
                    Claim::Won(stamp) if leader.set_lease(stamp) => {
                        self.metrics.set_lease(Lease::Won);
                        break standing;
                    }
                    Claim::Won(stamp) => {
                        // The current leader takes it over when it reaches it.
                        self.inner.orphans.add(stamp);
                        break standing;
                    }
                    Claim::Refused(claim) => {
                        self.metrics.set_lease(Lease::Refused);
                        break claim;
                    }
                    Claim::Found { entry, .. }
                        if !self.is_current(&entry).await.unwrap_or(false) =>
                    {
                        if !request.outdates(&entry).await {
                            break None;
                        }
                    }
                    Claim::Found { entry, at, before } => {
                        let (decoded, entry) = self.decode_later(entry).await;
                        match decoded {
                            Decoded::Fresh(..) | Decoded::Stale(_) => {
                                self.metrics.count(Event::LoadAwaited);
                                self.metrics.set_lease(Lease::Awaited);
                                leader.set_snapshot(at, before);
                                leader.land(entry.into());
                                return Taken::Elsewhere;
                            }
                            _ if request.discard(&entry).await => {}
                            _ => break None,
                        }
                    }
                }
            };
            lease = leader.lease().and_then(|stamp| request.placed(stamp));
        }
        Taken::Here { lease, standing }
    }

    /// Gives the loaded value to the waiters, and stores it in place of the lease, which is `placed` if this call placed it.
    async fn finish(
        &self,
        mut leader: Leader<'_>,
        placed: Option<&Entry>,
        entry: Option<NewEntry>,
    ) {
        let Some(new) = entry else {
            if let Some(stamp) = leader.give_up() {
                self.let_go(Hold::Lease(stamp)).await;
            }
            return;
        };
        leader.land(new.entry.as_bytes().into());
        match leader.lease() {
            // The store would also refuse it, unless the lease is newer than the eviction.
            Some(stamp) if leader.is_invalidated() => {
                self.metrics.count(Event::FillRefused);
                leader.release(stamp);
            }
            Some(stamp) if !new.is_stored => self.let_go(Hold::Lease(stamp)).await,
            Some(stamp) => {
                let claim = placed.map_or(Claimed::Stamp(stamp), Claimed::Whole);
                self.fill(claim, &new).await;
            }
            None => {}
        }
    }
}
