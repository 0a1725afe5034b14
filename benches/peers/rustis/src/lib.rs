//! Redis by hand, with the crate `rustis`.

use anyhow::{Result, ensure};
use peer::{Event, Evicted, Held, Peer, Setup};
use rustis::client::Client;
use rustis::commands::{GenericCommands, SetExpiration, StringCommands};
use rustis::resp::BulkString;

const TTL_SECONDS: u64 = 3600;

struct Rustis(Client);

impl Peer for Rustis {
    async fn connect(setup: Setup, url: &str) -> Result<Self> {
        ensure!(setup == Setup::Redis, "there is only a client");
        Ok(Self(Client::connect(url).await?))
    }

    async fn call(&self, id: u64) -> Result<Held> {
        let json: Option<BulkString> = self.0.get(key(id)).await?;
        if let Some(json) = json {
            return Ok(serde_json::from_slice::<Event>(&json)?.into());
        }
        let event = peer::load(id).await;
        let json = serde_json::to_vec(&event)?;
        let ttl = SetExpiration::Ex(TTL_SECONDS);
        self.0
            .set_with_options(key(id), BulkString::from(json), None, ttl)
            .await?;
        Ok(event.into())
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        self.0.del(key(id)).await?;
        Ok(Evicted::Done)
    }
}

fn key(id: u64) -> String {
    format!("rustis:{id}")
}

peer::main!(Rustis);
