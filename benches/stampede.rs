//! Counts how often the body runs for 1,000 concurrent cold calls of one key in each of two processes.
//!
//! The bench starts itself as the two processes. They count their bodies in Redis.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Config, cacheable};
use redis::aio::MultiplexedConnection;
use tests::figures::{Event, Figures};
use tokio::task::JoinSet;
use tokio::time::sleep;

const PROCESSES: u64 = 2;
const CALLS: u64 = 1_000;
const ROUNDS: u64 = 10;
const BODY: Duration = Duration::from_millis(100);

/// The variable that holds the socket of the server in each of the two processes.
const WORKER: &str = "STAMPEDE_WORKER";

#[cacheable(key = "stampede:<round>", ignore = [counter], ttl = 3600, cache = cache)]
async fn expensive(cache: &Cache, counter: MultiplexedConnection, round: u64) -> Event {
    let mut counter = counter;
    redis::cmd("INCR")
        .arg("bodies")
        .exec_async(&mut counter)
        .await
        .expect("INCR");
    sleep(BODY).await;
    Event::sample(round)
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
    let cache_runtime::Address::Unix(socket) = server.address() else {
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
    let bodies: u64 = redis::cmd("GET")
        .arg("bodies")
        .query_async(&mut connection)
        .await?;
    let mut figures = Figures::default();
    figures.heading(format_args!(
        "{ROUNDS} rounds of {CALLS} cold calls of one key in each of {PROCESSES} processes:"
    ));
    figures.check(
        "bodies that ran",
        bodies,
        &format!("exactly {ROUNDS}"),
        bodies == ROUNDS,
    );
    Ok(figures.finish())
}

async fn worker(socket: &str) -> Result<ExitCode> {
    let mut config = Config::default();
    config.redis = Some(cache_runtime::Topology::Standalone(
        cache_runtime::Address::Unix(socket.into()),
    ));
    let cache = Cache::connect(config).await?;
    let client = redis::Client::open(format!("redis+unix://{socket}"))?;
    let connection = client.get_multiplexed_async_connection().await?;

    for round in 1..=ROUNDS {
        all_here(&connection, round).await?;
        let calls = (0..CALLS).map(|_| {
            let (cache, counter) = (cache.clone(), connection.clone());
            async move { expensive(&cache, counter, round).await }
        });
        let mut calls: JoinSet<Event> = calls.collect();
        while let Some(value) = calls.join_next().await {
            ensure!(value? == Event::sample(round), "a call got another value");
        }
    }
    cache.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Waits until both processes are ready, so that they begin each round within 1 ms of each other.
async fn all_here(connection: &MultiplexedConnection, round: u64) -> Result<()> {
    let mut connection = connection.clone();
    let mut here: u64 = redis::cmd("INCR")
        .arg("arrivals")
        .query_async(&mut connection)
        .await?;
    while here < round * PROCESSES {
        sleep(Duration::from_micros(200)).await;
        here = redis::cmd("GET")
            .arg("arrivals")
            .query_async(&mut connection)
            .await
            .context("the other process")?;
    }
    Ok(())
}
