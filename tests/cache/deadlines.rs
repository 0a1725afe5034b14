//! When an operation fails: after silence, and not because its reply is slow.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use cache_runtime::testing::FaultProxy;
use tokio::task::JoinSet;

use crate::support::{Table, cache, connect, row, server, soon, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_takes_longer_than_the_timeout_is_waited_for_while_others_arrive() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let config = network.config().command_timeout(Duration::from_millis(400));
    let cache = connect(config.command_timeout_max(Duration::from_secs(5))).await;
    let table = Table::default();
    row(&cache, &table, 1).await;

    let mut callers = JoinSet::new();
    // Each step is shorter than the silence after which the server would count as stalled.
    for delay in [150, 300, 450] {
        network.delay(Duration::from_millis(delay));
        for _ in 0..40 {
            let (cache, table) = (cache.clone(), table.clone());
            callers.spawn(async move { row(&cache, &table, 1).await });
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    while let Some(value) = soon("all callers are answered", callers.join_next()).await {
        value.unwrap();
    }

    let stats = cache.stats().total;
    assert_eq!((stats.timeouts, stats.released), (0, 0), "{stats:?}");
    assert_eq!((stats.hits, table.reads()), (120, 1));
}

#[tokio::test]
async fn a_blocked_runtime_is_not_a_slow_server() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    row(&cache, &table, 1).await;
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let (cache, table) = (cache.clone(), table.clone());
        callers.spawn(async move { row(&cache, &table, 1).await });
    }
    // Their commands are sent.
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }

    std::thread::sleep(Duration::from_millis(300));

    while let Some(value) = soon("all callers are answered", callers.join_next()).await {
        value.unwrap();
    }
    let stats = cache.stats();
    assert_eq!(
        (stats.total.timeouts, stats.total.released),
        (0, 0),
        "{stats:?}"
    );
    assert_eq!((stats.total.hits, table.reads()), (20, 1));
    assert_eq!(stats.fallback.entered, 0);
    until("the lag is counted", async || {
        let lag = cache.stats().pool.and_then(|pool| pool.lag.max_micros);
        lag.is_some_and(|lag| lag >= 200_000.0)
    })
    .await;
}

#[tokio::test]
async fn the_wait_of_a_command_in_a_busy_process_is_counted() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    let sampled = async {
        loop {
            // The call hands over its command. Nothing writes it while this thread is blocked.
            let mut call = pin!(row(&cache, &table, 1));
            let value = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
            std::thread::sleep(Duration::from_millis(60));
            if value.is_pending() {
                call.await;
            }
            let wait = cache
                .stats()
                .pool
                .and_then(|pool| pool.send_wait.max_micros);
            if wait.is_some_and(|wait| wait >= 50_000.0) {
                return;
            }
        }
    };

    soon("a wait of 60 ms is sampled", sampled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_trickles_in_is_given_up_after_the_longest_timeout() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let config = network
        .config()
        .command_timeout_max(Duration::from_millis(300));
    let cache = connect(config).await;
    let table = Table::default();
    row(&cache, &table, 1).await;
    network.trickle(Duration::from_millis(20));

    soon("the body runs", row(&cache, &table, 1)).await;

    let stats = cache.stats();
    assert_eq!((stats.total.timeouts, table.reads()), (1, 2), "{stats:?}");
    assert_eq!(stats.fallback.entered, 0, "{stats:?}");
}
