//! cache-runtime.

use std::sync::Arc;

use anyhow::{Result, bail};
use cache_runtime::{Cache, Config, cache_evict, cacheable};
use peer::{Event, Evicted, Held, Peer, Setup};

#[cacheable(key = "event:<id>", ttl = 3600)]
async fn event(id: u64) -> Event {
    peer::load(id).await
}

#[cacheable(key = "kept:<id>", ttl = 3600, local = 3600)]
async fn kept(id: u64) -> Arc<Event> {
    Arc::new(peer::load(id).await)
}

#[cache_evict(key = "event:<id>")]
async fn change(id: u64) {}

struct Ours {
    setup: Setup,
}

impl Peer for Ours {
    async fn connect(setup: Setup, url: &str) -> Result<Self> {
        if setup == Setup::Hardened {
            bail!("there is nothing to enable");
        }
        let config = Config::default().redis_url(url)?;
        Cache::connect(config).await?.install()?;
        Ok(Self { setup })
    }

    async fn call(&self, id: u64) -> Result<Held> {
        Ok(match self.setup {
            Setup::Memory => kept(id).await.into(),
            Setup::Redis | Setup::Hardened => event(id).await.into(),
        })
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        change(id).await;
        Ok(Evicted::Done)
    }
}

peer::main!(Ours);
