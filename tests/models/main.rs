//! The protocol between the cache, Redis and the database, in every order in which it can happen.
mod crash;
mod explorer;
mod journal;
mod lease;
mod one_key;
mod put;
mod reader;
mod refresh;
mod row;
mod scan;
mod writer;
