//! Readers fill the cache from a table while writers change the table and evict. Four times in a second all of them rest: is
//! any entry stale then?
//!
//! ```sh
//! cargo run --release -p tests --bin race -- --seconds 10 --mode key
//! cargo run --release -p tests --bin race -- --seconds 10 --mode key --unsafe   # must find some
//! ```

#![expect(clippy::print_stdout, reason = "a benchmark's result")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cache_runtime::testing::RedisServer;
use cache_runtime::{Address, Cache, Config, Topology, cache_evict, cache_put, cacheable};
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, IntoConnectionInfo};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const KEYS: u64 = 200;
/// Three of four reads and writes meet on these, so that writers overlap.
const HOT_KEYS: u64 = 5;
const READERS: u64 = 6;
const WRITERS: u64 = 2;

/// How long tasks go on between two rests. A stale entry does not last until the end of a long run, since a later write evicts it.
const ROUND: Duration = Duration::from_millis(250);

const USAGE: &str =
    "usage: race [--seconds N] [--mode key|pattern|put|mixed] [--redis URL] [--unsafe]";

#[derive(Clone, Copy, Debug)]
enum Mode {
    Key,
    Pattern,
    Put,
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Guard {
    /// Our attributes.
    Attributes,
    /// What is often written by hand: `GET`, else read the table and `SET`; write the table, then `DEL`.
    Nothing,
}

#[derive(Debug)]
struct Arguments {
    duration: Duration,
    mode: Mode,
    redis: Option<String>,
    guard: Guard,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            duration: Duration::from_secs(10),
            mode: Mode::Key,
            redis: None,
            guard: Guard::Attributes,
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("`{word}` needs a value; {USAGE}"))
            };
            match word.as_str() {
                "--seconds" => {
                    parsed.duration = Duration::from_secs(value()?.parse().context(USAGE)?);
                }
                "--mode" => {
                    parsed.mode = match value()?.as_str() {
                        "key" => Mode::Key,
                        "pattern" => Mode::Pattern,
                        "put" => Mode::Put,
                        "mixed" => Mode::Mixed,
                        other => bail!("`{other}` is no mode; {USAGE}"),
                    }
                }
                "--redis" => parsed.redis = Some(value()?),
                "--unsafe" => parsed.guard = Guard::Nothing,
                _ => bail!("`{word}` is no argument; {USAGE}"),
            }
        }
        Ok(parsed)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
struct Row {
    id: i64,
    version: i64,
}

/// The table, and whatever caches it.
#[derive(Clone)]
struct Service {
    table: SqlitePool,
    cache: Cache,
    redis: MultiplexedConnection,
    guard: Guard,
}

impl Service {
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

    #[cacheable(key = "race:<id>:row", ttl = 600, cache = self.cache.clone())]
    async fn read(&self, id: u64, window: Duration) -> Result<Row> {
        let row = self.select(id).await?;
        pass(window).await;
        Ok(row)
    }

    #[cache_evict(key = "race:<id>:row", cache = self.cache.clone())]
    async fn write_and_evict(&self, id: u64) -> Result<Row> {
        self.update(id).await
    }

    #[cache_evict(pattern = "race:<id>:*", cache = self.cache.clone())]
    async fn write_and_evict_matching(&self, id: u64) -> Result<Row> {
        self.update(id).await
    }

    #[cache_put(key = "race:<id>:row", ttl = 600, cache = self.cache.clone())]
    async fn write_and_put(&self, id: u64, window: Duration) -> Result<Row> {
        let row = self.update(id).await?;
        pass(window).await;
        Ok(row)
    }

    async fn read_unguarded(&self, id: u64, window: Duration) -> Result<Row> {
        if let Some(row) = self.stored_unguarded(id).await? {
            return Ok(row);
        }
        let row = self.select(id).await?;
        pass(window).await;
        self.set_unguarded(&row).await?;
        Ok(row)
    }

    async fn write_unguarded(&self, id: u64, mode: Mode, window: Duration) -> Result<Row> {
        let row = self.update(id).await?;
        if let Mode::Put = mode {
            pass(window).await;
            self.set_unguarded(&row).await?;
        } else {
            redis::cmd("DEL")
                .arg(unguarded_key(id))
                .exec_async(&mut self.redis.clone())
                .await?;
        }
        Ok(row)
    }

    async fn set_unguarded(&self, row: &Row) -> Result<()> {
        let json = serde_json::to_vec(row)?;
        let key = unguarded_key(row.id as u64);
        Ok(redis::cmd("SET")
            .arg(key)
            .arg(json)
            .exec_async(&mut self.redis.clone())
            .await?)
    }

    async fn stored_unguarded(&self, id: u64) -> Result<Option<Row>> {
        let json: Option<Vec<u8>> = redis::cmd("GET")
            .arg(unguarded_key(id))
            .query_async(&mut self.redis.clone())
            .await?;
        Ok(json.map(|json| serde_json::from_slice(&json)).transpose()?)
    }

    async fn get(&self, id: u64, window: Duration) -> Result<Row> {
        match self.guard {
            Guard::Attributes => self.read(id, window).await,
            Guard::Nothing => self.read_unguarded(id, window).await,
        }
    }

    async fn put(&self, id: u64, mode: Mode, window: Duration) -> Result<Row> {
        match (self.guard, mode) {
            (Guard::Nothing, mode) => self.write_unguarded(id, mode, window).await,
            (Guard::Attributes, Mode::Key) => self.write_and_evict(id).await,
            (Guard::Attributes, Mode::Pattern) => self.write_and_evict_matching(id).await,
            (Guard::Attributes, Mode::Put | Mode::Mixed) => self.write_and_put(id, window).await,
        }
    }

    async fn stored(&self, id: u64) -> Result<Option<Row>> {
        match self.guard {
            Guard::Attributes => Ok(self.cache.get(&format!("race:{id}:row")).await),
            Guard::Nothing => self.stored_unguarded(id).await,
        }
    }
}

fn unguarded_key(id: u64) -> String {
    format!("unguarded:{id}")
}

/// Between reading the table and filling the cache, a service does something: here it takes up to 3 ms.
async fn pass(window: Duration) {
    if window.is_zero() {
        tokio::task::yield_now().await;
    } else {
        sleep(window).await;
    }
}

/// Xorshift: the same numbers in every run, for each task its own.
struct Dice(u64);

impl Dice {
    fn new(task: u64) -> Self {
        Self((task + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) % limit
    }

    fn key(&mut self) -> u64 {
        let limit = if self.below(4) > 0 { HOT_KEYS } else { KEYS };
        self.below(limit)
    }

    fn window(&mut self) -> Duration {
        Duration::from_millis(self.below(4))
    }
}

/// What tasks count together.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    /// Held for reading by whoever reads or writes, for writing while they rest.
    gate: RwLock<()>,
    reads: AtomicU64,
    writes: AtomicU64,
    /// Reads that returned less than what had been evicted or put before they began.
    outdated: AtomicU64,
    /// For each key, the version whose write, eviction included, has returned.
    acknowledged: Vec<AtomicU64>,
}

async fn reader(service: Service, tally: Arc<Tally>, mut dice: Dice) -> Result<()> {
    while !tally.stop.load(Ordering::Relaxed) {
        let _going = tally.gate.read().await;
        let id = dice.key();
        let at_least = tally.acknowledged[id as usize].load(Ordering::SeqCst);
        let row = service.get(id, dice.window()).await?;
        tally.outdated.fetch_add(
            u64::from((row.version as u64) < at_least),
            Ordering::Relaxed,
        );
        tally.reads.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn writer(service: Service, tally: Arc<Tally>, mut dice: Dice, mode: Mode) -> Result<()> {
    while !tally.stop.load(Ordering::Relaxed) {
        let going = tally.gate.read().await;
        let id = dice.key();
        let mode = match mode {
            Mode::Mixed => [Mode::Key, Mode::Pattern, Mode::Put][dice.below(3) as usize],
            mode => mode,
        };
        let row = service.put(id, mode, dice.window()).await?;
        tally.acknowledged[id as usize].fetch_max(row.version as u64, Ordering::SeqCst);
        tally.writes.fetch_add(1, Ordering::Relaxed);
        drop(going);
        pass(dice.window()).await;
    }
    Ok(())
}

async fn table() -> Result<SqlitePool> {
    // In memory a database lives as long as its connection.
    let table = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect("sqlite::memory:")
        .await?;
    sqlx::query("CREATE TABLE rows (id INTEGER PRIMARY KEY, version INTEGER NOT NULL)")
        .execute(&table)
        .await?;
    for id in 0..KEYS {
        sqlx::query("INSERT INTO rows VALUES (?, 1)")
            .bind(id as i64)
            .execute(&table)
            .await?;
    }
    Ok(table)
}

fn config(url: &str) -> Result<Config> {
    let info = url.into_connection_info()?;
    let address = match info.addr() {
        ConnectionAddr::Tcp(host, port) => Address::Tcp(host.clone(), *port),
        ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
        other => bail!("`--redis` takes redis://host:port or redis+unix:///path, not {other}"),
    };
    let mut config = Config::default();
    config.redis = Some(Topology::Standalone(address));
    Ok(config)
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let own = if arguments.redis.is_none() {
        Some(RedisServer::start()?)
    } else {
        None
    };
    let url = arguments
        .redis
        .or_else(|| own.as_ref().map(RedisServer::url))
        .unwrap_or_default();
    let service = Service {
        table: table().await?,
        cache: Cache::connect(config(&url)?).await?,
        redis: redis::Client::open(url)?
            .get_multiplexed_async_connection()
            .await?,
        guard: arguments.guard,
    };

    let tally = Tally {
        acknowledged: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
        ..Tally::default()
    };
    let tally = Arc::new(tally);
    let mut tasks = JoinSet::new();
    for task in 0..READERS {
        tasks.spawn(reader(service.clone(), Arc::clone(&tally), Dice::new(task)));
    }
    for task in 0..WRITERS {
        tasks.spawn(writer(
            service.clone(),
            Arc::clone(&tally),
            Dice::new(READERS + task),
            arguments.mode,
        ));
    }
    let end = Instant::now() + arguments.duration;
    let (mut rests, mut entries, mut stale) = (0, 0, 0);
    while Instant::now() < end {
        // A task ends early only by failing.
        if let Ok(Some(failed)) = timeout(ROUND, tasks.join_next()).await {
            failed??;
        }
        let _rest = tally.gate.write().await;
        rests += 1;
        for id in 0..KEYS {
            if let Some(stored) = service.stored(id).await? {
                entries += 1;
                stale += u64::from(stored != service.select(id).await?);
            }
        }
    }
    tally.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }

    let stats = service.cache.stats().total;
    let (reads, writes) = (
        tally.reads.load(Ordering::Relaxed),
        tally.writes.load(Ordering::Relaxed),
    );
    let outdated = tally.outdated.load(Ordering::Relaxed);
    println!(
        "mode {:?}, guarded by {:?}: {reads} reads, {writes} writes",
        arguments.mode, arguments.guard
    );
    println!(
        "fills {}, fills refused {}",
        stats.fills, stats.fills_refused
    );
    println!("puts {}, puts degraded {}", stats.puts, stats.puts_degraded);
    println!(
        "reads that returned less than what an eviction or put had acknowledged before: {outdated}"
    );
    println!("at {rests} rests: {entries} entries compared, {stale} stale");
    service.cache.shutdown().await;
    Ok(if stale == 0 && outdated == 0 && entries > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
