//! A worker without HTTP: it takes jobs from a table and evicts what they change: `cargo run -p recipes --example worker`.
//!
//! The cache is the same as that of the services that read the data, so they must have the same `REDIS_URL` and prefix.

use std::io;

use cache_runtime::{Cache, CacheScope, Config, cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{SqliteConnection, SqlitePool};
use tokio::signal::unix::{SignalKind, signal};

#[derive(sqlx::FromRow)]
struct Job {
    id: i64,
    product: i64,
    currency: String,
}

#[derive(Debug, Serialize, Deserialize, sqlx::FromRow)]
struct Product {
    id: i64,
    cents: i64,
}

struct Worker {
    db: SqlitePool,
}

impl Worker {
    /// Does one job. Returns whether there was one. A job that fails or is interrupted stays in the table.
    async fn work(&self) -> sqlx::Result<bool> {
        let job = sqlx::query_as("SELECT * FROM jobs ORDER BY id LIMIT 1");
        let Some(job): Option<Job> = job.fetch_optional(&self.db).await? else {
            return Ok(false);
        };
        // Before the transaction, which has the only connection of the pool.
        let rate = self.rate(&job.currency).await?;

        // An early return drops both: the transaction rolls back, and the scope evicts to be safe.
        let scope = CacheScope::new();
        let mut transaction = self.db.begin().await?;
        let deleted = sqlx::query("DELETE FROM jobs WHERE id = ?").bind(job.id);
        if deleted.execute(&mut *transaction).await?.rows_affected() == 0 {
            scope.rollback(); // another worker has done it
            return Ok(true);
        }
        let priced = set_price(&mut transaction, job.product, 1_000 * rate / 100);
        scope.run(priced).await?;
        transaction.commit().await?;
        scope.commit().await;
        println!("job {}: {:?}", job.id, self.product(job.product).await?);
        Ok(true)
    }

    /// The price of 100 units of a currency. All workers share it, and `grace` serves the last price if the source is down.
    #[cacheable(key = "rate:<currency>", ttl = "5m", grace = "1h")]
    async fn rate(&self, currency: &str) -> sqlx::Result<i64> {
        println!("query for the rate of {currency}");
        let rate = sqlx::query_scalar("SELECT rate FROM rates WHERE currency = ?").bind(currency);
        rate.fetch_one(&self.db).await
    }

    #[cacheable(key = "product:<id>", ttl = "1h")]
    async fn product(&self, id: i64) -> sqlx::Result<Option<Product>> {
        let product = sqlx::query_as("SELECT id, cents FROM products WHERE id = ?").bind(id);
        product.fetch_optional(&self.db).await
    }
}

/// Inside a scope, the eviction waits for the commit.
#[cache_evict(key = "product:<id>")]
async fn set_price(transaction: &mut SqliteConnection, id: i64, cents: i64) -> sqlx::Result<()> {
    let update = sqlx::query("UPDATE products SET cents = ? WHERE id = ?")
        .bind(cents)
        .bind(id);
    update.execute(transaction).await.map(drop)
}

async fn run(worker: &Worker) -> sqlx::Result<()> {
    // A real worker would wait for the next job here instead of ending.
    while worker.work().await? {}
    Ok(())
}

/// Waits for SIGTERM, as container platforms send it, or Ctrl-C. Listens from this call on.
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let cache = Cache::connect(Config::from_env()?).await?;
    cache.install()?;
    let pool = SqlitePoolOptions::new().max_connections(1);
    let db = pool.connect("sqlite::memory:").await?;
    sqlx::raw_sql(SEED).execute(&db).await?;

    let stop = told_to_stop()?;
    let worker = Worker { db };
    let ended = tokio::select! {
        ended = run(&worker) => ended,
        // A job that is cancelled here still evicts: it may have been committed.
        () = stop => Ok(()),
    };
    let left = sqlx::query_scalar("SELECT count(*) FROM jobs").fetch_one(&worker.db);
    let left: sqlx::Result<i64> = left.await;
    // Applies evictions that Redis has not acknowledged, if it can. A worker that exits without this loses them.
    cache.shutdown().await;
    println!("jobs left: {}", left?);
    Ok(ended?)
}

const SEED: &str = "
    CREATE TABLE products (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL);
    CREATE TABLE rates (currency TEXT PRIMARY KEY, rate INTEGER NOT NULL);
    CREATE TABLE jobs (id INTEGER PRIMARY KEY, product INTEGER NOT NULL, currency TEXT NOT NULL);
    INSERT INTO products VALUES (1, 1000), (2, 2000);
    INSERT INTO rates VALUES ('EUR', 110), ('JPY', 1);
    INSERT INTO jobs VALUES (1, 1, 'EUR'), (2, 2, 'EUR'), (3, 1, 'JPY'), (4, 2, 'CHF'); -- no rate: fails
";
