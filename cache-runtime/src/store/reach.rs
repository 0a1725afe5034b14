//! A part of the keyspace, for example the part that a step could not reach.

use std::sync::Arc;

use super::slots::Slot;
use crate::key::Key;

const WORDS: usize = Slot::COUNT / 64;

/// All keys, or those of some slots of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Everything,
    Slots(Arc<[u64; WORDS]>),
}

impl Reach {
    pub(super) fn of(slots: impl IntoIterator<Item = Slot>) -> Self {
        let mut words = [0; WORDS];
        for slot in slots {
            words[slot.index() / 64] |= 1 << (slot.index() % 64);
        }
        Self::Slots(Arc::new(words))
    }

    pub(crate) fn nothing() -> Self {
        Self::of([])
    }

    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Self::Everything => false,
            Self::Slots(words) => words.iter().all(|word| *word == 0),
        }
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        match self {
            Self::Everything => true,
            Self::Slots(_) => self.has(Slot::of(key.as_str().as_bytes())),
        }
    }

    pub(super) fn has(&self, slot: Slot) -> bool {
        match self {
            Self::Everything => true,
            Self::Slots(words) => words[slot.index() / 64] >> (slot.index() % 64) & 1 == 1,
        }
    }

    /// What is not in the other part.
    pub(super) fn without(&self, other: &Self) -> Self {
        let (mut words, removed) = match (self, other) {
            (_, Self::Everything) => return Self::nothing(),
            (Self::Everything, Self::Slots(removed)) => ([u64::MAX; WORDS], removed),
            (Self::Slots(words), Self::Slots(removed)) => (**words, removed),
        };
        for (word, removed) in words.iter_mut().zip(removed.iter()) {
            *word &= !removed;
        }
        Self::Slots(Arc::new(words))
    }

    /// Both parts together.
    pub(crate) fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Slots(one), Self::Slots(other)) => {
                let mut words = **one;
                for (word, more) in words.iter_mut().zip(other.iter()) {
                    *word |= more;
                }
                Self::Slots(Arc::new(words))
            }
            _ => Self::Everything,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::render("dev_", |key| {
            key.text(name);
        })
    }

    fn reach(name: &str) -> Reach {
        Reach::of([Slot::of(key(name).as_str().as_bytes())])
    }

    #[test]
    fn a_part_contains_the_keys_of_its_slots() {
        let both = reach("a").and(&reach("b"));

        assert!(both.contains(&key("a")) && both.contains(&key("b")));
        assert!(!both.contains(&key("c")));
        assert!(Reach::Everything.contains(&key("c")));
    }

    #[test]
    fn a_part_without_another_has_the_rest() {
        let both = reach("a").and(&reach("b"));

        assert_eq!(both.without(&reach("a")), reach("b"));
        assert!(both.without(&Reach::Everything).is_nothing());
        let rest = Reach::Everything.without(&both);
        assert!(rest.contains(&key("c")));
        assert!(!rest.contains(&key("a")) && !rest.contains(&key("b")));
        assert_eq!(rest.and(&both), Reach::of(Slot::all()));
    }

    #[test]
    fn everything_is_more_than_any_part() {
        assert_eq!(reach("a").and(&Reach::Everything), Reach::Everything);
        assert!(Reach::nothing().is_nothing());
        assert_eq!(Reach::nothing().and(&reach("a")), reach("a"));
        assert!(!reach("a").is_nothing());
    }
}
