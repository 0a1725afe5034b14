//! Tests of the service: in this process, whose clock they control, or in a process of its own.

#[macro_use]
mod support;
mod postgres;
mod sentinels;

mod cached;
mod operation;
mod production;
mod refusals;
mod sessions;
