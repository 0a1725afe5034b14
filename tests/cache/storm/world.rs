//! One of the two processes of the storm.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cache_runtime::{Cache, Config, LocalState, NodeState};
use tokio::task::JoinSet;

use super::STALENESS;
use super::database::{Database, Failed, Known, Place, Row};
use super::functions;
use super::whim::Whim;
use crate::support::{until, used};

/// A report of a change may be late by this much more on a busy machine.
const LATENESS: Duration = Duration::from_secs(1);

/// What entries have, beside a key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entries {
    pub(super) tagged: bool,
    /// Processes keep values.
    pub(super) local: bool,
}

/// One process.
#[derive(Clone)]
pub(super) struct World {
    pub(super) cache: Cache,
    pub(super) database: Arc<Database>,
    pub(super) entries: Entries,
    number: usize,
}

/// How a row is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Plain,
    Grace,
    Behind,
}

impl World {
    /// Two processes. If they keep values, they hear of changes.
    pub(super) async fn two(config: Config, entries: Entries) -> [Self; 2] {
        let bound = match entries.local {
            true => STALENESS + LATENESS,
            false => Duration::ZERO,
        };
        let database = Arc::new(Database::new(bound));
        let world = async |number| Self {
            cache: used(config.clone()).await,
            database: Arc::clone(&database),
            entries,
            number,
        };
        let worlds = [world(0).await, world(1).await];
        if entries.local {
            for world in &worlds {
                until("changes are heard", async || {
                    world.read_all().await;
                    let local = world.cache.stats().local;
                    local.is_some_and(|local| local.state == LocalState::Certain)
                })
                .await;
            }
        }
        worlds
    }

    /// How often the clock is advanced, and by how much. Values in a process are doubtful after each step until its listener has
    /// been answered twice.
    pub(super) fn pace(&self) -> (Duration, Duration) {
        match self.entries.local {
            true => (STALENESS, Duration::from_secs(70)),
            false => (Duration::from_millis(10), Duration::from_secs(30)),
        }
    }

    /// Returns what a call that begins now must know of the row.
    pub(super) fn known(&self, row: Place) -> Known {
        self.database.known(self.number, row)
    }

    /// An eviction or a put of these rows has returned to this process.
    pub(super) fn acknowledge(&self, rows: &[Place], version: u64) {
        self.database.acknowledge(self.number, rows, version);
    }

    pub(super) async fn read(&self, how: How, row: Place, whim: Whim) -> Result<Row, Failed> {
        let Entries { tagged, local } = self.entries;
        match (tagged, local, how) {
            (true, ..) if row.is_named() => functions::read_named(self, row, whim).await,
            (false, true, How::Plain) => functions::read_local(self, row, whim).await,
            (false, true, How::Behind) => {
                functions::read_local_behind(self.clone(), row, whim).await
            }
            (true, true, How::Plain | How::Grace) => {
                functions::read_local_tagged(self, row, whim).await
            }
            (true, true, How::Behind) => {
                functions::read_local_tagged_behind(self.clone(), row, whim).await
            }
            (true, false, How::Plain | How::Grace) => functions::read_tagged(self, row, whim).await,
            (true, false, How::Behind) => {
                functions::read_tagged_behind(self.clone(), row, whim).await
            }
            (false, false, How::Plain) => functions::read(self, row, whim).await,
            (false, _, How::Grace) => functions::read_with_grace(self, row, whim).await,
            (false, false, How::Behind) => functions::read_behind(self.clone(), row, whim).await,
        }
    }

    pub(super) async fn get_or_load(
        &self,
        row: Place,
        load: impl Future<Output = Result<Row, Failed>>,
    ) -> Result<Row, Failed> {
        if !self.entries.tagged {
            return self.cache.get_or_load(&row.key(), 60, load).await;
        }
        let (group, name) = (format!("group:{}", row.group), row.name());
        let tags: &[&str] = match row.is_named() {
            true => &[&group, &name],
            false => &[&group],
        };
        let tagged = self.cache.tagged(tags);
        tagged.get_or_load(&row.key(), 60, load).await
    }

    pub(super) async fn put(&self, row: Place, whim: Whim) -> Result<Row, Failed> {
        match self.entries.tagged {
            true => functions::put_tagged(self, row, whim).await,
            false => functions::put(self, row, whim).await,
        }
    }

    /// Writes the row, or the rows of its group, and evicts them by a tag.
    pub(super) async fn update_tag(
        &self,
        row: Place,
        mut whim: Whim,
    ) -> (Vec<Place>, Result<u64, Failed>) {
        let group = row.group;
        let rows = Place::of_group(group);
        let answer = match whim.below(4) {
            _ if row.is_named() => {
                let written = functions::update_named(self, row, whim).await;
                return (vec![row], written.map(|row| row.version));
            }
            0 => functions::update_tag(self, group, whim).await,
            1 => functions::update_tag_behind_a_fence(self, group, whim).await,
            2 => functions::update_tag_or_fail(self, group, whim).await,
            _ => {
                let version = self.database.write(&rows);
                let _ = self.cache.delete_tagged(&format!("group:{group}")).await;
                Ok(version)
            }
        };
        (rows.to_vec(), answer)
    }

    /// Returns how often each kind of event that makes a storm has happened.
    pub(super) fn events(&self) -> Vec<(&'static str, u64)> {
        let stats = self.cache.stats();
        let total = &stats.total;
        let mut events = vec![
            ("hits", total.hits),
            ("stale hits", total.hits_stale),
            ("shared loads", total.loads_shared),
            ("awaited loads", total.loads_awaited),
            ("failed loads", total.loads_failed),
            ("fills", total.fills),
            ("refused fills", total.fills_refused),
            ("refreshes", total.refreshes),
            ("failed refreshes", total.refreshes_failed),
            ("puts", total.puts - total.puts_degraded),
            ("degraded puts", total.puts_degraded),
            ("journaled evictions", total.evictions_journaled),
        ];
        if self.entries.tagged {
            let by_tag = total.misses_by_reason.get("tag").copied();
            events.push(("misses by tag", by_tag.unwrap_or_default()));
        }
        if self.entries.local {
            let local = stats.local.as_ref();
            events.extend([
                ("hits in the process", total.hits_local),
                ("confirmed values", local.map_or(0, |local| local.confirmed)),
                ("dropped values", local.map_or(0, |local| local.dropped)),
            ]);
        }
        events
    }

    /// Returns whether the cache uses these nodes of a cluster and no others.
    pub(super) async fn uses_exactly(&self, primaries: &BTreeSet<String>) -> bool {
        let nodes = self.cache.health().detail().await.nodes;
        let mut states = nodes.iter().map(|node| node.state);
        let are_used = states.all(|state| state == NodeState::Connected);
        are_used
            && nodes
                .into_iter()
                .map(|node| node.address)
                .eq(primaries.iter().cloned())
    }

    /// Reads every row once, all at the same time.
    pub(super) async fn read_all(&self) -> Vec<(Place, Row)> {
        let mut reading = JoinSet::new();
        for row in Place::all() {
            let world = self.clone();
            reading.spawn(async move {
                let known = world.known(row);
                let found = world.read(How::Plain, row, Whim::CALM).await;
                let found = found.expect("calm bodies do not fail");
                world.database.check(&found, &row.key(), row, known);
                (row, found)
            });
        }
        reading.join_all().await
    }

    /// Reads every row, and returns whether all reads were hits.
    pub(super) async fn all_hit(&self) -> bool {
        let before = self.cache.stats().total;
        self.read_all().await;
        let after = self.cache.stats().total;
        after.hits - before.hits == Place::all().count() as u64 && after.loads == before.loads
    }

    /// Reads every row, and returns whether all are current.
    pub(super) async fn none_is_old(&self) -> bool {
        let found = self.read_all().await;
        let mut found = found.iter();
        found.all(|(row, found)| found.version == self.database.read(*row).version)
    }

    /// Asserts that every row is cached and current, even if its last writer was dropped after it wrote.
    pub(super) async fn assert_all_hit_and_none_is_old(&self) {
        let before = self.cache.stats().total;
        for (row, found) in self.read_all().await {
            assert_eq!(found.version, self.database.read(row).version, "{row:?}");
        }
        let after = self.cache.stats().total;
        assert_eq!(after.hits - before.hits, Place::all().count() as u64);
        assert_eq!(after.loads, before.loads);
    }
}
