//! The ticketing service under load, with the cache off, in memory and in Redis: requests per second, response times, hit
//! rate, and what the cache saves.
//!
//! ```sh
//! cargo bench -p tests --bench load -- --connections 1000,10000
//! ```
//!
//! - All three services run at the same time, and each round drives one after the other, so that they share the machine's
//!   mood. The database takes 20 ms longer for each read.
//! - This process is the driver. Each connection sends its next request when it has the last response, or after a pause
//!   (`--pause`, in ms on average). Without pauses the processors are busy at any number of connections, so the response
//!   time is the number of connections divided by the rate.
//! - `--writes 0` leaves out the writes, to measure a warm cache.
//! - Fails when a figure is missed: those that caching was asked for, and those that say that the load does not break it.

mod service;
mod traffic;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cache_runtime::testing::RedisServer;
use tests::figures::{Figures, Spread};

use self::service::{Caching, Service};
use self::traffic::{Measured, Mix, Traffic};

struct Options {
    connections: Vec<usize>,
    rounds: usize,
    seconds: u64,
    writes: u32,
    pause: Duration,
}

impl Options {
    fn from_arguments() -> Result<Self> {
        let mut options = Self {
            connections: vec![1_000],
            rounds: 3,
            seconds: 4,
            writes: 1,
            pause: Duration::ZERO,
        };
        // Cargo adds `--bench`.
        let mut arguments = std::env::args().skip(1).filter(|text| text != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .with_context(|| format!("`{name}` needs a value"))?;
            match name.as_str() {
                "--connections" => {
                    options.connections =
                        value.split(',').map(at_least_one).collect::<Result<_>>()?;
                }
                "--rounds" => options.rounds = at_least_one(&value)?,
                "--seconds" => options.seconds = at_least_one(&value)? as u64,
                "--writes" => match value.parse() {
                    Ok(percent) if percent <= 100 => options.writes = percent,
                    _ => bail!("`{value}` must be a whole number of percent"),
                },
                "--pause" => options.pause = Duration::from_millis(at_least_one(&value)? as u64),
                _ => bail!(
                    "unknown option `{name}`: there are --connections N,…, --rounds N, --seconds N, --writes PERCENT and \
                     --pause MILLISECONDS"
                ),
            }
        }
        Ok(options)
    }
}

fn at_least_one(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => bail!("`{text}` must be a whole number of at least 1"),
    }
}

/// What one service did at one number of connections, round by round.
#[derive(Default)]
struct Rounds(Vec<Measured>);

impl Rounds {
    fn spread(&self, of: impl Fn(&Measured) -> f64) -> Spread {
        Spread::of(self.0.iter().map(of))
    }

    fn sum(&self, of: impl Fn(&Measured) -> u64) -> u64 {
        self.0.iter().map(of).sum()
    }

    fn print(&self, figures: &Figures, name: &str) {
        figures.note(
            name,
            format!(
                "{:.0}/s, p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms; hit rate {:.4}, {} bodies, {} timeouts, {} shed, {} \
                 failed, {} log lines",
                self.spread(Measured::rate),
                self.spread(|round| round.millis(0.5)),
                self.spread(|round| round.millis(0.99)),
                self.spread(|round| round.millis(0.999)),
                self.hit_rate(),
                self.sum(|round| round.counts.bodies),
                self.sum(|round| round.counts.timeouts),
                self.sum(|round| round.shed),
                self.sum(|round| round.failed),
                self.sum(|round| round.log_lines),
            ),
        );
    }

    fn hit_rate(&self) -> f64 {
        let (hits, reads) = (
            self.sum(|round| round.counts.hits),
            self.sum(|round| round.counts.reads),
        );
        hits as f64 / reads.max(1) as f64
    }

    /// The share of reads that ran no body, so asked no database.
    fn saved(&self) -> f64 {
        let (bodies, reads) = (
            self.sum(|round| round.counts.bodies),
            self.sum(|round| round.counts.reads),
        );
        1.0 - bodies as f64 / reads.max(1) as f64
    }
}

/// The median and the quartiles of the ratio of two services in each round.
fn ratio(of: &Rounds, over: &Rounds, figure: impl Fn(&Measured) -> f64) -> Spread {
    Spread::of(
        of.0.iter()
            .zip(&over.0)
            .map(|(of, over)| figure(of) / figure(over)),
    )
}

fn main() -> Result<ExitCode> {
    let options = Options::from_arguments()?;
    service::build()?;
    let server = RedisServer::builder().tcp().start()?;
    let services = [
        Service::start(Caching::Off)?,
        Service::start(Caching::Memory)?,
        Service::start(Caching::Redis(server.url()))?,
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut figures = Figures::default();
    let mix = Mix {
        writes: options.writes,
        pause: options.pause,
    };
    figures.heading(format!("the mix: {mix}"));
    let mut rates = Vec::new();
    for connections in &options.connections {
        figures.heading(format!(
            "{connections} connections, {} rounds of {} s each",
            options.rounds, options.seconds
        ));
        let mut results = [Rounds::default(), Rounds::default(), Rounds::default()];
        for _ in 0..options.rounds {
            for (service, rounds) in services.iter().zip(&mut results) {
                let traffic = Traffic {
                    connections: *connections,
                    lasts: Duration::from_secs(options.seconds),
                    mix,
                };
                rounds.0.push(runtime.block_on(traffic.drive(service))?);
            }
        }
        let [off, memory, redis] = &results;
        off.print(&figures, "no cache ");
        memory.print(&figures, "in memory");
        redis.print(&figures, "in Redis ");
        check(&mut figures, mix, off, memory, redis);
        rates.push((*connections, redis.spread(Measured::rate).median));
    }
    let best = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    // With pauses the rate grows with the connections.
    if !options.pause.is_zero() {
        return Ok(figures.finish());
    }
    for (connections, rate) in rates {
        let share = rate / best;
        figures.check(
            &format!("requests per second at {connections} connections, of the best"),
            format!("{share:.2}"),
            "must be 0.90 or more: no collapse",
            share >= 0.9,
        );
    }
    Ok(figures.finish())
}

fn check(figures: &mut Figures, mix: Mix, off: &Rounds, memory: &Rounds, redis: &Rounds) {
    let saved = redis.saved();
    figures.check(
        "database reads saved",
        format!("{:.1} %", 100.0 * saved),
        "must be 80 % or more",
        saved >= 0.8,
    );
    let faster = ratio(redis, off, |round| round.millis(0.5));
    figures.check(
        "response time at p50, of that without a cache",
        format!("{faster:.2}"),
        "must be 0.30 or less",
        faster.median <= 0.3,
    );
    let hit_rate = redis.hit_rate();
    let least = if mix.writes == 0 { 0.999 } else { 0.9 };
    figures.check(
        &format!("hit rate with {} % writes", mix.writes),
        format!("{hit_rate:.4}"),
        &format!("must be {least} or more"),
        hit_rate >= least,
    );
    let timeouts = redis.sum(|round| round.counts.timeouts);
    figures.check(
        "operations that timed out",
        timeouts,
        "must be 0",
        timeouts == 0,
    );
    let failed = [off, memory, redis]
        .iter()
        .map(|rounds| rounds.sum(|round| round.failed))
        .sum::<u64>();
    figures.check("requests that failed", failed, "must be 0", failed == 0);
    let throughput = ratio(redis, memory, Measured::rate);
    figures.check(
        "requests per second, of those in memory",
        format!("{throughput:.2}"),
        "must be 0.60 or more",
        throughput.median >= 0.6,
    );
    let tail = ratio(redis, memory, |round| round.millis(0.99));
    figures.check(
        "response time at p99, of that in memory",
        format!("{tail:.2}"),
        "must be 2.00 or less",
        tail.median <= 2.0,
    );
    let slowest = redis.spread(|round| round.millis(0.99));
    figures.check(
        "response time at p99 in ms",
        format!("{slowest:.0}"),
        "must be under 500",
        slowest.median < 500.0,
    );
    let lines = redis.sum(|round| round.log_lines);
    figures.check("log lines", lines, "must be under 100", lines < 100);
}
