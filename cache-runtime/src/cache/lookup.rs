//! What the store holds for a key.

use std::sync::Arc;

use tokio::time::Instant;

use super::call::CallContext;
use super::call_report::Spent;
use super::caller::Caller;
use super::codec::Decoded;
use super::flight::Observed;
use super::local::Kept;
use super::pending::ScopeState;
use super::{Backend, boxed, reconnect};
use crate::doubt::Reading;
use crate::entry::{self, Stamp, Unreadable};
use crate::error::{Error, ErrorKind};
use crate::metrics::{Event, Timer};
use crate::store::Found;

/// What a lookup found.
pub(super) enum Lookup {
    /// A value. It was counted, and the caller has it.
    Hit,
    /// A value within its grace, which the caller has. It is counted when it is served, or when a caller refreshes it.
    Stale(Stamp),
    Miss(Miss),
}

/// A lookup that found no value.
pub(super) struct Miss {
    pub(super) mode: LoadMode,
    /// What was there instead of a value.
    pub(super) observed: Observed,
    /// The stamps that the tags of the call had.
    pub(super) stamps: Vec<Option<Stamp>>,
    /// Whether the observed entry is a value that its tags make unusable.
    pub(super) is_outdated: bool,
    /// What kept the store from answering.
    pub(super) error: Option<Error>,
}

/// The callers that a load after a miss is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoadMode {
    /// For all callers: it stores the result under a lease.
    Store,
    /// For the callers in this process that wait.
    Share,
    /// For itself: its key is disabled, or it is inside a scope.
    Solo,
}

/// What the store answered, or why it was not asked.
pub(super) enum Answer {
    /// An entry or nothing, and the reading with which a value is kept in this process.
    Found(Found, Option<Reading>),
    /// An entry that its tags make unusable.
    Outdated(Found),
    Failed(Error),
    /// A value in this process, and the event that it is counted as.
    Kept(Arc<Kept>, Event),
    /// The miss was counted.
    Unasked(Miss),
}

impl CallContext<'_> {
    /// Asks the store for the entry.
    pub(super) async fn lookup(&self) -> Answer {
        // The clock was read just now. A hit reads it as rarely as possible.
        let began = match reconnect::drive(self.inner).await {
            true => Instant::now(),
            false => self.started,
        };
        if self.site.local.is_some()
            && let Some(answer) = boxed(|| self.look_locally()).await
        {
            return answer;
        }
        if let Some(miss) = self.closed() {
            return Answer::Unasked(miss);
        }
        let expected = self.metrics.expected_bytes();
        // They are different commands, of which Redis may refuse one.
        let op = match self.tags.is_empty() {
            true => self.op("get", began),
            false => self.op("get many", began),
        };
        let guard = &self.inner.guard;
        let answer = match &self.inner.backend {
            // It runs in the box of this path, without another allocation.
            Some(Backend::Redis(store)) => {
                let answer = guard.run(op, |_| store.lookup(self.key, self.tags, expected));
                answer.await
            }
            _ => {
                let answer = guard.run(op, |store| store.find(self.key, self.tags, expected));
                answer.await
            }
        };
        self.metrics.spent_since(Spent::Store, began);
        match answer {
            Ok(found) => self.check_found(found).await,
            Err(error) => {
                reconnect::see_to(self.inner);
                Answer::Failed(error)
            }
        }
    }

    /// Returns why the store must not be asked, if there is a reason.
    pub(super) fn closed(&self) -> Option<Miss> {
        let (event, mode, observed, error) = if self.is_off {
            (Event::MissDisabled, LoadMode::Solo, Observed::Nothing, None)
        } else if self.scope == ScopeState::Evicted {
            (Event::MissScoped, LoadMode::Solo, Observed::Nothing, None)
        } else if !self.inner.guard.is_connected() {
            reconnect::ensure(self.inner);
            let away = Some(Error::away());
            (
                Event::MissFallback,
                LoadMode::Share,
                Observed::Unknown,
                away,
            )
        } else if self.is_blocked() {
            (
                Event::MissJournaled,
                LoadMode::Share,
                Observed::Nothing,
                None,
            )
        } else {
            return None;
        };
        Some(self.unasked(event, mode, observed, error))
    }

    /// Counts a miss for which the store need not be asked.
    pub(super) fn unasked(
        &self,
        event: Event,
        mode: LoadMode,
        observed: Observed,
        error: Option<Error>,
    ) -> Miss {
        self.metrics.count_at(event, self.started.into_std());
        self.log_miss(event);
        self.miss(mode, observed, error)
    }

    /// Interprets the answer of the store, and leaves a value with the caller. Every lookup counts as one hit or one miss. A
    /// stale value is counted later.
    pub(super) fn judge(&self, answer: Answer, caller: &mut dyn Caller) -> Lookup {
        let (mut stamps, mut is_outdated) = (Vec::new(), false);
        let (event, mode, observed, error) = match answer {
            Answer::Outdated(found) => {
                is_outdated = true;
                stamps = found.stamps;
                let entry = found.entry.as_deref().unwrap_or_default();
                let observed =
                    entry::whole_stamp_of(entry).map_or(Observed::Nothing, Observed::Entry);
                (Event::MissTag, LoadMode::Store, observed, None)
            }
            Answer::Found(
                Found {
                    entry: Some(bytes),
                    stamps: of_tags,
                },
                reading,
            ) => {
                stamps = of_tags;
                let (decoded, bytes) = self.decode(bytes, caller);
                let event = match decoded {
                    Decoded::Fresh(event, meta) => {
                        self.hit(event, bytes.len());
                        if let Some(reading) = reading {
                            self.keep_locally(caller, &bytes, meta, reading);
                        }
                        return Lookup::Hit;
                    }
                    Decoded::Stale(stamp) => return Lookup::Stale(stamp),
                    // The caller that asks for the lease sees whether the fence is dead.
                    Decoded::Fence => Event::MissFenced,
                    Decoded::Lease => Event::MissLeased,
                    Decoded::Expired => Event::MissStale,
                    Decoded::Unreadable(reason) => self.unreadable(&reason, Some(&bytes)),
                };
                let observed =
                    entry::whole_stamp_of(&bytes).map_or(Observed::Nothing, Observed::Entry);
                (event, LoadMode::Store, observed, None)
            }
            Answer::Found(Found { entry: None, .. }, _) => {
                (Event::MissAbsent, LoadMode::Store, Observed::Nothing, None)
            }
            Answer::Failed(error) => {
                let (event, mode) = match error.kind() {
                    ErrorKind::Unavailable => (Event::MissFallback, LoadMode::Share),
                    ErrorKind::Foreign => {
                        let event = self.unreadable(&Unreadable::Foreign, None);
                        (event, LoadMode::Store)
                    }
                    _ => (Event::MissFailed, LoadMode::Share),
                };
                // Another process may have evicted the key while Redis did not answer this one.
                let observed = match error.kind() {
                    ErrorKind::Unavailable => Observed::Unknown,
                    _ => Observed::Nothing,
                };
                (event, mode, observed, Some(error))
            }
            Answer::Kept(kept, event) if self.take_kept(&kept, caller) => {
                self.hit_locally(event, &kept);
                return Lookup::Hit;
            }
            Answer::Kept(..) => (
                Event::MissOtherShape,
                LoadMode::Store,
                Observed::Nothing,
                None,
            ),
            Answer::Unasked(miss) => return Lookup::Miss(miss),
        };
        self.metrics.count(event);
        self.log_miss(event);
        Lookup::Miss(Miss {
            stamps,
            is_outdated,
            ..self.miss(mode, observed, error)
        })
    }

    fn hit(&self, event: Event, bytes: usize) {
        self.metrics.saw_bytes(bytes);
        let now = Instant::now();
        let took = now - self.started;
        self.metrics.count_at(event, now.into_std());
        self.log_hit(event, took);
        self.metrics.time(Timer::Hit, took);
        #[cfg(feature = "admin")]
        self.metrics.saw_hit(self.key.as_str());
    }

    /// Inside a scope a load may see uncommitted data, so it is for this caller only.
    pub(super) fn miss(&self, mode: LoadMode, observed: Observed, error: Option<Error>) -> Miss {
        let mode = match self.is_scoped() {
            true => LoadMode::Solo,
            false => mode,
        };
        Miss {
            mode,
            observed,
            stamps: Vec::new(),
            is_outdated: false,
            error,
        }
    }
}
