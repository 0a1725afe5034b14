//! Evicts what a transaction changed after its commit, and nothing after a rollback: `cargo run -p recipes --example sqlx_transaction`.

use cache_runtime::{Cache, CacheScope, Config, cache_evict, cacheable};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{SqliteConnection, SqlitePool};

struct Accounts {
    db: SqlitePool,
}

impl Accounts {
    #[cacheable(key = "balance:<account>", ttl = "10m")]
    async fn balance(&self, account: i64) -> sqlx::Result<i64> {
        println!("query for account {account}");
        let balance = sqlx::query_scalar("SELECT cents FROM accounts WHERE id = ?").bind(account);
        balance.fetch_one(&self.db).await
    }

    /// Moves money. If `from` has too little of it, or an account is unknown, nothing changes and nothing is evicted.
    async fn transfer(&self, from: i64, to: i64, cents: i64) -> sqlx::Result<()> {
        // An eviction before the commit would be too early: a reader would load the old balance and store it again.
        let scope = CacheScope::new();
        let mut transaction = self.db.begin().await?;
        let moved = scope.run(async {
            add(&mut transaction, from, -cents).await?;
            add(&mut transaction, to, cents).await
        });
        match moved.await {
            Ok(()) => {
                transaction.commit().await?;
                scope.commit().await; // both accounts, in one round trip
                Ok(())
            }
            Err(error) => {
                transaction.rollback().await?;
                scope.rollback();
                Err(error)
            }
        }
    }
}

/// Inside a scope, the eviction of this step waits for the commit of the scope.
#[cache_evict(key = "balance:<account>")]
async fn add(transaction: &mut SqliteConnection, account: i64, cents: i64) -> sqlx::Result<()> {
    let update = sqlx::query("UPDATE accounts SET cents = cents + ? WHERE id = ?")
        .bind(cents)
        .bind(account);
    match update.execute(transaction).await?.rows_affected() {
        0 => Err(sqlx::Error::RowNotFound), // without this, money sent to an unknown account would be lost
        _ => Ok(()),
    }
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
    let seed =
        "CREATE TABLE accounts (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL CHECK (cents >= 0));
                INSERT INTO accounts VALUES (1, 1000), (2, 0);";
    sqlx::raw_sql(seed).execute(&db).await?;

    let accounts = Accounts { db };
    println!(
        "{} and {}",
        accounts.balance(1).await?,
        accounts.balance(2).await?
    );
    accounts.transfer(1, 2, 400).await?;
    println!(
        "{} and {}",
        accounts.balance(1).await?,
        accounts.balance(2).await?
    );
    for (to, cents) in [(2, 5_000), (99, 400)] {
        match accounts.transfer(1, to, cents).await {
            Ok(()) => println!("transferred"),
            Err(error) => println!("refused: {error}"),
        }
    }
    println!(
        "{} and {}",
        accounts.balance(1).await?,
        accounts.balance(2).await?
    );

    cache.shutdown().await;
    Ok(())
}
