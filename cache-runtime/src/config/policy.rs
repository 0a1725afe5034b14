//! Policies and quotas, and their names.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// The times and the limit of a named policy, for `policy = "events"`.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::{Cache, Config, TtlPolicy, cacheable};
///
/// #[cacheable(key = "event:<id>", policy = "events")]
/// async fn event(id: i64) -> String {
///     format!("event {id}")
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cache_runtime::Error> {
/// let policy = TtlPolicy::default().ttl(Duration::from_secs(1800)).grace(Duration::from_secs(600));
/// let cache = Cache::connect(Config::default().policy("events", policy)).await?;
///
/// cache.run(event(42)).await;
/// assert!(cache.ttl("event:42").await <= Some(Duration::from_secs(1800)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TtlPolicy {
    /// How long a value is fresh. `None` means [`default_ttl`](crate::Config::default_ttl).
    ///
    /// Default: `None`. Variable: `CACHE_POLICY_<NAME>_TTL`.
    #[serde(deserialize_with = "super::read::optional_duration")]
    pub ttl: Option<Duration>,
    /// How long after its TTL a value may still be served while it is refreshed, or after its load failed. `None` means that it
    /// is not served.
    ///
    /// Default: `None`. Variable: `CACHE_POLICY_<NAME>_GRACE`.
    #[serde(deserialize_with = "super::read::optional_duration")]
    pub grace: Option<Duration>,
    /// How long a `None` is stored. `None` means that it is not stored.
    ///
    /// Default: `None`. Variable: `CACHE_POLICY_<NAME>_NONE_TTL`.
    #[serde(deserialize_with = "super::read::optional_duration")]
    pub none_ttl: Option<Duration>,
    /// The most bodies of the functions with this policy that run at a time in this process, besides the limit of the
    /// configuration. `None` means no limit.
    ///
    /// Default: `None`. Variable: `CACHE_POLICY_<NAME>_MAX_LOADS`.
    pub max_loads: Option<u32>,
}

/// The number of units that a client may use in any window of a given length.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::{Config, Quota};
///
/// let quota = Quota { limit: 200, window: Duration::from_secs(60) };
/// let config = Config::default().limit("api", quota); // `CACHE_LIMIT_API` overrides it
/// assert_eq!(config.limits["api"], quota);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The number of units.
    pub limit: u32,
    /// The length of the window.
    pub window: Duration,
}

impl TtlPolicy {
    /// Sets how long a value is fresh. Default: the default TTL of the cache.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets how long after its TTL a value may still be served. Default: not served.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Sets how long a `None` is stored. Default: not stored.
    #[must_use]
    pub fn none_ttl(mut self, none_ttl: Duration) -> Self {
        self.none_ttl = Some(none_ttl);
        self
    }

    /// Sets how many bodies of the functions with this policy may run at a time.
    #[must_use]
    pub fn max_loads(mut self, limit: u32) -> Self {
        self.max_loads = Some(limit);
        self
    }

    /// Returns the times by the names of their fields.
    pub(super) fn times(&self) -> [(&'static str, Option<Duration>); 3] {
        let Self {
            ttl,
            grace,
            none_ttl,
            max_loads: _,
        } = *self;
        [("ttl", ttl), ("grace", grace), ("none_ttl", none_ttl)]
    }
}

/// Returns the item under a name, or else under the spelling of that name that a variable can use.
pub(crate) fn named<'a, T>(all: &'a BTreeMap<String, T>, name: &str) -> Option<&'a T> {
    all.get(name).or_else(|| all.get(&plain_name(name)))
}

/// Returns the spelling of a policy's name that a variable can use.
pub(crate) fn plain_name(policy: &str) -> String {
    policy.replace(['-', '.'], "_").to_ascii_lowercase()
}
