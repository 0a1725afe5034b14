//! Redis that is unavailable, stalled, back, or absent from the start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_runtime::testing::{FaultProxy, RedisServer};
use cache_runtime::{Cache, Evicted, HealthStatus, Mode, cache_evict, cache_put, cacheable};
use redis::AsyncCommands;
use tokio::time::sleep;

use crate::support::{Gate, Table, cache, connect, raw, row, server, soon, until};

/// The longest time that a call may wait for Redis with the default `command_timeout`.
const PATIENCE: Duration = Duration::from_millis(100);

#[cache_evict(key = "row:<id>", cache = cache)]
async fn update(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

#[cache_put(key = "row:<id>", ttl = 60, cache = cache)]
async fn put(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

async fn is_in(cache: &Cache, mode: Mode) {
    until(&format!("the mode is {mode:?}"), async || {
        cache.stats().mode == mode
    })
    .await;
}

#[tokio::test]
async fn a_killed_redis_fails_no_call_and_is_used_again() {
    let mut server = RedisServer::tcp().expect("redis-server starts");
    let cache = cache(&server).await;
    let table = Table::default();
    row(&cache, &table, 1).await;

    server.kill();
    for reads in 2..10 {
        row(&cache, &table, 1).await;
        assert_eq!(table.reads(), reads);
    }
    assert_eq!(cache.stats().mode, Mode::Fallback);
    let health = cache.health().await;
    assert_eq!(
        (health.status, health.connected, health.mode),
        (HealthStatus::Degraded, false, Mode::Fallback)
    );
    let json = serde_json::to_value(&health).expect("a health is JSON");
    assert!(json["fallback_seconds"].is_f64(), "{json}");

    server.restart().expect("redis-server starts again");
    is_in(&cache, Mode::Redis).await;
    row(&cache, &table, 1).await;
    row(&cache, &table, 1).await;
    assert_eq!(table.reads(), 10);
    let stats = cache.stats();
    assert_eq!(
        (stats.fallback.entered, stats.fallback.current_seconds),
        (1, None)
    );
    assert_eq!(cache.health().await.status, HealthStatus::Healthy);
}

#[tokio::test]
async fn functions_run_without_redis_at_the_start_and_use_it_later() {
    let mut server = RedisServer::tcp().expect("redis-server starts");
    server.kill();

    let cache = soon("connect returns without a Redis", cache(&server)).await;
    let table = Table::default();
    row(&cache, &table, 1).await;
    assert_eq!(cache.stats().total.misses_by_reason["fallback"], 1);

    server.restart().expect("redis-server starts");
    is_in(&cache, Mode::Redis).await;
    row(&cache, &table, 1).await;
    row(&cache, &table, 1).await;
    assert_eq!(table.reads(), 2);
}

#[tokio::test]
async fn a_silent_redis_delays_a_few_calls_by_one_timeout() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let cache = connect(network.config()).await;
    let table = Table::default();
    row(&cache, &table, 1).await;
    // A reply to a connection that is being opened would count as a reply, too.
    until("all connections are open", async || {
        cache.stats().pool.is_some_and(|pool| pool.open >= 5)
    })
    .await;

    network.stall();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (cache, table) = (cache.clone(), table.clone());
        calls.spawn(async move {
            let began = Instant::now();
            row(&cache, &table, 1).await;
            began.elapsed()
        });
    }
    let waits = soon("all calls answer", calls.join_all()).await;

    let full = waits.iter().filter(|wait| **wait >= PATIENCE).count();
    assert!(
        (1..=10).contains(&full),
        "{full} of 20 calls waited for the whole timeout"
    );
    assert_eq!(cache.stats().mode, Mode::Fallback);
    assert_eq!(table.reads(), 21);

    network.pass();
    is_in(&cache, Mode::Redis).await;
}

#[tokio::test]
async fn a_frozen_redis_begins_fallback_mode_and_is_used_again() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    row(&cache, &table, 1).await;

    server.stop().expect("the server is stopped");
    until("the mode is fallback", async || {
        row(&cache, &table, 1).await;
        cache.stats().mode == Mode::Fallback
    })
    .await;
    server.resume().expect("the server resumes");

    is_in(&cache, Mode::Redis).await;
    let reads = table.reads();
    row(&cache, &table, 1).await;
    assert_eq!(table.reads(), reads, "the earlier entry is served again");
}

#[tokio::test]
async fn killed_connections_are_replaced() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    row(&cache, &table, 1).await;
    let mut raw = raw(&server).await;

    for _ in 0..5 {
        let _: i64 = redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .query_async(&mut raw)
            .await
            .unwrap();
        row(&cache, &table, 1).await;
        is_in(&cache, Mode::Redis).await;
    }

    let reads = table.reads();
    row(&cache, &table, 1).await;
    assert_eq!(table.reads(), reads);
}

#[tokio::test]
async fn evictions_during_an_outage_are_applied_before_the_next_read() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let cache = connect(network.config()).await;
    let tables: Vec<Table> = (0..1_000).map(|_| Table::default()).collect();
    for (id, table) in tables.iter().enumerate() {
        row(&cache, table, id as u64).await;
    }

    network.cut();
    for (id, table) in tables.iter().enumerate() {
        match id % 2 {
            0 => update(&cache, table, id as u64).await,
            _ => put(&cache, table, id as u64).await,
        };
        assert_eq!(
            row(&cache, table, id as u64).await,
            1,
            "row {id}, in this process"
        );
    }
    assert_eq!(cache.stats().mode, Mode::Fallback);
    assert_eq!(cache.stats().journal_depth, 1_000);
    assert_eq!(cache.delete_matching("none:*").await, Evicted::Journaled);
    assert_eq!(cache.delete("row:1").await, Evicted::Journaled);

    network.pass();
    is_in(&cache, Mode::Redis).await;
    let left: Vec<String> = raw(&server).await.keys("test_row:*").await.unwrap();
    assert_eq!(left, Vec::<String>::new());
    for (id, table) in tables.iter().enumerate() {
        assert_eq!(
            row(&cache, table, id as u64).await,
            1,
            "row {id}, after the outage"
        );
    }
    assert_eq!(cache.stats().journal_depth, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_back_is_used_although_evictions_never_end() {
    const FOREIGN: &str = "for id = 1, 50000 do redis.call('SET', 'foreign:' .. id, 'x') end";
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let cache = connect(network.config()).await;
    // A walk takes longer than the time to the next eviction.
    let mut raw = raw(&server).await;
    redis::cmd("EVAL")
        .arg(FOREIGN)
        .arg(0)
        .exec_async(&mut raw)
        .await
        .expect("a script");
    network.cut();
    cache.delete("row:1").await;
    is_in(&cache, Mode::Fallback).await;

    let evicting = cache.clone();
    let evicting = tokio::spawn(async move {
        loop {
            evicting.delete_matching("row:*").await;
            sleep(Duration::from_millis(1)).await;
        }
    });
    network.pass();
    is_in(&cache, Mode::Redis).await;

    evicting.abort();
    until("the journal is applied", async || {
        cache.stats().journal_depth == 0
    })
    .await;
}

#[tokio::test]
async fn a_full_journal_becomes_all_entries() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let cache = connect(network.config().journal_capacity(10)).await;
    for id in 0..100 {
        row(&cache, &Table::default(), id).await;
    }

    network.cut();
    for id in 0..20 {
        update(&cache, &Table::default(), id).await;
    }
    assert_eq!(cache.stats().mode, Mode::Fallback);
    network.pass();
    is_in(&cache, Mode::Redis).await;

    assert_eq!(cache.keys("row:*").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_eviction_that_timed_out_is_applied_without_an_outage() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let cache = connect(network.config().command_timeout(Duration::from_millis(30))).await;
    let table = Table::default();
    row(&cache, &table, 1).await;

    network.stall();
    assert_eq!(update(&cache, &table, 1).await, 1);
    assert_eq!(
        row(&cache, &table, 1).await,
        1,
        "this process does not read the old entry"
    );
    network.pass();

    until("the eviction is applied", async || {
        cache.stats().journal_depth == 0
    })
    .await;
    assert_eq!(row(&cache, &table, 1).await, 1);
}

#[tokio::test]
async fn a_failed_set_leaves_no_old_value() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let cache = connect(network.config()).await;
    assert!(cache.set("name", &"old".to_owned(), 60_u64).await);

    network.cut();
    assert!(!cache.set("name", &"new".to_owned(), 60_u64).await);
    assert_eq!(cache.get::<String>("name").await, None);
    network.pass();
    is_in(&cache, Mode::Redis).await;

    assert_eq!(cache.get::<String>("name").await, None);
}

/// Runs a future without a runtime.
fn without_a_runtime<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let mut future = std::pin::pin!(future);
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[cacheable(key = "row:<id>", ignore = [table], ttl = 60, cache = cache)]
async fn row_later(cache: &Cache, table: &Table, id: u64) -> usize {
    // Works on any runtime, and is not ready at the first poll.
    let mut is_first = true;
    std::future::poll_fn(|context| match std::mem::take(&mut is_first) {
        true => {
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        }
        false => std::task::Poll::Ready(table.read()),
    })
    .await
}

#[test]
fn functions_run_uncached_outside_of_tokio() {
    let server = server();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    for cache in [Cache::memory(), runtime.block_on(cache(&server))] {
        let table = Table::default();

        assert_eq!(without_a_runtime(row_later(&cache, &table, 1)), 0);
        assert_eq!(without_a_runtime(put(&cache, &table, 1)), 1);
        assert_eq!(without_a_runtime(update(&cache, &table, 1)), 2);

        runtime.block_on(until("the eviction is applied", async || {
            cache.stats().journal_depth == 0
        }));
        assert_eq!(runtime.block_on(row(&cache, &table, 1)), 2);
    }
}

#[tokio::test]
async fn a_redis_that_refuses_writes_is_not_reconnected_repeatedly() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    let _: () = redis::cmd("REPLICAOF")
        .arg("127.0.0.1")
        .arg(1)
        .query_async(&mut raw(&server).await)
        .await
        .unwrap();

    let began = Instant::now();
    let mut id = 0;
    while began.elapsed() < Duration::from_secs(1) {
        id += 1;
        row(&cache, &table, id).await;
        tokio::task::yield_now().await;
    }

    let entered = cache.stats().fallback.entered;
    assert!(entered < 8, "entered {entered} times in 1 s");
}

#[cache_put(key = "row:<id>", ttl = 60, cache = cache)]
async fn put_meanwhile(cache: &Cache, table: &Table, id: u64, happens: impl FnOnce()) -> usize {
    happens();
    table.write()
}

#[cache_evict(key = "row:<id>", before, cache = cache)]
async fn update_evicting_twice(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

#[cache_evict(key = "row:<id>", fence, cache = cache)]
async fn update_fenced(
    cache: &Cache,
    table: &Table,
    id: u64,
    outcome: Result<(), ()>,
) -> Result<(), ()> {
    table.write();
    outcome
}

#[tokio::test]
async fn each_call_waits_once_for_a_silent_redis() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let cache = connect(network.config().command_timeout(TIMEOUT)).await;
    let table = Table::default();

    let began = Instant::now();
    put_meanwhile(&cache, &table, 1, || network.stall()).await;
    assert!(began.elapsed() < TIMEOUT * 4 / 3, "{:?}", began.elapsed());

    let began = Instant::now();
    update_evicting_twice(&cache, &table, 1).await;
    assert!(began.elapsed() < TIMEOUT * 4 / 3, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_fenced_eviction_waits_once_for_a_silent_redis() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    for outcome in [Ok(()), Err(())] {
        let server = server();
        let network = FaultProxy::start(&server).expect("the proxy starts");
        let cache = connect(network.config().command_timeout(TIMEOUT)).await;
        network.stall();

        let began = Instant::now();
        let returned = update_fenced(&cache, &Table::default(), 1, outcome).await;
        let took = began.elapsed();

        assert_eq!(returned, outcome);
        assert!(took < TIMEOUT * 4 / 3, "{took:?}");
        network.pass();
        until("the eviction is applied", async || {
            cache.stats().journal_depth == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_deletion_is_sent_even_if_its_caller_is_cancelled() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let (cache, other) = (connect(network.config()).await, cache(&server).await);
    row(&other, &Table::default(), 1).await;
    network.stall();

    let call = tokio::time::timeout(Duration::from_millis(10), cache.delete("row:1"));
    call.await
        .expect_err("the caller leaves before Redis answers");
    network.cut();
    network.pass();

    until("the entry is gone", async || !other.exists("row:1").await).await;
}

#[tokio::test]
async fn functions_run_uncached_after_a_shutdown() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    row(&cache, &table, 1).await;

    cache.shutdown().await;

    row(&cache, &table, 1).await;
    assert_eq!(table.reads(), 2);
    assert_eq!(cache.health().await.status, HealthStatus::Down);
    let raw = raw(&server).await;
    only_one_client_is_left(&raw).await;
}

async fn only_one_client_is_left(raw: &redis::aio::MultiplexedConnection) {
    until("only the test's own connection is left", async || {
        let clients: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(&mut raw.clone())
            .await
            .expect("the server answers");
        clients.lines().count() == 1
    })
    .await;
}

#[tokio::test]
async fn a_dropped_cache_closes_its_connections() {
    let server = server();
    let cache = cache(&server).await;
    row(&cache, &Table::default(), 1).await;
    let raw = raw(&server).await;

    drop(cache);

    only_one_client_is_left(&raw).await;
}

#[test]
fn a_cache_outlives_the_runtime_that_created_it() {
    let server = server();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let table = Table::default();
    let first = runtime();
    let cache = first.block_on(async {
        let cache = cache(&server).await;
        row(&cache, &table, 1).await;
        cache
    });
    drop(first);

    runtime().block_on(async {
        row(&cache, &table, 1).await;
        is_in(&cache, Mode::Redis).await;
        let reads = table.reads();
        row(&cache, &table, 1).await;
        assert_eq!(table.reads(), reads);
    });
}

#[tokio::test]
async fn a_wrong_password_is_the_fallback_reason() {
    let server = RedisServer::builder()
        .password("right")
        .start()
        .expect("redis-server starts");
    let mut config = server.config();
    config.password = Some("wrong".into());
    let cache = connect(config).await;

    let health = cache.health().await;

    assert_eq!(health.status, HealthStatus::Degraded);
    let reason = health.fallback_reason.unwrap_or_default();
    assert!(reason.contains("credentials"), "{reason}");
    assert!(!reason.contains("wrong"), "{reason}");
}

#[test]
fn short_block_on_calls_are_enough_to_reconnect() {
    let mut server = RedisServer::tcp().expect("redis-server starts");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cache = runtime.block_on(cache(&server));
    let table = Table::default();
    let call = || {
        let began = Instant::now();
        runtime.block_on(row(&cache, &table, 1));
        let took = began.elapsed();
        assert!(took < Duration::from_millis(500), "a call took {took:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    call();
    server.kill();
    for _ in 0..50 {
        call();
    }
    assert_eq!(cache.stats().mode, Mode::Fallback);

    server.restart().expect("redis-server starts again");
    let began = Instant::now();
    while cache.stats().mode != Mode::Redis {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "Redis is not used again"
        );
        call();
    }

    let reads = table.reads();
    call();
    call();
    assert!(table.reads() <= reads + 1, "the row is cached again");
}

#[test]
fn short_block_on_calls_are_enough_to_apply_the_journal() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cache = runtime.block_on(connect(network.config()));
    let table = Table::default();
    runtime.block_on(row(&cache, &table, 1));

    network.cut();
    runtime.block_on(update(&cache, &table, 1));
    network.pass();
    let began = Instant::now();
    while cache.stats().journal_depth > 0 {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "the journal is not applied"
        );
        runtime.block_on(update(&cache, &table, 2));
        std::thread::sleep(Duration::from_millis(20));
    }

    assert_eq!(
        runtime.block_on(row(&cache, &table, 1)),
        table.value.load(std::sync::atomic::Ordering::SeqCst)
    );
}

#[cache_evict(key = "row:<id>", cache = cache)]
async fn slow_update(cache: &Cache, table: &Table, id: u64, gate: &Gate) -> usize {
    gate.pass().await;
    table.write()
}

#[tokio::test]
async fn a_shutdown_waits_for_the_evictions_of_running_calls() {
    let server = server();
    let (cache, other) = (cache(&server).await, cache(&server).await);
    let (table, gate) = (Table::default(), Gate::new());
    row(&cache, &table, 1).await;
    let writer = tokio::spawn({
        let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
        async move { slow_update(&cache, &table, 1, &gate).await }
    });
    gate.arrival().await;

    let end = tokio::spawn({
        let cache = cache.clone();
        async move { cache.shutdown().await }
    });
    tokio::task::yield_now().await;
    assert!(!end.is_finished());
    gate.open(1);
    writer.await.expect("it returns");
    soon("the shutdown ends", end).await.expect("no panic");

    assert!(!other.exists("row:1").await);
    assert_eq!(cache.health().await.status, HealthStatus::Down);
}

#[tokio::test]
async fn a_shutdown_waits_for_a_scope_that_is_not_committed_yet() {
    let server = server();
    let (cache, other) = (cache(&server).await, cache(&server).await);
    let table = Table::default();
    row(&cache, &table, 1).await;
    let scope = cache_runtime::CacheScope::new();
    scope.run(update(&cache, &table, 1)).await;

    let end = tokio::spawn({
        let cache = cache.clone();
        async move { cache.shutdown().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(scope.commit().await, Evicted::Applied { keys: 1 });
    soon("the shutdown ends", end).await.expect("no panic");

    assert!(!other.exists("row:1").await);
}

#[tokio::test]
async fn an_eviction_after_the_shutdown_uses_its_own_connection() {
    let server = server();
    let (cache, other) = (cache(&server).await, cache(&server).await);
    for name in ["a", "b:1", "b:2"] {
        other.set(name, &1, 60_u64).await;
    }
    row(&other, &Table::default(), 1).await;
    cache.shutdown().await;

    assert_eq!(cache.delete("a").await, Evicted::Applied { keys: 1 });
    assert_eq!(
        cache.delete_matching("b:*").await,
        Evicted::Applied { keys: 2 }
    );
    update(&cache, &Table::default(), 1).await;

    assert_eq!(other.keys("*").await, Vec::<String>::new());
    // It is sent even though the caller drops it.
    row(&other, &Table::default(), 2).await;
    let gate = Gate::new();
    let call = tokio::spawn({
        let (cache, gate) = (cache.clone(), gate.clone());
        async move { slow_update(&cache, &Table::default(), 2, &gate).await }
    });
    gate.arrival().await;
    call.abort();
    until("the entry is gone", async || !other.exists("row:2").await).await;
    drop(other);
    only_one_client_is_left(&raw(&server).await).await;
}

#[tokio::test]
async fn an_eviction_that_fails_after_the_shutdown_is_logged() {
    let mut server = RedisServer::tcp().expect("redis-server starts");
    let cache = cache(&server).await;
    cache.shutdown().await;
    server.kill();

    assert_eq!(cache.delete("a").await, Evicted::Journaled);
}
