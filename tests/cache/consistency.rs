//! An eviction is never undone, and an older put never replaces a newer one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::{Cache, Evicted, cache_evict, cache_put, cacheable};
use redis::AsyncCommands;

use crate::support::{Gate, Table, cache, connect, gated_row, raw, row, server, soon, until};

#[cache_evict(key = "row:<id>", cache = cache)]
async fn update(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

#[cache_evict(pattern = "row:*", cache = cache)]
async fn update_by_pattern(cache: &Cache, table: &Table) -> usize {
    table.write()
}

#[cache_evict(all_entries, cache = cache)]
async fn update_all(cache: &Cache, table: &Table) -> usize {
    table.write()
}

#[cache_put(key = "row:<id>", ttl = 60, cache = cache)]
async fn put(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

#[cache_put(key = "row:<id>", ttl = 60, cache = cache)]
async fn gated_put(cache: &Cache, table: &Table, id: u64, gate: &Gate) -> usize {
    let value = table.write();
    gate.pass().await;
    value
}

/// Begins a load, stops it after it has read the table, runs `then`, and lets the load continue.
async fn during_a_load(reader: &Cache, table: &Table, then: impl AsyncFnOnce()) -> usize {
    let gate = Gate::new();
    let load = tokio::spawn({
        let (reader, table, gate) = (reader.clone(), table.clone(), gate.clone());
        async move { gated_row(&reader, &table, 1, &gate).await }
    });
    gate.arrival().await;
    then().await;
    gate.open(1);
    soon("the load returns", load)
        .await
        .expect("the load does not panic")
}

#[tokio::test]
async fn an_eviction_during_a_load_refuses_its_fill() {
    let server = server();
    let (reader, writer) = (cache(&server).await, cache(&server).await);
    let cases: [(&str, Write); 4] = [
        ("by key", |cache, table| {
            Box::pin(async move { update(&cache, &table, 1).await })
        }),
        ("by pattern", |cache, table| {
            Box::pin(async move { update_by_pattern(&cache, &table).await })
        }),
        ("all entries", |cache, table| {
            Box::pin(async move { update_all(&cache, &table).await })
        }),
        ("put", |cache, table| {
            Box::pin(async move { put(&cache, &table, 1).await })
        }),
    ];
    for (name, write) in cases {
        for from in [&reader, &writer] {
            let _ = reader.clear().await;
            let table = Table::default();

            let old = during_a_load(&reader, &table, async || {
                write(from.clone(), table.clone()).await;
            })
            .await;

            assert_eq!(old, 0, "{name}: a running load keeps its value");
            assert_eq!(
                row(&reader, &table, 1).await,
                1,
                "{name}: later callers get the new value"
            );
            assert_eq!(row(&writer, &table, 1).await, 1, "{name}");
        }
    }
}

type Write = fn(Cache, Table) -> Pin<Box<dyn Future<Output = usize> + Send>>;

#[tokio::test]
async fn a_del_sent_by_hand_during_a_load_refuses_its_fill() {
    let server = server();
    let reader = cache(&server).await;
    let table = Table::default();

    during_a_load(&reader, &table, async || {
        table.write();
        let _: i64 = raw(&server).await.del("test_row:1").await.unwrap();
    })
    .await;

    assert_eq!(row(&reader, &table, 1).await, 1);
    assert_eq!(reader.stats().total.fills_refused, 1);
}

#[tokio::test]
async fn a_call_after_an_eviction_does_not_join_an_older_load() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    let later = {
        let (cache, table) = (cache.clone(), table.clone());
        async move || row(&cache, &table, 1).await
    };

    during_a_load(&cache, &table, async || {
        update(&cache, &table, 1).await;
        assert_eq!(soon("the later call answers by itself", later()).await, 1);
    })
    .await;

    assert_eq!(row(&cache, &table, 1).await, 1);
}

#[tokio::test]
async fn a_call_after_an_eviction_by_another_process_does_not_join_an_older_load() {
    let server = server();
    let (reader, writer) = (cache(&server).await, cache(&server).await);
    let table = Table::default();

    during_a_load(&reader, &table, async || {
        update(&writer, &table, 1).await;
        let later = row(&reader, &table, 1);
        assert_eq!(soon("the later call answers by itself", later).await, 1);
    })
    .await;

    assert_eq!(row(&reader, &table, 1).await, 1);
}

#[tokio::test]
async fn an_older_overlapping_put_never_replaces_a_newer_one() {
    let server = server();
    let (one, two) = (cache(&server).await, cache(&server).await);
    let (table, gate) = (Table::default(), Gate::new());
    let older = tokio::spawn({
        let (one, table, gate) = (one.clone(), table.clone(), gate.clone());
        async move { gated_put(&one, &table, 1, &gate).await }
    });
    gate.arrival().await;

    assert_eq!(put(&two, &table, 1).await, 2);
    gate.open(1);
    assert_eq!(older.await.unwrap(), 1);

    assert_eq!(row(&one, &table, 1).await, 2);
    assert_eq!(row(&two, &table, 1).await, 2);
    assert_eq!(
        (
            one.stats().total.puts_degraded,
            two.stats().total.puts_degraded
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_single_put_stores_and_readers_load_uncached_while_it_runs() {
    let server = server();
    let cache = cache(&server).await;
    let (table, gate) = (Table::default(), Gate::new());
    row(&cache, &table, 1).await;
    let writer = tokio::spawn({
        let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
        async move { gated_put(&cache, &table, 1, &gate).await }
    });
    gate.arrival().await;

    assert_eq!(row(&cache, &table, 1).await, 1);
    assert_eq!(row(&cache, &table, 1).await, 1);
    assert_eq!(cache.stats().total.misses_by_reason["fenced"], 2);
    gate.open(1);
    writer.await.unwrap();

    let reads = table.reads();
    assert_eq!(row(&cache, &table, 1).await, 1);
    assert_eq!(table.reads(), reads);
    let total = cache.stats().total;
    assert_eq!((total.puts, total.puts_degraded), (1, 0));
}

#[cacheable(key = "search:<word>:<place>:<kind>:shop:<shop>", ignore = [table], ttl = 60, cache = cache)]
async fn search(
    cache: &Cache,
    table: &Table,
    word: &str,
    place: &str,
    kind: &str,
    shop: u8,
) -> usize {
    table.read()
}

#[cache_evict(pattern = "search:*:shop:<shop>", cache = cache)]
async fn restock(cache: &Cache, table: &Table, shop: u8) {
    table.write();
}

#[tokio::test]
async fn a_pattern_matches_the_end_of_a_key_that_contains_many_stars() {
    let server = server();
    for cache in [Cache::memory(), cache(&server).await] {
        let table = Table::default();
        let stars = "*".repeat(128);
        search(&cache, &table, &stars, &stars, &stars, 7).await;

        restock(&cache, &table, 7).await;

        assert_eq!(search(&cache, &table, &stars, &stars, &stars, 7).await, 1);
    }
}

#[tokio::test]
async fn a_put_that_lost_its_fence_evicts() {
    let server = server();
    let cache = cache(&server).await;
    let (table, gate) = (Table::default(), Gate::new());
    let writer = tokio::spawn({
        let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
        async move { gated_put(&cache, &table, 1, &gate).await }
    });
    gate.arrival().await;
    let _: i64 = raw(&server).await.del("test_row:1").await.unwrap();
    row(&cache, &table, 1).await;

    gate.open(1);
    writer.await.unwrap();

    assert!(!cache.exists("row:1").await);
    assert_eq!(cache.stats().total.puts_degraded, 1);
}

#[cache_evict(key = "row:<id>", cache = cache)]
async fn commits_and_then_waits(cache: &Cache, table: &Table, id: u64, gate: &Gate) {
    table.write();
    gate.pass().await;
}

#[cache_evict(key = "row:<id>", cache = cache)]
async fn commits_and_then_panics(cache: &Cache, table: &Table, id: u64) {
    table.write();
    panic!("after the commit");
}

#[tokio::test]
async fn a_body_cancelled_after_its_commit_still_evicts() {
    let server = server();
    let (cache, other) = (cache(&server).await, cache(&server).await);
    for _ in 0..1_000 {
        let (table, gate) = (Table::default(), Gate::new());
        let _ = cache.clear().await;
        row(&cache, &table, 1).await;
        let handler = tokio::spawn({
            let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
            async move { commits_and_then_waits(&cache, &table, 1, &gate).await }
        });
        gate.arrival().await;

        handler.abort();
        let _ = handler.await;

        assert_eq!(
            row(&cache, &table, 1).await,
            1,
            "in this process immediately"
        );
        until("the eviction has reached Redis", async || {
            cache.stats().journal_depth == 0
        })
        .await;
        assert_eq!(
            row(&other, &table, 1).await,
            1,
            "in other processes once Redis has it"
        );
    }
}

#[tokio::test]
async fn a_body_that_panics_still_evicts() {
    let server = server();
    for cache in [cache(&server).await, Cache::memory()] {
        let table = Table::default();
        row(&cache, &table, 1).await;

        let handler = tokio::spawn({
            let (cache, table) = (cache.clone(), table.clone());
            async move { commits_and_then_panics(&cache, &table, 1).await }
        });

        assert!(handler.await.is_err());
        assert_eq!(row(&cache, &table, 1).await, 1);
        until("the journal is empty", async || {
            cache.stats().journal_depth == 0
        })
        .await;
    }
}

#[cache_evict(key = "row:<id>", cache = cache)]
async fn fails(cache: &Cache, id: u64) -> Result<(), &'static str> {
    Err("nothing was written")
}

#[cache_evict(key = "row:<id>", always, cache = cache)]
async fn fails_and_evicts(cache: &Cache, id: u64) -> Result<(), &'static str> {
    Err("something may have been written")
}

#[cache_evict(key = "row:<id>", before, cache = cache)]
async fn evicts_before(cache: &Cache, table: &Table, id: u64) -> Result<usize, &'static str> {
    row(cache, table, id).await;
    Err("nothing was written")
}

#[tokio::test]
async fn a_body_that_fails_evicts_only_with_always() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    row(&cache, &table, 1).await;

    assert!(fails(&cache, 1).await.is_err());
    assert!(cache.exists("row:1").await);

    assert!(fails_and_evicts(&cache, 1).await.is_err());
    assert!(!cache.exists("row:1").await);

    row(&cache, &table, 1).await;
    let reads = table.reads();
    assert!(evicts_before(&cache, &table, 1).await.is_err());
    assert_eq!(
        table.reads(),
        reads + 1,
        "the entry was removed before the body"
    );
}

#[tokio::test]
async fn a_pattern_returns_its_count_and_stays_within_the_prefix() {
    let server = server();
    let (cache, other) = (
        cache(&server).await,
        connect(server.config().prefix("other_")).await,
    );
    let table = Table::default();
    for id in 0..700 {
        row(&cache, &table, id).await;
    }
    row(&other, &table, 1).await;
    let mut raw = raw(&server).await;
    let () = raw.set("test_session:{x}:1", "a session").await.unwrap();

    assert_eq!(
        cache.delete_matching("row:1?").await,
        Evicted::Applied { keys: 10 }
    );
    assert_eq!(
        cache.delete_matching("row:*").await,
        Evicted::Applied { keys: 690 }
    );
    let _ = cache.clear().await;

    assert!(other.exists("row:1").await);
    let there: bool = raw.exists("test_session:{x}:1").await.unwrap();
    assert!(there, "clearing the cache keeps sessions");
}

#[cache_evict(key = ["row:<return>", "other:<return>"], cache = cache)]
async fn evicts_what_it_returns(cache: &Cache) -> Result<Option<u64>, &'static str> {
    Ok(Some(1))
}

#[tokio::test]
async fn an_eviction_can_use_the_return_value() {
    let server = server();
    let cache = cache(&server).await;
    row(&cache, &Table::default(), 1).await;

    evicts_what_it_returns(&cache).await.unwrap();

    assert!(!cache.exists("row:1").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_readers_and_writers_leave_nothing_stale() {
    let server = server();
    let caches = [cache(&server).await, cache(&server).await, Cache::memory()];
    for (name, write) in [("evict", 0), ("pattern", 1), ("put", 2)] {
        let (shared, own) = (&caches[..2], &caches[2..]);
        for group in [shared, own] {
            let tables: Arc<Vec<Table>> = Arc::new((0..5).map(|_| Table::default()).collect());
            let done = Arc::new(AtomicUsize::new(0));
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..8_usize {
                let cache = group[task % group.len()].clone();
                let (tables, done) = (Arc::clone(&tables), Arc::clone(&done));
                tasks.spawn(async move {
                    for step in 0..300_usize {
                        let id = (task * 7 + step * 3) % 5;
                        let table = &tables[id];
                        match (task < 2, write) {
                            (false, _) => row(&cache, table, id as u64).await,
                            (true, 0) => update(&cache, table, id as u64).await,
                            (true, 1) => update_by_pattern(&cache, table).await,
                            (true, _) => put(&cache, table, id as u64).await,
                        };
                        tokio::task::yield_now().await;
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
            soon("all are done", tasks.join_all()).await;

            for (id, table) in tables.iter().enumerate() {
                let newest = table.value.load(Ordering::SeqCst);
                for cache in group {
                    assert_eq!(
                        row(cache, table, id as u64).await,
                        newest,
                        "{name}, row {id}"
                    );
                }
            }
            for cache in group {
                let _ = cache.clear().await;
            }
        }
    }
}

#[tokio::test]
async fn the_fence_of_a_dead_process_expires() {
    let server = server();
    let cache = connect(server.config().fence_ttl(Duration::from_millis(100))).await;
    let (table, gate) = (Table::default(), Gate::new());
    {
        // Polled until it waits behind its fence, and then forgotten: like a killed process, it is never dropped.
        let mut put = Box::pin(gated_put(&cache, &table, 1, &gate));
        tokio::select! {
            _ = &mut put => panic!("the gate is closed"),
            () = gate.arrival() => {}
        }
        std::mem::forget(put);
    }

    until("the fence has expired", async || {
        row(&cache, &table, 1).await;
        cache.exists("row:1").await
    })
    .await;

    assert_eq!(row(&cache, &table, 1).await, 1);
}
