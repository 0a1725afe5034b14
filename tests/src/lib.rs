//! Code that tests and benchmarks share.

pub mod figures;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;

/// The examples of the guide to the admin service compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/admin.md")]
#[derive(Debug)]
pub struct AdminGuide;
