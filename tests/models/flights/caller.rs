//! The steps of a call of a `#[cacheable]` function that shares its load with other calls in its process.
//!
//! ```text
//! start ──GET──► nothing, or a lease ──► no load under way, or none that serves this call ─► leads: lease, body, lands, fills
//!                                   ├──► one that serves it ─► waits ─► shares what landed, takes over, or finds it too old
//!                                   └──► as many as may run, none serves it ─► is queued ─► begins the next when one ends
//! ```

use super::{CALLERS, Claims, Flight, Joins, Queue, Sharing, State};
use crate::row::{Call, Entry, Stamp, Version};

/// `since` is the version of the latest eviction that had returned when the call began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Caller {
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
    /// Waits for a load that has not begun.
    Queued {
        since: Version,
        saw: Saw,
    },
    /// Asks for the lease. `before` is a lease of another caller that was found before.
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
    /// Has given the result to the waiters.
    Landed {
        flight: Call,
        lease: Option<Stamp>,
        version: Version,
    },
    Done,
    Deceived,
}

/// What a caller found in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Saw {
    /// Redis is unavailable.
    Unknown,
    /// The caller did not look, because the key is in the journal.
    Journal,
    Nothing,
    Claim(Stamp),
}

impl Sharing {
    /// Adds the steps of a call of a `#[cacheable]` function.
    pub(super) fn call(&self, state: &State, me: Call, mut step: impl FnMut(&'static str, State)) {
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
                Some(_) | None if self.queue != Queue::None && state.running() >= self.limit => {
                    go("is queued", Caller::Queued { since, saw }, &|_| {});
                }
                Some(_) | None => go("begins a load", lead(me, since, saw, None), &|next| {
                    next.begin(me);
                }),
            },
            Caller::Queued { since, saw } => {
                if state.running() < self.limit {
                    go(
                        "begins the next load",
                        lead(me, since, saw, None),
                        &|next| {
                            next.begin(me);
                        },
                    );
                }
                let landed = state.flights.iter().find_map(|flight| flight.landed);
                if let Some(version) = landed.filter(|_| self.queue == Queue::TakesAny) {
                    go("takes what lands", answer(since, version), &|_| {});
                }
                for flight in (0..).take(CALLERS) {
                    if state.leads_and_waits(flight) && !state.flight(flight).is_deposed {
                        go("leaves a stuck load", lead(me, since, saw, None), &|next| {
                            next.depose(flight);
                            next.begin(me);
                        });
                    }
                }
            }

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
                    Some(_) => go("finds it too old", Caller::Looked { since, saw }, &|_| {}),
                    None => {}
                }
                if state.leads_and_waits(flight) && state.under_way == Some(flight) {
                    let lease = state.lease_of_leader(flight);
                    let leading = lead(me, since, saw, lease);
                    go("takes over from a stuck leader", leading, &|next| {
                        next.depose(flight);
                        next.under_way = Some(me);
                    });
                } else if state.leads_and_waits(flight) {
                    let looked = Caller::Looked { since, saw };
                    go("leaves a stuck leader", looked, &|_| {});
                }
            }

            Caller::Claiming { .. }
                if state.is_away || self.heeds(state) && state.row.entry.is_some() =>
            {
                self.give_up_claim(state, me, &mut step);
            }
            Caller::Claiming {
                flight,
                since,
                before,
            } => match state.row.entry {
                None => {
                    let is_deposed = state.flight(flight).is_deposed;
                    let lease = Some(Stamp::Lease(me)).filter(|_| !is_deposed);
                    let leading = Caller::Leading {
                        flight,
                        lease,
                        standing: lease,
                    };
                    go("gets the lease", leading, &|next| {
                        next.row.lease(me);
                    });
                }
                Some(Entry::Lease { by }) if state.is_left_by_deposed(by, me) => {
                    let lease = Some(Stamp::Lease(by));
                    let leading = Caller::Leading {
                        flight,
                        lease,
                        standing: lease,
                    };
                    go("takes over the lease of a stuck leader", leading, &|_| {});
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

    /// Loads without storing. The result depends on the claim that is in the way.
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

    /// Returns whether the call ignores what Redis answers.
    fn heeds(&self, state: &State) -> bool {
        state.is_journaled && self.claims == Claims::HeedTheJournal
    }

    /// Returns whether a load of another caller is recent enough for this caller.
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

impl State {
    /// Returns whether the leader of a load may be stuck here.
    fn leads_and_waits(&self, load: Call) -> bool {
        self.leader(load).is_some()
    }

    /// The loads that run or are about to, without those that are stuck and replaced.
    pub(super) fn running(&self) -> usize {
        let runs = |caller: &&Caller| match caller {
            Caller::Claiming { flight, .. }
            | Caller::Leading { flight, .. }
            | Caller::Loading { flight, .. }
            | Caller::Loaded { flight, .. } => !self.flight(*flight).is_deposed,
            _ => false,
        };
        let left = self.flights.iter().filter(|flight| flight.left.is_some());
        self.callers.iter().filter(runs).count() + left.count()
    }

    fn begin(&mut self, load: Call) {
        self.under_way = Some(load);
    }

    fn lease_of_leader(&self, load: Call) -> Option<Stamp> {
        match self.leader(load).map(|leader| self.callers[leader])? {
            Caller::Leading { lease, .. } | Caller::Loading { lease, .. } => lease,
            _ => None,
        }
    }

    fn leader(&self, load: Call) -> Option<usize> {
        self.callers.iter().position(|caller| match caller {
            Caller::Claiming { flight, .. }
            | Caller::Leading { flight, .. }
            | Caller::Loading { flight, .. } => *flight == load,
            _ => false,
        })
    }

    /// Takes the lease from the leader of a load.
    fn depose(&mut self, load: Call) {
        let leader = self.leader(load);
        self.flights[usize::from(load)].is_deposed = true;
        if let Some(Caller::Leading { lease, .. } | Caller::Loading { lease, .. }) =
            leader.map(|leader| &mut self.callers[leader])
        {
            *lease = None;
        }
    }

    /// Returns whether the lease of `by` was placed for a leader of this process that was deposed before it knew of the lease.
    fn is_left_by_deposed(&self, by: Call, me: Call) -> bool {
        match self.callers.get(usize::from(by)) {
            Some(Caller::Leading { flight, .. } | Caller::Loading { flight, .. }) => {
                by != me && self.flight(*flight).is_deposed
            }
            _ => false,
        }
    }
}

/// Returns the next state of a caller that begins a load for all.
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
