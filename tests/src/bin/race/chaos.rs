//! The race in several processes, while Redis and the network fail.
//!
//! A parent process starts a Redis, a proxy in front of it, and the workers. The workers run this same program and share one
//! table. Faults are dealt from a shuffled deck, in the same order for the same seed, and a quiet period follows each. At every
//! pause, when all workers have Redis again and every journal is empty, every entry is compared with the table.
//!
//! Two cases that `docs/consistency.md` does not promise are excluded:
//!
//! - A Redis that is restarted with its data has written every command to disk before it answered. An older snapshot would
//!   bring back evicted entries.
//! - No worker is killed while its journal may hold evictions. The journal is in memory and is lost with the process.

mod faults;
mod fleet;
mod wire;
mod worker;

use std::fmt::Display;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cache_runtime::testing::{FaultProxy, RedisServer};
use redis::Client;
use tests::figures::Figures;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use self::faults::{Deck, Fault};
use self::fleet::Fleet;
use self::wire::Wire;
pub(crate) use self::worker::{Job, work};
use crate::arguments::{Arguments, Mode};
use crate::audit::Audit;
use crate::dice::Dice;
use crate::service::Database;
use crate::verdict;

const WORKERS: usize = 3;

/// Longer than a fence or a lease of a killed worker may last.
const CLAIMS: Duration = Duration::from_secs(8);

/// Everything that must end with the parent, in this order.
struct Chaos {
    fleet: Fleet,
    /// Between the workers and `network`, if they have listeners.
    wire: Option<Wire>,
    network: FaultProxy,
    server: RedisServer,
    audit: Audit,
    _database: Database,
    dice: Dice,
    findings: Vec<String>,
    began: Instant,
}

/// Runs the race. Everything that it started ends with it, also after an error or a signal.
pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        ended = judge(arguments) => ended,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn judge(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments {
        duration,
        mode,
        guard,
        entries,
        seed,
        ..
    } = *arguments;
    let mut figures = Figures::default();
    figures.heading(format_args!(
        "chaos over {WORKERS} processes, mode {mode:?}, guarded by {guard:?}, {entries:?}, seed {seed}:"
    ));
    let mut chaos = Chaos::begin(arguments).await?;
    let mut deck = Deck::new(seed, may_kill(mode), entries.local);
    while chaos.began.elapsed() < duration {
        chaos.hammer(300, 900).await?;
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
    chaos.hammer(300, 900).await?;
    chaos.rest("all").await?;
    sleep(CLAIMS).await;
    let claims = chaos.compare(&"all, and all claims").await?;

    let report = chaos.fleet.report();
    figures.note("faults", deck.told());
    figures.note("workers killed", chaos.fleet.killed);
    report.print(&mut figures);
    report.print_waits(&worker::config(&chaos.network.url())?, &mut figures);
    report.print_complaints(&figures);
    if let Some(wire) = &chaos.wire {
        let listeners = wire.listeners();
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
fn may_kill(mode: Mode) -> bool {
    !matches!(mode, Mode::Pattern)
}

/// Returns the port in the URL of a server on this machine.
fn port(url: &str) -> Result<u16> {
    let (_, port) = url.rsplit_once(':').context("a URL with a port")?;
    Ok(port.trim_end_matches('/').parse()?)
}

/// Returns the URL of the same server behind another port.
fn at_port(url: &str, port: u16) -> Result<String> {
    let (host, _) = url.rsplit_once(':').context("a URL with a port")?;
    Ok(format!("{host}:{port}"))
}

impl Chaos {
    async fn begin(arguments: &Arguments) -> Result<Self> {
        let server = RedisServer::builder()
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            // A file that exists for a minute needs no rewrite.
            .args(["--auto-aof-rewrite-percentage", "0"])
            .start()?;
        let network = FaultProxy::start(&server)?;
        let (database, table) = Database::create().await?;
        let wire = match arguments.entries.local {
            true => Some(Wire::start(port(&network.url())?).await?),
            false => None,
        };
        let redis = match &wire {
            Some(wire) => at_port(&network.url(), wire.port())?,
            None => network.url(),
        };
        let job = Job {
            redis,
            table: database.path(),
            ledger: database.ledger(),
            mode: arguments.mode,
            readers: arguments.readers.unwrap_or(4),
            guard: arguments.guard,
            entries: arguments.entries,
            may_die: may_kill(arguments.mode),
            writes: true,
            seed: arguments.seed,
        };
        Ok(Self {
            fleet: Fleet::start(job, WORKERS)?,
            wire,
            network,
            audit: Audit::new(Client::open(server.url())?, table),
            server,
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
        match fault {
            Fault::KillWorker(number) => {
                let outcome = self.fleet.kill_in_peace(*number).await?;
                self.say(outcome);
            }
            fault => {
                let wire = self.wire.as_ref();
                fault.inflict(&mut self.server, &self.network, wire).await?;
            }
        }
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "a benchmark's progress")]
    fn say(&self, what: impl Display) {
        println!("  {:5.1} s  {what}", self.began.elapsed().as_secs_f64());
    }
}
