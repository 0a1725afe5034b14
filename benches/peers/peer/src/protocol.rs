//! The lines between the driver and a peer.

use serde::{Deserialize, Serialize};

/// How a peer is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setup {
    /// In Redis, as the introduction of the library shows it.
    Redis,
    /// In Redis, with what the library documents against outages or stampedes but does not enable by itself.
    Hardened,
    /// In the process. A library that keeps values in the process and in Redis has both.
    Memory,
}

/// What the driver asks for. Times are in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Connects. The first command.
    Connect(Setup),
    /// Sets the size of values and the duration of bodies.
    Body {
        /// About the length of a value as JSON.
        bytes: usize,
        /// How long the body sleeps.
        millis: u64,
    },
    /// Calls for each of `keys` ids from `first` on, until each is served from the cache.
    Fill {
        /// The first id.
        first: u64,
        /// How many ids.
        keys: u64,
    },
    /// Calls for these ids in turn.
    Hits {
        /// The first id.
        first: u64,
        /// How many ids.
        keys: u64,
        /// The calls of all tasks together.
        calls: u64,
        /// How many tasks call at the same time.
        tasks: u64,
    },
    /// Calls for one id that is not cached, by all callers at the same time.
    Rush {
        /// The id.
        id: u64,
        /// How many tasks call once each.
        callers: u64,
        /// When they begin.
        at: u64,
    },
    /// Begins a call in the background, and returns when its body has read the row.
    Begin {
        /// The id.
        id: u64,
    },
    /// Waits for the call that [`Command::Begin`] began.
    End,
    /// Calls once.
    Call {
        /// The id.
        id: u64,
    },
    /// Removes the entry.
    Evict {
        /// The id.
        id: u64,
    },
    /// Begins to call in the background: each caller for its own id, with a pause after each call.
    Watch {
        /// The id of the first caller.
        first: u64,
        /// How many tasks call.
        callers: u64,
        /// How long each pauses.
        pause_millis: u64,
    },
    /// Ends what [`Command::Watch`] began.
    Unwatch {
        /// When the server failed.
        failed: u64,
        /// When the server was back.
        back: u64,
    },
}

/// What a peer returns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The command was carried out.
    Done,
    /// A block of hits.
    Hits(Hits),
    /// [`Command::Rush`]: how many bodies ran, and the longest call.
    Rush {
        /// Bodies that ran in this process.
        loads: u64,
        /// The longest call, in nanoseconds.
        worst: u64,
        /// Calls that returned an error.
        errors: u64,
    },
    /// When the row of the returned value was read.
    Value {
        /// See [`Event::read_at`](crate::Event::read_at).
        read_at: u64,
    },
    /// What the callers saw of an outage.
    Outage(Outage),
    /// The library has no such operation. Why.
    Lacking(String),
    /// Why the command failed.
    Failed(String),
}

/// A block of hits.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Hits {
    /// How long the block took.
    pub nanos: u64,
    /// Bodies that ran: calls that were not hits.
    pub loads: u64,
    /// Calls that returned an error.
    pub errors: u64,
    /// Allocations of the whole process, if they are counted.
    pub allocations: u64,
    /// Whether callers shared the value with the cache.
    pub shared: bool,
}

/// What the callers saw of an outage.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Outage {
    /// The longest call that was under way during the outage, in nanoseconds.
    pub worst: u64,
    /// The median of those calls.
    pub median: u64,
    /// Calls of the outage that returned a cached value.
    pub hits: u64,
    /// Calls of the outage whose value a body has just loaded.
    pub loads: u64,
    /// Calls of the outage that returned an error or panicked.
    pub errors: u64,
    /// Calls that still had not returned when the callers were stopped.
    pub pending: u64,
    /// How long after the return of the server the first value was served from the cache.
    pub cached_again: Option<u64>,
}
