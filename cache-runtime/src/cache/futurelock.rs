//! Loads that are woken and not polled: a task that holds a load and waits for the same key does not wait for itself. The test
//! controls time, so each wait is known to the millisecond.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::{Cache, Guard, Used};
use crate::clock::Clock;
use crate::config::Config;
use crate::key::Key;
use crate::plan::ReadPlan;
use crate::site::{NoRules, Plain, Site};
use crate::store::gate::{Gate, Gated};
use crate::store::memory::MemoryStore;

static SITE: Site = Site::new("futurelock::row", "row:<id>").ttl_millis(60_000);

/// The duration of a body.
const BODY: Duration = Duration::from_millis(20);

/// The longest wait of a caller for leaders that are not polled.
const MAX_WAIT: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct Lab {
    cache: Cache,
    loads: Arc<AtomicU32>,
}

impl Lab {
    fn new() -> Self {
        Self {
            cache: Cache::memory(),
            loads: Arc::default(),
        }
    }

    /// Creates a cache whose store stops at each operation.
    fn gated(gate: &Gate) -> Self {
        let store = Arc::new(MemoryStore::new(1 << 20, Clock::default()));
        let gated = Arc::new(Gated::new(store, gate.clone()));
        // With a deadline in the guard, time could not advance while the store is stopped.
        let cache = Cache::around(Config::default(), None, |config, wake| {
            Guard::local(gated, config, wake)
        });
        Self {
            cache,
            ..Self::new()
        }
    }

    async fn row(&self, id: u32) -> u32 {
        self.row_by(id, async {
            sleep(BODY).await;
            id
        })
        .await
    }

    async fn row_by(&self, id: u32, body: impl Future<Output = u32>) -> u32 {
        let key = Key::render(self.cache.prefix(), |key| {
            key.text("row:").value(&id);
        });
        let body = async {
            self.loads.fetch_add(1, Ordering::SeqCst);
            body.await
        };
        let cache = Used::named(&self.cache);
        let call = Some((cache, ReadPlan::new(&SITE, key)));
        Cache::read::<Plain<u32>>(call, NoRules, pin!(body)).await
    }

    fn loads(&self) -> u32 {
        self.loads.load(Ordering::SeqCst)
    }

    fn stuck(&self) -> u64 {
        self.cache.stats().total.loads_stuck
    }

    fn fills(&self) -> u64 {
        self.cache.stats().total.fills
    }
}

/// Polls `future` for a moment, and then no longer.
async fn begin(future: &mut (impl Future + Unpin)) {
    tokio::select! {
        biased;
        _ = future => panic!("the call has not finished"),
        () = sleep(Duration::from_millis(5)) => {}
    }
}

async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (call.await, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_call_next_to_one_held_by_select_runs_its_own_body() {
    let lab = Lab::new();
    let mut first = pin!(lab.row(1));
    begin(&mut first).await;

    let (value, waited) = timed(lab.row(1)).await;

    assert_eq!(value, 1);
    assert!(waited <= MAX_WAIT + BODY, "waited for {waited:?}");
    assert_eq!((lab.loads(), lab.stuck(), lab.fills()), (2, 1, 1));
    let (value, waited) = timed(first).await;
    assert_eq!((value, waited), (1, Duration::ZERO));
    assert_eq!(lab.fills(), 1, "only one of them holds the lease");
}

#[tokio::test(start_paused = true)]
async fn a_call_in_a_loop_over_buffered_calls_runs_its_own_body() {
    let lab = Lab::new();
    let mut rows = stream::iter(0..6).map(|id| lab.row(id)).buffered(3);

    while let Some(id) = rows.next().await {
        let (value, waited) = timed(lab.row(id + 1)).await;

        assert_eq!(value, id + 1);
        assert!(waited <= MAX_WAIT + BODY, "waited for {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_next_to_many_held_calls_runs_its_own_body() {
    let lab = Lab::new();
    let mut kept: FuturesUnordered<_> = (0..5).map(|_| Box::pin(lab.row(1))).collect();
    begin(&mut kept.next()).await;

    let (value, waited) = timed(lab.row(1)).await;

    assert_eq!(value, 1);
    assert!(waited <= MAX_WAIT + BODY, "waited for {waited:?}");
    assert_eq!(kept.collect::<Vec<_>>().await, [1; 5]);
    assert_eq!(lab.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_inside_a_held_load_does_not_block_either() {
    let lab = Lab::new();
    let mut outer = pin!(lab.row_by(1, lab.row(2)));
    begin(&mut outer).await;

    let (inner, waited) = timed(lab.row(2)).await;
    assert_eq!(inner, 2);
    assert!(waited <= MAX_WAIT + BODY, "waited for {waited:?}");

    let (value, waited) = timed(lab.row(1)).await;
    assert_eq!(value, 1);
    assert!(waited <= MAX_WAIT + BODY, "waited for {waited:?}");
    assert_eq!(outer.await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_not_polled_around_its_lease_request_is_stuck() {
    // Before the request for the lease is sent, and after the lease is placed but before its answer arrives.
    for points in [2, 3] {
        let gate = Gate::default();
        let lab = Lab::gated(&gate);
        gate.stop_after(points);
        let mut first = pin!(lab.row(1));
        begin(&mut first).await;

        gate.open();
        let (value, waited) = timed(lab.row(1)).await;

        assert_eq!(value, 1);
        assert!(waited <= MAX_WAIT + BODY, "waited for {waited:?}");
        assert_eq!((lab.stuck(), lab.fills()), (1, 1), "at point {points}");
        assert_eq!(first.await, 1);
        assert_eq!(lab.fills(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_deposed_leader_leaves_the_lease_to_the_next() {
    let lab = Lab::new();
    let mut first = Box::pin(lab.row(1));
    begin(&mut first).await;
    let second = tokio::spawn({
        let lab = lab.clone();
        async move { lab.row(1).await }
    });
    sleep(Duration::from_millis(75)).await;
    assert_eq!(lab.loads(), 2, "the second runs its body");

    drop(first);
    let third = lab.row(1).await;

    assert_eq!((second.await.ok(), third), (Some(1), 1));
    assert_eq!((lab.loads(), lab.fills()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_second_stuck_leader_blocks_no_caller() {
    let lab = Lab::new();
    let mut first = pin!(lab.row(1));
    let mut second = pin!(lab.row(1));
    begin(&mut first).await;
    tokio::select! {
        biased;
        _ = &mut second => panic!("its body has not finished"),
        () = sleep(Duration::from_millis(70)) => {}
    }
    assert_eq!(lab.loads(), 2, "the second took over");

    let (value, waited) = timed(lab.row(1)).await;

    assert_eq!(value, 1);
    assert!(waited <= MAX_WAIT + BODY, "waited for {waited:?}");
    assert_eq!((first.await, second.await), (1, 1));
    assert_eq!(lab.fills(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_leader_that_is_polled_is_not_stuck() {
    let lab = Lab::new();
    let slow = async {
        for _ in 0..100 {
            sleep(Duration::from_millis(60)).await;
        }
        1
    };

    let both = tokio::join!(lab.row_by(1, slow), lab.row(1));

    assert_eq!(both, (1, 1));
    assert_eq!((lab.loads(), lab.stuck()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn joined_calls_share_a_load_while_a_mutex_is_held() {
    let (lab, mutex) = (Lab::new(), Mutex::new(()));
    let first = async {
        let guard = mutex.lock().await;
        let value = lab.row(1).await;
        drop(guard);
        value
    };
    let second = async {
        let value = lab.row(1).await;
        drop(mutex.lock().await);
        value
    };

    let (both, waited) = timed(async { tokio::join!(first, second) }).await;

    assert_eq!((both, waited), ((1, 1), BODY));
    assert_eq!((lab.loads(), lab.stuck()), (1, 0));
}
