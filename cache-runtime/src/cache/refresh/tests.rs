use std::convert::identity;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{advance, sleep};

use super::*;
use crate::cache::{Cache, Guard, Used};
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Counts;
use crate::plan::EvictPlan;
use crate::site::{NoRules, ResultOfOption, Site};
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::target::Target;

const TTL: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(100);
const THROTTLE: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(30);

static SITE: Site = Site::new("refresh::tests", "row:<id>")
    .ttl_millis(60_000)
    .grace_millis(100_000);

type Row = ResultOfOption<u32, &'static str>;
type Returned = Result<Option<u32>, &'static str>;

/// Two processes with one store, and a body that counts how often it runs.
struct Lab {
    caches: [Cache; 2],
    loads: AtomicU32,
    /// Each body waits for a permit.
    gate: Semaphore,
    answer: Mutex<Returned>,
    panics: AtomicBool,
}

impl Lab {
    fn new() -> Arc<Self> {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Arc<Self> {
        let clock = Clock::default();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20, clock.clone()));
        let cache = || {
            let config = config.clone().clock(clock.clone()).load_deadline(DEADLINE);
            Cache::around(config, None, |config, wake| {
                Guard::local(Arc::clone(&store), config, wake)
            })
        };
        Arc::new(Self {
            caches: [cache(), cache()],
            loads: AtomicU32::new(0),
            gate: Semaphore::new(0),
            answer: Mutex::new(Ok(Some(1))),
            panics: AtomicBool::new(false),
        })
    }

    /// Creates the processes with a stale 1 under `key`.
    async fn with_stale(config: Config, keys: &[u32]) -> Arc<Self> {
        let lab = Self::with(config);
        for &key in keys {
            lab.gate.add_permits(1);
            assert_eq!(lab.read(0, key).await.unwrap(), Ok(Some(1)));
        }
        lab.pass(TTL).await;
        lab.loads.store(0, Ordering::SeqCst);
        lab
    }

    async fn stale() -> Arc<Self> {
        Self::with_stale(Config::default(), &[1]).await
    }

    async fn pass(&self, time: Duration) {
        advance(time).await;
        settle().await;
    }

    fn will(&self, answer: Returned) {
        *self.answer.lock() = answer;
    }

    fn loads(&self) -> u32 {
        self.loads.load(Ordering::SeqCst)
    }

    fn counts(&self) -> Counts {
        self.caches[0].stats().total
    }

    async fn body(&self) -> Returned {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        assert!(!self.panics.load(Ordering::SeqCst), "the body panics");
        *self.answer.lock()
    }

    fn key(&self, process: usize, key: u32) -> Key {
        Key::render(self.caches[process].prefix(), |name| {
            name.text("row:").value(&key);
        })
    }

    fn call(&self, process: usize, key: u32) -> Option<(Used, ReadPlan)> {
        let plan = ReadPlan::new(&SITE, self.key(process, key));
        Some((Used::named(&self.caches[process]), plan))
    }

    fn read(self: &Arc<Self>, process: usize, key: u32) -> JoinHandle<Returned> {
        let lab = Arc::clone(self);
        tokio::spawn(async move {
            Cache::read::<Row>(lab.call(process, key), NoRules, pin!(lab.body())).await
        })
    }

    fn read_behind(self: &Arc<Self>, process: usize, key: u32) -> JoinHandle<Returned> {
        let lab = Arc::clone(self);
        tokio::spawn(async move {
            let carried = Arc::clone(&lab);
            let body = async move { carried.body().await };
            let call = lab.call(process, key);
            Cache::read_with_background_refresh::<Row, _, _>(call, NoRules, body, identity).await
        })
    }

    async fn evict(&self, process: usize) {
        let plan = EvictPlan {
            targets: vec![Target::Key(self.key(process, 1))],
            ..EvictPlan::new(&SITE)
        };
        let call = (Used::named(&self.caches[process]), plan);
        let mut body = pin!(async { Ok::<_, &str>(Some(1)) });
        let evicted = Cache::evict::<Row>(call, body.as_mut());
        evicted.await.unwrap();
    }
}

/// Runs all tasks until they are idle, without advancing time.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_caller_across_processes_refreshes_and_others_get_the_stale_value() {
    let lab = Lab::stale().await;
    lab.will(Ok(Some(2)));

    let callers: Vec<_> = (0..20).map(|n| lab.read(n % 2, 1)).collect();
    settle().await;
    let (waiting, served): (Vec<_>, Vec<_>) = callers
        .into_iter()
        .partition(|caller| !caller.is_finished());
    lab.gate.add_permits(1);

    for caller in served {
        assert_eq!(caller.await.unwrap(), Ok(Some(1)));
    }
    assert_eq!(waiting.len(), 1);
    for caller in waiting {
        assert_eq!(caller.await.unwrap(), Ok(Some(2)));
    }
    assert_eq!(lab.loads(), 1);
    assert_eq!(lab.read(1, 1).await.unwrap(), Ok(Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_long_refresh_renews_its_mark() {
    let lab = Lab::stale().await;
    let refresher = lab.read(0, 1);
    settle().await;

    for _ in 0..20 {
        lab.pass(Duration::from_secs(1)).await;
        assert_eq!(lab.read(1, 1).await.unwrap(), Ok(Some(1)));
    }

    lab.gate.add_permits(1);
    refresher.await.unwrap().unwrap();
    assert_eq!(lab.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_serves_the_stale_value_and_is_throttled_everywhere() {
    let lab = Lab::stale().await;
    lab.gate.add_permits(100);
    lab.will(Err("down"));

    assert_eq!(lab.read(0, 1).await.unwrap(), Ok(Some(1)));
    for _ in 0..10 {
        for process in [0, 1] {
            assert_eq!(lab.read(process, 1).await.unwrap(), Ok(Some(1)));
        }
        assert_eq!(lab.loads(), 1);
        lab.pass(THROTTLE / 10).await;
    }

    assert_eq!(lab.read(1, 1).await.unwrap(), Ok(Some(1)));
    assert_eq!(lab.loads(), 2);
    assert_eq!(lab.counts().refreshes_failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_gets_its_own_error_after_the_grace() {
    let lab = Lab::stale().await;
    lab.gate.add_permits(1);
    lab.will(Err("down"));

    lab.pass(GRACE).await;

    assert_eq!(lab.read(0, 1).await.unwrap(), Err("down"));
}

#[tokio::test(start_paused = true)]
async fn the_next_caller_refreshes_when_a_refresh_is_dropped() {
    let lab = Lab::stale().await;
    let refresher = lab.read(0, 1);
    settle().await;

    refresher.abort();
    settle().await;
    let next = lab.read(1, 1);
    lab.gate.add_permits(1);
    lab.will(Ok(Some(2)));

    assert_eq!(next.await.unwrap(), Ok(Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_is_throttled_too() {
    let lab = Lab::stale().await;
    lab.gate.add_permits(100);
    lab.panics.store(true, Ordering::SeqCst);

    assert!(lab.read(0, 1).await.unwrap_err().is_panic());

    for process in [0, 1] {
        assert_eq!(lab.read(process, 1).await.unwrap(), Ok(Some(1)));
    }
    assert_eq!(lab.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_without_a_value_to_store_removes_the_stale_value() {
    let lab = Lab::stale().await;
    lab.gate.add_permits(2);
    lab.will(Ok(None));

    assert_eq!(lab.read(0, 1).await.unwrap(), Ok(None));

    assert_eq!(lab.read(1, 1).await.unwrap(), Ok(None));
    assert_eq!(lab.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_eviction_during_a_refresh_wins() {
    let lab = Lab::stale().await;
    let refresher = lab.read(0, 1);
    settle().await;

    lab.evict(1).await;
    lab.gate.add_permits(2);
    assert_eq!(refresher.await.unwrap(), Ok(Some(1)));
    lab.will(Ok(Some(2)));

    assert_eq!(lab.read(1, 1).await.unwrap(), Ok(Some(2)));
    assert_eq!(lab.counts().fills_refused, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hung_refresh_does_not_block_another_and_continues() {
    let lab = Lab::stale().await;
    let hung = lab.read(0, 1);
    settle().await;

    lab.pass(DEADLINE - Duration::from_millis(1)).await;
    assert_eq!(lab.read(1, 1).await.unwrap(), Ok(Some(1)));
    lab.pass(Duration::from_millis(1)).await;
    let next = lab.read(0, 1);
    settle().await;
    assert_eq!(lab.loads(), 2);
    lab.gate.add_permits(2);

    assert!(next.await.unwrap().is_ok());
    assert!(hung.await.unwrap().is_ok());
    assert_eq!(lab.counts().loads_overdue, 1);
}

#[tokio::test(start_paused = true)]
async fn one_background_task_refreshes_and_all_callers_get_the_stale_value() {
    let lab = Lab::stale().await;
    lab.will(Ok(Some(2)));

    for n in 0..20 {
        assert_eq!(lab.read_behind(n % 2, 1).await.unwrap(), Ok(Some(1)));
    }
    settle().await;
    assert_eq!(lab.loads(), 1);
    lab.gate.add_permits(1);
    settle().await;

    assert_eq!(lab.read_behind(0, 1).await.unwrap(), Ok(Some(2)));
    assert_eq!(lab.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hung_background_refresh_is_cancelled_and_retried_after_the_throttle() {
    let lab = Lab::stale().await;
    lab.read_behind(0, 1).await.unwrap().unwrap();
    settle().await;

    lab.pass(DEADLINE).await;
    assert_eq!(lab.caches[0].inner.refreshes.in_background(), 0);
    lab.read_behind(1, 1).await.unwrap().unwrap();
    settle().await;
    assert_eq!(lab.loads(), 1);
    lab.pass(THROTTLE).await;
    lab.read_behind(1, 1).await.unwrap().unwrap();
    settle().await;

    assert_eq!(lab.loads(), 2);
    assert_eq!(lab.counts().loads_overdue, 1);
}

#[tokio::test(start_paused = true)]
async fn callers_refresh_themselves_beyond_max_refreshes() {
    let lab = Lab::with_stale(Config::default().max_refreshes(1), &[1, 2]).await;
    lab.will(Ok(Some(2)));

    let first = lab.read_behind(0, 1).await.unwrap();
    let second = lab.read_behind(0, 2);
    settle().await;
    let is_waiting = !second.is_finished();
    let third = lab.read_behind(0, 2).await.unwrap();
    lab.gate.add_permits(2);

    assert_eq!(first, Ok(Some(1)));
    assert!(is_waiting);
    assert_eq!(second.await.unwrap(), Ok(Some(2)));
    assert_eq!(third, Ok(Some(1)));
    assert_eq!(lab.counts().refreshes_crowded, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hung_load_does_not_block_loads_in_any_process() {
    let lab = Lab::new();
    let hung = lab.read(0, 1);
    settle().await;
    let waiting = lab.read(0, 1);
    settle().await;
    assert_eq!(lab.loads(), 1);

    lab.pass(DEADLINE).await;
    let other = lab.read(1, 1);
    settle().await;
    lab.gate.add_permits(3);
    sleep(Duration::from_secs(2)).await;

    for caller in [hung, waiting, other] {
        assert!(caller.is_finished());
        assert_eq!(caller.await.unwrap(), Ok(Some(1)));
    }
    assert_eq!(lab.counts().loads_overdue, 1);
    lab.read(1, 1).await.unwrap().unwrap();
    assert!(lab.loads() <= 3);
}

#[tokio::test(start_paused = true)]
async fn throttled_entries_are_forgotten_in_time() {
    let refreshes = Refreshes::new(1);
    for _ in 0..2 * MAX_RESTING {
        refreshes.rest(crate::entry::new_stamp(), THROTTLE);
    }
    assert_eq!(refreshes.lock().until.len(), MAX_RESTING);

    advance(THROTTLE).await;
    refreshes.rest(crate::entry::new_stamp(), THROTTLE);

    assert_eq!(refreshes.lock().until.len(), 1);
}
