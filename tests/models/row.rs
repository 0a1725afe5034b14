//! One row of the database and its one key in Redis. Each method is one step: a command or a script, which Redis carries out
//! while nothing else happens.

/// A commit raises the version of its row by one, so that of two values the older is the smaller.
pub(crate) type Version = u8;

/// Which call. Each writes at most one entry of each kind.
pub(crate) type Call = u8;

/// The value that is there at the start is nobody's.
const NOBODY: Call = u8::MAX;

/// What stands under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    Lease {
        by: Call,
    },
    /// Stands for so many calls that write.
    Fence {
        by: Call,
        count: u8,
    },
    Value {
        by: Call,
        version: Version,
        age: Age,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Age {
    Fresh,
    /// In grace.
    Stale,
    /// In grace, and somebody's refresh lease stands in it.
    Refreshing,
}

/// Tells an entry from every other that stood or will stand there. In the code it is random; here, who wrote what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stamp {
    Lease(Call),
    Fence(Call),
    Value(Call),
}

/// What came of asking for the refresh lease of a stale value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    Granted,
    Held,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    /// What the database has.
    pub(crate) committed: Version,
    /// What Redis has.
    pub(crate) entry: Option<Entry>,
    /// For twins that keep the lease in a key of its own.
    pub(crate) lease_apart: Option<Call>,
    /// No call sees this: evictions up to this version have been acknowledged.
    pub(crate) promised: Version,
}

impl Entry {
    /// What a call stores: fresh.
    pub(crate) fn value(by: Call, version: Version) -> Self {
        Self::Value {
            by,
            version,
            age: Age::Fresh,
        }
    }

    pub(crate) fn stamp(self) -> Stamp {
        match self {
            Self::Lease { by } => Stamp::Lease(by),
            Self::Fence { by, .. } => Stamp::Fence(by),
            Self::Value { by, .. } => Stamp::Value(by),
        }
    }
}

impl Row {
    pub(crate) const EMPTY: Self = Self {
        committed: 0,
        entry: None,
        lease_apart: None,
        promised: 0,
    };

    /// Redis has what the database has.
    pub(crate) const CACHED: Self = Self {
        entry: Some(Entry::Value {
            by: NOBODY,
            version: 0,
            age: Age::Fresh,
        }),
        ..Self::EMPTY
    };

    pub(crate) fn commit(&mut self) -> Version {
        self.committed += 1;
        self.committed
    }

    /// An eviction, or a put, of this version is acknowledged.
    pub(crate) fn promise(&mut self, version: Version) {
        self.promised = self.promised.max(version);
    }

    fn bears(&self, stamp: Stamp) -> bool {
        self.entry.is_some_and(|entry| entry.stamp() == stamp)
    }

    /// `SET NX GET`: places a lease where there is nothing. Answers what was there.
    pub(crate) fn lease(&mut self, by: Call) -> Option<Entry> {
        let there = self.entry;
        if there.is_none() {
            self.entry = Some(Entry::Lease { by });
        }
        there
    }

    /// `replace.lua`
    pub(crate) fn replace(&mut self, stamp: Stamp, entry: Entry) -> bool {
        let is_there = self.bears(stamp);
        if is_there {
            self.entry = Some(entry);
        }
        is_there
    }

    /// `delete_if.lua`
    pub(crate) fn delete_if(&mut self, stamp: Stamp) -> bool {
        let is_there = self.bears(stamp);
        if is_there {
            self.entry = None;
        }
        is_there
    }

    /// `fence.lua`: answers how many calls the fence stands for.
    pub(crate) fn fence(&mut self, by: Call) -> u8 {
        let count = match self.entry {
            Some(Entry::Fence { count, .. }) => count + 1,
            _ => 1,
        };
        self.entry = Some(Entry::Fence { by, count });
        count
    }

    /// `refresh.lua`: marks the refresh lease in the value that was seen, whose stamp stays.
    pub(crate) fn refresh(&mut self, stamp: Stamp) -> Refresh {
        match &mut self.entry {
            Some(Entry::Value { by, age, .. }) if Stamp::Value(*by) == stamp => {
                if *age == Age::Refreshing {
                    return Refresh::Held;
                }
                *age = Age::Refreshing;
                Refresh::Granted
            }
            _ => Refresh::Gone,
        }
    }

    /// `DEL`, by whomever.
    pub(crate) fn delete(&mut self) {
        self.entry = None;
    }

    /// Redis holds a value from before an eviction that was acknowledged.
    pub(crate) fn breaks_its_promise(&self) -> bool {
        matches!(self.entry, Some(Entry::Value { version, .. }) if version < self.promised)
    }

    /// Redis holds a value that the database has no longer.
    pub(crate) fn is_outdated(&self) -> bool {
        matches!(self.entry, Some(Entry::Value { version, .. }) if version != self.committed)
    }
}

/// What time may end. Nothing but lives ever depends on a clock, so each may end whenever it likes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) ends_leases: bool,
    pub(crate) ends_values: bool,
    pub(crate) ends_fences: bool,
    /// Values go stale, and refresh leases end.
    pub(crate) has_grace: bool,
}

impl Clock {
    pub(crate) fn steps(self, row: &Row, mut step: impl FnMut(&'static str, Row)) {
        let now = |entry| Row { entry, ..*row };
        match row.entry {
            Some(Entry::Lease { .. }) if self.ends_leases => step("the lease ends", now(None)),
            Some(Entry::Fence { .. }) if self.ends_fences => step("the fence ends", now(None)),
            Some(Entry::Value { by, version, age }) => {
                let aged = |age| now(Some(Entry::Value { by, version, age }));
                match age {
                    Age::Fresh if self.has_grace => step("the value goes stale", aged(Age::Stale)),
                    Age::Refreshing => step("the refresh lease ends", aged(Age::Stale)),
                    Age::Fresh | Age::Stale => {}
                }
                if self.ends_values {
                    step("the value ends", now(None));
                }
            }
            _ => {}
        }
        if row.lease_apart.is_some() && self.ends_leases {
            step(
                "the lease ends",
                Row {
                    lease_apart: None,
                    ..*row
                },
            );
        }
    }
}
