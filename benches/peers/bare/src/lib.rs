//! Redis by hand: one shared connection of redis-rs, and serde_json. What the other peers are compared with.

use anyhow::{Result, bail};
use peer::{Event, Evicted, Held, Peer, Setup};
use redis::AsyncCommands;
use redis::aio::{ConnectionLike, ConnectionManager, MultiplexedConnection};

const TTL_SECONDS: u64 = 3600;

enum Bare {
    /// Ends with its connection.
    Multiplexed(MultiplexedConnection),
    /// Connects again.
    Manager(ConnectionManager),
}

impl Peer for Bare {
    async fn connect(setup: Setup, url: &str) -> Result<Self> {
        let client = redis::Client::open(url)?;
        Ok(match setup {
            Setup::Redis => Self::Multiplexed(client.get_multiplexed_async_connection().await?),
            Setup::Hardened => Self::Manager(client.get_connection_manager().await?),
            Setup::Memory => bail!("redis-rs keeps nothing in the process"),
        })
    }

    async fn call(&self, id: u64) -> Result<Held> {
        match self {
            Self::Multiplexed(connection) => event(connection.clone(), id).await,
            Self::Manager(connection) => event(connection.clone(), id).await,
        }
    }

    async fn evict(&self, id: u64) -> Result<Evicted> {
        let deleted: Result<u64, _> = match self {
            Self::Multiplexed(connection) => connection.clone().del(key(id)).await,
            Self::Manager(connection) => connection.clone().del(key(id)).await,
        };
        deleted?;
        Ok(Evicted::Done)
    }
}

fn key(id: u64) -> String {
    format!("bare:{id}")
}

/// An error of Redis is an error of the call, as `?` makes it.
async fn event(mut connection: impl ConnectionLike + Send + Sync, id: u64) -> Result<Held> {
    let json: Option<Vec<u8>> = connection.get(key(id)).await?;
    if let Some(json) = json {
        return Ok(serde_json::from_slice::<Event>(&json)?.into());
    }
    let event = peer::load(id).await;
    let json = serde_json::to_vec(&event)?;
    let () = connection.set_ex(key(id), json, TTL_SECONDS).await?;
    Ok(event.into())
}

peer::main!(Bare);
