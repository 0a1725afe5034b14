//! Hits per second of 1,000 tasks: annotated functions, one shared redis-rs connection, and a bb8 pool of 50.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::Pool;
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, cacheable};
use redis::AsyncConnectionConfig;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use tests::figures::{Event, Figures, Spread};
use tokio::task::JoinSet;

const TASKS: u64 = 1_000;
const CALLS: u64 = 50;
const BLOCKS: usize = 30;

#[cacheable(key = "bench:<id>", ttl = 3600)]
async fn event(id: u64) -> Event {
    Event::sample(id)
}

async fn bare(connection: &mut impl ConnectionLike, id: u64) -> Event {
    let json: Vec<u8> = redis::cmd("GET")
        .arg(format!("bare:{id}"))
        .query_async(connection)
        .await
        .expect("GET");
    serde_json::from_slice(&json).expect("the value that was set")
}

/// Returns the calls per second of all tasks together.
async fn rate<F>(work: impl Fn(u64) -> F) -> Result<f64>
where
    F: Future<Output = ()> + Send + 'static,
{
    let start = Instant::now();
    let mut tasks: JoinSet<()> = (0..TASKS).map(work).collect();
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok((TASKS * CALLS) as f64 / start.elapsed().as_secs_f64())
}

async fn annotated() -> Result<f64> {
    rate(|id| async move {
        for _ in 0..CALLS {
            std::hint::black_box(event(id).await);
        }
    })
    .await
}

async fn one_connection(connection: &MultiplexedConnection) -> Result<f64> {
    rate(|id| {
        let mut connection = connection.clone();
        async move {
            for _ in 0..CALLS {
                std::hint::black_box(bare(&mut connection, id).await);
            }
        }
    })
    .await
}

async fn pooled(pool: &Pool<RedisConnectionManager>) -> Result<f64> {
    rate(|id| {
        let pool = pool.clone();
        async move {
            for _ in 0..CALLS {
                let mut connection = pool.get().await.expect("a connection");
                std::hint::black_box(bare(&mut *connection, id).await);
            }
        }
    })
    .await
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let server = RedisServer::start()?;
    let cache = Cache::connect(server.config()).await?;
    cache.install()?;
    let client = redis::Client::open(server.url())?;
    let connection = client.get_multiplexed_async_connection().await?;
    let untimed = AsyncConnectionConfig::new().set_response_timeout(None);
    let untimed = client
        .get_multiplexed_async_connection_with_config(&untimed)
        .await?;
    let pool = Pool::builder()
        .max_size(50)
        .min_idle(50)
        .build(RedisConnectionManager::new(server.url())?)
        .await?;
    for id in 0..TASKS {
        let json = serde_json::to_vec(&Event::sample(id))?;
        redis::cmd("SET")
            .arg(format!("bare:{id}"))
            .arg(json)
            .exec_async(&mut connection.clone())
            .await?;
        event(id).await;
    }
    // Run each once, so that all connections are open and all memory is mapped.
    annotated().await?;
    one_connection(&connection).await?;
    one_connection(&untimed).await?;
    pooled(&pool).await?;
    let before = cache.stats().total;

    let (mut ours, mut over_one, mut over_untimed, mut over_pool) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for block in 0..BLOCKS {
        // The annotated calls run first in every other block, because the speed of the machine drifts.
        let first = if block % 2 == 0 {
            Some(annotated().await?)
        } else {
            None
        };
        let one = one_connection(&connection).await?;
        let never_late = one_connection(&untimed).await?;
        let from_pool = pooled(&pool).await?;
        let rate = match first {
            Some(rate) => rate,
            None => annotated().await?,
        };
        over_one.push(rate / one);
        over_untimed.push(rate / never_late);
        over_pool.push(rate / from_pool);
        ours.push(rate / 1e3);
    }
    let after = cache.stats();
    anyhow::ensure!(
        after.total.misses == before.misses,
        "{} calls were misses, and the fallback mode was entered {} times: check that the machine is not busy",
        after.total.misses - before.misses,
        after.fallback.entered,
    );

    let (over_one, over_pool) = (Spread::of(over_one), Spread::of(over_pool));
    let mut figures = Figures::default();
    figures.heading(format_args!(
        "{TASKS} tasks, {BLOCKS} blocks of {CALLS} hits each:"
    ));
    figures.note(
        "annotated function, 1,000 hits per second",
        format!("{:.0}", Spread::of(ours)),
    );
    figures.check(
        "rate divided by one shared connection",
        over_one,
        "at least 0.9",
        over_one.median >= 0.9,
    );
    figures.note(
        "rate divided by one shared connection without a timeout",
        Spread::of(over_untimed),
    );
    figures.check(
        "rate divided by bb8 with 50 connections",
        over_pool,
        "at least 3",
        over_pool.median >= 3.0,
    );
    cache.shutdown().await;
    drop(server);
    Ok(figures.finish())
}
