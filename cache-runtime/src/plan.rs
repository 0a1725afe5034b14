//! What one call of an annotated function asks of the cache.

use crate::key::Key;
use crate::site::{Site, Ttl};
use crate::target::Target;

/// The function, what it reads, stores or evicts, and what its arguments say about time.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) site: &'static Site,
    /// What a read or a put is about, and the first key that an eviction names. In place: a hit allocates no list for it.
    pub(crate) key: Option<Key>,
    /// What an eviction names besides.
    pub(crate) more: Vec<Target>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) before: bool,
    pub(crate) always: bool,
    pub(crate) fence: bool,
}

impl Plan {
    pub(crate) fn new(site: &'static Site) -> Self {
        Self {
            site,
            key: None,
            more: Vec::new(),
            ttl: None,
            before: false,
            always: false,
            fence: false,
        }
    }

    /// A plan about one key.
    pub(crate) fn of(site: &'static Site, key: Key) -> Self {
        Self {
            key: Some(key),
            ..Self::new(site)
        }
    }

    pub(crate) fn add(&mut self, target: Target) {
        match target {
            Target::Key(key) if self.key.is_none() => self.key = Some(key),
            target => self.more.push(target),
        }
    }

    /// Everything that an eviction names.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let key = self.key.iter().cloned().map(Target::Key);
        key.chain(self.more.iter().cloned()).collect()
    }

    /// The same for targets that are known only later.
    pub(crate) fn without_targets(&self) -> Self {
        let Self {
            site,
            key: _,
            more: _,
            ttl,
            before,
            always,
            fence,
        } = *self;
        Self {
            site,
            key: None,
            more: Vec::new(),
            ttl,
            before,
            always,
            fence,
        }
    }
}
