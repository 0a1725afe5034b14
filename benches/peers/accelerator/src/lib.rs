//! The crate `accelerator`: `#[cacheable]` and `#[cache_evict]`.

use std::time::Duration;

use accelerator::builder::LevelCacheBuilder;
use accelerator::config::CacheMode;
use accelerator::macros::{cache_evict, cacheable};
use accelerator::{CacheResult, LevelCache, local, remote};
use anyhow::{Context, Result, bail};
use peer::{Event, Evicted, Held, Peer, Setup};

const TTL: Duration = Duration::from_secs(3600);

struct Accelerator {
    cache: LevelCache<u64, Event>,
}

impl Accelerator {
    #[cacheable(cache = self.cache, key = id)]
    async fn event(&self, id: u64) -> CacheResult<Option<Event>> {
        Ok::<_, accelerator::CacheError>(Some(peer::load(id).await))
    }

    #[cache_evict(cache = self.cache, key = id, on_cache_error = "propagate")]
    async fn change(&self, id: u64) -> CacheResult<()> {
        let _ = id;
        Ok::<_, accelerator::CacheError>(())
    }
}

impl Peer for Accelerator {
    async fn connect(setup: Setup, url: &str) -> Result<Self> {
        let builder = LevelCacheBuilder::<u64, Event>::new().area("bench");
        let cache = match setup {
            Setup::Redis => {
                let remote = remote::redis::<Event>()
                    .url(url)
                    .key_prefix("bench")
                    .build()?;
                builder
                    .mode(CacheMode::Remote)
                    .remote(remote)
                    .remote_ttl(TTL)
            }
            Setup::Memory => {
                let local = local::moka::<Event>().max_capacity(100_000).build()?;
                builder.mode(CacheMode::Local).local(local).local_ttl(TTL)
            }
            // Its single flight, refresh-ahead and stale fallback are for loaders, which the attributes do not use.
            Setup::Hardened => bail!("the attributes have nothing to enable"),
        };
        Ok(Self {
            cache: cache.build()?,
        })
    }

    async fn call(&self, id: u64) -> Result<Held> {
        let event = self.event(id).await?;
        Ok(event.context("the body returns an event")?.into())
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        self.change(id).await?;
        Ok(Evicted::Done)
    }
}

peer::main!(Accelerator);
