//! The pool, against real servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::Level;

use super::{Access, BULK, COMMANDS, Pool};
use crate::config::{Config, SessionKeys};
use crate::error::ErrorKind;
use crate::store::Store;
use crate::store::connection::Connection;
use crate::store::redis::RedisStore;
use crate::store::support::{
    SingleEntry, ask, cause, config, key, pool_of, server, server_with, until,
};
use crate::testing::RedisServer;
use crate::testing::log::Log;

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn nothing_is_opened_and_nothing_waits_before_a_probe() {
    let server = server();
    let store = RedisStore::new(&config(&server)).unwrap();

    let asked = Instant::now();
    let error = store.get(&key("a"), 0).await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(asked.elapsed() < Duration::from_millis(100));
    assert_eq!(clients(&server), 0);
}

#[tokio::test]
async fn a_probe_opens_one_connection_and_maintenance_opens_the_minimum() {
    let server = server();
    let store = RedisStore::new(&config(&server)).unwrap();

    store.probe().await.unwrap();
    assert!(store.get(&key("a"), 0).await.is_ok());

    until("5 connections are open", || pool_of(&store).open == 5).await;
    assert_eq!(clients(&server), 5);
    assert_eq!(pool_of(&store).max, 50);
}

#[tokio::test]
async fn a_server_that_may_evict_sessions_causes_one_warning() {
    let keys = SessionKeys::parse("a:q3Jy0wq1Yc3QmFhk3o8Qm0r5c8m1v2yq9b0p4x7z1s0=").unwrap();
    for (memory, policy, keeps_sessions, warnings) in [
        ("100mb", "allkeys-lru", true, 1),
        ("100mb", "volatile-ttl", true, 1),
        ("100mb", "noeviction", true, 0),
        ("0", "allkeys-lru", true, 0),
        ("100mb", "allkeys-lru", false, 0),
    ] {
        let server = server_with(&["--maxmemory", memory, "--maxmemory-policy", policy]);
        let log = Log::listen(Level::WARN);
        let store = RedisStore::new(&Config {
            session_keys: keeps_sessions.then(|| keys.clone()),
            ..config(&server)
        })
        .unwrap();

        store.probe().await.unwrap();
        until("5 connections are open", || pool_of(&store).open == 5).await;

        let lines = log.take();
        let found = lines.iter().filter(|line| {
            let line = line.to_string();
            line.contains("noeviction") && line.contains(policy)
        });
        assert_eq!(found.count(), warnings, "{memory} {policy}");
    }
}

#[tokio::test]
async fn the_pool_grows_under_load_up_to_its_maximum() {
    let server = server();
    let before = connections(&server);
    let pool = open(Config {
        pool_min: 1,
        pool_max: 3,
        ..patient(&server)
    })
    .await;

    let first: Vec<_> = (0..COMMANDS)
        .map(|_| pool.ticket(0, Access::Caller).unwrap())
        .collect();
    assert_eq!(pool.stats().open, 1);
    let mut more: Vec<_> = (0..10)
        .map(|_| pool.ticket(0, Access::Caller).unwrap())
        .collect();
    until("a second connection is open", || pool.stats().open == 2).await;
    more.extend((0..4 * COMMANDS).map(|_| pool.ticket(0, Access::Caller).unwrap()));
    until("a third connection is open", || pool.stats().open == 3).await;
    more.extend((0..4 * COMMANDS).map(|_| pool.ticket(0, Access::Caller).unwrap()));
    pool.probe().await.unwrap();

    let stats = pool.stats();
    assert_eq!(
        (stats.open, stats.opened, stats.in_flight),
        (3, 3, first.len() + more.len())
    );
    assert!(stats.utilisation > 2.5, "{stats:?}");
    // The request for the list uses one more.
    assert_eq!(connections(&server), before + 3 + 1);
    drop((first, more));
    assert_eq!((pool.stats().in_flight, pool.stats().utilisation), (0, 0.0));
}

#[tokio::test]
async fn large_replies_fill_a_connection_sooner() {
    let server = server();
    let pool = open(Config {
        pool_min: 2,
        ..patient(&server)
    })
    .await;
    until("2 connections are open", || pool.stats().open == 2).await;

    let _tickets: Vec<_> = (0..12)
        .map(|_| pool.ticket(100 << 10, Access::Caller).unwrap())
        .collect();

    let loads: Vec<_> = pool
        .lanes()
        .data
        .iter()
        .map(|connection| connection.load().commands)
        .collect();
    assert_eq!(loads, [10, 2]);
}

#[tokio::test]
async fn bulk_work_gets_its_own_connection() {
    let server = server();
    let pool = open(Config {
        pool_min: 1,
        ..patient(&server)
    })
    .await;

    let early = pool.ticket(BULK, Access::Caller).unwrap();
    until("a bulk connection is open", || pool.lanes().bulk.is_some()).await;
    let late = [
        pool.ticket(BULK, Access::Caller).unwrap(),
        pool.ticket(1 << 20, Access::Caller).unwrap(),
    ];

    let bulk = pool.lanes().bulk.clone().unwrap();
    assert_eq!(bulk.load().commands, 2);
    assert_eq!(data(&pool)[0].load().commands, 1);
    drop((early, late));
}

#[tokio::test]
async fn connections_above_the_minimum_close_when_unused() {
    let server = server();
    let idle = Duration::from_millis(50);
    let pool = open(Config {
        pool_min: 2,
        pool_max: 5,
        pool_idle: idle,
        ..patient(&server)
    })
    .await;
    let mut busy = Vec::new();
    until("the pool has grown", || {
        busy.extend((0..COMMANDS).map(|_| pool.ticket(0, Access::Caller).unwrap()));
        pool.stats().open == 5
    })
    .await;
    drop(busy);

    until("unused connections are closed", || clients(&server) == 2).await;
    assert_eq!((pool.stats().open, pool.stats().lost), (2, 0));
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let server = server();
    let store = RedisStore::new(&config(&server)).unwrap();
    store.probe().await.unwrap();
    until("5 connections are open", || pool_of(&store).open == 5).await;

    let list: String = ask(&server, &["CLIENT", "LIST"]);
    let line = list
        .lines()
        .find(|line| line.contains("name=cache-runtime"))
        .unwrap();
    let id = line.split(' ').next().unwrap().trim_start_matches("id=");
    assert_eq!(ask::<u32>(&server, &["CLIENT", "KILL", "ID", id]), 1);

    until("the connection is replaced", || {
        let pool = pool_of(&store);
        pool.lost == 1 && pool.open == 5
    })
    .await;
    assert!(store.get(&key("a"), 0).await.is_ok());
}

#[tokio::test]
async fn a_read_on_a_lost_connection_is_retried_once_and_a_write_is_not() {
    let server = server();
    let (store, pool) = store_and_pool(Config {
        pool_min: 2,
        pool_max: 2,
        ..patient(&server)
    })
    .await;
    until("two are open", || pool.stats().open == 2).await;
    store.set(&key("a"), b"value", TTL).await.unwrap();
    server.stop().unwrap();

    let read = tokio::spawn({
        let store = store.clone();
        async move { store.get(&key("a"), 0).await }
    });
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.set(&key("b"), b"value", TTL).await }
    });
    until("both commands are in flight", || {
        pool.stats().in_flight == 2
    })
    .await;
    data(&pool)[0].lose("the test took it away");

    assert_eq!(
        write.await.unwrap().unwrap_err().kind(),
        ErrorKind::Connection
    );
    server.resume().unwrap();
    assert_eq!(read.await.unwrap().unwrap(), Some(b"value".to_vec()));
}

#[tokio::test]
async fn a_silent_server_loses_its_connections_and_commands_fail() {
    let server = server();
    let store = RedisStore::new(&Config {
        command_timeout: Duration::from_millis(100),
        ..config(&server)
    })
    .unwrap();
    store.probe().await.unwrap();
    until("5 connections are open", || pool_of(&store).open == 5).await;

    server.stop().unwrap();
    let answer = timeout(Duration::from_secs(5), store.delete(&[key("a")])).await;
    server.resume().unwrap();

    let error = answer.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(cause(&error).contains("no reply"), "{error:?}");
    store.probe().await.unwrap();
    assert!(store.get(&key("a"), 0).await.is_ok());
}

#[tokio::test]
async fn one_probe_detects_that_all_connections_are_dead() {
    let server = server();
    let pool = open(Config {
        command_timeout: Duration::from_millis(100),
        ..config(&server)
    })
    .await;
    until("5 connections are open", || pool.stats().open == 5).await;

    server.stop().unwrap();
    let error = pool.probe().await.unwrap_err();
    server.resume().unwrap();

    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert_eq!(pool.stats().open, 0);
    pool.probe().await.unwrap();
}

#[tokio::test]
async fn cancelled_callers_do_not_close_a_connection() {
    let server = server();
    let (store, pool) = store_and_pool(Config {
        pool_min: 1,
        command_timeout: Duration::from_millis(100),
        ..config(&server)
    })
    .await;
    let before = data(&pool)[0].progress();

    drop(timeout(Duration::ZERO, store.delete(&[key("a")])).await);
    drop(pool.ticket(0, Access::Caller));
    assert!(data(&pool)[0].is_owed());

    until("the ping is answered", || !data(&pool)[0].is_owed()).await;
    assert!(data(&pool)[0].progress() > before);
    assert_eq!((pool.stats().open, pool.stats().lost), (1, 0));
}

#[tokio::test]
async fn healthy_connections_are_pinged() {
    let server = server();
    let health_interval = Duration::from_millis(20);
    let pool = open(Config {
        pool_min: 1,
        health_interval,
        ..config(&server)
    })
    .await;
    let before = data(&pool)[0].progress();

    until("three pings were answered", || {
        data(&pool)[0].progress() >= before + 3
    })
    .await;

    assert_eq!((data(&pool)[0].answers(), pool.stats().lost), (0, 0));
}

#[tokio::test]
async fn a_probe_finds_a_restarted_server() {
    let mut server = server();
    let store = RedisStore::new(&config(&server)).unwrap();
    store.probe().await.unwrap();
    until("5 connections are open", || pool_of(&store).open == 5).await;

    server.kill();
    until("no connection is open", || pool_of(&store).open == 0).await;
    assert_eq!(
        store.get(&key("a"), 0).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        store.probe().await.unwrap_err().kind(),
        ErrorKind::Connection
    );
    server.restart().unwrap();
    store.probe().await.unwrap();

    until("5 connections are open again", || pool_of(&store).open == 5).await;
}

#[tokio::test]
async fn a_server_that_became_a_replica_counts_as_lost() {
    let server = server();
    let store = RedisStore::new(&config(&server)).unwrap();
    store.probe().await.unwrap();
    let () = ask(&server, &["REPLICAOF", "127.0.0.1", "1"]);

    let error = store.set(&key("a"), b"entry", TTL).await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(cause(&error).contains("READONLY"), "{error:?}");
}

#[tokio::test]
async fn closing_fails_commands_in_flight() {
    let server = server();
    let (store, pool) = store_and_pool(patient(&server)).await;
    server.stop().unwrap();
    let read = tokio::spawn({
        let store = store.clone();
        async move { store.get(&key("a"), 0).await }
    });
    until("the command is in flight", || pool.stats().in_flight == 1).await;

    store.close().await;

    let error = timeout(Duration::from_secs(5), read)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    server.resume().unwrap();
    assert_eq!(error.kind(), ErrorKind::Connection);
}

#[tokio::test]
async fn a_closed_or_dropped_store_leaves_nothing_open() {
    let server = server();
    let (closed, dropped) = (
        RedisStore::new(&config(&server)).unwrap(),
        RedisStore::new(&config(&server)).unwrap(),
    );
    closed.probe().await.unwrap();
    dropped.probe().await.unwrap();
    until("10 connections are open", || clients(&server) == 10).await;

    closed.close().await;
    drop(dropped);

    until("no connection is open", || clients(&server) == 0).await;
    assert_eq!(
        closed.get(&key("a"), 0).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        closed.probe().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(pool_of(&closed).open, 0);
}

#[test]
fn a_store_outlives_the_runtime_that_created_it() {
    let server = server();
    let store = RedisStore::new(&config(&server)).unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    runtime().block_on(store.probe()).unwrap();

    runtime().block_on(async {
        assert!(store.get(&key("a"), 0).await.is_err());
        store.probe().await.unwrap();
        assert!(store.get(&key("a"), 0).await.is_ok());
        until("5 connections are open", || pool_of(&store).open == 5).await;
    });
}

/// A watchdog that ignores tickets that the test holds and never answers.
fn patient(server: &RedisServer) -> Config {
    Config {
        command_timeout: Duration::from_secs(60),
        ..config(server)
    }
}

async fn open(config: Config) -> Arc<Pool> {
    store_and_pool(config).await.1
}

async fn store_and_pool(config: Config) -> (Arc<RedisStore>, Arc<Pool>) {
    let store = Arc::new(RedisStore::new(&config).unwrap());
    store.probe().await.unwrap();
    let pool = store.connections().unwrap().clone();
    (store, pool)
}

fn data(pool: &Pool) -> Vec<Arc<Connection>> {
    pool.lanes().data.clone()
}

fn clients(server: &RedisServer) -> usize {
    ask::<String>(server, &["CLIENT", "LIST"])
        .lines()
        .filter(|line| line.contains("name=cache-runtime"))
        .count()
}

/// Returns how many connections the server has accepted since its start.
fn connections(server: &RedisServer) -> usize {
    ask::<String>(server, &["INFO", "stats"])
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"))
        .and_then(|number| number.parse().ok())
        .unwrap()
}
