//! The protocol between callers, Redis and the database, in every possible order of its steps.
//!
//! A test that stops a call at a gate proves one order. Here the protocol is written a second time, as small state machines
//! without I/O, and `explorer.rs` visits every interleaving of their steps. Each state is checked: Redis must not hold a value
//! that is older than an acknowledged eviction, and no call may return such a value. When no actor has anything left to do,
//! Redis must hold nothing, a claim that will expire, an entry that no reader takes, or the value of
//! the database.
//!
//! | file | content |
//! |---|---|
//! | `row.rs` | one row and its key; each command and each script is one step |
//! | `reader.rs`, `writer.rs` | a call of a cached function, and of a function that evicts or puts |
//! | `one_key.rs` | readers and writers of one key, each in its own process |
//! | `lease.rs` | fills against evictions |
//! | `put.rs` | three overlapping puts |
//! | `crash.rs` | writers that die between their commit and their eviction, with and without a fence |
//! | `refresh.rs` | refreshes of a stale value against evictions and puts |
//! | `scan.rs` | an eviction by pattern against concurrent fills and puts |
//! | `journal.rs` | evictions that Redis did not acknowledge, and commands that it carries out late |
//! | `failover.rs` | a replica that takes the place of the primary, and lacks its last evictions |
//! | `flights.rs`, `flights/caller.rs` | callers in one process that share a load |
//! | `tagged.rs`, `tagged/` | readers and writers of one key with two tags |
//! | `tags.rs` | loads and puts against evictions of their tags, and tags that are lost |
//! | `family.rs` | tags over the return value, which have no name before the body |
//! | `tag_fence.rs` | writers that fence a tag and die |
//! | `tag_journal.rs` | evictions of a tag that Redis did not acknowledge |
//! | `local.rs` | values in the process, and the pushes that make them doubtful |
//! | `listener.rs` | the connection that hears the pushes, and the time within which they must arrive |
//!
//! **Twins.** Each model has twins that break one rule, such as a fill that does not compare stamps. The tests require that the
//! explorer finds the error of each twin: a model that proves nothing does not pass. Neither does a model that has too few
//! states or that never takes a required step.
//!
//! **Limits.** The models do not prove that the code does the same. Tests on real servers check that, and a change must update
//! both. Clocks only expire entries and order nothing, so in the models every entry can expire at any time. There are few
//! calls: an error that needs four readers is not found.
//!
//! `cargo test -p tests --test models -- --nocapture` prints the number of states, how often each step was taken, and the
//! shortest way to the error of each twin.

mod crash;
mod explorer;
mod failover;
mod family;
mod flights;
mod journal;
mod lease;
mod listener;
mod local;
mod one_key;
mod put;
mod reader;
mod refresh;
mod row;
mod scan;
mod tag_fence;
mod tag_journal;
mod tagged;
mod tags;
mod writer;
