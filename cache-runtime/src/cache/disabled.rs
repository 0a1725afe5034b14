//! Which keys are switched off while the service runs.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Config;
use crate::key::{Key, Pattern};
use crate::sync::RwLock;

/// The patterns that are switched off.
#[derive(Debug)]
pub(super) struct Disabled {
    off: RwLock<Vec<Pattern>>,
    /// Whether there are any, to be read without the lock.
    any: AtomicBool,
}

impl Disabled {
    pub(super) fn new(config: &Config) -> Self {
        let off: Vec<_> = config
            .disabled
            .iter()
            .filter_map(|text| Pattern::parse(&config.prefix, text).ok())
            .collect();
        Self {
            any: AtomicBool::new(!off.is_empty()),
            off: RwLock::new(off),
        }
    }

    /// Returns whether any pattern is switched off.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    pub(super) fn is_off(&self, key: &Key) -> bool {
        self.any() && self.off.read().iter().any(|off| off.matches(key.as_str()))
    }

    pub(super) fn set_off(&self, pattern: Pattern) {
        let mut off = self.off.write();
        if !off.contains(&pattern) {
            off.push(pattern);
        }
        self.any.store(true, Ordering::Release);
    }

    /// Returns the patterns that are switched off, without the prefix.
    #[cfg(feature = "admin")]
    pub(super) fn list(&self, prefix: &str) -> Vec<String> {
        let off = self.off.read();
        let texts = off.iter().map(ToString::to_string);
        texts
            .map(|text| {
                text.strip_prefix(prefix)
                    .map_or(text.clone(), str::to_owned)
            })
            .collect()
    }

    /// Returns whether exactly this pattern was switched off.
    pub(super) fn set_on(&self, pattern: &Pattern) -> bool {
        let mut off = self.off.write();
        let before = off.len();
        off.retain(|there| there != pattern);
        self.any.store(!off.is_empty(), Ordering::Release);
        off.len() < before
    }
}
