//! The transitions of a user's sessions: their arguments and results.

use super::place::{Place, Sid};
use super::seal::PINNED;

/// How far an assumed time may be behind, in milliseconds. Redis rejects a time that is further off, and returns its own
/// time.
pub(super) const CLOCK_TOLERANCE: u64 = 1_000;

/// When sessions end, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) ttl: u64,
    /// [`None`]: each use lets it end `ttl` after that use.
    pub(super) extend: Option<u64>,
    pub(super) absolute: u64,
    pub(super) touch_every: u64,
}

/// A session that begins.
pub(super) struct Begin<'a> {
    pub(super) place: Place,
    pub(super) ttl: u64,
    pub(super) most: usize,
    pub(super) created: u64,
    pub(super) absolute: u64,
    pub(super) replaced: Option<Sid>,
    pub(super) record: &'a [u8],
}

/// The outcome of a session creation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    Until {
        ends: u64,
        ended: u64,
    },
    /// The assumed time was wrong.
    WrongTime,
}

/// A session as it was before this use, and its end after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) now: u64,
    pub(super) ends: u64,
    pub(super) last: u64,
    pub(super) record: Vec<u8>,
}

/// What to store, and what it replaces.
pub(super) struct Change<'a> {
    pub(super) place: Place,
    /// The record's beginning that was loaded.
    pub(super) seen: [u8; PINNED],
    pub(super) pinned: [u8; PINNED],
    pub(super) sealed: &'a [u8],
    pub(super) renamed: Option<Sid>,
}

/// The length of the part of a record that shows whether it was stored since: version and revision.
pub(super) const SEEN: usize = 9;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Until(u64),
    Gone,
    Conflict,
}

/// Which sessions of a user are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Which {
    One(Sid),
    Others {
        except: Option<Sid>,
        /// Sessions that began later continue.
        began: Option<u64>,
    },
}

/// What must be at a place for a record to be stored there.
#[cfg(feature = "tower-sessions")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum If {
    Absent,
    Present,
}

/// One of a user's sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) sid: Sid,
    pub(super) ends: u64,
    pub(super) record: Vec<u8>,
}
