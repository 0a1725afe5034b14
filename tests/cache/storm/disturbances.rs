//! What happens to a cluster during a storm.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cache_runtime::testing::{Cluster, Failover};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, timeout};

use super::World;
use super::database::Place;
use super::stage::Stage;
use super::whim::Whim;

/// How long the processes may take until they use the cluster again.
const RECOVERY: Duration = Duration::from_secs(60);

/// How long the primary acknowledges what its replica does not get.
const LOSING: Duration = Duration::from_millis(300);

/// How long slots stay open, and how long they stay at another node.
const OPEN: Duration = Duration::from_millis(50);
const AWAY: Duration = Duration::from_millis(150);

const POLL: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// Slots move to another primary under load, and back.
    Reshard,
    /// A replica takes the place of its primary.
    Failover(Failover),
    /// A primary dies. Its replica, which lacks the last evictions, takes its place. The primary comes back as a replica.
    Loss,
    /// A primary dies, and the others replace it. It comes back as a replica.
    Kill,
}

const EACH: [Disturbance; 6] = [
    Disturbance::Reshard,
    Disturbance::Failover(Failover::Plain),
    Disturbance::Loss,
    Disturbance::Failover(Failover::Force),
    Disturbance::Kill,
    Disturbance::Failover(Failover::Takeover),
];

/// The disturbances of one storm.
pub(super) struct Disturbances<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) worlds: &'a [World; 2],
    pub(super) whim: Whim,
    pub(super) stage: Arc<Stage>,
}

impl Disturbances<'_> {
    /// Disturbs the cluster in each way, and again until `end`.
    pub(super) async fn happen(mut self, end: Instant) {
        loop {
            for disturbance in EACH {
                self.happens(disturbance).await;
            }
            if Instant::now() > end {
                return;
            }
        }
    }

    /// Disturbs the cluster under load. Then the callers rest until both processes have recovered, and nothing is old.
    async fn happens(&mut self, disturbance: Disturbance) {
        let row = Place::any(&mut self.whim);
        let [first, _] = self.worlds;
        first.database.disturbance_begins();
        let errors = self.errors();
        if matches!(disturbance, Disturbance::Loss) {
            self.stage.stop_clock();
        }
        let happened = match disturbance {
            Disturbance::Reshard => self.reshard(row.group).await,
            Disturbance::Failover(how) => self.failover(row, how),
            Disturbance::Loss => self.lose_evictions(row).await,
            Disturbance::Kill => self.kill(row),
        };
        happened
            .and_then(|()| block_in_place(|| self.cluster.settle()))
            .unwrap_or_else(|error| panic!("{disturbance}: {error}"));
        // Where no server dies, every command finds the node of its key.
        if !matches!(disturbance, Disturbance::Loss | Disturbance::Kill) {
            assert_eq!(self.errors(), errors, "{disturbance}");
        }
        let recovery = timeout(RECOVERY, self.recovery()).await;
        recovery.unwrap_or_else(|_| panic!("no recovery within {RECOVERY:?}: {disturbance}"));
        first.database.disturbance_ends();
        self.stage.run_clock();
    }

    /// Returns how many operations have failed in each process with an answer of a node, or with their connection.
    fn errors(&self) -> [u64; 2] {
        self.worlds
            .each_ref()
            .map(|world| world.cache.stats().total.errors)
    }

    /// Waits until both processes use the present primaries, although calls go on, and until nothing is old while no call runs.
    async fn recovery(&self) {
        let cluster = &*self.cluster;
        let primaries = block_in_place(|| cluster.primaries()).expect("a node answers");
        let addresses = primaries.iter().map(|node| cluster.address(*node));
        let addresses: BTreeSet<_> = addresses.map(ToString::to_string).collect();
        for world in self.worlds {
            while !world.uses_exactly(&addresses).await {
                sleep(POLL).await;
            }
        }
        self.stage.stop_clock();
        let _rest = self.stage.rest().await;
        for world in self.worlds {
            // This process learns of slots that moved.
            world.read_all().await;
            while world.cache.stats().journal_depth > 0 {
                sleep(POLL).await;
            }
        }
        for world in self.worlds {
            while !world.none_is_old().await {
                sleep(POLL).await;
            }
        }
    }

    /// Moves the slots of the rows of a group, and of the record of their tag.
    async fn reshard(&self, group: usize) -> io::Result<()> {
        let cluster = &*self.cluster;
        let rows = Place::of_group(group);
        let mut keys: Vec<_> = rows.iter().map(|row| row.redis_key()).collect();
        keys.push(format!("test_cache:tag:group:{group}"));
        let moves = block_in_place(|| {
            let slots = keys.iter().map(|key| cluster.slot(key));
            let slots: BTreeSet<u16> = slots.collect::<io::Result<_>>()?;
            let primaries = cluster.primaries()?;
            let mut moves = Vec::new();
            for slot in slots {
                let owner = cluster.owner(slot)?;
                let mut others = primaries.iter().filter(|other| **other != owner);
                let other = others.next().ok_or_else(|| io::Error::other("no other"))?;
                moves.push((slot, owner, *other));
            }
            io::Result::Ok(moves)
        })?;
        let there = moves.iter().map(|(slot, _, other)| (*slot, *other));
        let back = moves.iter().map(|(slot, owner, _)| (*slot, *owner));
        self.move_slots(there.collect()).await?;
        sleep(AWAY).await;
        self.move_slots(back.collect()).await
    }

    /// Moves each slot to a node. All of them stay open for a while, with some of their keys at the old owner.
    async fn move_slots(&self, moves: Vec<(u16, usize)>) -> io::Result<()> {
        let cluster = &*self.cluster;
        let begin = |(slot, to): &(u16, usize)| cluster.begin_migration(*slot, *to);
        let open: Vec<_> = block_in_place(|| moves.iter().map(begin).collect::<io::Result<_>>())?;
        sleep(OPEN).await;
        for (number, migration) in open.iter().enumerate() {
            if number % 2 == 0 {
                block_in_place(|| cluster.move_keys(*migration, 1))?;
            }
        }
        sleep(OPEN).await;
        block_in_place(|| {
            for migration in open {
                cluster.finish_migration(migration)?;
            }
            cluster.settle()?;
            for (slot, to) in moves {
                assert_eq!(cluster.owner(slot)?, to, "the owner of slot {slot}");
            }
            Ok(())
        })
    }

    fn failover(&self, row: Place, how: Failover) -> io::Result<()> {
        let cluster = &*self.cluster;
        block_in_place(|| {
            let slot = cluster.slot(&row.redis_key())?;
            let replica = cluster.replica_of(cluster.owner(slot)?)?;
            cluster.failover(replica, how)?;
            assert_eq!(cluster.owner(slot)?, replica, "the owner of slot {slot}");
            Ok(())
        })
    }

    async fn lose_evictions(&mut self, row: Place) -> io::Result<()> {
        let filler = format!("filler:{{{}}}", row.redis_key());
        let cluster = &mut *self.cluster;
        let (primary, replica) = block_in_place(|| {
            let primary = cluster.owner(cluster.slot(&filler)?)?;
            let replica = cluster.replica_of(primary)?;
            cluster.pause(replica)?;
            fill_the_way_from(cluster, primary, &filler)?;
            io::Result::Ok((primary, replica))
        })?;
        sleep(LOSING).await;
        block_in_place(|| {
            cluster.kill(primary);
            cluster.resume(replica)?;
            cluster.failover(replica, Failover::Takeover)?;
            remove(cluster, replica, &filler)?;
            cluster.restart(primary)?;
            cluster.settle()?;
            assert_eq!(cluster.replica_of(replica)?, primary);
            Ok(())
        })
    }

    fn kill(&mut self, row: Place) -> io::Result<()> {
        let cluster = &mut *self.cluster;
        block_in_place(|| {
            let slot = cluster.slot(&row.redis_key())?;
            let primary = cluster.owner(slot)?;
            let replica = cluster.replica_of(primary)?;
            cluster.kill(primary);
            cluster.settle()?;
            assert_eq!(cluster.owner(slot)?, replica, "the owner of slot {slot}");
            cluster.restart(primary)?;
            cluster.settle()?;
            assert_eq!(cluster.replica_of(replica)?, primary);
            Ok(())
        })
    }
}

/// Writes so much that what is written next does not reach the frozen replica of a primary, not even after the primary is gone.
fn fill_the_way_from(cluster: &Cluster, primary: usize, key: &str) -> io::Result<()> {
    const MEGABYTES: usize = 32;
    let value = vec![b'x'; 1 << 20];
    let fill = || {
        let client = redis::Client::open(cluster.server(primary).url())?;
        let mut connection = client.get_connection()?;
        let set = redis::Cmd::set(key, &value);
        (0..MEGABYTES).try_for_each(|_| set.exec(&mut connection))
    };
    fill().map_err(io::Error::other)
}

fn remove(cluster: &Cluster, primary: usize, key: &str) -> io::Result<()> {
    let remove = || {
        let client = redis::Client::open(cluster.server(primary).url())?;
        redis::Cmd::del(key).exec(&mut client.get_connection()?)
    };
    remove().map_err(io::Error::other)
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reshard => f.write_str("slots moved there and back"),
            Self::Failover(how) => write!(f, "failover: {how:?}"),
            Self::Loss => f.write_str("failover to a replica that lacks the last evictions"),
            Self::Kill => f.write_str("primary killed and restarted"),
        }
    }
}
