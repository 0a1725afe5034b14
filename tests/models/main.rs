//! The protocol between callers, Redis and the database, in every order in which its steps can happen.
//!
//! A test that stops a call at a gate proves one order. Here the protocol is written down a second time, as small state
//! machines without I/O, and `explorer.rs` takes every interleaving of their steps. What must not happen is checked in every
//! state: that Redis holds a value older than an acknowledged eviction, or that a call returns one. Where nobody has anything
//! left to do, Redis must hold nothing, a claim that will end, or what the database holds.
//!
//! | file | what meets |
//! |---|---|
//! | `row.rs` | one row and its key: each command and each script is one step |
//! | `reader.rs`, `writer.rs` | a call of a cached function; of one that evicts or puts |
//! | `one_key.rs` | readers and writers of one key, each in a process of its own |
//! | `lease.rs` | fills against evictions |
//! | `put.rs` | three puts that overlap |
//! | `crash.rs` | writers that die between their commit and their eviction, with and without a fence |
//! | `refresh.rs` | refreshes of a stale value against evictions and puts |
//! | `scan.rs` | an eviction by pattern against fills and puts under its feet |
//! | `journal.rs` | evictions that Redis did not acknowledge, and commands that it carries out late |
//! | `flights.rs`, `flights/caller.rs` | callers in one process that share a load |
//!
//! **Twins.** Beside each model stand some that differ from it in one rule, such as a fill that does not compare stamps. The
//! tests demand that the explorer finds what is wrong with each, so that a model that proves nothing does not pass; nor does
//! one that is smaller than it should be, or in which what is interesting never happens.
//!
//! **What they do not say.** That the code does what the models do: that is for the tests on real servers, and for whoever
//! changes either. Clocks end lives, and order nothing, so the models let every life end at any time. The calls are few: what
//! needs four readers to go wrong would not be found.
//!
//! `cargo test -p tests --test models -- --nocapture` prints how many states there were, how often each step was taken, and
//! for each twin the shortest way to what is wrong with it.

mod crash;
mod explorer;
mod flights;
mod journal;
mod lease;
mod one_key;
mod put;
mod reader;
mod refresh;
mod row;
mod scan;
mod writer;
