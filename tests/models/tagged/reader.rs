//! The steps of a call of a `#[cacheable]` function with tags, in its own process.
//!
//! ```text
//! start ──► the entry, and its tags ──each is as named──► returned, or refreshed if it is stale
//!                │                └───any is not───────► removed by its stamp
//!                └ nothing ──► lease ──► capture tags, marker ──► body ──► capture tags of the result, marker again ──► fill
//! ```

use super::{RETURNED, Stamp, Stamps, State, TAGS, value};
use crate::row::{self, Age, Call, Entry, Refresh, Row, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    Start,
    /// Has asked for the tags, and not yet for the entry.
    Tagged {
        since: Version,
        tags: Stamps,
        asked: usize,
    },
    /// Has the entry, and checks its tags.
    Checking {
        since: Version,
        seen: Seen,
        named: Stamps,
        checked: usize,
    },
    /// Found an entry whose tag was evicted.
    Outdated {
        since: Version,
        seen: Seen,
    },
    /// Found a value in grace, whose tags are as named.
    Aged {
        since: Version,
        seen: Seen,
    },
    Missed {
        since: Version,
    },
    /// Captures. The result replaces the entry with this stamp.
    Capturing(row::Stamp, Captured),
    Loading(row::Stamp, Captured),
    LoadingAlone,
    Loaded(row::Stamp, Captured, Version),
    /// Captures the tags of the result, and then reads the marker again.
    Tagging(row::Stamp, Captured, Version),
    /// May store.
    Filling(row::Stamp, Captured, Version),
    /// Must not store, and releases what it holds.
    Releasing(row::Stamp),
    /// Has returned, or does not exist.
    Done,
    /// Returned a value that is older than an eviction that was acknowledged before it began.
    Deceived,
}

/// The value of an entry that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    stamp: row::Stamp,
    version: Version,
    age: Age,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Captured {
    tags: Stamps,
    marker: Option<Stamp>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Whether the second tag is over the return value.
    pub(crate) has_family: bool,
    pub(crate) asks: Asks,
    pub(crate) captures: Captures,
    pub(crate) checks: Checks,
    pub(crate) stale: Stale,
    pub(crate) rereads: Rereads,
    /// Twin: a stamp is a number that begins again if the tag is lost.
    pub(crate) counts: bool,
    /// Twin: a load stores although it captured the fence of a writer.
    pub(crate) ignores_fences: bool,
    /// Twin: a capture raises the life of a tag also if it holds a fence.
    pub(crate) prolongs_fences: bool,
}

/// In which order a reader asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    EntryFirst,
    TagsFirst,
    /// Twin: the tags were asked for by an earlier call.
    TagsOfAnEarlierCall,
}

/// When a load captures the stamps of its tags: before the body, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Captures {
    First,
    /// Twin: the second tag after the body, without a marker.
    OneLate,
    /// Twin: both after the body.
    Late,
}

/// Which tags of an entry a reader checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checks {
    Every,
    /// Twin: only the tags over its own arguments.
    OnlyTheFirst,
    /// Twin: a tag without a key was never evicted.
    OnlyThoseThatExist,
}

/// Whether a reader checks the tags of a value in grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    Checked,
    /// Twin.
    Unchecked,
}

/// When a load with tags over the return value reads the marker again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rereads {
    AfterTheCapture,
    /// Twin.
    BeforeTheCapture,
    /// Twin.
    Never,
}

impl Rules {
    pub(crate) const AS_BUILT: Self = Self {
        has_family: false,
        asks: Asks::EntryFirst,
        captures: Captures::First,
        checks: Checks::Every,
        stale: Stale::Checked,
        rereads: Rereads::AfterTheCapture,
        counts: false,
        ignores_fences: false,
        prolongs_fences: false,
    };

    /// Returns whether a tag is captured before the body.
    pub(super) fn are_early(self, tag: usize) -> bool {
        match self.captures {
            Captures::First => tag != RETURNED || !self.has_family,
            Captures::OneLate => tag != RETURNED,
            Captures::Late => false,
        }
    }

    fn new_stamp(self, me: Call) -> Stamp {
        Stamp::By(if self.counts { super::NOBODY } else { me })
    }
}

impl Checks {
    pub(crate) fn accept(self, tag: usize, named: Option<Stamp>, there: Option<Stamp>) -> bool {
        match self {
            Self::Every => named == there,
            Self::OnlyTheFirst => tag != 0 || named == there,
            Self::OnlyThoseThatExist => there.is_none() || named == there,
        }
    }
}

impl Reader {
    /// Adds every step that this call can take: its name, the call after it, and everything else after it.
    pub(super) fn steps(
        self,
        me: Call,
        state: &State,
        rules: Rules,
        mut step: impl FnMut(&'static str, Self, State),
    ) {
        let mut after = *state;
        let promised = state.row.promised;
        match self {
            Self::Done | Self::Deceived => {}
            Self::Start => match rules.asks {
                Asks::EntryFirst => {
                    let (what, next) = Self::after_get(promised, &state.row, state.named);
                    step(what, next, after);
                }
                Asks::TagsFirst | Asks::TagsOfAnEarlierCall => {
                    let tags = [state.tags[0], None];
                    let next = Self::Tagged {
                        since: promised,
                        tags,
                        asked: 1,
                    };
                    step("asks for a tag", next, after);
                }
            },
            Self::Tagged {
                since,
                mut tags,
                asked,
            } if asked < TAGS => {
                tags[asked] = state.tags[asked];
                let asked = asked + 1;
                step("asks for a tag", Self::Tagged { since, tags, asked }, after);
            }
            Self::Tagged { since, tags, .. } => {
                let since = match rules.asks {
                    Asks::TagsOfAnEarlierCall => promised,
                    _ => since,
                };
                match Self::after_get(since, &state.row, state.named) {
                    (
                        _,
                        Self::Checking {
                            since, seen, named, ..
                        },
                    ) => {
                        let is_valid =
                            (0..TAGS).all(|tag| rules.checks.accept(tag, named[tag], tags[tag]));
                        let (what, next) = Self::after_check(since, seen, is_valid);
                        step(what, next, after);
                    }
                    (what, next) => step(what, next, after),
                }
            }
            Self::Checking {
                since,
                seen,
                named,
                checked,
            } => {
                let is_free = rules.stale == Stale::Unchecked && seen.age != Age::Fresh;
                let is_valid = is_free
                    || rules
                        .checks
                        .accept(checked, named[checked], state.tags[checked]);
                if is_valid && checked + 1 < TAGS {
                    let checked = checked + 1;
                    step(
                        "checks a tag",
                        Self::Checking {
                            since,
                            seen,
                            named,
                            checked,
                        },
                        after,
                    );
                } else {
                    let (what, next) = Self::after_check(since, seen, is_valid);
                    step(what, next, after);
                }
            }
            Self::Outdated { since, seen } => {
                let what = match after.row.delete_if(seen.stamp) {
                    true => "removes what its tag left",
                    false => "finds it replaced",
                };
                step(what, Self::Missed { since }, after);
            }
            Self::Aged { since, seen } => match after.row.refresh(seen.stamp) {
                Refresh::Granted => {
                    step(
                        "gets the refresh lease",
                        Self::Capturing(seen.stamp, Captured::default()),
                        after,
                    );
                }
                Refresh::Held => step("serves stale", Self::answer(since, seen.version), after),
                Refresh::Gone => step("finds the stale value gone", Self::Missed { since }, after),
            },
            Self::Missed { since } => match after.row.lease(me) {
                None => {
                    let hold = row::Stamp::Lease(me);
                    step(
                        "gets the lease",
                        Self::Capturing(hold, Captured::default()),
                        after,
                    );
                }
                Some(Entry::Value { .. }) => {
                    let (_, next) = Self::after_get(since, &state.row, state.named);
                    step("finds what was filled meanwhile", next, after);
                }
                // A second look is this same step.
                Some(Entry::Lease { .. } | Entry::Fence { .. }) => {
                    step("waits no longer for a lease", Self::LoadingAlone, after);
                }
            },
            Self::Capturing(hold, captured) => self.capture(me, hold, captured, after, rules, step),
            Self::LoadingAlone => step("loads for itself", Self::Done, after),
            Self::Loading(hold, captured) => {
                step(
                    "loads",
                    Self::Loaded(hold, captured, state.row.committed),
                    after,
                );
                // Or the process died.
                step("fails to load", Self::Done, after);
            }
            Self::Loaded(hold, captured, _)
                if captured.is_family_fenced() && !rules.ignores_fences =>
            {
                step("finds its family fenced", Self::Releasing(hold), after);
            }
            Self::Loaded(hold, captured, version)
                if rules.has_family && rules.rereads == Rereads::BeforeTheCapture =>
            {
                let tagging = Self::Tagging(hold, captured, version);
                let (what, next) = captured.after_reread(state, hold, tagging);
                step(what, next, after);
            }
            Self::Loaded(hold, mut captured, version)
            | Self::Tagging(hold, mut captured, version) => {
                let filling = Self::Filling(hold, captured, version);
                if let Some(tag) = (0..TAGS).find(|tag| captured.tags[*tag].is_none()) {
                    captured.tags[tag] = Some(after.capture(tag, rules.new_stamp(me), rules));
                    step(
                        "captures a tag late",
                        Self::Tagging(hold, captured, version),
                        after,
                    );
                } else if rules.has_family && rules.rereads == Rereads::AfterTheCapture {
                    let (what, next) = captured.after_reread(state, hold, filling);
                    step(what, next, after);
                } else {
                    step("has its tags", filling, after);
                }
            }
            Self::Filling(hold, captured, _) if captured.is_fenced() && !rules.ignores_fences => {
                step("finds a tag fenced", Self::Releasing(hold), after);
            }
            Self::Filling(hold, captured, version) => {
                let filled = after.row.replace(hold, Entry::value(me, version));
                if filled {
                    after.named = captured.tags;
                }
                step(
                    if filled {
                        "fills"
                    } else {
                        "is refused the fill"
                    },
                    Self::Done,
                    after,
                );
            }
            Self::Releasing(hold) => {
                after.row.delete_if(hold);
                step("releases its lease", Self::Done, after);
            }
        }
    }

    /// Adds the step that captures the marker or the next tag before the body.
    fn capture(
        self,
        me: Call,
        hold: row::Stamp,
        mut captured: Captured,
        mut after: State,
        rules: Rules,
        mut step: impl FnMut(&'static str, Self, State),
    ) {
        let next = (0..TAGS).find(|tag| rules.are_early(*tag) && captured.tags[*tag].is_none());
        if rules.has_family && captured.marker.is_none() {
            captured.marker = Some(after.capture_marker(Stamp::By(me), rules));
            step(
                "captures the marker",
                Self::Capturing(hold, captured),
                after,
            );
        } else if let Some(tag) = next {
            captured.tags[tag] = Some(after.capture(tag, rules.new_stamp(me), rules));
            step("captures a tag", Self::Capturing(hold, captured), after);
        } else {
            step("begins its body", Self::Loading(hold, captured), after);
        }
    }

    fn after_get(since: Version, row: &Row, named: Stamps) -> (&'static str, Self) {
        let Some(((version, age), entry)) = value(row.entry).zip(row.entry) else {
            return ("finds no value", Self::Missed { since });
        };
        let stamp = entry.stamp();
        let seen = Seen {
            stamp,
            version,
            age,
        };
        (
            "finds a value",
            Self::Checking {
                since,
                seen,
                named,
                checked: 0,
            },
        )
    }

    fn after_check(since: Version, seen: Seen, is_valid: bool) -> (&'static str, Self) {
        match (is_valid, seen.age) {
            (false, _) => ("finds a tag evicted", Self::Outdated { since, seen }),
            (true, Age::Fresh) => ("hits", Self::answer(since, seen.version)),
            (true, _) => ("finds a stale value", Self::Aged { since, seen }),
        }
    }

    fn answer(since: Version, version: Version) -> Self {
        if version < since {
            Self::Deceived
        } else {
            Self::Done
        }
    }
}

impl Captured {
    /// Returns the name of the step that reads the marker again, and the reader after it.
    fn after_reread(self, state: &State, hold: row::Stamp, next: Reader) -> (&'static str, Reader) {
        if state.marker == self.marker {
            ("finds its marker", next)
        } else {
            ("finds another marker", Reader::Releasing(hold))
        }
    }

    fn is_fenced(self) -> bool {
        self.tags.into_iter().flatten().any(Stamp::is_open)
    }

    fn is_family_fenced(self) -> bool {
        self.marker.is_some_and(Stamp::is_open)
    }
}
