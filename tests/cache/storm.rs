//! Thousands of callers are cancelled, at any await point. No caller gets the answer of another, no caller waits in vain, and
//! nothing is left behind.
//!
//! Two caches on one server, or on a cluster, represent two processes. 200 tasks call all functions and drop most calls, either
//! after some polls or when the call is woken. Bodies are slow, fail and panic. The clock is advanced, so that values become
//! stale and are refreshed. Entries may have tags, and processes may keep values.
//!
//! In one of the storms, slots of the cluster move there and back, and replicas take the place of primaries. Then operations of the
//! cache may fail, but no call does. While the cluster is disturbed, a call may miss what the other process evicted, and never what
//! its own process evicted. After each disturbance nothing is old.
//!
//! `STORM_SEED` sets the seed. The seed decides what the callers do, but not in which order. `STORM_SECONDS` sets how long each
//! storm lasts:
//!
//! ```sh
//! STORM_SECONDS=600 cargo test -p tests --test cache storm
//! ```

mod census;
mod cut;
mod database;
mod disturbances;
mod functions;
mod servers;
mod stage;
mod whim;
mod world;

use std::collections::BTreeSet;
use std::env;
use std::sync::Arc;
use std::time::Duration;

use cache_runtime::{Clock, Config, HealthStatus, Stats};
use tokio::sync::Mutex;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout};

use self::census::Census;
use self::cut::{Cut, Ends};
use self::database::{Failed, Known, Place, Row};
use self::disturbances::Disturbances;
use self::functions::load;
use self::servers::Servers;
use self::stage::Stage;
use self::whim::{Seed, Whim};
use self::world::{Entries, How, World};
use crate::support::{soon, until};

/// How long a storm lasts, unless `STORM_SECONDS` is set.
const STORM: Duration = Duration::from_secs(3);
/// On a busy machine it lasts longer, until every kind of event has happened.
const LONGEST: Duration = Duration::from_secs(120);
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
/// Short, so that a value is often asked about.
const STALENESS: Duration = Duration::from_millis(500);
/// Long enough for a busy machine: other tests check late answers.
const PATIENCE: Duration = Duration::from_secs(3);
/// No call takes as long, even on a busy machine while a primary is replaced.
const LONGEST_CALL: Duration = Duration::from_secs(30);
/// Short, so that a process soon uses a node that came back.
const RECONNECT: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_after_a_storm_of_cancelled_calls() {
    nothing_is_left_after_a_storm(Entries::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_after_a_storm_with_tags() {
    nothing_is_left_after_a_storm(Entries {
        tagged: true,
        local: false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_after_a_storm_with_values_in_the_processes() {
    nothing_is_left_after_a_storm(Entries {
        tagged: false,
        local: true,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_after_a_storm_with_tags_and_values_in_the_processes() {
    nothing_is_left_after_a_storm(Entries {
        tagged: true,
        local: true,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_after_a_storm_on_a_cluster() {
    let _alone = ONE.lock().await;
    nothing_is_left_after(Servers::cluster(), Weather::Calm, EVERYTHING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_after_a_storm_while_slots_move_and_primaries_are_replaced() {
    let _alone = ONE.lock().await;
    nothing_is_left_after(Servers::cluster(), Weather::Disturbed, EVERYTHING).await;
}

const EVERYTHING: Entries = Entries {
    tagged: true,
    local: true,
};

/// What the servers do during the storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Calm,
    /// Slots of a cluster move, and replicas take the place of primaries.
    Disturbed,
}

/// Each storm uses the whole machine, so there is one at a time.
static ONE: Mutex<()> = Mutex::const_new(());

async fn nothing_is_left_after_a_storm(entries: Entries) {
    let _alone = ONE.lock().await;
    nothing_is_left_after(Servers::one().await, Weather::Calm, entries).await;
}

async fn nothing_is_left_after(mut servers: Servers, weather: Weather, entries: Entries) {
    let seed = Seed::of_this_run();
    let clock = Clock::default();
    let worlds = World::two(storm_config(&servers, &clock), entries).await;
    let before = soon("no call runs", Census::at_rest(&worlds, &servers)).await;

    let ends = storm(&worlds, &clock, &mut servers, weather, seed.0).await;

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
    timeout(
        LEASE.max(FENCE_LIFE) + PATIENCE,
        settle(&worlds[0], &servers),
    )
    .await
    .expect("every row is stored again and Redis has nothing else");
    for world in &worlds {
        if entries.local {
            until("no process keeps an old value", async || {
                world.none_is_old().await
            })
            .await;
        }
        world.assert_all_hit_and_none_is_old().await;
        until("the cache is healthy", async || {
            world.cache.health().detail().await.status == HealthStatus::Healthy
        })
        .await;
    }
    before.is_again(&worlds, &servers).await;
    for world in &worlds {
        let stats = world.cache.stats();
        assert_nothing_is_wrong(&stats);
        match weather {
            Weather::Calm => assert_nothing_failed(&stats),
            Weather::Disturbed => assert!(connections_lost(&stats) > 0, "it was not disturbed"),
        }
    }
    assert_it_was_a_storm(ends, servers.events(&worlds));
}

fn storm_config(servers: &Servers, clock: &Clock) -> Config {
    servers
        .config()
        .clock(clock.clone())
        .lease(LEASE)
        .lease_wait(LEASE_WAIT)
        .fence_ttl(FENCE_LIFE)
        .local_staleness(STALENESS)
        .command_timeout(PATIENCE)
        .pool_min(POOL_MIN)
        .pool_max(6)
        .pool_idle(Duration::from_millis(500))
        .max_refreshes(4)
}

/// Runs the storm and returns how the calls ended.
async fn storm(
    worlds: &[World; 2],
    clock: &Clock,
    servers: &mut Servers,
    weather: Weather,
    seed: u64,
) -> Ends {
    let stage = Arc::new(Stage::default());
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let world = worlds[usize::from(number % 2 == 1)].clone();
        let mut whim = Whim::of(seed.wrapping_add(number));
        let stage = Arc::clone(&stage);
        callers.spawn(async move {
            let mut ends = Ends::default();
            while !stage.is_over() {
                let _turn = stage.call().await;
                let call = call(&world, whim.branch());
                let call = timeout(LONGEST_CALL, Cut::new(call, &mut whim));
                ends.count(call.await.expect("no caller waits in vain"));
                // A call that is answered from memory, or never polled, does not yield to other tasks.
                yield_now().await;
            }
            ends
        });
    }
    let end = Instant::now() + lasting();
    let (pause, step) = worlds[0].pace();
    let pause = match servers {
        Servers::One { .. } => pause,
        // Calls take longer there, so values are refreshed less often.
        Servers::Cluster(_) => pause / 2,
    };
    let running = tokio::spawn({
        let (clock, stage) = (clock.clone(), Arc::clone(&stage));
        async move {
            loop {
                sleep(pause).await;
                if !stage.is_still() {
                    clock.advance(step);
                }
            }
        }
    });
    if let (Weather::Disturbed, Servers::Cluster(cluster)) = (weather, &mut *servers) {
        let disturbances = Disturbances {
            cluster,
            worlds,
            whim: Whim::of(seed),
            stage: Arc::clone(&stage),
        };
        disturbances.happen(end).await;
    }
    let latest = Instant::now() + LONGEST;
    let goes_on = || {
        let now = Instant::now();
        let mut events = servers.events(worlds);
        now < end || now < latest && events.any(|(_, count)| count == 0)
    };
    while goes_on() {
        sleep(pause).await;
    }
    running.abort();
    sleep(STILL).await;
    stage.end();
    let ends = soon("all callers end", callers.join_all()).await;
    ends.into_iter().fold(Ends::default(), Ends::and)
}

fn lasting() -> Duration {
    let given = env::var("STORM_SECONDS").ok();
    let seconds = given.map(|given| given.parse().expect("STORM_SECONDS is a number"));
    seconds.map_or(STORM, Duration::from_secs)
}

/// Makes one random call and checks its answer.
async fn call(world: &World, mut whim: Whim) {
    let World {
        cache, database, ..
    } = world;
    let row = Place::any(&mut whim);
    let known = world.known(row);
    let is_read = |answer: Result<Row, Failed>| {
        if let Ok(answer) = answer {
            database.check(&answer, &row.key(), row, known);
        }
    };
    let is_written = |rows: &[Place], answer: Result<u64, Failed>| {
        if let Ok(version) = answer {
            world.acknowledge(rows, version);
        }
    };
    if world.entries.tagged && whim.below(100) == 0 {
        let (rows, answer) = world.update_tag(row, whim).await;
        return is_written(&rows, answer);
    }
    match whim.below(200) {
        0..50 => is_read(world.read(How::Plain, row, whim).await),
        50..100 => is_read(world.read(How::Grace, row, whim).await),
        100..140 => is_read(world.read(How::Behind, row, whim).await),
        140..155 => {
            let load = load(database, row, whim);
            is_read(world.get_or_load(row, load).await);
        }
        155..163 => {
            let answer = world.put(row, whim).await;
            is_written(&[row], answer.map(|row| row.version));
        }
        163..165 => is_written(&[row], functions::update(world, row, whim).await),
        165..167 => is_written(
            &[row],
            functions::update_behind_a_fence(world, row, whim).await,
        ),
        167..169 => is_written(&[row], functions::update_or_fail(world, row, whim).await),
        169 => {
            let answer = functions::update_group(world, row.group, whim).await;
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
            let asked = [
                (row, known),
                (row, Known::default()),
                (row.next(), Known::default()),
            ];
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

/// Reads until every row is stored. The claims of cancelled calls expire.
async fn settle(world: &World, servers: &Servers) {
    let _ = world.cache.delete_matching("notes:*").await;
    let wanted: BTreeSet<_> = Place::all().map(Place::redis_key).collect();
    loop {
        world.read_all().await;
        let mut there = servers.keys().await;
        // The records of tags outlive the entries that name them.
        there.retain(|key| !key.starts_with("test_cache:tag"));
        if there == wanted && world.all_hit().await {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Asserts what holds whatever the servers do.
fn assert_nothing_is_wrong(stats: &Stats) {
    assert_no_misses(
        stats,
        &["other_key", "corrupted", "other_shape", "format", "foreign"],
    );
    assert_eq!((stats.journal_depth, stats.total.loads_overdue), (0, 0));
}

/// Asserts what holds as long as all servers answer.
fn assert_nothing_failed(stats: &Stats) {
    assert_no_misses(stats, &["failed", "fallback"]);
    let total = &stats.total;
    let failures = (total.errors, total.timeouts, total.released);
    assert_eq!(failures, (0, 0, 0));
    assert_eq!((stats.fallback.entered, connections_lost(stats)), (0, 0));
}

fn assert_no_misses(stats: &Stats, reasons: &[&str]) {
    for reason in reasons {
        let misses = stats.total.misses_by_reason.get(reason);
        assert_eq!(misses, None, "{reason}");
    }
}

fn connections_lost(stats: &Stats) -> u64 {
    stats.pool.as_ref().expect("a pool").lost
}

/// Asserts that every kind of event happened: a storm without events proves nothing.
fn assert_it_was_a_storm(ends: Ends, events: impl Iterator<Item = (&'static str, u64)>) {
    let mut happened: Vec<_> = events.collect();
    happened.extend([
        ("answered", ends.answered),
        ("dropped", ends.dropped),
        ("panicked", ends.panicked),
    ]);
    for (what, count) in &happened {
        assert!(*count > 0, "no {what}: {happened:?}");
    }
}
