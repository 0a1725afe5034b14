//! Tests of the router on a real cluster of three primaries and three replicas.

mod failovers;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::cache::{Cache, Evicted};
use crate::key::Pattern;
use crate::metrics::Mode;
use crate::store::reach::Reach;
use crate::store::redis::RedisStore;
use crate::store::support::{ask, key, open_all_nodes, until};
use crate::store::{Cursor, NodeState, Replaced, Store, Walk, Walked};
use crate::testing::log::{Line, Log};
use crate::testing::{Cluster as Servers, Failover, Migration};
use crate::{HealthStatus, testing};

const TTL: Duration = Duration::from_secs(60);
const ROWS: usize = 60;

/// A database, and how often its rows were loaded.
#[derive(Default)]
struct Rows {
    version: AtomicUsize,
    loads: AtomicUsize,
}

impl Rows {
    async fn read(&self, cache: &Cache, row: usize) -> usize {
        let load = async {
            self.loads.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(self.version.load(Ordering::SeqCst))
        };
        let Ok(version) = cache
            .get_or_load(&format!("row:{row}"), 600_u64, load)
            .await;
        version
    }

    async fn read_all(&self, cache: &Cache) -> BTreeSet<usize> {
        let mut versions = BTreeSet::new();
        for row in 0..ROWS {
            versions.insert(self.read(cache, row).await);
        }
        versions
    }

    /// Returns how many rows are loaded while all are read.
    async fn loads_of_all(&self, cache: &Cache) -> usize {
        let before = self.loads.load(Ordering::SeqCst);
        self.read_all(cache).await;
        self.loads.load(Ordering::SeqCst) - before
    }

    fn change(&self) -> usize {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }
}

fn servers() -> Servers {
    Servers::start().unwrap()
}

fn config(servers: &Servers) -> Config {
    Config {
        // A machine that builds and tests at the same time is slow.
        command_timeout: Duration::from_secs(1),
        command_timeout_max: Duration::from_secs(2),
        ..servers.config()
    }
}

async fn connect(servers: &Servers) -> Cache {
    let cache = Cache::connect(config(servers)).await.unwrap();
    all_connected(&cache, 3).await;
    cache
}

async fn connected(cache: &Cache) -> usize {
    let nodes = cache.health().detail().await.nodes;
    let connected = nodes
        .iter()
        .filter(|node| node.state == NodeState::Connected);
    connected.count()
}

async fn all_connected(cache: &Cache, count: usize) {
    for _ in 0..2000 {
        if cache.stats().mode == Mode::Redis && connected(cache).await == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not connected: {:?}", cache.health().detail().await);
}

async fn store(servers: &Servers) -> RedisStore {
    open_all_nodes(&config(servers)).await
}

fn slot(servers: &Servers, key: &Key) -> u16 {
    servers.slot(key.as_str()).unwrap()
}

/// Begins to move the slot of a key to another primary.
fn begin_to_move(servers: &Servers, key: &Key) -> Migration {
    let slot = slot(servers, key);
    let from = servers.owner(slot).unwrap();
    let primaries = servers.primaries().unwrap();
    let to = primaries.into_iter().find(|node| *node != from).unwrap();
    servers.begin_migration(slot, to).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_all_slots_are_cached() {
    let servers = servers();
    let cache = connect(&servers).await;
    let rows = Rows::default();

    assert_eq!(rows.loads_of_all(&cache).await, ROWS);
    assert_eq!(rows.loads_of_all(&cache).await, 0);

    for primary in servers.primaries().unwrap() {
        assert!(ask::<usize>(servers.server(primary), &["DBSIZE"]) > 0);
    }
    rows.change();
    assert_eq!(cache.delete("row:7").await, Evicted::Applied { keys: 1 });
    assert_eq!(rows.loads_of_all(&cache).await, 1);
    let evicted = cache.delete_matching("row:*").await;
    assert_eq!(evicted, Evicted::Applied { keys: ROWS as u64 });
    assert_eq!(rows.loads_of_all(&cache).await, ROWS);
    let mut keys = cache.keys("row:*").await;
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), ROWS);
    let health = cache.health().detail().await;
    assert_eq!(health.status, HealthStatus::Healthy, "{health:?}");
    assert_eq!(health.server.map(|server| server.keys), Some(ROWS as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tags_of_an_entry_may_be_at_other_nodes() {
    let servers = servers();
    let cache = connect(&servers).await;
    let loads = AtomicUsize::new(0);
    let read_all = async || {
        for row in 0..ROWS {
            let load = async {
                loads.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(row)
            };
            let cache = cache.tagged(&["rows", "everything"]);
            let Ok(read) = cache
                .get_or_load(&format!("row:{row}"), 600_u64, load)
                .await;
            assert_eq!(read, row);
        }
        loads.swap(0, Ordering::SeqCst)
    };
    assert_eq!(read_all().await, ROWS);
    assert_eq!(read_all().await, 0);

    let evicted = cache.delete_tagged("rows").await;

    assert_eq!(evicted, Evicted::Applied { keys: 0 });
    assert_eq!(read_all().await, ROWS);
    assert_eq!(read_all().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moving_slot_is_followed() {
    let servers = servers();
    let cache = connect(&servers).await;
    let rows = Rows::default();
    rows.read_all(&cache).await;

    let moving = Key::parse("test_", "row:3").unwrap();
    let migration = begin_to_move(&servers, &moving);
    assert_eq!(rows.loads_of_all(&cache).await, 0, "nothing moved yet");
    servers.move_keys(migration, 100).unwrap();
    assert_eq!(rows.loads_of_all(&cache).await, 0, "the key moved");
    rows.change();
    assert_eq!(cache.delete("row:3").await, Evicted::Applied { keys: 1 });
    assert_eq!(rows.read(&cache, 3).await, 1);
    assert_eq!(
        rows.loads_of_all(&cache).await,
        0,
        "the new entry is at its new node"
    );
    servers.finish_migration(migration).unwrap();

    // Its recent eviction is applied at the new owner, too.
    assert!(rows.loads_of_all(&cache).await <= 1, "the slot moved");
    until_cached(&rows, &cache, 3).await;
    assert_eq!(rows.loads_of_all(&cache).await, 0);
    assert_eq!(cache.delete("row:3").await, Evicted::Applied { keys: 1 });
    assert_eq!(cache.stats().fallback.entered, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_split_and_their_answers_keep_their_order() {
    let servers = servers();
    let store = store(&servers).await;
    let keys: Vec<_> = (0..200).map(|row| key(&format!("row:{row}"))).collect();
    let entries: Vec<_> = keys
        .iter()
        .map(|key| (key.clone(), key.as_str().as_bytes().to_vec()))
        .collect();

    store.set_many(&entries, TTL).await.unwrap();

    let values = store.get_many(&keys).await.unwrap();
    let expected: Vec<_> = entries
        .iter()
        .map(|(_, value)| Some(value.clone()))
        .collect();
    assert_eq!(values, expected);
    let heads = store.peek(&keys, 8).await.unwrap();
    assert!(
        heads
            .iter()
            .all(|head| head.as_deref() == Some(b"dev_row:".as_slice()))
    );
    let migration = begin_to_move(&servers, &keys[5]);
    servers.move_keys(migration, 100).unwrap();
    assert_eq!(store.get_many(&keys).await.unwrap(), expected);
    let fences: Vec<_> = keys
        .iter()
        .map(|key| (key.clone(), vec![b'x'; 80]))
        .collect();
    assert_eq!(store.fence(&fences, TTL).await.unwrap(), [1; 200]);
    assert_eq!(store.delete(&keys).await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_runs_on_the_importing_node_that_does_not_know_it() {
    let servers = servers();
    let store = store(&servers).await;
    let key = key("row:1");
    let entry = [b"cacheent".as_slice(), b"stamp--1", &[0; 64]].concat();
    store
        .set_many(&[(key.clone(), entry.clone())], TTL)
        .await
        .unwrap();
    let migration = begin_to_move(&servers, &key);
    servers.move_keys(migration, 100).unwrap();

    let replaced = store.replace(&key, *b"stamp--1", &entry, TTL).await;

    assert_eq!(replaced.unwrap(), Replaced::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_takes_only_its_keys_with_it() {
    let mut servers = servers();
    let cache = connect(&servers).await;
    let rows = Rows::default();
    rows.read_all(&cache).await;
    let killed = servers.primaries().unwrap()[0];
    let owner = |row: usize| {
        let key = Key::parse("test_", &format!("row:{row}")).unwrap();
        servers.owner(slot(&servers, &key)).unwrap()
    };
    let (lost, kept): (Vec<_>, Vec<_>) = (0..ROWS).partition(|row| owner(*row) == killed);
    assert!(!lost.is_empty() && !kept.is_empty());

    servers.kill(killed);
    until("its loss is noticed", || {
        let nodes = cache.nodes();
        nodes
            .iter()
            .any(|node| node.state == NodeState::Unavailable)
    })
    .await;
    rows.change();
    let outcome = cache.delete_matching("row:*").await;
    assert_eq!(outcome, Evicted::Journaled);

    // The others are cached again, before the replica takes over or after it. On a busy machine it takes over in between.
    let read_kept = async || {
        let before = rows.loads.load(Ordering::SeqCst);
        for row in &kept {
            assert_eq!(rows.read(&cache, *row).await, 1);
        }
        rows.loads.load(Ordering::SeqCst) - before
    };
    let mut loads = read_kept().await;
    for _ in 0..10 {
        loads = read_kept().await;
        if loads == 0 {
            break;
        }
    }
    assert_eq!(loads, 0);
    servers.settle().unwrap();
    all_connected(&cache, 3).await;
    until("the journal is applied", || {
        cache.stats().journal_depth == 0
    })
    .await;
    let before = rows.loads.load(Ordering::SeqCst);
    for row in &kept {
        assert_eq!(rows.read(&cache, *row).await, 1);
    }
    assert_eq!(
        rows.loads.load(Ordering::SeqCst),
        before,
        "the others lack nothing"
    );
    assert_eq!(rows.read_all(&cache).await, BTreeSet::from([1]));
    assert_eq!(rows.loads_of_all(&cache).await, 0);
    assert_eq!(cache.stats().fallback.entered, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_keeps_the_entries() {
    let servers = servers();
    let cache = connect(&servers).await;
    let rows = Rows::default();
    rows.read_all(&cache).await;
    let primary = servers.primaries().unwrap()[1];

    servers
        .failover(servers.replica_of(primary).unwrap(), Failover::Plain)
        .unwrap();

    rows.change();
    let evicted = cache.delete("row:1").await;
    assert!(matches!(
        evicted,
        Evicted::Applied { .. } | Evicted::Journaled
    ));
    until("the journal is applied", || {
        cache.stats().journal_depth == 0
    })
    .await;
    let promoted = servers.primaries().unwrap();
    assert!(!promoted.contains(&primary));
    let mut loads = 0;
    for _ in 0..200 {
        loads = rows.loads_of_all(&cache).await;
        if loads == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(loads, 0);
    all_connected(&cache, 3).await;
    assert_eq!(rows.read(&cache, 1).await, 1);
    assert_eq!(cache.stats().fallback.entered, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_falls_back_while_no_node_answers() {
    let mut servers = servers();
    let cache = connect(&servers).await;
    let rows = Rows::default();
    rows.read_all(&cache).await;

    for node in 0..servers.len() {
        servers.kill(node);
    }
    until("the loss of all nodes is noticed", || {
        cache.stats().mode == Mode::Fallback
    })
    .await;
    rows.change();
    assert_eq!(cache.delete_matching("row:*").await, Evicted::Journaled);
    assert_eq!(rows.read_all(&cache).await, BTreeSet::from([1]));
    for node in 0..servers.len() {
        servers.restart(node).unwrap();
    }
    servers.settle().unwrap();

    all_connected(&cache, 3).await;
    until("the journal is applied", || {
        cache.stats().journal_depth == 0
    })
    .await;
    assert_eq!(rows.read_all(&cache).await, BTreeSet::from([1]));
    assert_eq!(rows.loads_of_all(&cache).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_is_applied_after_the_nodes_refused_all_slots_for_a_moment() {
    let servers = servers();
    let primaries = servers.primaries().unwrap();
    let tell = |command: &[&str]| {
        for node in &primaries {
            let () = ask(servers.server(*node), command);
        }
    };
    // A slot without an owner, from the beginning: so nothing in the table changes when the nodes refuse the others.
    tell(&["CLUSTER", "DELSLOTS", "0"]);
    let cache = connect(&servers).await;
    let rows = Rows::default();
    rows.read_all(&cache).await;

    tell(&["CONFIG", "SET", "cluster-require-full-coverage", "yes"]);
    // A node looks at its own state when its table may have changed.
    tell(&["CLUSTER", "SETSLOT", "1", "STABLE"]);
    until("all nodes refuse all slots", || {
        let says = |node: &usize| ask::<String>(servers.server(*node), &["CLUSTER", "INFO"]);
        let mut nodes = primaries.iter();
        nodes.all(|node| says(node).contains("cluster_state:fail"))
    })
    .await;
    rows.change();
    assert_eq!(cache.delete("row:1").await, Evicted::Journaled);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rows.read(&cache, 1).await, 1);
    tell(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);

    until("the journal is applied", || {
        cache.stats().journal_depth == 0
    })
    .await;
    assert_eq!(rows.read(&cache, 1).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_finds_all_keys_while_slots_move() {
    let servers = servers();
    let store = store(&servers).await;
    let keys: Vec<_> = (0..3_000).map(|row| key(&format!("row:{row}"))).collect();
    let entries: Vec<_> = keys
        .iter()
        .map(|key| (key.clone(), b"entry".to_vec()))
        .collect();
    for part in entries.chunks(500) {
        store.set_many(part, TTL).await.unwrap();
    }
    let primaries = servers.primaries().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let mover = {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            // Back and forth between the first two primaries.
            for to in primaries.iter().take(2).cycle() {
                for first in (0..300).step_by(50) {
                    if is_over.load(Ordering::SeqCst) {
                        return servers;
                    }
                    servers.reshard(first..=first + 49, *to).unwrap();
                }
            }
            servers
        })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;

    let pattern = [Pattern::parse("dev_", "row:*").unwrap()];
    let (mut names, mut walk) = (BTreeSet::new(), Some(Walk::within(Reach::Everything)));
    let mut steps = 0;
    while let Some(from) = walk {
        // The slots must not move faster than a walk ends.
        steps += 1;
        if steps == 40 {
            is_over.store(true, Ordering::SeqCst);
        }
        let Walked {
            names: found,
            next,
            missed,
            ..
        } = store.walk(&pattern, &from).await.unwrap();
        assert!(missed.is_nothing());
        names.extend(found.into_iter().map(|key| key.as_str().to_owned()));
        walk = next;
    }
    is_over.store(true, Ordering::SeqCst);

    assert_eq!(names.len(), keys.len());
    drop(mover.join().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_ends_while_a_slot_stays_open() {
    let servers = servers();
    let store = store(&servers).await;
    let key = key("row:1");
    store
        .set_many(&[(key.clone(), b"entry".to_vec())], TTL)
        .await
        .unwrap();
    let migration = begin_to_move(&servers, &key);
    servers.move_keys(migration, 1).unwrap();

    let pattern = [Pattern::parse("dev_", "row:*").unwrap()];
    let (mut names, mut walk) = (Vec::new(), Some(Walk::within(Reach::Everything)));
    while let Some(from) = walk {
        let walked = store.walk(&pattern, &from).await.unwrap();
        names.extend(walked.names);
        walk = walked.next;
    }

    assert!(names.contains(&key));
    assert_eq!(
        store.delete_entries(&names).await.unwrap().removed,
        0,
        "it is no entry"
    );
    assert_eq!(store.delete(&names[..1]).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_lists_the_keys_of_all_nodes() {
    let servers = servers();
    let store = store(&servers).await;
    let keys: Vec<_> = (0..300).map(|row| key(&format!("row:{row}"))).collect();
    let entries: Vec<_> = keys
        .iter()
        .map(|key| (key.clone(), b"entry".to_vec()))
        .collect();
    store.set_many(&entries, TTL).await.unwrap();

    let pattern = [Pattern::parse("dev_", "row:*").unwrap()];
    let (mut names, mut cursor) = (BTreeSet::new(), Some(Cursor::default()));
    while let Some(from) = cursor {
        let page = store.scan(&pattern, from).await.unwrap();
        names.extend(page.names.into_iter().map(|key| key.as_str().to_owned()));
        cursor = page.next;
    }

    assert_eq!(names.len(), keys.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_without_a_node_and_a_cluster_that_is_down_are_told() {
    let log = Log::listen(tracing::Level::WARN);
    let mut servers = Servers::builder().full_coverage().start().unwrap();
    let cache = connect(&servers).await;
    let lines = log.take();
    let said =
        |line: &Line| line.fields["message"].contains("`cluster-require-full-coverage` is `yes`");
    assert!(lines.iter().any(said), "{lines:?}");
    let killed = servers.primaries().unwrap()[0];
    let replica = servers.replica_of(killed).unwrap();

    servers.kill(replica);
    servers.kill(killed);
    until("the cluster is down", || cache.problems().len() == 2).await;

    let problems = cache.problems();
    assert!(problems[0].contains("CLUSTERDOWN"), "{problems:?}");
    assert_eq!(problems[1], "no node serves the slots 0-5460");
    let health = cache.health().detail().await;
    assert_eq!(health.status, HealthStatus::Degraded);
    servers.restart(killed).unwrap();
    servers.restart(replica).unwrap();
    servers.settle().unwrap();
    all_connected(&cache, 3).await;
    until("the cluster is up", || cache.problems().is_empty()).await;
}

/// Gives a slot to another primary without moving its keys, with an epoch that all accept.
fn take_by_force(servers: &Servers, slot: u16, to: usize) {
    let (slot, id) = (slot.to_string(), servers.id(to).to_owned());
    let node = servers.server(to);
    let _: String = ask(node, &["CLUSTER", "BUMPEPOCH"]);
    let _: String = ask(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_is_applied_again_where_a_slot_went_by_force() {
    let servers = servers();
    let cache = connect(&servers).await;
    let rows = Rows::default();
    assert_eq!(rows.read(&cache, 3).await, 0);
    let moving = Key::parse("test_", "row:3").unwrap();
    let migration = begin_to_move(&servers, &moving);
    let [from, to] = [migration.from(), migration.to()];
    // An attempt to move the slot that was given up left an old entry at the other node.
    servers.move_keys(migration, 100).unwrap();
    let number = migration.slot().to_string();
    for node in [from, to] {
        let stable = ["CLUSTER", "SETSLOT", &number, "STABLE"];
        let _: String = ask(servers.server(node), &stable);
    }
    let version = rows.change();
    assert_eq!(cache.delete("row:3").await, Evicted::Applied { keys: 0 });
    assert_eq!(rows.read(&cache, 3).await, version);
    let version = rows.change();
    assert_eq!(cache.delete("row:3").await, Evicted::Applied { keys: 1 });

    take_by_force(&servers, migration.slot(), to);
    servers.settle().unwrap();

    for _ in 0..20 {
        assert_eq!(rows.read(&cache, 3).await, version);
    }
    until("the journal is applied", || {
        cache.stats().journal_depth == 0
    })
    .await;
    let loads = rows.loads.load(Ordering::SeqCst);
    until_cached(&rows, &cache, 3).await;
    assert_eq!(rows.read(&cache, 3).await, version);
    assert!(rows.loads.load(Ordering::SeqCst) <= loads + 100);
}

async fn until_cached(rows: &Rows, cache: &Cache, row: usize) {
    for _ in 0..100 {
        let before = rows.loads.load(Ordering::SeqCst);
        rows.read(cache, row).await;
        if rows.loads.load(Ordering::SeqCst) == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("row {row} is not cached");
}

/// Reads what a node of a cluster answered after a failover.
fn report() -> Answer {
    let vector = include_bytes!("../slots/vectors/failover.resp3");
    let Ok(Value::Array(answers)) = redis::parse_redis_value(vector) else {
        panic!("not a list")
    };
    let asked = Address::Tcp("seed".into(), 43_699);
    Answer::read(answers, &asked, false, &Places::default()).unwrap()
}

#[test]
fn a_repeated_report_is_learned_again_only_if_the_table_changed_in_between() {
    let mut known = Known::default();
    let owner = |known: &Known, slot| known.table.owner(slot).unwrap().clone();
    let slot = Slot::numbered(16_383).unwrap();

    assert!(known.learn(report()));
    let table = Arc::clone(&known.table);
    for _ in 0..2 {
        assert!(!known.learn(report()));
        assert!(Arc::ptr_eq(&known.table, &table));
    }
    let reporter = known.table.member(report().reporter).unwrap().clone();
    let before = owner(&known, slot);
    assert_ne!(before, reporter);
    assert!(known.moved(slot, before.id, &reporter.address));
    assert_eq!(owner(&known, slot), reporter);

    assert!(
        known.learn(report()),
        "the reporter says that it is not the owner"
    );
    assert_ne!(known.table.owner(slot), Some(&reporter));
}

#[test]
fn the_slot_of_a_command_is_that_of_its_first_key() {
    let slot = Slot::of(b"dev_a");
    let command = |words: &[&str]| redis::cmd(words[0]).arg(&words[1..]).take();

    assert_eq!(slot_of(&command(&["GET", "dev_a"])), slot);
    assert_eq!(slot_of(&command(&["SET", "dev_a", "v", "PX", "1"])), slot);
    assert_eq!(
        slot_of(&command(&["EVALSHA", "0123", "2", "dev_a", "dev_b"])),
        slot
    );
    assert_eq!(
        slot_of(&command(&["EVAL", "return 1", "1", "dev_a", "x"])),
        slot
    );
}

#[tokio::test]
async fn a_single_server_is_refused_with_advice() {
    let server = testing::RedisServer::builder().tcp().start().unwrap();
    let config = Config {
        redis: Some(Topology::Cluster {
            nodes: vec![server.address().clone()],
        }),
        ..server.config()
    };

    let error = Cache::connect(config).await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Config);
    let advice = format!("use `redis://{}`", server.address());
    assert!(error.to_string().contains(&advice), "{error}");
}
