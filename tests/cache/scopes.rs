//! Evictions wait for the transaction that they belong to.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cache_runtime::testing::{FaultProxy, RedisServer};
use cache_runtime::{Cache, CacheScope, Evicted, Mode, cache_evict, cache_put, cacheable};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{SqliteConnection, SqlitePool};

use crate::shared::on_a_cluster;
use crate::support::{Gate, Table, cache, connect, gated_row, raw, row, server, soon, until};

on_a_cluster! {
    evictions_wait_for_the_commit
    cache_methods_wait_for_the_commit
    a_rollback_evicts_nothing
    a_dropped_scope_evicts_in_the_background
    a_cancelled_body_still_joins_its_scope
    a_failed_body_joins_only_with_always_and_before_evicts_immediately
    a_put_stores_nothing_before_the_commit
    a_fence_lasts_from_before_the_step_until_the_commit
    a_transaction_reads_its_own_writes
    a_load_in_a_scope_is_not_stored_or_shared
    tasks_spawned_in_a_scope_are_outside_of_it
    a_savepoint_waits_for_the_outer_scope
    a_rolled_back_savepoint_discards_only_its_own_evictions
    a_dropped_savepoint_waits_for_the_outer_scope
    a_call_that_outlives_its_scope_evicts_itself
    an_empty_scope_evicts_nothing
    readers_see_all_of_a_transaction_or_nothing
}

#[cache_evict(key = "row:<id>", cache = cache)]
async fn update(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

#[cache_evict(key = "row:<id>", cache = cache)]
async fn gated_update(cache: &Cache, table: &Table, id: u64, gate: &Gate) -> usize {
    let value = table.write();
    gate.pass().await;
    value
}

#[cache_evict(key = "row:<id>", cache = cache)]
async fn failing_update(cache: &Cache, id: u64) -> Result<(), &'static str> {
    Err("the row is locked")
}

#[cache_evict(key = "row:<id>", always, cache = cache)]
async fn failing_update_always(cache: &Cache, id: u64) -> Result<(), &'static str> {
    Err("the row is locked")
}

#[cache_evict(key = "row:<id>", before, cache = cache)]
async fn update_before(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

#[cache_put(key = "row:<id>", ttl = 60, cache = cache)]
async fn put(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

#[cache_evict(key = "row:<id>", fence, cache = cache)]
async fn fenced_update(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

/// Two caches over the same entries: two processes with Redis, or one process without.
struct Pair {
    name: &'static str,
    writer: Cache,
    reader: Cache,
    table: Table,
}

/// Creates the pairs and caches row 1 before it is written.
async fn pairs(server: &RedisServer) -> [Pair; 2] {
    let memory = Cache::memory();
    let pairs = [
        ("Redis", cache(server).await, cache(server).await),
        ("memory", memory.clone(), memory),
    ];
    let pairs = pairs.map(|(name, writer, reader)| Pair {
        name,
        writer,
        reader,
        table: Table::default(),
    });
    for pair in &pairs {
        assert_eq!(pair.read().await, 0);
    }
    pairs
}

impl Pair {
    /// Reads the row as another process.
    async fn read(&self) -> usize {
        row(&self.reader, &self.table, 1).await
    }

    async fn update(&self) -> usize {
        update(&self.writer, &self.table, 1).await
    }
}

#[tokio::test]
async fn evictions_wait_for_the_commit() {
    let server = server();
    for pair in pairs(&server).await {
        let scope = CacheScope::new();

        scope.run(pair.update()).await;
        assert_eq!(pair.read().await, 0, "{}: not committed", pair.name);
        let evicted = scope.commit().await;

        assert_eq!(evicted, Evicted::Applied { keys: 1 }, "{}", pair.name);
        assert_eq!(pair.read().await, 1, "{}: committed", pair.name);
        assert_eq!(pair.writer.stats().total.evictions, 1, "{}", pair.name);
    }
}

#[tokio::test]
async fn cache_methods_wait_for_the_commit() {
    let server = server();
    for pair in pairs(&server).await {
        let (scope, cache) = (CacheScope::new(), &pair.writer);
        assert!(cache.set("name", &"a".to_owned(), 60_u64).await);

        let answers = scope
            .run(async {
                [
                    cache.delete("row:1").await,
                    cache.delete_matching("none:*").await,
                    cache.clear().await,
                ]
            })
            .await;
        assert_eq!(answers, [Evicted::Deferred; 3], "{}", pair.name);
        assert!(cache.exists("row:1").await && cache.exists("name").await);
        let evicted = scope.commit().await;

        assert_eq!(evicted, Evicted::Applied { keys: 2 }, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_rollback_evicts_nothing() {
    let server = server();
    for pair in pairs(&server).await {
        let scope = CacheScope::new();

        scope.run(pair.update()).await;
        scope.rollback();

        assert_eq!(pair.read().await, 0, "{}", pair.name);
        assert_eq!(pair.table.reads(), 1, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_dropped_scope_evicts_in_the_background() {
    let server = server();
    for pair in pairs(&server).await {
        let scope = CacheScope::new();

        scope.run(pair.update()).await;
        drop(scope);

        let own = row(&pair.writer, &pair.table, 1).await;
        assert_eq!(own, 1, "{}: in this process immediately", pair.name);
        until("other processes read the new row", async || {
            pair.read().await == 1
        })
        .await;
        assert_eq!(pair.writer.stats().journal_depth, 0, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_cancelled_body_still_joins_its_scope() {
    let server = server();
    for pair in pairs(&server).await {
        let (scope, gate) = (CacheScope::new(), Gate::new());

        let work = scope.run(gated_update(&pair.writer, &pair.table, 1, &gate));
        tokio::select! {
            _ = work => panic!("the gate is closed"),
            () = gate.arrival() => {}
        }
        assert_eq!(pair.read().await, 0, "{}: not committed", pair.name);
        let evicted = scope.commit().await;

        assert_eq!(evicted, Evicted::Applied { keys: 1 }, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_failed_body_joins_only_with_always_and_before_evicts_immediately() {
    let server = server();
    for pair in pairs(&server).await {
        let (scope, cache) = (CacheScope::new(), &pair.writer);

        assert!(scope.run(failing_update(cache, 1)).await.is_err());
        assert_eq!(scope.commit().await, Evicted::Applied { keys: 0 });
        let scope = CacheScope::new();
        assert!(scope.run(failing_update_always(cache, 1)).await.is_err());
        assert_eq!(scope.commit().await, Evicted::Applied { keys: 1 });

        row(cache, &pair.table, 1).await;
        let scope = CacheScope::new();
        scope.run(update_before(cache, &pair.table, 1)).await;
        assert_eq!(pair.read().await, 1, "{}: removed immediately", pair.name);
        assert_eq!(scope.commit().await, Evicted::Applied { keys: 1 });
    }
}

#[tokio::test]
async fn all_keys_of_a_scope_are_evicted_in_one_round_trip() {
    let server = server();
    let (cache, table) = (cache(&server).await, Table::default());
    let scope = CacheScope::new();
    for id in 0..100 {
        row(&cache, &table, id).await;
        scope.run(update(&cache, &table, id)).await;
        scope.run(update(&cache, &table, id)).await;
    }

    let evicted = scope.commit().await;

    assert_eq!(evicted, Evicted::Applied { keys: 100 });
    let statistics: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut raw(&server).await)
        .await
        .unwrap();
    assert!(
        statistics.contains("cmdstat_unlink:calls=1,"),
        "{statistics}"
    );
}

#[tokio::test]
async fn a_scope_holds_evictions_of_several_caches() {
    let server = server();
    let one = cache(&server).await;
    let two = Cache::memory();
    let table = Table::default();
    row(&one, &table, 1).await;
    row(&two, &table, 2).await;
    row(&two, &table, 1).await;
    let scope = CacheScope::new();

    scope
        .run(async {
            update(&one, &table, 1).await;
            update(&two, &table, 2).await;
        })
        .await;
    let evicted = scope.commit().await;

    assert_eq!(evicted, Evicted::Applied { keys: 2 });
    assert!(!one.exists("row:1").await && !two.exists("row:2").await);
    assert!(
        two.exists("row:1").await,
        "only the other cache evicts this key"
    );
}

#[tokio::test]
async fn a_put_stores_nothing_before_the_commit() {
    let server = server();
    for pair in pairs(&server).await {
        let scope = CacheScope::new();

        assert_eq!(scope.run(put(&pair.writer, &pair.table, 1)).await, 1);
        let stored = scope.run(pair.writer.set("row:2", &7_usize, 60_u64)).await;
        assert!(!stored, "{}", pair.name);
        assert_eq!(pair.reader.keys("*").await, Vec::<String>::new());
        let total = pair.writer.stats().total;
        assert_eq!((total.puts, total.puts_degraded), (1, 1), "{}", pair.name);
        assert_eq!(total.puts_degraded_by_reason["scoped"], 1, "{}", pair.name);

        pair.read().await;
        assert!(!pair.reader.exists("row:1").await, "{}: fenced", pair.name);
        let _ = scope.commit().await;
        pair.read().await;
        assert!(pair.reader.exists("row:1").await, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_fence_lasts_from_before_the_step_until_the_commit() {
    let server = server();
    for pair in pairs(&server).await {
        let scope = CacheScope::new();

        scope.run(fenced_update(&pair.writer, &pair.table, 1)).await;
        pair.read().await;
        assert!(!pair.reader.exists("row:1").await, "{}", pair.name);
        let fenced = pair.reader.stats().total.misses_by_reason["fenced"];
        assert_eq!(fenced, 1, "{}", pair.name);

        assert_eq!(scope.commit().await, Evicted::Applied { keys: 1 });
        pair.read().await;
        assert!(pair.reader.exists("row:1").await, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_transaction_reads_its_own_writes() {
    let server = server();
    for pair in pairs(&server).await {
        let scope = CacheScope::new();
        let read = || scope.run(row(&pair.writer, &pair.table, 1));

        assert_eq!(read().await, 0, "{}: cached", pair.name);
        scope.run(pair.update()).await;

        assert_eq!(read().await, 1, "{}: its own write", pair.name);
        assert_eq!(pair.writer.get::<usize>("row:1").await, Some(0));
        let by_hand = scope.run(pair.writer.get::<usize>("row:1")).await;
        assert_eq!(by_hand, None, "{}", pair.name);
        assert_eq!(
            pair.read().await,
            0,
            "{}: other callers do not see it",
            pair.name
        );
        let reasons = pair.writer.stats().total.misses_by_reason;
        assert_eq!(reasons["scoped"], 2, "{}", pair.name);
        scope.rollback();
    }
}

#[tokio::test]
async fn a_load_in_a_scope_is_not_stored_or_shared() {
    let server = server();
    for pair in pairs(&server).await {
        let (scope, gate) = (CacheScope::new(), Gate::new());
        let (reader, table) = (pair.reader.clone(), pair.table.clone());
        let load = {
            let gate = gate.clone();
            tokio::spawn(async move { gated_row(&reader, &table, 2, &gate).await })
        };
        gate.arrival().await;
        pair.table.write();

        let inside = scope.run(row(&pair.reader, &pair.table, 2));
        assert_eq!(
            soon("the call does not wait for another load", inside).await,
            1
        );
        scope.run(row(&pair.reader, &pair.table, 3)).await;

        assert!(!pair.reader.exists("row:3").await, "{}", pair.name);
        gate.open(1);
        assert_eq!(soon("the load ends", load).await.unwrap(), 0);
        let total = pair.reader.stats().total;
        assert_eq!((total.fills, total.loads_shared), (2, 0), "{}", pair.name);
        scope.rollback();
    }
}

#[tokio::test]
async fn tasks_spawned_in_a_scope_are_outside_of_it() {
    let server = server();
    for pair in pairs(&server).await {
        let pair = Arc::new(pair);
        let (scope, spawned) = (CacheScope::new(), Arc::clone(&pair));

        scope
            .run(async { tokio::spawn(async move { spawned.update().await }).await })
            .await
            .unwrap();

        assert_eq!(pair.read().await, 1, "{}", pair.name);
        assert_eq!(scope.commit().await, Evicted::Applied { keys: 0 });
    }
}

#[tokio::test]
async fn a_savepoint_waits_for_the_outer_scope() {
    let server = server();
    for pair in pairs(&server).await {
        let outer = CacheScope::new();

        let released = outer
            .run(async {
                let inner = CacheScope::new();
                inner.run(pair.update()).await;
                inner.commit().await
            })
            .await;
        assert_eq!(released, Evicted::Deferred, "{}", pair.name);
        assert_eq!(pair.read().await, 0, "{}", pair.name);

        assert_eq!(outer.commit().await, Evicted::Applied { keys: 1 });
        assert_eq!(pair.read().await, 1, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_rolled_back_savepoint_discards_only_its_own_evictions() {
    let server = server();
    for pair in pairs(&server).await {
        let (cache, table, outer) = (&pair.writer, &pair.table, CacheScope::new());
        row(cache, table, 2).await;

        outer
            .run(async {
                update(cache, table, 1).await;
                let inner = CacheScope::new();
                inner.run(update(cache, table, 2)).await;
                let seen = inner.run(row(cache, table, 1)).await;
                assert_eq!(
                    seen, 2,
                    "{}: the savepoint sees the writes of the outer scope",
                    pair.name
                );
                inner.rollback();
            })
            .await;

        assert_eq!(outer.commit().await, Evicted::Applied { keys: 1 });
        assert!(cache.exists("row:2").await, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_dropped_savepoint_waits_for_the_outer_scope() {
    let server = server();
    for pair in pairs(&server).await {
        let outer = CacheScope::new();

        let moved_out = outer
            .run(async {
                let (inner, moved_out) = (CacheScope::new(), CacheScope::new());
                inner.run(pair.update()).await;
                moved_out.run(pair.writer.delete("row:2")).await;
                moved_out
            })
            .await;
        drop(moved_out);
        assert_eq!(pair.read().await, 0, "{}", pair.name);
        assert_eq!(format!("{outer:?}"), "CacheScope { evictions: 2, .. }");

        assert_eq!(outer.commit().await, Evicted::Applied { keys: 1 });
        assert_eq!(pair.read().await, 1, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_call_that_outlives_its_scope_evicts_itself() {
    let server = server();
    for pair in pairs(&server).await {
        let (scope, gate) = (CacheScope::new(), Gate::new());
        let mut call = Box::pin(gated_update(&pair.writer, &pair.table, 1, &gate));
        let begun = scope.run(async {
            tokio::select! {
                _ = &mut call => panic!("the gate is closed"),
                () = gate.arrival() => {}
            }
        });
        begun.await;
        scope.rollback();

        gate.open(1);
        call.await;

        assert_eq!(pair.read().await, 1, "{}", pair.name);
    }
}

#[tokio::test]
async fn a_cancelled_commit_continues_in_the_background() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let patient = || network.config().command_timeout(Duration::from_secs(5));
    let one = connect(patient()).await;
    let two = connect(patient().prefix("other_")).await;
    let table = Table::default();
    let scope = CacheScope::new();
    for cache in [&one, &two] {
        row(cache, &table, 1).await;
        scope.run(update(cache, &table, 1)).await;
    }

    network.stall();
    let commit = tokio::time::timeout(Duration::from_millis(20), scope.commit()).await;
    assert!(commit.is_err(), "Redis does not answer");
    for cache in [&one, &two] {
        assert_eq!(cache.stats().journal_depth, 1);
    }
    network.pass();

    let (other_one, other_two) = (
        cache(&server).await,
        connect(server.config().prefix("other_")).await,
    );
    until("both are evicted", async || {
        !other_one.exists("row:1").await && !other_two.exists("row:1").await
    })
    .await;
}

#[tokio::test]
async fn a_commit_during_an_outage_goes_into_the_journal() {
    let server = server();
    let network = FaultProxy::start(&server).expect("the proxy starts");
    let (writer, reader) = (connect(network.config()).await, cache(&server).await);
    let table = Table::default();
    row(&writer, &table, 1).await;
    let scope = CacheScope::new();
    scope.run(update(&writer, &table, 1)).await;

    network.cut();
    assert_eq!(scope.commit().await, Evicted::Journaled);
    assert_eq!(row(&writer, &table, 1).await, 1, "in this process");
    network.pass();

    until("Redis is used again", async || {
        writer.stats().mode == Mode::Redis
    })
    .await;
    assert_eq!(row(&reader, &table, 1).await, 1, "in another");
}

#[tokio::test]
async fn an_empty_scope_evicts_nothing() {
    let server = server();
    for pair in pairs(&server).await {
        let scope = CacheScope::new();

        let failed = scope.run(failing_update(&pair.writer, 1)).await;
        assert!(failed.is_err(), "{}", pair.name);
        drop(scope);

        assert!(pair.reader.exists("row:1").await, "{}", pair.name);
        let total = pair.writer.stats().total;
        assert_eq!(total.evictions_journaled, 0, "{}", pair.name);
    }
}

/// A cached balance, read from a real database.
#[cacheable(key = "balance:<account>", ignore = [db], ttl = 60, cache = cache)]
async fn balance(cache: &Cache, db: &SqlitePool, account: i64) -> Result<i64, sqlx::Error> {
    stored_balance(&mut *db.acquire().await?, account).await
}

#[cache_evict(key = "balance:<account>", cache = cache)]
async fn add(
    cache: &Cache,
    transaction: &mut SqliteConnection,
    account: i64,
    amount: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET balance = balance + ? WHERE id = ?")
        .bind(amount)
        .bind(account)
        .execute(transaction)
        .await?;
    Ok(())
}

async fn stored_balance(db: &mut SqliteConnection, account: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT balance FROM accounts WHERE id = ?")
        .bind(account)
        .fetch_one(db)
        .await
}

/// Moves money in one transaction. `before_commit` runs after both accounts are written.
async fn transfer(
    cache: &Cache,
    db: &SqlitePool,
    amount: i64,
    before_commit: impl Future<Output = ()>,
) -> Result<Evicted, sqlx::Error> {
    let scope = CacheScope::new();
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    let written = scope
        .run(async {
            add(cache, &mut transaction, 1, -amount).await?;
            add(cache, &mut transaction, 2, amount).await
        })
        .await;
    if let Err(error) = written {
        transaction.rollback().await?;
        scope.rollback();
        return Err(error);
    }
    before_commit.await;
    transaction.commit().await?;
    Ok(scope.commit().await)
}

#[tokio::test]
async fn readers_see_all_of_a_transaction_or_nothing() {
    let server = server();
    let directory = std::env::temp_dir().join(format!("cache-scopes-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let options = SqliteConnectOptions::new()
        .filename(directory.join("bank.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let db = SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql(
        "DROP TABLE IF EXISTS accounts;
         CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0));
         INSERT INTO accounts VALUES (1, 100), (2, 0);",
    )
    .execute(&db)
    .await
    .unwrap();
    let (writer, reader) = (cache(&server).await, cache(&server).await);
    let balances = async || {
        let one = balance(&reader, &db, 1).await.unwrap();
        (one, balance(&reader, &db, 2).await.unwrap())
    };

    // A reader loads and stores the old rows between the writes and the commit.
    let evicted = transfer(&writer, &db, 60, async {
        assert_eq!(balances().await, (100, 0));
    })
    .await
    .unwrap();
    assert_eq!(evicted, Evicted::Applied { keys: 2 });
    assert_eq!(balances().await, (40, 60));

    let refused = transfer(&writer, &db, 60, async {}).await;
    assert!(refused.is_err(), "the balance is too low");
    let loads = reader.stats().total.loads;
    assert_eq!(balances().await, (40, 60));
    assert_eq!(
        reader.stats().total.loads,
        loads,
        "the value is still cached"
    );

    db.close().await;
    std::fs::remove_dir_all(&directory).unwrap();
}
