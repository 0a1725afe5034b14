//! The crate `hitbox`: `#[cached]` of hitbox-fn, with hitbox-redis and hitbox-moka.

use std::time::Duration;

use anyhow::{Context, Result};
use hitbox::concurrency::{BroadcastConcurrencyManager, NoopConcurrencyManager};
use hitbox::policy::{ConcurrencyLimit, PolicyConfig};
use hitbox_fn::{Cache, CacheableResponse, KeyExtract, cached};
use hitbox_moka::MokaBackend;
use hitbox_redis::{ConnectionMode, RedisBackend};
use peer::{Event, Evicted, Held, Peer, Setup};
use serde::{Deserialize, Serialize};

const TTL: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, KeyExtract)]
struct EventId(u64);

/// The value of another crate cannot derive `CacheableResponse`.
#[derive(Clone, Debug, Serialize, Deserialize, CacheableResponse)]
struct Row {
    event: Event,
}

#[cached(prefix = "event")]
async fn event(id: EventId) -> Row {
    Row {
        event: peer::load(id.0).await,
    }
}

enum Hitbox {
    Redis(Cache<RedisBackend>),
    /// One body for a key in this process.
    Concurrency(Cache<RedisBackend, BroadcastConcurrencyManager<Row>>),
    Memory(Cache<MokaBackend, NoopConcurrencyManager>),
}

fn redis(url: &str) -> Result<RedisBackend> {
    let mode = ConnectionMode::single(url);
    Ok(RedisBackend::builder().connection(mode).build()?)
}

impl Peer for Hitbox {
    async fn connect(setup: Setup, url: &str) -> Result<Self> {
        let policy = PolicyConfig::builder().ttl(TTL);
        Ok(match setup {
            Setup::Redis => {
                let cache = Cache::builder().backend(redis(url)?).policy(policy.build());
                Self::Redis(cache.build())
            }
            Setup::Hardened => {
                let one = ConcurrencyLimit::new(1).context("a limit of one")?;
                let cache = Cache::builder()
                    .backend(redis(url)?)
                    .policy(policy.concurrency(one).build())
                    .concurrency_manager(BroadcastConcurrencyManager::new());
                Self::Concurrency(cache.build())
            }
            Setup::Memory => {
                let backend = MokaBackend::builder().max_entries(100_000).build();
                let cache = Cache::builder().backend(backend).policy(policy.build());
                Self::Memory(cache.build())
            }
        })
    }

    async fn call(&self, id: u64) -> Result<Held> {
        let call = event(EventId(id));
        let row = match self {
            Self::Redis(cache) => call.cache(cache).await,
            Self::Concurrency(cache) => call.cache(cache).await,
            Self::Memory(cache) => call.cache(cache).await,
        };
        Ok(row.event.into())
    }

    async fn evict(&self, _id: u64) -> Result<Evicted> {
        Ok(Evicted::Lacking(
            "a backend can remove a key, but the key of a function is not public",
        ))
    }
}

peer::main!(Hitbox);
