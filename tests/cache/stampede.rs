//! One load per key for any number of callers.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::{Cache, cacheable};
use redis::AsyncCommands;
use tokio::task::JoinSet;

use crate::support::{Gate, Table, cache, connect, gated_row, raw, row, server, soon, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_cold_calls_in_two_caches_run_the_body_once() {
    let server = server();
    let (table, gate) = (Table::default(), Gate::new());
    // Even on a busy machine no operation times out.
    let minute = Duration::from_secs(60);
    let patient = || connect(server.config().lease_wait(minute).command_timeout(minute));
    let caches = [patient().await, patient().await];
    let mut calls = JoinSet::new();
    for cache in &caches {
        for _ in 0..1_000 {
            let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
            calls.spawn(async move { gated_row(&cache, &table, 1, &gate).await });
        }
    }

    gate.arrival().await;
    gate.open(2_000);
    let answers = soon("all calls answer", calls.join_all()).await;

    assert_eq!(answers.len(), 2_000);
    // If a busy machine does not run the leader for a while, another caller loads in its place.
    let stuck: u64 = caches
        .map(|cache| cache.stats().total.loads_stuck)
        .iter()
        .sum();
    let most = 1 + usize::try_from(stuck).expect("a small number");
    assert!(
        (1..=most).contains(&table.reads()),
        "{} loads, {stuck} stuck",
        table.reads()
    );
}

#[tokio::test]
async fn waiters_share_the_result_of_the_leader_without_reading() {
    let server = server();
    let cache = cache(&server).await;
    let (table, gate) = (Table::default(), Gate::new());
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
        calls.spawn(async move { gated_row(&cache, &table, 1, &gate).await });
    }

    gate.arrival().await;
    until("all others wait", async || cache.stats().total.misses == 50).await;
    gate.open(1);
    soon("all calls answer", calls.join_all()).await;

    let total = cache.stats().total;
    assert_eq!((total.loads, total.loads_shared, total.fills), (1, 49, 1));
}

#[tokio::test]
async fn the_next_caller_takes_over_when_the_leader_is_cancelled() {
    let server = server();
    let cache = cache(&server).await;
    let (table, gate) = (Table::default(), Gate::new());
    let call = {
        let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
        move || {
            let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
            tokio::spawn(async move { gated_row(&cache, &table, 1, &gate).await })
        }
    };
    let leader = call();
    gate.arrival().await;
    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        waiting.spawn(call());
    }
    until("all others wait", async || cache.stats().total.misses == 51).await;

    leader.abort();
    gate.arrival().await;
    gate.open(1);
    let answers = soon("all calls answer", waiting.join_all()).await;

    assert_eq!(answers.len(), 50);
    assert_eq!(table.reads(), 2);
    let total = cache.stats().total;
    assert_eq!((total.fills, total.fills_refused), (1, 0));
}

#[tokio::test]
async fn a_cancelled_leader_without_waiters_leaves_no_lease() {
    let server = server();
    let cache = cache(&server).await;
    let (table, gate) = (Table::default(), Gate::new());
    let leader = tokio::spawn({
        let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
        async move { gated_row(&cache, &table, 1, &gate).await }
    });
    gate.arrival().await;

    leader.abort();
    let mut raw = crate::support::raw(&server).await;
    until("the lease is gone", async || {
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut raw.clone())
            .await
            .unwrap();
        keys.is_empty()
    })
    .await;

    row(&cache, &table, 1).await;
    let there: bool = redis::cmd("EXISTS")
        .arg("test_row:1")
        .query_async(&mut raw)
        .await
        .unwrap();
    assert!(there);
}

#[cacheable(key = "panics:<id>", ignore = [gate, runs], ttl = 60, cache = cache)]
async fn panics_once(cache: &Cache, id: u64, runs: &AtomicUsize, gate: &Gate) -> usize {
    let run = runs.fetch_add(1, Ordering::SeqCst);
    gate.pass().await;
    assert_ne!(run, 0, "the first run panics");
    run
}

#[tokio::test]
async fn the_next_caller_takes_over_when_the_leader_panics() {
    let server = server();
    let cache = cache(&server).await;
    let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Gate::new());
    let call = || {
        let (cache, runs, gate) = (cache.clone(), Arc::clone(&runs), gate.clone());
        tokio::spawn(async move { panics_once(&cache, 1, &runs, &gate).await })
    };
    let leader = call();
    gate.arrival().await;
    let others = [call(), call(), call()];
    until("all others wait", async || cache.stats().total.misses == 4).await;

    gate.open(2);

    assert!(leader.await.is_err());
    for other in others {
        assert_eq!(soon("the others answer", other).await.unwrap(), 1);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[cacheable(key = "fails:<id>", ignore = [runs, gate], ttl = 60, cache = cache)]
async fn fails_once(
    cache: &Cache,
    id: u64,
    runs: &AtomicUsize,
    gate: &Gate,
) -> Result<usize, String> {
    let run = runs.fetch_add(1, Ordering::SeqCst);
    gate.pass().await;
    if run == 0 {
        Err("the first run fails".to_owned())
    } else {
        Ok(run)
    }
}

#[tokio::test]
async fn an_error_of_the_leader_is_not_shared() {
    let server = server();
    let cache = cache(&server).await;
    let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Gate::new());
    let call = || {
        let (cache, runs, gate) = (cache.clone(), Arc::clone(&runs), gate.clone());
        tokio::spawn(async move { fails_once(&cache, 1, &runs, &gate).await })
    };
    let leader = call();
    gate.arrival().await;
    let others = [call(), call(), call()];
    until("all others wait", async || cache.stats().total.misses == 4).await;

    gate.open(10);

    assert!(leader.await.unwrap().is_err());
    for other in others {
        assert!(soon("the others answer", other).await.unwrap().is_ok());
    }
    assert!(cache.exists("fails:1").await);
}

#[tokio::test]
async fn a_failed_load_releases_its_lease_before_it_returns() {
    let server = server();
    let cache = cache(&server).await;
    let (runs, gate) = (AtomicUsize::new(0), Gate::new());
    gate.open(1);

    let _ = fails_once(&cache, 1, &runs, &gate).await;

    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut crate::support::raw(&server).await)
        .await
        .unwrap();
    assert_eq!(keys, Vec::<String>::new());
}

#[tokio::test]
async fn a_caller_waits_for_the_load_of_another_process_for_lease_wait_at_most() {
    let server = server();
    let (one, two) = (
        cache(&server).await,
        connect(server.config().lease_wait(Duration::from_millis(30))).await,
    );
    let (table, gate) = (Table::default(), Gate::new());
    let slow = tokio::spawn({
        let (table, gate) = (table.clone(), gate.clone());
        async move { gated_row(&one, &table, 1, &gate).await }
    });
    gate.arrival().await;

    soon("the other process runs its own load", row(&two, &table, 1)).await;

    assert_eq!(table.reads(), 2);
    assert_eq!(two.stats().total.fills, 0);
    gate.open(1);
    slow.await.unwrap();
    row(&two, &table, 1).await;
    assert_eq!(table.reads(), 2);
}

/// Cancels a call whose claim waits for a Redis that pauses for `millis`. Its lease is released.
async fn cancel_a_claim_while_redis_pauses(millis: u64) {
    let server = server();
    let cache = connect(server.config().lease(Duration::from_secs(30))).await;
    let table = Table::default();
    let mut raw = raw(&server).await;
    let _: () = redis::cmd("CLIENT")
        .arg("PAUSE")
        .arg(millis)
        .arg("WRITE")
        .query_async(&mut raw)
        .await
        .expect("the server answers");

    let call = tokio::time::timeout(Duration::from_millis(20), row(&cache, &table, 1));
    call.await
        .expect_err("the call ends while its claim waits for the server");
    let _: () = raw
        .set("after_the_claim", 1)
        .await
        .expect("the server answers");

    until("the lease is gone", async || {
        let exists = raw.clone().exists::<_, bool>("test_row:1").await;
        !exists.expect("the server answers")
    })
    .await;
    assert_eq!(table.reads(), 0);
}

#[tokio::test]
async fn a_lease_granted_to_a_cancelled_caller_is_released() {
    cancel_a_claim_while_redis_pauses(80).await;
}

#[tokio::test]
async fn an_abandoned_lease_is_released_even_if_redis_answers_late() {
    // Longer than the release waits, but shorter than the connection is kept.
    cancel_a_claim_while_redis_pauses(150).await;
}

#[tokio::test]
async fn a_lease_taken_after_an_eviction_doomed_its_load_is_released() {
    let server = server();
    let long = server.config().lease(Duration::from_secs(30));
    let (other, cache) = (connect(long.clone()).await, connect(long).await);
    let (table, gate) = (Table::default(), Gate::new());
    let holder = tokio::spawn({
        let (other, table, gate) = (other.clone(), table.clone(), gate.clone());
        async move { gated_row(&other, &table, 1, &gate).await }
    });
    gate.arrival().await;
    let waits = tokio::spawn({
        let (cache, table) = (cache.clone(), table.clone());
        async move { row(&cache, &table, 1).await }
    });
    until("the call has found the other's lease", async || {
        cache.stats().total.misses == 1
    })
    .await;

    let _ = cache.delete("row:1").await;
    soon("the call answers", waits).await.unwrap();

    let raw = raw(&server).await;
    until("the lease is gone", async || {
        !raw.clone().exists::<_, bool>("test_row:1").await.unwrap()
    })
    .await;
    gate.open(1);
    holder.await.unwrap();
}

#[tokio::test]
async fn a_lease_is_renewed_while_its_body_runs() {
    let server = server();
    let cache = connect(server.config().lease(Duration::from_millis(150))).await;
    let (table, gate) = (Table::default(), Gate::new());
    let slow = tokio::spawn({
        let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
        async move { gated_row(&cache, &table, 1, &gate).await }
    });
    gate.arrival().await;

    // Nine renewals are three times the length of the lease. Redis counts them: each renewal is one script.
    let raw = crate::support::raw(&server).await;
    until("the lease was renewed 9 times", async || {
        let info: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut raw.clone())
            .await
            .unwrap();
        let renewals = info
            .lines()
            .find(|line| line.starts_with("cmdstat_evalsha:calls="))
            .and_then(|line| {
                line.split(['=', ','])
                    .nth(1)
                    .and_then(|count| count.parse::<u32>().ok())
            });
        renewals.unwrap_or(0) >= 9
    })
    .await;
    gate.open(1);
    slow.await.unwrap();

    let total = cache.stats().total;
    assert_eq!(
        (total.fills, total.fills_refused, total.leases_lost),
        (1, 0, 0)
    );
}

#[cacheable(key = "hangs:<id>", ignore = [runs], ttl = 60, cache = cache)]
async fn hangs(cache: &Cache, id: u64, runs: &AtomicUsize) -> usize {
    if runs.fetch_add(1, Ordering::SeqCst) == 0 {
        pending::<()>().await;
    }
    1
}

#[tokio::test]
async fn a_hung_load_does_not_block_its_key() {
    let server = server();
    let config = server
        .config()
        .load_deadline(Duration::from_millis(200))
        .lease(Duration::from_millis(150));
    let cache = connect(config).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let hung = tokio::spawn({
        let (cache, runs) = (cache.clone(), Arc::clone(&runs));
        async move { hangs(&cache, 1, &runs).await }
    });
    until("the first run hangs", async || {
        runs.load(Ordering::SeqCst) == 1
    })
    .await;

    assert_eq!(
        soon("the next call answers", hangs(&cache, 1, &runs)).await,
        1
    );
    until("a later call fills", async || {
        hangs(&cache, 1, &runs).await;
        cache.exists("hangs:1").await
    })
    .await;

    hung.abort();
}
