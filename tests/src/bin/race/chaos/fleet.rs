//! The worker processes, from the side of their parent.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cache_runtime::Config;
use tokio::time::{Instant, sleep};

use super::worker::{Job, Order, Word};
use crate::report::Report;

/// Longer than any call may take on a busy machine.
const RESTING: Duration = Duration::from_secs(20);

/// How long Redis may be available before every worker uses it.
const RECOVERING: Duration = Duration::from_secs(20);

/// How long a worker must run without errors before it may be killed.
const QUIET: Duration = Duration::from_millis(500);

/// The worker that does not write, if workers keep values.
const READS_ONLY: usize = 1;

/// The workers, and the counts of the killed ones.
pub(super) struct Fleet {
    job: Job,
    workers: Vec<Worker>,
    started: u64,
    rests: u64,
    pub(super) killed: u64,
    past: Report,
}

/// A worker process. Dropping this kills it.
struct Worker {
    process: Child,
    orders: ChildStdin,
    latest: Arc<Mutex<Latest>>,
}

/// The latest report of a worker.
#[derive(Clone, Default)]
struct Latest {
    rest: Option<u64>,
    report: Report,
    has_ended: bool,
}

impl Fleet {
    pub(super) fn start(job: Job, many: usize) -> Result<Self> {
        let mut fleet = Self {
            job,
            workers: Vec::new(),
            started: 0,
            rests: 0,
            killed: 0,
            past: Report::default(),
        };
        for number in 0..many {
            let worker = fleet.next(number)?;
            fleet.workers.push(worker);
        }
        Ok(fleet)
    }

    /// Returns the counts of all workers, including the killed ones.
    pub(super) fn report(&self) -> Report {
        let mut all = self.past.clone();
        for worker in &self.workers {
            all.merge(&worker.latest().report);
        }
        all
    }

    /// Returns the configuration that all workers share.
    pub(super) fn config(&self) -> Result<Config> {
        self.job.shared_config()
    }

    /// Returns an error if a worker has ended without being killed.
    pub(super) fn check(&self) -> Result<()> {
        for (number, worker) in self.workers.iter().enumerate() {
            ensure!(
                !worker.latest().has_ended,
                "worker {number} ended by itself"
            );
        }
        Ok(())
    }

    pub(super) fn go(&mut self) -> Result<()> {
        self.order(Order::Go)
    }

    /// Waits until all calls have ended and every worker has Redis and an empty journal.
    pub(super) async fn rest(&mut self) -> Result<()> {
        self.rests += 1;
        let rest = self.rests;
        self.order(Order::Rest(rest))?;
        self.until(RESTING, |latest| latest.rest == Some(rest))
            .await
            .context("a call hangs")?;
        self.until(RECOVERING, |latest| latest.is_settled())
            .await
            .context("a worker does not use Redis again, or its journal is not empty")
    }

    /// Kills a worker and starts another in its place. Returns the outcome as text.
    ///
    /// The journal of a worker is in memory and is lost with it. So the worker is not killed while Redis is unavailable or while
    /// its journal may hold anything: it must have been quiet for a while. The kill can still hit a write between its commit and
    /// its eviction.
    pub(super) async fn kill_in_peace(&mut self, number: usize) -> Result<&'static str> {
        let end = Instant::now() + RECOVERING;
        let mut before = u64::MAX;
        loop {
            let latest = self.workers[number].latest();
            let troubles = latest.report.troubles();
            if latest.is_settled() && troubles == before {
                break;
            }
            if Instant::now() > end {
                return Ok("not killed: the worker was never quiet");
            }
            before = troubles;
            sleep(QUIET).await;
            self.check()?;
        }
        let next = self.next(number)?;
        let mut killed = std::mem::replace(&mut self.workers[number], next);
        killed.kill();
        while !killed.latest().has_ended {
            sleep(Duration::from_millis(1)).await;
        }
        let last = killed.latest().report;
        self.past.merge(&last);
        self.killed += 1;
        if last.journal == 0 && last.troubles() == before {
            Ok("killed")
        } else {
            Ok("killed with errors: its journal may have held evictions")
        }
    }

    fn next(&mut self, number: usize) -> Result<Worker> {
        self.started += 1;
        Worker::start(&Job {
            // A process that evicts nothing learns of changes only from Redis.
            writes: !self.job.entries.local || number != READS_ONLY,
            is_strict: number.is_multiple_of(2),
            seed: self.job.seed.wrapping_add(1_000 * self.started),
            ..self.job.clone()
        })
    }

    fn order(&mut self, order: Order) -> Result<()> {
        let line = serde_json::to_string(&order)?;
        for (number, worker) in self.workers.iter_mut().enumerate() {
            writeln!(worker.orders, "{line}")
                .with_context(|| format!("worker {number} does not accept orders"))?;
        }
        Ok(())
    }

    async fn until(&self, limit: Duration, holds: impl Fn(&Latest) -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        while !self.workers.iter().all(|worker| holds(&worker.latest())) {
            self.check()?;
            if Instant::now() > end {
                let workers = self
                    .workers
                    .iter()
                    .map(|worker| worker.latest().to_string());
                let workers = workers.collect::<Vec<_>>().join("; ");
                bail!("not within {limit:?}: {workers}");
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Worker {
    fn start(job: &Job) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(Job::VARIABLE, serde_json::to_string(job)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take().context("the worker has no stdin")?;
        let words = process.stdout.take().context("the worker has no stdout")?;
        let latest = Arc::new(Mutex::new(Latest::default()));
        let worker = Self {
            process,
            orders,
            latest: Arc::clone(&latest),
        };
        thread::Builder::new().spawn(move || {
            for line in BufReader::new(words).lines().map_while(Result::ok) {
                // A killed worker may leave half a line.
                let Ok(Word { rest, report }) = serde_json::from_str(&line) else {
                    break;
                };
                let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
                (latest.rest, latest.report) = (rest, report);
            }
            latest
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .has_ended = true;
        })?;
        Ok(worker)
    }

    fn kill(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn latest(&self) -> Latest {
        self.latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Display for Latest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rest, report, .. } = self;
        let (connected, journal) = (report.connected, report.journal);
        write!(
            f,
            "rest {rest:?}, connected: {connected}, in the journal: {journal}"
        )
    }
}

impl Latest {
    fn is_settled(&self) -> bool {
        self.report.connected && self.report.journal == 0
    }
}
