//! Replicas that lack what their primary acknowledged.

use super::*;
use crate::metrics::Stats;

/// More than the system keeps between a primary and a replica that reads nothing.
const BETWEEN: usize = 32 << 20;

/// Writes so much that what is written next does not reach a frozen replica, not even after the primary is gone.
fn fill_the_way_to_the_replica(servers: &Servers, primary: usize, key: &str) {
    let client = ::redis::Client::open(servers.server(primary).url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let value = vec![b'x'; 1 << 20];
    for _ in 0..BETWEEN / value.len() {
        let () = ::redis::cmd("SET")
            .arg(key)
            .arg(&value)
            .query(&mut connection)
            .unwrap();
    }
}

async fn is_used(cache: &Cache, node: &Address) {
    let address = node.to_string();
    until("the replica is used", || {
        let nodes = cache.nodes();
        let mut nodes = nodes.iter();
        nodes.any(|node| node.address == address && node.state == NodeState::Connected)
    })
    .await;
}

/// Evicts the rows of a primary, each of which is acknowledged, and promotes a replica that has none of these evictions. Returns the
/// versions that are read then, and the statistics.
async fn lose_acknowledged_evictions(failover_memory: Duration) -> (BTreeSet<usize>, Stats) {
    let mut servers = servers();
    let cache = Cache::connect(Config {
        failover_memory,
        ..config(&servers)
    });
    let cache = cache.await.unwrap();
    all_connected(&cache, 3).await;
    let rows = Rows::default();
    rows.read_all(&cache).await;
    let key = |row| format!("test_row:{row}");
    let owner = |row| servers.owner(servers.slot(&key(row)).unwrap()).unwrap();
    let primary = owner(0);
    let replica = servers.replica_of(primary).unwrap();
    let lost: Vec<_> = (0..ROWS).filter(|row| owner(*row) == primary).collect();
    let size = |node| ask::<usize>(servers.server(node), &["DBSIZE"]);
    until("the replica has the entries", || {
        size(replica) == size(primary)
    })
    .await;

    servers.pause(replica).unwrap();
    fill_the_way_to_the_replica(&servers, primary, "{test_row:0}:filler");
    rows.change();
    for row in &lost {
        let evicted = cache.delete(&format!("row:{row}")).await;
        assert_eq!(evicted, Evicted::Applied { keys: 1 });
    }
    servers.kill(primary);
    servers.resume(replica).unwrap();
    servers.failover(replica, Failover::Takeover).unwrap();
    all_connected(&cache, 3).await;
    until("the journal is applied", || {
        cache.stats().journal_depth == 0
    })
    .await;

    let mut versions = BTreeSet::new();
    for row in lost {
        versions.insert(rows.read(&cache, row).await);
    }
    (versions, cache.stats())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_evictions_that_a_promoted_replica_lacks_are_applied_again() {
    let (versions, stats) = lose_acknowledged_evictions(Duration::from_secs(30)).await;

    assert_eq!(versions, BTreeSet::from([1]));
    assert_eq!(stats.fallback.entered, 0);
}

/// Shows that the test before this one tests something: the evictions are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_memory_of_evictions_a_promoted_replica_serves_what_was_evicted() {
    let (versions, _) = lose_acknowledged_evictions(Duration::ZERO).await;

    assert_eq!(versions, BTreeSet::from([0]));
}

/// The replica may lack the last calls of a limiter, too, although no connection is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_counts_as_a_loss() {
    let servers = servers();
    let cache = connect(&servers).await;
    let primary = servers.primaries().unwrap()[0];
    let replica = servers.replica_of(primary).unwrap();
    let before = cache.losses();

    servers.failover(replica, Failover::Plain).unwrap();
    // A service that asks for nothing learns of it up to 10 s later.
    Rows::default().read_all(&cache).await;
    is_used(&cache, servers.address(replica)).await;

    assert!(cache.losses() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_used_although_evictions_never_end() {
    let servers = servers();
    let cache = connect(&servers).await;
    let primary = servers.primaries().unwrap()[0];
    let replica = servers.replica_of(primary).unwrap();
    let evicting = cache.clone();
    let evicting = tokio::spawn(async move {
        loop {
            // A call that is dropped leaves its eviction to the journal.
            let _ = tokio::time::timeout(Duration::ZERO, evicting.delete_matching("other:*")).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let depth = || cache.stats().journal_depth;
    until("evictions are in the journal", || depth() > 0).await;

    servers.failover(replica, Failover::Plain).unwrap();
    is_used(&cache, servers.address(replica)).await;
    evicting.abort();
    until("the journal is applied", || depth() == 0).await;
}
