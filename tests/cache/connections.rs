//! What callers notice when connections are lost and servers are replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cache_runtime::{Cache, cache_evict};
use redis::aio::MultiplexedConnection;

use crate::support::{Table, connect, raw, row, server, until};

#[cache_evict(key = "row:<id>", cache = cache)]
async fn update(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

/// Closes one of the cache's connections.
async fn kill_one(raw: &mut MultiplexedConnection) {
    let list: String = redis::cmd("CLIENT")
        .arg("LIST")
        .query_async(raw)
        .await
        .expect("the server answers");
    let line = list
        .lines()
        .find(|line| line.contains("name=cache-runtime"))
        .unwrap_or_else(|| panic!("no connection in {list}"));
    let (id, _) = line.split_once(' ').expect("a line has fields");
    let _: i64 = redis::cmd("CLIENT")
        .arg(&["KILL", "ID", id.trim_start_matches("id=")])
        .query_async(raw)
        .await
        .expect("the server answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_one_connection_of_several_is_not_an_outage() {
    let server = server();
    let mut config = server.config();
    config.command_timeout = Duration::from_secs(2);
    let cache = connect(config).await;
    let mut raw = raw(&server).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16_u64)
        .map(|id| {
            let (cache, is_over) = (cache.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let table = Table::default();
                while !is_over.load(Ordering::Relaxed) {
                    row(&cache, &table, id).await;
                    // In fallback mode nothing else would wait.
                    tokio::task::yield_now().await;
                    if id % 8 == 0 {
                        update(&cache, &table, id).await;
                    }
                }
            })
        })
        .collect();

    for lost in 1..=10 {
        until("all connections are open", async || {
            cache.stats().pool.is_some_and(|pool| pool.open >= 5)
        })
        .await;
        kill_one(&mut raw).await;
        until("the loss is noticed", async || {
            cache.stats().pool.is_some_and(|pool| pool.lost >= lost)
        })
        .await;
    }
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }

    let stats = cache.stats();
    assert_eq!(stats.fallback.entered, 0, "{stats:?}");
    assert_eq!(stats.pool.map(|pool| pool.lost), Some(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_value_is_removed_and_delays_no_other_call() {
    let server = server();
    let cache = connect(server.config()).await;
    until("all connections are open", async || {
        cache.stats().pool.is_some_and(|pool| pool.open >= 5)
    })
    .await;
    let table = Table::default();
    row(&cache, &table, 2).await;
    let url = server.url().replace("redis+unix://", "unix://");
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut raw = redis::Client::open(url)
        .expect("a valid URL")
        .get_multiplexed_async_connection_with_config(&patient)
        .await
        .expect("the server answers");
    let _: i64 = redis::cmd("SETRANGE")
        .arg(&["test_row:1", "64000000", "x"])
        .query_async(&mut raw)
        .await
        .expect("the server answers");

    // Its reader waits no longer than for any other operation, and gets a miss.
    row(&cache, &table, 1).await;
    until("the value is removed", async || {
        row(&cache, &table, 2).await;
        let length: usize = redis::cmd("STRLEN")
            .arg("test_row:1")
            .query_async(&mut raw.clone())
            .await
            .expect("the server answers");
        length < 1 << 20
    })
    .await;

    until("the row is cached", async || {
        let reads = table.reads();
        row(&cache, &table, 1).await;
        table.reads() == reads
    })
    .await;
    let stats = cache.stats();
    // A busy machine may cost another connection beside the one with the long answer, but never all of them.
    assert!(
        stats.pool.as_ref().is_some_and(|pool| pool.lost < 5),
        "{stats:?}"
    );
    assert_eq!(stats.fallback.entered, 0, "{stats:?}");
}
