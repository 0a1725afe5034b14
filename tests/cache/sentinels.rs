//! Sentinels replace a primary while two processes use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::session::{NewSession, SessionStore};
use cache_runtime::testing::Sentinels;
use cache_runtime::{Cache, Config, Mode, SessionKeys, cache_evict, cacheable};

use crate::support::{connect, until};

const GROUPS: u64 = 10;
const ROWS: u64 = 20;
const KEYS: &str = "a:q3Jy0wq1Yc3QmFhk3o8Qm0r5c8m1v2yq9b0p4x7z1s0=";

/// The database: the version of each row, and for each process the newest version whose eviction has returned.
struct Rows {
    versions: Vec<AtomicU64>,
    evicted: [Vec<AtomicU64>; 2],
    stale: AtomicUsize,
    served: AtomicUsize,
}

impl Rows {
    fn new() -> Arc<Self> {
        let zeros = || (0..GROUPS * ROWS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            versions: zeros(),
            evicted: [zeros(), zeros()],
            stale: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
        })
    }

    fn version(&self, group: u64, row: u64) -> u64 {
        self.versions[(group * ROWS + row) as usize].load(Ordering::SeqCst)
    }

    fn change(&self, group: u64, row: u64) -> u64 {
        self.versions[(group * ROWS + row) as usize].fetch_add(1, Ordering::SeqCst) + 1
    }
}

#[cacheable(key = "row:<group>:<id>", ignore = [rows], ttl = 600, cache = cache)]
async fn read(cache: &Cache, rows: &Rows, group: u64, id: u64) -> u64 {
    rows.version(group, id)
}

#[cache_evict(key = "row:<group>:<id>", cache = cache)]
async fn change(cache: &Cache, rows: &Rows, group: u64, id: u64) -> u64 {
    rows.change(group, id)
}

/// Changes all rows of a group.
#[cache_evict(pattern = "row:<group>:*", cache = cache)]
async fn change_all(cache: &Cache, rows: &Rows, group: u64) -> Vec<u64> {
    (0..ROWS).map(|id| rows.change(group, id)).collect()
}

/// One process that reads and writes until `stop` is set. It compares each answer with what it has evicted itself.
fn process(
    cache: &Cache,
    rows: &Arc<Rows>,
    number: usize,
    stop: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let readers = (0..3_u64).map(|seed| {
        let (cache, rows, stop) = (cache.clone(), Arc::clone(rows), Arc::clone(stop));
        tokio::spawn(async move {
            let mut at = seed * 37;
            while !stop.load(Ordering::Relaxed) {
                at = (at + 7) % (GROUPS * ROWS);
                let evicted = rows.evicted[number][at as usize].load(Ordering::SeqCst);
                let found = read(&cache, &rows, at / ROWS, at % ROWS).await;
                rows.served.fetch_add(1, Ordering::Relaxed);
                if found < evicted {
                    rows.stale.fetch_add(1, Ordering::Relaxed);
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let writer = {
        let (cache, rows, stop) = (cache.clone(), Arc::clone(rows), Arc::clone(stop));
        tokio::spawn(async move {
            let mut at = number as u64;
            while !stop.load(Ordering::Relaxed) {
                at = (at + 11) % (GROUPS * ROWS);
                let (group, id) = (at / ROWS, at % ROWS);
                let note = |id: u64, version| {
                    rows.evicted[number][(group * ROWS + id) as usize]
                        .fetch_max(version, Ordering::SeqCst);
                };
                if at.is_multiple_of(5) {
                    let versions = change_all(&cache, &rows, group).await;
                    for (id, version) in (0..).zip(versions) {
                        note(id, version);
                    }
                } else {
                    note(id, change(&cache, &rows, group, id).await);
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        })
    };
    readers.chain([writer]).collect()
}

/// Returns the number of rows whose entry differs from the database when no writer runs.
async fn stale_at_rest(cache: &Cache, rows: &Rows) -> usize {
    let mut stale = 0;
    for group in 0..GROUPS {
        for id in 0..ROWS {
            stale += usize::from(read(cache, rows, group, id).await != rows.version(group, id));
        }
    }
    stale
}

async fn connected(caches: &[Cache]) {
    until("all processes use Redis", async || {
        caches.iter().all(|cache| cache.stats().mode == Mode::Redis)
    })
    .await;
}

fn config(sentinels: &Sentinels, keys: &SessionKeys) -> Config {
    let mut config = sentinels.config();
    config.session_keys = Some(keys.clone());
    // A machine that builds and tests at the same time is slow.
    config.command_timeout = Duration::from_secs(1);
    config
}

/// Runs two processes while `happens` replaces the primary. Returns the longest time that a process was without Redis.
async fn replaced_under_load(mut sentinels: Sentinels, happens: fn(&mut Sentinels)) -> Duration {
    let keys = SessionKeys::parse(KEYS).expect("valid keys");
    let caches = [
        connect(config(&sentinels, &keys)).await,
        connect(config(&sentinels, &keys)).await,
    ];
    connected(&caches).await;
    let stores = caches
        .each_ref()
        .map(|cache| SessionStore::<()>::new(cache).expect("a store with keys"));
    let mut tokens = Vec::new();
    for user in 0..20_u64 {
        let session = stores[0].create(NewSession::new(user, "ada")).await;
        tokens.push(session.expect("Redis answers").token().expose().to_owned());
    }
    let rows = Rows::new();
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..2)
        .flat_map(|number| process(&caches[number], &rows, number, &stop))
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = caches.each_ref().map(|cache| cache.stats().fallback);

    // Users log out everywhere before, during and after the failover.
    let ending = {
        let store = stores[0].clone();
        tokio::spawn(async move {
            for user in 0..20_u64 {
                // An error means that the process remembers the revocation.
                let _ = store.destroy_user(&user.to_string(), None).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    sentinels = tokio::task::spawn_blocking(move || {
        happens(&mut sentinels);
        sentinels
    })
    .await
    .expect("no panic");
    ending.await.expect("no panic");
    tokio::time::sleep(Duration::from_secs(2)).await;
    connected(&caches).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no panic");
    }
    let away = caches.iter().zip(before).map(|(cache, before)| {
        let spent = cache.stats().fallback.total_seconds - before.total_seconds;
        Duration::from_secs_f64(spent.max(0.0))
    });
    let away = away.max().unwrap_or_default();

    let served = rows.served.load(Ordering::Relaxed);
    assert_eq!(rows.stale.load(Ordering::Relaxed), 0, "of {served}");
    until("journals are applied", async || {
        caches.iter().all(|cache| cache.stats().journal_depth == 0)
    })
    .await;
    let fresh = connect(config(&sentinels, &keys)).await;
    assert_eq!(stale_at_rest(&fresh, &rows).await, 0);
    for store in &stores {
        for (user, token) in tokens.iter().enumerate() {
            let token = store.verify(token).expect("a valid token");
            let found = store.load(&token).await;
            assert!(
                found.is_err(),
                "the ended session of user {user} is accepted again"
            );
        }
    }
    away
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_no_eviction_or_revocation() {
    let sentinels = Sentinels::start().expect("redis-server starts");

    let away = replaced_under_load(sentinels, |sentinels| {
        sentinels.failover().expect("the failover succeeds");
    })
    .await;

    assert!(away < Duration::from_secs(3), "{away:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_is_replaced_and_loses_no_eviction() {
    let sentinels = Sentinels::start().expect("redis-server starts");

    replaced_under_load(sentinels, |sentinels| {
        sentinels.kill_primary().expect("there is a primary");
        sentinels.settle().expect("the sentinels replace it");
    })
    .await;
}
