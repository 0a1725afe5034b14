//! One row with two tags. A tag is a key of its own that holds a stamp. A load captures the stamps of its tags before its body,
//! and its entry names them. A reader takes an entry only if each of its tags still holds the stamp that the entry names. An
//! eviction of a tag removes the key of the tag. No command names two keys, so each may be on another server.
//!
//! The first tag is over the arguments. The second is too, or it is over the return value: then its name is not known before
//! the body, and its *family* has a marker, which every eviction of a tag of this family removes first.
//!
//! `tagged/reader.rs` has the steps of readers, `tagged/writer.rs` the steps of evictions and puts.

mod reader;
mod writer;

use crate::explorer::{Model, Steps, Who, Wrong};
use crate::row::{Age, Call, Clock, Entry, Row, Version};

pub(crate) use self::reader::{Asks, Captures, Checks, Rereads, Rules, Stale};
pub(crate) use self::writer::{Does, FenceMarker, Marks, Task};

use self::reader::Reader;
use self::writer::Writer;

pub(crate) const TAGS: usize = 2;

/// The tag that may be over the return value.
const RETURNED: usize = 1;

/// The most readers, and the most writers.
const CALLS: usize = 2;

/// The caller that stored the value at the start.
const NOBODY: Call = u8::MAX;

/// The stamp in the key of a tag, or in the marker of a family. In the code it is random. Here it is the call that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stamp {
    By(Call),
    /// Made by the second attempt of a call.
    Again(Call),
    /// The fence of a writer. A load that captures it stores nothing.
    Open {
        by: Call,
        /// Twin: its life was raised to the life of an entry.
        is_prolonged: bool,
    },
}

/// A stamp for each tag, or none where the tag has no key.
pub(crate) type Stamps = [Option<Stamp>; TAGS];

#[derive(Clone, Debug)]
pub(crate) struct Tagged {
    pub(crate) readers: usize,
    pub(crate) rules: Rules,
    pub(crate) writers: Vec<Task>,
    /// A writer begins when the previous ones have finished.
    pub(crate) one_after_another: bool,
    pub(crate) clock: Clock,
    /// The keys of tags, and markers, can be lost: by expiry, or because memory is short.
    pub(crate) loses_tags: bool,
    pub(crate) resends: Resends,
}

/// What happens to a capture whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resends {
    Never,
    WithANewStamp,
    /// Twin.
    WithTheSameStamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) row: Row,
    /// The stamps that the entry of the row names.
    pub(crate) named: Stamps,
    pub(crate) tags: Stamps,
    /// The marker of the family of the second tag.
    pub(crate) marker: Option<Stamp>,
    readers: [Reader; CALLS],
    writers: [Writer; CALLS],
    /// The tag that a reader may create once more.
    resent: [Option<usize>; CALLS],
}

impl Model for Tagged {
    type State = State;

    fn start(&self) -> State {
        let mut state = State {
            row: Row::CACHED,
            named: [Some(Stamp::By(NOBODY)); TAGS],
            tags: [Some(Stamp::By(NOBODY)); TAGS],
            marker: None,
            readers: [Reader::Done; CALLS],
            writers: [Writer::Done; CALLS],
            resent: [None; CALLS],
        };
        state.readers[..self.readers].fill(Reader::Start);
        state.writers[..self.writers.len()].fill(Writer::Start);
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for (me, index) in (0..).zip(0..self.readers) {
            state.readers[index].steps(me, state, self.rules, |what, reader, after| {
                let mut next = after;
                next.readers[index] = reader;
                if self.resends != Resends::Never {
                    next.resent[index] = state.created(me, &after).or(state.resent[index]);
                }
                steps.add(Who::Reader(me), what, next.tidy());
            });
        }
        for (index, task) in (0..).zip(&self.writers) {
            let at = usize::from(index);
            if self.one_after_another && !state.are_through(at) {
                continue;
            }
            let me = index + CALLS as Call;
            state.writers[at].steps(me, *task, state, self.rules, |what, writer, after| {
                let mut next = after;
                next.writers[at] = writer;
                steps.add(Who::Writer(index), what, next.tidy());
            });
        }
        self.network(state, steps);
        self.clock(state, steps);
    }

    fn wrong(&self, state: &State) -> Option<Wrong> {
        if state.readers.contains(&Reader::Deceived) {
            return Some(Wrong::StaleAnswer);
        }
        (state.is_valid(self.rules) && state.row.breaks_its_promise()).then_some(Wrong::StaleEntry)
    }

    fn wrong_at_rest(&self, state: &State) -> Option<Wrong> {
        let are_done =
            state.readers.iter().all(|reader| *reader == Reader::Done) && state.are_through(CALLS);
        let records = state.tags.iter().chain([&state.marker]);
        let is_blocked = records.flatten().any(|stamp| {
            matches!(
                stamp,
                Stamp::Open {
                    is_prolonged: true,
                    ..
                }
            )
        });
        if !are_done || is_blocked {
            return Some(Wrong::Stuck);
        }
        (state.is_valid(self.rules) && state.row.is_outdated()).then_some(Wrong::StaleAtRest)
    }
}

impl Tagged {
    /// Adds the steps of late commands.
    fn network(&self, state: &State, steps: &mut Steps<State>) {
        for (me, index) in (0..).zip(0..CALLS) {
            let Some(tag) = state.resent[index] else {
                continue;
            };
            let mut next = *state;
            next.resent[index] = None;
            next.tags[tag].get_or_insert(match self.resends {
                Resends::WithTheSameStamp => Stamp::By(me),
                _ => Stamp::Again(me),
            });
            steps.add(Who::Network, "a capture is sent again", next);
        }
    }

    fn clock(&self, state: &State, steps: &mut Steps<State>) {
        self.clock.steps(&state.row, |what, row| {
            steps.add(Who::Clock, what, State { row, ..*state }.tidy());
        });
        for tag in 0..TAGS {
            let mut next = *state;
            next.tags[tag] = None;
            match state.tags[tag] {
                Some(Stamp::Open {
                    is_prolonged: false,
                    ..
                }) if !state.needs_anybody_a_fence() => {
                    steps.add(Who::Clock, "the fence of a tag ends", next);
                }
                Some(Stamp::By(_) | Stamp::Again(_)) if self.loses_tags => {
                    steps.add(Who::Clock, "a tag is lost", next);
                }
                _ => {}
            }
        }
        let marker = None;
        match state.marker {
            Some(Stamp::Open {
                is_prolonged: false,
                ..
            }) if !state.needs_anybody_a_fence() => {
                steps.add(
                    Who::Clock,
                    "the marker of a fence ends",
                    State { marker, ..*state },
                );
            }
            Some(Stamp::By(_) | Stamp::Again(_)) if self.loses_tags => {
                steps.add(Who::Clock, "a marker is lost", State { marker, ..*state });
            }
            _ => {}
        }
    }
}

impl State {
    /// Returns whether a reader would take the entry.
    fn is_valid(&self, rules: Rules) -> bool {
        (0..TAGS).all(|tag| rules.checks.accept(tag, self.named[tag], self.tags[tag]))
    }

    /// Returns whether the writers before this one have finished.
    fn are_through(&self, index: usize) -> bool {
        self.writers[..index]
            .iter()
            .all(|writer| matches!(writer, Writer::Done | Writer::Dead))
    }

    /// Returns the tag that a call has just created.
    fn created(&self, by: Call, after: &Self) -> Option<usize> {
        let mine = Some(Stamp::By(by));
        (0..TAGS).find(|tag| after.tags[*tag] == mine && self.tags[*tag] != mine)
    }

    fn needs_anybody_a_fence(&self) -> bool {
        self.writers.iter().any(|writer| writer.needs_its_fence())
    }

    /// Forgets the stamps of an entry that is gone, so that equal states are equal.
    fn tidy(mut self) -> Self {
        if !matches!(self.row.entry, Some(Entry::Value { .. })) {
            self.named = [None; TAGS];
        }
        self
    }

    /// `SET NX GET`: returns the stamp of a tag, which is created if there is none.
    fn capture(&mut self, tag: usize, stamp: Stamp, rules: Rules) -> Stamp {
        captured(&mut self.tags[tag], stamp, rules)
    }

    /// The same for the marker.
    fn capture_marker(&mut self, stamp: Stamp, rules: Rules) -> Stamp {
        captured(&mut self.marker, stamp, rules)
    }
}

impl Stamp {
    fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

fn captured(record: &mut Option<Stamp>, stamp: Stamp, rules: Rules) -> Stamp {
    let stamp = record.get_or_insert(stamp);
    if let Stamp::Open { is_prolonged, .. } = stamp {
        // The life of a captured record is raised above the life of the entry, but not the life of a fence.
        *is_prolonged |= rules.prolongs_fences;
    }
    *stamp
}

/// The value of an entry: its version and its age.
fn value(entry: Option<Entry>) -> Option<(Version, Age)> {
    match entry {
        Some(Entry::Value { version, age, .. }) => Some((version, age)),
        _ => None,
    }
}
