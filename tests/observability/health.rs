//! Health, as probes and people ask for it.

use std::time::Duration;

use cache_runtime::testing::{FaultProxy, RedisServer};
use cache_runtime::{Cache, Evicted, Health, HealthStatus, Mode};
use tokio::time::{sleep, timeout};

use crate::exposition::in_redis;

async fn set(server: &RedisServer, option: &str, value: &str) {
    let client = redis::Client::open(server.url()).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await;
    let () = redis::cmd("CONFIG")
        .arg(&["SET", option, value])
        .query_async(&mut connection.expect("a connection"))
        .await
        .expect("a valid option");
}

/// Waits until the cache is healthy.
async fn recovered(cache: &Cache) -> Health {
    let recovery = async {
        loop {
            let health = cache.health().detail().await;
            if health.status == HealthStatus::Healthy {
                return health;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let recovered = timeout(Duration::from_secs(10), recovery).await;
    recovered.expect("it recovers")
}

#[tokio::test]
async fn a_cache_without_redis_is_healthy() {
    let cache = Cache::memory();

    let health = cache.health().detail().await;

    assert_eq!(
        (health.status, health.mode),
        (HealthStatus::Healthy, Mode::Memory)
    );
    assert!(cache.health().live() && cache.health().ready());
    assert_eq!(cache.health().await, health, "awaiting it is `detail`");
}

#[tokio::test]
async fn an_outage_keeps_a_process_ready_and_a_shutdown_does_not() {
    let server = RedisServer::start().expect("redis-server starts");
    let network = FaultProxy::start(&server).expect("a proxy");
    let cache = Cache::connect(network.config())
        .await
        .expect("a valid configuration");
    assert!(cache.health().ready());

    network.cut();
    while cache.stats().mode == Mode::Redis {
        cache.get::<i32>("a").await;
    }
    let in_outage = (cache.health().live(), cache.health().ready());
    let degraded = cache.health().detail().await;
    cache.shutdown().await;
    let after = (cache.health().live(), cache.health().ready());

    assert_eq!((in_outage, after), ((true, true), (true, false)));
    assert_eq!(degraded.status, HealthStatus::Degraded);
    assert!(degraded.fallback_reason.is_some(), "{degraded:?}");
    assert_eq!(cache.health().detail().await.status, HealthStatus::Down);
}

#[tokio::test]
async fn probes_do_not_ask_redis() {
    let (server, cache) = in_redis().await;
    let asked = || {
        let operations = cache.stats().operations;
        operations.iter().map(|stats| stats.time.count).sum::<u64>()
    };
    let before = asked();

    assert!(cache.health().live() && cache.health().ready());

    assert_eq!(asked(), before);
    drop(server);
}

#[tokio::test]
async fn refused_writes_degrade_until_they_are_accepted() {
    let (server, cache) = in_redis().await;
    set(&server, "maxmemory", "1").await;

    assert!(!cache.set("a", &1, 60_u64).await);
    let full = cache.health().detail().await;
    set(&server, "maxmemory", "0").await;
    assert!(cache.set("a", &1, 60_u64).await);
    let healthy = recovered(&cache).await;

    assert_eq!(
        (full.status, full.connected),
        (HealthStatus::Degraded, true)
    );
    let problems = full.problems.join("\n");
    assert!(problems.contains("Redis refuses `set`: OOM"), "{problems}");
    assert!(cache.health().ready());
    assert_eq!(healthy.problems, [""; 0]);
}

#[tokio::test]
async fn evictions_that_wait_degrade_until_they_are_applied() {
    let server = RedisServer::start().expect("redis-server starts");
    let network = FaultProxy::start(&server).expect("a proxy");
    let cache = Cache::connect(network.config())
        .await
        .expect("a valid configuration");
    cache.set("a", &1, 60_u64).await;
    network.stall();

    let evicted = cache.delete("a").await;
    let waiting = cache.health().detail().await;
    network.pass();
    let healthy = recovered(&cache).await;

    assert_eq!(evicted, Evicted::Journaled);
    assert_eq!(
        (waiting.status, waiting.journal_depth),
        (HealthStatus::Degraded, 1)
    );
    let problems = waiting.problems.join("\n");
    assert!(
        problems.contains("pending evictions in the journal: 1"),
        "{problems}"
    );
    assert_eq!((healthy.problems.len(), healthy.journal_depth), (0, 0));
}
