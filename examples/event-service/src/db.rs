//! The database: SQLite in a file that is kept, or in a temporary one.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cache_runtime::CacheScope;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection, SqlitePool};
use tempfile::TempDir;

use crate::error::Result;

/// The scripts that migrate a database from each version to the next, beginning with an empty one. The last script sets the
/// version.
///
/// Existing files were made by these scripts, so each change needs a new step.
const STEPS: [&[&str]; 4] = [
    &[include_str!("db/schema.sql"), include_str!("db/seed.sql")],
    &[include_str!("db/credentials.sql")],
    &[include_str!("db/claims.sql")],
    &[
        include_str!("db/states.sql"),
        include_str!("db/ticket_status.sql"),
        include_str!("db/group_buys.sql"),
        include_str!("db/referral_codes.sql"),
    ],
];

/// The most connections that read at the same time. The default of sqlx.
const READERS: u32 = 10;

/// A cheap handle to the database.
#[derive(Clone, Debug)]
pub struct Db {
    readers: SqlitePool,
    /// One connection. SQLite has one writer at a time: others would try again until its lock is free, and in no order.
    writer: SqlitePool,
    slow: Duration,
    /// Removed with the last handle.
    _temporary: Option<Arc<TempDir>>,
}

impl Db {
    /// Opens the database. A new database is created and seeded, and an old one is migrated. Without `url` it is temporary.
    /// `slow` is added to every read.
    pub async fn open(url: Option<&str>, slow: Duration) -> anyhow::Result<Self> {
        let opened = || match url {
            None => "cannot open a temporary database".to_owned(),
            Some(url) => format!("cannot open DATABASE_URL `{url}`"),
        };
        let (options, temporary) = match url {
            None => {
                let folder = TempDir::with_prefix("event-service-")
                    .context("cannot create a folder for a temporary database")?;
                (temporary(folder.path()), Some(Arc::new(folder)))
            }
            Some(url) => (in_file(url).with_context(opened)?, None),
        };
        let writer = pool(&options, 1).await.with_context(opened)?;
        upgrade(&writer).await?;
        let readers = pool(&options, READERS).await.with_context(opened)?;
        Ok(Self {
            readers,
            writer,
            slow,
            _temporary: temporary,
        })
    }

    /// Returns the pool for reads. Waits for `SLOW_DB_MS`, to make the effect of the cache visible.
    pub async fn read(&self) -> &SqlitePool {
        if !self.slow.is_zero() {
            tokio::time::sleep(self.slow).await;
        }
        &self.readers
    }

    /// Returns the pool for writes.
    pub fn write(&self) -> &SqlitePool {
        &self.writer
    }

    /// Runs the steps of a transaction. What the steps evict is evicted after the commit: before that, a reader would store the old
    /// values again. If a step fails, nothing is changed or evicted.
    pub async fn in_transaction<T>(
        &self,
        steps: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T>,
    ) -> Result<T> {
        let scope = CacheScope::new();
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        match scope.run(steps(&mut transaction)).await {
            Ok(done) => {
                transaction.commit().await?;
                scope.commit().await;
                Ok(done)
            }
            Err(refused) => {
                transaction.rollback().await?;
                scope.rollback();
                Err(refused)
            }
        }
    }

    /// Waits for running statements and closes the database.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A database in memory has one connection, and under load all requests wait for it. So this is a file. A crash loses the
/// database anyway, so no write waits for the disk.
fn temporary(folder: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(folder.join("events.db"))
        .create_if_missing(true)
        .synchronous(SqliteSynchronous::Off)
}

fn in_file(url: &str) -> anyhow::Result<SqliteConnectOptions> {
    anyhow::ensure!(
        url.starts_with("sqlite:"),
        "it must begin with `sqlite:`, such as `sqlite:events.db`"
    );
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    anyhow::ensure!(
        !in_memory,
        "a database in memory has one connection: unset the variable for a temporary database"
    );
    let options = SqliteConnectOptions::from_str(url)
        .map_err(bare)?
        .create_if_missing(true)
        .synchronous(SqliteSynchronous::Normal);
    Ok(options)
}

/// With a write-ahead log, readers do not wait for the writer. Statements are never logged, not even slow ones, because the
/// seed contains password hashes.
async fn pool(options: &SqliteConnectOptions, most: u32) -> anyhow::Result<SqlitePool> {
    let options = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .foreign_keys(true)
        .disable_statement_logging();
    SqlitePoolOptions::new()
        .max_connections(most)
        // Otherwise each call that waits for 2 s would log a line, and under load all wait.
        .acquire_slow_threshold(Duration::MAX)
        .connect_with(options)
        .await
        .map_err(bare)
}

/// Runs in one transaction, so that two processes that open the same file do not both change it.
async fn upgrade(pool: &SqlitePool) -> anyhow::Result<()> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(unusable)?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *transaction)
        .await
        .map_err(unusable)?;
    let known = STEPS.len();
    let missing = usize::try_from(version)
        .ok()
        .and_then(|version| STEPS.get(version..));
    let Some(missing) = missing else {
        bail!(
            "the database has version {version}, but this event-service supports only versions up to {known}: start a newer \
             event-service, or set DATABASE_URL to another file"
        );
    };
    for script in missing.concat() {
        sqlx::raw_sql(script)
            .execute(&mut *transaction)
            .await
            .map_err(unusable)?;
    }
    transaction.commit().await.map_err(unusable)
}

fn unusable(error: sqlx::Error) -> anyhow::Error {
    bare(error).context("cannot create the tables: is this another program's database?")
}

/// The texts of these errors already contain the texts of their sources.
fn bare(error: sqlx::Error) -> anyhow::Error {
    anyhow::Error::msg(error.to_string())
}

#[cfg(test)]
mod tests;
