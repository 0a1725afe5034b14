//! The crate `oxcache`: `#[cached]`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use oxcache::{Cache, RedisBackend, cached};
use peer::{Event, Evicted, Held, Peer, Setup};

const TTL: Duration = Duration::from_secs(3600);

#[cached(service = "bench", ttl = 3600, key = "event:{id}")]
async fn event(id: u64) -> Result<Event, String> {
    Ok::<Event, String>(peer::load(id).await)
}

struct Oxcache(Cache<String, Vec<u8>>);

impl Peer for Oxcache {
    async fn connect(setup: Setup, url: &str) -> Result<Self> {
        let builder = Cache::<String, Vec<u8>>::builder().ttl(TTL);
        let cache = match setup {
            Setup::Redis => builder.backend_arc(Arc::new(RedisBackend::new(url).await?)),
            Setup::Memory => builder.capacity(100_000),
            Setup::Hardened => bail!("the attribute has nothing to enable"),
        };
        let cache = cache.build().await?;
        cache.register_for_macro("bench").await?;
        Ok(Self(cache))
    }

    async fn call(&self, id: u64) -> Result<Held> {
        event(id).await.map(Held::from).map_err(anyhow::Error::msg)
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        self.0.delete(&format!("event:{id}")).await?;
        Ok(Evicted::Done)
    }
}

peer::main!(Oxcache);
