//! A service in which teams write requirements and features. Its reads are cached by attributes.
//!
//! Begin with [`requirements`]: annotated functions over plain SQL. [`settings`] has the TTLs of the policies.
#![allow(
    missing_docs,
    reason = "the fields are the JSON that the routes answer with, and their names say what they are"
)]

#[macro_use]
pub mod input;
pub mod accounts;
pub mod db;
pub mod error;
pub mod features;
pub mod http;
pub mod preferences;
pub mod requirements;
pub mod schemas;
pub mod settings;
pub mod warm;
