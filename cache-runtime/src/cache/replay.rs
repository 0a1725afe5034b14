//! Evictions and revocations that are applied again when another server replaces the one that acknowledged them.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::info;

use super::recent::{Recent, Room};
use super::{Cache, Inner};
use crate::config::Config;
use crate::sync::Mutex;
use crate::target::Target;

/// What a higher layer keeps in order to apply it again.
pub(crate) trait Replay: Send + Sync {
    /// Owes again what the last server acknowledged. Returns how much that was.
    fn replay(&self) -> usize;
}

/// What the last server acknowledged, and the other parts that remember such acknowledgements.
pub(super) struct Replays {
    evictions: Recent<Target>,
    others: Mutex<Vec<Weak<dyn Replay>>>,
    /// The server for which everything was applied again.
    term: AtomicU64,
}

impl Replays {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            evictions: Recent::new(config.failover_memory, config.journal_capacity),
            others: Mutex::default(),
            term: AtomicU64::new(0),
        }
    }
}

impl Inner {
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
        self.local.doubts.lost_track();
        let evictions = self.replays.evictions.all();
        self.journal.add(&evictions);
        let others: Vec<_> = self.others().iter().filter_map(Weak::upgrade).collect();
        let sessions: usize = others.iter().map(|other| other.replay()).sum();
        let evictions = evictions.len();
        info!(
            evictions,
            sessions,
            "Redis is a different server: recent evictions and ended sessions are applied again"
        );
        term
    }

    fn others(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Replay>>> {
        self.replays.others.lock()
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
