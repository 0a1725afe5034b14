//! Compares a call in fallback mode with the bare function.

use std::process::ExitCode;

use anyhow::Result;
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, cacheable};
use tests::figures::{Event, Figures, Spread, time};

const BLOCKS: u32 = 200;
const CALLS: u32 = 5_000;

#[cacheable(key = "bench:<id>", ttl = 3600, cache = cache)]
async fn event(cache: &Cache, id: u64) -> Event {
    Event::sample(id)
}

async fn bare(id: u64) -> Event {
    Event::sample(id)
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut server = RedisServer::start()?;
    server.kill();
    let cache = Cache::connect(server.config()).await?;
    time(CALLS, |id| event(&cache, id.into())).await;
    time(CALLS, |id| bare(id.into())).await;

    let (mut more, mut nanos) = (Vec::new(), Vec::new());
    for block in 0..BLOCKS {
        // The second measurement finds warmer CPU caches, so the order alternates.
        let (ours, theirs) = if block % 2 == 0 {
            let ours = time(CALLS, |id| event(&cache, id.into())).await;
            (ours, time(CALLS, |id| bare(id.into())).await)
        } else {
            let theirs = time(CALLS, |id| bare(id.into())).await;
            (time(CALLS, |id| event(&cache, id.into())).await, theirs)
        };
        more.push((ours.as_secs_f64() - theirs.as_secs_f64()) * 1e9);
        nanos.push(theirs.as_secs_f64() * 1e9);
    }
    anyhow::ensure!(
        cache.stats().fallback.current_seconds.is_some(),
        "the cache is not in fallback mode"
    );

    let more = Spread::of(more);
    let mut figures = Figures::default();
    figures.heading(format_args!("{BLOCKS} blocks of {CALLS} calls each:"));
    figures.note("bare function, ns", format!("{:.0}", Spread::of(nanos)));
    figures.check(
        "additional time in fallback mode, ns",
        format!("{more:.0}"),
        "at most 1000",
        more.median <= 1_000.0,
    );
    Ok(figures.finish())
}
