//! Values in the process, in front of Redis, and what makes them doubtful: a push of Redis raises the counter of its key. A read
//! takes the counters before it is sent, and the value that it inserts keeps these numbers. A value is certain while each of its
//! numbers is the counter. A doubtful value is confirmed by the stamps of its entry and of its tag, and then gets the numbers that
//! were taken before that question.
//!
//! One process with two readers and a writer. Another process evicts the key or its tag, and loads the value again. Redis sends
//! a push for each change, and a push may arrive at any time. `listener.rs` has the time within which it must arrive.

use crate::explorer::{Model, Steps, Who, Wrong, explore};
use crate::row::Version;

const READERS: usize = 2;

#[derive(Clone, Copy, Debug)]
struct Local {
    /// The calls that each reader makes, one after another.
    calls: [u8; READERS],
    /// What the writer in this process does.
    own: Option<Evicts>,
    /// What the other process evicts.
    other: Option<Evicts>,
    /// The other process marks the entry for a refresh, which does not change its stamp.
    marks: bool,
    doubt: Doubt,
    numbers: Numbers,
    confirms: Confirms,
    raises: Raises,
    /// Twin otherwise: a value keeps only the number of its key.
    hears_tags: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evicts {
    Key,
    Tag,
}

/// How a push makes a value doubtful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    ByCounters,
    /// Twin: it marks the value, if there is one.
    ByMarks,
}

/// When a read takes the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    BeforeTheRead,
    /// Variant: the tag is over the return value, so its number is taken after the entry was read and before the tag is read.
    OfTheTagBeforeTheTag,
    /// Twin.
    OfTheTagAfterTheTag,
    /// Twin.
    AfterTheRead,
}

/// What confirms a doubtful value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confirms {
    TheSameStamps,
    /// Twin: any value under the key.
    AnyValue,
    /// Twin: the stamp of the entry, but not the stamp of the tag.
    TheStampOfTheEntry,
}

/// When an eviction of this process raises the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raises {
    BeforeAndAfter,
    /// Variant.
    After,
    /// Twin.
    Before,
    /// Twin: when the push arrives.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    committed: Version,
    entry: Option<Entry>,
    /// The stamp of the tag. In the code it is random. Here stamps are numbered.
    tag: Option<u8>,
    stamps: u8,
    pushes: PerKey,
    counters: PerKey,
    value: Option<Value>,
    readers: [Reader; READERS],
    calls: [u8; READERS],
    own: Writer,
    other: Writer,
    /// The versions whose evictions have returned in this process. Not visible to any actor.
    promised_here: Version,
    was_marked: bool,
}

/// A number for the key and one for the tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct PerKey {
    key: u8,
    tag: u8,
}

/// What Redis holds under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    stamp: u8,
    tag: u8,
    version: Version,
}

/// A value in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Value {
    entry: Entry,
    numbers: PerKey,
    /// For the twin with marks.
    is_marked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Start,
    /// Has sent a read, or a question for the stamps of this value.
    Asking {
        since: Version,
        numbers: PerKey,
        doubtful: Option<Entry>,
    },
    /// Redis has read the entry, and not yet the tag.
    Halfway {
        since: Version,
        numbers: PerKey,
        doubtful: Option<Entry>,
        found: Option<Entry>,
    },
    /// The answer is on its way.
    Answered {
        since: Version,
        numbers: PerKey,
        doubtful: Option<Entry>,
        found: Option<Entry>,
        tag: Option<u8>,
    },
    Deceived,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Writer {
    Start,
    /// Has committed, and raised the counter if it does so first.
    Written(Version),
    /// Redis has removed the entry or the tag.
    Evicted(Version),
    /// The other process has only to load again.
    Loading,
    Done,
}

impl Model for Local {
    type State = State;

    fn start(&self) -> State {
        let writer = |evicts: Option<Evicts>| evicts.map_or(Writer::Done, |_| Writer::Start);
        State {
            committed: 0,
            entry: Some(Entry {
                stamp: 0,
                tag: 0,
                version: 0,
            }),
            tag: Some(0),
            stamps: 0,
            pushes: PerKey::default(),
            counters: PerKey::default(),
            value: None,
            readers: [Reader::Start; READERS],
            calls: self.calls,
            own: writer(self.own),
            other: writer(self.other),
            promised_here: 0,
            was_marked: !self.marks,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for (me, index) in (0..).zip(0..READERS) {
            self.read(state, index, |what, next| {
                steps.add(Who::Reader(me), what, next);
            });
        }
        if let Some(evicts) = self.own {
            self.evict(state, evicts, |what, next| {
                steps.add(Who::Writer(0), what, next);
            });
        }
        if let Some(evicts) = self.other {
            Self::evict_elsewhere(state, evicts, |what, next| {
                steps.add(Who::Writer(1), what, next);
            });
        }
        self.deliver(state, |what, next| steps.add(Who::Recovery, what, next));
    }

    fn wrong(&self, state: &State) -> Option<Wrong> {
        let is_deceived = state.readers.contains(&Reader::Deceived);
        is_deceived.then_some(Wrong::StaleAnswer)
    }

    /// All pushes have arrived, so a value that is certain must be the value of the database.
    fn wrong_at_rest(&self, state: &State) -> Option<Wrong> {
        let is_outdated =
            |value: &Value| self.is_certain(state, value) && value.entry.version != state.committed;
        state.value.filter(is_outdated).map(|_| Wrong::StaleAtRest)
    }
}

impl Local {
    fn is_certain(&self, state: &State, value: &Value) -> bool {
        match self.doubt {
            Doubt::ByMarks => !value.is_marked,
            Doubt::ByCounters => {
                value.numbers.key == state.counters.key
                    && (!self.hears_tags || value.numbers.tag == state.counters.tag)
            }
        }
    }

    /// Adds the steps of a call that may use the value in the process.
    fn read(&self, state: &State, index: usize, mut step: impl FnMut(&'static str, State)) {
        let mut next = *state;
        let counters = state.counters;
        match state.readers[index] {
            Reader::Deceived => {}
            Reader::Start if state.calls[index] == 0 => {}
            Reader::Start => {
                let since = state.promised_here;
                match state.value {
                    Some(value) if self.is_certain(state, &value) => {
                        next.answer(index, since, value.entry.version);
                        step("hits in the process", next);
                    }
                    value => {
                        let doubtful = value.map(|value| value.entry);
                        let numbers = counters;
                        next.readers[index] = Reader::Asking {
                            since,
                            numbers,
                            doubtful,
                        };
                        let what = match doubtful {
                            Some(_) => "asks for the stamps of a doubtful value",
                            None => "asks Redis",
                        };
                        step(what, next);
                    }
                }
            }
            Reader::Asking {
                since,
                numbers,
                doubtful,
            } => {
                let found = state.entry;
                next.readers[index] = Reader::Halfway {
                    since,
                    numbers,
                    doubtful,
                    found,
                };
                step("Redis reads the entry", next);
            }
            Reader::Halfway {
                since,
                mut numbers,
                doubtful,
                found,
            } => {
                if self.numbers == Numbers::OfTheTagBeforeTheTag {
                    numbers.tag = counters.tag;
                }
                let tag = state.tag;
                next.readers[index] = Reader::Answered {
                    since,
                    numbers,
                    doubtful,
                    found,
                    tag,
                };
                step("Redis reads the tag", next);
            }
            Reader::Answered {
                since,
                mut numbers,
                doubtful,
                found,
                tag,
            } => {
                match self.numbers {
                    Numbers::AfterTheRead => numbers = counters,
                    Numbers::OfTheTagAfterTheTag => numbers.tag = counters.tag,
                    Numbers::BeforeTheRead | Numbers::OfTheTagBeforeTheTag => {}
                }
                let found = found.filter(|entry| {
                    Some(entry.tag) == tag
                        || self.confirms != Confirms::TheSameStamps && doubtful.is_some()
                });
                let what = self.settle(&mut next, index, since, numbers, doubtful, found);
                step(what, next);
            }
        }
    }

    /// Does what follows from the answer of Redis: an entry whose tag holds the stamp that it names, or nothing.
    fn settle(
        &self,
        next: &mut State,
        index: usize,
        since: Version,
        numbers: PerKey,
        doubtful: Option<Entry>,
        found: Option<Entry>,
    ) -> &'static str {
        let Some(doubtful) = doubtful else {
            let Some(entry) = found else {
                // The body runs. A call does not insert what it loaded.
                next.readers[index] = Reader::Start;
                next.calls[index] -= 1;
                return "loads";
            };
            let is_marked = false;
            next.value = Some(Value {
                entry,
                numbers,
                is_marked,
            });
            next.answer(index, since, entry.version);
            return "inserts what Redis returned";
        };
        let is_same = found.is_some_and(|found| match self.confirms {
            Confirms::TheSameStamps | Confirms::TheStampOfTheEntry => found.stamp == doubtful.stamp,
            Confirms::AnyValue => true,
        });
        let there = next.value.as_mut().filter(|value| value.entry == doubtful);
        match (there, is_same) {
            (Some(value), true) => {
                (value.numbers, value.is_marked) = (numbers, false);
            }
            (Some(_), false) => next.value = None,
            // Another call has replaced or dropped it.
            (None, _) => {}
        }
        if is_same {
            next.answer(index, since, doubtful.version);
            "confirms a doubtful value"
        } else {
            // The call goes on as if there were no value in the process.
            let numbers = next.counters;
            next.readers[index] = Reader::Asking {
                since,
                numbers,
                doubtful: None,
            };
            "drops a doubtful value"
        }
    }

    /// Adds the steps of an eviction by this process.
    fn evict(&self, state: &State, evicts: Evicts, mut step: impl FnMut(&'static str, State)) {
        let mut next = *state;
        match state.own {
            Writer::Start => {
                next.committed += 1;
                if matches!(self.raises, Raises::BeforeAndAfter | Raises::Before) {
                    next.raise(evicts);
                }
                next.own = Writer::Written(next.committed);
                step("commits", next);
            }
            Writer::Written(version) => {
                next.delete(evicts);
                next.own = Writer::Evicted(version);
                step("evicts", next);
            }
            Writer::Evicted(version) => {
                if matches!(self.raises, Raises::BeforeAndAfter | Raises::After) {
                    next.raise(evicts);
                }
                next.promised_here = next.promised_here.max(version);
                next.own = Writer::Done;
                step("returns", next);
            }
            Writer::Loading | Writer::Done => {}
        }
    }

    /// Adds the steps of the other process.
    fn evict_elsewhere(state: &State, evicts: Evicts, mut step: impl FnMut(&'static str, State)) {
        let mut next = *state;
        if !state.was_marked && state.entry.is_some() {
            next.was_marked = true;
            next.pushes.key += 1;
            step("marks the entry for a refresh", next);
        }
        let mut next = *state;
        match state.other {
            Writer::Start => {
                next.committed += 1;
                next.other = Writer::Written(next.committed);
                step("commits", next);
            }
            Writer::Written(_) => {
                next.delete(evicts);
                next.other = Writer::Loading;
                step("evicts", next);
            }
            Writer::Loading => {
                next.other = Writer::Done;
                step("does not load again", next);
                next.load();
                step("loads and fills", next);
            }
            Writer::Evicted(_) | Writer::Done => {}
        }
    }

    /// Adds the steps of the listener.
    fn deliver(&self, state: &State, mut step: impl FnMut(&'static str, State)) {
        for evicts in [Evicts::Key, Evicts::Tag] {
            let mut next = *state;
            if next.pushes.of(evicts).checked_sub(1).is_none() {
                continue;
            }
            *next.pushes.of(evicts) -= 1;
            next.raise(evicts);
            if let Some(value) = &mut next.value {
                value.is_marked = true;
            }
            if self.doubt == Doubt::ByMarks {
                next.counters = state.counters;
            }
            step("a push arrives", next);
        }
    }
}

impl State {
    fn answer(&mut self, index: usize, since: Version, version: Version) {
        self.calls[index] -= 1;
        self.readers[index] = if version < since {
            Reader::Deceived
        } else {
            Reader::Start
        };
    }

    fn raise(&mut self, evicts: Evicts) {
        *self.counters.of(evicts) += 1;
    }

    fn delete(&mut self, evicts: Evicts) {
        match evicts {
            Evicts::Key => self.entry = None,
            Evicts::Tag => self.tag = None,
        }
        *self.pushes.of(evicts) += 1;
    }

    /// Stores the value of the database under a new stamp.
    fn load(&mut self) {
        self.stamps += 1;
        let stamp = self.stamps;
        let tag = *self.tag.get_or_insert(stamp);
        let version = self.committed;
        self.entry = Some(Entry {
            stamp,
            tag,
            version,
        });
        self.pushes.key += 1;
    }
}

impl PerKey {
    fn of(&mut self, evicts: Evicts) -> &mut u8 {
        match evicts {
            Evicts::Key => &mut self.key,
            Evicts::Tag => &mut self.tag,
        }
    }
}

fn as_built() -> Local {
    Local {
        calls: [2, 2],
        own: None,
        other: Some(Evicts::Key),
        marks: true,
        doubt: Doubt::ByCounters,
        numbers: Numbers::BeforeTheRead,
        confirms: Confirms::TheSameStamps,
        raises: Raises::BeforeAndAfter,
        hears_tags: true,
    }
}

fn tagged() -> Local {
    Local {
        other: Some(Evicts::Tag),
        marks: false,
        ..as_built()
    }
}

fn own(evicts: Evicts, raises: Raises) -> Local {
    Local {
        own: Some(evicts),
        other: None,
        marks: false,
        raises,
        ..as_built()
    }
}

const REACHED: [&str; 5] = [
    "hits in the process",
    "inserts what Redis returned",
    "confirms a doubtful value",
    "drops a doubtful value",
    "a push arrives",
];

#[test]
fn a_value_that_was_read_before_a_push_is_doubtful_after_it() {
    explore(&as_built()).assert_holds(2_000, &REACHED);
}

#[test]
fn a_value_whose_tag_was_read_before_a_push_is_doubtful_after_it() {
    explore(&tagged()).assert_holds(2_000, &REACHED);
}

#[test]
fn the_number_of_a_tag_over_the_return_value_may_be_taken_before_the_tag_is_read() {
    let numbers = Numbers::OfTheTagBeforeTheTag;
    explore(&Local {
        numbers,
        ..tagged()
    })
    .assert_holds(2_000, &REACHED);
}

#[test]
fn a_process_reads_its_own_evictions() {
    for evicts in [Evicts::Key, Evicts::Tag] {
        for raises in [Raises::BeforeAndAfter, Raises::After] {
            explore(&own(evicts, raises)).assert_holds(2_000, &["hits in the process", "returns"]);
        }
    }
}

#[test]
fn own_and_foreign_evictions_leave_no_older_value() {
    let both = Local {
        calls: [2, 1],
        own: Some(Evicts::Key),
        ..tagged()
    };

    explore(&both).assert_holds(20_000, &REACHED);
}

#[test]
fn a_push_that_marks_only_values_that_are_there_is_caught() {
    let doubt = Doubt::ByMarks;
    explore(&Local {
        doubt,
        ..as_built()
    })
    .assert_breaks(Wrong::StaleAtRest);
}

#[test]
fn numbers_taken_after_the_read_are_caught() {
    let numbers = Numbers::AfterTheRead;
    explore(&Local {
        numbers,
        ..as_built()
    })
    .assert_breaks(Wrong::StaleAtRest);
}

#[test]
fn the_number_of_a_tag_taken_after_the_tag_is_caught() {
    let numbers = Numbers::OfTheTagAfterTheTag;
    explore(&Local {
        numbers,
        ..tagged()
    })
    .assert_breaks(Wrong::StaleAtRest);
}

#[test]
fn a_value_that_keeps_no_number_of_its_tag_is_caught() {
    let hears_tags = false;
    explore(&Local {
        hears_tags,
        ..tagged()
    })
    .assert_breaks(Wrong::StaleAtRest);
}

#[test]
fn a_doubtful_value_that_any_value_confirms_is_caught() {
    let confirms = Confirms::AnyValue;
    explore(&Local {
        confirms,
        ..as_built()
    })
    .assert_breaks(Wrong::StaleAtRest);
}

#[test]
fn a_doubtful_value_whose_tag_is_not_asked_for_is_caught() {
    let confirms = Confirms::TheStampOfTheEntry;
    explore(&Local {
        confirms,
        ..tagged()
    })
    .assert_breaks(Wrong::StaleAtRest);
}

#[test]
fn an_eviction_that_raises_the_counter_only_before_it_is_caught() {
    explore(&own(Evicts::Key, Raises::Before)).assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn an_eviction_that_waits_for_its_push_is_caught() {
    explore(&own(Evicts::Key, Raises::Never)).assert_breaks(Wrong::StaleAnswer);
}
