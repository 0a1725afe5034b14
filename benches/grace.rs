//! Grace under load: a hot key that expires repeatedly, and a loader that fails, in four concurrent processes.
//!
//! The bench starts itself as the four processes. They count their bodies in Redis and store their results there.

use std::io;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use cache_runtime::testing::RedisServer;
use cache_runtime::{Address, Cache, Config, Topology, cacheable};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tests::figures::{Event, Figures};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

const PROCESSES: u32 = 4;
const RUN: Duration = Duration::from_secs(10);

/// The calls of each process per tick. All processes together make 5,000 calls per second.
const CALLS: u32 = 5;
const TICK: Duration = Duration::from_millis(4);

const BODY: Duration = Duration::from_millis(200);
const WAIT: Duration = Duration::from_millis(5);

/// A tenth of the grace of [`failing`]: the pause after a failed attempt.
const THROTTLE: Duration = Duration::from_secs(2);

/// The variable that holds the socket of the server in each of the four processes.
const WORKER: &str = "GRACE_WORKER";

/// The dependencies of the bodies.
#[derive(Clone)]
struct Service {
    cache: Cache,
    connection: MultiplexedConnection,
}

impl Service {
    #[cacheable(key = "grace:hot", ignore = [is_mine], ttl = "1s", grace = "10s", cache = self.cache)]
    async fn hot(&self, is_mine: &AtomicBool) -> Event {
        is_mine.store(true, Ordering::Relaxed);
        self.push("loads").await;
        sleep(BODY).await;
        Event::sample(1)
    }

    #[cacheable(key = "grace:hot:behind", ttl = "1s", grace = "10s", refresh = "background", cache = self.cache)]
    async fn hot_behind(self: Arc<Self>) -> Event {
        self.push("loads behind").await;
        sleep(BODY).await;
        Event::sample(1)
    }

    /// Succeeds once, in one process, and then always fails.
    #[cacheable(key = "grace:failing", ttl = "500ms", grace = "20s", cache = self.cache)]
    async fn failing(&self) -> io::Result<Event> {
        match self.push("attempts").await {
            1 => Ok(Event::sample(1)),
            _ => Err(io::Error::other("the database is down")),
        }
    }

    /// Records that a body ran, and returns how many did.
    async fn push(&self, list: &str) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        redis::cmd("RPUSH")
            .arg(list)
            .arg(now.as_millis() as u64)
            .query_async(&mut self.connection.clone())
            .await
            .expect("RPUSH")
    }
}

/// The results of one process for one function.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    calls: u64,
    errors: u64,
    /// The wait of callers whose body did not run, in milliseconds.
    p99: f64,
    longest: f64,
    fills: u64,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match std::env::var(WORKER) {
        Ok(socket) => worker(&socket).await,
        Err(_) => judge().await,
    }
}

async fn judge() -> Result<ExitCode> {
    let server = RedisServer::start()?;
    let Address::Unix(socket) = server.address() else {
        anyhow::bail!("not a socket")
    };
    let start = || {
        Command::new(std::env::current_exe()?)
            .env(WORKER, socket)
            .spawn()
    };
    let workers = (0..PROCESSES)
        .map(|_| start())
        .collect::<Result<Vec<_>, _>>()?;
    for mut worker in workers {
        let status = worker.wait()?;
        ensure!(status.success(), "a worker ended with {status}");
    }

    let mut connection = redis::Client::open(server.url())?
        .get_multiplexed_async_connection()
        .await?;
    let mut figures = Figures::default();
    for (name, list) in [("hot", "loads"), ("hot behind", "loads behind")] {
        let runs = results(&mut connection, name).await?;
        let (loads, calls) = (
            times(&mut connection, list).await?.len(),
            sum(&runs, |run| run.calls),
        );
        let fills = sum(&runs, |run| run.fills);
        let most = 1 + RUN.as_millis() / (Duration::from_secs(1) + BODY).as_millis();
        let worst = runs.iter().map(|run| run.p99).fold(0.0, f64::max);
        let longest = runs.iter().map(|run| run.longest).fold(0.0, f64::max);
        figures.heading(format_args!(
            "{name}: {calls} calls in {RUN:?} over {PROCESSES} processes, fresh for 1 s, a body of {BODY:?}:"
        ));
        figures.check(
            "loads, and loads that replaced an expired value",
            format_args!("{loads} and {fills}"),
            &format!("equal, at most {most}"),
            loads as u64 == fills && loads as u128 <= most && loads > 2,
        );
        figures.check(
            "p99 of callers that did not load, in the worst process, ms",
            format_args!("{worst:.2}"),
            "under 5",
            worst < WAIT.as_secs_f64() * 1e3,
        );
        figures.note(
            "longest wait of these callers, ms",
            format_args!("{longest:.2}"),
        );
    }

    let runs = results(&mut connection, "failing").await?;
    let attempts = times(&mut connection, "attempts").await?;
    let gaps = attempts.iter().skip(1).zip(attempts.iter().skip(2));
    let shortest = gaps.map(|(one, next)| next - one).min().unwrap_or_default();
    figures.heading(format_args!(
        "a loader that fails for {RUN:?}, at most one attempt in {THROTTLE:?}: {} calls",
        sum(&runs, |run| run.calls)
    ));
    let errors = sum(&runs, |run| run.errors);
    figures.check("errors returned to callers", errors, "none", errors == 0);
    figures.check(
        "failed attempts, and the shortest time between two, ms",
        format_args!("{} and {shortest}", attempts.len() - 1),
        "at least 2,000 between them",
        attempts.len() > 2 && u128::from(shortest) >= THROTTLE.as_millis(),
    );
    Ok(figures.finish())
}

fn sum(runs: &[Run], of: impl Fn(&Run) -> u64) -> u64 {
    runs.iter().map(of).sum()
}

async fn results(connection: &mut MultiplexedConnection, name: &str) -> Result<Vec<Run>> {
    let texts: Vec<String> = redis::cmd("LRANGE")
        .arg(format!("results of {name}"))
        .arg(0)
        .arg(-1)
        .query_async(connection)
        .await?;
    ensure!(
        texts.len() == PROCESSES as usize,
        "a process has not stored its results"
    );
    let runs = texts.iter().map(|text| serde_json::from_str(text));
    Ok(runs.collect::<Result<_, _>>()?)
}

/// Returns the times at which bodies ran, in milliseconds.
async fn times(connection: &mut MultiplexedConnection, list: &str) -> Result<Vec<u64>> {
    let mut times: Vec<u64> = redis::cmd("LRANGE")
        .arg(list)
        .arg(0)
        .arg(-1)
        .query_async(connection)
        .await?;
    times.sort_unstable();
    Ok(times)
}

async fn worker(socket: &str) -> Result<ExitCode> {
    let mut config = Config::default();
    config.redis = Some(Topology::Standalone(Address::Unix(socket.into())));
    let client = redis::Client::open(format!("redis+unix://{socket}"))?;
    let service = Service {
        cache: Cache::connect(config).await?,
        connection: client.get_multiplexed_async_connection().await?,
    };
    let service = Arc::new(service);

    measure(&service, "hot", |service| async move {
        let is_mine = AtomicBool::new(false);
        service.hot(&is_mine).await;
        (Ok(()), is_mine.into_inner())
    })
    .await?;
    measure(&service, "hot behind", |service| async move {
        service.hot_behind().await;
        (Ok(()), false)
    })
    .await?;
    measure(&service, "failing", |service| async move {
        (service.failing().await.map(drop), false)
    })
    .await?;
    service.cache.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Makes calls at a steady rate, independent of how long they take. The first load is not measured, because all callers wait for it.
async fn measure<F>(
    service: &Arc<Service>,
    name: &str,
    call: impl Fn(Arc<Service>) -> F,
) -> Result<()>
where
    F: Future<Output = (io::Result<()>, bool)> + Send + 'static,
{
    all_here(&service.connection, name).await?;
    let fills = service.cache.stats().total.fills;
    call(Arc::clone(service)).await.0.context(name.to_owned())?;

    let mut calls = JoinSet::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + RUN;
    while Instant::now() < end {
        ticks.tick().await;
        for _ in 0..CALLS {
            let call = call(Arc::clone(service));
            calls.spawn(async {
                let began = Instant::now();
                let (result, is_mine) = call.await;
                (began.elapsed(), result.is_err(), is_mine)
            });
        }
    }
    let (mut waits, mut errors) = (Vec::new(), 0);
    while let Some(called) = calls.join_next().await {
        let (wait, is_error, is_mine) = called?;
        errors += u64::from(is_error);
        if !is_mine {
            waits.push(wait.as_secs_f64() * 1e3);
        }
    }
    // A background refresh may still be running.
    sleep(2 * BODY).await;
    waits.sort_by(f64::total_cmp);
    let run = Run {
        calls: waits.len() as u64,
        errors,
        p99: waits[waits.len() * 99 / 100],
        longest: waits[waits.len() - 1],
        fills: service.cache.stats().total.fills - fills,
    };
    Ok(redis::cmd("RPUSH")
        .arg(format!("results of {name}"))
        .arg(serde_json::to_string(&run)?)
        .exec_async(&mut service.connection.clone())
        .await?)
}

/// Waits until all processes are ready, so that they begin together.
async fn all_here(connection: &MultiplexedConnection, what: &str) -> Result<()> {
    let mut connection = connection.clone();
    let counter = format!("arrivals at {what}");
    let mut here: u32 = redis::cmd("INCR")
        .arg(&counter)
        .query_async(&mut connection)
        .await?;
    while here < PROCESSES {
        sleep(Duration::from_millis(1)).await;
        here = redis::cmd("GET")
            .arg(&counter)
            .query_async(&mut connection)
            .await
            .context("the other processes")?;
    }
    Ok(())
}
