//! Hits per second of many tasks: annotated functions, one shared redis-rs connection, and a bb8 pool of 50.
//!
//! ```sh
//! cargo bench -p tests --bench throughput -- --tasks 16,50,100,1000 --bytes 200,2000 --tcp
//! ```
//!
//! Without arguments: 1,000 tasks, values of 200 bytes, a Unix socket.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::Pool;
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, cacheable};
use redis::AsyncConnectionConfig;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use tests::figures::{Event, Figures, Spread};
use tokio::task::JoinSet;

/// The keys that are read.
const KEYS: u64 = 1_000;
/// The hits of a block, by all tasks together.
const HITS: u64 = 50_000;
const BLOCKS: usize = 30;

struct Options {
    tasks: Vec<u64>,
    bytes: Vec<usize>,
    tcp: bool,
}

impl Options {
    fn from_arguments() -> Result<Self> {
        let mut options = Self {
            tasks: vec![1_000],
            bytes: vec![200],
            tcp: false,
        };
        // Cargo adds `--bench`.
        let mut arguments = std::env::args().skip(1).filter(|text| text != "--bench");
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--tcp" => options.tcp = true,
                "--tasks" => options.tasks = numbers(&name, arguments.next())?,
                "--bytes" => options.bytes = numbers(&name, arguments.next())?,
                _ => bail!("unknown option `{name}`: there are --tasks N,…, --bytes N,… and --tcp"),
            }
        }
        let tasks = 1..=HITS;
        ensure!(
            options.tasks.iter().all(|count| tasks.contains(count)),
            "there can be 1 to {HITS} tasks"
        );
        Ok(options)
    }
}

fn numbers<T: FromStr>(name: &str, value: Option<String>) -> Result<Vec<T>> {
    let value = value.with_context(|| format!("`{name}` needs a value"))?;
    let parsed = value.split(',').map(|number| number.parse().ok());
    parsed
        .collect::<Option<_>>()
        .with_context(|| format!("`{value}` must be whole numbers, separated by commas"))
}

#[cacheable(key = "bench:<bytes>:<id>", ttl = 3600)]
async fn event(id: u64, bytes: usize) -> Event {
    Event::of_size(id, bytes)
}

fn bare_key(id: u64, bytes: usize) -> String {
    format!("bare:{bytes}:{id}")
}

async fn bare(connection: &mut impl ConnectionLike, id: u64, bytes: usize) -> Event {
    let json: Vec<u8> = redis::cmd("GET")
        .arg(bare_key(id, bytes))
        .query_async(connection)
        .await
        .expect("GET");
    serde_json::from_slice(&json).expect("the value that was set")
}

/// How many tasks read values of which size.
#[derive(Clone, Copy)]
struct Load {
    tasks: u64,
    bytes: usize,
}

impl Load {
    /// Returns the calls per second of all tasks together.
    async fn rate<F>(self, work: impl Fn(u64) -> F) -> Result<f64>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start = Instant::now();
        let mut tasks: JoinSet<()> = (0..self.tasks).map(|task| work(task % KEYS)).collect();
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok((self.tasks * self.calls()) as f64 / start.elapsed().as_secs_f64())
    }

    /// The calls of each task.
    fn calls(self) -> u64 {
        HITS / self.tasks
    }

    async fn annotated(self) -> Result<f64> {
        self.rate(|id| async move {
            for _ in 0..self.calls() {
                std::hint::black_box(event(id, self.bytes).await);
            }
        })
        .await
    }

    async fn one_connection(self, connection: &MultiplexedConnection) -> Result<f64> {
        self.rate(|id| {
            let mut connection = connection.clone();
            async move {
                for _ in 0..self.calls() {
                    std::hint::black_box(bare(&mut connection, id, self.bytes).await);
                }
            }
        })
        .await
    }

    async fn pooled(self, pool: &Pool<RedisConnectionManager>) -> Result<f64> {
        self.rate(|id| {
            let pool = pool.clone();
            async move {
                for _ in 0..self.calls() {
                    let mut connection = pool.get().await.expect("a connection");
                    std::hint::black_box(bare(&mut *connection, id, self.bytes).await);
                }
            }
        })
        .await
    }
}

/// What the cache is compared with.
struct Others {
    connection: MultiplexedConnection,
    untimed: MultiplexedConnection,
    pool: Pool<RedisConnectionManager>,
}

impl Others {
    async fn connect(url: String) -> Result<Self> {
        let client = redis::Client::open(url.as_str())?;
        let untimed = AsyncConnectionConfig::new().set_response_timeout(None);
        Ok(Self {
            connection: client.get_multiplexed_async_connection().await?,
            untimed: client
                .get_multiplexed_async_connection_with_config(&untimed)
                .await?,
            pool: Pool::builder()
                .max_size(50)
                .min_idle(50)
                .build(RedisConnectionManager::new(url)?)
                .await?,
        })
    }
}

async fn compare(cache: &Cache, others: &Others, load: Load, figures: &mut Figures) -> Result<()> {
    let Others {
        connection,
        untimed,
        pool,
    } = others;
    // Run each once, so that all connections are open and all memory is mapped.
    load.annotated().await?;
    load.one_connection(connection).await?;
    load.one_connection(untimed).await?;
    load.pooled(pool).await?;
    let before = cache.stats().total;

    let (mut ours, mut over_one, mut over_untimed, mut over_pool) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for block in 0..BLOCKS {
        // The annotated calls run first in every other block, because the speed of the machine drifts.
        let first = if block % 2 == 0 {
            Some(load.annotated().await?)
        } else {
            None
        };
        let one = load.one_connection(connection).await?;
        let never_late = load.one_connection(untimed).await?;
        let from_pool = load.pooled(pool).await?;
        let rate = match first {
            Some(rate) => rate,
            None => load.annotated().await?,
        };
        over_one.push(rate / one);
        over_untimed.push(rate / never_late);
        over_pool.push(rate / from_pool);
        ours.push(rate / 1e3);
    }
    let after = cache.stats();
    ensure!(
        after.total.misses == before.misses,
        "{} calls were misses, and the fallback mode was entered {} times: check that the machine is not busy",
        after.total.misses - before.misses,
        after.fallback.entered,
    );

    let (over_one, over_pool) = (Spread::of(over_one), Spread::of(over_pool));
    figures.heading(format_args!(
        "{} tasks, values of {} bytes, {BLOCKS} blocks of {HITS} hits each:",
        load.tasks, load.bytes
    ));
    figures.note(
        "annotated function, 1,000 hits per second",
        format!("{:.0}", Spread::of(ours)),
    );
    figures.check(
        "rate divided by one shared connection",
        over_one,
        "at least 1.0",
        over_one.median >= 1.0,
    );
    figures.note(
        "rate divided by one shared connection without a timeout",
        Spread::of(over_untimed),
    );
    // Fewer tasks than connections do not wait for one.
    let least = if load.tasks > 50 { 3.0 } else { 1.0 };
    figures.check(
        "rate divided by bb8 with 50 connections",
        over_pool,
        &format!("at least {least:.1}"),
        over_pool.median >= least,
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    cache_runtime::testing::assume_real_time();
    let options = Options::from_arguments()?;
    let server = match options.tcp {
        true => RedisServer::builder().tcp().start()?,
        false => RedisServer::start()?,
    };
    let cache = Cache::connect(server.config()).await?;
    cache.install()?;
    let others = Others::connect(server.url()).await?;
    let mut figures = Figures::default();
    for bytes in options.bytes {
        for id in 0..KEYS {
            let json = serde_json::to_vec(&Event::of_size(id, bytes))?;
            redis::cmd("SET")
                .arg(bare_key(id, bytes))
                .arg(json)
                .exec_async(&mut others.connection.clone())
                .await?;
            event(id, bytes).await;
        }
        for tasks in &options.tasks {
            let load = Load {
                tasks: *tasks,
                bytes,
            };
            compare(&cache, &others, load, &mut figures).await?;
        }
    }
    cache.shutdown().await;
    drop(server);
    Ok(figures.finish())
}
