//! A table and cached functions over it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cache_runtime::{Cache, CacheScope, Evicted, cache_evict, cache_put, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::arguments::{Entries, Guard};
use crate::ledger::Ledger;
use crate::waits::{Call, Kind};

pub(crate) const KEYS: u64 = 200;

/// The prefix of all keys, so that other users of the Redis keep theirs.
pub(crate) const PREFIX: &str = "race_";

/// Matches all entries of all runs.
pub(crate) const EVERYTHING: &str = "race:*";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) version: i64,
}

pub(crate) fn key(id: u64) -> String {
    format!("race:{id}:row")
}

/// Returns the group of a row. No two of the rows that are used most are in one group.
fn group(id: u64) -> u64 {
    id % (KEYS / 2)
}

/// Returns whether the entry of a row has a tag over the returned value. Their loads are seldom stored while many rows change:
/// each eviction of the tag of any row refuses the loads of all rows that have such a tag. No process keeps their values.
fn has_tag_of_its_own(id: u64) -> bool {
    id % 3 == 1
}

/// The table and its cache.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) table: SqlitePool,
    pub(crate) cache: Cache,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) guard: Guard,
    pub(crate) entries: Entries,
}

impl Service {
    /// Reads a row through the cache.
    pub(crate) async fn get(&self, id: u64, call: &Arc<Call>) -> Result<Row> {
        match self.guard {
            Guard::Nothing => self.read_unguarded(id, call).await,
            Guard::Attributes if self.entries != Entries::default() => {
                self.get_more(id, call).await
            }
            Guard::Attributes => match id % 3 {
                0 => self.read(id, call).await,
                1 => self.read_in_grace(id, call).await,
                _ => self.clone().read_behind(id, Arc::clone(call)).await,
            },
        }
    }

    /// Reads a row whose entry has tags, or which the process keeps.
    async fn get_more(&self, id: u64, call: &Arc<Call>) -> Result<Row> {
        let group = group(id);
        match (self.entries.local, self.entries.tagged, id % 3) {
            (false, _, 0) => self.read_tagged(id, group, call).await,
            (false, _, 1) => self.read_tagged_in_grace(id, group, call).await,
            (false, ..) => {
                let service = self.clone();
                service
                    .read_tagged_behind(id, group, Arc::clone(call))
                    .await
            }
            (true, false, 0) => self.clone().read_local_behind(id, Arc::clone(call)).await,
            (true, false, _) => self.read_local(id, call).await,
            (true, true, 0) => {
                let service = self.clone();
                service
                    .read_local_tagged_behind(id, group, Arc::clone(call))
                    .await
            }
            (true, true, 1) => self.read_local_named(id, group, call).await,
            (true, true, _) => self.read_local_tagged(id, group, call).await,
        }
    }

    /// Changes a row in a scope, which tells whether the eviction was applied, and records it.
    pub(crate) async fn change_and_record(&self, id: u64, call: &Call) -> Result<Row> {
        let scope = CacheScope::new();
        let changed = scope.run(self.change(id, call)).await;
        if let Evicted::Applied { .. } = scope.commit().await
            && let Ok(row) = &changed
        {
            self.ledger.record(id, row.version as u64)?;
        }
        changed
    }

    /// Raises the version and evicts or puts.
    pub(crate) async fn change(&self, id: u64, call: &Call) -> Result<Row> {
        match (self.guard, call.kind) {
            (Guard::Nothing, Kind::Put) => self.write_and_set(id, call).await,
            (Guard::Nothing, _) => self.write_and_delete(id, call).await,
            (Guard::Attributes, Kind::EvictMatching) => {
                self.write_and_evict_matching(id, call).await
            }
            (Guard::Attributes, Kind::EvictTag)
                if !has_tag_of_its_own(id) || id.is_multiple_of(2) =>
            {
                self.write_and_evict_tag(id, group(id), call).await
            }
            (Guard::Attributes, Kind::EvictTag) => {
                self.write_and_evict_returned_tag(id, call).await
            }
            (Guard::Attributes, Kind::EvictTagFenced) => {
                self.write_and_evict_tags_fenced(id, group(id), call).await
            }
            (Guard::Attributes, Kind::Put) if self.entries.tagged => {
                self.write_and_put_tagged(id, group(id), call).await
            }
            (Guard::Attributes, Kind::Put) => self.write_and_put(id, call).await,
            (Guard::Attributes, Kind::EvictFenced) => self.write_and_evict_fenced(id, call).await,
            (Guard::Attributes, Kind::Read | Kind::Evict) => self.write_and_evict(id, call).await,
        }
    }

    #[cacheable(key = "race:<id>:row", ignore = [call], ttl = 600, cache = self.cache.clone())]
    async fn read(&self, id: u64, call: &Call) -> Result<Row> {
        call.body(self.select(id)).await
    }

    /// Becomes stale so soon that even a row with many writes per second is refreshed between two writes.
    #[cacheable(key = "race:<id>:row", ignore = [call], ttl = "30ms", grace = "10s", cache = self.cache.clone())]
    async fn read_in_grace(&self, id: u64, call: &Call) -> Result<Row> {
        call.body(self.select(id)).await
    }

    #[cacheable(
        key = "race:<id>:row", ignore = [call],
        ttl = "30ms",
        grace = "10s",
        refresh = "background",
        cache = self.cache.clone()
    )]
    async fn read_behind(self, id: u64, call: Arc<Call>) -> Result<Row> {
        call.body(self.select(id)).await
    }

    #[cacheable(
        key = "race:<id>:row", ignore = [group, call],
        tag = "group:<group>",
        ttl = 600,
        cache = self.cache.clone()
    )]
    async fn read_tagged(&self, id: u64, group: u64, call: &Call) -> Result<Row> {
        call.body(self.select(id)).await
    }

    #[cacheable(
        key = "race:<id>:row", ignore = [group, call],
        tag = ["group:<group>", "row:<return.id>"],
        ttl = "30ms",
        grace = "10s",
        cache = self.cache.clone()
    )]
    async fn read_tagged_in_grace(&self, id: u64, group: u64, call: &Call) -> Result<Row> {
        call.body(self.select(id)).await
    }

    #[cacheable(
        key = "race:<id>:row", ignore = [group, call],
        tag = "group:<group>",
        ttl = "30ms",
        grace = "10s",
        refresh = "background",
        cache = self.cache.clone()
    )]
    async fn read_tagged_behind(self, id: u64, group: u64, call: Arc<Call>) -> Result<Row> {
        call.body(self.select(id)).await
    }

    /// Kept for so long that only pushes and the bound end it.
    #[cacheable(
        key = "race:<id>:row", ignore = [call],
        local = "5m",
        ttl = 600,
        cache = self.cache.clone()
    )]
    async fn read_local(&self, id: u64, call: &Call) -> Result<Row> {
        call.body(self.select(id)).await
    }

    #[cacheable(
        key = "race:<id>:row", ignore = [call],
        local = "5m",
        ttl = "300ms",
        grace = "10s",
        refresh = "background",
        cache = self.cache.clone()
    )]
    async fn read_local_behind(self, id: u64, call: Arc<Call>) -> Result<Row> {
        call.body(self.select(id)).await
    }

    #[cacheable(
        key = "race:<id>:row", ignore = [group, call],
        tag = "group:<group>",
        local = "5m",
        ttl = 600,
        cache = self.cache.clone()
    )]
    async fn read_local_tagged(&self, id: u64, group: u64, call: &Call) -> Result<Row> {
        call.body(self.select(id)).await
    }

    #[cacheable(
        key = "race:<id>:row", ignore = [group, call],
        tag = ["group:<group>", "row:<return.id>"],
        local = "5m",
        ttl = 600,
        cache = self.cache.clone()
    )]
    async fn read_local_named(&self, id: u64, group: u64, call: &Call) -> Result<Row> {
        call.body(self.select(id)).await
    }

    #[cacheable(
        key = "race:<id>:row", ignore = [group, call],
        tag = "group:<group>",
        local = "5m",
        ttl = "300ms",
        grace = "10s",
        refresh = "background",
        cache = self.cache.clone()
    )]
    async fn read_local_tagged_behind(self, id: u64, group: u64, call: Arc<Call>) -> Result<Row> {
        call.body(self.select(id)).await
    }

    /// Evicts all rows of the group.
    #[cache_evict(tag = "group:<group>", cache = self.cache.clone())]
    async fn write_and_evict_tag(&self, id: u64, group: u64, call: &Call) -> Result<Row> {
        call.body(self.update(id)).await
    }

    #[cache_evict(tag = "row:<return.id>", cache = self.cache.clone())]
    async fn write_and_evict_returned_tag(&self, id: u64, call: &Call) -> Result<Row> {
        call.body(self.update(id)).await
    }

    #[cache_evict(tag = ["group:<group>", "row:<id>"], fence, cache = self.cache.clone())]
    async fn write_and_evict_tags_fenced(&self, id: u64, group: u64, call: &Call) -> Result<Row> {
        call.body(self.update(id)).await
    }

    #[cache_put(
        key = "race:<id>:row",
        tag = ["group:<group>", "row:<return.id>"],
        ttl = "500ms",
        cache = self.cache.clone()
    )]
    async fn write_and_put_tagged(&self, id: u64, group: u64, call: &Call) -> Result<Row> {
        call.body(self.update(id)).await
    }

    #[cache_evict(key = "race:<id>:row", fence, cache = self.cache.clone())]
    async fn write_and_evict_fenced(&self, id: u64, call: &Call) -> Result<Row> {
        call.body(self.update(id)).await
    }

    #[cache_evict(key = "race:<id>:row", cache = self.cache.clone())]
    async fn write_and_evict(&self, id: u64, call: &Call) -> Result<Row> {
        call.body(self.update(id)).await
    }

    #[cache_evict(pattern = "race:<id>:*", cache = self.cache.clone())]
    async fn write_and_evict_matching(&self, id: u64, call: &Call) -> Result<Row> {
        call.body(self.update(id)).await
    }

    /// Expires so soon that other functions load what it stored.
    #[cache_put(key = "race:<id>:row", ttl = "500ms", cache = self.cache.clone())]
    async fn write_and_put(&self, id: u64, call: &Call) -> Result<Row> {
        call.body(self.update(id)).await
    }

    async fn read_unguarded(&self, id: u64, call: &Call) -> Result<Row> {
        if let Some(row) = self.cache.get(&key(id)).await {
            return Ok(row);
        }
        let row = call.body(self.select(id)).await?;
        self.cache.set(&key(id), &row, TTL).await;
        Ok(row)
    }

    async fn write_and_set(&self, id: u64, call: &Call) -> Result<Row> {
        let row = call.body(self.update(id)).await?;
        self.cache.set(&key(id), &row, TTL).await;
        Ok(row)
    }

    async fn write_and_delete(&self, id: u64, call: &Call) -> Result<Row> {
        let row = call.body(self.update(id)).await?;
        self.cache.delete(&key(id)).await;
        Ok(row)
    }

    async fn select(&self, id: u64) -> Result<Row> {
        let query = sqlx::query_as("SELECT id, version FROM rows WHERE id = ?");
        Ok(query.bind(id as i64).fetch_one(&self.table).await?)
    }

    async fn update(&self, id: u64) -> Result<Row> {
        let query = sqlx::query_as(
            "UPDATE rows SET version = version + 1 WHERE id = ? RETURNING id, version",
        );
        Ok(query.bind(id as i64).fetch_one(&self.table).await?)
    }
}

const TTL: Duration = Duration::from_secs(600);

/// A SQLite database in a directory that is removed on drop.
pub(crate) struct Database {
    directory: PathBuf,
}

impl Database {
    /// Creates the database with every row at its first version.
    pub(crate) async fn create() -> Result<(Self, SqlitePool)> {
        let directory = std::env::temp_dir().join(format!("race-{}", std::process::id()));
        fs::create_dir(&directory)?;
        let database = Self { directory };
        let table = open(&database.path()).await?;
        sqlx::query("CREATE TABLE rows (id INTEGER PRIMARY KEY, version INTEGER NOT NULL)")
            .execute(&table)
            .await?;
        for id in 0..KEYS {
            sqlx::query("INSERT INTO rows VALUES (?, 1)")
                .bind(id as i64)
                .execute(&table)
                .await?;
        }
        Ok((database, table))
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.directory.join("applied")
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("table.sqlite")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A leftover in the temporary directory is harmless.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Opens the table. Several processes may do so.
pub(crate) async fn open(path: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // The system keeps the commits of a killed process. A power failure is not tested.
        .synchronous(SqliteSynchronous::Off)
        .busy_timeout(Duration::from_secs(10));
    let pool = SqlitePoolOptions::new().max_connections(4);
    Ok(pool.connect_with(options).await?)
}
