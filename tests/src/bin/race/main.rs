//! Readers fill the cache from a table while writers change the table and evict or put. Four times a second all of them pause,
//! and every entry is compared with the table. With `--chaos` there are several processes, and Redis and the network fail.
//!
//! ```sh
//! cargo run --release -p tests --bin race -- --seconds 30 --mode key
//! cargo run --release -p tests --bin race -- --seconds 30 --mode key --unsafe   # must find stale entries
//! cargo run --release -p tests --bin race -- --seconds 60 --readers 200          # so many that their reads leave in batches
//! cargo run --release -p tests --bin race -- --seconds 60 --chaos
//! cargo run --release -p tests --bin race -- --seconds 60 --chaos --cluster      # slots move, and primaries are replaced
//! cargo run --release -p tests --bin race -- --seconds 900 --failovers           # replicas that lack acknowledged evictions
//! cargo run --release -p tests --bin race -- --seconds 30 --redis redis+cluster://127.0.0.1:7001   # see ops/cluster.sh
//! cargo run --release -p tests --bin race -- --seconds 30 --tag                  # entries with tags, evicted by tag; also with --chaos
//! cargo run --release -p tests --bin race -- --seconds 60 --local --chaos        # values in the processes; also with --tag
//! cargo run --release -p tests --bin race -- --seconds 60 --local --calm         # few faults, so that only reports of changes help
//! ```

mod arguments;
mod audit;
mod chaos;
mod dice;
mod hammer;
mod ledger;
mod report;
mod servers;
mod service;
mod waits;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Config, Mode};
use tests::figures::Figures;
use tokio::time::{sleep, timeout};

use self::arguments::Arguments;
use self::audit::Audit;
use self::hammer::{Crew, Hammer};
use self::ledger::Ledger;
use self::report::{Report, SHOWN};
use self::servers::Servers;
use self::service::{Database, EVERYTHING, PREFIX, Service};

/// How long tasks run between two pauses. A later write evicts a stale entry, so a single check at the end would miss it.
const ROUND: Duration = Duration::from_millis(250);

/// How long evictions may stay in the journal while Redis is available.
const SETTLING: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    if let Some(job) = chaos::Job::of_this_process()? {
        return chaos::work(job).await;
    }
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    match arguments.faults {
        Some(faults) => chaos::run(&arguments, faults).await,
        None => race(&arguments).await,
    }
}

/// The race in one process, with a Redis that does not fail.
async fn race(arguments: &Arguments) -> Result<ExitCode> {
    let own = match arguments.redis {
        None => Some(RedisServer::start()?),
        Some(_) => None,
    };
    let url = arguments.redis.clone();
    let url = url
        .or_else(|| own.as_ref().map(RedisServer::url))
        .unwrap_or_default();
    let (database, table) = Database::create().await?;
    let cache = Cache::connect(Config::default().redis_url(&url)?.prefix(PREFIX)).await?;
    // Entries of an earlier run in the given Redis belong to another table.
    cache.try_delete_matching(EVERYTHING).await?;
    let service = Service {
        table: table.clone(),
        cache: cache.clone(),
        ledger: Arc::new(Ledger::open(&database.ledger())?),
        guard: arguments.guard,
        entries: arguments.entries,
    };
    let mut audit = Audit::new(Servers::at(&url)?, table);
    let mut hammer = Hammer::start(
        &service,
        Crew {
            readers: arguments.readers.unwrap_or(6),
            writers: 2,
            // Entries of tags that are evicted all the time would not be read.
            pauses: (0, if arguments.entries.tagged { 40 } else { 3 }),
            mode: arguments.mode,
            entries: arguments.entries,
            may_die: false,
            seed: arguments.seed,
        },
    );

    let end = Instant::now() + arguments.duration;
    let mut findings = Vec::new();
    while Instant::now() < end {
        if let Ok(error) = timeout(ROUND, hammer.panic()).await {
            return Err(error);
        }
        let _rest = hammer.rest().await;
        settled(&cache).await?;
        findings.extend(audit.compare().await?.0);
    }
    let report = Report::of(&cache, &hammer.tally);
    hammer.stop().await?;
    cache.delete_matching(EVERYTHING).await;
    cache.shutdown().await;

    let Arguments {
        mode,
        guard,
        entries,
        seed,
        ..
    } = arguments;
    let mut figures = Figures::default();
    figures.heading(format_args!(
        "mode {mode:?}, guarded by {guard:?}, {entries:?}, seed {seed}:"
    ));
    report.print(&mut figures);
    report.print_complaints(&figures);
    verdict(&audit, &findings, &mut figures);
    Ok(figures.finish())
}

/// Waits until Redis has every eviction: before that it may hold evicted entries.
async fn settled(cache: &Cache) -> Result<()> {
    let is_settled = || {
        let stats = cache.stats();
        stats.mode == Mode::Redis && stats.journal_depth == 0
    };
    let settling = async {
        while !is_settled() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SETTLING, settling)
        .await
        .context("evictions stay in the journal")
}

fn verdict(audit: &Audit, findings: &[String], figures: &mut Figures) {
    for finding in findings.iter().take(SHOWN) {
        figures.note("seen", finding);
    }
    let Audit {
        rests,
        entries,
        stale,
        outdated,
        ..
    } = audit;
    figures.note("entries that an evicted tag left", outdated);
    let compared = format!("of {entries} compared at {rests} rests; must be 0");
    figures.check("stale entries", stale, &compared, *stale == 0);
    if *entries == 0 {
        figures.check("entries to compare", 0, "none says nothing", false);
    }
}
