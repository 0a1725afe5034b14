//! A call of a `#[cache_evict]` or `#[cache_put]` function in a process of its own, step by step.
//!
//! ```text
//! evict                      body commits ──► DEL
//! evict with a fence  fence, body commits ──► DEL
//! put                 fence, body commits ──► replace, if the fence was alone and still stands; else DEL
//! ```

use crate::row::{Call, Entry, Row, Stamp, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Writer {
    Start,
    /// In the body.
    Writing(Fence),
    /// The body has committed.
    Written(Fence, Version),
    /// The fence of a put stood no longer.
    Overtaken(Version),
    /// Returned, or was never there.
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fence {
    /// Its own, for nobody but it.
    Alone,
    /// With others.
    Shared,
    None,
}

/// What the call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) does: Does,
    /// The process may end at any moment.
    pub(crate) may_die: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Evict,
    EvictBehindFence,
    Put(Put),
    /// Twin: evicts before the body and not after it.
    EvictTooEarly,
}

/// When a put stores what its body returned: as built, or as a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// Where its fence was alone when it was placed, and still stands.
    AloneAndUnchanged,
    /// Variant: where its fence still stands, alone or not.
    Unchanged,
    /// Twin: where its fence was alone when it was placed.
    Alone,
    /// Twin: always, without a fence.
    Blind,
    /// Twin: where its fence still stands; and whose fence does not, does not evict either.
    UnchangedOrNothing,
}

impl Task {
    pub(crate) const fn lives(does: Does) -> Self {
        Self {
            does,
            may_die: false,
        }
    }

    pub(crate) const fn may_die(does: Does) -> Self {
        Self {
            does,
            may_die: true,
        }
    }
}

impl Writer {
    /// Every step that this call can take: its name, the call after it, the row after it.
    pub(crate) fn steps(
        self,
        me: Call,
        task: Task,
        row: &Row,
        mut step: impl FnMut(&'static str, Self, Row),
    ) {
        let mut after = *row;
        match self {
            Self::Start => match task.does {
                Does::Evict | Does::Put(Put::Blind) => {
                    step("begins", Self::Writing(Fence::None), after);
                }
                Does::EvictTooEarly => {
                    after.delete();
                    step("evicts too early", Self::Writing(Fence::None), after);
                }
                Does::EvictBehindFence | Does::Put(_) => {
                    let (what, fence) = match after.fence(me) {
                        1 => ("fences alone", Fence::Alone),
                        _ => ("fences with others", Fence::Shared),
                    };
                    step(what, Self::Writing(fence), after);
                }
            },
            Self::Writing(fence) => {
                let version = after.commit();
                step("commits", Self::Written(fence, version), after);
            }
            Self::Written(fence, version) => match after.put(me, task.does, fence, version) {
                Settled::Stored => {
                    after.promise(version);
                    step("puts", Self::Done, after);
                }
                Settled::Not => {
                    after.promise(version);
                    step("leaves it", Self::Done, after);
                }
                Settled::Refused => step("is refused the put", Self::Overtaken(version), after),
                Settled::ByEviction => Self::evict(version, after, &mut step),
            },
            Self::Overtaken(version) => Self::evict(version, after, &mut step),
            Self::Done | Self::Dead => return,
        }
        if task.may_die && self != Self::Start {
            step("dies", Self::Dead, *row);
        }
    }

    fn evict(version: Version, mut row: Row, step: &mut impl FnMut(&'static str, Self, Row)) {
        row.delete();
        row.promise(version);
        step("evicts", Self::Done, row);
    }
}

/// What came of the step after the body.
enum Settled {
    Stored,
    Refused,
    /// There is nothing to store, and the entry has to go.
    ByEviction,
    /// Twin: nothing is done.
    Not,
}

impl Row {
    fn put(&mut self, me: Call, does: Does, fence: Fence, version: Version) -> Settled {
        let value = Entry::value(me, version);
        let put = match does {
            Does::Evict | Does::EvictBehindFence => return Settled::ByEviction,
            Does::EvictTooEarly => return Settled::Not,
            Does::Put(put) => put,
        };
        match (put, fence) {
            (Put::AloneAndUnchanged | Put::Alone, Fence::Shared | Fence::None) => {
                Settled::ByEviction
            }
            (Put::Alone, Fence::Alone) | (Put::Blind, _) => {
                self.entry = Some(value);
                Settled::Stored
            }
            (Put::AloneAndUnchanged | Put::Unchanged | Put::UnchangedOrNothing, _) => {
                if self.replace(Stamp::Fence(me), value) {
                    Settled::Stored
                } else if put == Put::UnchangedOrNothing {
                    Settled::Not
                } else {
                    Settled::Refused
                }
            }
        }
    }
}
