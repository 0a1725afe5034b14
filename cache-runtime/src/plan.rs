//! What one call of an annotated function asks of the cache.

use crate::key::Key;
use crate::site::{Site, Ttl};
use crate::target::Target;

/// The function, what it reads, stores or evicts, and what its arguments say about time.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) site: &'static Site,
    pub(crate) targets: Vec<Target>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) before: bool,
    pub(crate) always: bool,
    pub(crate) fence: bool,
}

impl Plan {
    pub(crate) fn new(site: &'static Site) -> Self {
        Self {
            site,
            targets: Vec::new(),
            ttl: None,
            before: false,
            always: false,
            fence: false,
        }
    }

    /// What a read or a put is about.
    pub(crate) fn key(&self) -> Option<&Key> {
        match self.targets.first() {
            Some(Target::Key(key)) => Some(key),
            _ => None,
        }
    }

    /// The same for targets that are known only later.
    pub(crate) fn without_targets(&self) -> Self {
        let Self {
            site,
            targets: _,
            ttl,
            before,
            always,
            fence,
        } = *self;
        Self {
            site,
            targets: Vec::new(),
            ttl,
            before,
            always,
            fence,
        }
    }
}
