//! The rate limiter: what it admits under concurrent calls and while Redis flaps, and what a decision costs.

use std::convert::Infallible;
use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use cache_runtime::http::RateLimitLayer;
use cache_runtime::limit::{Algorithm, Backend, Identity, Limit, Policy, RateLimiter};
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Clock, Config};
use tests::figures::{Figures, Spread, time};
use tokio::task::JoinSet;
use tower::{Layer, Service, service_fn};

/// The variable that holds the address of Redis in processes that the bench starts.
const WORKER: &str = "LIMIT_BENCH_REDIS";

const PROCESSES: usize = 4;
const CALLS: usize = 200;
const BLOCKS: usize = 15;

/// The script to which the server time is compared.
const COUNTER: &str =
    "local n = redis.call('INCR', KEYS[1]) redis.call('EXPIRE', KEYS[1], ARGV[1]) return n";

#[tokio::main]
async fn main() -> Result<ExitCode> {
    cache_runtime::testing::assume_real_time();
    if let Ok(url) = env::var(WORKER) {
        return worker(&url).await;
    }
    let mut figures = Figures::default();
    if env::args().any(|argument| argument == "crowd") {
        crowd(&mut figures).await?;
        return Ok(figures.finish());
    }
    processes(&mut figures)?;
    flapping(&mut figures).await?;
    server_time(&mut figures).await?;
    crowd(&mut figures).await?;
    known_rejections(&mut figures).await?;
    memory(&mut figures).await?;
    layer(&mut figures).await?;
    Ok(figures.finish())
}

fn limiter(cache: &Cache, policy: Policy) -> Result<Limit> {
    let name = policy.name().to_owned();
    Ok(RateLimiter::new(cache, [policy])?.limit(&[&name])?)
}

/// One of several processes: makes concurrent calls of one client, and prints how many were admitted.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
async fn worker(url: &str) -> Result<ExitCode> {
    let cache = Cache::connect(
        Config::default()
            .redis_url(url)?
            .command_timeout(Duration::from_secs(5)),
    )
    .await?;
    let limit = limiter(&cache, Policy::new("bench").limit(100).per("10m"))?;
    println!("{}", admitted(&limit, &Identity::user("one"), CALLS).await);
    Ok(ExitCode::SUCCESS)
}

/// Makes concurrent calls and returns how many were admitted.
async fn admitted(limit: &Limit, client: &Identity, calls: usize) -> usize {
    let mut asked = JoinSet::new();
    for _ in 0..calls {
        let (limit, client) = (limit.clone(), client.clone());
        asked.spawn(async move { limit.check(&client).await.is_allowed() });
    }
    asked
        .join_all()
        .await
        .into_iter()
        .filter(|allowed| *allowed)
        .count()
}

fn processes(figures: &mut Figures) -> Result<()> {
    let server = RedisServer::start()?;
    let children = (0..PROCESSES)
        .map(|_| {
            let mut command = Command::new(env::current_exe()?);
            Ok(command
                .env(WORKER, server.url())
                .stdout(Stdio::piped())
                .spawn()?)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut admitted = 0;
    for child in children {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "a process failed");
        admitted += String::from_utf8(output.stdout)?.trim().parse::<usize>()?;
    }
    figures.check(
        &format!("{CALLS} concurrent calls in each of {PROCESSES} processes, admitted"),
        admitted,
        "exactly 100",
        admitted == 100,
    );
    Ok(())
}

/// Every 100 ms Redis dies or is restarted empty. The clock of the limiter follows the real clock in steps, so the time of each
/// admission is known exactly.
async fn flapping(figures: &mut Figures) -> Result<()> {
    const WINDOW: u64 = 2_000;
    const LIMIT: u32 = 50;
    let mut server = RedisServer::start()?;
    let clock = Clock::stopped();
    let config = server
        .config()
        .clock(clock.clone())
        .reconnect_max_delay(Duration::from_millis(5));
    let cache = Cache::connect(config).await?;
    let policy = Policy::new("bench")
        .limit(LIMIT)
        .per(Duration::from_millis(WINDOW));
    let limit = limiter(&cache, policy)?;
    let ended = Arc::new(AtomicBool::new(false));
    let flapper = std::thread::spawn({
        let ended = Arc::clone(&ended);
        move || -> Result<u32> {
            let mut flaps = 0;
            while !ended.load(Ordering::Relaxed) {
                server.kill();
                std::thread::sleep(Duration::from_millis(100));
                server.restart_empty()?;
                std::thread::sleep(Duration::from_millis(100));
                flaps += 1;
            }
            Ok(flaps)
        }
    });

    // One client takes all units as soon as they are free. The other spreads slightly more calls than the limit over time, so that
    // Redis is asked whenever it is available.
    let clients = [Identity::user("hammering"), Identity::user("steady")];
    let began = Instant::now();
    let (mut stamps, mut by_redis, mut now, mut due) = ([Vec::new(), Vec::new()], 0, 0, 0);
    while now < 3 * WINDOW {
        let mut asked = JoinSet::new();
        let mut ask = |client: usize| {
            let (limit, identity) = (limit.clone(), clients[client].clone());
            asked.spawn(async move { (client, limit.check(&identity).await) });
        };
        (0..4).for_each(|_| ask(0));
        if now >= due {
            (0..2).for_each(|_| ask(1));
            due = now + 2 * WINDOW / u64::from(LIMIT) * 4 / 5;
        }
        for (client, decision) in asked.join_all().await {
            by_redis += u32::from(decision.backend == Backend::Redis);
            if decision.is_allowed() {
                stamps[client].push(now);
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        let real = u64::try_from(began.elapsed().as_millis())?;
        clock.advance(Duration::from_millis(real - now));
        now = real;
    }
    ended.store(true, Ordering::Relaxed);
    let flaps = flapper
        .join()
        .ok()
        .context("the flapping thread panicked")??;

    figures.note("restarts of an empty Redis", flaps);
    figures.check("decisions made by Redis", by_redis, "some", by_redis > 0);
    for (stamps, client) in stamps.iter().zip(clients) {
        let within = |first: &u64| {
            let window = *first..first + WINDOW;
            stamps
                .iter()
                .filter(|stamp| window.contains(*stamp))
                .count()
        };
        let most = stamps.iter().map(within).max().unwrap_or(0);
        figures.check(
            &format!("most admissions of {client} in any window"),
            most,
            "exactly 50",
            most == LIMIT as usize,
        );
    }
    Ok(())
}

/// Measures the time that the server spends on scripts, by its own statistics.
async fn server_time(figures: &mut Figures) -> Result<()> {
    let server = RedisServer::start()?;
    let cache = Cache::connect(server.config().command_timeout(Duration::from_secs(5))).await?;
    let client = redis::Client::open(server.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let hash: String = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(COUNTER)
        .query_async(&mut connection)
        .await?;
    for (algorithm, limit) in [
        (Algorithm::SlidingLog, 5),
        (Algorithm::SlidingLog, 100),
        (Algorithm::SlidingLog, 1_000),
        (Algorithm::SlidingBuckets, 100),
        (Algorithm::Gcra, 100),
    ] {
        let policy = || {
            Policy::new("bench")
                .limit(limit)
                .per("10m")
                .algorithm(algorithm)
        };
        let clients: usize = 2_000 / limit as usize;
        let clients = clients.max(2);
        let (mut admissions, mut rejections, mut micros) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..BLOCKS {
            redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
            reset(&mut connection).await?;
            for call in 0..2_000 {
                let mut counter = redis::cmd("EVALSHA");
                counter
                    .arg(&hash)
                    .arg(1)
                    .arg(format!("dev_counter:{}", call % clients))
                    .arg(600);
                counter.exec_async(&mut connection).await?;
            }
            let plain = spent(&mut connection).await?;
            reset(&mut connection).await?;
            let first = limiter(&cache, policy())?;
            for call in 0..clients * limit as usize {
                let decision = first.check(&Identity::user(call % clients)).await;
                ensure!(
                    decision.is_allowed() && decision.backend == Backend::Redis,
                    "not admitted: {decision:?}"
                );
            }
            let admission = spent(&mut connection).await?;
            reset(&mut connection).await?;
            for _ in 0..2_000 / clients {
                // A new limiter knows no rejection yet.
                let other = limiter(&cache, policy())?;
                for client in 0..clients {
                    let decision = other.check(&Identity::user(client)).await;
                    ensure!(
                        !decision.is_allowed() && decision.backend == Backend::Redis,
                        "not rejected: {decision:?}"
                    );
                }
            }
            let rejection = spent(&mut connection).await?;
            admissions.push(admission / plain);
            rejections.push(rejection / plain);
            micros.push(plain);
        }
        figures.heading(format_args!(
            "{algorithm:?}, limit {limit}: server time compared with INCR and EXPIRE in a script"
        ));
        figures.note("that script, in us", format!("{:.2}", Spread::of(micros)));
        let (admission, rejection) = (Spread::of(admissions), Spread::of(rejections));
        figures.check(
            "an admission",
            format!("{admission:.2}"),
            "at most 2",
            admission.median <= 2.0,
        );
        figures.check(
            "a rejection",
            format!("{rejection:.2}"),
            "at most 1",
            rejection.median <= 1.0,
        );
    }
    Ok(())
}

/// Calls of each task of a crowd.
const ROUNDS: usize = 10;

/// Measures the decisions per second for one client under many tasks, and the scripts that they take.
async fn crowd(figures: &mut Figures) -> Result<()> {
    const TASKS: usize = 1_000;
    let server = RedisServer::start()?;
    let cache = Cache::connect(server.config().command_timeout(Duration::from_secs(5))).await?;
    let mut connection = redis::Client::open(server.url())?
        .get_multiplexed_async_connection()
        .await?;
    let limit = |algorithm| {
        let most = u32::try_from(TASKS * ROUNDS)?;
        let policy = Policy::new("bench").limit(most).per("10m");
        limiter(&cache, policy.algorithm(algorithm))
    };
    for algorithm in [
        Algorithm::SlidingLog,
        Algorithm::SlidingBuckets,
        Algorithm::Gcra,
    ] {
        let limit = limit(algorithm)?;
        let (mut rates, mut scripts, mut micros) = (Vec::new(), Vec::new(), Vec::new());
        for block in 0..=BLOCKS {
            reset(&mut connection).await?;
            let rate = rate(&limit, TASKS, |_| format!("{algorithm:?} {block}")).await?;
            // The first block warms up.
            if block > 0 {
                let calls = (TASKS * ROUNDS) as f64;
                let sent = stat(&mut connection, "calls").await?;
                rates.push(rate);
                scripts.push(sent / calls);
                micros.push(stat(&mut connection, "usec").await? / calls);
            }
        }
        figures.heading(format_args!("{algorithm:?}, one client, {TASKS} tasks"));
        figures.note("decisions per second", format!("{:.0}", Spread::of(rates)));
        figures.note(
            "server time of a decision, in us",
            format!("{:.2}", Spread::of(micros)),
        );
        let scripts = Spread::of(scripts);
        figures.check(
            "scripts per decision",
            format!("{scripts:.3}"),
            "at most 0.1",
            scripts.median <= 0.1,
        );
    }
    figures
        .heading("Gcra: decisions per second of one client compared with a client for each task");
    let limit = limit(Algorithm::Gcra)?;
    for tasks in [1, 2, 4, 16, TASKS] {
        let mut ratios = Vec::new();
        for block in 0..=BLOCKS {
            let (mut one, mut each) = (0.0, 0.0);
            for round in 0..(200 / tasks).max(1) {
                one += 1.0 / rate(&limit, tasks, |_| format!("{tasks} {block} {round}")).await?;
                let name = |task| format!("{tasks} {block} {round} {task}");
                each += 1.0 / rate(&limit, tasks, name).await?;
            }
            if block > 0 {
                ratios.push(each / one);
            }
        }
        let ratio = Spread::of(ratios);
        figures.check(
            &format!("{tasks} tasks"),
            format!("{ratio:.2}"),
            "at least 0.9",
            ratio.median >= 0.9,
        );
    }
    Ok(())
}

/// Returns the decisions per second of tasks that call at the same time, each as the client with this name.
async fn rate(limit: &Limit, tasks: usize, name: impl Fn(usize) -> String) -> Result<f64> {
    let mut asked = JoinSet::new();
    let began = Instant::now();
    for task in 0..tasks {
        let (limit, client) = (limit.clone(), Identity::user(name(task)));
        asked.spawn(async move {
            let mut decided = true;
            for _ in 0..ROUNDS {
                let decision = limit.check(&client).await;
                decided &= decision.is_allowed() && decision.backend == Backend::Redis;
            }
            decided
        });
    }
    let decided = asked.join_all().await.into_iter().all(|decided| decided);
    let took = began.elapsed();
    ensure!(decided, "a call was not admitted by Redis");
    Ok((tasks * ROUNDS) as f64 / took.as_secs_f64())
}

async fn reset(connection: &mut redis::aio::MultiplexedConnection) -> Result<()> {
    Ok(redis::cmd("CONFIG")
        .arg("RESETSTAT")
        .exec_async(connection)
        .await?)
}

/// Returns the microseconds of the server per script since the reset.
async fn spent(connection: &mut redis::aio::MultiplexedConnection) -> Result<f64> {
    stat(connection, "usec_per_call").await
}

/// Returns what the server counted for scripts since the reset.
async fn stat(connection: &mut redis::aio::MultiplexedConnection, what: &str) -> Result<f64> {
    let info: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(connection)
        .await?;
    let line = info
        .lines()
        .find(|line| line.starts_with("cmdstat_evalsha"))
        .context("no script ran")?;
    let mut pairs = line
        .split([',', ':'])
        .filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(name, _)| *name == what);
    let (_, value) = found.context("the server does not count that")?;
    Ok(value.parse()?)
}

async fn known_rejections(figures: &mut Figures) -> Result<()> {
    let server = RedisServer::start()?;
    let cache = Cache::connect(server.config().clock(Clock::stopped())).await?;
    let limit = limiter(&cache, Policy::api())?;
    let client = Identity::user("one");
    for _ in 0..101 {
        let _ = limit.check(&client).await;
    }
    let mut connection = redis::Client::open(server.url())?
        .get_multiplexed_async_connection()
        .await?;
    reset(&mut connection).await?;
    let mut nanos = Vec::new();
    for _ in 0..100 {
        nanos.push(time(2_000, |_| limit.check(&client)).await.as_secs_f64() * 1e9);
    }
    let sent = spent(&mut connection).await.is_ok();
    ensure!(
        limit.check(&client).await.backend == Backend::Known,
        "the rejection is not known"
    );
    let nanos = Spread::of(nanos);
    figures.check(
        "known rejection, ns",
        format!("{nanos:.0}"),
        "under 1000",
        nanos.median < 1_000.0,
    );
    figures.check(
        "commands sent for known rejections",
        if sent { "some" } else { "none" },
        "none",
        !sent,
    );
    Ok(())
}

async fn memory(figures: &mut Figures) -> Result<()> {
    for (limit, most) in [(5, 250), (100, 1_300)] {
        let server = RedisServer::start()?;
        let cache = Cache::connect(server.config()).await?;
        let policy = limiter(&cache, Policy::new("payment").limit(limit).per("60s"))?;
        let client = Identity::ip(Ipv4Addr::new(203, 0, 113, 7).into());
        for _ in 0..limit {
            let _ = policy.check(&client).await;
        }
        let mut connection = redis::Client::open(server.url())?
            .get_multiplexed_async_connection()
            .await?;
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut connection)
            .await?;
        ensure!(keys.len() == 1, "expected one key per client: {keys:?}");
        let bytes: u64 = redis::cmd("MEMORY")
            .arg("USAGE")
            .arg(&keys[0])
            .query_async(&mut connection)
            .await?;
        let what = format!("bytes of a client with all {limit} units used");
        figures.check(&what, bytes, &format!("at most {most}"), bytes <= most);
    }
    Ok(())
}

async fn layer(figures: &mut Figures) -> Result<()> {
    const REQUESTS: u32 = 5_000;
    let limit = limiter(
        &Cache::memory(),
        Policy::new("bench").limit(4_000_000).per("10m"),
    )?;
    let bare =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let limited = RateLimitLayer::new(limit).layer(bare);
    let mut more = Vec::new();
    for _ in 0..100 {
        let with = time(REQUESTS, |call| {
            let answer = limited.clone().call(request(call));
            async { answer.await.map(|response| response.status()) }
        });
        let with = with.await;
        let without = time(REQUESTS, |call| {
            let answer = bare.clone().call(request(call));
            async { answer.await.map(|response| response.status()) }
        });
        more.push((with.as_secs_f64() - without.await.as_secs_f64()) * 1e6);
    }
    let more = Spread::of(more);
    figures.check(
        "cost of the layer for an allowed request, µs",
        format!("{more:.2}"),
        "under 5",
        more.median < 5.0,
    );
    Ok(())
}

fn request(call: u32) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    let address = Ipv4Addr::from_bits(0x0a00_0000 + call % 1_000);
    request
        .extensions_mut()
        .insert(ConnectInfo(SocketAddr::from((address, 50_000))));
    request
}
