//! Evictions that wait for replicas.

use std::time::Duration;

use cache_runtime::testing::RedisServer;
use cache_runtime::{Address, Cache, Config, EvictDurability, Evicted, HealthStatus};

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

/// A server and a replica of it. The server becomes the replica of the other when it starts again.
async fn pair_with_an_address() -> (RedisServer, RedisServer) {
    let replica = RedisServer::tcp().expect("redis-server starts");
    let follows = format!("127.0.0.1 {}", port(&replica));
    let primary = RedisServer::builder()
        .tcp()
        .args(["--replicaof", &follows])
        .start()
        .expect("redis-server starts");
    follow(&primary, None).await;
    follow(&replica, Some(&primary)).await;
    (primary, replica)
}

fn port(server: &RedisServer) -> u16 {
    let Address::Tcp(_, port) = server.address() else {
        unreachable!("it listens on a port")
    };
    *port
}

/// Makes a server a primary, or the replica of another.
async fn follow(server: &RedisServer, primary: Option<&RedisServer>) {
    let [host, port] = match primary {
        Some(primary) => ["127.0.0.1".to_owned(), port(primary).to_string()],
        None => ["NO", "ONE"].map(str::to_owned),
    };
    let mut raw = raw(server).await;
    let command = redis::cmd("REPLICAOF").arg(host).arg(port).take();
    let () = command
        .query_async(&mut raw)
        .await
        .expect("the server answers");
    if let Some(primary) = primary {
        until("the replica follows", async || {
            info(primary).await.contains("state=online")
        })
        .await;
    }
}

/// Writes so much that what is written next does not reach a frozen replica, not even after the primary is gone.
async fn fill_the_way_to_the_replica(primary: &RedisServer) {
    let mut raw = raw(primary).await;
    for _ in 0..32 {
        let mut command = redis::cmd("SET");
        let command = command.arg("filler").arg(vec![b'x'; 1 << 20]);
        let () = command
            .query_async(&mut raw)
            .await
            .expect("the server answers");
    }
}

/// The primary dies, and what its replica has takes its place at the same address.
async fn fail_over(primary: &mut RedisServer, replica: &RedisServer) {
    primary.kill();
    follow(replica, None).await;
    primary.restart().expect("redis-server starts");
    until("it has what the replica has", async || {
        info(primary).await.contains("master_link_status:up")
    })
    .await;
    follow(primary, None).await;
}

fn waits(config: Config, durability: EvictDurability) -> Config {
    config
        .command_timeout(Duration::from_secs(2))
        .failover_memory(Duration::ZERO)
        .reconnect_max_delay(Duration::from_millis(100))
        .evict_durability(durability)
}

#[tokio::test]
async fn an_eviction_that_a_replica_confirmed_outlives_its_process_and_a_failover() {
    let (mut primary, replica) = pair_with_an_address().await;
    let cache = connect(waits(primary.config(), EvictDurability::Replicas(1))).await;
    cache.set("a", &1, 60).await;
    cache.set("b", &1, 60).await;
    until("the replica has the entries", async || {
        exists(&replica, "test_a").await && exists(&replica, "test_b").await
    })
    .await;

    assert_eq!(cache.delete("a").await, Evicted::Applied { keys: 1 });
    assert_eq!(cache.health().await.problems, [""; 0]);
    // So the process does not apply it again.
    drop(cache);
    fail_over(&mut primary, &replica).await;

    let cache = connect(primary.config()).await;
    assert_eq!(cache.get::<u32>("a").await, None);
    assert_eq!(cache.get::<u32>("b").await, Some(1), "the replica's data");
}

#[tokio::test]
async fn an_eviction_that_no_replica_confirmed_is_applied_again_after_a_failover() {
    for (durability, left) in [
        (EvictDurability::Replicas(1), None),
        // Without it the failover brings the entry back.
        (EvictDurability::Primary, Some(1)),
    ] {
        let (mut primary, replica) = pair_with_an_address().await;
        let cache = connect(waits(primary.config(), durability)).await;
        cache.set("a", &1, 60).await;
        until("the replica has the entry", async || {
            exists(&replica, "test_a").await
        })
        .await;
        replica.stop().expect("it runs");
        fill_the_way_to_the_replica(&primary).await;

        let evicted = cache.delete("a").await;
        assert_eq!(evicted, Evicted::Applied { keys: 1 });
        primary.kill();
        replica.resume().expect("it runs");
        until("the end of the primary is noticed", async || {
            !info(&replica).await.contains("master_link_status:up")
        })
        .await;
        fail_over(&mut primary, &replica).await;
        until("the cache uses Redis again", async || {
            cache.set("b", &1, 60).await;
            exists(&primary, "test_b").await
        })
        .await;

        assert_eq!(cache.get::<u32>("a").await, left, "{durability:?}");
    }
}
