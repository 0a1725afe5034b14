//! The steps of a call of a `#[cacheable]` function in its own process.
//!
//! ```text
//! start ──GET──► value ─────────────────────────────────────────────────► returned
//!         │
//!         ├────► nothing, or a lease ──SET NX GET──► lease ─► body ─► fill, if the lease still stands
//!         │                               └────────► another lease: look again, or load without storing
//!         ├────► a stale value ──refresh.lua──► granted ─► body ─► replace, if that value still stands
//!         │                               ├───► held: the stale value is the answer
//!         │                               └───► gone: as if there were nothing
//!         └────► a fence: load without storing
//! ```
//!
//! A value that is read from Redis is returned in the same step. So a call can return a stale value only if Redis holds a stale
//! entry, which is checked in every state. Renewing a lease is not modelled: leases can expire at any time or never.

use crate::row::{Age, Call, Entry, Refresh, Row, Stamp, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    Start,
    /// Found nothing to return.
    Missed,
    /// Found a value in grace.
    Aged(Stamp),
    /// In the body. The result replaces the entry with this stamp.
    Loading(Stamp),
    /// In the body. The result is not stored.
    LoadingAlone,
    Loaded(Stamp, Version),
    /// Has returned, or does not exist.
    Done,
}

/// How a reader stores its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) fill: Fill,
    pub(crate) lease: Lease,
}

impl Rules {
    pub(crate) const AS_BUILT: Self = Self {
        fill: Fill::WhereItsStampStands,
        lease: Lease::InTheEntry,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    WhereItsStampStands,
    /// Twin: a plain `SET`.
    Always,
    /// Twin: if there is any lease, also that of another caller.
    WhereAnyLeaseStands,
    /// Twin: a refresh replaces whatever is there; a fill compares.
    RefreshAlways,
    /// Twin: a refresh looks for a refresh lease, but not for the value that it was granted in; a fill compares.
    RefreshWhereAnyStands,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    InTheEntry,
    /// Twin: in a separate key, which evictions do not remove.
    Apart,
    /// Twin: placed after the body has run.
    AfterTheBody,
}

impl Reader {
    /// Adds every step that this call can take: its name, the call after it, and the row after it.
    pub(crate) fn steps(
        self,
        me: Call,
        row: &Row,
        rules: Rules,
        mut step: impl FnMut(&'static str, Self, Row),
    ) {
        let mut after = *row;
        match self {
            Self::Done => {}
            Self::Start => match row.entry {
                None | Some(Entry::Lease { .. }) => step("finds no value", Self::Missed, after),
                Some(Entry::Fence { .. }) => step("finds a fence", Self::LoadingAlone, after),
                Some(Entry::Value {
                    age: Age::Fresh, ..
                }) => step("hits", Self::Done, after),
                Some(stale) => step("finds a stale value", Self::Aged(stale.stamp()), after),
            },
            Self::Missed => match after.claim(me, rules.lease) {
                Ok(stamp) => step("gets the lease", Self::Loading(stamp), after),
                Err(Entry::Value {
                    age: Age::Fresh, ..
                }) => {
                    step("finds what was filled meanwhile", Self::Done, after);
                }
                Err(stale @ Entry::Value { .. }) => {
                    step("finds a stale value", Self::Aged(stale.stamp()), after);
                }
                Err(Entry::Fence { .. }) => step("finds a fence", Self::LoadingAlone, after),
                // A second look is this same step.
                Err(Entry::Lease { .. }) => {
                    step("waits no longer for a lease", Self::LoadingAlone, after);
                }
            },
            Self::Aged(seen) => match after.refresh(seen) {
                Refresh::Granted => step("gets the refresh lease", Self::Loading(seen), after),
                Refresh::Held => step("serves stale", Self::Done, after),
                Refresh::Gone => step("finds the stale value gone", Self::Missed, after),
            },
            Self::Loading(stamp) => {
                step("loads", Self::Loaded(stamp, row.committed), after);
                // Or the process died. The lease is not released, and the clock expires it.
                step("fails to load", Self::Done, after);
            }
            Self::LoadingAlone => step("loads for itself", Self::Done, after),
            Self::Loaded(stamp, version) => {
                let fill = after.fill(me, stamp, version, rules);
                step(fill, Self::Done, after);

                let mut after = *row;
                after.delete_if(stamp);
                step("has nothing worth storing", Self::Done, after);
            }
        }
    }
}

impl Row {
    /// Asks for the lease. The error is the entry that is in the way.
    fn claim(&mut self, me: Call, lease: Lease) -> Result<Stamp, Entry> {
        let mine = Stamp::Lease(me);
        match lease {
            Lease::InTheEntry => self.lease(me).map_or(Ok(mine), Err),
            Lease::Apart => match (self.entry, self.lease_apart) {
                (Some(there), _) => Err(there),
                (None, Some(by)) => Err(Entry::Lease { by }),
                (None, None) => {
                    self.lease_apart = Some(me);
                    Ok(mine)
                }
            },
            Lease::AfterTheBody => self.entry.map_or(Ok(mine), Err),
        }
    }

    /// Stores the loaded value if it may.
    fn fill(&mut self, me: Call, stamp: Stamp, version: Version, rules: Rules) -> &'static str {
        let is_refresh = matches!(stamp, Stamp::Value(_));
        let may_fill = match (rules.lease, rules.fill) {
            (Lease::Apart, _) => self.lease_apart.take_if(|by| *by == me).is_some(),
            (Lease::AfterTheBody, _) => self.lease(me).is_none(),
            (Lease::InTheEntry, fill) => {
                let stands = self.entry.is_some_and(|entry| entry.stamp() == stamp);
                match fill {
                    Fill::Always => true,
                    Fill::WhereAnyLeaseStands => matches!(self.entry, Some(Entry::Lease { .. })),
                    Fill::RefreshAlways if is_refresh => true,
                    Fill::RefreshWhereAnyStands if is_refresh => matches!(
                        self.entry,
                        Some(Entry::Value {
                            age: Age::Refreshing,
                            ..
                        })
                    ),
                    Fill::WhereItsStampStands
                    | Fill::RefreshAlways
                    | Fill::RefreshWhereAnyStands => stands,
                }
            }
        };
        if may_fill {
            self.entry = Some(Entry::value(me, version));
        }
        match (is_refresh, may_fill) {
            (false, true) => "fills",
            (false, false) => "is refused the fill",
            (true, true) => "refreshes",
            (true, false) => "is refused the refresh",
        }
    }
}
