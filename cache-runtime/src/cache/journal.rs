//! Evictions that Redis has not seen yet. None is dropped: until one is applied, this process neither reads nor fills what
//! it names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tracing::warn;

use crate::key::{Key, Pattern};
use crate::target::Target;

/// What is still to be evicted.
#[derive(Debug)]
pub(crate) struct Journal {
    intents: Mutex<Intents>,
    /// How many there are, to be read without the lock.
    depth: AtomicUsize,
    capacity: usize,
    /// Wakes the keeper.
    wake: Arc<Notify>,
}

/// Each intent bears the number of the call that added it last, so that one which is added again while it is being applied
/// is applied again.
#[derive(Clone, Debug, Default)]
struct Intents {
    keys: HashMap<Key, u64>,
    patterns: HashMap<Pattern, u64>,
    all: Option<u64>,
    next: u64,
}

/// Intents to be applied, as they were at one moment.
#[derive(Debug)]
pub(crate) struct Batch {
    intents: Intents,
}

impl Journal {
    pub(crate) fn new(capacity: usize, wake: Arc<Notify>) -> Self {
        Self {
            intents: Mutex::default(),
            depth: AtomicUsize::new(0),
            capacity,
            wake,
        }
    }

    /// Remembers `targets`. More than the journal can hold become "all entries": it may evict too much, never too little.
    pub(crate) fn add<'a>(&self, targets: impl IntoIterator<Item = &'a Target>) {
        let mut intents = self.lock();
        for target in targets {
            intents.next += 1;
            let number = intents.next;
            match target {
                Target::Key(key) => drop(intents.keys.insert(key.clone(), number)),
                Target::Pattern(pattern) => drop(intents.patterns.insert(pattern.clone(), number)),
                Target::All => intents.all = Some(number),
            }
        }
        if intents.keys.len() + intents.patterns.len() > self.capacity {
            warn!(
                capacity = self.capacity,
                "the journal of evictions is full; all entries will be evicted instead"
            );
            *intents = Intents {
                all: Some(intents.next),
                next: intents.next,
                ..Intents::default()
            };
        }
        self.depth.store(intents.depth(), Ordering::Release);
        drop(intents);
        self.wake.notify_one();
    }

    /// Whether an eviction of `key` is still to be applied.
    pub(crate) fn blocks(&self, key: &Key) -> bool {
        if self.depth() == 0 {
            return false;
        }
        let intents = self.lock();
        intents.all.is_some()
            || intents.keys.contains_key(key)
            || intents
                .patterns
                .keys()
                .any(|pattern| pattern.matches(key.as_str()))
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth.load(Ordering::Acquire)
    }

    /// All that is still to be applied.
    pub(crate) fn pending(&self) -> Option<Batch> {
        let intents = self.lock();
        (intents.depth() > 0).then(|| Batch {
            intents: intents.clone(),
        })
    }

    /// Forgets what `batch` holds, but not what was added again since.
    pub(crate) fn applied(&self, batch: &Batch) {
        let mut intents = self.lock();
        let Intents {
            keys,
            patterns,
            all,
            next: _,
        } = &batch.intents;
        for (key, number) in keys {
            if intents.keys.get(key) == Some(number) {
                intents.keys.remove(key);
            }
        }
        for (pattern, number) in patterns {
            if intents.patterns.get(pattern) == Some(number) {
                intents.patterns.remove(pattern);
            }
        }
        if intents.all == *all {
            intents.all = None;
        }
        self.depth.store(intents.depth(), Ordering::Release);
    }

    /// Runs `then` if nothing is pending, while nothing can be added.
    pub(crate) fn if_empty(&self, then: impl FnOnce()) {
        let intents = self.lock();
        if intents.depth() == 0 {
            then();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Intents> {
        self.intents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intents {
    fn depth(&self) -> usize {
        self.keys.len() + self.patterns.len() + usize::from(self.all.is_some())
    }
}

impl Batch {
    /// The targets, widest first.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let Intents {
            keys,
            patterns,
            all,
            next: _,
        } = &self.intents;
        all.map(|_| Target::All)
            .into_iter()
            .chain(patterns.keys().cloned().map(Target::Pattern))
            .chain(keys.keys().cloned().map(Target::Key))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: i64) -> Target {
        Target::Key(Key::render("dev_", |key| {
            key.text("event:").value(&id);
        }))
    }

    fn rendered(id: i64) -> Key {
        match key(id) {
            Target::Key(key) => key,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_eviction_blocks_its_key_until_it_is_applied() {
        let journal = Journal::new(10, Arc::default());

        journal.add(&[key(1)]);

        assert!(journal.blocks(&rendered(1)));
        assert!(!journal.blocks(&rendered(2)));
        let batch = journal.pending().expect("one intent is pending");
        journal.applied(&batch);
        assert!(!journal.blocks(&rendered(1)));
        assert_eq!(journal.depth(), 0);
    }

    #[test]
    fn an_eviction_that_is_added_again_while_it_is_applied_stays() {
        let journal = Journal::new(10, Arc::default());
        journal.add(&[key(1), key(2)]);
        let batch = journal.pending().expect("two intents are pending");

        journal.add(&[key(1)]);
        journal.applied(&batch);

        assert!(journal.blocks(&rendered(1)));
        assert!(!journal.blocks(&rendered(2)));
    }

    #[test]
    fn more_than_it_can_hold_becomes_all_entries() {
        let journal = Journal::new(3, Arc::default());

        journal.add(&(0..4).map(key).collect::<Vec<_>>());

        assert_eq!(journal.depth(), 1);
        assert!(journal.blocks(&rendered(99)));
    }

    #[test]
    fn the_same_eviction_twice_is_one_intent() {
        let journal = Journal::new(3, Arc::default());

        journal.add(&[key(1), key(1), key(1), key(1)]);

        assert_eq!(journal.depth(), 1);
        assert!(!journal.blocks(&rendered(99)));
    }
}
