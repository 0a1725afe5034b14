//! The service as its users meet it: its own process, driven by HTTP.

mod support;

mod caching;
mod eviction;
mod limits;
mod operation;
mod payments;
mod problems;
mod routes;
mod sessions;
mod tickets;
mod warming;
