//! A table and cached functions over it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cache_runtime::{Cache, cache_evict, cache_put, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::arguments::Guard;
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

/// The table and its cache.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) table: SqlitePool,
    pub(crate) cache: Cache,
    pub(crate) guard: Guard,
}

impl Service {
    /// Reads a row through the cache.
    pub(crate) async fn get(&self, id: u64, call: &Arc<Call>) -> Result<Row> {
        match self.guard {
            Guard::Nothing => self.read_unguarded(id, call).await,
            Guard::Attributes => match id % 3 {
                0 => self.read(id, call).await,
                1 => self.read_in_grace(id, call).await,
                _ => self.clone().read_behind(id, Arc::clone(call)).await,
            },
        }
    }

    /// Raises the version and evicts or puts.
    pub(crate) async fn change(&self, id: u64, call: &Call) -> Result<Row> {
        match (self.guard, call.kind) {
            (Guard::Nothing, Kind::Put) => self.write_and_set(id, call).await,
            (Guard::Nothing, _) => self.write_and_delete(id, call).await,
            (Guard::Attributes, Kind::EvictMatching) => {
                self.write_and_evict_matching(id, call).await
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
