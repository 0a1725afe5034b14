//! Policies and quotas, and the names that they have.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// A named policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Policy {
    /// Fresh life.
    #[serde(deserialize_with = "super::read::optional_duration")]
    pub ttl: Option<Duration>,
    /// How long after it a value may still be served while it is refreshed, or when its load fails.
    #[serde(deserialize_with = "super::read::optional_duration")]
    pub grace: Option<Duration>,
    /// How long a `None` is remembered.
    #[serde(deserialize_with = "super::read::optional_duration")]
    pub none_ttl: Option<Duration>,
}

/// How many units a client may use in any window of some length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many.
    pub limit: u32,
    /// The length of the window.
    pub window: Duration,
}

impl Policy {
    /// Sets the fresh life.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets how long after its fresh life a value may still be served.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Sets how long a `None` is remembered.
    #[must_use]
    pub fn none_ttl(mut self, none_ttl: Duration) -> Self {
        self.none_ttl = Some(none_ttl);
        self
    }

    /// The times by the names of their fields.
    pub(super) fn times(&self) -> [(&'static str, Option<Duration>); 3] {
        let Self {
            ttl,
            grace,
            none_ttl,
        } = *self;
        [("ttl", ttl), ("grace", grace), ("none_ttl", none_ttl)]
    }
}

/// What stands under a name, else under that name as a variable can say it.
pub(super) fn named<'a, T>(all: &'a BTreeMap<String, T>, name: &str) -> Option<&'a T> {
    all.get(name).or_else(|| all.get(&plain_name(name)))
}

/// A policy's name as a variable can say it.
pub(crate) fn plain_name(policy: &str) -> String {
    policy.replace(['-', '.'], "_").to_ascii_lowercase()
}
