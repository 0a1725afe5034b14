//! Compares a hit of an annotated function with a bare `GET` and `serde_json` of the same value: time and allocations. Also
//! compares hits with and without a log subscriber that ignores the events of calls.

use std::alloc::System;
use std::process::ExitCode;

use anyhow::Result;
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, cacheable};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tests::figures::{Event, Figures, Spread, time};
use tokio::runtime::Builder;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber, subscriber};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BLOCKS: u32 = 200;
const CALLS: u32 = 200;
const WARM_UP: u32 = 5_000;

#[cacheable(key = "bench:<id>", ttl = 3600, cache = cache)]
async fn event(cache: &Cache, id: u64) -> Event {
    Event::sample(id)
}

async fn bare(connection: &MultiplexedConnection) -> Event {
    let mut connection = connection.clone();
    let json: Vec<u8> = redis::cmd("GET")
        .arg("bare:1")
        .query_async(&mut connection)
        .await
        .expect("GET");
    serde_json::from_slice(&json).expect("the value that was set")
}

fn main() -> Result<ExitCode> {
    cache_runtime::testing::assume_real_time();
    let mut figures = Figures::default();
    let one = Builder::new_current_thread().enable_all().build()?;
    one.block_on(measure("one thread", &mut figures))?;
    one.block_on(measure_quiet_log(&mut figures));
    let many = Builder::new_multi_thread().enable_all().build()?;
    many.block_on(async {
        tokio::spawn(async move { measure("all threads", &mut figures).await.map(|()| figures) })
            .await?
    })
    .map(Figures::finish)
}

async fn measure(runtime: &str, figures: &mut Figures) -> Result<()> {
    let server = RedisServer::start()?;
    let cache = Cache::connect(server.config()).await?;
    let client = redis::Client::open(server.url())?;
    let connection = client.get_multiplexed_async_connection().await?;
    let untimed = AsyncConnectionConfig::new().set_response_timeout(None);
    let untimed = client
        .get_multiplexed_async_connection_with_config(&untimed)
        .await?;

    let json = serde_json::to_vec(&Event::sample(1))?;
    figures.heading(format_args!(
        "{runtime}, a value of {} bytes, {BLOCKS} blocks of {CALLS} calls each:",
        json.len()
    ));
    redis::cmd("SET")
        .arg("bare:1")
        .arg(json)
        .exec_async(&mut connection.clone())
        .await?;
    time(WARM_UP, |_| event(&cache, 1)).await;
    time(WARM_UP, |_| bare(&connection)).await;
    time(WARM_UP, |_| bare(&untimed)).await;

    let (mut ratios, mut stricter, mut micros) = (Vec::new(), Vec::new(), Vec::new());
    for block in 0..BLOCKS {
        // The second measurement finds warmer CPU caches, so the order alternates.
        let (ours, theirs) = if block % 2 == 0 {
            let ours = time(CALLS, |_| event(&cache, 1)).await;
            (ours, time(CALLS, |_| bare(&connection)).await)
        } else {
            let theirs = time(CALLS, |_| bare(&connection)).await;
            (time(CALLS, |_| event(&cache, 1)).await, theirs)
        };
        let without_timer = time(CALLS, |_| bare(&untimed)).await;
        ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
        stricter.push(ours.as_secs_f64() / without_timer.as_secs_f64());
        micros.push(theirs.as_secs_f64() * 1e6);
    }
    let hits = cache.stats().total.hits;
    anyhow::ensure!(
        hits >= u64::from(BLOCKS * CALLS),
        "only {hits} calls were hits"
    );

    let ratio = Spread::of(ratios);
    figures.note("bare GET, µs", Spread::of(micros));
    figures.check(
        "time of a hit divided by a bare GET",
        ratio,
        "at most 1.10",
        ratio.median <= 1.10,
    );
    figures.note(
        "divided by a bare GET without a timeout",
        Spread::of(stricter),
    );

    let ours = allocations(|| time(CALLS, |_| event(&cache, 1))).await;
    let theirs = allocations(|| time(CALLS, |_| bare(&connection))).await;
    let more = ours - theirs;
    let measured = format!("{more:.2} ({ours:.2} and {theirs:.2})");
    figures.check(
        "allocations of a hit minus those of a bare GET",
        measured,
        "at most 6",
        more <= 6.0,
    );
    drop(connection);
    cache.shutdown().await;
    drop(server);
    Ok(())
}

/// Measures the cost of the log events of a hit if no subscriber wants them. Runs without Redis, which would hide the cost.
async fn measure_quiet_log(figures: &mut Figures) {
    let cache = Cache::memory();
    let hits = || time(CALLS, |_| event(&cache, 1));
    let heard = async || {
        let _guard = subscriber::set_default(Quiet);
        hits().await
    };
    time(WARM_UP, |_| event(&cache, 1)).await;

    figures.heading(format_args!(
        "a subscriber at `info` compared with none, {BLOCKS} blocks of {CALLS} hits in memory each:"
    ));
    let mut ratios = Vec::new();
    for block in 0..BLOCKS {
        let (with, without) = if block % 2 == 0 {
            let with = heard().await;
            (with, hits().await)
        } else {
            let without = hits().await;
            (heard().await, without)
        };
        ratios.push(with.as_secs_f64() / without.as_secs_f64());
    }
    let ratio = Spread::of(ratios);
    figures.check("time", ratio, "at most 1.05", ratio.median <= 1.05);
    let more = allocations(heard).await - allocations(hits).await;
    let is_free = more < 0.05; // the subscriber itself is allocated once for all calls
    figures.check(
        "additional allocations",
        format!("{more:.2}"),
        "none",
        is_free,
    );
}

/// Listens to `info` and above.
struct Quiet;

impl Subscriber for Quiet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, _: &tracing::Event<'_>) {}

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Returns the allocations per call, over all threads, because each connection works in its own task.
async fn allocations<F: Future>(block: impl FnOnce() -> F) -> f64 {
    let region = Region::new(ALLOCATOR);
    block().await;
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / f64::from(CALLS)
}
