//! Evictions by tag, on a real Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::testing::{FaultProxy, RedisServer};
use cache_runtime::{Cache, Evicted, Mode, cache_evict, cacheable, tag};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tracing::Level;

use crate::log::Log;
use crate::shared::{self, on_a_cluster};
use crate::support::{Gate, Table, cache, calls, connect, patient, raw, server, soon, until};

on_a_cluster! {
    reads_in_batches_ask_for_a_tag_once_and_see_its_eviction
    functions_store_and_evict_under_tags
    a_load_that_runs_while_its_value_is_evicted_by_tag_is_not_stored
}

/// The value of the row, under a tag.
async fn tagged_row(cache: &Cache, table: &Table, id: u64) -> usize {
    let key = format!("row:{id}");
    let load = async { Ok::<_, ()>(table.read()) };
    let row = cache
        .tagged(&["rows"])
        .get_or_load(&key, 60_u64, load)
        .await;
    row.expect("the body does not fail")
}

#[tokio::test]
async fn an_eviction_by_tag_is_one_command_however_many_entries_there_are() {
    let server = server();
    let (reader, writer) = (cache(&server).await, cache(&server).await);
    let (mut raw, table) = (raw(&server).await, Table::default());
    for id in 0..300 {
        tagged_row(&reader, &table, id).await;
    }
    let sent = async |raw: &mut _| {
        let mut all = Vec::new();
        for command in ["unlink", "del", "scan", "set", "evalsha", "eval"] {
            all.push(calls(raw, command).await);
        }
        all
    };
    let before = sent(&mut raw).await;

    let evicted = writer.delete_tagged("rows").await;

    assert_eq!(evicted, Evicted::Applied { keys: 0 });
    let after = sent(&mut raw).await;
    assert_eq!(after[0], before[0] + 1);
    assert_eq!(after[1..], before[1..]);
    for id in 0..300 {
        tagged_row(&reader, &table, id).await;
    }
    assert_eq!(table.reads(), 600);
}

#[tokio::test]
async fn a_tag_is_one_record_that_expires_however_many_entries_have_it() {
    let server = server();
    let cache = cache(&server).await;
    let (mut raw, table) = (raw(&server).await, Table::default());

    for _ in 0..3 {
        for id in 0..300 {
            tagged_row(&cache, &table, id).await;
        }
        let _ = cache.delete_tagged("rows").await;
    }
    tagged_row(&cache, &table, 1).await;

    let keys: u64 = redis::cmd("DBSIZE")
        .query_async(&mut raw)
        .await
        .expect("counted");
    assert_eq!((keys, table.reads()), (301, 901));
    let tag = "test_cache:tag:rows";
    let length: u64 = raw.strlen(tag).await.expect("a text");
    let left: i64 = raw.pttl(tag).await.expect("a record");
    assert!(length == 16 && left > 0, "{length} {left}");
}

#[tokio::test]
async fn a_hit_sends_one_command_with_and_without_tags() {
    let server = server();
    let cache = cache(&server).await;
    let (mut raw, table) = (raw(&server).await, Table::default());
    tagged_row(&cache, &table, 1).await;
    assert!(cache.set("plain", &1, 60).await);
    let (gets, mgets) = (calls(&mut raw, "get").await, calls(&mut raw, "mget").await);

    for _ in 0..3 {
        tagged_row(&cache, &table, 1).await;
    }
    assert_eq!(calls(&mut raw, "mget").await, mgets + 3);
    assert_eq!(calls(&mut raw, "get").await, gets);
    for _ in 0..3 {
        assert_eq!(cache.get::<u32>("plain").await, Some(1));
    }

    assert_eq!(calls(&mut raw, "mget").await, mgets + 3);
    assert_eq!(calls(&mut raw, "get").await, gets + 3);
    assert_eq!(table.reads(), 1);
}

#[tokio::test]
async fn an_operator_evicts_a_tag_with_one_del() {
    let server = server();
    let cache = cache(&server).await;
    let (mut raw, table) = (raw(&server).await, Table::default());
    tagged_row(&cache, &table, 1).await;

    let removed: u64 = raw.del("test_cache:tag:rows").await.expect("deleted");

    assert_eq!(removed, 1);
    tagged_row(&cache, &table, 1).await;
    assert_eq!(table.reads(), 2);
    let left: i64 = raw.pttl("test_cache:tag:rows").await.expect("a record");
    assert!(left > 60_000, "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_in_batches_ask_for_a_tag_once_and_see_its_eviction() {
    let server = server();
    let reader = patient(shared::config(&server)).await;
    let (writer, table) = (cache(&server).await, Table::default());
    for id in 0..20 {
        tagged_row(&reader, &table, id).await;
    }
    let crowd = async || {
        let wrong = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..500_u64)
            .map(|n| {
                let (cache, table, wrong) = (reader.clone(), table.clone(), Arc::clone(&wrong));
                let expected = table.value.load(Ordering::SeqCst);
                tokio::spawn(async move {
                    let found = tagged_row(&cache, &table, n % 20).await;
                    wrong.fetch_add(usize::from(found != expected), Ordering::SeqCst);
                })
            })
            .collect();
        for reader in readers {
            reader.await.expect("the reader does not panic");
        }
        wrong.load(Ordering::SeqCst)
    };

    assert_eq!((crowd().await, table.reads()), (0, 20));
    let batches = reader.stats().pool.expect("a pool");
    assert!(batches.batches > 0, "{batches:?}");
    // 20 rows and their tag.
    assert!(batches.batched_reads <= 21 * batches.batches, "{batches:?}");
    table.write();
    let _ = writer.delete_tagged("rows").await;

    assert_eq!((crowd().await, table.reads()), (0, 40));
}

#[tokio::test]
async fn an_eviction_by_tag_in_an_outage_is_applied_after_it() {
    let server = server();
    let proxy = FaultProxy::start(&server).expect("the proxy starts");
    let (cut_off, other) = (connect(proxy.config()).await, cache(&server).await);
    let table = Table::default();
    tagged_row(&cut_off, &table, 1).await;
    assert_eq!((tagged_row(&other, &table, 1).await, table.reads()), (0, 1));

    proxy.cut();
    table.write();
    assert_eq!(cut_off.delete_tagged("rows").await, Evicted::Journaled);
    assert_eq!(tagged_row(&cut_off, &table, 1).await, 1);
    assert_eq!(cut_off.stats().journal_depth, 1);

    proxy.pass();
    until("Redis is used again", async || {
        cut_off.stats().mode == Mode::Redis && cut_off.stats().journal_depth == 0
    })
    .await;
    let reads = table.reads();
    assert_eq!(tagged_row(&other, &table, 1).await, 1);
    assert_eq!(tagged_row(&cut_off, &table, 1).await, 1);
    assert_eq!(table.reads(), reads + 1);
}

#[tokio::test]
async fn an_eviction_by_tag_that_redis_refuses_hides_its_entries_here() {
    let server = server();
    let mut raw = raw(&server).await;
    let rules = [
        "SETUSER",
        "app",
        "on",
        ">password",
        "~*",
        "&*",
        "+@all",
        "-unlink",
    ];
    let () = redis::cmd("ACL")
        .arg(&rules)
        .query_async(&mut raw)
        .await
        .expect("valid rules");
    let config = server.config().username("app").password("password");
    let (refused, other) = (connect(config).await, cache(&server).await);
    let table = Table::default();
    tagged_row(&refused, &table, 1).await;

    table.write();
    assert_eq!(refused.delete_tagged("rows").await, Evicted::Journaled);

    assert_eq!(tagged_row(&refused, &table, 1).await, 1);
    // A reader that does not name the tag finds it in the entry.
    assert_eq!(refused.get::<usize>("row:1").await, None);
    assert_eq!(refused.stats().total.misses_by_reason["journaled"], 2);
    assert_eq!(tagged_row(&other, &table, 1).await, 0);
    let () = redis::cmd("ACL")
        .arg(&["SETUSER", "app", "+unlink"])
        .query_async(&mut raw)
        .await
        .expect("valid rules");
    until("the eviction is applied", async || {
        refused.stats().journal_depth == 0
    })
    .await;
    assert_eq!(tagged_row(&other, &table, 1).await, 1);
}

#[tokio::test]
async fn a_flushed_redis_serves_nothing_under_a_tag() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    tagged_row(&cache, &table, 1).await;

    server.flush().expect("flushed");
    table.write();

    assert_eq!(tagged_row(&cache, &table, 1).await, 1);
    assert_eq!(tagged_row(&cache, &table, 1).await, 1);
    assert_eq!(table.reads(), 2);
}

#[tokio::test]
async fn an_eviction_that_looks_at_too_many_keys_is_warned_about_once() {
    let server = RedisServer::builder().args(["--enable-debug-command", "yes"]);
    let server = server.start().expect("redis-server starts");
    let cache = cache(&server).await;
    let mut raw = raw(&server).await;
    let log = Log::listen(Level::WARN);
    let _ = cache.delete_matching("row:*").await;
    assert_eq!(log.take().len(), 0);
    let () = redis::cmd("DEBUG")
        .arg(&["POPULATE", "100500", "other"])
        .query_async(&mut raw)
        .await
        .expect("populated");

    for _ in 0..2 {
        let _ = cache.delete_matching("row:*").await;
    }

    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let message = &lines[0].fields["message"];
    assert!(message.contains("evict by tag"), "{message}");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Event {
    organizer: u64,
    version: usize,
}

#[cacheable(key = "list:<page>", tag = ["events", "page:<page>"], ignore = [table], ttl = 60, cache = cache)]
async fn list(cache: &Cache, table: &Table, page: u64) -> usize {
    table.read()
}

#[cacheable(
    key = "event:<id>",
    tag = "organizer:<return.organizer>",
    ignore = [table, organizer, gate],
    ttl = 60,
    cache = cache
)]
async fn event(cache: &Cache, table: &Table, id: u64, organizer: u64, gate: &Gate) -> Event {
    let version = table.read();
    gate.pass().await;
    Event { organizer, version }
}

#[cache_evict(tag = "events", fence, cache = cache)]
async fn change_events(cache: &Cache, table: &Table) -> usize {
    table.write()
}

#[cache_evict(tag = "organizer:<organizer>", cache = cache)]
async fn change_organizer(cache: &Cache, table: &Table, organizer: u64) -> usize {
    table.write()
}

#[cache_evict(tag = "organizer:<organizer>", fence, cache = cache)]
async fn change_organizer_behind_a_fence(
    cache: &Cache,
    table: &Table,
    organizer: u64,
    gate: &Gate,
) -> usize {
    gate.pass().await;
    table.write()
}

/// Ends the records of tags that Redis keeps for the life of a fence or for less, as if this time had passed. A load that runs
/// prolongs its lease.
async fn end_fences(raw: &mut MultiplexedConnection, life: Duration) {
    let keys: Vec<String> = raw.keys("test_cache:tag*").await.expect("the keys");
    for key in keys {
        let left: i64 = raw.pttl(&key).await.expect("the server answers");
        if Duration::from_millis(left.unsigned_abs()) <= life {
            let _: bool = raw.pexpire(&key, 0).await.expect("the server answers");
        }
    }
}

#[tokio::test]
async fn a_load_under_the_fence_of_a_process_that_died_is_not_stored_after_it() {
    let server = server();
    let proxy = FaultProxy::start(&server).expect("the proxy starts");
    let fence_ttl = Duration::from_secs(30);
    let dying = connect(proxy.config().fence_ttl(fence_ttl)).await;
    let (reader, other) = (cache(&server).await, cache(&server).await);
    let (table, mut raw) = (Table::default(), raw(&server).await);
    let (loading, writing) = (Gate::new(), Gate::new());
    let write = tokio::spawn({
        let (table, gate) = (table.clone(), writing.clone());
        async move { change_organizer_behind_a_fence(&dying, &table, 7, &gate).await }
    });
    writing.arrival().await;
    let load = tokio::spawn({
        let (table, gate) = (table.clone(), loading.clone());
        async move { event(&reader, &table, 1, 7, &gate).await }
    });
    loading.arrival().await;

    // The write is committed, and its process never reaches Redis again.
    proxy.cut();
    writing.open(1);
    soon("the write returns", write).await.expect("no panic");
    end_fences(&mut raw, fence_ttl).await;
    loading.open(10);

    let old = soon("the load returns", load).await.expect("no panic");
    assert_eq!(old.version, 0);
    for _ in 0..2 {
        assert_eq!(event(&other, &table, 1, 7, &loading).await.version, 1);
    }
    assert_eq!(table.reads(), 2);
}

#[tokio::test]
async fn functions_store_and_evict_under_tags() {
    let server = server();
    let (reader, writer) = (cache(&server).await, cache(&server).await);
    let table = Table::default();
    for page in 0..3 {
        list(&reader, &table, page).await;
    }
    assert_eq!((list(&writer, &table, 1).await, table.reads()), (0, 3));

    change_events(&writer, &table).await;

    for page in 0..3 {
        assert_eq!(list(&reader, &table, page).await, 1);
    }
    assert_eq!(table.reads(), 6);
    let _ = writer.delete_tagged("page:2").await;
    for page in 0..3 {
        list(&reader, &table, page).await;
    }
    assert_eq!(table.reads(), 7);
    assert_eq!(reader.stats().total.misses_by_reason["tag"], 4);
}

#[tokio::test]
async fn a_load_that_runs_while_its_value_is_evicted_by_tag_is_not_stored() {
    let server = server();
    let (reader, writer) = (cache(&server).await, cache(&server).await);
    let (table, gate) = (Table::default(), Gate::new());
    let load = tokio::spawn({
        let (reader, table, gate) = (reader.clone(), table.clone(), gate.clone());
        async move { event(&reader, &table, 1, 7, &gate).await }
    });
    gate.arrival().await;

    change_organizer(&writer, &table, 7).await;
    gate.open(10);

    let old = soon("the load returns", load).await.expect("no panic");
    assert_eq!(old.version, 0);
    for cache in [&reader, &writer] {
        assert_eq!(event(cache, &table, 1, 7, &gate).await.version, 1);
    }
    assert_eq!(table.reads(), 2);
    change_organizer(&writer, &table, 8).await;
    assert_eq!(event(&reader, &table, 1, 7, &gate).await.version, 1);
    change_organizer(&writer, &table, 7).await;
    assert_eq!(event(&reader, &table, 1, 7, &gate).await.version, 3);
}

#[cacheable(key = "login:<name>", ttl = 60, ignore = [table], tag = "session:<name>", cache = cache)]
async fn login(cache: &Cache, table: &Table, name: &str) -> usize {
    let _ = name;
    table.read()
}

#[tokio::test]
async fn a_tag_by_hand_is_that_of_an_attribute() {
    let (cache, table) = (Cache::memory(), Table::default());
    for name in ["ada", "a:b", "a b", "", &"x".repeat(2_000)] {
        let before = table.reads();
        login(&cache, &table, name).await;
        login(&cache, &table, name).await;
        assert_eq!(table.reads(), before + 1, "{name:?}");

        cache.delete_tagged(&tag!("session:<name>")).await;

        login(&cache, &table, name).await;
        assert_eq!(table.reads(), before + 2, "{name:?}");
    }
}
