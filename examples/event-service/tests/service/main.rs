//! The service as its users meet it: its own process, driven by HTTP.

mod support;

mod caching;
mod edge;
mod eviction;
mod keys;
mod limits;
mod operation;
mod payments;
mod privacy;
mod problems;
mod routes;
mod sessions;
mod tickets;
mod warming;
