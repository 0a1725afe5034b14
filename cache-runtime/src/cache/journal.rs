//! Evictions that Redis has not received yet. None is dropped. Until an eviction is applied, this process neither reads nor
//! fills the entries that it names.

use std::collections::HashMap;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};

use tokio::sync::Notify;
use tracing::warn;

use crate::key::Key;
use crate::store::reach::Reach;
use crate::sync::Mutex;
use crate::tag::Tag;
use crate::target::{Target, TargetMap};

/// The evictions of a process that Redis has not seen.
#[derive(Debug)]
pub(crate) struct Journal {
    intents: Mutex<Intents>,
    /// How many there are, to be read without the lock.
    depth: AtomicUsize,
    capacity: usize,
    /// Wakes the background task.
    wake: Arc<Notify>,
}

/// What is still to be evicted. Each intent has the number of the call that added it last, so an intent that is added again
/// while it is being applied is applied again.
#[derive(Debug, Default)]
struct Intents {
    targets: TargetMap<Intent>,
    next: u64,
    /// Why the journal does not shrink.
    obstacle: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Intent {
    number: u64,
    trial: Trial,
    /// The part of the keyspace that has not seen it.
    reach: Reach,
}

/// What came of the attempt to apply an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// It was not tried yet.
    Pending,
    /// Redis refused it. It is not tried again before [`Journal::retry_refused`].
    Refused,
    /// A node of the cluster was unavailable, or did not serve the slot. It is not tried again before [`Journal::retry_held`].
    Held,
}

/// Intents to be applied, as they were at one moment.
#[derive(Debug)]
pub(crate) struct Batch {
    intents: HashMap<Target, (u64, Reach)>,
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
        let targets = targets
            .into_iter()
            .map(|target| (target, &Reach::Everything));
        self.insert(targets, Trial::Pending);
        self.wake.notify_one();
    }

    /// Remembers targets that a part of the keyspace has not seen.
    pub(crate) fn add_missed(&self, targets: &[(Target, Reach)]) {
        if targets.is_empty() {
            return;
        }
        let targets = targets.iter().map(|(target, reach)| (target, reach));
        self.insert(targets, Trial::Pending);
        self.wake.notify_one();
    }

    /// Remembers targets that Redis refused, in these words.
    pub(crate) fn add_refused(&self, targets: &[(Target, String)]) {
        let Some((_, cause)) = targets.last() else {
            return;
        };
        let refused = targets
            .iter()
            .map(|(target, _)| (target, &Reach::Everything));
        self.insert(refused, Trial::Refused);
        self.lock().obstacle = Some(refusal(cause));
        self.wake.notify_one();
    }

    fn insert<'a>(&self, targets: impl IntoIterator<Item = (&'a Target, &'a Reach)>, trial: Trial) {
        let mut intents = self.lock();
        for (target, reach) in targets {
            intents.next += 1;
            let reach = match intents.targets.get(target) {
                Some(known) => known.reach.and(reach),
                None => reach.clone(),
            };
            let intent = Intent {
                number: intents.next,
                trial,
                reach,
            };
            intents.targets.insert(target, intent);
        }
        if intents.targets.named() > self.capacity {
            warn!(
                capacity = self.capacity,
                "the eviction journal is full; all entries will be evicted instead"
            );
            let intent = Intent {
                number: intents.next,
                trial: Trial::Pending,
                reach: Reach::Everything,
            };
            intents.targets.widen(intent);
            intents.obstacle = None;
        }
        self.depth.store(intents.targets.len(), Ordering::Release);
    }

    /// Returns whether an eviction of `key` is still to be applied.
    pub(crate) fn blocks(&self, key: &Key) -> bool {
        if self.depth() == 0 {
            return false;
        }
        self.lock().blocks(key)
    }

    /// Returns whether an eviction of a call is still to be applied: of its key, of one of its tags, or of a tag that its
    /// value may have.
    pub(crate) fn blocks_call(&self, key: &Key, tags: &[Tag], families: &[&str]) -> bool {
        let intents = self.lock();
        intents.blocks(key) || intents.targets.covers_tags(tags, families)
    }

    /// Returns whether an eviction of `tag` is still to be applied.
    pub(crate) fn blocks_tag(&self, tag: &Tag) -> bool {
        self.depth() > 0 && self.lock().targets.covers_tags(slice::from_ref(tag), &[])
    }

    #[inline]
    pub(crate) fn depth(&self) -> usize {
        self.depth.load(Ordering::Acquire)
    }

    /// All that is still to be applied, without what Redis refused and what waits for a node.
    pub(crate) fn pending(&self) -> Option<Batch> {
        let intents = self.lock();
        let intents: HashMap<_, _> = intents
            .targets
            .iter()
            .filter(|(_, intent)| intent.trial == Trial::Pending)
            .map(|(target, intent)| (target, (intent.number, intent.reach.clone())))
            .collect();
        (!intents.is_empty()).then_some(Batch { intents })
    }

    /// Some of the pending targets, refused or not.
    pub(crate) fn some(&self) -> Vec<Target> {
        const SOME: usize = 10;
        let intents = self.lock();
        let targets = intents.targets.iter().map(|(target, _)| target);
        targets.take(SOME).collect()
    }

    /// Forgets `targets` of `batch`, but not what was added again since.
    pub(crate) fn applied(&self, batch: &Batch, targets: &[Target]) {
        let mut intents = self.lock();
        for target in targets {
            if let Some((number, _)) = batch.intents.get(target) {
                intents.remove(target, *number);
            }
        }
        let depth = intents.targets.len();
        if depth == 0 {
            intents.obstacle = None;
        }
        self.depth.store(depth, Ordering::Release);
    }

    /// Keeps a target of `batch` that Redis refuses, with the reason, and does not retry it for now.
    pub(crate) fn refused(&self, batch: &Batch, target: &Target, cause: &str) {
        let mut intents = self.lock();
        if let Some(intent) = intents.same(batch, target) {
            intent.trial = Trial::Refused;
        }
        intents.obstacle = Some(refusal(cause));
    }

    /// Keeps a target of `batch` that this part has not seen, because its node was unavailable.
    pub(crate) fn missed(&self, batch: &Batch, target: &Target, part: &Reach) {
        let mut intents = self.lock();
        if let Some(intent) = intents.same(batch, target) {
            intent.trial = Trial::Held;
            intent.reach = part.clone();
        }
        intents.obstacle =
            Some("a node of the cluster is unavailable, or does not serve a slot".to_owned());
    }

    /// Why the journal does not shrink, if it is not because of a refusal.
    pub(crate) fn hindered(&self, why: String) {
        self.lock().obstacle = Some(why);
    }

    /// How many evictions are pending, and why the journal does not shrink, if that is known. [`None`] if none are.
    pub(crate) fn problem(&self) -> Option<String> {
        let intents = self.lock();
        let depth = intents.targets.len();
        let pending = (depth > 0).then(|| format!("pending evictions in the journal: {depth}"))?;
        Some(match &intents.obstacle {
            Some(why) => format!("{pending}; {why}"),
            None => pending,
        })
    }

    /// Makes refused targets pending again. Returns whether there were any.
    pub(crate) fn retry_refused(&self) -> bool {
        self.retry(Trial::Refused)
    }

    /// Makes targets pending again that waited for a node. Returns whether there were any.
    pub(crate) fn retry_held(&self) -> bool {
        self.retry(Trial::Held)
    }

    fn retry(&self, trial: Trial) -> bool {
        let mut any = false;
        for intent in self.lock().targets.values_mut() {
            if intent.trial == trial {
                intent.trial = Trial::Pending;
                any = true;
            }
        }
        any
    }

    /// Returns whether a target was tried and could not be applied.
    pub(crate) fn is_any_put_off(&self) -> bool {
        self.is_any(|trial| trial != Trial::Pending)
    }

    /// Returns whether a target is still to be tried.
    pub(crate) fn is_any_pending(&self) -> bool {
        self.is_any(|trial| trial == Trial::Pending)
    }

    fn is_any(&self, meant: impl Fn(Trial) -> bool) -> bool {
        let intents = self.lock();
        let mut all = intents.targets.values();
        all.any(|intent| meant(intent.trial))
    }

    fn lock(&self) -> MutexGuard<'_, Intents> {
        self.intents.lock()
    }
}

fn refusal(cause: &str) -> String {
    format!("Redis refuses them: {cause}")
}

impl Intents {
    fn blocks(&self, key: &Key) -> bool {
        self.targets
            .covers_where(key, |intent| intent.reach.contains(key))
    }

    /// The intent of `batch`, unless it was added again since.
    fn same(&mut self, batch: &Batch, target: &Target) -> Option<&mut Intent> {
        let (number, _) = batch.intents.get(target)?;
        let intent = self.targets.get_mut(target)?;
        (intent.number == *number).then_some(intent)
    }

    fn remove(&mut self, target: &Target, number: u64) {
        let intent = self.targets.get_mut(target);
        if intent.is_some_and(|intent| intent.number == number) {
            self.targets.remove(target);
        }
    }
}

impl Batch {
    pub(crate) fn targets(&self) -> impl Iterator<Item = Target> {
        self.intents.keys().cloned()
    }

    /// The part of the keyspace that has not seen some of the patterns.
    pub(crate) fn reach(&self) -> Reach {
        let patterns = self
            .intents
            .iter()
            .filter(|(target, _)| matches!(target, Target::Pattern(_) | Target::All));
        let parts = patterns.map(|(_, (_, reach))| reach);
        parts.fold(Reach::nothing(), |sum, part| sum.and(part))
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
        let batch = journal.pending().expect("one pending intent");
        journal.applied(&batch, &[key(1)]);
        assert!(!journal.blocks(&rendered(1)));
        assert_eq!(journal.depth(), 0);
    }

    #[test]
    fn an_eviction_added_again_while_it_is_applied_stays() {
        let journal = Journal::new(10, Arc::default());
        journal.add(&[key(1), key(2)]);
        let batch = journal.pending().expect("two pending intents");

        journal.add(&[key(1)]);
        journal.applied(&batch, &[key(1), key(2)]);

        assert!(journal.blocks(&rendered(1)));
        assert!(!journal.blocks(&rendered(2)));
    }

    #[test]
    fn a_full_journal_becomes_all_entries() {
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
    #[test]
    fn a_refused_eviction_blocks_its_key_until_it_is_retried() {
        let journal = Journal::new(10, Arc::default());
        journal.add(&[key(1), key(2)]);
        let batch = journal.pending().expect("two pending intents");

        journal.refused(&batch, &key(1), "NOPERM");
        journal.applied(&batch, &[key(2)]);

        assert!(journal.pending().is_none());
        assert!(journal.blocks(&rendered(1)) && !journal.blocks(&rendered(2)));
        assert!(journal.is_any_put_off());
        assert!(journal.problem().is_some_and(|why| why.contains("NOPERM")));
        assert!(journal.retry_refused());
        assert!(journal.pending().is_some());
        assert!(!journal.is_any_put_off());
    }

    #[test]
    fn an_eviction_added_again_is_no_longer_refused() {
        let journal = Journal::new(10, Arc::default());
        journal.add_refused(&[(key(1), "NOPERM".to_owned())]);
        assert!(journal.pending().is_none());

        journal.add(&[key(1)]);

        let batch = journal.pending().expect("a pending intent");
        journal.applied(&batch, &[key(1)]);
        assert_eq!((journal.depth(), journal.problem()), (0, None));
    }
}
