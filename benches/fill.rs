//! The server's time for a fill: `SET` with `IFEQ`, and the script that does the same on servers without it.
//!
//! ```sh
//! CACHE_TEST_REDIS_SERVER=/usr/local/bin/valkey-server cargo bench -p tests --bench fill
//! ```
//!
//! `CACHE_TEST_REDIS_SERVER` must name a Redis 8.4, a Valkey 8.1, or a newer one.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use cache_runtime::testing::RedisServer;
use redis::{Cmd, Connection, Value};
use tests::figures::{Figures, Spread};

const SCRIPT: &str = include_str!("../cache-runtime/src/store/scripts/replace.lua");
const BLOCKS: usize = 31;
const FILLS: usize = 500;
const KEY: &str = "bench:entry";
const LIFE: &str = "60000";
/// As long as the claim of a load; the stamp is where the script looks for it.
const CLAIM: [u8; 80] =
    *b"cacheentstamp--1cacheentcacheentcacheentcacheentcacheentcacheentcacheentcacheent";
const STAMP: &[u8] = b"stamp--1";

fn main() -> Result<ExitCode> {
    let mut figures = Figures::default();
    let server = RedisServer::start()?;
    let mut connection = redis::Client::open(server.url())?.get_connection()?;
    let script = redis::Script::new(SCRIPT);
    let _: String = script.prepare_invoke().load(&mut connection)?;
    for bytes in [200, 2_000, 20_000] {
        let entry = vec![b'x'; bytes];
        let mut native = redis::cmd("SET");
        native.arg(KEY).arg(&entry).arg("IFEQ").arg(&CLAIM[..]);
        native.arg("PX").arg(LIFE);
        let mut scripted = redis::cmd("EVALSHA");
        scripted.arg(script.get_hash()).arg(1).arg(KEY).arg(STAMP);
        scripted.arg(&entry).arg(LIFE);
        let (mut ratios, mut natives, mut scripts) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..BLOCKS {
            let native = server_time(&mut connection, &native, "set")?;
            let scripted = server_time(&mut connection, &scripted, "evalsha")?;
            ratios.push(native / scripted);
            natives.push(native);
            scripts.push(scripted);
        }
        figures.heading(format!("server time of a fill of {bytes} B"));
        figures.note(
            "`SET` with `IFEQ`, µs",
            format!("{:.2}", Spread::of(natives)),
        );
        figures.note("script, µs", format!("{:.2}", Spread::of(scripts)));
        let ratio = Spread::of(ratios);
        figures.check(
            "ratio",
            format!("{ratio:.2}"),
            "at most 0.27",
            ratio.median <= 0.27,
        );
    }
    Ok(figures.finish())
}

/// Returns the microseconds that a command takes, on average over a block. Each replaces the claim of a load.
fn server_time(connection: &mut Connection, fill: &Cmd, command: &str) -> Result<f64> {
    let mut claim = redis::cmd("SETEX");
    claim.arg(KEY).arg(60).arg(&CLAIM[..]);
    let mut block = redis::Pipeline::with_capacity(2 * FILLS);
    for _ in 0..FILLS {
        block.add_command(claim.clone()).ignore();
        block.add_command(fill.clone());
    }
    redis::cmd("CONFIG").arg("RESETSTAT").exec(connection)?;
    let answers: Vec<Value> = block.query(connection)?;
    let filled = |answer: &Value| matches!(answer, Value::Okay | Value::Int(1));
    ensure!(
        answers.len() == FILLS && answers.iter().all(filled),
        "a fill was refused"
    );
    let info: String = redis::cmd("INFO").arg("commandstats").query(connection)?;
    let line = format!("cmdstat_{command}:calls={FILLS},usec=");
    let (_, rest) = info
        .split_once(&line)
        .context("the statistics of a command")?;
    let micros = rest.split(',').next().unwrap_or_default();
    Ok(micros.parse::<f64>()? / FILLS as f64)
}
