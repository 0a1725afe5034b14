//! What an eviction waits for.

use std::fmt;

/// What an eviction waits for, in addition to the answer of Redis.
///
/// ```
/// use cache_runtime::{Config, EvictDurability};
///
/// let config = Config::default().evict_durability(EvictDurability::Replicas(1));
/// assert_eq!(config.evict_durability.to_string(), "replicas:1"); // as in `CACHE_EVICT_DURABILITY`
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvictDurability {
    /// For nothing. A promoted replica may lack the eviction. This process then applies it again, if it happened within
    /// [`failover_memory`](crate::Config::failover_memory).
    #[default]
    Primary,
    /// For this many replicas, for at most one [`command_timeout`](crate::Config::command_timeout). An eviction that they do not
    /// confirm is applied all the same. It is remembered until they confirm a later one, and applied again if another server takes
    /// the place of Redis.
    Replicas(u32),
}

/// What is allowed.
pub(super) const ALLOWED: &str =
    "`primary`, or a number of replicas such as `replicas:1`, at least 1";

impl EvictDurability {
    pub(super) fn read(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("primary") {
            return Some(Self::Primary);
        }
        let replicas = text.strip_prefix("replicas:")?.trim().parse().ok()?;
        Some(Self::Replicas(replicas))
    }

    /// How many replicas must confirm an eviction. [`None`] if none must.
    pub(crate) fn replicas(self) -> Option<u32> {
        match self {
            Self::Primary => None,
            Self::Replicas(replicas) => Some(replicas),
        }
    }
}

impl fmt::Display for EvictDurability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Replicas(replicas) => write!(f, "replicas:{replicas}"),
        }
    }
}
