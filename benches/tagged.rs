//! What a tag costs: a hit with one against a hit without, for one task and for many; and an eviction of everything that has a
//! tag, while Redis holds many keys of others.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, cacheable};
use redis::aio::MultiplexedConnection;
use tests::figures::{Event, Figures, Spread, time};
use tokio::task::JoinSet;

const BLOCKS: u32 = 100;
const CALLS: u32 = 200;
const TASKS: u64 = 1_000;
const CALLS_OF_A_TASK: u64 = 10;
const ENTRIES: u64 = 100_000;
const FOREIGN: u64 = 1_000_000;
const EVICTIONS: u32 = 200;

/// Fills Redis with keys of others.
const FILL: &str = "for id = 1, ARGV[1] do redis.call('SET', 'foreign:' .. id, 'x') end";

#[cacheable(key = "plain:<id>", ttl = 3600, cache = cache)]
async fn plain(cache: &Cache, id: u64) -> Event {
    Event::sample(id)
}

#[cacheable(key = "tagged:<group>:<id>", tag = "group:<group>", ttl = 3600, cache = cache)]
async fn tagged(cache: &Cache, id: u64, group: u64) -> Event {
    Event::sample(id + group)
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    cache_runtime::testing::assume_real_time();
    let mut figures = Figures::default();
    let server = RedisServer::start()?;
    let cache = Cache::connect(server.config()).await?;
    hits_of_one_task(&cache, &mut figures).await?;
    hits_of_many_tasks(&cache, &mut figures).await?;
    evictions(&server, &cache, &mut figures).await?;
    Ok(figures.finish())
}

async fn hits_of_one_task(cache: &Cache, figures: &mut Figures) -> Result<()> {
    time(1_000, |_| plain(cache, 1)).await;
    time(1_000, |_| tagged(cache, 1, 1)).await;
    let mut ratios = Vec::new();
    for block in 0..BLOCKS {
        let (with, without) = if block % 2 == 0 {
            let with = time(CALLS, |_| tagged(cache, 1, 1)).await;
            (with, time(CALLS, |_| plain(cache, 1)).await)
        } else {
            let without = time(CALLS, |_| plain(cache, 1)).await;
            (time(CALLS, |_| tagged(cache, 1, 1)).await, without)
        };
        ratios.push(with.as_secs_f64() / without.as_secs_f64());
    }
    only_hits(cache)?;
    figures.heading(format_args!(
        "one task, {BLOCKS} blocks of {CALLS} calls each:"
    ));
    ratio(figures, ratios);
    Ok(())
}

async fn hits_of_many_tasks(cache: &Cache, figures: &mut Figures) -> Result<()> {
    for id in 0..TASKS {
        plain(cache, id).await;
        tagged(cache, id, id % 10).await;
    }
    let mut ratios = Vec::new();
    for block in 0..BLOCKS {
        let (with, without) = if block % 2 == 0 {
            let with = crowd(cache, true).await;
            (with, crowd(cache, false).await)
        } else {
            let without = crowd(cache, false).await;
            (crowd(cache, true).await, without)
        };
        ratios.push(with.as_secs_f64() / without.as_secs_f64());
    }
    only_hits(cache)?;
    figures.heading(format_args!(
        "{TASKS} tasks, 10 tags, {BLOCKS} blocks of {CALLS_OF_A_TASK} calls of each task:"
    ));
    ratio(figures, ratios);
    Ok(())
}

/// Returns how long many tasks take for their calls.
async fn crowd(cache: &Cache, has_tag: bool) -> Duration {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let cache = cache.clone();
        tasks.spawn(async move {
            for call in 0..CALLS_OF_A_TASK {
                let id = (task * 7 + call * 131) % TASKS;
                match has_tag {
                    true => tagged(&cache, id, id % 10).await,
                    false => plain(&cache, id).await,
                };
            }
        });
    }
    tasks.join_all().await;
    began.elapsed()
}

fn only_hits(cache: &Cache) -> Result<()> {
    let total = cache.stats().total;
    ensure!(
        total.misses <= 2 * TASKS + 2,
        "{} calls were misses: {:?}",
        total.misses,
        total.misses_by_reason
    );
    Ok(())
}

fn ratio(figures: &mut Figures, ratios: Vec<f64>) {
    let ratio = Spread::of(ratios);
    figures.check(
        "a hit with a tag divided by a hit without",
        ratio,
        "at most 1.15",
        ratio.median <= 1.15,
    );
}

async fn evictions(server: &RedisServer, cache: &Cache, figures: &mut Figures) -> Result<()> {
    let mut other = redis::Client::open(server.url())?
        .get_multiplexed_async_connection()
        .await?;
    other.set_response_timeout(Duration::from_secs(60));
    redis::cmd("EVAL")
        .arg(FILL)
        .arg(0)
        .arg(FOREIGN)
        .exec_async(&mut other)
        .await?;
    let events: Vec<_> = (0..1_000).map(Event::sample).collect();
    for thousand in 0..ENTRIES / 1_000 {
        let keys: Vec<_> = (0..1_000)
            .map(|id| format!("many:{thousand}:{id}"))
            .collect();
        let pairs: Vec<_> = keys.iter().map(String::as_str).zip(&events).collect();
        cache.tagged(&["many"]).try_set_many(&pairs, 3_600).await?;
    }
    let served = cache.get::<Event>("many:7:7").await;
    ensure!(served.is_some(), "the entry is stored");

    let alone = latencies(&other).await?;
    let evicting = tokio::spawn(evict_many(cache.clone()));
    let beside = latencies(&other).await?;
    let evicted = evicting.await??;
    let served = cache.get::<Event>("many:7:7").await;
    ensure!(served.is_none(), "the entry is evicted");

    figures.heading(format_args!(
        "{EVICTIONS} evictions of a tag, {ENTRIES} entries had it, {FOREIGN} keys of others:"
    ));
    let evicted = Spread::of(evicted);
    figures.check(
        "an eviction, ms",
        evicted,
        "less than 1",
        evicted.median < 1.0,
    );
    figures.note("p99 of the GETs of another client, alone, ms", alone);
    figures.note("p99 of its GETs during the evictions, ms", beside);
    Ok(())
}

/// Evicts a tag, which a load then creates again, and returns how long each eviction took.
async fn evict_many(cache: Cache) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for _ in 0..EVICTIONS {
        let began = Instant::now();
        cache.try_delete_tagged("many").await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        cache.tagged(&["many"]).try_set("again", &1, 60).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(took)
}

/// Returns the 99th percentile of the time that a `GET` takes, in milliseconds.
async fn latencies(connection: &MultiplexedConnection) -> Result<String> {
    let mut connection = connection.clone();
    let mut took = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_500) {
        let sent = Instant::now();
        redis::cmd("GET")
            .arg("foreign:1")
            .exec_async(&mut connection)
            .await?;
        took.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    let p99 = took[took.len() * 99 / 100];
    Ok(format!("{p99:.3} of {} calls", took.len()))
}
