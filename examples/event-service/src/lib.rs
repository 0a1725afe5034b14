//! A ticketing service over SQLite whose reads are cached by attributes.
//!
//! Begin with [`events`]: annotated methods over plain SQL. [`http`] turns requests into calls of these methods.
#![allow(
    missing_docs,
    reason = "the fields are the JSON that the routes answer with, and their names say what they are"
)]

pub mod accounts;
pub mod db;
pub mod devices;
pub mod error;
pub mod events;
pub mod gateway;
pub mod group_buys;
pub mod guesses;
pub mod http;
pub mod input;
pub mod page;
pub mod payments;
pub mod referrals;
pub mod server;
pub mod settings;
pub mod tickets;
pub mod users;
pub mod warm;
