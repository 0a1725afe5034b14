//! Caches a function, and evicts what a change makes old: `cargo run -p recipes --example quickstart`.
//!
//! With `REDIS_URL=redis://127.0.0.1` the values are in Redis, and otherwise in the memory of the process.

use std::collections::HashMap;
use std::sync::Mutex;

use cache_runtime::{Cache, Config, cache_evict, cacheable};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Event {
    id: u32,
    title: String,
}

/// Stands for a database.
#[derive(Default)]
struct Events {
    titles: Mutex<HashMap<u32, String>>,
}

impl Events {
    #[cacheable(key = "event:<id>", ttl = "30m")]
    async fn find(&self, id: u32) -> Option<Event> {
        println!("query for event {id}");
        let titles = self.titles.lock().ok()?;
        let title = titles.get(&id)?.clone();
        Some(Event { id, title })
    }

    #[cache_evict(key = "event:<id>")]
    async fn rename(&self, id: u32, title: &str) {
        if let Ok(mut titles) = self.titles.lock() {
            titles.insert(id, title.to_owned());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), cache_runtime::Error> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let cache = Cache::connect(Config::from_env()?).await?; // an unreachable Redis is not an error
    cache.install()?;

    let events = Events::default();
    events.rename(1, "A quartet").await;
    println!("{:?}", events.find(1).await); // a miss
    println!("{:?}", events.find(1).await); // a hit: no query
    events.rename(1, "A quintet").await;
    println!("{:?}", events.find(1).await); // a miss again

    cache.shutdown().await;
    Ok(())
}
