//! Code that tests and benchmarks share.

pub mod figures;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;

/// The examples of the guide to the admin service compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/src/reference/admin.md")]
#[derive(Debug)]
pub struct AdminGuide;

/// The examples of the guide about consistency compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/src/reference/consistency.md")]
#[derive(Debug)]
pub struct ConsistencyGuide;

/// The examples of the guide to the configuration compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/src/reference/configuration.md")]
#[derive(Debug)]
pub struct ConfigurationGuide;

/// The examples of the guide to deployment compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/src/reference/deployment.md")]
#[derive(Debug)]
pub struct DeploymentGuide;

/// The examples of the guide to metrics and logs compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/src/reference/observability.md")]
#[derive(Debug)]
pub struct ObservabilityGuide;
