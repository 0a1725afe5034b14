use super::*;

fn set(cluster: &Cluster, node: usize, key: &str) {
    cluster.nodes[node].ask::<()>(&["SET", key, "1"]).unwrap();
}

fn get(cluster: &Cluster, node: usize, key: &str) -> io::Result<Option<String>> {
    cluster.nodes[node].ask(&["GET", key])
}

#[test]
fn a_cluster_serves_all_slots_and_each_primary_has_a_replica() {
    let cluster = Cluster::start().unwrap();

    assert_eq!(cluster.primaries().unwrap(), [0, 1, 2]);
    let replicas = [0, 1, 2].map(|primary| cluster.replica_of(primary).unwrap());
    assert_eq!(replicas, [3, 4, 5]);
    for key in ["a", "b", "c", "{user:1}:a"] {
        let owner = cluster.owner(cluster.slot(key).unwrap()).unwrap();
        set(&cluster, owner, key);
        assert_eq!(
            get(&cluster, owner, key).unwrap().as_deref(),
            Some("1"),
            "{key}"
        );
    }
    let hosts = [0, 1, 2].map(|node| cluster.address(node).to_string());
    assert_eq!(
        cluster.url(),
        format!("redis+cluster://{}", hosts.join(","))
    );
}

#[test]
fn a_slot_moves_with_its_keys_step_by_step() {
    let cluster = Cluster::builder().password("p@ss").start().unwrap();
    assert!(cluster.url().starts_with("redis+cluster://:p%40ss@"));
    let keys: Vec<_> = (0..150).map(|n| format!("{{a}}:{n}")).collect();
    let slot = cluster.slot("{a}").unwrap();
    let from = cluster.owner(slot).unwrap();
    let to = (from + 1) % PRIMARIES;
    for key in &keys {
        set(&cluster, from, key);
    }

    let migration = cluster.begin_migration(slot, to).unwrap();
    assert_eq!(cluster.move_keys(migration, 10).unwrap(), 10);
    assert_eq!(cluster.owner(slot).unwrap(), from, "the slot is still open");
    let asked = |key: &String| {
        let refused = get(&cluster, from, key).map_err(|error| error.to_string());
        refused.is_err_and(|error| error.to_uppercase().contains("ASK"))
    };
    assert_eq!(keys.iter().filter(|key| asked(key)).count(), 10);

    cluster.abort_migration(migration).unwrap();
    assert_eq!(keys.iter().filter(|key| asked(key)).count(), 0);
    assert_eq!(get(&cluster, from, "{a}:0").unwrap().as_deref(), Some("1"));

    let migration = cluster.begin_migration(slot, to).unwrap();
    cluster.finish_migration(migration).unwrap();
    assert_eq!(cluster.owner(slot).unwrap(), to);
    for key in &keys {
        assert_eq!(get(&cluster, to, key).unwrap().as_deref(), Some("1"));
    }
}

#[test]
fn a_range_of_slots_moves_there_and_back() {
    let cluster = Cluster::start().unwrap();
    let key = (0..)
        .map(|n| format!("a{n}"))
        .find(|key| cluster.slot(key).unwrap() < 100)
        .unwrap();
    set(&cluster, 0, &key);

    cluster.reshard(0..=99, 1).unwrap();
    assert_eq!(cluster.owner(0).unwrap(), 1);
    assert_eq!(cluster.owner(99).unwrap(), 1);
    assert_eq!(cluster.owner(100).unwrap(), 0);
    assert_eq!(get(&cluster, 1, &key).unwrap().as_deref(), Some("1"));
    assert!(get(&cluster, 0, &key).is_err(), "the old owner redirects");

    cluster.reshard(0..=120, 0).unwrap();
    assert_eq!(cluster.owner(0).unwrap(), 0);
    cluster.settle().unwrap();
    assert_eq!(get(&cluster, 0, &key).unwrap().as_deref(), Some("1"));
}

#[test]
fn a_replica_takes_over_in_each_way() {
    let cluster = Cluster::start().unwrap();
    let slot = cluster.slot("a").unwrap();
    let first = cluster.owner(slot).unwrap();
    let second = cluster.replica_of(first).unwrap();

    cluster.failover(second, Failover::Plain).unwrap();
    assert_eq!(cluster.owner(slot).unwrap(), second);
    cluster.settle().unwrap();
    assert_eq!(cluster.replica_of(second).unwrap(), first);

    cluster.failover(first, Failover::Takeover).unwrap();
    assert_eq!(cluster.owner(slot).unwrap(), first);
    cluster.settle().unwrap();

    cluster.pause(first).unwrap();
    cluster.failover(second, Failover::Force).unwrap();
    assert_eq!(cluster.owner(slot).unwrap(), second);
    cluster.resume(first).unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.replica_of(second).unwrap(), first);

    let refused = cluster.failover(second, Failover::Plain).unwrap_err();
    assert!(refused.to_string().contains("replica"), "{refused}");
}

#[test]
fn a_replica_that_is_elected_before_it_is_asked_has_taken_over() {
    let mut cluster = Cluster::start().unwrap();
    let slot = cluster.slot("a").unwrap();
    let first = cluster.owner(slot).unwrap();
    let second = cluster.replica_of(first).unwrap();
    cluster.pause(first).unwrap();

    // It is asked so late that the others elect it first.
    cluster.election = Duration::from_secs(6);
    *cluster.nodes[second].promoted.lock() = Some(Instant::now());
    cluster.failover(second, Failover::Force).unwrap();

    assert_eq!(cluster.owner(slot).unwrap(), second);
}

#[test]
fn a_slot_whose_owner_has_forgotten_it_is_given_back() {
    let cluster = Cluster::start().unwrap();
    let slot = cluster.slot("a").unwrap();
    let owner = cluster.owner(slot).unwrap();
    let forget = ["CLUSTER", "DELSLOTS", &slot.to_string()];
    cluster.nodes[owner].ask::<()>(&forget).unwrap();
    assert!(get(&cluster, owner, "a").is_err());

    cluster.settle().unwrap();

    assert_eq!(get(&cluster, owner, "a").unwrap(), None);
}

#[test]
fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
    let mut cluster = Cluster::start().unwrap();
    let slot = cluster.slot("a").unwrap();
    let first = cluster.owner(slot).unwrap();
    let second = cluster.replica_of(first).unwrap();
    set(&cluster, first, "a");
    let id = cluster.id(first).to_owned();

    cluster.kill(first);
    cluster.settle().unwrap();
    assert_eq!(cluster.owner(slot).unwrap(), second);

    cluster.restart(first).unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.replica_of(second).unwrap(), first);
    assert_eq!(cluster.id(first), id);
    assert_eq!(
        get(&cluster, second, "a").unwrap().as_deref(),
        Some("1"),
        "the replica had it"
    );
}

#[test]
fn full_coverage_is_an_option() {
    let keys = ["a", "b", "c", "d", "e"];
    for (mut builder, is_full) in [(Cluster::builder(), false), (Cluster::builder(), true)] {
        if is_full {
            builder = builder.full_coverage();
        }
        let mut cluster = builder
            .args(["--cluster-replica-no-failover", "yes"])
            .start()
            .unwrap();

        cluster.kill(0);
        let refused = |node: usize| {
            keys.iter().any(|key| {
                let answer = get(&cluster, node, key).map_err(|error| error.to_string());
                answer.is_err_and(|error| error.to_uppercase().contains("CLUSTERDOWN"))
            })
        };
        let deadline = Instant::now() + Duration::from_secs(3);
        let mut is_down = false;
        while is_full && !is_down && Instant::now() < deadline {
            is_down = refused(1) && refused(2);
            thread::sleep(POLL);
        }
        assert_eq!(is_down, is_full);
    }
}

#[test]
fn all_processes_end_with_the_cluster() {
    let cluster = Cluster::start().unwrap();
    let addresses: Vec<_> = (0..cluster.len())
        .map(|node| cluster.address(node).to_string())
        .collect();
    cluster.pause(4).unwrap();

    drop(cluster);

    for address in addresses {
        let opened = std::net::TcpStream::connect(&address);
        assert!(opened.is_err(), "{address} still accepts connections");
    }
}
