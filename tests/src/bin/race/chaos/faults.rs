//! Faults of Redis and of the network.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cache_runtime::testing::{FaultProxy, RedisServer};
use redis::{Client, Connection, FromRedisValue};
use tokio::time::sleep;

use super::WORKERS;
use super::wire::{self, Wire};
use crate::dice::Dice;

/// A fault and how long it lasts.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Every connection is closed, and new connections are refused.
    Cut(Duration),
    /// No data passes, and connections stay open.
    Stall(Duration),
    /// Every answer is delayed.
    Delay { by: Duration, lasting: Duration },
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
    /// A worker dies, and another takes its place.
    KillWorker(usize),
    /// Only the connections on which Redis announces changes fail.
    Listeners(wire::Mode, Duration),
    /// Redis closes these connections.
    KillListeners,
    /// Redis closes every connection.
    KillClients,
    /// Redis closes connections because they take too much memory, which `CLIENT NO-EVICT` would prevent.
    EvictClients(Duration),
}

/// Each kind with its name. The durations are above and below the limits of the cache: half of the `command_timeout` (50 ms),
/// all of it (100 ms), and the pauses of the probe.
type Kind = (&'static str, fn(&mut Dice) -> Fault);

const KINDS: &[Kind] = &[
    ("short cut", |dice| Fault::Cut(dice.between(0, 50))),
    ("long cut", |dice| Fault::Cut(dice.between(200, 1_500))),
    ("stall within half of the timeout", |dice| {
        Fault::Stall(dice.between(10, 45))
    }),
    ("stall within the timeout", |dice| {
        Fault::Stall(dice.between(55, 95))
    }),
    ("long stall", |dice| Fault::Stall(dice.between(150, 1_500))),
    ("delay within half of the timeout", |dice| Fault::Delay {
        by: dice.between(5, 45),
        lasting: dice.between(300, 1_000),
    }),
    ("delay within the timeout", |dice| Fault::Delay {
        by: dice.between(55, 95),
        lasting: dice.between(300, 1_000),
    }),
    ("delay above the timeout", |dice| Fault::Delay {
        by: dice.between(105, 250),
        lasting: dice.between(300, 1_000),
    }),
    ("short freeze", |dice| Fault::Freeze(dice.between(10, 95))),
    ("long freeze", |dice| {
        Fault::Freeze(dice.between(150, 1_500))
    }),
    ("crash", |dice| Fault::Crash(dice.between(0, 1_000))),
    ("loss of all data", |dice| {
        Fault::Loss(dice.between(0, 1_000))
    }),
    ("flush", |_| Fault::Flush),
    ("script flush", |_| Fault::ForgetScripts),
    ("memory pressure", |dice| {
        Fault::Squeeze(dice.between(500, 1_500))
    }),
];

/// Faults for processes that keep values. A listener must miss two pings before its process knows, and the bound is 2 s.
const OF_LISTENERS: &[Kind] = &[
    ("cut of the listeners", |dice| {
        Fault::Listeners(wire::Mode::Cut, dice.between(100, 4_000))
    }),
    ("short stall of the listeners", |dice| {
        Fault::Listeners(wire::Mode::Stall, dice.between(100, 1_500))
    }),
    ("long stall of the listeners", |dice| {
        Fault::Listeners(wire::Mode::Stall, dice.between(2_000, 5_000))
    }),
    ("half-open listeners", |dice| {
        Fault::Listeners(wire::Mode::HalfOpen, dice.between(1_000, 5_000))
    }),
    ("kill of the listeners", |_| Fault::KillListeners),
    ("kill of all connections", |_| Fault::KillClients),
    ("eviction of clients", |dice| {
        Fault::EvictClients(dice.between(200, 1_000))
    }),
];

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
    pub(super) fn new(seed: u64, may_kill: bool, has_listeners: bool) -> Self {
        let mut kinds = KINDS.to_vec();
        if has_listeners {
            kinds.extend(OF_LISTENERS);
        }
        if may_kill {
            // Each kill hits a write at another moment.
            kinds.extend([KILL; 3]);
        }
        Self {
            dice: Dice::new(seed),
            kinds,
            left: Vec::new(),
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
        wire: Option<&Wire>,
    ) -> Result<()> {
        match *self {
            Self::Cut(lasting) => {
                network.cut();
                sleep(lasting).await;
                network.pass();
            }
            Self::Stall(lasting) => {
                network.stall();
                sleep(lasting).await;
                network.pass();
            }
            Self::Delay { by, lasting } => {
                network.delay(by);
                sleep(lasting).await;
                network.pass();
            }
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
            Self::Squeeze(lasting) => squeeze(server, lasting).await?,
            Self::KillWorker(_) => {}
            Self::Listeners(mode, lasting) => {
                if let Some(wire) = wire {
                    wire.switch(mode);
                    sleep(lasting).await;
                    wire.switch(wire::Mode::Pass);
                }
            }
            Self::KillListeners => kill_listeners(server)?,
            Self::KillClients => {
                let _: u64 = ask(
                    server,
                    &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
                )?;
            }
            Self::EvictClients(lasting) => evict_clients(server, lasting).await?,
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(lasting) => write!(f, "cut for {lasting:?}"),
            Self::Stall(lasting) => write!(f, "stall for {lasting:?}"),
            Self::Delay { by, lasting } => write!(f, "delay by {by:?} for {lasting:?}"),
            Self::Freeze(lasting) => write!(f, "freeze for {lasting:?}"),
            Self::Crash(down) => write!(f, "crash, down for {down:?}"),
            Self::Loss(down) => write!(f, "loss of all data, down for {down:?}"),
            Self::Flush => write!(f, "flush"),
            Self::ForgetScripts => write!(f, "script flush"),
            Self::Squeeze(lasting) => write!(f, "memory pressure for {lasting:?}"),
            Self::Listeners(mode, lasting) => write!(f, "listeners: {mode:?} for {lasting:?}"),
            Self::KillListeners => write!(f, "kill of the listeners"),
            Self::KillClients => write!(f, "kill of all connections"),
            Self::EvictClients(lasting) => write!(f, "eviction of clients for {lasting:?}"),
            Self::KillWorker(number) => write!(f, "kill of worker {number}"),
        }
    }
}

/// Closes the connections that track keys.
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

/// Leaves almost no memory to clients, so that Redis closes the connections of all others.
async fn evict_clients(server: &RedisServer, lasting: Duration) -> Result<()> {
    let mut own = connect(server)?;
    redis::cmd("CLIENT")
        .arg(&["NO-EVICT", "ON"])
        .exec(&mut own)?;
    let mut limit = |bytes: &str| {
        let mut command = redis::cmd("CONFIG");
        command
            .arg(&["SET", "maxmemory-clients", bytes])
            .exec(&mut own)
    };
    limit("64kb")?;
    sleep(lasting).await;
    Ok(limit("0")?)
}

/// Leaves 512 KiB of memory and writes several times as much.
async fn squeeze(server: &RedisServer, lasting: Duration) -> Result<()> {
    const ROOM: u64 = 512 << 10;
    const FILLERS: usize = 400;
    const FILLER: usize = 10 << 10;
    const PATIENCE: Duration = Duration::from_secs(5);
    let evicted = info(server, "evicted_keys:")?;
    let limit = (info(server, "used_memory:")? + ROOM).to_string();
    let () = ask(
        server,
        &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"],
    )?;
    let () = ask(server, &["CONFIG", "SET", "maxmemory", &limit])?;

    let end = Instant::now() + lasting;
    let mut connection = connect(server)?;
    for number in 0.. {
        // A busy machine may need longer to fill the memory.
        let past = Instant::now().saturating_duration_since(end);
        if past > PATIENCE || !past.is_zero() && info(server, "evicted_keys:")? > evicted {
            break;
        }
        let filler = format!("filler:{}", number % FILLERS);
        // Redis may have no memory left at all. That is a valid fault too.
        let _ = redis::cmd("SET")
            .arg(filler)
            .arg(vec![0_u8; FILLER])
            .exec(&mut connection);
        sleep(Duration::from_millis(1)).await;
    }
    let () = ask(server, &["CONFIG", "SET", "maxmemory", "0"])?;
    let fillers: Vec<String> = (0..FILLERS)
        .map(|number| format!("filler:{number}"))
        .collect();
    redis::cmd("UNLINK").arg(fillers).exec(&mut connection)?;
    ensure!(
        info(server, "evicted_keys:")? > evicted,
        "Redis removed no keys: memory was not short enough"
    );
    Ok(())
}

fn info(server: &RedisServer, name: &str) -> Result<u64> {
    let all: String = ask(server, &["INFO"])?;
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
            let mut deck = Deck::new(seed, true, true);
            let faults = (0..60).map(|_| deck.draw().to_string());
            faults.collect::<Vec<_>>()
        };

        assert_eq!(dealt(1), dealt(1));
        assert_ne!(dealt(1), dealt(2));
    }

    #[test]
    fn every_kind_is_dealt_before_any_is_repeated() {
        let mut deck = Deck::new(7, false, false);

        for _ in KINDS {
            deck.draw();
        }

        assert_eq!(deck.dealt.len(), KINDS.len(), "{}", deck.told());
    }
}
