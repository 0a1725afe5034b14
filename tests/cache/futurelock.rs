//! A task holds a call without polling it and makes the same call again, with a real Redis and on every kind of runtime.

use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use cache_runtime::{Cache, cacheable};
use tokio::time::sleep;

use crate::support::{Table, cache, server, soon};

const BODY: Duration = Duration::from_millis(20);

/// Far less than `load_deadline` (30 s), but enough for a busy machine.
const SOON: Duration = Duration::from_secs(2);

#[cacheable(key = "slow:<id>", ttl = 60, cache = cache)]
async fn slow(cache: &Cache, _table: &Table, id: u64) -> usize {
    let value = _table.read();
    sleep(BODY).await;
    value
}

/// Its body blocks its thread.
#[cacheable(key = "blocking:<id>", ttl = 60, cache = cache)]
async fn blocking(cache: &Cache, _table: &Table, id: u64) -> usize {
    thread::sleep(Duration::from_millis(300));
    _table.read()
}

/// Calls twice. The first call is not polled while the second runs.
async fn call_twice(cache: Cache, table: Table) {
    let mut first = pin!(slow(&cache, &table, 1));
    let begun = sleep(Duration::from_millis(5));
    tokio::select! {
        biased;
        _ = &mut first => return,
        () = begun => {}
    }

    let began = Instant::now();
    slow(&cache, &table, 1).await;
    let waited = began.elapsed();

    assert!(waited < SOON, "waited for {waited:?}");
    soon("the first call continues", first).await;
    assert!(table.reads() <= 2, "{} loads", table.reads());
    assert_eq!(cache.stats().total.fills, 1);
}

#[tokio::test]
async fn a_task_does_not_wait_for_itself_on_one_thread() {
    let server = server();
    call_twice(cache(&server).await, Table::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_does_not_wait_for_itself_on_several_threads() {
    let server = server();
    let cache = cache(&server).await;
    let task = tokio::spawn(call_twice(cache, Table::default()));
    soon("the task ends", task).await.expect("its calls return");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_wait_for_a_body_that_blocks_its_thread() {
    let (cache, table) = (Cache::memory(), Table::default());
    let call = || {
        let (cache, table) = (cache.clone(), table.clone());
        tokio::spawn(async move { blocking(&cache, &table, 1).await })
    };

    let (first, second) = (call(), call());
    soon("the first returns", first).await.expect("no panic");
    soon("the second returns", second).await.expect("no panic");

    assert_eq!((table.reads(), cache.stats().total.loads_stuck), (1, 0));
}
