//! The race in several processes, while Redis and the network fail.
//!
//! A parent process starts a Redis, a proxy in front of it, and the workers. With `--cluster` or `--failovers` it starts a cluster with
//! a proxy in front of each node. The workers run this same program and share one table. Faults are dealt from a shuffled deck, in the same
//! order for the same seed, and a quiet period follows each. At every pause, when all workers have Redis again and every journal is
//! empty, every entry is compared with the table.
//!
//! Three cases that `docs/book/src/reference/consistency.md` does not promise are excluded:
//!
//! - A Redis that is restarted with its data has written every command to disk before it answered. An older snapshot would
//!   bring back evicted entries.
//! - No worker is killed while its journal may hold evictions. The journal is in memory and is lost with the process.
//! - No worker is killed where replicas take the place of primaries. A replica may lack the last evictions, and only the processes
//!   that made them apply them again.

mod cluster;
mod faults;
mod fleet;
mod worker;

use std::fmt::Display;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cache_runtime::Address;
use cache_runtime::testing::{FaultProxy, RedisServer};
use tests::figures::Figures;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use self::cluster::Nodes;
use self::faults::{Deck, Fault, Setting};
use self::fleet::Fleet;
pub(crate) use self::worker::{Job, work};
use crate::arguments::{Arguments, Faults, Mode};
use crate::audit::Audit;
use crate::dice::Dice;
use crate::servers::Servers;
use crate::service::Database;
use crate::verdict;

const WORKERS: usize = 4;

/// How long calls run before each fault, in milliseconds: with few faults longer than values in a process may be old.
fn pace(faults: Faults) -> (u64, u64) {
    match faults {
        Faults::Many | Faults::Failovers => (300, 900),
        Faults::Few => (2_500, 3_500),
    }
}

/// The longest pauses of a reader and of a writer. Readers pause, because an overloaded machine would only measure itself. Writers
/// pause for longer, so that values stay for some time.
fn pauses(faults: Faults) -> (u64, u64) {
    match faults {
        Faults::Many | Faults::Failovers => (4, 20),
        Faults::Few => (4, 200),
    }
}

/// Longer than a fence or a lease of a killed worker may last.
const CLAIMS: Duration = Duration::from_secs(8);

/// Everything that must end with the parent, in this order.
struct Chaos {
    fleet: Fleet,
    redis: Redis,
    audit: Audit,
    _database: Database,
    dice: Dice,
    findings: Vec<String>,
    began: Instant,
}

/// What fails.
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Redis {
    Server {
        /// In front of `network` for the connections on which Redis reports changes, if the workers keep values.
        listeners: Option<FaultProxy>,
        network: FaultProxy,
        server: RedisServer,
    },
    Cluster(Nodes),
}

/// Runs the race. Everything that it started ends with it, also after an error or a signal.
pub(crate) async fn run(arguments: &Arguments, faults: Faults) -> Result<ExitCode> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        ended = judge(arguments, faults) => ended,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn judge(arguments: &Arguments, faults: Faults) -> Result<ExitCode> {
    let Arguments {
        duration,
        mode,
        guard,
        entries,
        is_cluster,
        seed,
        ..
    } = *arguments;
    let mut figures = Figures::default();
    figures.heading(format_args!(
        "{faults:?} faults over {WORKERS} processes, mode {mode:?}, guarded by {guard:?}, {entries:?}, seed {seed}:"
    ));
    let mut chaos = Chaos::begin(arguments, faults).await?;
    let setting = match (is_cluster, entries.local) {
        (true, _) => Setting::Cluster,
        (false, true) => Setting::Listeners,
        (false, false) => Setting::Plain,
    };
    let mut deck = Deck::new(seed, faults, may_kill(arguments), setting);
    let (shortest, longest) = pace(faults);
    while chaos.began.elapsed() < duration {
        chaos.hammer(shortest, longest).await?;
        chaos.rest("peace").await?;
        chaos.fleet.go()?;
        let fault = deck.draw();
        chaos.say(&fault);
        chaos.inflict(&fault).await?;
        // Half of the recoveries are under load.
        if chaos.dice.below(2) == 0 {
            chaos.hammer(200, 600).await?;
        }
        chaos.rest(&fault).await?;
        chaos.fleet.go()?;
    }
    if let Redis::Cluster(nodes) = &mut chaos.redis {
        nodes.close_slot()?;
    }
    chaos.hammer(300, 900).await?;
    chaos.rest("all").await?;
    sleep(CLAIMS).await;
    let claims = chaos.compare(&"all, and all claims").await?;

    let report = chaos.fleet.report();
    figures.note("faults", deck.told());
    figures.note("workers killed", chaos.fleet.killed);
    report.print(&mut figures);
    report.print_waits(&chaos.fleet.config()?, &mut figures);
    report.print_complaints(&figures);
    if let Redis::Server {
        listeners: Some(listeners),
        ..
    } = &chaos.redis
    {
        let listeners = listeners.connections();
        let each = "each worker needs one";
        figures.check("listeners", listeners, each, listeners >= WORKERS as u64);
    }
    figures.check(
        "leases and fences without an owner",
        claims,
        "must be 0",
        claims == 0,
    );
    verdict(&chaos.audit, &chaos.findings, &mut figures);
    Ok(figures.finish())
}

/// Returns whether workers may be killed. The keys of a pattern cannot be fenced, so a process that dies between its commit and
/// its eviction leaves them stale.
fn may_kill(arguments: &Arguments) -> bool {
    !matches!(arguments.mode, Mode::Pattern) && !arguments.is_cluster
}

/// Returns the port of a proxy.
fn port(proxy: &FaultProxy) -> Result<u16> {
    let Address::Tcp(_, port) = proxy.address() else {
        bail!("a proxy without a port")
    };
    Ok(*port)
}

impl Redis {
    /// Starts a server that keeps its data, and the network in front of it.
    fn server(has_listeners: bool) -> Result<Self> {
        let server = RedisServer::builder()
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            // A file that exists for a minute needs no rewrite.
            .args(["--auto-aof-rewrite-percentage", "0"])
            .start()?;
        let network = FaultProxy::start(&server)?;
        let listeners = match has_listeners {
            true => Some(FaultProxy::to(network.address().clone())?),
            false => None,
        };
        Ok(Self::Server {
            listeners,
            network,
            server,
        })
    }
}

impl Chaos {
    async fn begin(arguments: &Arguments, faults: Faults) -> Result<Self> {
        let redis = match arguments.is_cluster {
            true => Redis::Cluster(Nodes::start()?),
            false => Redis::server(arguments.entries.local)?,
        };
        let (database, table) = Database::create().await?;
        let (servers, url, cluster_map, listen_at) = match &redis {
            Redis::Server {
                listeners,
                network,
                server,
            } => {
                let listen_at = listeners.as_ref().map(port).transpose()?;
                (server.url(), network.url(), None, listen_at)
            }
            Redis::Cluster(nodes) => (nodes.url(), nodes.proxied_url(), Some(nodes.map()), None),
        };
        let job = Job {
            redis: url,
            cluster_map,
            listen_at,
            table: database.path(),
            ledger: database.ledger(),
            mode: arguments.mode,
            readers: arguments.readers.unwrap_or(4),
            pauses: pauses(faults),
            guard: arguments.guard,
            entries: arguments.entries,
            may_die: may_kill(arguments),
            writes: true,
            is_strict: true,
            seed: arguments.seed,
        };
        Ok(Self {
            fleet: Fleet::start(job, WORKERS)?,
            redis,
            audit: Audit::new(Servers::at(&servers)?, table),
            _database: database,
            dice: Dice::new(arguments.seed),
            findings: Vec::new(),
            began: Instant::now(),
        })
    }

    async fn hammer(&mut self, shortest: u64, longest: u64) -> Result<()> {
        sleep(self.dice.between(shortest, longest)).await;
        self.fleet.check()
    }

    /// Pauses all workers, waits for their recovery, and compares.
    async fn rest(&mut self, after: impl Display) -> Result<()> {
        self.fleet.rest().await?;
        self.compare(&after).await?;
        Ok(())
    }

    /// Compares every entry with the table. Returns the number of leases and fences.
    async fn compare(&mut self, after: &impl Display) -> Result<u64> {
        let (stale, claims) = self.audit.compare().await?;
        for entry in stale {
            let finding = format!("after {after}: {entry}");
            self.say(&finding);
            self.findings.push(finding);
        }
        Ok(claims)
    }

    async fn inflict(&mut self, fault: &Fault) -> Result<()> {
        if let Fault::KillWorker(number) = fault {
            let outcome = self.fleet.kill_in_peace(*number).await?;
            self.say(outcome);
            return Ok(());
        }
        match (fault, &mut self.redis) {
            (Fault::Cluster(fault), Redis::Cluster(nodes)) => nodes.inflict(fault).await?,
            (fault, Redis::Cluster(_)) => bail!("`{fault}` is not for a cluster"),
            (
                fault,
                Redis::Server {
                    listeners,
                    network,
                    server,
                },
            ) => {
                let listeners = listeners.as_ref().unwrap_or(network);
                fault.inflict(server, network, listeners).await?;
            }
        }
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "a benchmark's progress")]
    fn say(&self, what: impl Display) {
        println!("  {:5.1} s  {what}", self.began.elapsed().as_secs_f64());
    }
}
