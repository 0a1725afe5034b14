//! What an eviction names.

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
}
