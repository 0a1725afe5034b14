//! Counts of what happened to sessions. They never name a user or a session.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::event::counted;

/// What sessions did, in this process since the start.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::session::{NewSession, SessionStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::memory();
/// let store = SessionStore::new(&cache)?;
/// store.create(NewSession::new(42, "ada")).await?;
/// assert!(store.verify("forged").is_err());
///
/// let sessions = cache.stats().sessions;
/// assert_eq!((sessions.created, sessions.refused_tokens), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionStats {
    /// Sessions that began.
    pub created: u64,
    /// Reads that found a session, and extended it.
    pub loaded: u64,
    /// Reads of sessions that have ended.
    pub not_found: u64,
    /// Tokens that were refused without asking Redis: malformed, forged, or under a key that is not configured.
    pub refused_tokens: u64,
    /// Stored sessions that were changed without the key, or do not fit the type of the extension.
    pub tampered: u64,
    /// Changes that were stored.
    pub saved: u64,
    /// Changes that were refused because another request stored one first, or because the session had ended.
    pub save_refused: u64,
    /// Sessions that got a new token.
    pub rotated: u64,
    /// Sessions that were ended by request.
    pub destroyed: u64,
    /// Sessions that made room for a newer one of the same user.
    pub displaced: u64,
    /// Requests that failed because Redis was unavailable or too slow.
    pub unavailable: u64,
}

counted! {
    /// What is counted.
    SessionEvent:
    Created,
    Loaded,
    NotFound,
    RefusedToken,
    Tampered,
    Saved,
    SaveRefused,
    Rotated,
    Destroyed,
    Displaced,
    Unavailable,
}

/// The numbers of all stores of sessions on one cache.
#[derive(Debug, Default)]
pub(crate) struct SessionMetrics {
    counters: [AtomicU64; SessionEvent::COUNT],
}

impl SessionMetrics {
    pub(crate) fn count(&self, event: SessionEvent) {
        self.add(event, 1);
    }

    pub(crate) fn add(&self, event: SessionEvent, count: u64) {
        self.counters[event as usize].fetch_add(count, Relaxed);
    }

    pub(super) fn stats(&self) -> SessionStats {
        let count = |event: SessionEvent| self.counters[event as usize].load(Relaxed);
        SessionStats {
            created: count(SessionEvent::Created),
            loaded: count(SessionEvent::Loaded),
            not_found: count(SessionEvent::NotFound),
            refused_tokens: count(SessionEvent::RefusedToken),
            tampered: count(SessionEvent::Tampered),
            saved: count(SessionEvent::Saved),
            save_refused: count(SessionEvent::SaveRefused),
            rotated: count(SessionEvent::Rotated),
            destroyed: count(SessionEvent::Destroyed),
            displaced: count(SessionEvent::Displaced),
            unavailable: count(SessionEvent::Unavailable),
        }
    }
}
