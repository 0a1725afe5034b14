//! What one call of an annotated function asks of the cache.

use crate::key::Key;
use crate::site::{Site, Ttl};
use crate::target::Target;

/// What a read or a put is about, and what its arguments say about time.
#[derive(Debug)]
pub(crate) struct ReadPlan {
    pub(crate) site: &'static Site,
    pub(crate) key: Key,
    pub(crate) ttl: Option<Ttl>,
}

/// What an eviction names, and when it is made.
#[derive(Debug)]
pub(crate) struct EvictPlan {
    pub(crate) site: &'static Site,
    pub(crate) targets: Vec<Target>,
    /// Before the body, too.
    pub(crate) before: bool,
    /// Also if the body returns an `Err`.
    pub(crate) always: bool,
    pub(crate) fence: bool,
}

impl ReadPlan {
    pub(crate) fn new(site: &'static Site, key: Key) -> Self {
        Self {
            site,
            key,
            ttl: None,
        }
    }
}

impl EvictPlan {
    pub(crate) fn new(site: &'static Site) -> Self {
        Self {
            site,
            targets: Vec::new(),
            before: false,
            always: false,
            fence: false,
        }
    }
}
