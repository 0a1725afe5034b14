//! An eviction is never undone, and of two puts the older never wins.

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

/// Begins a load that has read the table and not returned yet, runs `then`, and lets the load go on.
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
async fn an_eviction_between_the_read_and_the_fill_wins() {
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
                "{name}: and nobody else gets it"
            );
            assert_eq!(row(&writer, &table, 1).await, 1, "{name}");
        }
    }
}

type Write = fn(Cache, Table) -> Pin<Box<dyn Future<Output = usize> + Send>>;

#[tokio::test]
async fn a_deletion_by_anybody_wins_too() {
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
async fn a_call_after_an_eviction_does_not_join_a_load_from_before() {
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
async fn a_call_after_another_processs_eviction_does_not_join_a_load_from_before() {
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
async fn the_newer_of_two_overlapping_puts_is_never_replaced_by_the_older() {
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
async fn a_put_alone_stores_and_readers_meanwhile_load_uncached() {
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
async fn a_pattern_finds_the_end_of_a_name_whatever_callers_search_for() {
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
async fn a_put_whose_fence_is_gone_evicts() {
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
async fn an_eviction_whose_body_was_cancelled_after_the_commit_is_still_issued() {
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

        assert_eq!(row(&cache, &table, 1).await, 1, "in this process at once");
        until("the eviction has reached Redis", async || {
            cache.stats().journal_depth == 0
        })
        .await;
        assert_eq!(
            row(&other, &table, 1).await,
            1,
            "and in others as soon as Redis has it"
        );
    }
}

#[tokio::test]
async fn an_eviction_whose_body_panicked_is_still_issued() {
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
        until("nothing is owed", async || cache.stats().journal_depth == 0).await;
    }
}

#[cache_evict(key = "row:<id>", cache = cache)]
async fn fails(cache: &Cache, id: u64) -> Result<(), &'static str> {
    Err("nothing was written")
}

#[cache_evict(key = "row:<id>", always, cache = cache)]
async fn fails_and_evicts(cache: &Cache, id: u64) -> Result<(), &'static str> {
    Err("who knows what was written")
}

#[cache_evict(key = "row:<id>", before, cache = cache)]
async fn evicts_before(cache: &Cache, table: &Table, id: u64) -> Result<usize, &'static str> {
    row(cache, table, id).await;
    Err("nothing was written")
}

#[tokio::test]
async fn a_body_that_fails_evicts_only_if_told_so() {
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
    assert_eq!(table.reads(), reads + 1, "the body found the entry gone");
}

#[tokio::test]
async fn a_pattern_answers_how_many_went_and_never_leaves_its_prefix() {
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
    let () = raw
        .set("test_session:{x}:1", "somebody is logged in")
        .await
        .unwrap();

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
    assert!(there, "emptying the cache logs nobody out");
}

#[cache_evict(key = ["row:<return>", "other:<return>"], cache = cache)]
async fn evicts_what_it_returns(cache: &Cache) -> Result<Option<u64>, &'static str> {
    Ok(Some(1))
}

#[tokio::test]
async fn an_eviction_can_be_named_by_what_the_body_returned() {
    let server = server();
    let cache = cache(&server).await;
    row(&cache, &Table::default(), 1).await;

    evicts_what_it_returns(&cache).await.unwrap();

    assert!(!cache.exists("row:1").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_writers_at_random_leave_nothing_stale() {
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
async fn nothing_is_left_of_a_fence_whose_process_is_gone() {
    let server = server();
    let cache = connect(server.config().fence_ttl(Duration::from_millis(100))).await;
    let (table, gate) = (Table::default(), Gate::new());
    {
        // Polled until it waits behind its fence, and then forgotten: no drop, as when a process is killed.
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
