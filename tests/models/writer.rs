//! The steps of a call of a `#[cache_evict]` or `#[cache_put]` function in its own process.
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
    /// The fence of a put is no longer there.
    Overtaken(Version),
    /// Has returned, or does not exist.
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fence {
    /// A fence of this call alone.
    Alone,
    /// A fence that is shared with other calls.
    Shared,
    None,
}

/// The kind of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) does: Does,
    /// The process may die at any moment.
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

/// When a put stores the value that its body returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// If its fence was alone when it was placed and is still there.
    AloneAndUnchanged,
    /// Variant: if its fence is still there, alone or not.
    Unchanged,
    /// Twin: if its fence was alone when it was placed.
    Alone,
    /// Twin: always, without a fence.
    Blind,
    /// Twin: if its fence is still there. Otherwise it does not evict either.
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
    /// Adds every step that this call can take: its name, the call after it, and the row after it.
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

/// The result of the step after the body.
enum Settled {
    Stored,
    Refused,
    /// There is nothing to store, and the entry must be removed.
    ByEviction,
    /// Twin: does nothing.
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
