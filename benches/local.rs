//! Compares a hit in the process with bare gets of `moka` and `quick_cache`: time, allocations, and two threads against one.

use std::alloc::System;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, cacheable};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tests::figures::{Event, Figures, Spread};
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BLOCKS: u32 = 200;
const CALLS: u32 = 5_000;
const KEYS: u64 = 1_000;

#[cacheable(key = "bench:<id>", ttl = 3600, local = 3600)]
async fn event(id: u64) -> Arc<Event> {
    Arc::new(Event::sample(id))
}

fn main() -> Result<ExitCode> {
    cache_runtime::testing::assume_real_time();
    let mut figures = Figures::default();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let server = RedisServer::start()?;
    let cache = runtime.block_on(Cache::connect(server.config()))?;
    // As in a service: a cache that the attribute names is counted by every call.
    cache.install()?;
    runtime.block_on(warm_up(&cache));
    one_task(&cache, &mut figures)?;
    two_tasks(&mut figures);
    runtime.block_on(cache.shutdown());
    Ok(figures.finish())
}

/// Calls until every value is served from the process.
async fn warm_up(cache: &Cache) {
    loop {
        let before = cache.stats().total.hits_local;
        for id in 0..KEYS {
            event(id).await;
        }
        if cache.stats().total.hits_local - before == KEYS {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Calls on this thread, outside of the runtime that the cache works on.
fn hits(ids: &[u64]) -> Duration {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let began = Instant::now();
        for id in ids {
            black_box(event(*id).await);
        }
        began.elapsed()
    })
}

fn timed(calls: u32, mut call: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..calls {
        call();
    }
    began.elapsed()
}

fn one_task(cache: &Cache, figures: &mut Figures) -> Result<()> {
    let name = |id: u64| format!("test_bench:{id}");
    let moka = moka::sync::Cache::new(100_000);
    let quick = quick_cache::sync::Cache::<String, Arc<Event>>::new(100_000);
    for id in 0..KEYS {
        moka.insert(name(id), Arc::new(Event::sample(id)));
        quick.insert(name(id), Arc::new(Event::sample(id)));
    }
    let key = name(7);
    let ids = vec![7; CALLS as usize];
    let before = cache.stats().total;

    let (mut by_moka, mut by_quick) = (Vec::new(), Vec::new());
    let (mut ours_nanos, mut moka_nanos) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        let ours = hits(&ids).as_secs_f64();
        let of_moka = timed(CALLS, || drop(black_box(moka.get(key.as_str())))).as_secs_f64();
        let of_quick = timed(CALLS, || drop(black_box(quick.get(key.as_str())))).as_secs_f64();
        by_moka.push(ours / of_moka);
        by_quick.push(ours / of_quick);
        ours_nanos.push(ours / f64::from(CALLS) * 1e9);
        moka_nanos.push(of_moka / f64::from(CALLS) * 1e9);
    }
    let after = cache.stats().total;
    anyhow::ensure!(
        after.hits_local - before.hits_local == u64::from(BLOCKS * CALLS),
        "not all calls were served from the process"
    );

    figures.heading(format_args!(
        "one task, one key, {BLOCKS} blocks of {CALLS} calls each:"
    ));
    figures.note("a hit in the process, ns", Spread::of(ours_nanos));
    figures.note("a bare get of moka, ns", Spread::of(moka_nanos));
    let ratio = Spread::of(by_moka);
    figures.check(
        "a hit divided by a bare get of moka",
        ratio,
        "at most 0.50",
        ratio.median <= 0.50,
    );
    figures.note("divided by a bare get of quick_cache", Spread::of(by_quick));
    let runtime = Builder::new_current_thread().build()?;
    let allocations = runtime.block_on(async {
        event(7).await;
        let region = Region::new(ALLOCATOR);
        for _ in 0..CALLS {
            black_box(event(7).await);
        }
        region.change().allocations as f64 / f64::from(CALLS)
    });
    figures.check(
        "allocations of a hit",
        format!("{allocations:.3}"),
        "none",
        allocations < 0.01,
    );
    Ok(())
}

fn two_tasks(figures: &mut Figures) {
    let ids = zipf(CALLS as usize * 20);
    let quick = quick_cache::sync::Cache::<u64, Arc<Event>>::new(100_000);
    for id in 0..=2 * KEYS {
        quick.insert(id, Arc::new(Event::sample(id)));
    }
    let quick_hits = |ids: &[u64]| {
        let began = Instant::now();
        for id in ids {
            black_box(quick.get(id));
        }
        began.elapsed()
    };
    let computations = |ids: &[u64]| {
        let began = Instant::now();
        for id in ids {
            black_box((0..100).fold(*id, |number, _| black_box(number).wrapping_mul(31)));
        }
        began.elapsed()
    };
    // The same law, without a value that both threads use.
    let own = |thread: u64| -> Vec<u64> { ids.iter().map(|id| id / 2 * 2 + thread).collect() };
    let (even, odd) = (own(0), own(1));
    let (mut shared, mut apart, mut of_quick) = (Vec::new(), Vec::new(), Vec::new());
    let mut of_machine = Vec::new();
    for _ in 0..BLOCKS / 4 {
        shared.push(gain(&hits, &ids, &ids));
        apart.push(gain(&hits, &even, &odd));
        of_quick.push(gain(&quick_hits, &ids, &ids));
        of_machine.push(gain(&computations, &ids, &ids));
    }
    figures.heading(format_args!("two threads, {KEYS} keys by Zipf's law:"));
    let gain = Spread::of(shared);
    figures.check(
        "throughput of two divided by one",
        gain,
        "at least 1.80",
        gain.median >= 1.80,
    );
    figures.note("with different keys for each thread", Spread::of(apart));
    figures.note("of bare gets of quick_cache", Spread::of(of_quick));
    figures.note(
        "of computations that share nothing, which is what the machine allows",
        Spread::of(of_machine),
    );
}

/// Returns the throughput of two threads with these keys divided by that of one thread.
fn gain(hits: &(impl Fn(&[u64]) -> Duration + Sync), ids: &[u64], others: &[u64]) -> f64 {
    let alone = hits(ids);
    let together = std::thread::scope(|scope| {
        let other = scope.spawn(|| hits(others));
        let one = hits(ids);
        one.max(other.join().expect("the thread ends"))
    });
    2.0 * alone.as_secs_f64() / together.as_secs_f64()
}

/// Keys of which the most frequent is twice as frequent as the second, and so on.
fn zipf(count: usize) -> Vec<u64> {
    let weights: Vec<f64> = (1..=KEYS).map(|rank| 1.0 / rank as f64).collect();
    let sum: f64 = weights.iter().sum();
    let mut random = fastrand::Rng::with_seed(7);
    let pick = |mut point: f64| {
        let found = weights.iter().position(|weight| {
            point -= weight;
            point < 0.0
        });
        found.unwrap_or_default() as u64
    };
    (0..count).map(|_| pick(random.f64() * sum)).collect()
}
