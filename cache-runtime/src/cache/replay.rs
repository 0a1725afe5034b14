//! Evictions and revocations that are applied again when another server replaces the one that acknowledged them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use tracing::{debug, info, warn};

use super::recent::{Recent, Room};
use super::{Cache, Inner};
use crate::config::Config;
use crate::store::Moves;
use crate::store::confirm::Confirmations;
use crate::store::reach::Reach;
use crate::sync::Mutex;
use crate::target::Target;

/// What a higher layer keeps in order to apply it again.
pub(crate) trait Replay: Send + Sync {
    /// Owes again what the last server of a part acknowledged. Returns how much that was.
    fn replay(&self, part: &Reach) -> usize;
}

/// What the last server acknowledged, and the other parts that remember such acknowledgements.
pub(super) struct Replays {
    evictions: Recent<Target>,
    confirmations: Option<Arc<Confirmations>>,
    /// Why the last eviction was not confirmed.
    unconfirmed: Mutex<Option<String>>,
    others: Mutex<Vec<Weak<dyn Replay>>>,
    /// The server for which everything was applied again.
    term: AtomicU64,
}

impl Replays {
    pub(super) fn new(config: &Config, confirmations: Option<Arc<Confirmations>>) -> Self {
        Self {
            confirmations,
            unconfirmed: Mutex::default(),
            evictions: Recent::new(config.failover_memory, config.journal_capacity),
            others: Mutex::default(),
            term: AtomicU64::new(0),
        }
    }
}

impl Replays {
    /// Returns why evictions are not confirmed, if they should be.
    pub(super) fn problem(&self) -> Option<String> {
        let reason = self.unconfirmed.lock().clone()?;
        let held = self.evictions.held();
        Some(format!(
            "evictions that replicas have not confirmed: {held}; {reason}"
        ))
    }

    fn hold(&self, targets: &[Target]) {
        if self.evictions.hold(targets.iter().cloned()) == Room::Exceeded {
            self.evictions.hold([Target::All]);
        }
    }
}

impl Inner {
    /// Waits until replicas have the removal of `targets`, which the server of `term` acknowledged. Until they do, `targets` are
    /// applied again on another server.
    pub(super) async fn confirm(&self, targets: &[Target], term: u64) {
        let replays = &self.replays;
        let Some(confirmations) = &replays.confirmations else {
            return;
        };
        // What is held later may be acknowledged later.
        let held = replays.evictions.holds();
        let outcome = confirmations.confirm(term).await;
        match &outcome {
            Ok(()) => replays.evictions.release(held),
            Err(_) => replays.hold(targets),
        }
        let before = std::mem::replace(&mut *replays.unconfirmed.lock(), outcome.err());
        let now = replays.unconfirmed.lock().clone();
        match (before, now) {
            (None, Some(reason)) => warn!(
                reason,
                "replicas do not confirm evictions; they are remembered, and applied again after a failover"
            ),
            (Some(_), None) => info!("replicas confirm evictions again"),
            _ => {}
        }
    }

    /// The same without the wait, for the background task.
    pub(super) fn hold_unconfirmed(&self, targets: &[Target]) {
        if self.replays.confirmations.is_some() {
            self.replays.hold(targets);
        }
    }

    /// Remembers that `targets` are about to be removed from Redis, or to be replaced there. Before that is sent: what is
    /// acknowledged must be remembered when another server appears.
    pub(super) fn note(&self, targets: impl IntoIterator<Item = Target>) {
        if self.guard.is_local() {
            return;
        }
        let confirmed = self.guard.store().confirmed();
        let evictions = &self.replays.evictions;
        if evictions.add(targets, confirmed) == Room::Exceeded {
            evictions.add([Target::All], confirmed);
        }
    }

    /// Owes again what an earlier server acknowledged, if Redis is a different server now. Returns the number of the server
    /// that callers may use once the journal is empty.
    pub(super) fn catch_up(&self) -> u64 {
        let term = self.guard.store().term();
        let known = self.replays.term.swap(term, Ordering::AcqRel);
        if known == term || known == 0 {
            return term;
        }
        if self.guard.is_divided() {
            // The nodes of a cluster are not replaced together: it tells what each of them may lack.
            return term;
        }
        self.local.doubts.lost_track();
        let evictions = self.replays.evictions.all();
        self.journal.add(&evictions);
        let sessions = self.replay_others(&Reach::Everything);
        let evictions = evictions.len();
        if evictions + sessions > 0 {
            info!(
                evictions,
                sessions,
                "Redis is a different server: recent evictions and ended sessions are applied again"
            );
        }
        term
    }

    fn replay_others(&self, part: &Reach) -> usize {
        let others: Vec<_> = self.others().iter().filter_map(Weak::upgrade).collect();
        others.iter().map(|other| other.replay(part)).sum()
    }

    fn others(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Replay>>> {
        self.replays.others.lock()
    }
}

impl Moves for Inner {
    /// If the keys came with the slots, the evictions find nothing. But a node that took slots by force, or that has keys of an earlier
    /// attempt to move them, may have what was evicted elsewhere.
    fn slots_moved(&self, part: &Reach) -> bool {
        let is_there = |target: &Target| match target {
            Target::Key(key) => part.contains(key),
            Target::Tag(tag) => part.contains(tag.key()),
            Target::Pattern(_) | Target::All => true,
        };
        let evictions = self.replays.evictions.all_where(is_there).into_iter();
        let evictions: Vec<_> = evictions.map(|target| (target, part.clone())).collect();
        self.journal.add_missed(&evictions);
        let (evictions, sessions) = (evictions.len(), self.replay_others(part));
        let is_owed = evictions + sessions > 0;
        if is_owed {
            debug!(
                evictions,
                sessions,
                "another node has some slots: recent evictions and ended sessions are applied again there"
            );
        }
        is_owed
    }
}

impl Cache {
    /// Notifies `replay` when Redis becomes a different server.
    #[cfg(feature = "sessions")]
    pub(crate) fn on_another_server(&self, replay: Weak<dyn Replay>) {
        let mut others = self.inner.others();
        others.retain(|other| other.strong_count() > 0);
        others.push(replay);
    }

    /// Until when it is known that Redis is the right server.
    #[cfg(feature = "sessions")]
    pub(crate) fn confirmed(&self) -> tokio::time::Instant {
        self.inner.guard.store().confirmed()
    }
}
