//! A Redis that answers and refuses: without a right, without room on its disk, without replicas.

use cache_runtime::{Cache, Counts, Status, cache_evict};
use redis::aio::MultiplexedConnection;

use crate::support::{Table, cache, raw, row, server, until};

#[cache_evict(key = "row:<id>", cache = cache)]
async fn update(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

#[cache_evict(pattern = "row:*", cache = cache)]
async fn update_all(cache: &Cache, table: &Table) -> usize {
    table.write()
}

/// Gives the user of all connections a right, or takes it away.
async fn acl(raw: &mut MultiplexedConnection, rule: &str) {
    let _: () = redis::cmd("ACL")
        .arg(&["SETUSER", "default", rule])
        .query_async(raw)
        .await
        .expect("the rule is right");
}

fn counts(cache: &Cache, function: &str) -> Counts {
    let sites = cache.stats().sites;
    let site = sites.into_iter().find(|site| site.name.ends_with(function));
    site.expect("the function was called").counts
}

#[tokio::test]
async fn every_operation_is_timed() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    row(&cache, &table, 1).await;

    update(&cache, &table, 1).await;
    update_all(&cache, &table).await;

    assert_eq!(counts(&cache, "::update").operation_time.count, 1);
    assert!(counts(&cache, "::update_all").operation_time.count >= 1);
    let timed = || counts(&cache, "Cache").operation_time.count;
    cache.set("name", &1, 60_u64).await;
    let mut before = timed();
    macro_rules! is_timed {
        ($($operation:ident($($argument:expr),*))*) => {$(
            cache.$operation($($argument),*).await;
            assert!(timed() > before, stringify!($operation));
            before = timed();
        )*};
    }
    is_timed! { exists("name") ttl("name") expire("name", 50_u64) keys("*") delete("name") delete_matching("n*") clear() health() }
    assert!(before > 0);
}

#[tokio::test]
async fn refused_evictions_are_counted_and_reported() {
    let server = server();
    let cache = cache(&server).await;
    let table = Table::default();
    row(&cache, &table, 1).await;
    let mut raw = raw(&server).await;
    acl(&mut raw, "-unlink").await;

    update(&cache, &table, 1).await;
    acl(&mut raw, "-scan").await;
    update_all(&cache, &table).await;

    assert_eq!(counts(&cache, "::update").errors, 1);
    assert_eq!(counts(&cache, "::update_all").errors, 1);
    let health = cache.health().await;
    assert_eq!((health.status, health.connected), (Status::Degraded, true));
    let refusals = health.refusals.join("\n");
    assert!(
        refusals.contains("NOPERM") && refusals.contains("'scan'"),
        "{refusals}"
    );

    acl(&mut raw, "+@all").await;
    until("the journal is applied", async || {
        cache.stats().journal_depth == 0
    })
    .await;
    assert_eq!(cache.health().await.status, Status::Healthy);
}
