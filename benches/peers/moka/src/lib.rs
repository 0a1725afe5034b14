//! The crate `moka`, which keeps values in the process: `get_with`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use moka::future::Cache;
use peer::{Event, Evicted, Held, Peer, Setup};

struct Moka(Cache<u64, Arc<Event>>);

impl Peer for Moka {
    async fn connect(setup: Setup, _url: &str) -> Result<Self> {
        ensure!(setup == Setup::Memory, "moka does not use Redis");
        let cache = Cache::builder().max_capacity(100_000);
        Ok(Self(cache.time_to_live(Duration::from_secs(3600)).build()))
    }

    async fn call(&self, id: u64) -> Result<Held> {
        let load = async { Arc::new(peer::load(id).await) };
        Ok(self.0.get_with(id, load).await.into())
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        self.0.invalidate(&id).await;
        Ok(Evicted::Done)
    }
}

peer::main!(Moka);
