//! The crate `multi-tier-cache`, which has no attribute: `get_or_compute_typed`.

use std::sync::Arc;

use anyhow::{Result, bail};
use multi_tier_cache::{CacheStrategy, CacheSystem, CacheSystemBuilder, L2Cache, TierConfig};
use peer::{Evicted, Held, Peer, Setup};

struct MultiTier(CacheSystem);

impl Peer for MultiTier {
    async fn connect(setup: Setup, url: &str) -> Result<Self> {
        Ok(Self(match setup {
            // Every hit is read from Redis, as with the other crates.
            Setup::Redis => {
                let redis = Arc::new(L2Cache::with_url(url).await?);
                CacheSystemBuilder::new()
                    .with_tier(redis, TierConfig::as_l2())
                    .build()
                    .await?
            }
            Setup::Memory => CacheSystem::with_redis_url(url).await?,
            Setup::Hardened => bail!("there is nothing to enable"),
        }))
    }

    async fn call(&self, id: u64) -> Result<Held> {
        // One hour.
        let ttl = CacheStrategy::MediumTerm;
        let load = || async { Ok(peer::load(id).await) };
        let cache = self.0.cache_manager();
        let event: peer::Event = cache
            .get_or_compute_typed(&format!("event:{id}"), ttl, load)
            .await?;
        Ok(event.into())
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        let cache = self.0.cache_manager();
        cache.invalidate(&format!("event:{id}")).await?;
        Ok(Evicted::Done)
    }
}

peer::main!(MultiTier);
