//! Warming: what is loaded, what is skipped, what fails, and which instance does it.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use cache_runtime::testing::RedisServer;
use cache_runtime::warm::{self, Schedule};
use cache_runtime::{Cache, Mode, cacheable};
use redis::AsyncCommands;

use crate::shared::on_a_cluster;
use crate::support::{Gate, Table, cache, connect, gated_row, raw, row, server, soon, until};

on_a_cluster! {
    missing_entries_are_loaded_and_fresh_ones_are_not
    failed_items_are_counted_and_ten_errors_are_kept
    concurrency_is_bounded_and_items_are_taken_when_there_is_room
    progress_is_reported_after_each_item_with_a_known_total
    a_run_is_send_if_its_parts_are
    one_instance_runs_the_job_in_each_round
}

async fn warmed_row(cache: &Cache, table: &Table, id: u64) -> Result<usize, Infallible> {
    Ok(row(cache, table, id).await)
}

#[tokio::test]
async fn missing_entries_are_loaded_and_fresh_ones_are_not() {
    let server = server();
    let (one, two) = (cache(&server).await, cache(&server).await);
    let table = Table::default();
    row(&two, &table, 3).await;

    let summary = one
        .warm(1..=5, |id| warmed_row(&one, &table, id))
        .run()
        .await;

    assert_eq!((summary.loaded, summary.fresh, summary.failed), (4, 1, 0));
    for id in 1..=5 {
        row(&two, &table, id).await;
    }
    assert_eq!(table.reads(), 5);
}

#[cacheable(key = "odd:<id>", ttl = 60, cache = cache)]
async fn odd(cache: &Cache, id: u64) -> anyhow::Result<u64> {
    if id.is_multiple_of(2) {
        return Err(anyhow!("{id} is even")).context("the database refuses");
    }
    Ok(id)
}

#[tokio::test]
async fn failed_items_are_counted_and_ten_errors_are_kept() {
    let server = server();
    let cache = cache(&server).await;

    let summary = cache
        .warm(0..30, |id| odd(&cache, id))
        .concurrency(1)
        .run()
        .await;

    assert_eq!((summary.loaded, summary.fresh, summary.failed), (15, 0, 15));
    let errors: Vec<_> = summary.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 10);
    assert_eq!(errors[1], "item 2: the database refuses: 2 is even");
}

#[cacheable(key = "slow:<id>", ignore = [table], ttl = 60, grace = 600, refresh = "background", cache = cache)]
async fn refreshed(cache: Cache, table: Table, id: u64) -> Result<usize, String> {
    match table.read() {
        usize::MAX => Err("the table is broken".to_owned()),
        value => Ok(value),
    }
}

#[tokio::test]
async fn warming_refreshes_a_stale_value_before_it_returns() {
    let server = server();
    let config = server.config();
    let clock = config.clock.clone();
    let cache = connect(config).await;
    let table = Table::default();
    refreshed(cache.clone(), table.clone(), 1).await.ok();
    table.write();
    clock.advance(Duration::from_secs(90));

    let summary = cache
        .warm([1], |id| refreshed(cache.clone(), table.clone(), id))
        .run()
        .await;

    assert_eq!((summary.loaded, summary.fresh, table.reads()), (1, 0, 2));
    assert_eq!(refreshed(cache.clone(), table.clone(), 1).await, Ok(1));
    assert_eq!(table.reads(), 2);
}

#[tokio::test]
async fn a_failed_refresh_counts_as_a_failed_item() {
    let server = server();
    let config = server.config();
    let clock = config.clock.clone();
    let cache = connect(config).await;
    let table = Table::default();
    refreshed(cache.clone(), table.clone(), 1).await.ok();
    table.value.store(usize::MAX, Ordering::SeqCst);
    clock.advance(Duration::from_secs(90));

    let summary = cache
        .warm([1], |id| refreshed(cache.clone(), table.clone(), id))
        .run()
        .await;

    assert_eq!((summary.loaded, summary.fresh, summary.failed), (0, 0, 1));
    assert!(summary.errors[0].error.contains("its load failed"));
}

#[tokio::test]
async fn concurrency_is_bounded_and_items_are_taken_when_there_is_room() {
    let server = server();
    let cache = cache(&server).await;
    let (table, gate) = (Table::default(), Gate::new());
    let taken = Cell::new(0);
    let items = (0_u64..).inspect(|_| taken.set(taken.get() + 1)).take(10);
    let run = cache
        .warm(items, async |id| {
            Ok::<_, Infallible>(gated_row(&cache, &table, id, &gate).await)
        })
        .concurrency(3)
        .run();

    let watch = async {
        for _ in 0..3 {
            gate.arrival().await;
        }
        assert_eq!((taken.get(), table.reads()), (3, 3));
        gate.open(1);
        gate.arrival().await;
        assert_eq!((taken.get(), table.reads()), (4, 4));
        gate.open(9);
    };
    let (summary, ()) = soon("the run ends", async { tokio::join!(run, watch) }).await;

    assert_eq!((summary.loaded, taken.get()), (10, 10));
}

#[tokio::test]
async fn a_dropped_run_drops_its_calls_and_starts_no_more() {
    let server = server();
    let cache = cache(&server).await;
    let (table, gate) = (Table::default(), Gate::new());
    let run = cache
        .warm(0..100, async |id| {
            Ok::<_, Infallible>(gated_row(&cache, &table, id, &gate).await)
        })
        .concurrency(2)
        .run();

    tokio::select! {
        _ = run => panic!("the gate is closed"),
        () = async { gate.arrival().await; gate.arrival().await } => {}
    }
    gate.open(100);

    until("both release their leases", async || {
        let mut raw = raw(&server).await;
        let left: u64 = raw.exists(&["test_row:0", "test_row:1"]).await.unwrap();
        left == 0
    })
    .await;
    assert_eq!(table.reads(), 2);
}

#[tokio::test]
async fn progress_is_reported_after_each_item_with_a_known_total() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    row(&cache, &table, 1).await;
    let told = RefCell::new(Vec::new());
    let tell = |progress: &warm::Progress| told.borrow_mut().push(*progress);

    let known = cache
        .warm([1, 2], |id| warmed_row(&cache, &table, id))
        .concurrency(1)
        .on_progress(tell)
        .run()
        .await;
    let unknown = cache
        .warm((1..9).filter(|id: &u64| id.is_multiple_of(4)), |id| {
            warmed_row(&cache, &table, id)
        })
        .on_progress(tell)
        .run()
        .await;

    let told = told.into_inner();
    let numbers: Vec<_> = told
        .iter()
        .map(|told| (told.done, told.total, told.loaded, told.fresh))
        .collect();
    assert_eq!((known.loaded, unknown.loaded), (1, 2));
    assert_eq!(
        numbers,
        [
            (1, Some(2), 0, 1),
            (2, Some(2), 1, 1),
            (1, None, 1, 0),
            (2, None, 2, 0)
        ]
    );
}

#[tokio::test]
async fn without_redis_nothing_is_called_and_there_is_one_error() {
    let mut server = RedisServer::tcp().expect("redis-server starts");
    server.kill();
    let cache = cache(&server).await;
    let table = Table::default();

    let summary = cache
        .warm(0..50, |id| warmed_row(&cache, &table, id))
        .run()
        .await;

    assert_eq!((summary.failed, summary.errors.len()), (50, 1));
    assert!(summary.errors[0].error.contains("Redis is unavailable"));
    assert_eq!(table.reads(), 0);
}

#[tokio::test]
async fn an_outage_during_a_run_skips_the_remaining_items() {
    let server = RedisServer::tcp().expect("redis-server starts");
    let cache = cache(&server).await;
    let server = RefCell::new(server);
    let table = Table::default();

    let summary = cache
        .warm(0..50, async |id| {
            if id == 20 {
                server.borrow_mut().kill();
                until("the outage is noticed", async || {
                    cache.exists("row:1").await;
                    cache.stats().mode == Mode::Fallback
                })
                .await;
            }
            warmed_row(&cache, &table, id).await
        })
        .concurrency(1)
        .run()
        .await;

    assert_eq!((summary.loaded, summary.fresh, summary.failed), (20, 0, 30));
    assert_eq!(summary.errors.len(), 2, "{:?}", summary.errors);
    assert_eq!(table.reads(), 21);
}

#[tokio::test]
async fn a_short_outage_fails_only_the_calls_in_flight() {
    let server = RedisServer::tcp().expect("redis-server starts");
    let cache = cache(&server).await;
    let server = RefCell::new(server);
    let table = Table::default();

    let summary = cache
        .warm(0..50, async |id| {
            if id == 20 {
                server.borrow_mut().kill();
                until("the outage is noticed", async || {
                    cache.exists("row:1").await;
                    cache.stats().mode == Mode::Fallback
                })
                .await;
            }
            let warmed = warmed_row(&cache, &table, id).await;
            if id == 20 {
                server.borrow_mut().restart().expect("redis-server starts");
            }
            warmed
        })
        .concurrency(1)
        .run()
        .await;

    assert_eq!((summary.loaded, summary.failed), (49, 1), "{summary:?}");
}

#[tokio::test]
async fn a_run_is_send_if_its_parts_are() {
    let server = server();
    let cache = cache(&server).await;
    let ids = vec!["1".to_owned(), "2".to_owned()];

    let run = tokio::spawn(async move {
        let table = Table::default();
        let call = |id: &String| {
            let id = id.parse();
            async {
                warmed_row(&cache, &table, id?)
                    .await
                    .map_err(anyhow::Error::from)
            }
        };
        cache.warm(&ids, call).run().await
    });

    assert_eq!(run.await.expect("no panic").loaded, 2);
}

/// The times at which a job ran, with the instance that ran it.
#[derive(Clone, Debug, Default)]
struct Runs(Arc<Mutex<Vec<(u8, Instant)>>>);

impl Runs {
    fn add(&self, instance: u8) {
        self.list().push((instance, Instant::now()));
    }

    fn len(&self) -> usize {
        self.list().len()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<(u8, Instant)>> {
        self.0.lock().expect("no panic")
    }

    fn every<J>(
        &self,
        period: Duration,
        cache: &Cache,
        instance: u8,
        job: impl Fn() -> J + Send + Sync + 'static,
    ) -> Schedule
    where
        J: Future<Output = ()> + Send + 'static,
    {
        let runs = self.clone();
        warm::every(period, cache, "the lists", move || {
            runs.add(instance);
            job()
        })
    }
}

/// The shortest period.
const PERIOD: Duration = Duration::from_secs(1);

#[tokio::test]
async fn one_instance_runs_the_job_in_each_round() {
    let server = server();
    let runs = Runs::default();
    let caches = [
        cache(&server).await,
        cache(&server).await,
        cache(&server).await,
    ];
    let _schedules: Vec<_> = (0..)
        .zip(&caches)
        .map(|(instance, cache)| runs.every(PERIOD, cache, instance, async || {}))
        .collect();

    until("three rounds ran", async || runs.len() >= 3).await;

    let list = runs.list();
    for pair in list.windows(2) {
        let apart = pair[1].1 - pair[0].1;
        assert!(apart > PERIOD * 9 / 10, "{list:?}");
    }
}

#[tokio::test]
async fn the_lease_is_short_while_the_job_runs_and_then_lasts_for_the_round() {
    const HOUR: Duration = Duration::from_secs(3600);
    let server = server();
    let mut config = server.config();
    config.lease = Duration::from_millis(500);
    let cache = connect(config).await;
    let mut raw = raw(&server).await;
    let (runs, gate) = (Runs::default(), Gate::new());
    let _schedule = runs.every(HOUR, &cache, 1, {
        let gate = gate.clone();
        move || {
            let gate = gate.clone();
            async move { gate.pass().await }
        }
    });
    gate.arrival().await;
    let ran = Instant::now();

    while ran.elapsed() < Duration::from_millis(700) {
        let left: i64 = raw.pttl("test_cache:warm:the%20lists").await.unwrap();
        assert!((0..=500).contains(&left), "{left} ms");
    }
    gate.open(1);

    until("the lease lasts for the rest of the round", async || {
        let mut raw = raw.clone();
        let left: i64 = raw.pttl("test_cache:warm:the%20lists").await.unwrap();
        (3_590_000..=3_600_000).contains(&left)
    })
    .await;
    cache.clear().await;
    let stands: bool = raw.exists("test_cache:warm:the%20lists").await.unwrap();
    assert!(stands);
    assert_eq!(runs.len(), 1);
}

#[tokio::test]
async fn a_finished_round_without_an_expiry_does_not_block_the_next() {
    const HOUR: Duration = Duration::from_secs(3600);
    let server = server();
    let (one, two) = (cache(&server).await, cache(&server).await);
    let mut raw = raw(&server).await;
    let runs = Runs::default();
    let _first = runs.every(HOUR, &one, 1, || async {});
    until("the round is recorded", async || {
        let mut raw = raw.clone();
        let left: i64 = raw.pttl("test_cache:warm:the%20lists").await.unwrap();
        left > 3_000_000
    })
    .await;

    let () = raw.persist("test_cache:warm:the%20lists").await.unwrap();
    let _second = runs.every(HOUR, &two, 2, || async {});

    until("the other instance runs the job", async || runs.len() == 2).await;
    let left: i64 = raw.pttl("test_cache:warm:the%20lists").await.unwrap();
    assert!(left > 0, "{left} ms");
}

#[tokio::test]
async fn a_stopped_job_leaves_the_round_to_another_instance() {
    let server = server();
    let (one, two) = (cache(&server).await, cache(&server).await);
    let (runs, gate) = (Runs::default(), Gate::new());
    let first = runs.every(PERIOD, &one, 1, {
        let gate = gate.clone();
        move || {
            let gate = gate.clone();
            async move { gate.pass().await }
        }
    });
    gate.arrival().await;

    first.stop();
    let stopped = Instant::now();
    let _second = runs.every(PERIOD, &two, 2, async || {});
    until("the other instance runs the job", async || runs.len() == 2).await;

    assert!(stopped.elapsed() < PERIOD * 3 / 2);
    assert_eq!(runs.list()[1].0, 2);
}

#[tokio::test]
async fn a_dead_instance_is_replaced_when_its_lease_ends() {
    let server = server();
    let cache = cache(&server).await;
    let mut raw = raw(&server).await;
    let (runs, gate) = (Runs::default(), Gate::new());
    let dead = Runs::default().every(PERIOD, &cache, 2, {
        let gate = gate.clone();
        move || {
            let gate = gate.clone();
            async move { gate.pass().await }
        }
    });
    gate.arrival().await;
    let lease: Vec<u8> = raw.get("test_cache:warm:the%20lists").await.unwrap();
    dead.stop();
    until("the lease is gone", async || {
        let mut raw = raw.clone();
        !raw.exists::<_, bool>("test_cache:warm:the%20lists")
            .await
            .unwrap()
    })
    .await;
    // An instance that dies does not release its lease.
    let () = raw
        .pset_ex("test_cache:warm:the%20lists", lease, 500)
        .await
        .unwrap();
    let began = Instant::now();

    let _schedule = runs.every(PERIOD, &cache, 1, async || {});
    until("the job runs", async || runs.len() == 1).await;

    assert!(began.elapsed() > Duration::from_millis(500));
}

#[tokio::test]
async fn rounds_are_skipped_during_an_outage_and_run_afterwards() {
    let mut server = RedisServer::tcp().expect("redis-server starts");
    server.kill();
    let cache = cache(&server).await;
    let runs = Runs::default();
    let is_back = Arc::new(AtomicBool::new(false));

    let _schedule = runs.every(PERIOD, &cache, 1, {
        let is_back = Arc::clone(&is_back);
        move || {
            assert!(is_back.load(Ordering::SeqCst), "Redis is unavailable");
            async {}
        }
    });
    tokio::time::sleep(PERIOD / 5).await;
    assert_eq!(runs.len(), 0);
    is_back.store(true, Ordering::SeqCst);
    server.restart().expect("redis-server starts");

    until("the job runs", async || runs.len() == 1).await;
}
