//! Callers in one process share a load. A caller that begins after an eviction has returned must not get a value that was
//! loaded before it. An eviction in this process dooms the running load. An eviction in another process removes the claim in
//! Redis under which the load runs, and a later caller notices that.
//!
//! A waiting leader can be stuck: its task does not poll it. Then a caller that waits for it begins a load under the same
//! lease. The leader may continue at any later time.
//!
//! The model has one process with two callers and a writer that evicts and may get no answer from Redis, and another process
//! with a running load and a writer. The callers are alike, so they begin in order. While Redis is unavailable, a process cannot
//! know the evictions of others, and it shares more loads: then the promise covers only its own evictions.
//!
//! In the model, what a leader found in Redis counts from the moment of the answer. In the code it counts from the moment of
//! the question, so the code shares a little less.

mod caller;

use self::caller::Caller;
use crate::explorer::{Model, Steps, Who, Wrong, explore};
use crate::reader::{Reader, Rules};
use crate::row::{Call, Clock, Row, Stamp, Version};
use crate::writer::{Does, Task, Writer};

const CALLERS: usize = 2;

/// The calls of the other process.
const OTHER_READER: Call = 2;
const OTHER_WRITER: Call = 3;

#[derive(Clone, Copy, Debug)]
struct Sharing {
    /// Its load is under way.
    has_other_reader: bool,
    has_other_writer: bool,
    /// Redis may be unavailable for a while.
    loses_redis: bool,
    eviction: Eviction,
    dooms: Dooms,
    joins: Joins,
    claims: Claims,
    queue: Queue,
    /// How many loads may run at the same time.
    limit: usize,
}

/// What a caller does that cannot join a load while as many run as may: as built, or as a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    /// Waits for the next load.
    TakesTheNext,
    /// Twin: takes the result of any load that lands.
    TakesAny,
    /// Twin: begins a load at once.
    None,
}

/// The reply of Redis to the eviction in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Eviction {
    None,
    IsAnswered,
    MayGoUnanswered,
}

/// When an eviction dooms the running load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dooms {
    /// Before its step in Redis, and again after it, when the eviction is in the journal.
    BeforeAndAfter,
    /// Twin: the second time before the eviction is in the journal.
    BeforeTheJournal,
    /// Twin.
    Never,
}

/// Which load a caller joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joins {
    /// A load under the claim that the caller saw in Redis, or one that began later.
    WhatServesIt,
    /// Twin: any running load.
    Any,
}

/// Whether a leader that waits for the lease of another process checks the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claims {
    /// Ignores what it finds in Redis while the key is in the journal.
    HeedTheJournal,
    /// Twin: checks the journal once, when the call begins.
    DoNot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    row: Row,
    callers: [Caller; CALLERS],
    /// The loads, by the caller that began each.
    flights: [Flight; CALLERS],
    /// The load that callers may join.
    under_way: Option<Call>,
    writer: Evicting,
    /// An eviction is in the journal.
    is_journaled: bool,
    is_away: bool,
    /// Not visible to any actor: evictions up to this version have returned in this process.
    promised_here: Version,
    other_reader: Reader,
    other_writer: Writer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flight {
    is_doomed: bool,
    basis: Option<Basis>,
    /// The leader is gone and left this lease.
    left: Option<Option<Stamp>>,
    landed: Option<Version>,
    /// The leader was not polled, and another caller has begun a load under its lease.
    is_deposed: bool,
}

/// The claim that the result depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Basis {
    /// The callers that had begun by then.
    after: [bool; CALLERS],
    /// The claim that was in Redis.
    claim: Option<Stamp>,
}

const NO_FLIGHT: Flight = Flight {
    is_doomed: false,
    basis: None,
    left: None,
    landed: None,
    is_deposed: false,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Evicting {
    Start,
    Written(Version),
    Doomed(Version),
    Unanswered(Version),
    /// Evicted, or in the journal.
    Settled(Version),
    Done,
}

impl Model for Sharing {
    type State = State;

    fn start(&self) -> State {
        let mut state = State {
            row: Row::EMPTY,
            callers: [Caller::Start; CALLERS],
            flights: [NO_FLIGHT; CALLERS],
            under_way: None,
            writer: Evicting::Start,
            is_journaled: false,
            is_away: false,
            promised_here: 0,
            other_reader: Reader::Done,
            other_writer: Writer::Done,
        };
        if self.eviction == Eviction::None {
            state.writer = Evicting::Done;
        }
        if self.has_other_reader {
            state.row.lease(OTHER_READER);
            state.other_reader = Reader::Loading(Stamp::Lease(OTHER_READER));
        }
        if self.has_other_writer {
            state.other_writer = Writer::Start;
        }
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for me in (0..).take(CALLERS) {
            self.call(state, me, |what, next| {
                steps.add(Who::Reader(me), what, next);
            });
        }
        self.evict(state, |what, next| steps.add(Who::Writer(0), what, next));
        if state.is_journaled {
            let mut next = *state;
            next.is_journaled = false;
            next.row.delete();
            steps.add(Who::Recovery, "applies the journal", next);
        } else if state.is_away {
            let is_away = false;
            steps.add(
                Who::Recovery,
                "opens the cache",
                State { is_away, ..*state },
            );
        }
        if self.loses_redis && !state.is_away {
            let is_away = true;
            steps.add(Who::Network, "Redis is lost", State { is_away, ..*state });
        }
        let (reader, row) = (state.other_reader, &state.row);
        reader.steps(
            OTHER_READER,
            row,
            Rules::AS_BUILT,
            |what, other_reader, row| {
                let next = State {
                    other_reader,
                    row,
                    ..*state
                };
                steps.add(Who::Reader(OTHER_READER), what, next);
            },
        );
        let evict = Task::lives(Does::Evict);
        let writer = state.other_writer;
        writer.steps(OTHER_WRITER, evict, row, |what, other_writer, row| {
            let next = State {
                other_writer,
                row,
                ..*state
            };
            steps.add(Who::Writer(OTHER_WRITER), what, next);
        });
        let clock = Clock {
            ends_leases: true,
            ends_values: false,
            ends_fences: false,
            has_grace: false,
        };
        clock.steps(row, |what, row| {
            steps.add(Who::Clock, what, State { row, ..*state });
        });
    }

    fn wrong(&self, state: &State) -> Option<Wrong> {
        if state.callers.contains(&Caller::Deceived) {
            return Some(Wrong::StaleAnswer);
        }
        if state.running() > self.limit {
            return Some(Wrong::TooManyLoads);
        }
        state.row.breaks_its_promise().then_some(Wrong::StaleEntry)
    }

    fn wrong_at_rest(&self, state: &State) -> Option<Wrong> {
        let are_done = state.callers == [Caller::Done; CALLERS]
            && state.writer == Evicting::Done
            && state.other_reader == Reader::Done
            && state.other_writer == Writer::Done
            && !state.is_journaled
            && !state.is_away
            && state.under_way.is_none();
        if !are_done {
            return Some(Wrong::Stuck);
        }
        state.row.is_outdated().then_some(Wrong::StaleAtRest)
    }
}

impl Sharing {
    /// Adds the steps of a call of a `#[cache_evict]` function.
    fn evict(&self, state: &State, mut step: impl FnMut(&'static str, State)) {
        let mut next = *state;
        match state.writer {
            Evicting::Start => {
                next.writer = Evicting::Written(next.row.commit());
                step("commits", next);
            }
            Evicting::Written(version) => {
                next.writer = Evicting::Doomed(version);
                if self.dooms != Dooms::Never {
                    next.doom();
                }
                step("dooms", next);
            }
            Evicting::Doomed(version) => {
                if state.is_away || self.eviction == Eviction::MayGoUnanswered {
                    if self.dooms == Dooms::BeforeTheJournal {
                        next.doom();
                    }
                    next.writer = Evicting::Unanswered(version);
                    step("is not answered", next);
                }
                if !state.is_away {
                    let mut next = *state;
                    next.row.delete();
                    next.row.promise(version);
                    if self.dooms == Dooms::BeforeTheJournal {
                        next.doom();
                    }
                    next.writer = Evicting::Settled(version);
                    step("evicts", next);
                }
            }
            Evicting::Unanswered(version) => {
                next.is_journaled = true;
                next.writer = Evicting::Settled(version);
                step("journals", next);
            }
            Evicting::Settled(version) => {
                // A load that began in between may have found a value that was evicted a moment later.
                if self.dooms == Dooms::BeforeAndAfter {
                    next.doom();
                }
                next.promised_here = version;
                next.writer = Evicting::Done;
                step("returns", next);
            }
            Evicting::Done => {}
        }
    }
}

impl State {
    fn flight(&self, flight: Call) -> &Flight {
        &self.flights[usize::from(flight)]
    }

    fn rest_on(&mut self, flight: Call, claim: Option<Stamp>) {
        let after = self.callers.map(|caller| caller != Caller::Start);
        self.flights[usize::from(flight)].basis = Some(Basis { after, claim });
    }

    fn doom(&mut self) {
        if let Some(flight) = self.under_way.take() {
            self.flights[usize::from(flight)].is_doomed = true;
        }
    }

    fn forget(&mut self, flight: Call) {
        if self.under_way == Some(flight) {
            self.under_way = None;
        }
    }

    /// A waiting caller takes over. If no caller waits, the lease is released. A deposed leader has nothing to hand over.
    fn hand_over(&mut self, flight: Call, lease: Option<Stamp>) {
        if self.flight(flight).is_deposed {
            return;
        }
        let is_awaited = self
            .callers
            .iter()
            .any(|caller| matches!(caller, Caller::Waiting { flight: of, .. } if *of == flight));
        if is_awaited {
            self.flights[usize::from(flight)].left = Some(lease);
        } else {
            self.forget(flight);
            if let Some(stamp) = lease.filter(|_| !self.is_away) {
                self.row.delete_if(stamp);
            }
        }
    }
}

fn evictions_here_and_there() -> Sharing {
    Sharing {
        has_other_reader: false,
        has_other_writer: true,
        loses_redis: false,
        eviction: Eviction::IsAnswered,
        dooms: Dooms::BeforeAndAfter,
        joins: Joins::WhatServesIt,
        claims: Claims::HeedTheJournal,
        queue: Queue::TakesTheNext,
        limit: CALLERS,
    }
}

/// A caller that cannot join the only load waits for the next.
fn one_load_at_a_time() -> Sharing {
    Sharing {
        limit: 1,
        ..evictions_here_and_there()
    }
}

fn eviction_without_an_answer() -> Sharing {
    Sharing {
        has_other_reader: true,
        has_other_writer: false,
        eviction: Eviction::MayGoUnanswered,
        ..evictions_here_and_there()
    }
}

fn eviction_while_redis_comes_and_goes() -> Sharing {
    Sharing {
        has_other_writer: false,
        loses_redis: true,
        ..evictions_here_and_there()
    }
}

#[test]
fn no_call_gets_a_value_older_than_an_eviction_that_returned_before_it() {
    let explored = explore(&evictions_here_and_there());

    explored.assert_holds(
        20_000,
        &[
            "joins",
            "shares what landed",
            "is dropped",
            "takes over",
            "takes over from a stuck leader",
            "takes over the lease of a stuck leader",
            "leaves a stuck leader",
            "gives back the lease",
            "is refused the fill",
            "fills",
        ],
    );
}

#[test]
fn no_call_gets_a_value_older_than_a_journaled_eviction() {
    let explored = explore(&Sharing {
        loses_redis: true,
        ..eviction_without_an_answer()
    });

    explored.assert_holds(
        100_000,
        &[
            "finds the key in the journal",
            "finds what another process filled",
            "waits for a lease",
            "knows Redis away",
            "may not fill",
            "shares what landed",
            "applies the journal",
            "opens the cache",
        ],
    );
}

#[test]
fn joining_an_evicted_load_is_caught() {
    let explored = explore(&Sharing {
        dooms: Dooms::Never,
        ..eviction_while_redis_comes_and_goes()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn joining_a_load_that_another_process_evicted_is_caught() {
    let explored = explore(&Sharing {
        eviction: Eviction::None,
        joins: Joins::Any,
        ..evictions_here_and_there()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn waiting_for_another_process_despite_the_journal_is_caught() {
    let explored = explore(&Sharing {
        claims: Claims::DoNot,
        ..eviction_without_an_answer()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn dooming_before_the_eviction_is_journaled_is_caught() {
    let explored = explore(&Sharing {
        loses_redis: true,
        dooms: Dooms::BeforeTheJournal,
        ..eviction_without_an_answer()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn a_caller_that_waits_for_the_next_load_is_not_given_what_was_loaded_before_an_eviction() {
    let explored = explore(&one_load_at_a_time());

    explored.assert_holds(
        20_000,
        &["is queued", "begins the next load", "leaves a stuck load"],
    );
}

#[test]
fn to_give_the_queue_what_the_load_before_it_returned_is_caught() {
    let explored = explore(&Sharing {
        queue: Queue::TakesAny,
        ..one_load_at_a_time()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn to_begin_a_load_while_as_many_run_as_may_is_caught() {
    let explored = explore(&Sharing {
        queue: Queue::None,
        ..one_load_at_a_time()
    });

    explored.assert_breaks(Wrong::TooManyLoads);
}
