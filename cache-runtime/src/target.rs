//! What an eviction names.

use std::fmt;

use crate::key::{Key, Pattern};

/// One key, all keys that match, or all entries of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Key(Key),
    Pattern(Pattern),
    All,
}

impl Target {
    pub(crate) fn covers(&self, key: &Key) -> bool {
        match self {
            Self::Key(target) => target == key,
            Self::Pattern(pattern) => pattern.matches(key.as_str()),
            Self::All => true,
        }
    }

    /// For logs: what is named, or when `mask`ed its hash.
    pub(crate) fn shown(&self, mask: bool) -> impl fmt::Display + '_ {
        Shown { target: self, mask }
    }
}

struct Shown<'a> {
    target: &'a Target,
    mask: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Target::Key(key) => key.shown(self.mask).fmt(f),
            Target::Pattern(pattern) => pattern.shown(self.mask).fmt(f),
            Target::All => f.write_str("all entries"),
        }
    }
}
