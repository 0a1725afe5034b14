//! Code that tests and benchmarks share.

pub mod figures;

/// The README and the chapters of the book, whose examples compile.
macro_rules! documents {
    ($($name:ident: $path:literal,)*) => {$(
        #[cfg(doctest)]
        #[doc = include_str!(concat!("../../", $path))]
        #[derive(Debug)]
        pub struct $name;
    )*};
}

documents! {
    Readme: "README.md",
    Introduction: "docs/book/src/introduction.md",
    GettingStarted: "docs/book/src/getting-started.md",
    WhatToCache: "docs/book/src/what-to-cache.md",
    Invalidation: "docs/book/src/invalidation.md",
    Sessions: "docs/book/src/sessions.md",
    RateLimits: "docs/book/src/rate-limits.md",
    Testing: "docs/book/src/testing.md",
    Deployment: "docs/book/src/deployment.md",
    Security: "docs/book/src/security.md",
    Troubleshooting: "docs/book/src/troubleshooting.md",
    Tuning: "docs/book/src/tuning.md",
    Upgrading: "docs/book/src/upgrading.md",
    Why: "docs/book/src/why.md",
    Peers: "docs/book/src/peers.md",
    Migrating: "docs/book/src/migrating.md",
    ConsistencyReference: "docs/book/src/reference/consistency.md",
    ConfigurationReference: "docs/book/src/reference/configuration.md",
    DeploymentReference: "docs/book/src/reference/deployment.md",
    ObservabilityReference: "docs/book/src/reference/observability.md",
    AdminReference: "docs/book/src/reference/admin.md",
}
