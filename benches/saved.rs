//! Counts what `local` saves on Redis: four processes call a hot key that is refreshed again and again, with and without `local`.
//!
//! The bench starts itself as the processes. Each makes the same calls at the same pace in both runs, and Redis counts the commands.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Config, cacheable};
use redis::aio::MultiplexedConnection;
use tests::figures::{Event, Figures};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

const PROCESSES: u64 = 4;
const TASKS: u64 = 4;
/// At most one a millisecond, so that reads do not leave in batches.
const CALLS: u64 = 20_000;
const PAUSE: Duration = Duration::from_millis(1);
const BODY: Duration = Duration::from_millis(20);

/// The variables of a process: the socket of the server, and whether values are kept.
const SOCKET: &str = "SAVED_SOCKET";
const LOCAL: &str = "SAVED_LOCAL";

/// Commands that open a connection or keep it open, and those of the bench.
const OTHERS: &[&str] = &[
    "auth", "client", "config", "hello", "info", "ping", "script",
];

#[cacheable(key = "remote:<id>", ttl = 5, grace = 60, refresh = "background")]
async fn remote(id: u64) -> Event {
    sleep(BODY).await;
    Event::sample(id)
}

#[cacheable(
    key = "local:<id>",
    ttl = 5,
    grace = 60,
    refresh = "background",
    local = "1h"
)]
async fn local(id: u64) -> Event {
    sleep(BODY).await;
    Event::sample(id)
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match std::env::var(SOCKET) {
        Ok(socket) => worker(&socket, std::env::var(LOCAL).is_ok()).await,
        Err(_) => judge().await,
    }
}

async fn judge() -> Result<ExitCode> {
    let server = RedisServer::start()?;
    let without = run(&server, false).await?;
    let with = run(&server, true).await?;

    let mut figures = Figures::default();
    let calls = PROCESSES * TASKS * CALLS;
    figures.heading(format_args!(
        "{calls} calls of {PROCESSES} processes for a key that is refreshed every 5 s by a body of {BODY:?}:"
    ));
    for (name, counted) in [("without `local`", &without), ("with `local`", &with)] {
        let commands: Vec<_> = counted
            .iter()
            .map(|(command, calls)| format!("{calls} × {command}"))
            .collect();
        figures.note(
            &format!("commands {name}"),
            format_args!("{}: {}", sum(counted), commands.join(", ")),
        );
    }
    let saved = 1.0 - sum(&with) as f64 / sum(&without) as f64;
    figures.check(
        "commands that `local` saves",
        format_args!("{:.2} %", saved * 100.0),
        "at least 99 %",
        saved >= 0.99,
    );
    Ok(figures.finish())
}

fn sum(counted: &BTreeMap<String, u64>) -> u64 {
    counted.values().sum()
}

/// Lets all processes make their calls, and returns the commands of that time.
async fn run(server: &RedisServer, keeps: bool) -> Result<BTreeMap<String, u64>> {
    let cache_runtime::Address::Unix(socket) = server.address() else {
        anyhow::bail!("not a socket")
    };
    let start = || -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(SOCKET, socket);
        if keeps {
            command.env(LOCAL, "yes");
        }
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(command.spawn()?)
    };
    let mut workers = (0..PROCESSES)
        .map(|_| start())
        .collect::<Result<Vec<_>>>()?;
    for worker in &mut workers {
        heard(worker)?;
    }
    let mut redis = connect(socket).await?;
    redis::cmd("CONFIG")
        .arg("RESETSTAT")
        .exec_async(&mut redis)
        .await?;
    for worker in &mut workers {
        let orders = worker.stdin.as_mut().context("a pipe")?;
        writeln!(orders, "go")?;
    }
    for worker in &mut workers {
        heard(worker)?;
    }
    let counted = commands(&mut redis).await?;
    for mut worker in workers {
        drop(worker.stdin.take());
        let status = worker.wait()?;
        ensure!(status.success(), "a worker ended with {status}");
    }
    Ok(counted)
}

/// Waits until a process says that it is ready, or that its calls have returned.
fn heard(worker: &mut Child) -> Result<()> {
    let words = worker.stdout.as_mut().context("a pipe")?;
    let mut line = String::new();
    // A process says one word and waits, so nothing is read beyond the line.
    BufReader::with_capacity(1, words).read_line(&mut line)?;
    ensure!(!line.is_empty(), "a worker ended early");
    Ok(())
}

async fn commands(redis: &mut MultiplexedConnection) -> Result<BTreeMap<String, u64>> {
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(redis)
        .await?;
    let lines = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let (calls, _) = rest.split_once(',')?;
        Some((name.to_owned(), calls.parse().ok()?))
    });
    Ok(lines
        .filter(|(name, _)| !OTHERS.iter().any(|other| name.starts_with(other)))
        .collect())
}

async fn connect(socket: &std::path::Path) -> Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("unix://{}", socket.display()))?;
    Ok(client.get_multiplexed_async_connection().await?)
}

async fn worker(socket: &str, keeps: bool) -> Result<ExitCode> {
    let config = Config::default().redis_url(&format!("redis+unix://{socket}"))?;
    let cache = Cache::connect(config).await?;
    cache.install()?;
    if keeps {
        while cache.stats().total.hits_local == 0 {
            local(1).await;
            sleep(PAUSE).await;
        }
    } else {
        remote(1).await;
    }
    say("ready")?;
    let mut orders = std::io::stdin().lines();
    orders.next().context("no order")??;
    let mut callers = JoinSet::new();
    for _ in 0..TASKS {
        callers.spawn(async move {
            let mut pace = interval(PAUSE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for _ in 0..CALLS {
                pace.tick().await;
                let _ = match keeps {
                    true => local(1).await,
                    false => remote(1).await,
                };
            }
        });
    }
    callers.join_all().await;
    say("done")?;
    // Connections stay open until all processes are counted.
    let _ = orders.next();
    cache.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn say(word: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}
