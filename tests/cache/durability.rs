//! Evictions that wait for replicas.

use std::time::Duration;

use cache_runtime::testing::RedisServer;
use cache_runtime::{Address, Cache, EvictDurability, Evicted, HealthStatus};

use crate::support::{connect, raw, until};

/// A primary with a replica that follows it.
async fn pair() -> (RedisServer, RedisServer) {
    let primary = RedisServer::tcp().expect("redis-server starts");
    let Address::Tcp(_, port) = primary.address() else {
        unreachable!("it listens on a port")
    };
    let replica = RedisServer::builder()
        .tcp()
        .args(["--replicaof", &format!("127.0.0.1 {port}")])
        .start()
        .expect("redis-server starts");
    until("the replica follows", async || {
        info(&primary).await.contains("state=online")
    })
    .await;
    (primary, replica)
}

async fn info(server: &RedisServer) -> String {
    let mut raw = raw(server).await;
    redis::cmd("INFO")
        .arg("replication")
        .query_async(&mut raw)
        .await
        .expect("the server answers")
}

async fn exists(server: &RedisServer, key: &str) -> bool {
    let mut raw = raw(server).await;
    redis::cmd("EXISTS")
        .arg(key)
        .query_async(&mut raw)
        .await
        .expect("the server answers")
}

async fn with_replicas(primary: &RedisServer) -> Cache {
    let config = primary.config().failover_memory(Duration::ZERO);
    connect(config.evict_durability(EvictDurability::Replicas(1))).await
}

#[tokio::test]
async fn an_eviction_returns_after_the_replica_has_it() {
    let (primary, replica) = pair().await;
    let cache = with_replicas(&primary).await;
    for round in 0..20 {
        cache.set("a", &round, 60).await;
        until("the replica has the entry", async || {
            exists(&replica, "test_a").await
        })
        .await;

        cache.delete("a").await;

        assert!(!exists(&replica, "test_a").await, "in round {round}");
    }
    assert_eq!(cache.health().await.status, HealthStatus::Healthy);
}

#[tokio::test]
async fn a_frozen_replica_delays_no_reads_and_its_evictions_are_remembered() {
    let (primary, replica) = pair().await;
    let cache = with_replicas(&primary).await;
    cache.set("a", &1, 60).await;
    cache.set("b", &1, 60).await;
    replica.stop().expect("it runs");

    let evicted = cache.delete("a");
    let reads = async {
        let mut hits = 0;
        // Each is answered while the eviction waits.
        for _ in 0..20 {
            hits += cache.get::<u32>("b").await.unwrap_or_default();
        }
        hits
    };
    tokio::pin!(evicted);
    let hits = tokio::select! {
        biased;
        hits = reads => hits,
        _ = &mut evicted => 0,
    };
    assert_eq!(hits, 20);
    assert_eq!(evicted.await, Evicted::Applied { keys: 1 });
    let health = cache.health().await;
    assert_eq!(health.status, HealthStatus::Degraded);
    assert!(
        health.problems[0]
            .starts_with("evictions that replicas have not confirmed: 1; 0 of 1 replicas"),
        "{health:?}"
    );

    replica.resume().expect("it runs");
    until("the replica confirms", async || {
        cache.delete("b").await;
        cache.health().await.status == HealthStatus::Healthy
    })
    .await;
}
