//! Callers in one process share a load. Who calls after an eviction has returned must not be given what was loaded before
//! it: an eviction in this process dooms the load that is under way, and one in another process takes away the claim in
//! Redis that the load rests on, which a later caller sees.
//!
//! One process with up to three callers and a writer that evicts, and that Redis may leave without an answer; another process
//! with a reader and a writer. The callers are alike, so they begin in order. While Redis is
//! away nobody can know of another process's evictions, and loads are shared all the more: what is promised then is what this
//! process evicted itself.
//!
//! What a leader found in Redis rests here on the moment of the answer, in the code on that of the question: the code shares
//! a little less.

use crate::explorer::{Model, Steps, Who, Wrong, explore};
use crate::reader::{Reader, Rules};
use crate::row::{Call, Clock, Entry, Row, Stamp, Version};
use crate::writer::{Does, Task, Writer};

const CALLERS: usize = 3;

/// The calls in the other process.
const OTHER_READER: Call = 3;
const OTHER_WRITER: Call = 4;

#[derive(Clone, Copy, Debug)]
struct Sharing {
    callers: usize,
    has_other_reader: bool,
    has_other_writer: bool,
    /// Redis may be away for a while.
    loses_redis: bool,
    eviction: Eviction,
    dooms: Dooms,
    joins: Joins,
    claims: Claims,
}

/// What Redis says to the eviction in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Eviction {
    None,
    IsAnswered,
    MayGoUnanswered,
}

/// When an eviction dooms the load that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dooms {
    /// Before its step in Redis; and after it, when the journal has what is owed.
    BeforeAndAfter,
    /// Twin: the second time before the journal has what is owed.
    BeforeTheJournal,
    /// Twin.
    Never,
}

/// Which load a caller joins: as built, or as a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joins {
    /// One that rests on what the caller saw in Redis, or that began after it.
    WhatServesIt,
    /// Twin: whichever is under way.
    Any,
}

/// Whether a leader that waits for another process's lease heeds the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claims {
    /// Takes nothing that Redis answers while the key is in the journal.
    HeedTheJournal,
    /// Twin: the journal is asked once, at the beginning of the call.
    DoNot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    row: Row,
    callers: [Caller; CALLERS],
    /// By the caller that began it.
    flights: [Flight; CALLERS],
    /// The one that callers may join.
    under_way: Option<Call>,
    writer: Evicting,
    /// An eviction is owed.
    is_journaled: bool,
    is_away: bool,
    /// Nobody sees this: evictions up to this version have returned in this process.
    promised_here: Version,
    other_reader: Reader,
    other_writer: Writer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flight {
    is_doomed: bool,
    basis: Option<Basis>,
    /// The leader is gone; this is the lease that it left.
    left: Option<Option<Stamp>>,
    landed: Option<Version>,
}

/// What the result rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Basis {
    /// Which callers had begun by then.
    after: [bool; CALLERS],
    /// The claim that stood in Redis.
    claim: Option<Stamp>,
}

const NO_FLIGHT: Flight = Flight {
    is_doomed: false,
    basis: None,
    left: None,
    landed: None,
};

/// `since` is what had been promised when the call began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Caller {
    Start,
    /// The key was not in the journal.
    Asking {
        since: Version,
    },
    Looked {
        since: Version,
        saw: Saw,
    },
    Waiting {
        flight: Call,
        since: Version,
        saw: Saw,
    },
    /// Asks for the lease; `before` is another's that was in the way.
    Claiming {
        flight: Call,
        since: Version,
        before: Option<Stamp>,
    },
    /// Has the lease, or may not store.
    Leading {
        flight: Call,
        lease: Option<Stamp>,
        standing: Option<Stamp>,
    },
    Loading {
        flight: Call,
        lease: Option<Stamp>,
    },
    Loaded {
        flight: Call,
        lease: Option<Stamp>,
        version: Version,
    },
    /// Has given the result to those who wait.
    Landed {
        flight: Call,
        lease: Option<Stamp>,
        version: Version,
    },
    LoadingAlone,
    Done,
    Deceived,
}

/// What a caller found in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Saw {
    /// Redis is away.
    Unknown,
    /// It did not look: the key is in the journal.
    Journal,
    Nothing,
    Claim(Stamp),
}

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
            callers: [Caller::Done; CALLERS],
            flights: [NO_FLIGHT; CALLERS],
            under_way: None,
            writer: Evicting::Start,
            is_journaled: false,
            is_away: false,
            promised_here: 0,
            other_reader: Reader::Done,
            other_writer: Writer::Done,
        };
        state.callers[..self.callers].fill(Caller::Start);
        if self.eviction == Eviction::None {
            state.writer = Evicting::Done;
        }
        if self.has_other_reader {
            state.other_reader = Reader::Start;
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
            steps.add(Who::Keeper, "applies the journal", next);
        } else if state.is_away {
            let is_away = false;
            steps.add(Who::Keeper, "opens the cache", State { is_away, ..*state });
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
    /// The steps of a call of a `#[cacheable]` function.
    fn call(&self, state: &State, me: Call, mut step: impl FnMut(&'static str, State)) {
        let index = usize::from(me);
        let mut go = |what, caller, change: &dyn Fn(&mut State)| {
            let mut next = *state;
            next.callers[index] = caller;
            change(&mut next);
            step(what, next);
        };
        match state.callers[index] {
            Caller::Done | Caller::Deceived => {}
            Caller::Start if index > 0 && state.callers[index - 1] == Caller::Start => {}
            Caller::Start => {
                let since = if self.loses_redis {
                    state.promised_here
                } else {
                    state.promised_here.max(state.row.promised)
                };
                if state.is_away {
                    let saw = Saw::Unknown;
                    go("knows Redis away", Caller::Looked { since, saw }, &|_| {});
                } else if state.is_journaled {
                    let saw = Saw::Journal;
                    go(
                        "finds the key in the journal",
                        Caller::Looked { since, saw },
                        &|_| {},
                    );
                } else {
                    go("asks", Caller::Asking { since }, &|_| {});
                }
            }
            Caller::Asking { since } if state.is_away => {
                let saw = Saw::Unknown;
                go("is not answered", Caller::Looked { since, saw }, &|_| {});
            }
            Caller::Asking { since } => match state.row.entry {
                Some(Entry::Value { version, .. }) => go("hits", answer(since, version), &|_| {}),
                Some(claim) => {
                    let saw = Saw::Claim(claim.stamp());
                    go("finds a lease", Caller::Looked { since, saw }, &|_| {});
                }
                None => {
                    let saw = Saw::Nothing;
                    go("finds nothing", Caller::Looked { since, saw }, &|_| {});
                }
            },
            Caller::Looked { since, saw } => match state.under_way {
                Some(flight) if state.flight(flight).left.is_some() => {
                    let lease = state.flight(flight).left.flatten();
                    go("takes over", lead(flight, since, saw, lease), &|next| {
                        next.flights[usize::from(flight)].left = None;
                    });
                }
                Some(flight) if self.serves(state, flight, me, saw) => {
                    go("joins", Caller::Waiting { flight, since, saw }, &|_| {});
                }
                Some(_) | None => go("begins a load", lead(me, since, saw, None), &|next| {
                    next.under_way = Some(me);
                }),
            },

            Caller::Waiting { flight, since, saw } => {
                let Flight { left, landed, .. } = *state.flight(flight);
                if let Some(lease) = left {
                    go("takes over", lead(flight, since, saw, lease), &|next| {
                        next.flights[usize::from(flight)].left = None;
                    });
                }
                match landed {
                    Some(version) if self.serves(state, flight, me, saw) => {
                        go("shares what landed", answer(since, version), &|_| {});
                    }
                    Some(_) => go("finds it too old", Caller::LoadingAlone, &|_| {}),
                    None => {}
                }
            }
            Caller::LoadingAlone => go("loads for itself", Caller::Done, &|_| {}),

            Caller::Claiming { .. } if state.is_away || self.heeds(state) => {
                self.give_up_claim(state, me, &mut step);
            }
            Caller::Claiming {
                flight,
                since,
                before,
            } => match state.row.entry {
                None => {
                    let lease = Some(Stamp::Lease(me));
                    let leading = Caller::Leading {
                        flight,
                        lease,
                        standing: lease,
                    };
                    go("gets the lease", leading, &|next| {
                        next.row.lease(me);
                    });
                }
                Some(Entry::Value { version, .. }) => {
                    let found = match answer(since, version) {
                        Caller::Deceived => Caller::Deceived,
                        _ => Caller::Landed {
                            flight,
                            lease: None,
                            version,
                        },
                    };
                    go("finds what another process filled", found, &|next| {
                        next.rest_on(flight, before);
                        next.flights[usize::from(flight)].landed = Some(version);
                    });
                }
                Some(claim) => {
                    let before = Some(claim.stamp());
                    let claiming = Caller::Claiming {
                        flight,
                        since,
                        before,
                    };
                    go("waits for a lease", claiming, &|_| {});
                    self.give_up_claim(state, me, &mut step);
                }
            },
            Caller::Leading {
                flight,
                lease,
                standing,
            } => {
                go(
                    "begins the body",
                    Caller::Loading { flight, lease },
                    &|next| {
                        next.rest_on(flight, standing);
                    },
                );
            }
            Caller::Loading { flight, lease } => {
                let version = state.row.committed;
                go(
                    "loads",
                    Caller::Loaded {
                        flight,
                        lease,
                        version,
                    },
                    &|_| {},
                );
                go("is dropped", Caller::Done, &|next| {
                    next.hand_over(flight, lease);
                });
            }
            Caller::Loaded {
                flight,
                lease,
                version,
            } => {
                go(
                    "lands",
                    Caller::Landed {
                        flight,
                        lease,
                        version,
                    },
                    &|next| {
                        next.flights[usize::from(flight)].landed = Some(version);
                    },
                );
            }
            Caller::Landed {
                flight,
                lease,
                version,
            } => {
                let what = match lease {
                    None => "stores nothing",
                    Some(_) if state.is_away => "may not fill",
                    Some(_) if state.flight(flight).is_doomed => "gives back the lease",
                    Some(stamp) if state.row.entry.is_some_and(|is| is.stamp() == stamp) => "fills",
                    Some(_) => "is refused the fill",
                };
                go(what, Caller::Done, &|next| {
                    match lease.filter(|_| !next.is_away) {
                        Some(stamp) if next.flight(flight).is_doomed => {
                            next.row.delete_if(stamp);
                        }
                        Some(stamp) => drop(next.row.replace(stamp, Entry::value(me, version))),
                        None => {}
                    }
                    next.forget(flight);
                });
            }
        }
    }

    /// Loads without storing; what stands in the way is what the load rests on.
    fn give_up_claim(&self, state: &State, me: Call, step: &mut impl FnMut(&'static str, State)) {
        let mut next = *state;
        let caller = &mut next.callers[usize::from(me)];
        if let Caller::Claiming { flight, .. } = *caller {
            let is_answered = !state.is_away && !self.heeds(state);
            let standing = state.row.entry.filter(|_| is_answered).map(Entry::stamp);
            *caller = Caller::Leading {
                flight,
                lease: None,
                standing,
            };
            step("may not store", next);
        }
    }

    /// The steps of a call of a `#[cache_evict]` function.
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
                // A load that began in between may have found what was evicted a moment later.
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

    /// Whether what Redis answers is not taken.
    fn heeds(&self, state: &State) -> bool {
        state.is_journaled && self.claims == Claims::HeedTheJournal
    }

    /// Whether another's load is recent enough for a caller.
    fn serves(&self, state: &State, flight: Call, me: Call, saw: Saw) -> bool {
        match state.flight(flight).basis {
            None => true,
            Some(_) if self.joins == Joins::Any || saw == Saw::Unknown => true,
            Some(basis) => {
                basis.after[usize::from(me)]
                    || matches!(saw, Saw::Claim(stamp) if basis.claim == Some(stamp))
            }
        }
    }
}

/// What a caller does that is to load for all.
fn lead(flight: Call, since: Version, saw: Saw, lease: Option<Stamp>) -> Caller {
    match (saw, lease) {
        (_, Some(_)) => Caller::Leading {
            flight,
            lease,
            standing: lease,
        },
        (Saw::Journal | Saw::Unknown, None) => Caller::Leading {
            flight,
            lease,
            standing: None,
        },
        (Saw::Nothing | Saw::Claim(_), None) => Caller::Claiming {
            flight,
            since,
            before: None,
        },
    }
}

fn answer(since: Version, version: Version) -> Caller {
    if version < since {
        Caller::Deceived
    } else {
        Caller::Done
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

    /// Whoever waits takes over; if nobody does, the lease goes back.
    fn hand_over(&mut self, flight: Call, lease: Option<Stamp>) {
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
        callers: 2,
        has_other_reader: false,
        has_other_writer: true,
        loses_redis: false,
        eviction: Eviction::IsAnswered,
        dooms: Dooms::BeforeAndAfter,
        joins: Joins::WhatServesIt,
        claims: Claims::HeedTheJournal,
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
fn nobody_is_given_what_was_loaded_before_an_eviction_that_had_returned() {
    let explored = explore(&evictions_here_and_there());

    explored.assert_holds(
        20_000,
        &[
            "joins",
            "shares what landed",
            "is dropped",
            "takes over",
            "gives back the lease",
            "is refused the fill",
            "fills",
        ],
    );
}

#[test]
fn nobody_is_given_what_was_loaded_before_an_eviction_that_is_owed() {
    let explored = explore(&Sharing {
        loses_redis: true,
        ..eviction_without_an_answer()
    });

    explored.assert_holds(
        500_000,
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
fn to_join_a_load_that_was_evicted_is_caught() {
    let explored = explore(&Sharing {
        dooms: Dooms::Never,
        ..eviction_while_redis_comes_and_goes()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn to_join_a_load_that_another_process_evicted_is_caught() {
    let explored = explore(&Sharing {
        eviction: Eviction::None,
        joins: Joins::Any,
        ..evictions_here_and_there()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn to_wait_for_another_process_while_an_eviction_is_owed_is_caught() {
    let explored = explore(&Sharing {
        claims: Claims::DoNot,
        ..eviction_without_an_answer()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn to_doom_for_the_last_time_before_the_journal_knows_is_caught() {
    let explored = explore(&Sharing {
        loses_redis: true,
        dooms: Dooms::BeforeTheJournal,
        ..eviction_without_an_answer()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}
