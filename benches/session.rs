//! Sessions: the cost of reading and extending one, and the cost of refusing a forged token.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cache_runtime::session::{NewSession, SessionStore};
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Config, SessionKeys};
use redis::AsyncCommands as _;
use tests::figures::{Figures, Spread, time};

const BLOCKS: usize = 31;
const CALLS: u32 = 400;
const FORGED: u32 = 20_000;
const USER: &str = "42";
const KEYS: &str = "bench:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

#[tokio::main]
async fn main() -> Result<ExitCode> {
    cache_runtime::testing::assume_real_time();
    let mut figures = Figures::default();
    let mut server = RedisServer::start()?;
    let (cache, store) = open(&server).await?;
    loading(&mut figures, &server, &store).await?;
    everywhere(&mut figures, &server, &store).await?;
    forging(&mut figures, &mut server, &cache, &store).await?;
    Ok(figures.finish())
}

async fn open(server: &RedisServer) -> Result<(Cache, SessionStore)> {
    let config = server.config().session_keys(SessionKeys::parse(KEYS)?);
    let cache = Cache::connect(config.command_timeout(Duration::from_secs(2))).await?;
    let store = SessionStore::new(&cache)?;
    Ok((cache, store))
}

async fn ask(connection: &mut redis::aio::MultiplexedConnection, section: &str) -> Result<String> {
    let mut command = redis::cmd("INFO");
    Ok(command.arg(section).query_async(connection).await?)
}

/// Returns the number of calls of a command and their total time in microseconds.
fn stat(info: &str, command: &str) -> Option<(f64, f64)> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")))?;
    let field = |name: &str| {
        let value = line.split(',').find_map(|field| field.strip_prefix(name))?;
        value.parse::<f64>().ok()
    };
    Some((field("calls=")?, field("usec=")?))
}

/// Reads and extends a session, and compares it with a bare `GET` of a value of the same size.
async fn loading(figures: &mut Figures, server: &RedisServer, store: &SessionStore) -> Result<()> {
    let browser = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
    let new = NewSession::new(USER, "ada").user_agent(browser);
    let token = store.create(new).await?.token().clone();
    let client = redis::Client::open(server.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let names: Vec<String> = connection.keys("*session:*").await?;
    let name = names.first().context("a stored session")?;
    let record: Vec<u8> = connection.get(name).await?;
    let () = connection.set("bare", &record).await?;

    let before = ask(&mut connection, "commandstats").await?;
    let (mut ratios, mut bare_times, mut load_times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        let bare = time(CALLS, |_| {
            let mut connection = connection.clone();
            async move { connection.get::<_, Vec<u8>>("bare").await }
        });
        let bare = bare.await;
        let load = time(CALLS, |_| store.load(&token)).await;
        ratios.push(load.as_secs_f64() / bare.as_secs_f64());
        bare_times.push(bare.as_secs_f64() * 1e6);
        load_times.push(load.as_secs_f64() * 1e6);
    }
    let ratio = Spread::of(ratios);
    let after = ask(&mut connection, "commandstats").await?;

    figures.heading(format!(
        "a session of {} B, read and extended, compared with a bare GET",
        record.len()
    ));
    figures.check(
        "latency, as a ratio",
        format!("{ratio:.2}"),
        "at most 2.0",
        ratio.median <= 2.0,
    );
    figures.note("GET, µs", format!("{:.1}", Spread::of(bare_times)));
    figures.note("load, µs", format!("{:.1}", Spread::of(load_times)));
    let asked = |info: &str| stat(info, "evalsha").unwrap_or_default();
    let ((calls_before, time_before), (calls, time)) = (asked(&before), asked(&after));
    let calls = calls - calls_before;
    let loads = f64::from(CALLS) * BLOCKS as f64;
    figures.check(
        "round trips of a load",
        calls / loads,
        "1",
        (loads..=loads + 1.0).contains(&calls),
    );
    figures.note(
        "server time of a load, µs",
        format!("{:.1}", (time - time_before) / calls),
    );
    let config = Config::default().session_keys(SessionKeys::parse(KEYS)?);
    let memory = SessionStore::<()>::new(&Cache::connect(config).await?)?;
    let token = memory
        .create(NewSession::new(USER, "ada"))
        .await?
        .token()
        .clone();
    let alone = tests::figures::time(FORGED, |_| memory.load(&token)).await;
    figures.note(
        "a load without Redis, µs",
        format!("{:.2}", alone.as_secs_f64() * 1e6),
    );
    Ok(())
}

/// Ends 50 sessions of a user in one process, and checks them in another.
async fn everywhere(
    figures: &mut Figures,
    server: &RedisServer,
    store: &SessionStore,
) -> Result<()> {
    let (_cache, other) = open(server).await?;
    store.destroy_user(USER, None).await?;
    let mut tokens = Vec::new();
    for _ in 0..50 {
        tokens.push(
            store
                .create(NewSession::new(USER, "ada"))
                .await?
                .token()
                .clone(),
        );
    }
    for token in &tokens {
        ensure!(
            other.load(token).await.is_ok(),
            "the other process does not find the session"
        );
    }

    let ended = store.destroy_user(USER, None).await?;

    let mut alive = 0;
    for token in &tokens {
        alive += usize::from(other.load(token).await.is_ok());
    }
    figures.heading("50 ended sessions of a user, seen from another process");
    figures.check(
        "accepted at their next request",
        format!("{alive} of {ended}"),
        "0 of 50",
        (alive, ended) == (0, 50),
    );
    Ok(())
}

/// Refuses tokens whose MAC is wrong, with Redis and without.
async fn forging(
    figures: &mut Figures,
    server: &mut RedisServer,
    cache: &Cache,
    store: &SessionStore,
) -> Result<()> {
    let genuine = store.create(NewSession::new(USER, "ada")).await?;
    let genuine = genuine.token().expose();
    let last = if genuine.ends_with('A') { 'E' } else { 'A' };
    let forged = format!("{}{last}", &genuine[..genuine.len() - 1]);
    let client = redis::Client::open(server.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let commands = |info: String| -> Option<u64> {
        let count = info.split("total_commands_processed:").nth(1)?;
        count.split_whitespace().next()?.parse().ok()
    };
    let before = commands(ask(&mut connection, "stats").await?).context("INFO stats")?;
    let refuse = |_| {
        let refused = store.verify(&forged).is_err();
        async move { assert!(refused, "a forged token was accepted") }
    };
    let connected = time(FORGED, refuse).await;
    let after = commands(ask(&mut connection, "stats").await?).context("INFO stats")?;
    server.kill();
    let _ = store.load(&store.verify(genuine)?).await;
    let down = time(FORGED, refuse).await;

    figures.heading("a forged token is refused");
    for (when, took) in [("with Redis", connected), ("while Redis is down", down)] {
        let micros = took.as_secs_f64() * 1e6;
        figures.check(
            &format!("{when}, µs"),
            format!("{micros:.2}"),
            "under 5",
            micros < 5.0,
        );
    }
    // `INFO` itself is one command.
    figures.check(
        "commands sent",
        after - before - 1,
        "0",
        after - before == 1,
    );
    figures.note("mode at the end", format!("{:?}", cache.stats().mode));
    Ok(())
}
