//! Which clients are rejected most often: counted in the process, with bounded memory, and brought together in Redis now and then.

use std::sync::LazyLock;

use super::Identity;
use crate::sketch::Sketch;
use crate::store::script::Script;
use crate::sync::Mutex;

/// Clients in a sketch.
const WIDTH: usize = 1_024;

/// Clients that are kept of each hour.
pub(super) const KEPT: usize = 256;

/// Hours that are looked back on.
pub(super) const HOURS: u64 = 24;

pub(super) static ADD: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("top_add.lua")));
pub(super) static READ: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("top_read.lua")));

/// A sketch for each policy.
#[derive(Debug)]
pub(super) struct Top(Vec<Mutex<Sketch>>);

impl Top {
    pub(super) fn new(policies: usize) -> Self {
        let sketch = |_| Mutex::new(Sketch::new(WIDTH));
        Self((0..policies).map(sketch).collect())
    }

    pub(super) fn count(&self, policy: usize, client: &Identity) {
        self.sketch(policy).add(client.as_str(), 1, ());
    }

    /// Returns all counts and resets them.
    pub(super) fn take(&self, policy: usize) -> Vec<(Box<str>, u64)> {
        self.sketch(policy).take()
    }

    /// Adds back counts that could not be stored.
    pub(super) fn put_back(&self, policy: usize, counts: Vec<(Box<str>, u64)>) {
        let mut sketch = self.sketch(policy);
        for (client, count) in counts {
            sketch.add(&client, count, ());
        }
    }

    /// Those with the highest counts, highest first.
    pub(super) fn most(&self, policy: usize, count: usize) -> Vec<(String, u64)> {
        let counts: Vec<_> = self
            .sketch(policy)
            .iter()
            .map(|(client, slot)| (client.to_owned(), slot.count))
            .collect();
        highest(counts, count)
    }

    fn sketch(&self, policy: usize) -> std::sync::MutexGuard<'_, Sketch> {
        self.0[policy].lock()
    }
}

/// The highest counts, highest first.
pub(super) fn highest(mut counts: Vec<(String, u64)>, count: usize) -> Vec<(String, u64)> {
    counts
        .sort_unstable_by(|(one, more), (other, less)| less.cmp(more).then_with(|| one.cmp(other)));
    counts.truncate(count);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_rejected_client_is_found_among_many() {
        let top = Top::new(1);

        for round in 0..3_000 {
            top.count(0, &Identity::user(round));
            top.count(0, &Identity::user("the worst"));
            if round % 2 == 0 {
                top.count(0, &Identity::user("the second"));
            }
        }

        let most = top.most(0, 2);
        assert_eq!(most[0], ("user:the%20worst".to_owned(), 3_000));
        assert_eq!(most[1].0, "user:the%20second");
        assert!(top.sketch(0).len() <= WIDTH);
    }

    #[test]
    fn counts_that_could_not_be_sent_are_kept() {
        let top = Top::new(1);
        let client = Identity::user(1);
        top.count(0, &client);

        let taken = top.take(0);
        top.count(0, &client);
        top.put_back(0, taken);

        assert_eq!(top.most(0, 9), [("user:1".to_owned(), 2)]);
    }
}
