//! Endings that Redis has not heard of: somebody logged out while it was away.
//!
//! This process refuses those sessions from then on, and tells Redis once it is back. Until then other processes that reach it go on
//! serving them, which is why whoever logged out is told that it failed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::backend::Which;
use super::place::{Place, Sid, Tag};

/// Each of them is looked at with every request meanwhile. Whoever logs out beyond that is told to try again, and is not remembered.
const MOST: usize = 10_000;

#[derive(Default)]
pub(super) struct Pending {
    /// Read with every request; nearly always 0.
    count: AtomicUsize,
    endings: Mutex<Endings>,
}

#[derive(Default)]
struct Endings {
    one: HashSet<Place>,
    /// All sessions of a user, but perhaps one, that began until then. Whoever asks again and again takes no more room.
    others: HashMap<(Tag, Option<Sid>), u64>,
}

impl Pending {
    /// Remembers an ending; answers whether there was room.
    pub(super) fn add(&self, tag: Tag, which: Which) -> bool {
        let mut endings = self.lock();
        let Endings { one, others } = &mut *endings;
        let is_known = match which {
            Which::One(sid) => one.contains(&Place { tag, sid }),
            Which::Others { except, .. } => others.contains_key(&(tag, except)),
        };
        if !is_known && one.len() + others.len() >= MOST {
            return false;
        }
        match which {
            Which::One(sid) => drop(one.insert(Place { tag, sid })),
            Which::Others { except, began } => {
                let until = others.entry((tag, except)).or_default();
                *until = began.unwrap_or(u64::MAX).max(*until);
            }
        }
        self.count.store(one.len() + others.len(), Relaxed);
        true
    }

    /// Whether this very session is to end.
    pub(super) fn ends_one(&self, place: Place) -> bool {
        !self.is_empty() && self.lock().one.contains(&place)
    }

    /// Whether a session that began at that time is to end.
    pub(super) fn ends(&self, place: Place, created: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let endings = self.lock();
        let is_meant = |(&(tag, except), &until): (&(Tag, Option<Sid>), &u64)| {
            tag == place.tag && except != Some(place.sid) && created <= until
        };
        endings.one.contains(&place) || endings.others.iter().any(is_meant)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// All that are to be told.
    pub(super) fn all(&self) -> Vec<(Tag, Which)> {
        let Endings { one, others } = &*self.lock();
        let one = one.iter().map(|place| (place.tag, Which::One(place.sid)));
        let others = others.iter().map(|(&(tag, except), &until)| {
            let began = Some(until);
            (tag, Which::Others { except, began })
        });
        one.chain(others).collect()
    }

    /// Redis has heard of it.
    pub(super) fn remove(&self, tag: Tag, which: Which) {
        let mut endings = self.lock();
        let Endings { one, others } = &mut *endings;
        match which {
            Which::One(sid) => drop(one.remove(&Place { tag, sid })),
            // Not if somebody asked once more meanwhile.
            Which::Others { except, began } => {
                others.retain(|key, until| *key != (tag, except) || Some(*until) != began);
            }
        }
        self.count.store(one.len() + others.len(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Endings> {
        self.endings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
