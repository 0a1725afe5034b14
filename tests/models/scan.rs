//! An eviction by pattern scans the keyspace of one node slice by slice: it asks for the names in a slice, then removes them.
//! The scan finds every key that exists during all of it, and may miss a key that appears during it. That is enough, because
//! the lease of a load is under the key of the entry: a load from before the commit has a lease there, or may not store.
//!
//! Two keys, two readers of the first key and one of the second, a put of the first, and a scan that visits the keys in any
//! order, as Redis does while it resizes its table.

use crate::explorer::{Model, Steps, Who, Wrong, explore};
use crate::reader::{Lease, Reader, Rules};
use crate::row::{Clock, Entry, Row, Stamp, Version};
use crate::writer::{Does, Put, Task, Writer};

const KEYS: usize = 2;

/// The key that each reader reads.
const READS: [usize; 3] = [0, 0, 1];

/// The key that is put.
const PUTS: usize = 0;

#[derive(Clone, Debug)]
struct Scan {
    has_put: bool,
    rules: Rules,
    removes: Removes,
    scans: Scans,
}

/// What the scan removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removes {
    /// Whatever is under the name by then.
    Names,
    /// Twin: only the entry that it saw.
    WhatItSaw,
    /// Twin: only values, no claims.
    Values,
}

/// When the scan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scans {
    AfterTheCommit,
    /// Twin.
    BeforeTheCommit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    rows: [Row; KEYS],
    readers: [Reader; READS.len()],
    put: Writer,
    eviction: Eviction,
    /// The version that it committed.
    versions: [Version; KEYS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Eviction {
    Start,
    Scanning {
        visited: [bool; KEYS],
        /// A name that was found and will be removed.
        found: Option<(usize, Stamp)>,
    },
    Scanned,
    Done,
}

const SCAN: Eviction = Eviction::Scanning {
    visited: [false; KEYS],
    found: None,
};

impl Model for Scan {
    type State = State;

    fn start(&self) -> State {
        State {
            rows: [Row::EMPTY, Row::CACHED],
            readers: [Reader::Start; READS.len()],
            put: if self.has_put {
                Writer::Start
            } else {
                Writer::Done
            },
            eviction: Eviction::Start,
            versions: [0; KEYS],
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for (me, key) in (0..).zip(READS) {
            let reader = state.readers[usize::from(me)];
            reader.steps(me, &state.rows[key], self.rules, |what, reader, row| {
                let mut next = *state;
                next.readers[usize::from(me)] = reader;
                next.rows[key] = row;
                steps.add(Who::Reader(me), what, next);
            });
        }
        let put = Task::lives(Does::Put(Put::AloneAndUnchanged));
        state
            .put
            .steps(3, put, &state.rows[PUTS], |what, put, row| {
                let mut next = State { put, ..*state };
                next.rows[PUTS] = row;
                steps.add(Who::Writer(0), what, next);
            });
        self.evict(state, |what, next| steps.add(Who::Writer(1), what, next));
        let clock = Clock {
            ends_leases: true,
            ends_values: false,
            ends_fences: true,
            has_grace: false,
        };
        for key in 0..KEYS {
            clock.steps(&state.rows[key], |what, row| {
                let mut next = *state;
                next.rows[key] = row;
                steps.add(Who::Clock, what, next);
            });
        }
    }

    fn wrong(&self, state: &State) -> Option<Wrong> {
        let is_stale = state.rows.iter().any(Row::breaks_its_promise);
        is_stale.then_some(Wrong::StaleEntry)
    }

    fn wrong_at_rest(&self, state: &State) -> Option<Wrong> {
        let are_done = state.readers.iter().all(|reader| *reader == Reader::Done)
            && state.put == Writer::Done
            && state.eviction == Eviction::Done;
        if !are_done {
            return Some(Wrong::Stuck);
        }
        let is_stale = state.rows.iter().any(Row::is_outdated);
        is_stale.then_some(Wrong::StaleAtRest)
    }
}

impl Scan {
    /// Adds the steps of `#[cache_evict(pattern = …)]`.
    fn evict(&self, state: &State, mut step: impl FnMut(&'static str, State)) {
        match state.eviction {
            Eviction::Start if self.scans == Scans::BeforeTheCommit => {
                step(
                    "begins to scan",
                    State {
                        eviction: SCAN,
                        ..*state
                    },
                );
            }
            Eviction::Start => step("commits", state.committed(SCAN)),
            Eviction::Scanning {
                found: Some((key, seen)),
                visited,
            } => {
                let mut next = *state;
                next.eviction = Eviction::Scanning {
                    visited,
                    found: None,
                };
                match self.removes {
                    Removes::Names | Removes::Values => next.rows[key].delete(),
                    Removes::WhatItSaw => drop(next.rows[key].delete_if(seen)),
                }
                step("UNLINKs what it found", next);
            }
            Eviction::Scanning {
                found: None,
                visited,
            } if visited == [true; KEYS] => {
                step(
                    "has scanned",
                    State {
                        eviction: Eviction::Scanned,
                        ..*state
                    },
                );
            }
            Eviction::Scanning {
                found: None,
                visited,
            } => {
                for key in (0..KEYS).filter(|key| !visited[*key]) {
                    let there = state.rows[key].entry.filter(|entry| {
                        self.removes != Removes::Values || matches!(entry, Entry::Value { .. })
                    });
                    let mut visited = visited;
                    visited[key] = true;
                    let found = there.map(|entry| (key, entry.stamp()));
                    let what = match found {
                        Some(_) => "SCANs and finds a name",
                        None => "SCANs and finds nothing",
                    };
                    let eviction = Eviction::Scanning { visited, found };
                    step(what, State { eviction, ..*state });
                }
            }
            Eviction::Scanned => {
                let mut next = match self.scans {
                    Scans::AfterTheCommit => *state,
                    Scans::BeforeTheCommit => state.committed(Eviction::Done),
                };
                for (row, version) in next.rows.iter_mut().zip(next.versions) {
                    row.promise(version);
                }
                next.eviction = Eviction::Done;
                step("returns", next);
            }
            Eviction::Done => {}
        }
    }
}

impl State {
    /// One transaction writes all rows.
    fn committed(&self, eviction: Eviction) -> Self {
        let mut next = Self { eviction, ..*self };
        next.versions = next.rows.each_mut().map(Row::commit);
        next
    }
}

fn as_built() -> Scan {
    Scan {
        has_put: true,
        rules: Rules::AS_BUILT,
        removes: Removes::Names,
        scans: Scans::AfterTheCommit,
    }
}

/// A model without the put, for twins: with it, the explorer would find a shorter error in the put.
fn without_put() -> Scan {
    Scan {
        has_put: false,
        ..as_built()
    }
}

#[test]
fn a_scan_removes_everything_older_than_it() {
    let explored = explore(&as_built());

    explored.assert_holds(
        20_000,
        &[
            "SCANs and finds a name",
            "SCANs and finds nothing",
            "fills",
            "is refused the fill",
            "puts",
            "is refused the put",
        ],
    );
}

#[test]
fn a_lease_under_a_name_outside_the_pattern_is_caught() {
    let explored = explore(&Scan {
        rules: Rules {
            lease: Lease::Apart,
            ..Rules::AS_BUILT
        },
        ..without_put()
    });

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_scan_that_spares_claims_is_caught() {
    let explored = explore(&Scan {
        removes: Removes::Values,
        ..without_put()
    });

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_scan_that_spares_changed_entries_is_caught() {
    let explored = explore(&Scan {
        removes: Removes::WhatItSaw,
        ..without_put()
    });

    explored.assert_breaks(Wrong::StaleEntry);
}

#[test]
fn a_scan_before_the_commit_is_caught() {
    let explored = explore(&Scan {
        scans: Scans::BeforeTheCommit,
        ..without_put()
    });

    explored.assert_breaks(Wrong::StaleEntry);
}
