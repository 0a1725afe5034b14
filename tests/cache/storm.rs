//! Thousands of callers are cancelled, at any await point. No caller gets the answer of another, no caller waits in vain, and
//! nothing is left behind.
//!
//! Two caches on one server represent two processes. 200 tasks call all functions and drop most calls, either after some
//! polls or when the call is woken. Bodies are slow, fail and panic. The clock is advanced, so that values become stale and
//! are refreshed.
//!
//! `STORM_SEED` sets the seed. The seed decides what the callers do, but not in which order.

mod census;
mod cut;
mod database;
mod whim;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Clock, Config, Stats, cache_evict, cache_put, cacheable};
use redis::aio::MultiplexedConnection;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout};

use self::census::Census;
use self::cut::{Cut, Ends};
use self::database::{Database, Failed, Place, Row};
use self::whim::{Seed, Whim};
use crate::support::{connect, raw, server, soon, until};

const STORM: Duration = Duration::from_secs(10);
/// For this long the clock stands still at the end, so that no error disappears by expiry.
const STILL: Duration = Duration::from_secs(3);
const CALLERS: u64 = 200;
const POOL_MIN: usize = 2;
/// A body that takes this long has its lease renewed.
const LONG: Duration = Duration::from_millis(500);
const LEASE: Duration = Duration::from_secs(1);
const LEASE_WAIT: Duration = Duration::from_secs(1);
/// Shorter than some bodies.
const FENCE_LIFE: Duration = Duration::from_millis(300);
/// Long enough for a busy machine: other tests check late answers.
const PATIENCE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_after_a_storm_of_cancelled_calls() {
    let seed = Seed::of_this_run();
    let server = server();
    let mut raw = raw(&server).await;
    let clock = Clock::default();
    let worlds = worlds(&server, &clock).await;
    let before = soon("no call runs", Census::at_rest(&worlds, &mut raw)).await;

    let ends = storm(&worlds, &clock, seed.0).await;

    for world in &worlds {
        timeout(LEASE + LEASE_WAIT, world.read_all())
            .await
            .expect("no caller waits for a cancelled call");
    }
    until("every eviction is issued", async || {
        let mut stats = worlds.iter().map(|world| world.cache.stats());
        stats.all(|stats| stats.journal_depth == 0)
    })
    .await;
    timeout(LEASE.max(FENCE_LIFE) + PATIENCE, settle(&worlds[0], &raw))
        .await
        .expect("every row is stored again and Redis has nothing else");
    for world in &worlds {
        world.assert_all_hit_and_none_is_old().await;
    }
    until(
        "the numbers of tasks and connections are as before",
        async || Census::take(&worlds, &mut raw.clone()).await == before,
    )
    .await;
    for world in &worlds {
        let stats = world.cache.stats();
        assert_nothing_went_wrong(&stats);
        assert_it_was_a_storm(ends, &stats);
    }
}

async fn worlds(server: &RedisServer, clock: &Clock) -> [World; 2] {
    let database = Arc::new(Database::new());
    let config = storm_config(server, clock);
    let one = World {
        cache: connect(config.clone()).await,
        database: Arc::clone(&database),
    };
    let two = World {
        cache: connect(config).await,
        database,
    };
    [one, two]
}

fn storm_config(server: &RedisServer, clock: &Clock) -> Config {
    server
        .config()
        .clock(clock.clone())
        .lease(LEASE)
        .lease_wait(LEASE_WAIT)
        .fence_ttl(FENCE_LIFE)
        .command_timeout(PATIENCE)
        .pool_min(POOL_MIN)
        .pool_max(6)
        .pool_idle(Duration::from_millis(500))
        .max_refreshes(4)
}

/// Runs the storm and returns how the calls ended.
async fn storm(worlds: &[World; 2], clock: &Clock, seed: u64) -> Ends {
    let end = Instant::now() + STORM;
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let world = worlds[usize::from(number % 2 == 1)].clone();
        let mut whim = Whim::of(seed.wrapping_add(number));
        callers.spawn(async move {
            let mut ends = Ends::default();
            while Instant::now() < end {
                let call = call(&world, whim.branch());
                ends.count(Cut::new(call, &mut whim).await);
                // A call that is answered from memory, or never polled, does not yield to other tasks.
                yield_now().await;
            }
            ends
        });
    }
    while Instant::now() < end - STILL {
        sleep(Duration::from_millis(10)).await;
        clock.advance(Duration::from_secs(30));
    }
    let ends = soon("all callers end", callers.join_all()).await;
    ends.into_iter().fold(Ends::default(), Ends::and)
}

/// Makes one random call and checks its answer.
async fn call(world: &World, mut whim: Whim) {
    let World { cache, database } = world;
    let row = Place::any(&mut whim);
    let known = database.acknowledged(row);
    let is_read = |answer: Result<Row, Failed>| {
        if let Ok(answer) = answer {
            database.check(&answer, &row.key(), row, known);
        }
    };
    let is_written = |rows: &[Place], answer: Result<u64, Failed>| {
        if let Ok(version) = answer {
            database.acknowledge(rows, version);
        }
    };
    match whim.below(200) {
        0..50 => is_read(read(world, row, whim).await),
        50..100 => is_read(read_with_grace(world, row, whim).await),
        100..140 => is_read(read_behind(world.clone(), row, whim).await),
        140..155 => {
            let load = load(database, row, whim);
            is_read(cache.get_or_load(&row.key(), 60, load).await);
        }
        155..163 => {
            let answer = put(world, row, whim).await;
            is_written(&[row], answer.map(|row| row.version));
        }
        163..165 => is_written(&[row], update(world, row, whim).await),
        165..167 => is_written(&[row], update_behind_a_fence(world, row, whim).await),
        167..169 => is_written(&[row], update_or_fail(world, row, whim).await),
        169 => {
            let answer = update_group(world, row.group, whim).await;
            is_written(&Place::of_group(row.group), answer);
        }
        170..172 => {
            let version = database.write(&[row]);
            let _ = cache.delete(&row.key()).await;
            is_written(&[row], Ok(version));
        }
        172 => {
            let rows = Place::of_group(row.group);
            let version = database.write(&rows);
            let _ = cache.delete_matching(&format!("row:{}:*", row.group)).await;
            is_written(&rows, Ok(version));
        }
        173..177 => drop(cache.set(&row.notes_key(), &database.note(row), 60).await),
        177..180 => drop(cache.delete(&row.notes_key()).await),
        _ => {
            let keys = [row.key(), row.notes_key(), row.next().key()];
            let asked = [(row, known), (row, 0), (row.next(), 0)];
            let names = keys.each_ref().map(String::as_str);
            let found = cache.get_many::<Row>(&names).await;
            for ((found, key), (row, known)) in found.iter().zip(names).zip(asked) {
                if let Some(found) = found {
                    database.check(found, key, row, known);
                }
            }
        }
    }
}

#[cacheable(key = "row:<row.group>:<row.id>", ignore = [whim], ttl = 60, cache = world.cache)]
async fn read(world: &World, row: Place, whim: Whim) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cacheable(key = "row:<row.group>:<row.id>", ignore = [whim], ttl = 60, grace = "10m", cache = world.cache)]
async fn read_with_grace(world: &World, row: Place, whim: Whim) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cacheable(
    key = "row:<row.group>:<row.id>", ignore = [whim],
    ttl = 60,
    grace = "10m",
    refresh = "background",
    cache = world.cache
)]
async fn read_behind(world: World, row: Place, whim: Whim) -> Result<Row, Failed> {
    load(&world.database, row, whim).await
}

#[cache_put(key = "row:<row.group>:<row.id>", ttl = 60, cache = world.cache)]
async fn put(world: &World, row: Place, mut whim: Whim) -> Result<Row, Failed> {
    whim.dawdle().await;
    world.database.write(&[row]);
    let written = world.database.read(row);
    whim.dawdle().await;
    whim.may_fail()?;
    Ok(written)
}

#[cache_evict(key = "row:<row.group>:<row.id>", cache = world.cache)]
async fn update(world: &World, row: Place, whim: Whim) -> Result<u64, Failed> {
    write(&world.database, &[row], whim).await
}

#[cache_evict(key = "row:<row.group>:<row.id>", fence, cache = world.cache)]
async fn update_behind_a_fence(world: &World, row: Place, whim: Whim) -> Result<u64, Failed> {
    write(&world.database, &[row], whim).await
}

#[cache_evict(key = "row:<row.group>:<row.id>", always, cache = world.cache)]
async fn update_or_fail(world: &World, row: Place, mut whim: Whim) -> Result<u64, Failed> {
    let version = world.database.write(&[row]);
    whim.dawdle().await;
    whim.may_fail()?;
    Ok(version)
}

#[cache_evict(pattern = "row:<group>:*", cache = world.cache)]
async fn update_group(world: &World, group: usize, whim: Whim) -> Result<u64, Failed> {
    write(&world.database, &Place::of_group(group), whim).await
}

async fn load(database: &Database, row: Place, mut whim: Whim) -> Result<Row, Failed> {
    whim.dawdle().await;
    let found = database.read(row);
    whim.dawdle().await;
    whim.may_fail()?;
    Ok(found)
}

/// Fails only before it writes: after an `Err` nothing is evicted.
async fn write(database: &Database, rows: &[Place], mut whim: Whim) -> Result<u64, Failed> {
    whim.dawdle().await;
    whim.may_fail()?;
    let version = database.write(rows);
    whim.dawdle().await;
    Ok(version)
}

/// One process.
#[derive(Clone)]
struct World {
    cache: Cache,
    database: Arc<Database>,
}

impl World {
    /// Reads every row once, all at the same time.
    async fn read_all(&self) -> Vec<(Place, Row)> {
        let mut reading = JoinSet::new();
        for row in Place::all() {
            let world = self.clone();
            reading.spawn(async move {
                let known = world.database.acknowledged(row);
                let found = read(&world, row, Whim::CALM).await;
                let found = found.expect("calm bodies do not fail");
                world.database.check(&found, &row.key(), row, known);
                (row, found)
            });
        }
        reading.join_all().await
    }

    /// Asserts that every row is cached and current, even if its last writer was dropped after it wrote.
    async fn assert_all_hit_and_none_is_old(&self) {
        let before = self.cache.stats().total;
        for (row, found) in self.read_all().await {
            assert_eq!(found.version, self.database.read(row).version, "{row:?}");
        }
        let after = self.cache.stats().total;
        assert_eq!(after.hits - before.hits, Place::all().count() as u64);
        assert_eq!(after.loads, before.loads);
    }
}

/// Reads until every row is stored. The claims of cancelled calls expire.
async fn settle(world: &World, raw: &MultiplexedConnection) {
    let _ = world.cache.delete_matching("notes:*").await;
    let wanted: BTreeSet<_> = Place::all()
        .map(|row| format!("test_{}", row.key()))
        .collect();
    loop {
        world.read_all().await;
        let there: BTreeSet<String> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut raw.clone())
            .await
            .expect("KEYS");
        let mut stored = there == wanted;
        for row in Place::all() {
            stored &= world.cache.exists(&row.key()).await;
        }
        if stored {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn assert_nothing_went_wrong(stats: &Stats) {
    let total = &stats.total;
    for reason in [
        "other_key",
        "corrupted",
        "other_shape",
        "format",
        "foreign",
        "failed",
        "fallback",
    ] {
        assert_eq!(total.misses_by_reason.get(reason), None, "{reason}");
    }
    let failures = (
        total.errors,
        total.timeouts,
        total.released,
        total.loads_overdue,
    );
    assert_eq!(failures, (0, 0, 0, 0));
    assert_eq!((stats.journal_depth, stats.fallback.entered), (0, 0));
    assert_eq!(stats.pool.as_ref().map(|pool| pool.lost), Some(0));
}

/// Asserts that every kind of event happened: a storm without events proves nothing.
fn assert_it_was_a_storm(ends: Ends, stats: &Stats) {
    let total = &stats.total;
    let happened = [
        ("answered", ends.answered),
        ("dropped", ends.dropped),
        ("panicked", ends.panicked),
        ("hits", total.hits),
        ("stale hits", total.hits_stale),
        ("shared loads", total.loads_shared),
        ("awaited loads", total.loads_awaited),
        ("failed loads", total.loads_failed),
        ("fills", total.fills),
        ("refused fills", total.fills_refused),
        ("refreshes", total.refreshes),
        ("failed refreshes", total.refreshes_failed),
        ("puts", total.puts - total.puts_degraded),
        ("degraded puts", total.puts_degraded),
        ("journaled evictions", total.evictions_journaled),
    ];
    for (what, count) in happened {
        assert!(count > 0, "no {what}: {happened:?}");
    }
}
