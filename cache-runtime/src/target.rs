//! The targets of an eviction, and sets of targets.

use std::collections::HashMap;
use std::fmt;

use crate::key::{Key, Pattern};
use crate::tag::Tag;

/// One key, all keys that match, all entries with a tag, or all entries of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Key(Key),
    Pattern(Pattern),
    Tag(Tag),
    All,
}

impl Target {
    /// Returns whether it covers `key`, whatever tags its entry has.
    pub(crate) fn covers(&self, key: &Key) -> bool {
        match self {
            Self::Key(target) => target == key,
            Self::Pattern(pattern) => pattern.matches(key.as_str()),
            Self::Tag(_) => false,
            Self::All => true,
        }
    }

    /// Returns the target as logs show it: its text, or its hash if `mask` is true.
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
            Target::Tag(tag) => tag.shown(self.mask).fmt(f),
            Target::All => f.write_str("all entries"),
        }
    }
}

/// Targets without duplicates, and whether they cover a key.
pub(crate) type TargetSet = TargetMap<()>;

/// A [`TargetSet`] with a value for each target.
#[derive(Debug)]
pub(crate) struct TargetMap<V> {
    keys: HashMap<Key, V>,
    patterns: HashMap<Pattern, V>,
    tags: HashMap<Tag, V>,
    all: Option<V>,
}

impl<V> Default for TargetMap<V> {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            patterns: HashMap::new(),
            tags: HashMap::new(),
            all: None,
        }
    }
}

impl<V> TargetMap<V> {
    pub(crate) fn insert(&mut self, target: &Target, value: V) {
        match target {
            Target::Key(key) => drop(self.keys.insert(key.clone(), value)),
            Target::Pattern(pattern) => drop(self.patterns.insert(pattern.clone(), value)),
            Target::Tag(tag) => drop(self.tags.insert(tag.clone(), value)),
            Target::All => self.all = Some(value),
        }
    }

    /// Replaces the targets by "all entries": too much may be evicted, never too little.
    pub(crate) fn widen(&mut self, value: V) {
        *self = Self {
            all: Some(value),
            ..Self::default()
        };
    }

    /// Returns whether any of them covers `key`, whatever tags its entry has.
    pub(crate) fn covers(&self, key: &Key) -> bool {
        self.is_all()
            || self.keys.contains_key(key)
            || self
                .patterns
                .keys()
                .any(|pattern| pattern.matches(key.as_str()))
    }

    /// The same for the targets whose values meet a condition.
    pub(crate) fn covers_where(&self, key: &Key, mut holds: impl FnMut(&V) -> bool) -> bool {
        self.all.as_ref().is_some_and(&mut holds)
            || self.keys.get(key).is_some_and(&mut holds)
            || self
                .patterns
                .iter()
                .any(|(pattern, value)| pattern.matches(key.as_str()) && holds(value))
    }

    /// Returns whether one of these tags, or a tag of one of these families, is one of the targets.
    pub(crate) fn covers_tags(&self, tags: &[Tag], families: &[&str]) -> bool {
        if self.tags.is_empty() {
            return false;
        }
        tags.iter().any(|tag| self.tags.contains_key(tag))
            || (!families.is_empty()
                && self.tags.keys().any(|tag| families.contains(&tag.family())))
    }

    /// Returns whether "all entries" is one of the targets.
    pub(crate) fn is_all(&self) -> bool {
        self.all.is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.named() + usize::from(self.is_all())
    }

    /// Counts the keys, patterns and tags, without "all entries".
    pub(crate) fn named(&self) -> usize {
        self.keys.len() + self.patterns.len() + self.tags.len()
    }

    pub(crate) fn get(&self, target: &Target) -> Option<&V> {
        match target {
            Target::Key(key) => self.keys.get(key),
            Target::Pattern(pattern) => self.patterns.get(pattern),
            Target::Tag(tag) => self.tags.get(tag),
            Target::All => self.all.as_ref(),
        }
    }

    pub(crate) fn get_mut(&mut self, target: &Target) -> Option<&mut V> {
        match target {
            Target::Key(key) => self.keys.get_mut(key),
            Target::Pattern(pattern) => self.patterns.get_mut(pattern),
            Target::Tag(tag) => self.tags.get_mut(tag),
            Target::All => self.all.as_mut(),
        }
    }

    pub(crate) fn remove(&mut self, target: &Target) {
        match target {
            Target::Key(key) => drop(self.keys.remove(key)),
            Target::Pattern(pattern) => drop(self.patterns.remove(pattern)),
            Target::Tag(tag) => drop(self.tags.remove(tag)),
            Target::All => self.all = None,
        }
    }

    /// Returns all targets with their values. The widest come first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Target, &V)> {
        let all = self.all.iter().map(|value| (Target::All, value));
        let patterns = self.patterns.iter();
        let patterns = patterns.map(|(pattern, value)| (Target::Pattern(pattern.clone()), value));
        let tags = self.tags.iter();
        let tags = tags.map(|(tag, value)| (Target::Tag(tag.clone()), value));
        let keys = self.keys.iter();
        let keys = keys.map(|(key, value)| (Target::Key(key.clone()), value));
        all.chain(patterns).chain(tags).chain(keys)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.keys
            .values()
            .chain(self.patterns.values())
            .chain(self.tags.values())
            .chain(&self.all)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.keys
            .values_mut()
            .chain(self.patterns.values_mut())
            .chain(self.tags.values_mut())
            .chain(&mut self.all)
    }
}

impl TargetSet {
    /// Returns all targets. The widest come first.
    pub(crate) fn into_vec(self) -> Vec<Target> {
        let Self {
            keys,
            patterns,
            tags,
            all,
        } = self;
        let all = all.map(|()| Target::All);
        all.into_iter()
            .chain(patterns.into_keys().map(Target::Pattern))
            .chain(tags.into_keys().map(Target::Tag))
            .chain(keys.into_keys().map(Target::Key))
            .collect()
    }
}
