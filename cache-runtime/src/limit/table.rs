//! What this process knows of a bounded number of clients. If the table is full of clients that still count, new clients
//! share one allowance. Rejecting them would let an attacker lock out all clients, and dropping others would let an
//! attacker clear its own record.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::crowd::Crowds;
use super::policy::Checked;
use super::rule::{Answer, Rule};
use super::state::State;

use crate::sync::Mutex;

/// So that threads rarely meet.
const SHARDS: usize = 16;

/// As many clients are meant by a shared allowance.
const OVERFLOW: u32 = 10;

/// How often a full shard is looked through for clients that no longer count, in milliseconds: that takes a while.
const SWEEP: u64 = 1_000;

/// Clients by their names.
#[derive(Debug)]
pub(super) struct Table {
    shards: Vec<Mutex<Shard>>,
    /// All clients without a place in the table: one record for all shards, so they share one allowance.
    overflow: Mutex<Client>,
    hasher: RandomState,
    /// Clients in each shard.
    room: usize,
}

#[derive(Debug, Default)]
struct Shard {
    clients: HashMap<Box<str>, Client>,
    swept: u64,
}

/// What is known of one client.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// By policy, for those that were asked about it, in their order.
    slots: Vec<Slot>,
    crowds: Crowds,
    /// Whether it represents many clients.
    pub(super) is_shared: bool,
}

/// What is known of one client under one policy.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) policy: usize,
    pub(super) state: State,
    /// What this process granted by itself, where it may grant less than the limit.
    pub(super) own: State,
    /// Units of calls that Redis is being asked about, or will be in a batch.
    pub(super) pending: u32,
    /// Those of them that have not been sent.
    pub(super) waiting: u32,
    /// The number of answers that were taken over from Redis. It shows whether two calls overlapped.
    pub(super) answers: u32,
    pub(super) denied: Option<Denied>,
    pub(super) attempts: Attempts,
}

/// What Redis rejected, and how long the rejection is known to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied {
    pub(super) at: u64,
    pub(super) until: u64,
    pub(super) cost: u32,
    pub(super) answer: Answer,
}

/// How often a client tried, allowed or not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempts {
    since: u64,
    units: u64,
}

impl Attempts {
    /// Counts an attempt. Returns whether it is the first beyond `most` in this window.
    pub(super) fn count(&mut self, cost: u32, most: u64, window: u64, now: u64) -> bool {
        if now.saturating_sub(self.since) >= window {
            *self = Self {
                since: now,
                units: 0,
            };
        }
        let before = self.units;
        self.units += u64::from(cost);
        before <= most && self.units > most
    }
}

impl Table {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            overflow: Mutex::new(Client {
                is_shared: true,
                ..Client::default()
            }),
            hasher: RandomState::new(),
            room: capacity.div_ceil(SHARDS),
        }
    }

    /// Does something with what is known of a client.
    pub(super) fn with<T>(
        &self,
        name: &str,
        policies: &[Checked],
        now: u64,
        work: impl FnOnce(&mut Client) -> T,
    ) -> T {
        let shard = (self.hasher.hash_one(name) as usize) % SHARDS;
        let mut guard = self.shards[shard].lock();
        let Shard { clients, swept } = &mut *guard;
        if let Some(client) = clients.get_mut(name) {
            return work(client);
        }
        if clients.len() >= self.room && now.saturating_sub(*swept) >= SWEEP {
            *swept = now;
            clients.retain(|_, client| !client.is_idle(policies, now));
        }
        if clients.len() >= self.room {
            drop(guard);
            let mut overflow = self.overflow.lock();
            return work(&mut overflow);
        }
        work(clients.entry(name.into()).or_default())
    }

    /// How many clients are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let lens = self.shards.iter().map(|shard| shard.lock().clients.len());
        lens.sum()
    }
}

impl Client {
    /// What is known under each of these policies, which are in order.
    pub(super) fn slots(&mut self, wanted: &[usize], policies: &[Checked]) -> Vec<&mut Slot> {
        self.parts(wanted, policies).0
    }

    /// The same, and the calls on their way.
    pub(super) fn parts(
        &mut self,
        wanted: &[usize],
        policies: &[Checked],
    ) -> (Vec<&mut Slot>, &mut Crowds) {
        for policy in wanted {
            if let Err(place) = self.slots.binary_search_by_key(policy, |slot| slot.policy) {
                let algorithm = policies[*policy].rule.algorithm;
                let slot = Slot {
                    policy: *policy,
                    state: State::new(algorithm),
                    own: State::new(algorithm),
                    pending: 0,
                    waiting: 0,
                    answers: 0,
                    denied: None,
                    attempts: Attempts::default(),
                };
                self.slots.insert(place, slot);
            }
        }
        let wanted = self
            .slots
            .iter_mut()
            .filter(|slot| wanted.contains(&slot.policy));
        (wanted.collect(), &mut self.crowds)
    }

    /// Forgets what is known under one policy, except for calls under way.
    pub(super) fn forget(&mut self, policy: usize, policies: &[Checked]) {
        for slot in self.slots(&[policy], policies) {
            let algorithm = policies[policy].rule.algorithm;
            slot.state = State::new(algorithm);
            slot.own = State::new(algorithm);
            slot.denied = None;
        }
    }

    fn is_idle(&self, policies: &[Checked], now: u64) -> bool {
        self.slots.iter().all(|slot| {
            let rule = &policies[slot.policy].rule;
            let is_denied = slot.denied.is_some_and(|denied| denied.until > now);
            slot.pending == 0 && !is_denied && slot.state.is_idle(rule, now)
        })
    }
}

/// The rule for a record that represents many clients.
pub(super) fn shared(rule: Rule) -> Rule {
    Rule {
        limit: rule.limit.saturating_mul(OVERFLOW),
        ..rule
    }
}
