//! A worker process.

use std::io::{self, BufRead, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use cache_runtime::{Address, Cache, Config};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::interval;

use crate::arguments::{Entries, Guard, Mode};
use crate::hammer::{Crew, Hammer};
use crate::ledger::Ledger;
use crate::report::Report;
use crate::service::{PREFIX, Service, open};

/// The settings of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The address of the proxy, or of those of a cluster.
    pub(super) redis: String,
    /// Which proxy is before which node of a cluster, as in `CACHE_CLUSTER_MAP`.
    pub(super) cluster_map: Option<String>,
    /// The port of the proxy for the connection on which Redis reports changes.
    pub(super) listen_at: Option<u16>,
    pub(super) table: PathBuf,
    pub(super) ledger: PathBuf,
    pub(super) mode: Mode,
    pub(super) readers: u64,
    pub(super) pauses: (u64, u64),
    pub(super) guard: Guard,
    pub(super) entries: Entries,
    pub(super) may_die: bool,
    pub(super) writes: bool,
    /// Whether an operation ends within the `command_timeout` also while other replies arrive or the process lags. This makes the
    /// bounds of calls strict. By default such an operation goes on, which is raced as well.
    pub(super) is_strict: bool,
    pub(super) seed: u64,
}

/// A message from the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Rest(u64),
    Go,
}

/// A message from a worker, sent continuously.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Word {
    /// The number of the pause, if the worker is paused.
    pub(super) rest: Option<u64>,
    pub(super) report: Report,
}

/// How often a worker reports.
const REPORTING: Duration = Duration::from_millis(25);

impl Job {
    pub(super) const VARIABLE: &str = "RACE_WORKER";

    /// Returns the job of this process if it is a worker.
    pub(crate) fn of_this_process() -> Result<Option<Self>> {
        let job = std::env::var(Self::VARIABLE).ok();
        let job = job.map(|job| serde_json::from_str(&job)).transpose();
        job.context("invalid job of a worker; unset RACE_WORKER")
    }

    fn config(&self) -> Result<Config> {
        let config = self.shared_config()?;
        let each = config.command_timeout;
        let config = match self.is_strict {
            true => config.command_timeout_max(each),
            false => config,
        };
        Ok(match self.listen_at {
            Some(port) => config.listen_at(Address::Tcp(Ipv4Addr::LOCALHOST.to_string(), port)),
            None => config,
        })
    }

    /// The defaults, except that reconnecting takes at most 500 ms, and opening a connection at most 1 s, so that one minute has many
    /// recoveries.
    pub(super) fn shared_config(&self) -> Result<Config> {
        let config = Config::default().redis_url(&self.redis)?.prefix(PREFIX);
        let config = config
            .reconnect_max_delay(Duration::from_millis(500))
            .connect_timeout(Duration::from_secs(1));
        let map = self
            .cluster_map
            .iter()
            .map(|map| ("CACHE_CLUSTER_MAP", map));
        Ok(Config::from_vars_over(config, map)?)
    }
}

/// Reads and writes until the parent is gone.
pub(crate) async fn work(job: Job) -> Result<ExitCode> {
    let service = Service {
        table: open(&job.table).await?,
        cache: Cache::connect(job.config()?).await?,
        ledger: Arc::new(Ledger::open(&job.ledger)?),
        guard: job.guard,
        entries: job.entries,
    };
    let crew = Crew {
        readers: job.readers,
        writers: if job.writes { 2 } else { 0 },
        pauses: job.pauses,
        mode: job.mode,
        entries: job.entries,
        may_die: job.may_die,
        seed: job.seed,
    };
    let mut hammer = Hammer::start(&service, crew);
    let mut orders = orders()?;
    let mut reporting = interval(REPORTING);
    let mut rest = None;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return Ok(ExitCode::SUCCESS),
                Some(Order::Go) => rest = None,
                Some(Order::Rest(number)) => rest = Some((number, hammer.rest().await)),
            },
            error = hammer.panic() => return Err(error),
            _ = reporting.tick() => {}
        }
        say(&Word {
            rest: rest.as_ref().map(|(number, _)| *number),
            report: Report::of(&service.cache, &hammer.tally),
        })?;
    }
}

fn say(word: &Word) -> Result<()> {
    let line = serde_json::to_string(word)?;
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}

/// Receives the orders of the parent. If the parent ends in any way, the channel closes.
fn orders() -> Result<UnboundedReceiver<Order>> {
    let (given, orders) = unbounded_channel();
    thread::Builder::new().spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else {
                break;
            };
            if given.send(order).is_err() {
                break;
            }
        }
    })?;
    Ok(orders)
}
