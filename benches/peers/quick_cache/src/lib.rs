//! The crate `quick_cache`, which keeps values in the process, without a TTL: `get_or_insert_async`.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Result, ensure};
use peer::{Event, Evicted, Held, Peer, Setup};
use quick_cache::sync::Cache;

struct Quick(Cache<u64, Arc<Event>>);

impl Peer for Quick {
    async fn connect(setup: Setup, _url: &str) -> Result<Self> {
        ensure!(setup == Setup::Memory, "quick_cache does not use Redis");
        Ok(Self(Cache::new(100_000)))
    }

    async fn call(&self, id: u64) -> Result<Held> {
        let load = async { Ok::<_, Infallible>(Arc::new(peer::load(id).await)) };
        Ok(self.0.get_or_insert_async(&id, load).await?.into())
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        self.0.remove(&id);
        Ok(Evicted::Done)
    }
}

peer::main!(Quick);
