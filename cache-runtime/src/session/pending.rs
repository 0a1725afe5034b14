//! Endings that Redis has not heard of: somebody logged out while it was away.
//!
//! This process refuses those sessions from then on, and tells Redis once it is back. Until then other processes that reach it go on
//! serving them, which is why whoever logged out is told that it failed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::backend::Which;
use super::place::{Place, Tag};

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
    others: Vec<(Tag, Which)>,
}

impl Pending {
    /// Remembers an ending; answers whether there was room.
    pub(super) fn add(&self, tag: Tag, which: Which) -> bool {
        let mut endings = self.lock();
        let Endings { one, others } = &mut *endings;
        if one.len() + others.len() >= MOST {
            return false;
        }
        match which {
            Which::One(sid) => drop(one.insert(Place { tag, sid })),
            Which::Others { .. } => others.push((tag, which)),
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
        let is_meant = |(tag, which): &(Tag, Which)| {
            let Which::Others { except, began } = which else {
                return false;
            };
            let is_later = began.is_some_and(|began| created > began);
            *tag == place.tag && *except != Some(place.sid) && !is_later
        };
        endings.one.contains(&place) || endings.others.iter().any(is_meant)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// One that is to be told, if any.
    pub(super) fn next(&self) -> Option<(Tag, Which)> {
        let endings = self.lock();
        let one = endings.one.iter().next();
        let one = one.map(|place| (place.tag, Which::One(place.sid)));
        one.or_else(|| endings.others.first().copied())
    }

    /// Redis has heard of it.
    pub(super) fn remove(&self, tag: Tag, which: Which) {
        let mut endings = self.lock();
        let Endings { one, others } = &mut *endings;
        match which {
            Which::One(sid) => drop(one.remove(&Place { tag, sid })),
            Which::Others { .. } => others.retain(|known| *known != (tag, which)),
        }
        self.count.store(one.len() + others.len(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Endings> {
        self.endings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
