//! The vectors are what Redis 7.0 answered to `CLUSTER SHARDS` and `CLUSTER NODES`, as one list.

use redis::Value;

use super::*;
use crate::config::Address;
use crate::store::reply::Failure;
use crate::testing::{Cluster, Failover};

const ADDRESSES: [&[u8]; 2] = [
    include_bytes!("vectors/addresses.resp2"),
    include_bytes!("vectors/addresses.resp3"),
];
const NAMES: &[u8] = include_bytes!("vectors/names.resp3");
const UNKNOWN: &[u8] = include_bytes!("vectors/unknown.resp2");
const ENCRYPTED: &[u8] = include_bytes!("vectors/encrypted.resp3");
const MIGRATING: &[u8] = include_bytes!("vectors/migrating.resp3");
const IMPORTING: &[u8] = include_bytes!("vectors/importing.resp3");
const FAILOVER: &[u8] = include_bytes!("vectors/failover.resp3");

/// The nodes of all vectors but one: the owners of a third of the slots each. The first one answered.
const FIRST: &str = "58ccc268c7448a700c9e70a64e4085ce3851c8c9";
const SECOND: &str = "a92843ed5a8c5f6010f4f4b2c6a4e754bb613ad4";
/// The owner of the last slots until the failover.
const THIRD: &str = "2373e457c0e5af7b85e21a061ea99db8e1ccd4a3";
/// The owner of the last slots after it.
const PROMOTED: &str = "099adc77451ffd4f1bfef9300bc264c9cbcff179";

fn id(text: &str) -> NodeId {
    NodeId::read(text).unwrap()
}

fn slot(number: i64) -> Slot {
    Slot::numbered(number).unwrap()
}

fn at(host: &str, port: u16) -> Address {
    Address::Tcp(host.into(), port)
}

fn read_with(vector: &[u8], is_encrypted: bool, places: &Places) -> Result<Answer, Failure> {
    let answers = match redis::parse_redis_value(vector).unwrap() {
        Value::Array(answers) => answers,
        other => panic!("{other:?}"),
    };
    Answer::read(answers, &at("seed", 43_699), is_encrypted, places)
}

fn read(vector: &[u8]) -> Answer {
    read_with(vector, false, &Places::default()).unwrap()
}

fn table(vector: &[u8]) -> Table {
    let mut table = Table::default();
    table.learn(read(vector));
    table
}

fn owner(table: &Table, number: i64) -> NodeId {
    table.owner(slot(number)).unwrap().id
}

/// Returns the vector as another node would have sent it, with other slots or epochs.
fn altered(vector: &[u8], changes: &[(&str, &str)]) -> Answer {
    let Ok(Value::Array(mut answers)) = redis::parse_redis_value(vector) else {
        panic!("not a list")
    };
    let Some(Value::VerbatimString { text, .. }) = answers.last_mut() else {
        panic!("not a text")
    };
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        *text = text.replace(from, to);
    }
    Answer::read(answers, &at("seed", 43_699), false, &Places::default()).unwrap()
}

#[test]
fn neighbours_are_named_together() {
    let slots = [0, 1, 2, 7, 9, 10].map(slot);

    assert_eq!(ranges(slots), "0-2, 7, 9-10");
    assert_eq!(ranges([]), "");
}

#[test]
fn slots_and_ids_out_of_range_do_not_exist() {
    assert!(Slot::numbered(-1).is_none());
    assert!(Slot::numbered(16_383).is_some());
    assert!(Slot::numbered(16_384).is_none());
    assert_eq!(Slot::all().len(), Slot::COUNT);
    for wrong in [
        "",
        "58cc",
        &"g".repeat(40),
        &"é".repeat(20),
        &"0".repeat(41),
    ] {
        assert!(NodeId::read(wrong).is_none(), "{wrong}");
    }
    assert_eq!(id(FIRST).to_string(), FIRST);
}

#[test]
fn a_table_is_read_from_both_protocols() {
    for vector in ADDRESSES {
        let table = table(vector);

        assert_eq!(owner(&table, 0), id(FIRST));
        assert_eq!(owner(&table, 5_460), id(FIRST));
        assert_eq!(owner(&table, 5_461), id(SECOND));
        assert_eq!(owner(&table, 16_383), id(THIRD));
        assert_eq!(table.slots_of(id(SECOND)).count(), 10_922 - 5_461 + 1);
        assert_eq!(table.members().count(), 6);
        assert_eq!(table.owners().count(), 3);
        let third = table.member(id(THIRD)).unwrap();
        assert_eq!(third.address, at("127.0.0.1", 45_635));
        assert_eq!((third.epoch, third.primary), (4, None));
        let replica = table.member(id(PROMOTED)).unwrap();
        assert_eq!(replica.primary, Some(id(THIRD)));
        assert!(!replica.is_failed);
        assert!(table.open().is_empty());
    }
}

#[test]
fn nodes_are_at_the_addresses_that_they_announce() {
    let host = |table: &Table, number| table.owner(slot(number)).unwrap().address.clone();

    let names = table(NAMES);
    assert_eq!(host(&names, 0), at("node43699.example.com", 43_699));
    // This node has no name.
    let nameless = names
        .members()
        .filter(|member| matches!(&member.address, Address::Tcp(host, _) if host == "127.0.0.1"));
    assert_eq!(nameless.count(), 1);

    let unknown = table(UNKNOWN);
    assert_eq!(host(&unknown, 0), at("seed", 43_699));
    assert_eq!(host(&unknown, 6_000), at("seed", 41_147));

    for (is_encrypted, port) in [(false, 7_391), (true, 7_392)] {
        let mut table = Table::default();
        table.learn(read_with(ENCRYPTED, is_encrypted, &Places::default()).unwrap());
        assert_eq!(host(&table, 9), at("seed", port));
    }
}

#[test]
fn announced_addresses_are_mapped() {
    let places = Places::new([(at("127.0.0.1", 41_147), at("outside", 7_001))]);
    let mut table = Table::default();

    table.learn(read_with(ADDRESSES[1], false, &places).unwrap());

    assert_eq!(
        table.owner(slot(6_000)).unwrap().address,
        at("outside", 7_001)
    );
    assert_eq!(
        table.owner(slot(0)).unwrap().address,
        at("127.0.0.1", 43_699)
    );
}

#[test]
fn redirects_name_a_slot_and_a_place() {
    let places = Places::new([(at("::1", 7_001), at("outside", 7_001))]);
    let read = |line: &str| {
        let error = match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("{other:?}"),
        };
        places.redirect(&error, &at("seed", 7_000))
    };

    assert_eq!(
        read("MOVED 93 127.0.0.1:7002"),
        Some(Redirect::Moved(slot(93), at("127.0.0.1", 7_002)))
    );
    assert_eq!(
        read("ASK 93 node.example.com:7002"),
        Some(Redirect::Ask(slot(93), at("node.example.com", 7_002)))
    );
    for unknown in ["ASK 93 :7002", "ASK 93 ?:7002"] {
        assert_eq!(
            read(unknown),
            Some(Redirect::Ask(slot(93), at("seed", 7_002)))
        );
    }
    assert_eq!(
        read("MOVED 93 ::1:7001"),
        Some(Redirect::Moved(slot(93), at("outside", 7_001)))
    );
    for other in [
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN Hash slot not served",
        "MOVED",
        "MOVED 93",
        "MOVED 16384 127.0.0.1:7002",
        "MOVED x 127.0.0.1:7002",
        "MOVED 93 127.0.0.1:0",
        "MOVED 93 127.0.0.1:70000",
        "MOVED 93 127.0.0.1",
    ] {
        assert_eq!(read(other), None, "{other}");
    }
}

#[test]
fn open_slots_are_known_from_either_side() {
    let expected = (slot(100), id(FIRST), id(SECOND));
    for vector in [MIGRATING, IMPORTING] {
        let table = table(vector);
        assert_eq!(table.open().into_iter().collect::<Vec<_>>(), [expected]);
    }

    // Only the node that reported it can close it.
    let mut table = table(IMPORTING);
    assert!(table.learn(read(ADDRESSES[1])).is_empty());
    assert_eq!(table.open().len(), 1);
    table.learn(altered(
        IMPORTING,
        &[(" [100-<-58ccc268c7448a700c9e70a64e4085ce3851c8c9]", "")],
    ));
    assert!(table.open().is_empty());
}

#[test]
fn a_failover_changes_the_owner_and_an_old_report_does_not_change_it_back() {
    let mut table = table(ADDRESSES[1]);

    let changed = table.learn(read(FAILOVER));

    assert_eq!(changed.len(), 16_383 - 10_923 + 1);
    assert_eq!(changed.first(), Some(&slot(10_923)));
    assert_eq!(owner(&table, 16_383), id(PROMOTED));
    let lagging = read(ADDRESSES[1]);
    assert!(table.learn(lagging).is_empty());
    assert_eq!(owner(&table, 16_383), id(PROMOTED));
    let third = table.member(id(THIRD)).unwrap();
    assert_eq!(
        third.primary,
        Some(id(PROMOTED)),
        "its role is not old news"
    );
}

#[test]
fn the_owner_itself_can_give_up_a_slot() {
    let mut table = table(ADDRESSES[1]);
    let without = [("connected 0-5460", "connected 1-5460")];
    let given = [
        ("connected 0-5460", "connected 1-5460"),
        ("connected 5461-10922", "connected 0 5461-10922"),
    ];

    let answer = altered(ADDRESSES[1], &given);
    assert_eq!(table.learn(answer), [slot(0)]);
    assert_eq!(owner(&table, 0), id(SECOND));

    // Now another node owns it, so this report has no say.
    let answer = altered(ADDRESSES[1], &without);
    assert!(table.learn(answer).is_empty());
    assert!(table.learn(read(ADDRESSES[1])).is_empty());
    assert_eq!(owner(&table, 0), id(SECOND));
}

#[test]
fn a_higher_epoch_takes_a_slot_back() {
    let mut table = table(FAILOVER);
    let back = [
        ("5 connected\n", "6 connected 10923-16383\n"),
        ("5 connected 10923-16383", "5 connected"),
    ];

    table.learn(altered(FAILOVER, &back));

    assert_eq!(owner(&table, 16_383), id(THIRD));
}

#[test]
fn slots_of_a_removed_node_have_the_owner_that_is_reported() {
    let mut table = table(ADDRESSES[1]);
    let taken = ("connected 5461-10922", "connected 5461-16383");
    let left = ("4 connected 10923-16383", "4 connected");
    // Its epoch is lower, and the old owner is still there.
    assert!(
        table
            .learn(altered(ADDRESSES[1], &[taken, left]))
            .is_empty()
    );

    // A node without an address is left out.
    let gone = ("45635@39133 master", "45635@39133 master,noaddr");
    let changed = table.learn(altered(ADDRESSES[1], &[taken, left, gone]));

    assert_eq!(changed.len(), 16_383 - 10_923 + 1);
    assert_eq!(owner(&table, 16_383), id(SECOND));
    assert!(table.member(id(THIRD)).is_none());
}

#[test]
fn moved_counts_from_the_owner_only() {
    let mut table = table(ADDRESSES[1]);
    let [first, second] = [id(FIRST), id(SECOND)];
    let there = at("127.0.0.1", 41_147);

    assert!(!table.moved(slot(7), second, &there));
    assert!(!table.moved(slot(7), first, &at("127.0.0.1", 1)));
    assert!(!table.moved(slot(7), first, &at("127.0.0.1", 43_699)));
    assert_eq!(owner(&table, 7), first);
    assert!(table.moved(slot(7), first, &there));
    assert_eq!(owner(&table, 7), second);
    assert_eq!(owner(&table, 8), first);
    assert!(!table.moved(slot(7), first, &there));

    // A node that has not heard of it yet does not turn it back, and the new owner can send it on.
    assert!(
        table
            .learn(read(FAILOVER))
            .iter()
            .all(|slot| slot.index() != 7)
    );
    assert_eq!(owner(&table, 7), second);
    assert!(table.moved(slot(7), second, &at("127.0.0.1", 43_699)));
    assert_eq!(owner(&table, 7), first);
}

#[test]
fn a_table_without_a_report_knows_nothing() {
    let mut table = Table::default();

    assert!(table.owner(slot(0)).is_none());
    assert!(!table.moved(slot(0), id(FIRST), &at("h", 1)));
    assert_eq!(table.owners().count(), 0);
    assert_eq!(table.slots_of(id(FIRST)).count(), 0);
}

#[test]
fn another_cluster_at_the_same_addresses_replaces_the_table() {
    let mut table = table(FAILOVER);

    let changed = table.learn(read(ENCRYPTED));

    assert_eq!(changed.len(), Slot::COUNT);
    assert_eq!(table.members().count(), 1);
    assert_eq!(table.owners().count(), 1);
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    let read = |shards: &str, nodes: &str| {
        let nodes = format!("${}\r\n{nodes}\r\n", nodes.len());
        let vector = format!("*2\r\n{shards}{nodes}");
        read_with(vector.as_bytes(), false, &Places::default())
    };
    let line = |slots: &str| {
        format!("{FIRST} 127.0.0.1:7000@17000 myself,master - 0 0 1 connected {slots}\n")
    };
    let node = |id: &str, port: &str| {
        format!(
            "*1\r\n*4\r\n$5\r\nslots\r\n*0\r\n$5\r\nnodes\r\n*1\r\n*6\r\n$2\r\nid\r\n${}\r\n{id}\r\n$4\r\nport\r\n{port}\r\n$8\r\nendpoint\r\n$1\r\nh\r\n",
            id.len()
        )
    };
    let good = node(FIRST, ":7000");
    assert!(
        read(
            &good,
            &line("0-5 7 [93->-58ccc268c7448a700c9e70a64e4085ce3851c8c9]")
        )
        .is_ok()
    );

    for shards in [
        ":1\r\n",
        "-ERR This instance has cluster support disabled\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n$5\r\nslots\r\n*0\r\n",
        "*1\r\n*2\r\n$5\r\nnodes\r\n:1\r\n",
        &node("58cc", ":7000"),
        &node(FIRST, ":0"),
        &node(FIRST, ":70000"),
        &node(FIRST, "$1\r\n7"),
        &node(&"0".repeat(40), ":7000"),
    ] {
        assert!(read(shards, &line("0-5")).is_err(), "{shards}");
    }
    for slots in [
        "x",
        "5-3",
        "0-16384",
        "-1",
        "[93]",
        "[93->-58cc]",
        "[x-<-58cc]",
        "[93",
        "0-5-6",
    ] {
        assert!(read(&good, &line(slots)).is_err(), "{slots}");
    }
    for nodes in [
        "",
        "\n",
        "nothing",
        FIRST,
        &line("").replace("myself,", ""),
        &line("").replace(" 1 connected", " x connected"),
        &line("").replace("master - ", "master z "),
    ] {
        assert!(read(&good, nodes).is_err(), "{nodes}");
    }
    let alone = Answer::read(vec![Value::Nil], &at("h", 1), false, &Places::default());
    assert!(alone.is_err());
}

#[test]
fn nodes_that_are_not_met_yet_are_left_out() {
    let answer = altered(ADDRESSES[1], &[(" slave ", " handshake ")]);
    let mut table = Table::default();

    table.learn(answer);

    assert_eq!(table.members().count(), 3);
}

/// Asks a node of a real cluster.
fn ask(cluster: &Cluster, node: usize) -> Answer {
    let client = redis::Client::open(cluster.server(node).url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let answers: Vec<Value> = Answer::questions().query(&mut connection).unwrap();
    Answer::read(answers, cluster.address(node), false, &Places::default()).unwrap()
}

#[test]
fn a_table_follows_a_real_cluster() {
    let cluster = Cluster::start().unwrap();
    let mut table = Table::default();
    table.learn(ask(&cluster, 5));
    for key in ["a", "b", "c", "d", "{user:1}:a"] {
        let slot = Slot::of(key.as_bytes());
        assert_eq!(slot.to_string(), cluster.slot(key).unwrap().to_string());
        let owner = cluster.owner(cluster.slot(key).unwrap()).unwrap();
        assert_eq!(table.owner(slot).unwrap().address, *cluster.address(owner));
    }

    let migration = cluster.begin_migration(9, 1).unwrap();
    table.learn(ask(&cluster, 0));
    let ids = [0, 1].map(|node| id(cluster.id(node)));
    let open: Vec<_> = table.open().into_iter().collect();
    assert_eq!(open, [(slot(9), ids[0], ids[1])]);
    cluster.finish_migration(migration).unwrap();
    assert_eq!(table.learn(ask(&cluster, 1)), [slot(9)]);
    table.learn(ask(&cluster, 0));
    assert!(table.open().is_empty());

    let lagging = ask(&cluster, 0);
    cluster.failover(4, Failover::Plain).unwrap();
    assert!(!table.learn(ask(&cluster, 4)).is_empty());
    assert_eq!(owner(&table, 9), id(cluster.id(4)));
    assert!(table.learn(lagging).is_empty());
    assert_eq!(owner(&table, 9), id(cluster.id(4)));
}
