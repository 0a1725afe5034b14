//! A worker without HTTP: it takes jobs from a table and evicts what they change: `cargo run -p recipes --example worker`.
//!
//! The cache is the same as that of the services that read the data, so they must have the same `REDIS_URL` and prefix.

use cache_runtime::{Cache, Config, cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::signal;

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
    /// Takes one job. Returns whether there was one.
    async fn work(&self) -> sqlx::Result<bool> {
        let job =
            sqlx::query_as("DELETE FROM jobs WHERE id = (SELECT min(id) FROM jobs) RETURNING *");
        let Some(job): Option<Job> = job.fetch_optional(&self.db).await? else {
            return Ok(false);
        };
        let rate = self.rate(&job.currency).await?;
        self.set_price(job.product, 1_000 * rate / 100).await?;
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

    #[cache_evict(key = "product:<id>")]
    async fn set_price(&self, id: i64, cents: i64) -> sqlx::Result<()> {
        let update = sqlx::query("UPDATE products SET cents = ? WHERE id = ?")
            .bind(cents)
            .bind(id);
        update.execute(&self.db).await.map(drop)
    }
}

async fn run(worker: &Worker) -> sqlx::Result<()> {
    // A real worker would wait for the next job here instead of ending.
    while worker.work().await? {}
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let cache = Cache::connect(Config::from_env()?).await?;
    cache.install()?;
    let db = SqlitePoolOptions::new()
        .max_connections(1)
        .connect("sqlite::memory:")
        .await?;
    sqlx::raw_sql(SEED).execute(&db).await?;

    let worker = Worker { db };
    tokio::select! {
        ended = run(&worker) => ended?,
        // A job that is cancelled here still evicts: its body may have changed the data.
        _ = signal::ctrl_c() => {}
    }
    // Applies evictions that Redis has not acknowledged, if it can. A worker that exits without this loses them.
    cache.shutdown().await;
    Ok(())
}

const SEED: &str = "
    CREATE TABLE products (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL);
    CREATE TABLE rates (currency TEXT PRIMARY KEY, rate INTEGER NOT NULL);
    CREATE TABLE jobs (id INTEGER PRIMARY KEY, product INTEGER NOT NULL, currency TEXT NOT NULL);
    INSERT INTO products VALUES (1, 1000), (2, 2000);
    INSERT INTO rates VALUES ('EUR', 110), ('JPY', 1);
    INSERT INTO jobs VALUES (1, 1, 'EUR'), (2, 2, 'EUR'), (3, 1, 'JPY');
";
