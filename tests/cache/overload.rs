//! Thousands of callers at the same time: what they ask of the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::testing::FaultProxy;
use cache_runtime::{Cache, Config, TtlPolicy, cacheable};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{
    Gate, Table, calls, connect, gated_row, patient, raw, row, server, soon, until,
};

/// How many bodies run at the same time.
#[derive(Clone, Debug, Default)]
struct Running {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Running {
    async fn body(&self) {
        let running = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(30)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

#[cacheable(key = "hot:<id>", ignore = [running], ttl = 60, cache = cache)]
async fn hot(cache: &Cache, running: &Running, id: u64) -> u64 {
    running.body().await;
    id
}

/// 5,000 callers in ten groups, 20 ms apart.
async fn crowd(cache: &Cache, running: &Running) {
    let mut callers = JoinSet::new();
    for _ in 0..10 {
        for _ in 0..500 {
            let (cache, running) = (cache.clone(), running.clone());
            callers.spawn(async move { hot(&cache, &running, 1).await });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while let Some(value) = soon("all callers get the value", callers.join_next()).await {
        assert_eq!(value.expect("the call returns"), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_two_bodies_of_a_key_run_while_redis_stalls() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let cache = connect(network.config()).await;
    let running = Running::default();
    network.stall();

    crowd(&cache, &running).await;

    let stats = cache.stats().total;
    assert!(stats.timeouts + stats.released > 0, "{stats:?}");
    let replaced = 2 * usize::try_from(stats.loads_stuck).unwrap();
    assert!(
        (1..=2 + replaced).contains(&running.most()),
        "{} {stats:?}",
        running.most()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_two_bodies_of_a_key_run_while_it_is_evicted_again_and_again() {
    let server = server();
    let cache = connect(server.config()).await;
    let running = Running::default();
    let evictions = tokio::spawn({
        let cache = cache.clone();
        async move {
            loop {
                cache.delete("hot:1").await;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });

    crowd(&cache, &running).await;

    evictions.abort();
    let stats = cache.stats().total;
    // On a busy machine one or both loads may count as stuck, and are replaced.
    let replaced = 2 * usize::try_from(stats.loads_stuck).unwrap();
    assert!(
        (2..=2 + replaced).contains(&running.most()),
        "{} {stats:?}",
        running.most()
    );
}

#[cacheable(key = "missing:<id>", ignore = [running], ttl = 60, cache = cache)]
async fn missing(cache: &Cache, running: &Running, id: u64) -> Option<u64> {
    running.body().await;
    (id == 0).then_some(id)
}

#[cacheable(key = "draft:<id>", ignore = [running], ttl = 60, unless = |id| *id > 0, cache = cache)]
async fn draft(cache: &Cache, running: &Running, id: u64) -> u64 {
    running.body().await;
    id
}

#[tokio::test]
async fn callers_share_a_result_that_is_not_stored() {
    let server = server();
    let cache = connect(server.config()).await;
    let running = Running::default();
    let mut callers = JoinSet::new();
    for _ in 0..500 {
        let (cache, running) = (cache.clone(), running.clone());
        callers.spawn(async move {
            let found = missing(&cache, &running, 1).await;
            (found, draft(&cache, &running, 2).await)
        });
    }

    while let Some(values) = callers.join_next().await {
        assert_eq!(values.unwrap(), (None, 2));
    }

    let stats = cache.stats().total;
    assert!(stats.loads < 20, "{stats:?}");
    assert!(
        stats.skipped_none > 0 && stats.skipped_unless > 0,
        "{stats:?}"
    );
    assert_eq!(stats.fills, 0);
    let raw = raw(&server).await;
    until("no lease is left", async || {
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("test_*")
            .query_async(&mut raw.clone())
            .await
            .unwrap();
        keys.is_empty()
    })
    .await;
}

#[tokio::test]
async fn max_loads_bodies_run_and_the_others_wait_in_order() {
    let cache = connect(Config::default().max_loads(2)).await;
    let (table, gate) = (Table::default(), Gate::new());
    let mut callers = JoinSet::new();
    for id in 0..5 {
        let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
        callers.spawn(async move { gated_row(&cache, &table, id, &gate).await });
    }
    for _ in 0..2 {
        gate.arrival().await;
    }
    until("the others wait", async || cache.stats().loads_waiting == 3).await;
    assert_eq!(table.reads(), 2);

    gate.open(1);
    gate.arrival().await;
    assert_eq!((table.reads(), cache.stats().loads_waiting), (3, 2));

    gate.open(4);
    callers.join_all().await;
    let stats = cache.stats();
    assert_eq!((stats.loads_waiting, stats.total.loads_queued), (0, 3));
    assert_eq!(stats.total.loads, 5);
}

#[cacheable(key = "outer:<id>", ttl = 60, cache = cache)]
async fn outer(cache: &Cache, id: u64) -> u64 {
    inner(cache, id).await + 1
}

#[cacheable(key = "inner:<id>", ttl = 60, policy = "inner", cache = cache)]
async fn inner(cache: &Cache, id: u64) -> u64 {
    tokio::task::yield_now().await;
    id
}

#[tokio::test]
async fn a_load_inside_a_load_does_not_wait_for_it() {
    let cache = connect(
        Config::default()
            .max_loads(1)
            .policy("inner", TtlPolicy::default().max_loads(1)),
    )
    .await;

    assert_eq!(soon("the outer load ends", outer(&cache, 1)).await, 2);

    assert_eq!(cache.stats().total.loads_queued, 0);
}

#[cacheable(key = "slow:<id>", ignore = [gate], ttl = 60, policy = "slow", cache = cache)]
async fn slow(cache: &Cache, id: u64, gate: &Gate) -> u64 {
    gate.pass().await;
    id
}

#[tokio::test]
async fn the_limit_of_a_policy_does_not_hold_up_other_functions() {
    let config = Config::from_vars([("CACHE_POLICY_SLOW_MAX_LOADS", "1")]).unwrap();
    let cache = connect(config).await;
    let gate = Gate::new();
    let mut callers = JoinSet::new();
    for id in 0..2 {
        let (cache, gate) = (cache.clone(), gate.clone());
        callers.spawn(async move { slow(&cache, id, &gate).await });
    }
    gate.arrival().await;
    until("the other waits", async || cache.stats().loads_waiting == 1).await;

    soon("other functions load", outer(&cache, 1)).await;

    gate.open(2);
    callers.join_all().await;
}

/// Calls a row in a task. Its body waits at the gate.
fn begin_load(cache: &Cache, table: &Table, id: u64, gate: &Gate) -> JoinHandle<usize> {
    let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
    tokio::spawn(async move { gated_row(&cache, &table, id, &gate).await })
}

#[tokio::test]
async fn a_load_that_has_waited_for_the_deadline_runs_anyway() {
    let deadline = Duration::from_millis(200);
    let config = Config::default().max_loads(1).lease(deadline / 2);
    let cache = connect(config.load_deadline(deadline)).await;
    let (table, gate) = (Table::default(), Gate::new());
    let began = tokio::time::Instant::now();
    let first = begin_load(&cache, &table, 1, &gate);
    gate.arrival().await;

    let second = begin_load(&cache, &table, 2, &gate);
    gate.arrival().await;

    assert!(began.elapsed() >= deadline);
    gate.open(2);
    first.await.unwrap();
    second.await.unwrap();
}

#[tokio::test]
async fn a_cancelled_caller_leaves_the_queue() {
    let cache = connect(Config::default().max_loads(1)).await;
    let (table, gate) = (Table::default(), Gate::new());
    let first = begin_load(&cache, &table, 1, &gate);
    gate.arrival().await;
    let second = begin_load(&cache, &table, 2, &gate);
    until("the second waits", async || {
        cache.stats().loads_waiting == 1
    })
    .await;

    second.abort();

    until("nobody waits", async || cache.stats().loads_waiting == 0).await;
    gate.open(1);
    first.await.unwrap();
}

/// Reads rows 1,000 times at the same time.
async fn read_all(cache: &Cache, table: &Table, rows: u64) {
    let mut callers = JoinSet::new();
    for number in 0..1_000 {
        let (cache, table) = (cache.clone(), table.clone());
        callers.spawn(async move { row(&cache, &table, number % rows).await });
    }
    while let Some(value) = soon("all callers get the value", callers.join_next()).await {
        value.expect("the call returns");
    }
}

#[tokio::test]
async fn many_reads_leave_in_batches_and_few_alone() {
    let server = server();
    let (cache, mut raw) = (patient(server.config()).await, raw(&server).await);
    let table = Table::default();
    for id in 0..20 {
        row(&cache, &table, id).await;
    }
    let stats = cache.stats();
    assert_eq!(calls(&mut raw, "mget").await, 0);
    assert_eq!(stats.pool.map(|pool| pool.batches), Some(0));
    let alone = calls(&mut raw, "get").await;

    read_all(&cache, &table, 20).await;

    let stats = cache.stats();
    assert_eq!((stats.total.hits, table.reads()), (1_000, 20), "{stats:?}");
    let pool = stats.pool.expect("a pool");
    let (batches, alone) = (
        calls(&mut raw, "mget").await,
        calls(&mut raw, "get").await - alone,
    );
    assert_eq!(batches, pool.batches);
    assert!(batches > 0 && batches + alone < 200, "{batches}, {alone}");
    // The callers of a row are one key of a batch.
    assert!(pool.batched_reads <= 20 * batches, "{pool:?}");
    assert!(pool.send_wait.count >= batches, "{pool:?}");
}

#[tokio::test]
async fn what_is_wrong_with_one_key_of_a_batch_does_not_concern_the_others() {
    let server = server();
    let (cache, mut raw) = (patient(server.config()).await, raw(&server).await);
    let table = Table::default();
    for id in 0..99 {
        row(&cache, &table, id).await;
    }
    let _: () = redis::cmd("RPUSH")
        .arg(&["test_row:99", "a list"])
        .query_async(&mut raw)
        .await
        .unwrap();

    read_all(&cache, &table, 100).await;

    let stats = cache.stats().total;
    assert!(stats.hits >= 990, "{stats:?}");
    // Only the lease of the list is refused.
    assert!(stats.errors <= 1, "{stats:?}");
    // The list is replaced by a value.
    let before = table.reads();
    row(&cache, &table, 99).await;
    assert_eq!(table.reads(), before);
}

#[tokio::test]
async fn a_cancelled_caller_leaves_its_batch() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let cache = patient(network.config()).await;
    let table = Table::default();
    for id in 0..100 {
        row(&cache, &table, id).await;
    }
    network.delay(Duration::from_millis(20));
    let mut callers = JoinSet::new();
    for number in 0..1_000 {
        let (cache, table) = (cache.clone(), table.clone());
        let caller = callers.spawn(async move { row(&cache, &table, number % 100).await });
        if number % 3 == 0 {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                caller.abort();
            });
        }
    }

    let mut answered = 0;
    while let Some(ended) = soon("all callers end", callers.join_next()).await {
        answered += usize::from(ended.is_ok());
    }

    assert!(answered >= 666, "{answered}");
    let stats = cache.stats();
    assert_eq!(table.reads(), 100, "{stats:?}");
    assert_eq!((stats.total.timeouts, stats.total.errors), (0, 0));
    assert_eq!(
        stats.pool.as_ref().map(|pool| pool.in_flight),
        Some(0),
        "{stats:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reads_of_a_lost_batch_are_sent_again() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let cache = patient(network.config()).await;
    let (table, mut raw) = (Table::default(), raw(&server).await);
    for id in 0..100 {
        row(&cache, &table, id).await;
    }
    network.delay(Duration::from_millis(30));
    let reads = tokio::spawn({
        let (cache, table) = (cache.clone(), table.clone());
        async move { read_all(&cache, &table, 100).await }
    });
    until("a batch is under way", async || {
        cache.stats().pool.is_some_and(|pool| pool.batches > 0)
    })
    .await;
    let _: () = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
        .query_async(&mut raw)
        .await
        .unwrap();

    reads.await.expect("every call returns a value");
}
