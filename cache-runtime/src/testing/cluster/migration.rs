//! The move of a slot from one node to another, step by step, as `redis-cli --cluster reshard` makes it.

use std::io::{self, Error};

use super::{Cluster, Node};
use crate::config::Address;

/// How many keys one step moves.
const BATCH: usize = 100;

/// How many slots move at the same time.
const AT_ONCE: usize = 50;

/// How long a step may take, in milliseconds.
const STEP_LIMIT: u32 = 5_000;

/// A slot on its way from one node to another. Until it is finished or aborted the slot is open: the old owner answers for the
/// keys that it still has, and sends clients of all others to the new owner (`ASK`).
///
/// ```no_run
/// use cache_runtime::testing::Cluster;
///
/// # fn main() -> std::io::Result<()> {
/// let cluster = Cluster::start()?;
/// let slot = cluster.slot("test_{user:42}")?;
/// let (from, to) = (cluster.owner(slot)?, (cluster.owner(slot)? + 1) % 3);
///
/// let migration = cluster.begin_migration(slot, to)?;
/// cluster.move_keys(migration, 10)?;
/// // The slot is open. Here the test reads and evicts its keys.
/// cluster.finish_migration(migration)?;
/// assert_eq!((migration.from(), cluster.owner(slot)?), (from, to));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the slot stays open until the migration is finished or aborted"]
pub struct Migration {
    slot: u16,
    from: usize,
    to: usize,
}

impl Migration {
    /// Returns the slot.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Returns the node that owns the slot until the migration is finished.
    pub fn from(&self) -> usize {
        self.from
    }

    /// Returns the node that gets the slot.
    pub fn to(&self) -> usize {
        self.to
    }
}

impl Cluster {
    /// Opens a slot for its move to another node (`CLUSTER SETSLOT … IMPORTING` and `MIGRATING`). It moves no keys.
    ///
    /// # Errors
    ///
    /// If a node does not answer or refuses, for example because it is not a primary.
    pub fn begin_migration(&self, slot: u16, to: usize) -> io::Result<Migration> {
        self.open_slot(slot, self.owner(slot)?, to)
    }

    /// Moves up to `limit` keys of the slot to its new owner. Returns how many it moved.
    ///
    /// # Errors
    ///
    /// If a node does not answer or refuses.
    pub fn move_keys(&self, migration: Migration, limit: usize) -> io::Result<usize> {
        let Migration { slot, from, to } = migration;
        self.nodes[from].send_keys(slot, &self.nodes[to], limit)
    }

    /// Moves the remaining keys, and makes the new owner known to all primaries that run (`CLUSTER SETSLOT … NODE`).
    ///
    /// # Errors
    ///
    /// If a node does not answer or refuses.
    pub fn finish_migration(&self, migration: Migration) -> io::Result<()> {
        let Migration { slot, from, to } = migration;
        self.close_slots(&[slot], from, to, &self.running_primaries()?)
    }

    fn open_slot(&self, slot: u16, from: usize, to: usize) -> io::Result<Migration> {
        let [source, target] = [&self.nodes[from], &self.nodes[to]];
        target.set_slot(slot, &["IMPORTING", &source.id])?;
        source.set_slot(slot, &["MIGRATING", &target.id])?;
        Ok(Migration { slot, from, to })
    }

    /// Moves slots with their keys.
    pub(super) fn move_slots(&self, slots: &[u16], from: usize, to: usize) -> io::Result<()> {
        let primaries = self.running_primaries()?;
        let [source, target] = [&self.nodes[from], &self.nodes[to]];
        for slots in slots.chunks(AT_ONCE) {
            target.set_slots(slots, &["IMPORTING", &source.id])?;
            source.set_slots(slots, &["MIGRATING", &target.id])?;
            self.close_slots(slots, from, to, &primaries)?;
        }
        Ok(())
    }

    fn close_slots(
        &self,
        slots: &[u16],
        from: usize,
        to: usize,
        primaries: &[usize],
    ) -> io::Result<()> {
        for slot in slots {
            while self.nodes[from].send_keys(*slot, &self.nodes[to], BATCH)? > 0 {}
        }
        let id = self.id(to);
        // The new owner first: until it knows that it is the owner, the old one must not send clients to it.
        self.nodes[to].set_slots(slots, &["NODE", id])?;
        self.nodes[from].set_slots(slots, &["NODE", id])?;
        for other in primaries.iter().filter(|node| ![from, to].contains(node)) {
            self.nodes[*other].set_slots(slots, &["NODE", id])?;
        }
        Ok(())
    }

    /// Returns the primaries that run, with slots or without.
    fn running_primaries(&self) -> io::Result<Vec<usize>> {
        let mut primaries = Vec::new();
        for (number, node) in self.running() {
            if node.view()?.primary_of(&node.id).is_none() {
                primaries.push(number);
            }
        }
        Ok(primaries)
    }

    /// Closes the slot at its old owner (`CLUSTER SETSLOT … STABLE`), and moves the keys back.
    ///
    /// Nothing may use the slot at that time: the old owner answers as if keys that are not back yet did not exist.
    ///
    /// # Errors
    ///
    /// If a node does not answer or refuses.
    pub fn abort_migration(&self, migration: Migration) -> io::Result<()> {
        let Migration { slot, from, to } = migration;
        let [source, target] = [&self.nodes[from], &self.nodes[to]];
        // The old owner accepts no key of a slot that it is about to give away.
        source.set_slot(slot, &["STABLE"])?;
        while target.send_keys(slot, source, BATCH)? > 0 {}
        target.set_slot(slot, &["STABLE"])
    }
}

impl Node {
    fn set_slot(&self, slot: u16, state: &[&str]) -> io::Result<()> {
        let slot = slot.to_string();
        let command = ["CLUSTER", "SETSLOT", &slot];
        self.ask(&[&command, state].concat())
    }

    fn set_slots(&self, slots: &[u16], state: &[&str]) -> io::Result<()> {
        let mut commands = redis::Pipeline::with_capacity(slots.len());
        for slot in slots {
            commands.cmd("CLUSTER").arg("SETSLOT").arg(*slot).arg(state);
        }
        self.send_all(&commands)
    }

    /// Moves up to `limit` keys of a slot to another node. Returns how many it moved.
    fn send_keys(&self, slot: u16, to: &Self, limit: usize) -> io::Result<usize> {
        let [slot, limit] = [slot.to_string(), limit.to_string()];
        let keys: Vec<Vec<u8>> = self.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, &limit])?;
        if keys.is_empty() {
            return Ok(0);
        }
        let Address::Tcp(host, port) = to.server.address() else {
            return Err(Error::other("the node of a cluster listens on a port"));
        };
        let mut command = redis::cmd("MIGRATE");
        command.arg(host).arg(*port).arg("").arg(0).arg(STEP_LIMIT);
        command.arg("REPLACE");
        if let Some(password) = &to.server.endpoint().password {
            command.arg("AUTH").arg(password);
        }
        self.send::<()>(command.arg("KEYS").arg(&keys))?;
        Ok(keys.len())
    }
}
