//! The crate `cachekit-rs`: `#[cachekit]` and the preset `production`.

use std::sync::Arc;

use anyhow::{Result, bail};
use cachekit::interop::{InteropValue, interop_key};
use cachekit::{CacheKit, cachekit};
use peer::{Event, Evicted, Held, Peer, Setup};

#[cachekit(client = cache, ttl = 3600, interop = "event", namespace = "bench")]
async fn event(cache: &CacheKit, id: u64) -> Result<Event> {
    Ok(peer::load(id).await)
}

struct Kit(Arc<CacheKit>);

impl Peer for Kit {
    async fn connect(setup: Setup, url: &str) -> Result<Self> {
        let builder = CacheKit::production(url).await?;
        let cache = match setup {
            // Every hit is read from Redis, as with the other crates.
            Setup::Redis => builder.no_l1(),
            Setup::Memory => builder.l1_capacity(100_000),
            Setup::Hardened => bail!("the preset enables everything"),
        };
        Ok(Self(Arc::new(cache.build()?)))
    }

    async fn call(&self, id: u64) -> Result<Held> {
        Ok(event(&self.0, id).await?.into())
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        let key = interop_key("bench", "event", &[InteropValue::from(id)])?;
        self.0.delete(&key).await?;
        Ok(Evicted::Done)
    }
}

peer::main!(Kit);
