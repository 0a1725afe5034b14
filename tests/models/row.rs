//! One row of the database and its key in Redis. Each method is one step: a command or a script, which Redis runs atomically.

/// The version of a row. A commit raises it by one, so the older of two values has the smaller version.
pub(crate) type Version = u8;

/// The number of a call. Each call writes at most one entry of each kind.
pub(crate) type Call = u8;

/// The value at the start has no writer.
const NOBODY: Call = u8::MAX;

/// The content of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    Lease {
        by: Call,
    },
    /// A fence of this many writing calls.
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
    /// In grace, with a refresh lease.
    Refreshing,
}

/// Identifies an entry among all past and future entries of the key. In the code it is random. Here it is the writer and the
/// kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stamp {
    Lease(Call),
    Fence(Call),
    Value(Call),
}

/// The reply to a request for the refresh lease of a stale value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    Granted,
    Held,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    /// The version in the database.
    pub(crate) committed: Version,
    /// The entry in Redis.
    pub(crate) entry: Option<Entry>,
    /// For twins that keep the lease in a separate key.
    pub(crate) lease_apart: Option<Call>,
    /// Not visible to any call: evictions up to this version have been acknowledged.
    pub(crate) promised: Version,
}

impl Entry {
    /// Returns the fresh value that a call stores.
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

    /// Creates a row whose entry in Redis is current.
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

    /// Records that an eviction or a put of this version is acknowledged.
    pub(crate) fn promise(&mut self, version: Version) {
        self.promised = self.promised.max(version);
    }

    fn bears(&self, stamp: Stamp) -> bool {
        self.entry.is_some_and(|entry| entry.stamp() == stamp)
    }

    /// `SET NX GET`: places a lease if the key is empty. Returns the previous content.
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

    /// `fence.lua`: returns the number of calls that share the fence.
    pub(crate) fn fence(&mut self, by: Call) -> u8 {
        let count = match self.entry {
            Some(Entry::Fence { count, .. }) => count + 1,
            _ => 1,
        };
        self.entry = Some(Entry::Fence { by, count });
        count
    }

    /// `refresh.lua`: adds the refresh lease to the value that was seen. Its stamp does not change.
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

    /// `DEL` by any process.
    pub(crate) fn delete(&mut self) {
        self.entry = None;
    }

    /// Returns whether Redis holds a value older than an acknowledged eviction.
    pub(crate) fn breaks_its_promise(&self) -> bool {
        matches!(self.entry, Some(Entry::Value { version, .. }) if version < self.promised)
    }

    /// Returns whether Redis holds a value that the database no longer has.
    pub(crate) fn is_outdated(&self) -> bool {
        matches!(self.entry, Some(Entry::Value { version, .. }) if version != self.committed)
    }
}

/// What can expire. Only expiry depends on a clock, so each entry can expire at any time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) ends_leases: bool,
    pub(crate) ends_values: bool,
    pub(crate) ends_fences: bool,
    /// Values become stale, and refresh leases expire.
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
