//! The steps of a call that evicts a tag, or puts a value with tags, in its own process.
//!
//! ```text
//! evict                                   body commits ──► DEL marker ──► DEL tag
//! evict with a fence  open marker, open stamp, body commits ──► DEL marker ──► DEL tag
//! put                 fence of the entry, capture tags, body commits ──► replace, if the fence was alone and still stands
//! ```

use super::reader::Rules;
use super::{RETURNED, Stamp, Stamps, State, TAGS};
use crate::row::{self, Call, Entry, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Writer {
    Start,
    /// Has placed a fence in the marker, or not, and places the fence of the tag.
    Fencing,
    /// A put whose fence of the entry was alone or not, and what it has captured.
    Capturing(bool, Stamps),
    /// In the body.
    Writing(bool, Stamps),
    /// The body has committed.
    Written(bool, Stamps, Version),
    /// Has done the first of the two steps of an eviction.
    Evicting(Version),
    /// The fence of a put is no longer there, or was not alone.
    Overtaken(Version),
    /// Has returned, or does not exist.
    Done,
    Dead,
}

/// The kind of the call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) does: Does,
    pub(crate) marks: Marks,
    pub(crate) fence_marker: FenceMarker,
    /// The process may die at any moment.
    pub(crate) may_die: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Evict { tag: usize },
    EvictBehindFence { tag: usize },
    Put,
}

/// When an eviction removes the marker of the family of its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    BeforeTheTag,
    /// Twin.
    AfterTheTag,
    /// Twin: an operator's `DEL` of the tag alone.
    Never,
}

/// What a fence does to the marker of the family of its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FenceMarker {
    /// It places an open stamp.
    Fenced,
    /// Twin: it places a stamp that outlives the fence.
    Replaced,
    /// Twin.
    Removed,
}

impl Task {
    pub(crate) const fn new(does: Does) -> Self {
        Self {
            does,
            marks: Marks::BeforeTheTag,
            fence_marker: FenceMarker::Fenced,
            may_die: false,
        }
    }
}

impl Writer {
    /// Adds every step that this call can take: its name, the call after it, and everything else after it.
    pub(super) fn steps(
        self,
        me: Call,
        task: Task,
        state: &State,
        rules: Rules,
        mut step: impl FnMut(&'static str, Self, State),
    ) {
        let mut after = *state;
        let none = [None; TAGS];
        match self {
            Self::Start => match task.does {
                Does::Evict { .. } => step("begins", Self::Writing(true, none), after),
                Does::EvictBehindFence { tag } if task.has_marker(tag, rules) => {
                    after.marker = match task.fence_marker {
                        FenceMarker::Fenced => Some(Stamp::fence(me)),
                        FenceMarker::Replaced => Some(Stamp::Again(me)),
                        FenceMarker::Removed => None,
                    };
                    step("fences the marker", Self::Fencing, after);
                }
                Does::EvictBehindFence { tag } => {
                    after.tags[tag] = Some(Stamp::fence(me));
                    step("fences the tag", Self::Writing(true, none), after);
                }
                Does::Put => {
                    let is_alone = after.row.fence(me) == 1;
                    step("fences the entry", Self::Capturing(is_alone, none), after);
                }
            },
            Self::Fencing => {
                after.tags[task.does.tag()] = Some(Stamp::fence(me));
                step("fences the tag", Self::Writing(true, none), after);
            }
            Self::Capturing(is_alone, mut stamps) => {
                let next = (0..TAGS).find(|tag| rules.are_early(*tag) && stamps[*tag].is_none());
                match next {
                    Some(tag) => {
                        stamps[tag] = Some(after.capture(tag, Stamp::By(me), rules));
                        step("captures a tag", Self::Capturing(is_alone, stamps), after);
                    }
                    None => step("begins", Self::Writing(is_alone, stamps), after),
                }
            }
            Self::Writing(is_alone, stamps) => {
                let version = after.row.commit();
                step("commits", Self::Written(is_alone, stamps, version), after);
            }
            Self::Written(is_alone, stamps, version) => match task.does {
                Does::Put => self.put(me, is_alone, stamps, version, after, rules, &mut step),
                Does::Evict { tag } | Does::EvictBehindFence { tag } => {
                    match (task.has_marker(tag, rules), task.marks) {
                        (false, _) => {
                            after.tags[tag] = None;
                            after.row.promise(version);
                            step("evicts the tag", Self::Done, after);
                        }
                        (true, Marks::AfterTheTag) => {
                            after.tags[tag] = None;
                            step("evicts the tag", Self::Evicting(version), after);
                        }
                        (true, _) => {
                            after.marker = None;
                            step("removes the marker", Self::Evicting(version), after);
                        }
                    }
                }
            },
            Self::Evicting(version) => {
                after.row.promise(version);
                if task.marks == Marks::AfterTheTag {
                    after.marker = None;
                    step("removes the marker", Self::Done, after);
                } else {
                    after.tags[task.does.tag()] = None;
                    step("evicts the tag", Self::Done, after);
                }
            }
            Self::Overtaken(version) => {
                after.row.delete();
                after.row.promise(version);
                step("evicts the entry", Self::Done, after);
            }
            Self::Done | Self::Dead => return,
        }
        if task.may_die && self != Self::Start {
            step("dies", Self::Dead, *state);
        }
    }

    /// Adds the step that stores what a put returned.
    #[expect(clippy::too_many_arguments, reason = "the parts of one state")]
    fn put(
        self,
        me: Call,
        is_alone: bool,
        mut stamps: Stamps,
        version: Version,
        mut after: State,
        rules: Rules,
        step: &mut impl FnMut(&'static str, Self, State),
    ) {
        if let Some(tag) = (0..TAGS).find(|tag| stamps[*tag].is_none()) {
            stamps[tag] = Some(after.capture(tag, Stamp::By(me), rules));
            step(
                "captures a tag late",
                Self::Written(is_alone, stamps, version),
                after,
            );
            return;
        }
        let is_fenced = stamps.iter().flatten().any(|stamp| stamp.is_open());
        let entry = Entry::value(me, version);
        if is_alone && !is_fenced && after.row.replace(row::Stamp::Fence(me), entry) {
            after.named = stamps;
            after.row.promise(version);
            step("puts", Self::Done, after);
        } else {
            step("is refused the put", Self::Overtaken(version), after);
        }
    }

    /// Returns whether its fence must still stand: fences outlive every body.
    pub(super) fn needs_its_fence(self) -> bool {
        matches!(self, Self::Fencing | Self::Writing(..))
    }
}

impl Task {
    /// Returns whether an eviction removes a marker: the tag is of a family over the return value.
    fn has_marker(self, tag: usize, rules: Rules) -> bool {
        rules.has_family && tag == RETURNED && self.marks != Marks::Never
    }
}

impl Does {
    fn tag(self) -> usize {
        match self {
            Self::Evict { tag } | Self::EvictBehindFence { tag } => tag,
            Self::Put => 0,
        }
    }
}

impl Stamp {
    fn fence(by: Call) -> Self {
        let is_prolonged = false;
        Self::Open { by, is_prolonged }
    }
}
