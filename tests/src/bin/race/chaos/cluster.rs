//! Faults of a cluster. Each node is behind a proxy of its own, so that the network can fail for one of them.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result};
use cache_runtime::testing::{Cluster, Failover, FaultProxy, Migration};
use redis::Client;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::dice::Dice;

const SLOTS: u64 = 16_384;

/// A fault of a cluster, and how long it lasts.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Slots move to another primary with their keys, and back.
    Reshard(RangeInclusive<u16>),
    /// A slot is left half moved until the next fault of this kind.
    OpenSlot(u16),
    /// A replica takes the place of its primary.
    Failover(u16, Failover),
    /// The primary of a slot dies. Its replica takes its place, and lacks what the primary acknowledged for this long.
    LoseEvictions(u16, Duration),
    /// The primary of a slot dies. It comes back as a replica.
    KillPrimary(u16, Duration),
    /// The primary of a slot is stopped.
    FreezePrimary(u16, Duration),
    /// Clients do not reach the primary of a slot, and the other nodes do.
    CutPrimary(u16, Duration),
    /// Clients reach the primary of a slot, and nothing comes back.
    StallPrimary(u16, Duration),
    /// All nodes are stopped.
    FreezeAll(Duration),
    /// All nodes die, and are restarted empty.
    KillAll(Duration),
}

/// The cluster and the network before it.
pub(super) struct Nodes {
    cluster: Cluster,
    networks: Vec<FaultProxy>,
    open: Option<Migration>,
}

pub(super) fn slot(dice: &mut Dice) -> u16 {
    dice.below(SLOTS) as u16
}

pub(super) fn slots(dice: &mut Dice, many: u16) -> RangeInclusive<u16> {
    let first = dice.below(SLOTS - u64::from(many)) as u16;
    first..=first + many - 1
}

impl Nodes {
    pub(super) fn start() -> Result<Self> {
        let cluster = block_in_place(Cluster::start)?;
        let networks = (0..cluster.len()).map(|node| FaultProxy::start(cluster.server(node)));
        let networks = networks.collect::<std::io::Result<_>>()?;
        Ok(Self {
            cluster,
            networks,
            open: None,
        })
    }

    /// Returns the address of the cluster, without the network.
    pub(super) fn url(&self) -> String {
        self.cluster.url()
    }

    /// Returns the address of the cluster through the network.
    pub(super) fn proxied_url(&self) -> String {
        let hosts: Vec<_> = self
            .networks
            .iter()
            .map(|network| network.address().to_string())
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Returns the address of each node with the address of its proxy, as `CACHE_CLUSTER_MAP` has them.
    pub(super) fn map(&self) -> String {
        let networks = self.networks.iter().enumerate();
        let pair = |(node, network): (usize, &FaultProxy)| {
            format!("{}={}", self.cluster.address(node), network.address())
        };
        networks.map(pair).collect::<Vec<_>>().join(",")
    }

    /// Begins the fault, waits, and ends it. Then all slots have a primary again.
    pub(super) async fn inflict(&mut self, fault: &Fault) -> Result<()> {
        match fault {
            Fault::Reshard(slots) => {
                let cluster = &self.cluster;
                let from = block_in_place(|| cluster.owner(*slots.start()))?;
                let to = self.another_primary(from)?;
                block_in_place(|| cluster.reshard(slots.clone(), to))?;
                sleep(Duration::from_millis(200)).await;
                block_in_place(|| cluster.reshard(slots.clone(), from))?;
            }
            Fault::OpenSlot(slot) => {
                self.close_slot()?;
                let cluster = &self.cluster;
                let from = block_in_place(|| cluster.owner(*slot))?;
                let to = self.another_primary(from)?;
                self.open = Some(block_in_place(|| {
                    let migration = cluster.begin_migration(*slot, to)?;
                    cluster.move_keys(migration, 1)?;
                    std::io::Result::Ok(migration)
                })?);
            }
            Fault::Failover(slot, how) => {
                self.close_slot()?;
                let cluster = &self.cluster;
                block_in_place(|| {
                    let replica = cluster.replica_of(cluster.owner(*slot)?)?;
                    cluster.failover(replica, *how)
                })?;
            }
            Fault::LoseEvictions(slot, lasting) => {
                self.close_slot()?;
                let (primary, replica) = block_in_place(|| {
                    let primary = self.cluster.owner(*slot)?;
                    Ok::<_, std::io::Error>((primary, self.cluster.replica_of(primary)?))
                })?;
                self.cluster.pause(replica)?;
                block_in_place(|| self.fill_the_way_from(primary))?;
                sleep(*lasting).await;
                self.cluster.kill(primary);
                self.cluster.resume(replica)?;
                block_in_place(|| {
                    self.cluster.failover(replica, Failover::Takeover)?;
                    self.cluster.restart(primary)
                })?;
            }
            Fault::KillPrimary(slot, down) => {
                self.close_slot()?;
                let primary = block_in_place(|| self.cluster.owner(*slot))?;
                self.cluster.kill(primary);
                sleep(*down).await;
                block_in_place(|| {
                    self.cluster.settle()?;
                    self.cluster.restart(primary)
                })?;
            }
            Fault::FreezePrimary(slot, lasting) => {
                self.close_slot()?;
                let primary = block_in_place(|| self.cluster.owner(*slot))?;
                self.cluster.pause(primary)?;
                sleep(*lasting).await;
                self.cluster.resume(primary)?;
            }
            Fault::CutPrimary(slot, lasting) => {
                let primary = block_in_place(|| self.cluster.owner(*slot))?;
                self.networks[primary].cut();
                sleep(*lasting).await;
                self.networks[primary].pass();
            }
            Fault::StallPrimary(slot, lasting) => {
                let primary = block_in_place(|| self.cluster.owner(*slot))?;
                self.networks[primary].stall();
                sleep(*lasting).await;
                self.networks[primary].pass();
            }
            Fault::FreezeAll(lasting) => {
                self.close_slot()?;
                for node in 0..self.cluster.len() {
                    self.cluster.pause(node)?;
                }
                sleep(*lasting).await;
                for node in 0..self.cluster.len() {
                    self.cluster.resume(node)?;
                }
            }
            Fault::KillAll(down) => {
                self.close_slot()?;
                for node in 0..self.cluster.len() {
                    self.cluster.kill(node);
                }
                sleep(*down).await;
                for node in 0..self.cluster.len() {
                    block_in_place(|| self.cluster.restart(node))?;
                }
            }
        }
        Ok(block_in_place(|| self.cluster.settle())?)
    }

    /// Finishes the move of the slot that was left open.
    pub(super) fn close_slot(&mut self) -> Result<()> {
        if let Some(migration) = self.open.take() {
            block_in_place(|| self.cluster.finish_migration(migration))?;
        }
        Ok(())
    }

    /// Writes so much that what is written next does not reach the frozen replica of a primary, not even after the primary is gone.
    fn fill_the_way_from(&self, primary: usize) -> Result<()> {
        const BETWEEN: usize = 32 << 20;
        let value = vec![b'x'; 1 << 20];
        let mut names = (0..100).map(|number| format!("filler:{number}"));
        let is_there = |name: &String| {
            let slot = self.cluster.slot(name);
            slot.and_then(|slot| self.cluster.owner(slot))
                .is_ok_and(|owner| owner == primary)
        };
        let name = names.find(is_there).context("a primary without slots")?;
        let mut connection = Client::open(self.cluster.server(primary).url())?.get_connection()?;
        for _ in 0..BETWEEN / value.len() {
            let mut set = redis::cmd("SET");
            set.arg(&name).arg(&value).exec(&mut connection)?;
        }
        Ok(())
    }

    fn another_primary(&self, than: usize) -> Result<usize> {
        let primaries = block_in_place(|| self.cluster.primaries())?;
        let mut others = primaries.into_iter().filter(|primary| *primary != than);
        others.next().context("a cluster with one primary")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reshard(slots) => write!(f, "reshard of {slots:?} and back"),
            Self::OpenSlot(slot) => write!(f, "slot {slot} half moved"),
            Self::Failover(slot, how) => write!(f, "failover of slot {slot}: {how:?}"),
            Self::LoseEvictions(slot, lasting) => {
                write!(
                    f,
                    "loss of what the primary of slot {slot} acknowledged for {lasting:?}"
                )
            }
            Self::KillPrimary(slot, down) => {
                write!(f, "kill of the primary of slot {slot}, down for {down:?}")
            }
            Self::FreezePrimary(slot, lasting) => {
                write!(f, "freeze of the primary of slot {slot} for {lasting:?}")
            }
            Self::CutPrimary(slot, lasting) => {
                write!(f, "cut of the primary of slot {slot} for {lasting:?}")
            }
            Self::StallPrimary(slot, lasting) => {
                write!(f, "stall of the primary of slot {slot} for {lasting:?}")
            }
            Self::KillAll(down) => write!(f, "kill of all nodes, down for {down:?}"),
            Self::FreezeAll(lasting) => write!(f, "freeze of all nodes for {lasting:?}"),
        }
    }
}
