//! Tests of the service over HTTP, in its own process.

mod support;

mod admin;
mod browser;
mod caching;
mod catalog;
mod debugging;
mod edge;
mod eviction;
mod group_buys;
mod keys;
mod limits;
mod operation;
mod page;
mod patterns;
mod payments;
mod policies;
mod privacy;
mod problems;
mod referrals;
mod routes;
mod sessions;
mod states;
mod statuses;
mod tickets;
mod warming;
mod write_through;
