//! A Redis Cluster of three primaries and three replicas against one server, and what callers notice when its nodes change.
//!
//! ```sh
//! cargo bench -p tests --bench cluster -- hits patterns killed planned resharding
//! ```
//!
//! Without arguments it measures all of them. All servers run on this machine, so they share its cores with the callers.

mod changes;
mod traffic;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cache_runtime::testing::{Cluster, RedisServer};
use cache_runtime::{Cache, Evicted, cacheable};
use redis::aio::MultiplexedConnection;
use tests::figures::{Event, Figures, Spread};
use tokio::task::JoinSet;

const MODES: [&str; 5] = ["hits", "patterns", "killed", "planned", "resharding"];

const BLOCKS: usize = 60;
/// The calls of one task in a block.
const CALLS: u64 = 2_000;
const TASKS: u64 = 1_000;
const CALLS_OF_A_TASK: u64 = 20;

/// What a pattern evicts, and the keys that are not evicted.
const ENTRIES: u64 = 1_000;
const FOREIGN: u64 = 1_000_000;
const EVICTIONS: usize = 10;
const STEP: usize = 10_000;

/// Fills a server with keys of others, all in the slot of one of its keys, in steps: a node that runs a script for longer than the node
/// timeout is replaced.
const FILL: &str =
    "for id = ARGV[1], ARGV[2] do redis.call('SET', '{' .. KEYS[1] .. '}:' .. id, 'x') end";

#[cacheable(key = "event:<id>", ttl = 3600, cache = cache)]
async fn event(cache: &Cache, id: u64) -> Event {
    Event::sample(id)
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    cache_runtime::testing::assume_real_time();
    // Cargo adds `--bench`.
    let modes: Vec<_> = std::env::args()
        .skip(1)
        .filter(|text| text != "--bench")
        .collect();
    let unknown = modes.iter().find(|mode| !MODES.contains(&mode.as_str()));
    ensure!(
        unknown.is_none(),
        "unknown mode {unknown:?}: there are {MODES:?}"
    );
    let is_wanted = |mode: &str| modes.is_empty() || modes.iter().any(|wanted| wanted == mode);
    let mut figures = Figures::default();
    if is_wanted("hits") {
        hits(&mut figures).await?;
    }
    if is_wanted("patterns") {
        patterns(&mut figures).await?;
    }
    if is_wanted("killed") {
        changes::killed(&mut figures).await?;
    }
    if is_wanted("planned") {
        changes::planned(&mut figures).await?;
        changes::planned_by_sentinels(&mut figures).await?;
    }
    if is_wanted("resharding") {
        changes::resharding(&mut figures).await?;
    }
    Ok(figures.finish())
}

/// One server and a cluster, each with a cache.
struct Pair {
    server: RedisServer,
    cluster: Cluster,
    at_one: Cache,
    at_cluster: Cache,
}

impl Pair {
    async fn start() -> Result<Self> {
        let (server, cluster) = (RedisServer::tcp()?, Cluster::start()?);
        Ok(Self {
            at_one: Cache::connect(server.config()).await?,
            at_cluster: traffic::connect(cluster.config()).await?,
            server,
            cluster,
        })
    }

    /// Loads so many entries into both.
    async fn warm(&self, entries: u64) {
        for cache in [&self.at_one, &self.at_cluster] {
            for id in 0..entries {
                event(cache, id).await;
            }
        }
    }
}

async fn hits(figures: &mut Figures) -> Result<()> {
    let pair = Pair::start().await?;
    let Pair {
        at_one, at_cluster, ..
    } = &pair;
    pair.warm(TASKS).await;
    let misses = || at_one.stats().total.misses + at_cluster.stats().total.misses;
    let before = misses();

    alone(at_one).await?;
    alone(at_cluster).await?;
    let (mut times, mut costs) = (Vec::new(), Vec::new());
    for block in 0..BLOCKS {
        let [one, cluster] = in_turn(
            block,
            async || alone(at_one).await,
            async || alone(at_cluster).await,
        )
        .await;
        let (one, cluster) = (one?, cluster?);
        times.push(cluster.wall.as_secs_f64() / one.wall.as_secs_f64());
        costs.push(cluster.own.as_secs_f64() / one.own.as_secs_f64());
    }
    figures.heading(format_args!(
        "one task, {BLOCKS} blocks of {CALLS} hits, over one server:"
    ));
    let times = Spread::of(times);
    figures.check("time of a hit", times, "at most 1.05", times.median <= 1.05);
    figures.note(
        "time of a core that the process uses for it",
        Spread::of(costs),
    );

    crowd(at_one).await?;
    crowd(at_cluster).await?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for block in 0..BLOCKS {
        let [one, cluster] = in_turn(
            block,
            async || crowd(at_one).await,
            async || crowd(at_cluster).await,
        )
        .await;
        let (one, cluster) = (one?, cluster?);
        rates.push(one.wall.as_secs_f64() / cluster.wall.as_secs_f64());
        costs.push(one.own.as_secs_f64() / cluster.own.as_secs_f64());
    }
    ensure!(
        misses() == before,
        "{} calls were misses",
        misses() - before
    );
    figures.heading(format_args!(
        "{TASKS} tasks, {BLOCKS} blocks of {CALLS_OF_A_TASK} hits of each, over one server:"
    ));
    figures.note(
        "throughput, with the servers on the same cores",
        Spread::of(rates),
    );
    let costs = Spread::of(costs);
    figures.check(
        "throughput for each second of a core that the process uses",
        costs,
        "at least 0.9",
        costs.median >= 0.9,
    );
    Ok(())
}

/// Runs both, the first one first in every other block, because the speed of the machine drifts.
async fn in_turn<T>(
    block: usize,
    one: impl AsyncFnOnce() -> T,
    other: impl AsyncFnOnce() -> T,
) -> [T; 2] {
    if block.is_multiple_of(2) {
        let one = one().await;
        [one, other().await]
    } else {
        let other = other().await;
        [one().await, other]
    }
}

/// The time that passed, and the time that this process spent on the cores.
struct Spent {
    wall: Duration,
    own: Duration,
}

async fn alone(cache: &Cache) -> Result<Spent> {
    let (began, own) = (Instant::now(), own_time()?);
    for call in 0..CALLS {
        std::hint::black_box(event(cache, call % TASKS).await);
    }
    Ok(Spent {
        wall: began.elapsed(),
        own: own_time()?.saturating_sub(own),
    })
}

async fn crowd(cache: &Cache) -> Result<Spent> {
    let (began, own) = (Instant::now(), own_time()?);
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let cache = cache.clone();
        tasks.spawn(async move {
            for call in 0..CALLS_OF_A_TASK {
                std::hint::black_box(event(&cache, (task * 7 + call * 131) % TASKS).await);
            }
        });
    }
    tasks.join_all().await;
    Ok(Spent {
        wall: began.elapsed(),
        own: own_time()?.saturating_sub(own),
    })
}

/// Returns how long the threads of this process have run.
fn own_time() -> Result<Duration> {
    let mut nanos = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let time = text.split_whitespace().next().context("a time")?;
        nanos += time.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

async fn patterns(figures: &mut Figures) -> Result<()> {
    let pair = Pair::start().await?;
    fill(&pair.server, "foreign", FOREIGN).await?;
    let primaries = pair.cluster.primaries()?;
    for primary in &primaries {
        let mut names = (0..).map(|number| format!("foreign{number}"));
        let is_here = |name: &String| {
            let owner = pair
                .cluster
                .slot(name)
                .and_then(|slot| pair.cluster.owner(slot));
            owner.is_ok_and(|owner| owner == *primary)
        };
        let name = names.find(is_here).context("a key of this node")?;
        fill(
            pair.cluster.server(*primary),
            &name,
            FOREIGN / primaries.len() as u64,
        )
        .await?;
    }
    let (mut ratios, mut times) = (Vec::new(), [Vec::new(), Vec::new()]);
    for block in 0..EVICTIONS {
        pair.warm(ENTRIES).await;
        let evict = async |cache: &Cache| {
            let began = Instant::now();
            let evicted = cache.delete_matching("event:*").await;
            (began.elapsed(), evicted)
        };
        let evicted = in_turn(
            block,
            async || evict(&pair.at_one).await,
            async || evict(&pair.at_cluster).await,
        )
        .await;
        for ((took, evicted), times) in evicted.iter().zip(&mut times) {
            ensure!(
                *evicted == Evicted::Applied { keys: ENTRIES },
                "the pattern evicted {evicted:?}"
            );
            times.push(took.as_secs_f64() * 1e3);
        }
        let [(one, _), (cluster, _)] = evicted;
        ratios.push(cluster.as_secs_f64() / one.as_secs_f64());
    }
    figures.heading(format_args!(
        "a pattern that evicts {ENTRIES} of {FOREIGN} keys, {EVICTIONS} times:"
    ));
    let [one, cluster] = times;
    figures.note("on one server, ms", format!("{:.0}", Spread::of(one)));
    figures.note(
        "on three primaries, ms",
        format!("{:.0}", Spread::of(cluster)),
    );
    let ratios = Spread::of(ratios);
    figures.check(
        "time over one server",
        ratios,
        "at most 0.5",
        ratios.median <= 0.5,
    );
    Ok(())
}

async fn fill(server: &RedisServer, name: &str, keys: u64) -> Result<()> {
    let client = redis::Client::open(server.url())?;
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection: MultiplexedConnection = client
        .get_multiplexed_async_connection_with_config(&patient)
        .await?;
    for first in (1..=keys).step_by(STEP) {
        redis::cmd("EVAL")
            .arg(FILL)
            .arg(1)
            .arg(name)
            .arg(first)
            .arg(keys.min(first + STEP as u64 - 1))
            .exec_async(&mut connection)
            .await?;
    }
    Ok(())
}
