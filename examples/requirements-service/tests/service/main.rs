//! Tests of the service: in this process, whose clock they control, or in a process of its own.

mod postgres;
mod sentinels;
mod support;

mod cached;
mod operation;
mod production;
mod sessions;
