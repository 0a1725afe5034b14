//! The request of an annotated function's call to the cache.

use crate::key::Key;
use crate::site::{Site, Ttl};
use crate::tag::Tag;
use crate::target::Target;

/// The key of a read or a put, and the times and the tags that its arguments set.
#[derive(Debug)]
pub(crate) struct ReadPlan {
    pub(crate) site: &'static Site,
    pub(crate) key: Key,
    pub(crate) ttl: Option<Ttl>,
    /// The tags over arguments.
    pub(crate) tags: Vec<Tag>,
}

/// The names of a read, to which nothing more is written. A hit in this process needs no more of a [`ReadPlan`].
#[derive(Debug)]
pub(crate) struct ReadNames<'a> {
    pub(crate) site: &'static Site,
    pub(crate) key: &'a mut String,
    /// The names of the records of the tags.
    pub(crate) tags: &'a mut [String],
}

/// The targets of an eviction, and when it runs.
#[derive(Debug)]
pub(crate) struct EvictPlan {
    pub(crate) site: &'static Site,
    pub(crate) targets: Vec<Target>,
    /// Whether it also runs before the body.
    pub(crate) before: bool,
    /// Whether it also runs if the body returns an `Err`.
    pub(crate) always: bool,
    pub(crate) fence: bool,
}

impl ReadPlan {
    pub(crate) fn new(site: &'static Site, key: Key) -> Self {
        Self {
            site,
            key,
            ttl: None,
            tags: Vec::new(),
        }
    }

    /// Keeps the buffers of its names for other calls of this thread.
    pub(crate) fn recycle(self) {
        self.key.recycle();
        self.tags.into_iter().for_each(Tag::recycle);
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
