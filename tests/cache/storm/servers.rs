//! What the storm runs on: one server, or a cluster.

use std::collections::BTreeSet;

use cache_runtime::Config;
use cache_runtime::testing::{Cluster, RedisServer};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue};
use tokio::task::block_in_place;

use super::{POOL_MIN, RECONNECT, World};
use crate::support::{raw, server};

/// The name of the caches' connections.
const CLIENT_NAME: &str = "storm";

pub(super) enum Servers {
    One {
        server: RedisServer,
        raw: MultiplexedConnection,
    },
    Cluster(Cluster),
}

impl Servers {
    pub(super) async fn one() -> Self {
        let server = server();
        let raw = raw(&server).await;
        Self::One { server, raw }
    }

    pub(super) fn cluster() -> Self {
        let cluster = block_in_place(Cluster::start);
        Self::Cluster(cluster.expect("a cluster starts"))
    }

    pub(super) fn config(&self) -> Config {
        let config = match self {
            Self::One { server, .. } => server.config(),
            Self::Cluster(cluster) => cluster.config(),
        };
        config
            .client_name(CLIENT_NAME)
            .connect_timeout(RECONNECT)
            .reconnect_max_delay(RECONNECT)
    }

    /// The minimum number of connections of a process.
    pub(super) fn pool_min(&self) -> usize {
        match self {
            Self::One { .. } => POOL_MIN,
            Self::Cluster(cluster) => primaries(cluster).len() * POOL_MIN,
        }
    }

    /// Returns how often each kind of event has happened: in each process, or in both together on a cluster, which has fewer calls in
    /// the same time.
    pub(super) fn events(
        &self,
        worlds: &[World; 2],
    ) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let [first, second] = worlds.each_ref().map(World::events);
        match self {
            Self::One { .. } => [first, second].concat(),
            Self::Cluster(_) => {
                let both = first.into_iter().zip(second);
                let sum = |((what, one), (_, other))| (what, one + other);
                both.map(sum).collect()
            }
        }
        .into_iter()
    }

    /// Returns all keys that clients can read.
    pub(super) async fn keys(&self) -> BTreeSet<String> {
        let keys = Cmd::keys("*");
        match self {
            Self::One { raw, .. } => keys.query_async(&mut raw.clone()).await.expect("KEYS"),
            Self::Cluster(cluster) => {
                let primaries = primaries(cluster).into_iter();
                let each = primaries.map(|node| ask::<Vec<String>>(cluster, node, &keys));
                each.flatten().collect()
            }
        }
    }

    /// Returns the number of connections. On a cluster only those of the caches count: nodes also connect to each other.
    pub(super) async fn clients(&self) -> usize {
        let mut list = redis::cmd("CLIENT");
        list.arg("LIST");
        match self {
            Self::One { raw, .. } => {
                let clients: String = list
                    .query_async(&mut raw.clone())
                    .await
                    .expect("CLIENT LIST");
                clients.lines().count()
            }
            Self::Cluster(cluster) => {
                let name = format!(" name={CLIENT_NAME} ");
                let each = (0..cluster.len()).map(|node| {
                    let clients: String = ask(cluster, node, &list);
                    clients.lines().filter(|line| line.contains(&name)).count()
                });
                each.sum()
            }
        }
    }
}

fn primaries(cluster: &Cluster) -> Vec<usize> {
    block_in_place(|| cluster.primaries()).expect("a node answers")
}

/// Asks a node on a connection of its own. Without a task, because tasks are counted.
fn ask<T: FromRedisValue>(cluster: &Cluster, node: usize, command: &Cmd) -> T {
    block_in_place(|| {
        let client = redis::Client::open(cluster.server(node).url())?;
        command.query(&mut client.get_connection()?)
    })
    .expect("the node answers")
}
