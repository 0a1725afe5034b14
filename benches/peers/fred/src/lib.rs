//! Redis by hand, with the crate `fred`.

use std::time::Duration;

use anyhow::{Result, ensure};
use fred::prelude::{
    Builder, Client, ClientLike, Config, Expiration, KeysInterface, ReconnectPolicy,
};
use fred::types::config::TcpConfig;
use peer::{Event, Evicted, Held, Peer, Setup};

const TTL_SECONDS: i64 = 3600;

struct Fred(Client);

impl Peer for Fred {
    async fn connect(setup: Setup, url: &str) -> Result<Self> {
        ensure!(setup != Setup::Memory, "fred keeps nothing in the process");
        let mut builder = Builder::from_config(Config::from_url(url)?);
        builder.with_connection_config(|config| {
            config.connection_timeout = Duration::from_secs(5);
            config.tcp = TcpConfig {
                nodelay: Some(true),
                ..TcpConfig::default()
            };
        });
        if setup == Setup::Hardened {
            // Any number of attempts, 0.1 s to 30 s apart. Without a policy it does not connect again.
            builder.set_policy(ReconnectPolicy::new_exponential(0, 100, 30_000, 2));
        }
        let client = builder.build()?;
        client.init().await?;
        Ok(Self(client))
    }

    async fn call(&self, id: u64) -> Result<Held> {
        let json: Option<Vec<u8>> = self.0.get(key(id)).await?;
        if let Some(json) = json {
            return Ok(serde_json::from_slice::<Event>(&json)?.into());
        }
        let event = peer::load(id).await;
        let json = serde_json::to_vec(&event)?;
        let ttl = Some(Expiration::EX(TTL_SECONDS));
        let () = self
            .0
            .set(key(id), json.as_slice(), ttl, None, false)
            .await?;
        Ok(event.into())
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        let deleted: Result<u64, _> = self.0.del(key(id)).await;
        deleted?;
        Ok(Evicted::Done)
    }
}

fn key(id: u64) -> String {
    format!("fred:{id}")
}

peer::main!(Fred);
