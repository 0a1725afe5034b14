//! A replica takes the place of the primary, and lacks an eviction that the primary acknowledged. The process that evicted applies its
//! recent evictions again before it reads the key from the new primary.
//!
//! One process has readers, and writers that evict. Another process has one reader, and evicts nothing. The replica copies the
//! primary at any time or never, and takes its place once. A process that dies applies nothing again. Its evictions are kept only
//! if they waited for the replica.

use crate::explorer::{Model, Steps, Who, Wrong, explore};
use crate::reader::{Reader, Rules};
use crate::row::{Age, Call, Clock, Entry, Row, Stamp, Version};

const READERS: usize = 2;
const WRITERS: usize = 2;

/// The reader in the other process.
const OTHER: Call = 2;

#[derive(Clone, Copy, Debug)]
struct Failover {
    readers: usize,
    writers: usize,
    remembers: Remembers,
    replays: Replays,
    /// Whether evictions wait until the replica has them.
    confirms: bool,
    /// Whether the process may die.
    dies: bool,
}

/// When an eviction is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remembers {
    BeforeItIsSent,
    /// Twin.
    AfterItIsAcknowledged,
}

/// When recent evictions are put into the journal, which hides their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replays {
    BeforeTheServerIsUsed,
    /// Twin.
    WhileItIsUsed,
    /// Twin.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// With the entry of the primary.
    row: Row,
    replica: Replica,
    /// Not visible to any actor: the primary has removed the entry for this version.
    removed: Version,
    link: Link,
    /// What the process remembers.
    recent: bool,
    journal: bool,
    /// Not visible to any actor: evictions up to this version have returned in this process.
    promised_here: Version,
    readers: [Here; READERS],
    writers: [Evicting; WRITERS],
    other: Reader,
}

/// The entry of the replica, and for which version it has removed the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Replica {
    Follows(Option<Entry>, Version),
    /// It is the primary now.
    Promoted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Connected,
    /// To the server that is gone.
    Lost,
    /// Twin: recent evictions are not in the journal yet.
    ConnectedTooEarly,
    Dead,
}

/// A reader in the process that evicts. `since` is the version of the latest eviction that had returned when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Here {
    Start,
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
    Remembered(Version),
    /// The primary has removed the entry.
    Acknowledged(Version),
    Done,
}

impl Model for Failover {
    type State = State;

    fn start(&self) -> State {
        let row = Row::CACHED;
        let mut state = State {
            row,
            replica: Replica::Follows(row.entry, 0),
            removed: 0,
            link: Link::Connected,
            recent: false,
            journal: false,
            promised_here: 0,
            readers: [Here::Done; READERS],
            writers: [Evicting::Done; WRITERS],
            other: Reader::Start,
        };
        state.readers[..self.readers].fill(Here::Start);
        state.writers[..self.writers].fill(Evicting::Start);
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        if state.link != Link::Dead {
            for me in (0..).take(READERS) {
                Self::read(state, me, |what, next| {
                    steps.add(Who::Reader(me), what, next);
                });
            }
            for me in (0..).take(WRITERS) {
                self.evict(state, me, |what, next| {
                    steps.add(Who::Writer(me), what, next);
                });
            }
            self.recover(state, |what, next| steps.add(Who::Recovery, what, next));
        }
        self.network(state, |what, next| steps.add(Who::Network, what, next));
        let (rules, other) = (Rules::AS_BUILT, state.other);
        other.steps(OTHER, &state.row, rules, |what, other, row| {
            let next = State {
                row,
                other,
                ..*state
            };
            steps.add(Who::Reader(OTHER), what, next);
        });
        let clock = Clock {
            ends_leases: true,
            ends_values: false,
            ends_fences: false,
            has_grace: false,
        };
        clock.steps(&state.row, |what, row| {
            steps.add(Who::Clock, what, State { row, ..*state });
        });
    }

    fn wrong(&self, state: &State) -> Option<Wrong> {
        let is_deceived = state.readers.contains(&Here::Deceived);
        is_deceived.then_some(Wrong::StaleAnswer)
    }

    fn wrong_at_rest(&self, state: &State) -> Option<Wrong> {
        if state.link == Link::Dead {
            // What did not return may be lost with the process.
            let is_stale = state.row.breaks_its_promise();
            return is_stale.then_some(Wrong::StaleAtRest);
        }
        let are_done = state.readers == [Here::Done; READERS]
            && state.writers == [Evicting::Done; WRITERS]
            && state.other == Reader::Done
            && state.link == Link::Connected
            && !state.journal;
        if !are_done {
            return Some(Wrong::Stuck);
        }
        state.row.is_outdated().then_some(Wrong::StaleAtRest)
    }
}

impl Failover {
    /// Adds the steps of a call of a `#[cacheable]` function.
    fn read(state: &State, me: Call, mut step: impl FnMut(&'static str, State)) {
        let index = usize::from(me);
        let is_away = state.link == Link::Lost;
        let mut go = |what, here, row| {
            let mut next = State { row, ..*state };
            next.readers[index] = here;
            step(what, next);
        };
        let mut row = state.row;
        match state.readers[index] {
            Here::Done | Here::Deceived => {}
            Here::Start if is_away => go("finds Redis away", Here::LoadingAlone, row),
            Here::Start if state.journal => {
                go("finds the key in the journal", Here::LoadingAlone, row);
            }
            Here::Start => {
                let since = state.promised_here;
                match row.entry {
                    Some(Entry::Value { version, .. }) if version < since => {
                        go("is deceived", Here::Deceived, row);
                    }
                    Some(Entry::Value { .. }) => go("hits", Here::Done, row),
                    _ => go("finds no value", Here::Missed { since }, row),
                }
            }
            Here::Missed { .. } if is_away || state.journal => {
                go("may not ask for the lease", Here::LoadingAlone, row);
            }
            Here::Missed { since } => match row.lease(me) {
                None => go("gets the lease", Here::Loading(Stamp::Lease(me)), row),
                Some(Entry::Value { version, .. }) if version < since => {
                    go("is deceived", Here::Deceived, row);
                }
                Some(Entry::Value { .. }) => {
                    go("finds what was filled in between", Here::Done, row);
                }
                Some(Entry::Lease { .. } | Entry::Fence { .. }) => {
                    go("waits no longer for a lease", Here::LoadingAlone, row);
                }
            },
            Here::Loading(stamp) => go("loads", Here::Loaded(stamp, row.committed), row),
            Here::LoadingAlone => go("loads for itself", Here::Done, row),
            Here::Loaded(..) if is_away || state.journal => go("may not fill", Here::Done, row),
            Here::Loaded(stamp, version) => {
                let age = Age::Fresh;
                let what = match row.replace(
                    stamp,
                    Entry::Value {
                        by: me,
                        version,
                        age,
                    },
                ) {
                    true => "fills",
                    false => "is refused the fill",
                };
                go(what, Here::Done, row);
            }
        }
    }

    /// Adds the steps of a call of a `#[cache_evict]` function.
    fn evict(&self, state: &State, me: Call, mut step: impl FnMut(&'static str, State)) {
        let index = usize::from(me);
        let is_away = state.link == Link::Lost;
        let mut next = *state;
        let mut becomes = |what, evicting, mut next: State| {
            next.writers[index] = evicting;
            step(what, next);
        };
        match state.writers[index] {
            Evicting::Done => {}
            Evicting::Start => {
                let version = next.row.commit();
                becomes("commits", Evicting::Written(version), next);
            }
            Evicting::Written(version) => {
                next.recent |= self.remembers == Remembers::BeforeItIsSent;
                becomes("remembers", Evicting::Remembered(version), next);
            }
            Evicting::Remembered(version) | Evicting::Acknowledged(version) if is_away => {
                next.journal = true;
                next.returned(version);
                becomes("journals", Evicting::Done, next);
            }
            Evicting::Remembered(version) => {
                next.row.delete();
                next.removed = next.removed.max(version);
                becomes("evicts", Evicting::Acknowledged(version), next);
            }
            Evicting::Acknowledged(version) => {
                let is_confirmed = match state.replica {
                    Replica::Follows(_, removed) => removed >= version,
                    Replica::Promoted => state.removed >= version,
                };
                if is_confirmed || !self.confirms {
                    next.recent = true;
                    next.returned(version);
                    next.row.promise(version);
                    becomes("returns", Evicting::Done, next);
                }
                if self.confirms && !is_confirmed {
                    next.recent = true;
                    next.returned(version);
                    becomes("returns without a confirmation", Evicting::Done, next);
                }
            }
        }
    }

    /// Adds the steps of the recovery task.
    fn recover(&self, state: &State, mut step: impl FnMut(&'static str, State)) {
        let mut next = *state;
        match state.link {
            Link::Lost => {
                next.link = match self.replays {
                    Replays::WhileItIsUsed => Link::ConnectedTooEarly,
                    Replays::BeforeTheServerIsUsed | Replays::Never => Link::Connected,
                };
                next.journal |= state.recent && self.replays == Replays::BeforeTheServerIsUsed;
                step("finds another server", next);
            }
            Link::ConnectedTooEarly => {
                next.link = Link::Connected;
                next.journal |= state.recent;
                step("owes recent evictions", next);
            }
            Link::Connected if state.journal => {
                next.row.delete();
                next.removed = next.row.committed;
                next.journal = false;
                step("evicts what was owed", next);
            }
            Link::Connected | Link::Dead => {}
        }
    }

    /// Adds the steps of the servers, and the death of the process.
    fn network(&self, state: &State, mut step: impl FnMut(&'static str, State)) {
        if let Replica::Follows(entry, removed) = state.replica {
            let mut copied = *state;
            copied.replica = Replica::Follows(state.row.entry, state.removed);
            step("the replica copies", copied);

            let mut promoted = *state;
            promoted.row.entry = entry;
            promoted.removed = removed;
            promoted.replica = Replica::Promoted;
            if state.link == Link::Connected {
                promoted.link = Link::Lost;
            }
            step("the replica is promoted", promoted);
        }
        if self.dies && state.link != Link::Dead {
            let link = Link::Dead;
            step("the process dies", State { link, ..*state });
        }
    }
}

impl State {
    /// An eviction returns to its caller.
    fn returned(&mut self, version: Version) {
        self.promised_here = self.promised_here.max(version);
    }
}

fn as_built() -> Failover {
    Failover {
        readers: 2,
        writers: 2,
        remembers: Remembers::BeforeItIsSent,
        replays: Replays::BeforeTheServerIsUsed,
        confirms: false,
        dies: false,
    }
}

#[test]
fn an_acknowledged_eviction_is_applied_again_before_another_server_is_read() {
    let explored = explore(&as_built());

    explored.assert_holds(
        10_000,
        &[
            "hits",
            "fills",
            "is refused the fill",
            "finds the key in the journal",
            "journals",
            "the replica is promoted",
            "finds another server",
            "evicts what was owed",
        ],
    );
}

#[test]
fn a_failover_without_a_replay_is_caught() {
    let explored = explore(&Failover {
        replays: Replays::Never,
        ..as_built()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn a_replay_after_callers_use_the_server_is_caught() {
    let explored = explore(&Failover {
        replays: Replays::WhileItIsUsed,
        ..as_built()
    });

    explored.assert_breaks(Wrong::StaleAnswer);
}

#[test]
fn an_eviction_that_is_remembered_after_its_acknowledgement_is_caught() {
    let explored = explore(&Failover {
        remembers: Remembers::AfterItIsAcknowledged,
        readers: 0,
        ..as_built()
    });

    explored.assert_breaks(Wrong::StaleAtRest);
}

/// The evictions that a replica confirmed.
#[test]
fn a_confirmed_eviction_outlives_its_process() {
    let explored = explore(&Failover {
        readers: 1,
        confirms: true,
        dies: true,
        ..as_built()
    });

    explored.assert_holds(
        1_000,
        &[
            "the process dies",
            "returns",
            "returns without a confirmation",
        ],
    );
}

#[test]
fn an_eviction_that_nothing_confirmed_and_whose_process_died_is_caught() {
    let explored = explore(&Failover {
        dies: true,
        ..as_built()
    });

    explored.assert_breaks(Wrong::StaleAtRest);
}
