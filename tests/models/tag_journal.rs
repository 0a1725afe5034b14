//! An eviction of a tag that Redis did not acknowledge is kept in the journal of its process. The process neither takes nor
//! stores values of the tag until the eviction is applied. Each attempt replaces the marker of the family by a new stamp, and
//! then removes the tag. (The cache removes the marker, and the next load makes a new one. To a load that runs, this is the same.)
//!
//! One process loses and regains its connection; it has a reader, and writers that evict the tag. Another process stays
//! connected and has a reader. A command without an answer may run much later, or never. Fills are stored unconditionally: the
//! stamps alone must keep old values from being taken.

use crate::explorer::{Model, Steps, Who, Wrong, explore};
use crate::row::Version;

/// The reader in the process with the journal, and the reader in the other process.
const READERS: usize = 2;
const HERE: usize = 0;

const WRITERS: usize = 2;

/// In the code a stamp is random. Here stamps are numbered.
type Stamp = u8;

#[derive(Clone, Copy, Debug)]
struct Journaling {
    /// Whether the process with the journal has a reader.
    reads_here: bool,
    writers: usize,
    is_over_the_return_value: bool,
    hides: Hides,
    marks: Marks,
    opens: Opens,
}

/// What the journal hides from its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hides {
    EveryEntryOfTheTag,
    /// Twin: only calls whose own arguments name the tag.
    CallsOfTheTag,
    /// Twin.
    Nothing,
}

/// The marker of an attempt to apply the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marks {
    New,
    /// Twin: the stamp of the attempt that was not answered.
    AsBefore,
    /// Twin.
    None,
}

/// The journal when the process uses Redis again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    WhenApplied,
    /// Twin: it is dropped.
    Emptied,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    committed: Version,
    /// Not visible to any actor: evictions up to this version were acknowledged by Redis, or have returned in this process.
    promised: Version,
    promised_here: Version,
    entry: Option<Entry>,
    tag: Option<Stamp>,
    marker: Option<Stamp>,
    stamps: Stamp,
    is_away: bool,
    journal: Option<Owed>,
    recovery: Recovery,
    /// How often an attempt to apply the journal may still stay unanswered.
    unanswered: u8,
    readers: [Reader; READERS],
    writers: [Writer; WRITERS],
    /// The commands of an eviction that was not answered, and the stamp of its marker.
    late: Option<(Late, Stamp)>,
    late_fill: Option<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    version: Version,
    tag: Stamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Owed {
    version: Version,
    /// The marker of the attempt that was not answered.
    marker: Option<Stamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Recovery {
    Idle,
    Marked(Owed),
    Removed(Owed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Late {
    MarkerAndTag,
    Tag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Start,
    Asking {
        since: Version,
    },
    Missed,
    /// Holds the stamp of the tag, or of the marker.
    Loading(Stamp),
    Loaded(Stamp, Version),
    /// Has captured the tag after its body.
    Rereading {
        marker: Stamp,
        entry: Entry,
    },
    Filling(Entry),
    Done,
    Deceived,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Writer {
    Start,
    Written(Version),
    Marked(Version, Stamp),
    Done,
}

impl Model for Journaling {
    type State = State;

    fn start(&self) -> State {
        let mut state = State {
            committed: 0,
            promised: 0,
            promised_here: 0,
            entry: Some(Entry { version: 0, tag: 0 }),
            tag: Some(0),
            marker: Some(0),
            stamps: 0,
            is_away: false,
            journal: None,
            recovery: Recovery::Idle,
            unanswered: 1,
            readers: [Reader::Start; READERS],
            writers: [Writer::Done; WRITERS],
            late: None,
            late_fill: None,
        };
        state.writers[..self.writers].fill(Writer::Start);
        if !self.reads_here {
            state.readers[HERE] = Reader::Done;
        }
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for (me, index) in (0..).zip(0..READERS) {
            let who = Who::Reader(me);
            self.read(state, index, |what, next| steps.add(who, what, next));
        }
        for (me, index) in (0..).zip(0..WRITERS) {
            let who = Who::Writer(me);
            evict(state, index, |what, next| steps.add(who, what, next));
        }
        self.recover(state, |what, next| steps.add(Who::Recovery, what, next));
        network(state, |what, next| steps.add(Who::Network, what, next));
        let entry = None;
        steps.add(Who::Clock, "the value ends", State { entry, ..*state });
    }

    fn wrong(&self, state: &State) -> Option<Wrong> {
        if state.readers.contains(&Reader::Deceived) {
            return Some(Wrong::StaleAnswer);
        }
        let is_stale = |entry: Entry| entry.version < state.promised;
        let is_stale = state.valid().is_some_and(is_stale);
        is_stale.then_some(Wrong::StaleEntry)
    }

    fn wrong_at_rest(&self, state: &State) -> Option<Wrong> {
        let are_done = state.readers == [Reader::Done; READERS]
            && state.writers == [Writer::Done; WRITERS]
            && !state.is_away
            && state.journal.is_none();
        if !are_done {
            return Some(Wrong::Stuck);
        }
        let is_outdated = |entry: Entry| entry.version != state.committed;
        let is_outdated = state.valid().is_some_and(is_outdated);
        is_outdated.then_some(Wrong::StaleAtRest)
    }
}

impl Journaling {
    /// Adds the steps of a call of a `#[cacheable]` function.
    fn read(&self, state: &State, index: usize, mut step: impl FnMut(&'static str, State)) {
        let is_here = index == HERE;
        let mut next = *state;
        let mut go = |what, reader, mut next: State| {
            next.readers[index] = reader;
            step(what, next);
        };
        match state.readers[index] {
            Reader::Done | Reader::Deceived => {}
            _ if is_here && state.is_away => go("finds Redis away", Reader::Done, next),
            Reader::Start if is_here && self.hides_call(state) => {
                go("finds its tag in the journal", Reader::Done, next);
            }
            Reader::Start => {
                let since = if is_here {
                    state.promised_here
                } else {
                    state.promised
                };
                go("asks", Reader::Asking { since }, next);
            }
            Reader::Asking { since } => match state.valid() {
                Some(_) if is_here && self.hides_entry(state) => {
                    go(
                        "finds the tag of the entry in the journal",
                        Reader::Done,
                        next,
                    );
                }
                Some(entry) if entry.version < since => go("hits", Reader::Deceived, next),
                Some(_) => go("hits", Reader::Done, next),
                None => go("finds no value", Reader::Missed, next),
            },
            Reader::Missed => {
                let mut unanswered = *state;
                let stamp = next.capture(self.is_over_the_return_value);
                go("captures", Reader::Loading(stamp), next);
                if is_here {
                    unanswered.capture(self.is_over_the_return_value);
                    go("is not answered for the capture", Reader::Done, unanswered);
                }
            }
            Reader::Loading(stamp) => {
                go("loads", Reader::Loaded(stamp, state.committed), next);
            }
            Reader::Loaded(marker, version) if self.is_over_the_return_value => {
                let tag = next.capture(false);
                let entry = Entry { version, tag };
                go("captures late", Reader::Rereading { marker, entry }, next);
            }
            Reader::Loaded(tag, version) => {
                go("has its tag", Reader::Filling(Entry { version, tag }), next);
            }
            Reader::Rereading { marker, entry } if state.marker == Some(marker) => {
                go("finds its marker", Reader::Filling(entry), next);
            }
            Reader::Rereading { .. } => go("finds another marker", Reader::Done, next),
            Reader::Filling(_) if is_here && self.hides_entry(state) => {
                go("finds its tag in the journal", Reader::Done, next);
            }
            Reader::Filling(entry) => {
                next.entry = Some(entry);
                go("fills", Reader::Done, next);
                if is_here {
                    let late_fill = Some(entry);
                    let next = State {
                        late_fill,
                        ..*state
                    };
                    go("is not answered for the fill", Reader::Done, next);
                }
            }
        }
    }

    /// Returns whether the journal hides a call from its start. A tag over the return value is not known by then.
    fn hides_call(&self, state: &State) -> bool {
        !self.is_over_the_return_value && self.hides != Hides::Nothing && state.journal.is_some()
    }

    fn hides_entry(&self, state: &State) -> bool {
        let hides = match self.hides {
            Hides::EveryEntryOfTheTag => true,
            Hides::CallsOfTheTag => !self.is_over_the_return_value,
            Hides::Nothing => false,
        };
        hides && state.journal.is_some()
    }

    /// Adds the steps of the recovery task.
    fn recover(&self, state: &State, mut step: impl FnMut(&'static str, State)) {
        let mut next = *state;
        match (state.recovery, state.journal) {
            (Recovery::Idle, None) if state.is_away => {
                next.is_away = false;
                step("opens the cache", next);
            }
            (Recovery::Idle, Some(_)) if state.is_away && self.opens == Opens::Emptied => {
                (next.is_away, next.journal) = (false, None);
                step("drops the journal", next);
            }
            (Recovery::Idle, Some(owed)) => {
                match self.marks {
                    Marks::New => next.mark_anew(),
                    Marks::AsBefore => match owed.marker {
                        Some(marker) => next.marker = Some(marker),
                        None => next.mark_anew(),
                    },
                    Marks::None => {}
                }
                next.recovery = Recovery::Marked(owed);
                step("replaces the marker for the journal", next);
            }
            (Recovery::Idle, None) => {}
            (Recovery::Marked(owed), _) => {
                next.tag = None;
                next.recovery = Recovery::Removed(owed);
                step("removes the tag for the journal", next);

                if let Some(unanswered) = state.unanswered.checked_sub(1) {
                    let recovery = Recovery::Idle;
                    let next = State {
                        recovery,
                        unanswered,
                        ..*state
                    };
                    step("is not answered and keeps the journal", next);
                }
            }
            (Recovery::Removed(owed), journal) => {
                next.recovery = Recovery::Idle;
                next.promised = next.promised.max(owed.version);
                if journal == Some(owed) {
                    next.journal = None;
                    step("strikes it out", next);
                } else {
                    step("leaves what was added again", next);
                }
            }
        }
    }
}

/// Adds the steps of a call of a `#[cache_evict]` function.
fn evict(state: &State, index: usize, mut step: impl FnMut(&'static str, State)) {
    let mut next = *state;
    match state.writers[index] {
        Writer::Start => {
            next.committed += 1;
            next.writers[index] = Writer::Written(next.committed);
            step("commits", next);
        }
        Writer::Written(version) if state.is_away => {
            next.journal(index, version, None);
            step("journals", next);
        }
        Writer::Written(version) => {
            next.mark_anew();
            next.writers[index] = Writer::Marked(version, next.stamps);
            step("replaces the marker", next);

            if state.late.is_none() {
                let mut next = *state;
                next.stamps += 1;
                next.late = Some((Late::MarkerAndTag, next.stamps));
                next.journal(index, version, Some(next.stamps));
                step("is not answered and journals", next);
            }
        }
        Writer::Marked(version, marker) => {
            next.tag = None;
            next.promised = next.promised.max(version);
            next.promised_here = next.promised_here.max(version);
            next.writers[index] = Writer::Done;
            step("evicts the tag", next);

            if state.late.is_none() {
                let mut next = *state;
                next.late = Some((Late::Tag, marker));
                next.journal(index, version, Some(marker));
                step("is not answered for the tag and journals", next);
            }
        }
        Writer::Done => {}
    }
}

/// Adds the steps of the network: it loses the connection, and late commands run or are lost.
fn network(state: &State, mut step: impl FnMut(&'static str, State)) {
    if !state.is_away {
        let is_away = true;
        step("Redis is lost", State { is_away, ..*state });
    }
    if let Some((late, marker)) = state.late {
        let mut next = *state;
        next.late = None;
        step("a late eviction is lost", next);
        match late {
            Late::MarkerAndTag => {
                next.marker = Some(marker);
                next.late = Some((Late::Tag, marker));
                step("a late marker is carried out", next);
            }
            Late::Tag => {
                next.tag = None;
                step("a late DEL is carried out", next);
            }
        }
    }
    if let Some(entry) = state.late_fill {
        let late_fill = None;
        let lost = State {
            late_fill,
            ..*state
        };
        let entry = Some(entry);
        step("a late fill is lost", lost);
        step("a late fill is carried out", State { entry, ..lost });
    }
}

impl State {
    /// Returns the entry, if a reader would take it.
    fn valid(&self) -> Option<Entry> {
        self.entry.filter(|entry| Some(entry.tag) == self.tag)
    }

    /// Returns the stamp of the tag, or of the marker, which is created if there is none.
    fn capture(&mut self, is_marker: bool) -> Stamp {
        let place = if is_marker {
            &mut self.marker
        } else {
            &mut self.tag
        };
        *place.get_or_insert_with(|| {
            self.stamps += 1;
            self.stamps
        })
    }

    fn mark_anew(&mut self) {
        self.stamps += 1;
        self.marker = Some(self.stamps);
    }

    /// Ends an eviction that Redis did not acknowledge.
    fn journal(&mut self, index: usize, version: Version, marker: Option<Stamp>) {
        let before = self.journal.map_or(0, |owed| owed.version);
        let version_owed = version.max(before);
        self.journal = Some(Owed {
            version: version_owed,
            marker,
        });
        self.promised_here = self.promised_here.max(version);
        self.writers[index] = Writer::Done;
    }
}

fn as_built() -> Journaling {
    Journaling {
        reads_here: true,
        writers: 1,
        is_over_the_return_value: false,
        hides: Hides::EveryEntryOfTheTag,
        marks: Marks::New,
        opens: Opens::WhenApplied,
    }
}

fn over_the_return_value() -> Journaling {
    Journaling {
        is_over_the_return_value: true,
        ..as_built()
    }
}

const REACHED: [&str; 7] = [
    "hits",
    "fills",
    "is not answered and journals",
    "is not answered for the tag and journals",
    "finds its tag in the journal",
    "a late DEL is carried out",
    "strikes it out",
];

#[test]
fn an_unacknowledged_eviction_of_a_tag_is_applied_before_redis_is_used_again() {
    explore(&as_built()).assert_holds(2_000, &REACHED);
}

#[test]
fn an_unacknowledged_eviction_of_a_tag_over_the_return_value_is_applied_too() {
    let explored = explore(&over_the_return_value());

    explored.assert_holds(2_000, &REACHED);
    explored.assert_holds(
        2_000,
        &[
            "finds the tag of the entry in the journal",
            "finds another marker",
            "a late marker is carried out",
            "a late fill is carried out",
        ],
    );
}

#[test]
fn dropping_the_journal_is_caught() {
    let opens = Opens::Emptied;
    explore(&Journaling {
        opens,
        ..as_built()
    })
    .assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn a_journal_that_hides_nothing_is_caught() {
    let hides = Hides::Nothing;
    explore(&Journaling {
        hides,
        ..as_built()
    })
    .assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn a_journal_that_hides_only_calls_of_the_tag_is_caught() {
    let hides = Hides::CallsOfTheTag;
    let model = Journaling {
        hides,
        ..over_the_return_value()
    };

    explore(&model).assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn applying_the_journal_without_a_marker_is_caught() {
    let marks = Marks::None;
    let model = Journaling {
        marks,
        ..over_the_return_value()
    };

    explore(&model).assert_breaks(Wrong::StaleEntry);
}

#[test]
fn applying_the_journal_with_the_marker_of_the_first_attempt_is_caught() {
    let marks = Marks::AsBefore;
    let model = Journaling {
        marks,
        reads_here: false,
        writers: 2,
        ..over_the_return_value()
    };

    explore(&model).assert_breaks(Wrong::StaleEntry);
}
