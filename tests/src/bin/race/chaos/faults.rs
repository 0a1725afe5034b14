//! Faults of Redis and of the network.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cache_runtime::testing::{Failover, FaultProxy, RedisServer};
use redis::{Client, Connection, FromRedisValue};
use tokio::time::sleep;

use super::WORKERS;
use super::cluster::{self, slot, slots};
use crate::arguments::Faults;
use crate::dice::Dice;

/// A fault and how long it lasts.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The network of all connections fails.
    Network(Failure, Duration),
    /// Only the network of the connections on which Redis reports changes fails.
    Listeners(Failure, Duration),
    /// The server process is stopped.
    Freeze(Duration),
    /// The server dies, and is restarted with its data.
    Crash(Duration),
    /// The server dies, and is restarted empty.
    Loss(Duration),
    /// Every key is removed.
    Flush,
    /// The script cache is flushed.
    ForgetScripts,
    /// Memory is short, and Redis removes the least recently used keys.
    Squeeze(Duration),
    /// The same, and Redis also closes connections that take memory.
    SqueezeAll(Duration),
    /// A worker dies, and another takes its place.
    KillWorker(usize),
    /// Redis closes the connections on which it reports changes.
    KillListeners,
    /// Redis closes every connection.
    KillClients,
    /// A node of a cluster fails, or its slots move.
    Cluster(cluster::Fault),
    /// Redis closes connections because they take too much memory, which `CLIENT NO-EVICT` would prevent.
    EvictClients(Duration),
}

/// How a network fails.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    /// Every connection is closed, and new connections are refused.
    Cut,
    /// No data passes, and connections stay open.
    Stall,
    /// Redis gets requests, and answers are lost.
    HalfOpen,
    /// Every answer is delayed.
    Delay(Duration),
}

/// Each kind with its name. The durations are above and below the limits of the cache: half of the `command_timeout` (50 ms),
/// all of it (100 ms), and the pauses of the probe.
type Kind = (&'static str, fn(&mut Dice) -> Fault);

const KINDS: &[Kind] = &[
    ("short cut", |dice| {
        Fault::Network(Failure::Cut, dice.between(0, 50))
    }),
    ("long cut", |dice| {
        Fault::Network(Failure::Cut, dice.between(200, 1_500))
    }),
    ("stall within half of the timeout", |dice| {
        Fault::Network(Failure::Stall, dice.between(10, 45))
    }),
    ("stall within the timeout", |dice| {
        Fault::Network(Failure::Stall, dice.between(55, 95))
    }),
    ("long stall", |dice| {
        Fault::Network(Failure::Stall, dice.between(150, 1_500))
    }),
    ("delay within half of the timeout", |dice| {
        let by = dice.between(5, 45);
        Fault::Network(Failure::Delay(by), dice.between(300, 1_000))
    }),
    ("delay within the timeout", |dice| {
        let by = dice.between(55, 95);
        Fault::Network(Failure::Delay(by), dice.between(300, 1_000))
    }),
    ("delay above the timeout", |dice| {
        let by = dice.between(105, 250);
        Fault::Network(Failure::Delay(by), dice.between(300, 1_000))
    }),
    ("short freeze", |dice| Fault::Freeze(dice.between(10, 95))),
    ("long freeze", |dice| {
        Fault::Freeze(dice.between(150, 1_500))
    }),
    ("crash", |dice| Fault::Crash(dice.between(0, 1_000))),
    ("loss of all data", |dice| {
        Fault::Loss(dice.between(0, 1_000))
    }),
    ("script flush", |_| Fault::ForgetScripts),
];

/// Faults that close no connections.
const OF_MEMORY: &[Kind] = &[
    ("flush", |_| Fault::Flush),
    ("memory pressure", |dice| {
        Fault::Squeeze(dice.between(500, 1_500))
    }),
];

/// Faults for processes that keep values. A listener must miss two pings before its process knows, and the bound is 2 s.
const OF_LISTENERS: &[Kind] = &[
    ("cut of the listeners", |dice| {
        Fault::Listeners(Failure::Cut, dice.between(100, 4_000))
    }),
    ("short stall of the listeners", |dice| {
        Fault::Listeners(Failure::Stall, dice.between(100, 1_500))
    }),
    ("long stall of the listeners", |dice| {
        Fault::Listeners(Failure::Stall, dice.between(2_000, 5_000))
    }),
    ("half-open listeners", |dice| {
        Fault::Listeners(Failure::HalfOpen, dice.between(1_000, 5_000))
    }),
    ("delay of the listeners within the bound", |dice| {
        let by = dice.between(100, 1_800);
        Fault::Listeners(Failure::Delay(by), dice.between(3_000, 6_000))
    }),
    ("delay of the listeners above the bound", |dice| {
        let by = dice.between(2_100, 4_000);
        Fault::Listeners(Failure::Delay(by), dice.between(3_000, 6_000))
    }),
    ("kill of the listeners", |_| Fault::KillListeners),
    ("kill of all connections", |_| Fault::KillClients),
    ("eviction of clients", |dice| {
        Fault::EvictClients(dice.between(200, 1_000))
    }),
    ("memory pressure and eviction of clients", |dice| {
        Fault::SqueezeAll(dice.between(500, 1_500))
    }),
];

/// Faults of clusters. A node that is silent for 1 s is replaced.
const OF_CLUSTERS: &[Kind] = &[
    ("reshard", |dice| {
        Fault::Cluster(cluster::Fault::Reshard(slots(dice, 500)))
    }),
    ("large reshard", |dice| {
        Fault::Cluster(cluster::Fault::Reshard(slots(dice, 4_096)))
    }),
    ("open slot", |dice| {
        Fault::Cluster(cluster::Fault::OpenSlot(slot(dice)))
    }),
    ("short freeze of a primary", |dice| {
        Fault::Cluster(cluster::Fault::FreezePrimary(
            slot(dice),
            dice.between(10, 500),
        ))
    }),
    ("long freeze of a primary", |dice| {
        Fault::Cluster(cluster::Fault::FreezePrimary(
            slot(dice),
            dice.between(2_000, 4_000),
        ))
    }),
    ("cut of a primary", |dice| {
        Fault::Cluster(cluster::Fault::CutPrimary(
            slot(dice),
            dice.between(0, 2_000),
        ))
    }),
    ("stall of a primary", |dice| {
        Fault::Cluster(cluster::Fault::StallPrimary(
            slot(dice),
            dice.between(10, 2_000),
        ))
    }),
    ("kill of all nodes", |dice| {
        Fault::Cluster(cluster::Fault::KillAll(dice.between(0, 2_000)))
    }),
    ("freeze of all nodes", |dice| {
        Fault::Cluster(cluster::Fault::FreezeAll(dice.between(500, 3_000)))
    }),
];

/// Replicas that take the place of primaries.
const FAILOVERS: &[Kind] = &[
    ("loss of acknowledged evictions", |dice| {
        Fault::Cluster(cluster::Fault::LoseEvictions(
            slot(dice),
            dice.between(100, 500),
        ))
    }),
    ("planned failover", |dice| {
        Fault::Cluster(cluster::Fault::Failover(slot(dice), Failover::Plain))
    }),
    ("forced failover", |dice| {
        Fault::Cluster(cluster::Fault::Failover(slot(dice), Failover::Force))
    }),
    ("takeover", |dice| {
        Fault::Cluster(cluster::Fault::Failover(slot(dice), Failover::Takeover))
    }),
    ("kill of a primary", |dice| {
        Fault::Cluster(cluster::Fault::KillPrimary(
            slot(dice),
            dice.between(0, 1_000),
        ))
    }),
];

/// What the workers use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Setting {
    /// One server.
    Plain,
    /// One server, and listeners.
    Listeners,
    Cluster,
}

const KILL: Kind = ("kill of a worker", |dice| {
    Fault::KillWorker(dice.below(WORKERS as u64) as usize)
});

/// Deals every kind once before it deals any kind again.
pub(super) struct Deck {
    dice: Dice,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
    dealt: BTreeMap<&'static str, u32>,
}

impl Deck {
    pub(super) fn new(seed: u64, faults: Faults, may_kill: bool, setting: Setting) -> Self {
        let mut kinds = match (setting, faults) {
            (Setting::Plain, _) => OF_MEMORY.to_vec(),
            (Setting::Listeners, _) => [OF_MEMORY, OF_LISTENERS].concat(),
            (Setting::Cluster, Faults::Failovers) => FAILOVERS.to_vec(),
            (Setting::Cluster, _) => [OF_CLUSTERS, FAILOVERS].concat(),
        };
        if faults == Faults::Many && !matches!(setting, Setting::Cluster) {
            kinds.extend(KINDS);
        }
        if faults == Faults::Many && may_kill {
            // Each kill hits a write at another moment.
            kinds.extend([KILL; 3]);
        }
        // Which shows most, and a short race has time for few faults.
        let first = match (setting, faults) {
            (Setting::Cluster, Faults::Failovers) => FAILOVERS.first().copied(),
            _ => None,
        };
        Self {
            dice: Dice::new(seed),
            kinds,
            left: first.into_iter().collect(),
            dealt: BTreeMap::new(),
        }
    }

    pub(super) fn draw(&mut self) -> Fault {
        loop {
            if let Some((name, make)) = self.left.pop() {
                *self.dealt.entry(name).or_default() += 1;
                return make(&mut self.dice);
            }
            self.left.clone_from(&self.kinds);
            self.dice.shuffle(&mut self.left);
        }
    }

    /// Returns the number of dealt faults of each kind as text.
    pub(super) fn told(&self) -> String {
        let kinds = self
            .dealt
            .iter()
            .map(|(name, many)| format!("{many} × {name}"));
        kinds.collect::<Vec<_>>().join(", ")
    }
}

impl Fault {
    /// Begins the fault, waits, and ends it. After that only its effects on the workers remain.
    pub(super) async fn inflict(
        &self,
        server: &mut RedisServer,
        network: &FaultProxy,
        listeners: &FaultProxy,
    ) -> Result<()> {
        match *self {
            Self::Network(failure, lasting) => failure.inflict(network, lasting).await,
            Self::Listeners(failure, lasting) => failure.inflict(listeners, lasting).await,
            Self::Freeze(lasting) => {
                server.stop()?;
                sleep(lasting).await;
                server.resume()?;
            }
            Self::Crash(down) => {
                server.kill();
                sleep(down).await;
                server.restart()?;
            }
            Self::Loss(down) => {
                server.kill();
                sleep(down).await;
                server.restart_empty()?;
            }
            Self::Flush => server.flush()?,
            Self::ForgetScripts => ask(server, &["SCRIPT", "FLUSH"])?,
            Self::Squeeze(lasting) => squeeze(&mut connect_protected(server)?, lasting).await?,
            Self::SqueezeAll(lasting) => {
                let mut own = connect_protected(server)?;
                limit_clients(&mut own, true)?;
                let squeezed = squeeze(&mut own, lasting).await;
                limit_clients(&mut own, false)?;
                squeezed?;
            }
            // The parent does these.
            Self::KillWorker(_) | Self::Cluster(_) => {}
            Self::KillListeners => kill_listeners(server)?,
            Self::KillClients => {
                let _: u64 = ask(
                    server,
                    &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
                )?;
            }
            Self::EvictClients(lasting) => {
                let mut own = connect_protected(server)?;
                limit_clients(&mut own, true)?;
                sleep(lasting).await;
                limit_clients(&mut own, false)?;
            }
        }
        Ok(())
    }
}

impl Failure {
    /// Begins the failure, waits, and ends it.
    async fn inflict(self, network: &FaultProxy, lasting: Duration) {
        match self {
            Self::Cut => network.cut(),
            Self::Stall => network.stall(),
            Self::HalfOpen => network.half_open(),
            Self::Delay(by) => network.delay(by),
        }
        sleep(lasting).await;
        network.pass();
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(failure, lasting) => write!(f, "network: {failure:?} for {lasting:?}"),
            Self::Listeners(failure, lasting) => {
                write!(f, "listeners: {failure:?} for {lasting:?}")
            }
            Self::Freeze(lasting) => write!(f, "freeze for {lasting:?}"),
            Self::Crash(down) => write!(f, "crash, down for {down:?}"),
            Self::Loss(down) => write!(f, "loss of all data, down for {down:?}"),
            Self::Flush => write!(f, "flush"),
            Self::ForgetScripts => write!(f, "script flush"),
            Self::Squeeze(lasting) => write!(f, "memory pressure for {lasting:?}"),
            Self::SqueezeAll(lasting) => {
                write!(f, "memory pressure and eviction of clients for {lasting:?}")
            }
            Self::KillListeners => write!(f, "kill of the listeners"),
            Self::KillClients => write!(f, "kill of all connections"),
            Self::Cluster(fault) => fault.fmt(f),
            Self::EvictClients(lasting) => write!(f, "eviction of clients for {lasting:?}"),
            Self::KillWorker(number) => write!(f, "kill of worker {number}"),
        }
    }
}

/// Closes the connections that track keys. `CLIENT KILL TYPE pubsub` would close none: Redis counts them as normal.
fn kill_listeners(server: &RedisServer) -> Result<()> {
    let clients: String = ask(server, &["CLIENT", "LIST"])?;
    for client in clients.lines() {
        let field = |name: &str| client.split(' ').find_map(|field| field.strip_prefix(name));
        let tracks = field("flags=").is_some_and(|flags| flags.contains('t'));
        if let Some(id) = field("id=").filter(|_| tracks) {
            // A client that is gone by now needs no kill.
            let _: u64 = ask(server, &["CLIENT", "KILL", "ID", id])?;
        }
    }
    Ok(())
}

/// Leaves almost no memory to clients, so that Redis closes connections, or as much as they need.
fn limit_clients(own: &mut Connection, is_limited: bool) -> Result<()> {
    let bytes = if is_limited { "64kb" } else { "0" };
    set(own, "maxmemory-clients", bytes)
}

/// Returns a connection that Redis does not close for memory.
fn connect_protected(server: &RedisServer) -> Result<Connection> {
    let mut own = connect(server)?;
    redis::cmd("CLIENT")
        .arg(&["NO-EVICT", "ON"])
        .exec(&mut own)?;
    Ok(own)
}

fn set(own: &mut Connection, option: &str, value: &str) -> Result<()> {
    let mut command = redis::cmd("CONFIG");
    Ok(command.arg(&["SET", option, value]).exec(own)?)
}

/// Leaves 512 KiB of memory and writes several times as much.
async fn squeeze(own: &mut Connection, lasting: Duration) -> Result<()> {
    const ROOM: u64 = 512 << 10;
    const FILLERS: usize = 400;
    const FILLER: usize = 10 << 10;
    const PATIENCE: Duration = Duration::from_secs(5);
    let evicted = info(own, "evicted_keys:")?;
    let limit = (info(own, "used_memory:")? + ROOM).to_string();
    set(own, "maxmemory-policy", "allkeys-lru")?;
    set(own, "maxmemory", &limit)?;

    let end = Instant::now() + lasting;
    for number in 0.. {
        // A busy machine may need longer to fill the memory.
        let past = Instant::now().saturating_duration_since(end);
        if past > PATIENCE || !past.is_zero() && info(own, "evicted_keys:")? > evicted {
            break;
        }
        let filler = format!("filler:{}", number % FILLERS);
        // Redis may have no memory left at all. That is a valid fault too.
        let _ = redis::cmd("SET")
            .arg(filler)
            .arg(vec![0_u8; FILLER])
            .exec(own);
        sleep(Duration::from_millis(1)).await;
    }
    set(own, "maxmemory", "0")?;
    let fillers: Vec<String> = (0..FILLERS)
        .map(|number| format!("filler:{number}"))
        .collect();
    redis::cmd("UNLINK").arg(fillers).exec(own)?;
    ensure!(
        info(own, "evicted_keys:")? > evicted,
        "Redis removed no keys: memory was not short enough"
    );
    Ok(())
}

fn info(own: &mut Connection, name: &str) -> Result<u64> {
    let all: String = redis::cmd("INFO").query(own)?;
    let mut lines = all.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.parse().ok());
    value.with_context(|| format!("`INFO` has no `{name}`"))
}

fn ask<T: FromRedisValue>(server: &RedisServer, command: &[&str]) -> Result<T> {
    Ok(redis::cmd(command[0])
        .arg(&command[1..])
        .query(&mut connect(server)?)?)
}

fn connect(server: &RedisServer) -> Result<Connection> {
    Ok(Client::open(server.url())?.get_connection()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_deals_the_same_faults() {
        let dealt = |seed| {
            let mut deck = Deck::new(seed, Faults::Many, true, Setting::Listeners);
            let faults = (0..60).map(|_| deck.draw().to_string());
            faults.collect::<Vec<_>>()
        };

        assert_eq!(dealt(1), dealt(1));
        assert_ne!(dealt(1), dealt(2));
    }

    #[test]
    fn every_kind_is_dealt_before_any_is_repeated() {
        for (setting, kinds) in [
            (Setting::Plain, KINDS.len() + OF_MEMORY.len()),
            (Setting::Cluster, OF_CLUSTERS.len() + FAILOVERS.len()),
        ] {
            let mut deck = Deck::new(7, Faults::Many, false, setting);

            for _ in 0..kinds {
                deck.draw();
            }

            assert_eq!(deck.dealt.len(), kinds, "{}", deck.told());
        }
    }
}
