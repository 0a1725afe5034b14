//! Callers that read and write rows all the time, and what they saw.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cache_runtime::{Cache, Config, Evicted, NodeState, cacheable};
use tokio::task::JoinSet;
use tokio::time::sleep;

pub(crate) const ROWS: u64 = 600;
const READERS: u64 = 16;
const WRITERS: u64 = 2;
const READ_PAUSE: Duration = Duration::from_millis(1);
const WRITE_PAUSE: Duration = Duration::from_millis(5);
const BODY: Duration = Duration::from_millis(5);

/// What the cache is in front of.
static TABLE: Table = Table {
    versions: [const { AtomicU64::new(0) }; ROWS as usize],
    bodies: Mutex::new(Vec::new()),
};

struct Table {
    versions: [AtomicU64; ROWS as usize],
    /// When the row of which call was read.
    bodies: Mutex<Vec<(Instant, u64)>>,
}

impl Table {
    fn version(&self, id: u64) -> u64 {
        self.versions[id as usize].load(SeqCst)
    }

    fn ran(&self, id: u64) {
        self.bodies().push((Instant::now(), id));
    }

    fn bodies(&self) -> MutexGuard<'_, Vec<(Instant, u64)>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cacheable(key = "row:<id>", ttl = 3600, cache = cache)]
async fn row(cache: &Cache, id: u64) -> u64 {
    let version = TABLE.version(id);
    TABLE.ran(id);
    sleep(BODY).await;
    version
}

/// Connects, and waits for all nodes of a cluster.
pub(crate) async fn connect(config: Config) -> Result<Cache> {
    let cache = Cache::connect(config).await?;
    for _ in 0..1_000 {
        let nodes = cache.health().detail().await.nodes;
        if nodes.iter().all(|node| node.state == NodeState::Connected) {
            return Ok(cache);
        }
        sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("not all nodes are connected")
}

#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) started: Instant,
    pub(crate) took: Duration,
    is_stale: bool,
}

/// Callers of two caches that run until `end` collects what they saw.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    readers: JoinSet<Vec<Call>>,
    writers: JoinSet<u64>,
}

pub(crate) struct Seen {
    pub(crate) calls: Vec<Call>,
    pub(crate) bodies: Vec<(Instant, u64)>,
    pub(crate) evictions: u64,
    pub(crate) failed: u64,
}

impl Traffic {
    /// Loads all rows and begins. Without `writes` a body runs only because of a fault.
    pub(crate) async fn begin(caches: &[Cache; 2], writes: bool) -> Result<Self> {
        for cache in caches {
            for id in 0..ROWS {
                row(cache, id).await;
            }
        }
        TABLE.bodies().clear();
        let stop = Arc::new(AtomicBool::new(false));
        // What an eviction that was applied has promised to all caches.
        let promised: Arc<Vec<AtomicU64>> =
            Arc::new(TABLE.versions.iter().map(|_| AtomicU64::new(0)).collect());
        for (promised, version) in promised.iter().zip(&TABLE.versions) {
            promised.store(version.load(SeqCst), SeqCst);
        }
        let mut readers = JoinSet::new();
        for reader in 0..READERS {
            let cache = caches[reader as usize % 2].clone();
            readers.spawn(read(
                cache,
                reader,
                Arc::clone(&promised),
                Arc::clone(&stop),
            ));
        }
        let mut writers = JoinSet::new();
        for writer in 0..if writes { WRITERS } else { 0 } {
            let cache = caches[writer as usize % 2].clone();
            writers.spawn(write(
                cache,
                writer,
                Arc::clone(&promised),
                Arc::clone(&stop),
            ));
        }
        Ok(Self {
            stop,
            readers,
            writers,
        })
    }

    pub(crate) async fn end(mut self) -> Result<Seen> {
        self.stop.store(true, SeqCst);
        let (mut calls, mut failed, mut evictions) = (Vec::new(), 0, 0);
        while let Some(ended) = self.readers.join_next().await {
            match ended {
                Ok(some) => calls.extend(some),
                Err(_) => failed += 1,
            }
        }
        while let Some(ended) = self.writers.join_next().await {
            match ended {
                Ok(some) => evictions += some,
                Err(_) => failed += 1,
            }
        }
        ensure!(calls.len() > 1_000, "only {} calls", calls.len());
        Ok(Seen {
            calls,
            bodies: std::mem::take(&mut TABLE.bodies()),
            evictions,
            failed,
        })
    }
}

async fn read(
    cache: Cache,
    reader: u64,
    promised: Arc<Vec<AtomicU64>>,
    stop: Arc<AtomicBool>,
) -> Vec<Call> {
    let mut calls = Vec::new();
    for number in 0_u64.. {
        if stop.load(SeqCst) {
            break;
        }
        let id = (reader * 37 + number * 101) % ROWS;
        let least = promised[id as usize].load(SeqCst);
        let started = Instant::now();
        let version = row(&cache, id).await;
        calls.push(Call {
            id,
            started,
            took: started.elapsed(),
            is_stale: version < least,
        });
        sleep(READ_PAUSE).await;
    }
    calls
}

async fn write(
    cache: Cache,
    writer: u64,
    promised: Arc<Vec<AtomicU64>>,
    stop: Arc<AtomicBool>,
) -> u64 {
    let mut evictions = 0;
    for number in 0_u64.. {
        if stop.load(SeqCst) {
            break;
        }
        // No row has two writers.
        let id = (number * 13 * WRITERS + writer) % ROWS;
        let version = TABLE.versions[id as usize].fetch_add(1, SeqCst) + 1;
        if let Evicted::Applied { .. } = cache.delete(&format!("row:{id}")).await {
            promised[id as usize].store(version, SeqCst);
            evictions += 1;
        }
        sleep(WRITE_PAUSE).await;
    }
    evictions
}

impl Seen {
    pub(crate) fn stale(&self) -> usize {
        self.calls.iter().filter(|call| call.is_stale).count()
    }

    /// The time that 99 of 100 calls did not exceed, of calls for some rows that began between two moments.
    pub(crate) fn p99(&self, rows: &BTreeSet<u64>, from: Instant, to: Instant) -> Duration {
        let is_meant =
            |call: &&Call| rows.contains(&call.id) && call.started >= from && call.started < to;
        let mut took: Vec<_> = self
            .calls
            .iter()
            .filter(is_meant)
            .map(|call| call.took)
            .collect();
        took.sort();
        took.get(took.len() * 99 / 100).copied().unwrap_or_default()
    }

    /// The moments of the first and the last body that ran since `from` for some rows.
    pub(crate) fn bodies_since(
        &self,
        rows: &BTreeSet<u64>,
        from: Instant,
    ) -> Option<(Instant, Instant)> {
        let meant = || {
            let bodies = self.bodies.iter();
            bodies
                .filter(|(at, id)| *at >= from && rows.contains(id))
                .map(|(at, _)| *at)
        };
        meant().min().zip(meant().max())
    }
}
