//! Revocations that have not reached Redis, for example a logout while Redis was unavailable.
//!
//! This process rejects those sessions from then on, and sends the revocations once Redis is available again. Until then
//! other processes that reach Redis still serve them, so the logout returns an error.

use std::collections::{HashMap, HashSet};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::place::{Place, Sid, UserTag};
use super::transition::Which;

use crate::sync::Mutex;

/// Every request checks all of them. A logout beyond this limit returns an error and is not recorded.
pub(super) const MAX_PENDING: usize = 10_000;

/// The limit per user. A user has more sessions only if the cap was raised, and one user must not use up the room of all.
const MAX_OF_ONE: usize = 100;

#[derive(Default)]
pub(super) struct Revocations {
    /// Read with every request; nearly always 0.
    count: AtomicUsize,
    endings: Mutex<Endings>,
}

#[derive(Default)]
struct Endings {
    one: HashSet<Place>,
    /// All sessions of a user that began until then, optionally except one. Repeated requests take no more room.
    others: HashMap<(UserTag, Option<Sid>), u64>,
}

impl Revocations {
    /// Records a revocation. Returns whether there was room.
    pub(super) fn add(&self, tag: UserTag, which: Which) -> bool {
        let mut endings = self.lock();
        let Endings { one, others } = &mut *endings;
        let is_known = match which {
            Which::One(sid) => one.contains(&Place { tag, sid }),
            Which::Others { except, .. } => others.contains_key(&(tag, except)),
        };
        let of_user = || {
            let ones = one.iter().filter(|place| place.tag == tag).count();
            ones + others.keys().filter(|(of, _)| *of == tag).count()
        };
        let is_full = one.len() + others.len() >= MAX_PENDING || of_user() >= MAX_OF_ONE;
        if !is_known && is_full {
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

    /// Returns whether this very session is to end.
    pub(super) fn ends_one(&self, place: Place) -> bool {
        !self.is_empty() && self.lock().one.contains(&place)
    }

    /// Returns whether a session that began at that time is to end.
    pub(super) fn ends(&self, place: Place, created: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let endings = self.lock();
        let is_meant = |(&(tag, except), &until): (&(UserTag, Option<Sid>), &u64)| {
            tag == place.tag && except != Some(place.sid) && created <= until
        };
        endings.one.contains(&place) || endings.others.iter().any(is_meant)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Returns all pending revocations.
    pub(super) fn all(&self) -> Vec<(UserTag, Which)> {
        let Endings { one, others } = &*self.lock();
        let one = one.iter().map(|place| (place.tag, Which::One(place.sid)));
        let others = others.iter().map(|(&(tag, except), &until)| {
            let began = Some(until);
            (tag, Which::Others { except, began })
        });
        one.chain(others).collect()
    }

    /// The revocation has reached Redis.
    pub(super) fn remove(&self, tag: UserTag, which: Which) {
        let mut endings = self.lock();
        let Endings { one, others } = &mut *endings;
        match which {
            Which::One(sid) => drop(one.remove(&Place { tag, sid })),
            // Not if it was requested again in the meantime.
            Which::Others { except, began } => {
                others.retain(|key, until| *key != (tag, except) || Some(*until) != began);
            }
        }
        self.count.store(one.len() + others.len(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Endings> {
        self.endings.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::{SID, TAG};
    use super::*;

    #[test]
    fn one_user_cannot_use_up_the_capacity() {
        let pending = Revocations::default();
        let (ada, eve) = (UserTag([1; TAG]), UserTag([2; TAG]));
        let one = |number: usize| {
            let mut sid = [0; SID];
            sid[..8].copy_from_slice(&number.to_be_bytes());
            Which::One(Sid(sid))
        };

        for number in 0..MAX_OF_ONE {
            assert!(pending.add(eve, one(number)));
        }

        assert!(!pending.add(eve, one(MAX_OF_ONE)));
        // Known revocations and those of other users still fit.
        assert!(pending.add(eve, one(0)));
        assert!(pending.add(ada, one(MAX_OF_ONE)));
    }
}
