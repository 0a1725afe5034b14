//! What Redis acknowledged a short while ago. A replica that is promoted, or a server that starts from an older snapshot, may
//! not know it, so it is applied again before callers use such a server.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

/// What was acknowledged within a period, without duplicates. There are two generations, and the older one is dropped as a
/// whole. Everything stays for at least that period, and for at most twice that period while more is added.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    memory: Duration,
    capacity: usize,
    generations: Mutex<Generations<T>>,
}

#[derive(Debug)]
struct Generations<T> {
    young: HashSet<T>,
    old: HashSet<T>,
    began: Instant,
    /// What no replica has confirmed, each with the number of its call. It stays until a replica does.
    held: HashMap<T, u64>,
    holds: u64,
}

/// Whether all that is recent is still known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// More came within the time than can be kept: some of it was forgotten.
    Exceeded,
}

impl<T: Clone + Eq + Hash> Recent<T> {
    /// Keeps at most `capacity` in each generation.
    pub(crate) fn new(memory: Duration, capacity: usize) -> Self {
        let generations = Generations {
            young: HashSet::new(),
            old: HashSet::new(),
            began: Instant::now(),
            held: HashMap::new(),
            holds: 0,
        };
        Self {
            memory,
            capacity,
            generations: Mutex::new(generations),
        }
    }

    /// Remembers what is about to be acknowledged. Items are kept if they are younger than the memory period before
    /// `confirmed`, the last moment at which Redis was known to be the right server.
    pub(crate) fn add(&self, items: impl IntoIterator<Item = T>, confirmed: Instant) -> Room {
        if self.memory.is_zero() {
            return Room::Enough;
        }
        let mut generations = self.lock();
        let Generations {
            young, old, began, ..
        } = &mut *generations;
        if confirmed.saturating_duration_since(*began) >= self.memory {
            *old = std::mem::take(young);
            *began = Instant::now();
        }
        young.extend(items);
        if young.len() <= self.capacity {
            return Room::Enough;
        }
        old.clear();
        young.clear();
        Room::Exceeded
    }

    /// Remembers what was acknowledged and not confirmed by replicas, until it is.
    pub(crate) fn hold(&self, items: impl IntoIterator<Item = T>) -> Room {
        let mut generations = self.lock();
        let Generations { held, holds, .. } = &mut *generations;
        *holds += 1;
        held.extend(items.into_iter().map(|item| (item, *holds)));
        if held.len() <= self.capacity {
            return Room::Enough;
        }
        held.clear();
        Room::Exceeded
    }

    /// Returns the number of the last call of [`hold`](Self::hold).
    pub(crate) fn holds(&self) -> u64 {
        self.lock().holds
    }

    /// Forgets what the calls of [`hold`](Self::hold) up to this one hold: replicas have it.
    pub(crate) fn release(&self, until: u64) {
        self.lock().held.retain(|_, number| *number > until);
    }

    /// How much is held.
    pub(crate) fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// All that is remembered.
    pub(crate) fn all(&self) -> Vec<T> {
        self.all_where(|_| true)
    }

    /// All of these that are remembered.
    pub(crate) fn all_where(&self, is_meant: impl Fn(&T) -> bool) -> Vec<T> {
        let generations = self.lock();
        let Generations {
            young, old, held, ..
        } = &*generations;
        let all = young.iter().chain(old).chain(held.keys());
        let all: HashSet<_> = all.filter(|item| is_meant(item)).collect();
        all.into_iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations<T>> {
        self.generations.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_secs(30);

    fn sorted(recent: &Recent<u32>) -> Vec<u32> {
        let mut all = recent.all();
        all.sort_unstable();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn evictions_are_remembered_for_one_to_two_periods() {
        let recent = Recent::new(MEMORY, 10);
        let add = |item| recent.add([item], Instant::now());

        add(1);
        tokio::time::advance(Duration::from_secs(20)).await;
        add(2);
        tokio::time::advance(Duration::from_secs(20)).await;
        add(3);
        assert_eq!(sorted(&recent), [1, 2, 3]);
        tokio::time::advance(Duration::from_secs(31)).await;
        add(3);
        add(4);

        assert_eq!(sorted(&recent), [3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_forgotten_until_the_server_is_confirmed() {
        let recent = Recent::new(MEMORY, 10);
        let confirmed = Instant::now();

        for item in 0..5 {
            recent.add([item], confirmed);
            tokio::time::advance(MEMORY).await;
        }

        assert_eq!(sorted(&recent), [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_replica_confirms_is_remembered_until_one_does() {
        let recent = Recent::new(MEMORY, 10);
        recent.hold([1]);
        let before = recent.holds();
        recent.hold([2]);
        for item in 3..6 {
            tokio::time::advance(2 * MEMORY).await;
            recent.add([item], Instant::now());
        }

        assert_eq!(sorted(&recent), [1, 2, 4, 5]);
        recent.release(before);
        assert_eq!(sorted(&recent), [2, 4, 5]);
        assert_eq!(recent.hold(10..20), Room::Exceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn an_overflow_is_reported() {
        let recent = Recent::new(MEMORY, 2);

        assert_eq!(recent.add([1, 2], Instant::now()), Room::Enough);
        assert_eq!(recent.add([3], Instant::now()), Room::Exceeded);
    }
}
