//! Nodes that are killed or replaced, and slots that move, all under load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cache_runtime::testing::{Cluster, Failover, Sentinels};
use tests::figures::{Figures, Spread};
use tokio::time::sleep;

use crate::traffic::{ROWS, Seen, Traffic, connect};

const QUIET: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(6);
/// The slots that move, of the 5,461 of a primary.
const MOVED: u16 = 4_096;
const FAILOVERS: usize = 3;
const AT_ONCE: Duration = Duration::from_millis(100);

/// The rows of a node, and those of all others.
fn rows(cluster: &Cluster, node: usize) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
    let mut owners = Vec::new();
    for id in 0..ROWS {
        owners.push(cluster.owner(cluster.slot(&format!("test_row:{id}"))?)?);
    }
    Ok((0..ROWS).partition(|id| owners[*id as usize] == node))
}

fn always_right(figures: &mut Figures, seen: &Seen) {
    figures.note("calls", seen.calls.len());
    figures.check("calls that failed", seen.failed, "none", seen.failed == 0);
    let stale = seen.stale();
    figures.check("stale values", stale, "none", stale == 0);
}

pub(crate) async fn killed(figures: &mut Figures) -> Result<()> {
    let mut cluster = Cluster::start()?;
    let caches = [
        connect(cluster.config()).await?,
        connect(cluster.config()).await?,
    ];
    let killed = cluster.primaries()?[0];
    let replica = cluster.replica_of(killed)?;
    let (own, others) = rows(&cluster, killed)?;

    let begun = Instant::now();
    let traffic = Traffic::begin(&caches, false).await?;
    sleep(QUIET).await;
    let at = Instant::now();
    cluster.kill(killed);
    let client = redis::Client::open(cluster.server(replica).url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let promoted = loop {
        let role: redis::Value = redis::cmd("ROLE").query_async(&mut connection).await?;
        let is_primary =
            |value: &redis::Value| *value == redis::Value::BulkString(b"master".to_vec());
        if matches!(&role, redis::Value::Array(parts) if parts.first().is_some_and(is_primary)) {
            break Instant::now();
        }
        sleep(Duration::from_millis(5)).await;
    };
    sleep(AFTER).await;
    let seen = traffic.end().await?;

    figures.heading("a primary of 3 + 3 is killed:");
    always_right(figures, &seen);
    figures.note(
        "its replica was promoted after",
        format!("{:?}", promoted - at),
    );
    let before = seen.p99(&others, begun, at);
    let after = seen.p99(&others, at, promoted);
    figures.check(
        "p99 of keys of the others until then",
        format!("{after:?}, before {before:?}"),
        "at most twice as long",
        after <= 2 * before,
    );
    let bodies = seen
        .bodies
        .iter()
        .filter(|(_, id)| others.contains(id))
        .count();
    figures.check("bodies for keys of the others", bodies, "none", bodies == 0);
    let (_, last) = seen
        .bodies_since(&own, at)
        .context("its keys ran uncached")?;
    let uncached = last.saturating_duration_since(promoted);
    figures.check(
        "its keys were cached again after the promotion within",
        format!("{uncached:?}"),
        "at most 1 s",
        uncached <= Duration::from_secs(1),
    );
    Ok(())
}

pub(crate) async fn planned(figures: &mut Figures) -> Result<()> {
    let cluster = Cluster::start()?;
    let caches = [
        connect(cluster.config()).await?,
        connect(cluster.config()).await?,
    ];
    figures.heading(format_args!("`CLUSTER FAILOVER`, {FAILOVERS} times:"));
    for number in 0..FAILOVERS {
        let primary = cluster.primaries()?[number % 3];
        let replica = cluster.replica_of(primary)?;
        planned_once(figures, &caches, || {
            Ok(cluster.failover(replica, Failover::Plain)?)
        })
        .await?;
        cluster.settle()?;
    }
    Ok(())
}

pub(crate) async fn planned_by_sentinels(figures: &mut Figures) -> Result<()> {
    let sentinels = Sentinels::start()?;
    let caches = [
        connect(sentinels.config()).await?,
        connect(sentinels.config()).await?,
    ];
    figures.heading(format_args!("`SENTINEL FAILOVER`, {FAILOVERS} times:"));
    for _ in 0..FAILOVERS {
        planned_once(figures, &caches, || Ok(sentinels.failover()?)).await?;
        sentinels.settle()?;
        // Sentinels refuse another failover for a while.
        sleep(AFTER).await;
    }
    Ok(())
}

async fn planned_once(
    figures: &mut Figures,
    caches: &[cache_runtime::Cache; 2],
    failover: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let traffic = Traffic::begin(caches, false).await?;
    sleep(QUIET).await;
    let at = Instant::now();
    tokio::task::block_in_place(failover)?;
    sleep(QUIET).await;
    let seen = traffic.end().await?;
    always_right(figures, &seen);
    let all = (0..ROWS).collect();
    let bodies = seen.bodies_since(&all, at);
    let uncached = bodies.map_or(Duration::ZERO, |(first, last)| last - first);
    figures.note("bodies that ran", seen.bodies.len());
    figures.check(
        "bodies ran for",
        format!("{uncached:?}"),
        "at most 100 ms",
        uncached <= AT_ONCE,
    );
    Ok(())
}

pub(crate) async fn resharding(figures: &mut Figures) -> Result<()> {
    let cluster = Cluster::start()?;
    let caches = [
        connect(cluster.config()).await?,
        connect(cluster.config()).await?,
    ];
    let primaries = cluster.primaries()?;
    let (from, to) = (primaries[0], primaries[1]);
    let first = (0..=u16::MAX)
        .find(|slot| cluster.owner(*slot).is_ok_and(|owner| owner == from))
        .context("the first slot of a node")?;
    let all: BTreeSet<_> = (0..ROWS).collect();

    let begun = Instant::now();
    let traffic = Traffic::begin(&caches, true).await?;
    sleep(QUIET).await;
    let at = Instant::now();
    tokio::task::block_in_place(|| cluster.reshard(first..=first + MOVED - 1, to))?;
    let done = Instant::now();
    sleep(QUIET).await;
    let seen = traffic.end().await?;

    figures.heading(format_args!("{MOVED} slots move to another primary:"));
    always_right(figures, &seen);
    figures.note("it took", format!("{:?}", done - at));
    figures.note("evictions that were applied", seen.evictions);
    figures.note(
        "p99 before and during the move",
        format!(
            "{:?} and {:?}",
            seen.p99(&all, begun, at),
            seen.p99(&all, at, done)
        ),
    );
    let of = |from: Instant, to: Instant| {
        let bodies = seen
            .bodies
            .iter()
            .filter(|(when, _)| *when >= from && *when < to);
        bodies.count() as f64 / (to - from).as_secs_f64()
    };
    figures.note(
        "bodies in a second before and during the move",
        format!("{:.0} and {:.0}", of(begun, at), of(at, done)),
    );
    let slow = seen
        .calls
        .iter()
        .filter(|call| call.started >= at)
        .map(|call| call.took.as_secs_f64() * 1e3);
    figures.note("calls since then, ms", Spread::of(slow));
    Ok(())
}
