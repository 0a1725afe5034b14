//! Fills the cache before the first request, and again on a schedule: `cargo run -p recipes --example warming`.
//!
//! The schedule runs on one process at a time of all that share the Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_runtime::warm;
use cache_runtime::{Cache, Config, cacheable};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Default)]
struct Events {
    queries: AtomicU32,
}

impl Events {
    // A run leaves fresh entries as they are and refreshes stale ones. With a TTL below the period and a grace above it, each run renews
    // the entry, and no caller finds it absent.
    #[cacheable(key = "event:<id>", ttl = "50m", grace = "2h")]
    async fn title(&self, id: u32) -> Result<String, Unknown> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        match id {
            1..=100 => Ok(format!("Event {id}")),
            _ => Err(Unknown(id)),
        }
    }

    /// The ids of the events that are asked for most. A service asks its database.
    fn popular(&self) -> impl Iterator<Item = u32> + use<> {
        1..=101
    }
}

#[derive(Debug)]
struct Unknown(u32);

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no event {}", self.0)
    }
}

impl std::error::Error for Unknown {}

async fn warm_popular(cache: &Cache, events: &Events) -> warm::Summary {
    cache
        .warm(events.popular(), |id| events.title(id))
        .concurrency(8) // as many queries at a time as the database can take beside those of callers
        .on_progress(|progress| {
            if progress.done % 50 == 0 {
                println!("{} done", progress.done);
            }
        })
        .run()
        .await
}

/// Waits for SIGTERM, as container platforms send it, or Ctrl-C. Listens from this call on.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let cache = Cache::connect(Config::from_env()?).await?;
    cache.install()?;
    let events = Arc::new(Events::default());

    let stop = told_to_stop()?;

    // Before the service accepts requests.
    let summary = warm_popular(&cache, &events).await;
    println!("{summary}");
    for error in &summary.errors {
        println!("not warmed: {error}");
    }
    println!(
        "{:?} after {} queries",
        events.title(1).await,
        events.queries.load(Ordering::Relaxed)
    );

    // While it runs.
    let parts = (cache.clone(), Arc::clone(&events));
    let schedule = warm::every(Duration::from_secs(3600), &cache, "popular", move || {
        let (cache, events) = parts.clone();
        async move { println!("{}", warm_popular(&cache, &events).await) }
    });

    println!("warmed");
    stop.await;
    schedule.stop();
    cache.shutdown().await;
    Ok(())
}
