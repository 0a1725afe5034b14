//! A server, a cache on it, and functions that count how often they run.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Config, NodeState, cacheable};
use redis::aio::MultiplexedConnection;

use crate::shared;

/// A database of one row. Its value counts writes, and reads are counted separately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) reads: Arc<AtomicUsize>,
    pub(crate) value: Arc<AtomicUsize>,
}

impl Table {
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    pub(crate) fn read(&self) -> usize {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.value.load(Ordering::SeqCst)
    }

    pub(crate) fn write(&self) -> usize {
        self.value.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// The value of the row, cached.
#[cacheable(key = "row:<id>", ignore = [table], ttl = 60, cache = cache)]
pub(crate) async fn row(cache: &Cache, table: &Table, id: u64) -> usize {
    table.read()
}

/// The same, stopped by a gate between the read of the table and the return.
#[cacheable(key = "row:<id>", ignore = [gate, table], ttl = 60, cache = cache)]
pub(crate) async fn gated_row(cache: &Cache, table: &Table, id: u64, gate: &Gate) -> usize {
    let value = table.read();
    gate.pass().await;
    value
}

/// Holds callers until it is opened.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    arrived: Arc<tokio::sync::Semaphore>,
    open: Arc<tokio::sync::Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            arrived: Arc::new(tokio::sync::Semaphore::new(0)),
            open: Arc::new(tokio::sync::Semaphore::new(0)),
        }
    }

    pub(crate) async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open
            .acquire()
            .await
            .expect("gates are never closed")
            .forget();
    }

    /// Waits until another caller has arrived.
    pub(crate) async fn arrival(&self) {
        soon("a caller arrives at the gate", self.arrived.acquire())
            .await
            .expect("gates are never closed")
            .forget();
    }

    /// Lets so many through.
    pub(crate) fn open(&self, many: usize) {
        self.open.add_permits(many);
    }
}

pub(crate) fn server() -> RedisServer {
    shared::begin_empty();
    RedisServer::start().expect("redis-server starts")
}

pub(crate) async fn cache(server: &RedisServer) -> Cache {
    used(shared::config(server)).await
}

/// A cache that no busy machine makes give up on Redis.
pub(crate) async fn patient(config: Config) -> Cache {
    used(config.command_timeout(Duration::from_secs(2))).await
}

/// A cache that uses all nodes, if it is on a cluster.
pub(crate) async fn used(config: Config) -> Cache {
    let cache = connect(config).await;
    until("all nodes of a cluster are used", async || {
        let nodes = cache.health().detail().await.nodes;
        nodes.iter().all(|node| node.state == NodeState::Connected)
    })
    .await;
    cache
}

pub(crate) async fn connect(config: Config) -> Cache {
    Cache::connect(config).await.expect("a valid configuration")
}

/// A direct connection to Redis, without the cache.
pub(crate) async fn raw(server: &RedisServer) -> MultiplexedConnection {
    let url = server.url().replace("redis+unix://", "unix://");
    let client = redis::Client::open(url).expect("a valid URL");
    client
        .get_multiplexed_async_connection()
        .await
        .expect("the server answers")
}

/// Returns how often clients sent this command, including refused attempts.
pub(crate) async fn calls(raw: &mut MultiplexedConnection, command: &str) -> u64 {
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(raw)
        .await
        .expect("the server answers");
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")));
    let number = |name: &str| {
        let fields = line.unwrap_or_default().split(',');
        let mut values = fields.filter_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        values.next().and_then(|value| value.parse::<u64>().ok())
    };
    number("calls").unwrap_or_default() + number("rejected_calls").unwrap_or_default()
}

/// Waits up to 10 s for `future`.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(10), happens).await {
        Ok(value) => value,
        Err(_) => panic!("not within 10 s: {what}"),
    }
}

/// Polls until a condition holds.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    soon(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
