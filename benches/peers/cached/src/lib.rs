//! The crate `cached`: `#[concurrent_cached]` in Redis and in the process.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cached::macros::concurrent_cached;
use cached::{AsyncRedisCache, ConcurrentCachedAsync};
use peer::{Event, Evicted, Held, Peer, Setup};

const TTL: Duration = Duration::from_secs(3600);

/// What the blocks that create the stores need, which the attribute evaluates at the first call.
static URL: OnceLock<String> = OnceLock::new();

async fn store(manager: bool) -> AsyncRedisCache<u64, Event> {
    AsyncRedisCache::builder(if manager { "manager" } else { "multiplexed" })
        .ttl(TTL)
        .connection_string(URL.get().map_or("", String::as_str))
        .connection_manager(manager)
        .build()
        .await
        .expect("a connection to Redis")
}

#[concurrent_cached(
    map_error = |error| anyhow::Error::new(error),
    ty = "AsyncRedisCache<u64, Event>",
    create = { store(false).await }
)]
async fn event(id: u64) -> Result<Event> {
    Ok(peer::load(id).await)
}

#[concurrent_cached(
    map_error = |error| anyhow::Error::new(error),
    ty = "AsyncRedisCache<u64, Event>",
    create = { store(true).await }
)]
async fn managed(id: u64) -> Result<Event> {
    Ok(peer::load(id).await)
}

#[concurrent_cached(max_size = 100_000, ttl_secs = 3600)]
async fn kept(id: u64) -> Arc<Event> {
    Arc::new(peer::load(id).await)
}

struct Cached {
    setup: Setup,
}

impl Peer for Cached {
    async fn connect(setup: Setup, url: &str) -> Result<Self> {
        URL.get_or_init(|| url.to_owned());
        Ok(Self { setup })
    }

    async fn call(&self, id: u64) -> Result<Held> {
        Ok(match self.setup {
            Setup::Redis => event(id).await?.into(),
            Setup::Hardened => managed(id).await?.into(),
            Setup::Memory => kept(id).await.into(),
        })
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        // The store exists after the first call.
        let store = match self.setup {
            Setup::Redis => EVENT.get(),
            Setup::Hardened => MANAGED.get(),
            Setup::Memory => bail!("this is about Redis"),
        };
        let store = store.context("nothing was called yet")?;
        store.async_cache_remove(&id).await?;
        Ok(Evicted::Done)
    }
}

peer::main!(Cached);
