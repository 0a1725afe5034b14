//! An eviction that Redis did not acknowledge is kept in the journal of its process. The process neither reads nor fills keys in
//! the journal, and tries to apply it before it uses Redis again. A refused eviction stays in the journal and is retried later.
//!
//! One process loses and regains its connection; it has readers, and writers that evict. Another process stays connected and
//! has one reader. A command without an answer may have run, may run much later, or never: it is *late*, and the network runs
//! it or loses it at any time.

use crate::explorer::{Model, Steps, Who, Wrong, explore};
use crate::reader::{Reader, Rules};
use crate::row::{Age, Call, Clock, Entry, Row, Stamp, Version};

const READERS: usize = 2;
const WRITERS: usize = 2;

/// The reader in the other process.
const OTHER: Call = 2;

#[derive(Clone, Copy, Debug)]
struct Journaling {
    readers: usize,
    writers: usize,
    /// A command may get no answer although the connection is open.
    times_out: bool,
    /// Redis may refuse the commands of the recovery task.
    refuses: bool,
    opens: Opens,
    blocks: Blocks,
    forgets: Forgets,
}

/// The state of the journal when the process uses Redis again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    /// It is empty, or holds only refused evictions.
    WhenTried,
    /// Twin: in any state. It is applied while callers use Redis.
    AsItIs,
    /// Twin: it is dropped.
    Emptied,
}

/// Whether the keys in the journal are hidden from this process while it can reach Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocks {
    Always,
    /// Twin.
    OnlyWhileRedisIsAway,
    /// Twin.
    UnlessRefused,
}

/// What is removed from the journal after a batch was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgets {
    WhatWasNotAddedAgain,
    /// Twin.
    Everything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    row: Row,
    link: Link,
    /// The eviction in the journal.
    journal: Option<Owed>,
    /// Whether Redis has refused it.
    is_refused: bool,
    recovery: Recovery,
    /// Not visible to any actor: evictions up to this version have returned in this process.
    promised_here: Version,
    readers: [Here; READERS],
    writers: [Evicting; WRITERS],
    other: Reader,
    /// The last unanswered command of each reader.
    late: [Option<Command>; READERS],
    /// Whether an unanswered `DEL` may still run.
    late_delete: bool,
    /// Leases of this process that may be in Redis without an owner.
    orphans: [bool; READERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Connected,
    Fallback,
    Recovering,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Owed {
    /// Counts additions.
    number: u8,
    /// Not visible to any actor: the latest version that it must evict.
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Recovery {
    Idle,
    Applying(Owed),
    Applied(Owed),
}

/// A reader in the process with the journal. `since` is the version of the latest eviction that had returned when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Here {
    Start,
    /// Redis was available, and the key was not in the journal.
    Asking {
        since: Version,
    },
    Missed {
        since: Version,
    },
    Loading(Stamp),
    LoadingAlone,
    Loaded(Stamp, Version),
    Done,
    /// Returned a value older than `since`.
    Deceived,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Evicting {
    Start,
    Written(Version),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Command {
    Lease(Call),
    Fill(Call, Stamp, Version),
}

impl Model for Journaling {
    type State = State;

    fn start(&self) -> State {
        let mut state = State {
            row: Row::CACHED,
            link: Link::Connected,
            journal: None,
            is_refused: false,
            recovery: Recovery::Idle,
            promised_here: 0,
            readers: [Here::Done; READERS],
            writers: [Evicting::Done; WRITERS],
            other: Reader::Start,
            late: [None; READERS],
            late_delete: false,
            orphans: [false; READERS],
        };
        state.readers[..self.readers].fill(Here::Start);
        state.writers[..self.writers].fill(Evicting::Start);
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for me in (0..).take(READERS) {
            let who = Who::Reader(me);
            self.read(state, me, |what, next| steps.add(who, what, next));
        }
        for me in (0..).take(WRITERS) {
            let who = Who::Writer(me);
            self.evict(state, me, |what, next| steps.add(who, what, next));
        }
        self.recover(state, |what, next| steps.add(Who::Recovery, what, next));
        Self::network(state, |what, next| steps.add(Who::Network, what, next));
        state
            .other
            .steps(OTHER, &state.row, Rules::AS_BUILT, |what, other, row| {
                steps.add(
                    Who::Reader(OTHER),
                    what,
                    State {
                        row,
                        other,
                        ..*state
                    },
                );
            });
        let clock = Clock {
            ends_leases: true,
            ends_values: true,
            ends_fences: false,
            has_grace: false,
        };
        clock.steps(&state.row, |what, row| {
            steps.add(Who::Clock, what, State { row, ..*state });
        });
    }

    fn wrong(&self, state: &State) -> Option<Wrong> {
        if state.readers.contains(&Here::Deceived) {
            return Some(Wrong::StaleAnswer);
        }
        state.row.breaks_its_promise().then_some(Wrong::StaleEntry)
    }

    fn wrong_at_rest(&self, state: &State) -> Option<Wrong> {
        let are_done = state.readers == [Here::Done; READERS]
            && state.writers == [Evicting::Done; WRITERS]
            && state.other == Reader::Done
            && state.link == Link::Connected
            && state.journal.is_none();
        if !are_done {
            return Some(Wrong::Stuck);
        }
        state.row.is_outdated().then_some(Wrong::StaleAtRest)
    }
}

impl Journaling {
    /// Adds the steps of a call of a `#[cacheable]` function. Each command may stay unanswered.
    fn read(&self, state: &State, me: Call, mut step: impl FnMut(&'static str, State)) {
        let index = usize::from(me);
        let is_away = state.link != Link::Connected;
        let is_blocked = state.journal.is_some()
            && match self.blocks {
                Blocks::Always => true,
                Blocks::OnlyWhileRedisIsAway => false,
                Blocks::UnlessRefused => !state.is_refused,
            };
        let mut go = |what, here, change: &dyn Fn(&mut State)| {
            let mut next = *state;
            next.readers[index] = here;
            change(&mut next);
            step(what, next);
        };
        let answer = |since, version| {
            if version < since {
                Here::Deceived
            } else {
                Here::Done
            }
        };

        match state.readers[index] {
            Here::Done | Here::Deceived => {}
            Here::Start if is_away => go("knows Redis away", Here::LoadingAlone, &|_| {}),
            Here::Start if is_blocked => {
                go("finds the key in the journal", Here::LoadingAlone, &|_| {});
            }
            Here::Start => {
                let since = state.promised_here;
                go("asks", Here::Asking { since }, &|_| {});
            }

            Here::Asking { .. } | Here::Missed { .. } if is_away => {
                go("finds Redis away", Here::LoadingAlone, &|_| {});
            }
            Here::Asking { since } => {
                match state.row.entry {
                    Some(Entry::Value { version, .. }) => {
                        go("hits", answer(since, version), &|_| {});
                    }
                    _ => go("finds no value", Here::Missed { since }, &|_| {}),
                }
                go("is not answered", Here::LoadingAlone, &|_| {});
            }
            Here::Missed { since } => {
                match state.row.entry {
                    None => go("gets the lease", Here::Loading(Stamp::Lease(me)), &|next| {
                        next.row.lease(me);
                    }),
                    Some(Entry::Value { version, .. }) => {
                        go(
                            "finds what was filled meanwhile",
                            answer(since, version),
                            &|_| {},
                        );
                    }
                    Some(Entry::Lease { by }) if state.is_orphan(by) => {
                        go(
                            "takes over an orphan",
                            Here::Loading(Stamp::Lease(by)),
                            &|next| {
                                next.orphans[usize::from(by)] = false;
                            },
                        );
                    }
                    Some(Entry::Lease { .. } | Entry::Fence { .. }) => {
                        go("waits no longer for a lease", Here::LoadingAlone, &|_| {});
                    }
                }
                go(
                    "is not answered for the lease",
                    Here::LoadingAlone,
                    &|next| {
                        next.late[index] = Some(Command::Lease(me));
                        next.orphans[index] = true;
                    },
                );
            }

            Here::LoadingAlone => go("loads for itself", Here::Done, &|_| {}),
            Here::Loading(stamp) => {
                let version = state.row.committed;
                go("loads", Here::Loaded(stamp, version), &|_| {});
            }
            Here::Loaded(..) if is_away => go("may not fill", Here::Done, &|_| {}),
            Here::Loaded(stamp, version) => {
                let fill = Command::Fill(me, stamp, version);
                let what = match state.row.entry {
                    Some(entry) if entry.stamp() == stamp => "fills",
                    _ => "is refused the fill",
                };
                go(what, Here::Done, &|next| next.row.carry_out(fill));
                go("is not answered for the fill", Here::Done, &|next| {
                    next.late[index] = Some(fill);
                });
            }
        }
    }

    /// Adds the steps of a call of a `#[cache_evict]` function.
    fn evict(&self, state: &State, me: Call, mut step: impl FnMut(&'static str, State)) {
        let index = usize::from(me);
        let mut next = *state;
        match state.writers[index] {
            Evicting::Start => {
                next.writers[index] = Evicting::Written(next.row.commit());
                step("commits", next);
            }
            Evicting::Written(version) => {
                next.writers[index] = Evicting::Done;
                next.promised_here = next.promised_here.max(version);

                let mut journaled = next;
                journaled.owe(version);
                if state.link == Link::Connected {
                    next.row.delete();
                    next.row.promise(version);
                    step("evicts", next);

                    if self.times_out {
                        journaled.late_delete = true;
                        step("is not answered and journals", journaled);
                    }
                } else {
                    step("journals", journaled);
                }
            }
            Evicting::Done => {}
        }
    }

    /// Adds the steps of the recovery task.
    fn recover(&self, state: &State, mut step: impl FnMut(&'static str, State)) {
        let mut next = *state;
        match (state.recovery, state.journal, state.link) {
            (Recovery::Idle, _, Link::Fallback) => {
                next.link = match self.opens {
                    Opens::WhenTried => Link::Recovering,
                    Opens::AsItIs => Link::Connected,
                    Opens::Emptied => {
                        next.journal = None;
                        Link::Connected
                    }
                };
                next.is_refused = false;
                step("finds Redis again", next);
            }
            (Recovery::Idle, Some(_), _) if state.is_refused => {
                if state.link == Link::Recovering {
                    let link = Link::Connected;
                    step("opens the cache for the rest", State { link, ..*state });
                }
                next.is_refused = false;
                step("tries again", next);
            }
            (Recovery::Idle, Some(owed), _) => {
                next.recovery = Recovery::Applying(owed);
                step("takes what is in the journal", next);
            }
            (Recovery::Idle, None, Link::Recovering) => {
                next.link = Link::Connected;
                step("opens the cache", next);
            }
            (Recovery::Idle, None, Link::Connected) => {}
            (Recovery::Applying(owed), ..) => {
                next.row.delete();
                next.recovery = Recovery::Applied(owed);
                step("evicts what was owed", next);

                let mut next = *state;
                next.late_delete = true;
                next.recovery = Recovery::Idle;
                step("is not answered and keeps the journal", next);

                if self.refuses {
                    let mut next = *state;
                    next.recovery = Recovery::Idle;
                    next.is_refused = next.journal == Some(owed);
                    step("is refused and keeps the journal", next);
                }
            }
            (Recovery::Applied(owed), journal, _) => {
                next.recovery = Recovery::Idle;
                next.row.promise(owed.version);
                if journal == Some(owed) || self.forgets == Forgets::Everything {
                    next.journal = None;
                    next.is_refused = false;
                    step("strikes it out", next);
                } else {
                    step("leaves what was added again", next);
                }
            }
        }
    }

    /// Adds the steps of the network: it loses the connection, and late commands run or are lost.
    fn network(state: &State, mut step: impl FnMut(&'static str, State)) {
        if state.link != Link::Fallback {
            let link = Link::Fallback;
            step("Redis is lost", State { link, ..*state });
        }
        for (me, command) in state.late.iter().enumerate() {
            let Some(command) = *command else { continue };
            let mut lost = *state;
            lost.late[me] = None;
            let mut done = lost;
            done.row.carry_out(command);
            step("a late command is lost", lost);
            step("a late command is carried out", done);
        }
        if state.late_delete {
            let mut lost = *state;
            lost.late_delete = false;
            let mut done = lost;
            done.row.delete();
            step("a late DEL is lost", lost);
            step("a late DEL is carried out", done);
        }
    }
}

impl State {
    fn owe(&mut self, version: Version) {
        let (number, before) = self
            .journal
            .map_or((0, 0), |owed| (owed.number, owed.version));
        self.journal = Some(Owed {
            number: number + 1,
            version: version.max(before),
        });
        self.is_refused = false;
    }

    fn is_orphan(&self, by: Call) -> bool {
        self.orphans.get(usize::from(by)).is_some_and(|is| *is)
    }
}

impl Row {
    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Lease(by) => drop(self.lease(by)),
            Command::Fill(by, stamp, version) => {
                let age = Age::Fresh;
                self.replace(stamp, Entry::Value { by, version, age });
            }
        }
    }
}

fn as_built() -> Journaling {
    Journaling {
        readers: 1,
        writers: 2,
        times_out: true,
        refuses: false,
        opens: Opens::WhenTried,
        blocks: Blocks::Always,
        forgets: Forgets::WhatWasNotAddedAgain,
    }
}

const REACHED: [&str; 10] = [
    "hits",
    "fills",
    "is refused the fill",
    "finds the key in the journal",
    "is not answered for the lease",
    "is not answered and journals",
    "is not answered and keeps the journal",
    "a late command is carried out",
    "a late DEL is carried out",
    "opens the cache",
];

#[test]
fn an_unacknowledged_eviction_is_applied_before_redis_is_used_again() {
    let explored = explore(&as_built());

    explored.assert_holds(50_000, &REACHED);
    explored.assert_holds(50_000, &["leaves what was added again"]);
}

#[test]
fn a_lease_without_an_owner_stores_nothing_older_than_an_eviction() {
    let explored = explore(&Journaling {
        readers: 2,
        writers: 1,
        ..as_built()
    });

    explored.assert_holds(50_000, &REACHED);
    explored.assert_holds(50_000, &["takes over an orphan"]);
}

#[test]
fn a_refused_eviction_hides_its_key_until_it_is_applied() {
    let explored = explore(&Journaling {
        writers: 1,
        refuses: true,
        ..as_built()
    });

    explored.assert_holds(
        5_000,
        &[
            "is refused and keeps the journal",
            "opens the cache for the rest",
            "tries again",
            "finds the key in the journal",
        ],
    );
}

#[test]
fn reading_a_key_whose_eviction_was_refused_is_caught() {
    let explored = explore(&Journaling {
        refuses: true,
        blocks: Blocks::UnlessRefused,
        ..as_built()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn dropping_the_journal_when_redis_returns_is_caught() {
    let explored = explore(&Journaling {
        opens: Opens::Emptied,
        ..as_built()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn applying_the_journal_after_reads_resume_is_caught() {
    let explored = explore(&Journaling {
        times_out: false,
        opens: Opens::AsItIs,
        blocks: Blocks::OnlyWhileRedisIsAway,
        ..as_built()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn reading_a_journaled_key_from_a_slow_redis_is_caught() {
    let explored = explore(&Journaling {
        blocks: Blocks::OnlyWhileRedisIsAway,
        ..as_built()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn forgetting_evictions_added_during_a_batch_is_caught() {
    let explored = explore(&Journaling {
        forgets: Forgets::Everything,
        ..as_built()
    });

    explored.assert_breaks(Wrong::StaleAtRest);
}
