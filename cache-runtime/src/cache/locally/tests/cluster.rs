//! Values of a cluster: each primary reports the changes of its own keys.

use std::time::Instant;

use super::*;
use crate::testing::{Cluster, Failover};

static MEMBER_OF: Site = Site::new("tests::member_of", "user:<id>")
    .reads()
    .tags("team:<id>")
    .local_millis(60_000);

const USERS: u32 = 12;

/// A cluster, a cache, and a database whose rows have one version.
struct Team {
    servers: Cluster,
    cache: Cache,
    version: AtomicU32,
    loads: AtomicU32,
}

impl Team {
    async fn new(servers: Cluster) -> Self {
        let config = Config {
            // A machine that builds and tests at the same time is slow.
            command_timeout: Duration::from_secs(1),
            command_timeout_max: Duration::from_secs(2),
            ..servers.config()
        };
        Self {
            servers,
            cache: Cache::connect(config).await.expect("a configuration"),
            version: AtomicU32::new(1),
            loads: AtomicU32::new(0),
        }
    }

    /// Returns a team whose members are all served without Redis.
    async fn warm() -> Self {
        let team = Self::new(Cluster::start().expect("a cluster")).await;
        for id in 0..USERS {
            team.until_certain(id).await;
        }
        team
    }

    async fn user(&self, id: u32) -> u32 {
        let mut call = ReadCall::by(&MEMBER_OF, &self.cache);
        if let Some(mut key) = call.key("user:") {
            key.value(&id);
        }
        if let Some(mut tag) = call.tag("team:") {
            tag.value(&id);
        }
        let outcome = Some(Returns::<Arc<User>>::new().__outcome());
        let no_tags = |_: &Arc<User>, _: &mut TagWriter| {};
        let mut call = cacheable_local(call, outcome, keep, no_own_ttl, no_tags);
        let body = pin!(async {
            self.loads.fetch_add(1, SeqCst);
            Arc::new(User {
                version: self.version.load(SeqCst),
            })
        });
        let call = &mut call;
        Bodied { call, body }.await.version
    }

    /// Returns whether a call is served without Redis, and does call.
    async fn is_certain(&self, id: u32) -> bool {
        let before = (self.loads.load(SeqCst), self.asked());
        self.user(id).await;
        before == (self.loads.load(SeqCst), self.asked())
    }

    async fn until_certain(&self, id: u32) {
        let certain = async {
            while !self.is_certain(id).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let certain = timeout(Duration::from_secs(20), certain).await;
        certain.expect("it is served without Redis");
    }

    /// How often the store was asked for a value or its stamp.
    fn asked(&self) -> u64 {
        let stats = self.cache.stats();
        let operations = stats.operations.iter();
        let asked =
            operations.filter(|op| ["get", "get many", "confirm", "tags"].contains(&op.operation));
        asked.map(|op| op.time.count).sum()
    }

    fn owner(&self, name: &str) -> usize {
        let slot = self.servers.slot(name).expect("a node answers");
        self.servers.owner(slot).expect("an owner")
    }

    fn reading(&self, name: &str) -> Reading {
        let doubts = &self.cache.inner.local.doubts;
        doubts.reading(doubts.place(name.as_bytes()))
    }

    fn is_trusted(&self, name: &str) -> bool {
        let doubts = &self.cache.inner.local.doubts;
        doubts.is_trusted(doubts.place(name.as_bytes()), doubts.latest())
    }

    /// Changes the rows, and removes a key by hand at its owner, as another process would.
    fn change_elsewhere(&self, name: &str) -> u32 {
        let version = self.version.fetch_add(1, SeqCst) + 1;
        let _: u32 = ask(self.servers.server(self.owner(name)), &["DEL", name]);
        version
    }
}

fn user(id: u32) -> String {
    format!("test_user:{id}")
}

fn team(id: u32) -> String {
    format!("test_cache:tag:team:{id}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_primary_reports_the_changes_of_its_keys_and_tags() {
    let team_of = Team::warm().await;
    let owners: std::collections::BTreeSet<_> =
        (0..USERS).map(|id| team_of.owner(&user(id))).collect();
    assert_eq!(owners.len(), 3, "the keys are at all primaries");

    for id in 0..USERS {
        for name in [user(id), team(id)] {
            team_of.until_certain(id).await;
            let before = team_of.reading(&name);
            let version = team_of.change_elsewhere(&name);
            until("the change is heard", || team_of.reading(&name) != before).await;

            assert_eq!(team_of.user(id).await, version, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_a_primary_leaves_the_values_of_the_others_certain() {
    let mut team_of = Team::warm().await;
    let killed = team_of.owner(&user(0));
    let concerns =
        |id: &u32| team_of.owner(&user(*id)) == killed || team_of.owner(&team(*id)) == killed;
    let (own, others): (Vec<_>, Vec<_>) = (0..USERS).partition(concerns);
    assert!(!others.is_empty());

    team_of.servers.kill(killed);
    until("its loss is noticed", || !team_of.is_trusted(&user(0))).await;
    for id in &others {
        assert!(team_of.is_certain(*id).await, "user {id}");
    }
    for id in &own {
        assert!(!team_of.is_certain(*id).await, "user {id}");
    }

    // The values are confirmed at the promoted replica, and its changes are heard.
    team_of.servers.settle().expect("the replica is promoted");
    for id in own {
        team_of.until_certain(id).await;
    }
    let before = team_of.reading(&user(0));
    let version = team_of.change_elsewhere(&user(0));
    until("the change is heard", || {
        team_of.reading(&user(0)) != before
    })
    .await;
    assert_eq!(team_of.user(0).await, version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_becomes_a_replica_is_not_trusted_for_longer_than_the_staleness() {
    let team_of = Team::warm().await;
    let before = team_of.reading(&user(0));
    let primary = team_of.owner(&user(0));
    let replica = team_of.servers.replica_of(primary).expect("a replica");

    // Nothing is sent, so no redirection reports the failover.
    team_of
        .servers
        .failover(replica, Failover::Plain)
        .expect("promoted");
    let began = Instant::now();
    until("its listener notices that", || {
        team_of.reading(&user(0)).gaps != before.gaps
    })
    .await;

    // The table of slots is read every 10 s.
    assert!(began.elapsed() < Duration::from_secs(5));
    let version = team_of.change_elsewhere(&user(0));
    let staleness = team_of.cache.config().local_staleness;
    tokio::time::sleep(staleness).await;
    assert_eq!(team_of.user(0).await, version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_the_others_cannot_reach_is_not_trusted() {
    let team_of = Team::warm().await;
    let primary = team_of.owner(&user(0));

    for node in (0..team_of.servers.len()).filter(|node| *node != primary) {
        team_of.servers.pause(node).expect("paused");
    }

    // It still answers pings.
    until("it is not trusted", || !team_of.is_trusted(&user(0))).await;
    assert_eq!(
        ask::<String>(team_of.servers.server(primary), &["PING"]),
        "PONG"
    );
    for node in (0..team_of.servers.len()).filter(|node| *node != primary) {
        team_of.servers.resume(node).expect("resumed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_whose_slot_moved_is_confirmed_at_the_new_owner() {
    let mut team_of = Team::warm().await;
    let (name, from) = (user(0), team_of.owner(&user(0)));
    let to = (from + 1) % 3;
    let slot = team_of.servers.slot(&name).expect("a slot");
    let loads = team_of.loads.load(SeqCst);
    let before = team_of.reading(&name);

    team_of.servers.reshard(slot..=slot, to).expect("moved");
    until("the move is heard", || team_of.reading(&name) != before).await;
    assert!(!team_of.is_certain(0).await);
    team_of.until_certain(0).await;
    assert_eq!(team_of.loads.load(SeqCst), loads);

    let before = team_of.reading(&name);
    let version = team_of.change_elsewhere(&name);
    until("the new owner reports it", || {
        team_of.reading(&name) != before
    })
    .await;
    assert_eq!(team_of.user(0).await, version);

    team_of.until_certain(0).await;
    team_of.servers.kill(to);
    until("the new owner is lost", || !team_of.is_trusted(&name)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_whose_slot_is_moving_is_not_served_unasked() {
    let team_of = Team::warm().await;
    let (name, from) = (user(0), team_of.owner(&user(0)));
    let slot = team_of.servers.slot(&name).expect("a slot");
    let migration = team_of
        .servers
        .begin_migration(slot, (from + 1) % 3)
        .expect("begun");
    let before = team_of.reading(&name);
    team_of.servers.move_keys(migration, 100).expect("moved");
    until("the move is heard", || team_of.reading(&name) != before).await;

    for _ in 0..20 {
        assert!(!team_of.is_certain(0).await);
    }
    team_of
        .servers
        .finish_migration(migration)
        .expect("finished");
    team_of.until_certain(0).await;
}
