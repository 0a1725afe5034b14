//! The database: SQLite in memory, or in a file.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};

/// The scripts that bring a database from each version to the next, from nothing on. The last of them sets the version.
///
/// What stands here has made files already: a change is a step of its own.
const STEPS: [&[&str]; 3] = [
    &[include_str!("db/schema.sql"), include_str!("db/seed.sql")],
    &[include_str!("db/credentials.sql")],
    &[include_str!("db/claims.sql")],
];

/// A cheap handle to the database.
#[derive(Clone, Debug)]
pub struct Db {
    pool: SqlitePool,
    slow: Duration,
}

impl Db {
    /// Opens the database, creates and seeds it where it is new, and brings it up to date where it is old. `slow` is added to
    /// every read.
    pub async fn open(url: Option<&str>, slow: Duration) -> anyhow::Result<Self> {
        let pool = match url {
            None => in_memory()
                .await
                .context("cannot open a database in memory")?,
            Some(url) => in_file(url)
                .await
                .with_context(|| format!("cannot open DATABASE_URL `{url}`"))?,
        };
        upgrade(&pool).await?;
        Ok(Self { pool, slow })
    }

    /// For reading. Waits `SLOW_DB_MS`, so that one can see what a cache is worth.
    pub async fn read(&self) -> &SqlitePool {
        if !self.slow.is_zero() {
            tokio::time::sleep(self.slow).await;
        }
        &self.pool
    }

    /// For writing.
    pub fn write(&self) -> &SqlitePool {
        &self.pool
    }

    /// Waits for what is under way and closes the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A database in memory belongs to its connection: there is exactly one, and it must never be replaced.
async fn in_memory() -> anyhow::Result<SqlitePool> {
    SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(quiet(SqliteConnectOptions::new().filename(":memory:")))
        .await
        .map_err(bare)
}

/// With a write-ahead log, readers do not wait for the one who writes.
async fn in_file(url: &str) -> anyhow::Result<SqlitePool> {
    anyhow::ensure!(
        url.starts_with("sqlite:"),
        "it must begin with `sqlite:`, such as `sqlite:events.db`"
    );
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    anyhow::ensure!(
        !in_memory,
        "to use a database in memory, unset the variable"
    );
    let options = SqliteConnectOptions::from_str(url)
        .map_err(bare)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    SqlitePoolOptions::new()
        .connect_with(quiet(options))
        .await
        .map_err(bare)
}

/// What both have in common. Statements are not logged, not even slow ones: those that seed the database hold the hashes of
/// passwords.
fn quiet(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options.foreign_keys(true).disable_statement_logging()
}

/// One transaction, so that two processes that start on the same file do not both change it.
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

/// The texts of these errors hold their sources' texts already.
fn bare(error: sqlx::Error) -> anyhow::Error {
    anyhow::Error::msg(error.to_string())
}

#[cfg(test)]
mod tests;
