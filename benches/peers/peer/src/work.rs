//! Blocks of calls.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region};
use tokio::task::JoinSet;

use crate::{Held, Hits, Peer, Reply, body};

/// A value that is not served from the cache by then is not cached.
const FILL_LIMIT: Duration = Duration::from_secs(5);

/// Calls for each id until it is served from the cache, and checks the value.
pub(crate) async fn fill<P: Peer>(peer: &P, first: u64, keys: u64) -> Result<()> {
    for id in first..first + keys {
        let began = Instant::now();
        loop {
            let before = body::loads();
            let value = peer.call(id).await?;
            ensure!(
                value.is_of(id, body::bytes()),
                "the value of another call was returned"
            );
            if body::loads() == before {
                break;
            }
            ensure!(
                began.elapsed() < FILL_LIMIT,
                "the value is not cached after {FILL_LIMIT:?}"
            );
            // Some libraries store in the background.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}

/// Measures calls for `keys` ids in turn, by `tasks` tasks that take the next call when they are free.
pub(crate) async fn hits<P: Peer>(
    peer: &Arc<P>,
    first: u64,
    keys: u64,
    calls: u64,
    tasks: u64,
) -> Result<Hits> {
    ensure!(keys > 0 && tasks > 0 && calls >= tasks, "no calls");
    let loads = body::loads();
    let allocated = Region::new(&INSTRUMENTED_SYSTEM);
    let began = Instant::now();
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let peer = Arc::clone(peer);
        // Tasks begin at different keys, so that they do not read in step.
        let share = calls / tasks + u64::from(task < calls % tasks);
        running.spawn(async move {
            let (mut errors, mut shared) = (0, false);
            for number in 0..share {
                match peer.call(first + (task + number) % keys).await {
                    Ok(value) => shared = matches!(*black_box(&value), Held::Shared(_)),
                    Err(_) => errors += 1,
                }
            }
            (errors, shared)
        });
    }
    let ends = running.join_all().await;
    let nanos = nanos(began.elapsed());
    let allocated = allocated.change();
    Ok(Hits {
        nanos,
        loads: body::loads() - loads,
        errors: ends.iter().map(|(errors, _)| errors).sum(),
        allocations: (allocated.allocations + allocated.reallocations) as u64,
        shared: ends.iter().any(|(_, shared)| *shared),
    })
}

/// Calls once in each of many tasks, from the given time on.
pub(crate) async fn rush<P: Peer>(peer: &Arc<P>, id: u64, callers: u64, at: u64) -> Result<Reply> {
    let loads = body::loads();
    tokio::time::sleep(Duration::from_nanos(at.saturating_sub(body::now()))).await;
    let calls = (0..callers).map(|_| {
        let peer = Arc::clone(peer);
        async move {
            let began = Instant::now();
            let succeeded = peer
                .call(id)
                .await
                .is_ok_and(|value| value.is_of(id, body::bytes()));
            (nanos(began.elapsed()), succeeded)
        }
    });
    let ends = calls.collect::<JoinSet<_>>().join_all().await;
    Ok(Reply::Rush {
        loads: body::loads() - loads,
        worst: ends
            .iter()
            .map(|(nanos, _)| *nanos)
            .max()
            .unwrap_or_default(),
        errors: ends.iter().filter(|(_, succeeded)| !succeeded).count() as u64,
    })
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::*;
    use crate::{Event, Evicted, Setup};

    /// Keeps what it loads, unless it is told not to.
    struct Map {
        keeps: bool,
        events: Mutex<HashMap<u64, Event>>,
    }

    impl Map {
        fn new(keeps: bool) -> Arc<Self> {
            let events = Mutex::default();
            Arc::new(Self { keeps, events })
        }
    }

    impl Peer for Map {
        async fn connect(_: Setup, _: &str) -> Result<Self> {
            unreachable!("it is built here")
        }

        async fn call(&self, id: u64) -> Result<Held> {
            if let Some(event) = self.events.lock().unwrap().get(&id) {
                return Ok(event.clone().into());
            }
            let event = crate::load(id).await;
            if self.keeps {
                self.events.lock().unwrap().insert(id, event.clone());
            }
            Ok(event.into())
        }

        async fn evict(&self, _: u64) -> Result<Evicted> {
            unreachable!("nothing is evicted here")
        }
    }

    /// In one test, because the bodies of a process are counted together.
    #[tokio::test(start_paused = true)]
    async fn bodies_and_calls_are_counted() {
        let (cache, no_cache) = (Map::new(true), Map::new(false));

        fill(&*cache, 1, 10).await.unwrap();
        let hit = hits(&cache, 1, 10, 100, 7).await.unwrap();
        assert_eq!((hit.loads, hit.errors), (0, 0));
        let missed = hits(&no_cache, 1, 10, 100, 7).await.unwrap();
        assert_eq!(missed.loads, 100, "every call counts once");

        let Reply::Rush { loads, errors, .. } = rush(&no_cache, 99, 20, 0).await.unwrap() else {
            panic!("another reply to a rush");
        };
        assert_eq!((loads, errors), (20, 0));
    }
}
