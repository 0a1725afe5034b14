//! Leases and fences without an owner that never expire in Redis, because a tool copied them or removed their expiry.

use cache_runtime::{Cache, cache_put};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::support::{Gate, Table, cache, gated_row, raw, row, server};

#[cache_put(key = "row:<id>", ttl = 60, cache = cache)]
async fn put(cache: &Cache, table: &Table, id: u64, gate: &Gate) -> usize {
    let value = table.write();
    gate.pass().await;
    value
}

/// Returns the lease or fence that is in Redis while `held` waits at its gate, and removes it.
async fn claim(connection: &mut MultiplexedConnection, gate: &Gate, held: impl Future) -> Vec<u8> {
    let look = async {
        gate.arrival().await;
        let bytes: Vec<u8> = connection.get("test_row:1").await.expect("a claim");
        gate.open(1);
        bytes
    };
    let (bytes, _) = tokio::join!(look, held);
    let _: u64 = connection.del("test_row:1").await.expect("deleted");
    bytes
}

#[tokio::test]
async fn the_first_caller_replaces_a_lease_without_an_expiry() {
    let server = server();
    let cache = cache(&server).await;
    let (table, gate) = (Table::default(), Gate::new());
    let mut raw = raw(&server).await;
    let lease = claim(&mut raw, &gate, gated_row(&cache, &table, 1, &gate)).await;
    let fills = cache.stats().total.fills;
    // A restored dump can also have no expiry, or a longer one.
    for set in [vec![], vec!["PX", "86400000"]] {
        let mut command = redis::cmd("SET");
        command.arg("test_row:1").arg(&lease).arg(set);
        let () = command.query_async(&mut raw).await.expect("set");

        row(&cache, &table, 1).await;
        row(&cache, &table, 1).await;
    }

    let total = cache.stats().total;
    assert_eq!((total.fills - fills, total.hits), (2, 2));
    assert_eq!(table.reads(), 3);
}

#[tokio::test]
async fn reads_and_puts_replace_a_fence_without_an_expiry() {
    let server = server();
    let cache = cache(&server).await;
    let (table, gate) = (Table::default(), Gate::new());
    let mut raw = raw(&server).await;
    let fence = claim(&mut raw, &gate, put(&cache, &table, 1, &gate)).await;

    let () = raw.set("test_row:1", &fence).await.expect("set");
    row(&cache, &table, 1).await;
    row(&cache, &table, 1).await;
    assert_eq!((table.reads(), cache.stats().total.hits), (1, 1));

    let () = raw.set("test_row:1", &fence).await.expect("set");
    gate.open(1);
    put(&cache, &table, 1, &gate).await;
    assert_eq!(cache.stats().total.puts_degraded, 0);
    assert_eq!(row(&cache, &table, 1).await, 2);
}

#[tokio::test]
async fn a_damaged_claim_is_replaced() {
    let server = server();
    let cache = cache(&server).await;
    let (table, gate) = (Table::default(), Gate::new());
    let mut raw = raw(&server).await;
    let lease = claim(&mut raw, &gate, gated_row(&cache, &table, 1, &gate)).await;

    for byte in [4, 8, 20, 60] {
        let mut damaged = lease.clone();
        damaged[byte] ^= 2;
        let () = raw.set_ex("test_row:1", &damaged, 60).await.expect("set");
        let reads = table.reads();

        row(&cache, &table, 1).await;
        row(&cache, &table, 1).await;

        assert_eq!(table.reads(), reads + 1, "byte {byte}");
    }
}
