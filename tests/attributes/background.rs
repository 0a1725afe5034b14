//! `refresh = "background"`: stale values are served immediately, and a background task refreshes them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cache_runtime::{Cache, Clock, Config, cacheable};
use tokio::sync::Semaphore;

use crate::lab::Lab;

/// A lab with a clock that the test advances.
async fn driven() -> (Lab, Clock) {
    let clock = Clock::default();
    let mut lab = Lab::new();
    lab.cache = Cache::connect(Config::default().clock(clock.clone()))
        .await
        .expect("a valid configuration");
    (lab, clock)
}

/// Lets the tasks run until `condition` holds, for at most 10 s.
async fn until(condition: impl AsyncFn() -> bool) {
    let becomes_true = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), becomes_true)
        .await
        .expect("a task refreshes the value");
}

/// Waits for the task that stores `value`.
async fn until_stored(lab: &Lab, key: &str, value: usize) {
    until(async || lab.cache.get(key).await == Some(value)).await;
}

const TTL_IS_OVER: Duration = Duration::from_secs(61);

#[tokio::test]
async fn no_caller_waits_for_the_refresh() {
    #[cacheable(key = "count", ignore = [gate], ttl = 60, grace = "10m", refresh = "background", cache = lab.cache)]
    async fn count(lab: Lab, gate: Arc<Semaphore>) -> usize {
        let count = lab.run();
        gate.acquire().await.expect("an open semaphore").forget();
        count
    }
    let (lab, clock) = driven().await;
    let gate = Arc::new(Semaphore::new(1));
    count(lab.clone(), Arc::clone(&gate)).await;
    clock.advance(TTL_IS_OVER);

    for _ in 0..3 {
        let stale = count(lab.clone(), Arc::clone(&gate));
        let stale = tokio::time::timeout(Duration::from_secs(10), stale).await;
        assert_eq!(stale, Ok(1));
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    until_stored(&lab, "count", 2).await;

    assert_eq!(count(lab.clone(), gate).await, 2);
    assert_eq!(lab.runs(), 2);
}

#[tokio::test]
async fn a_miss_waits_for_its_own_body() {
    #[cacheable(key = "count", grace = "10m", refresh = "background", cache = lab.cache)]
    async fn count(lab: Lab) -> usize {
        lab.run()
    }
    let (lab, _) = driven().await;

    assert_eq!(count(lab.clone()).await, 1);
    assert_eq!(count(lab.clone()).await, 1);

    assert_eq!(lab.cache.stats().total.refreshes, 0);
}

#[derive(Clone)]
struct Counter {
    lab: Lab,
}

impl Counter {
    #[cacheable(key = "shared", ttl = 60, grace = "10m", refresh = "background", cache = self.lab.cache)]
    async fn shared(self: Arc<Self>) -> usize {
        self.lab.run()
    }

    #[cacheable(key = "owned", ttl = 60, grace = "10m", refresh = "background", cache = self.lab.cache)]
    async fn owned(self) -> usize {
        self.lab.run()
    }

    #[cacheable(key = "generic:<name.as_ref()>", any_type, ttl = 60, grace = "10m", refresh = "background", cache = self.lab.cache)]
    async fn generic<N: AsRef<str> + Send + 'static>(self, name: N) -> Option<usize> {
        (!name.as_ref().is_empty()).then(|| self.lab.run())
    }
}

#[async_trait]
trait Count: Send + Sync {
    async fn count(self: Arc<Self>, name: String) -> Result<usize, std::fmt::Error>;
}

#[async_trait]
impl Count for Counter {
    #[cacheable(key = "count:<name>", ttl = 60, grace = "10m", refresh = "background", cache = self.lab.cache)]
    async fn count(self: Arc<Self>, name: String) -> Result<usize, std::fmt::Error> {
        Ok(self.lab.run() + name.len())
    }
}

#[tokio::test]
async fn a_shared_self_can_refresh_in_the_background() {
    let (lab, clock) = driven().await;
    let counter = Arc::new(Counter { lab: lab.clone() });
    Arc::clone(&counter).shared().await;
    clock.advance(TTL_IS_OVER);

    assert_eq!(counter.shared().await, 1);

    until_stored(&lab, "shared", 2).await;
}

#[tokio::test]
async fn an_owned_self_and_a_generic_argument_can_refresh_in_the_background() {
    let (lab, clock) = driven().await;
    let counter = Counter { lab: lab.clone() };
    counter.clone().owned().await;
    counter.clone().generic("a").await;
    clock.advance(TTL_IS_OVER);

    assert_eq!(counter.clone().owned().await, 1);
    until_stored(&lab, "owned", 3).await;
    assert_eq!(counter.generic(String::from("a")).await, Some(2));
    until_stored(&lab, "generic:a", 4).await;
}

#[tokio::test]
async fn a_shared_self_under_async_trait_can_refresh_in_the_background() {
    let (lab, clock) = driven().await;
    let counter = Arc::new(Counter { lab: lab.clone() });
    Arc::clone(&counter).count("ab".into()).await.expect("Ok");
    clock.advance(TTL_IS_OVER);

    assert_eq!(counter.count("ab".into()).await, Ok(3));

    until_stored(&lab, "count:ab", 4).await;
}

#[tokio::test]
async fn closures_over_the_value_run_in_the_task() {
    #[cacheable(
        key = "count", ignore = [long, most],
        ttl = |count| if *count > 1 { long } else { 60 },
        unless = |count| *count == most,
        grace = "10m",
        refresh = "background",
        cache = lab.cache
    )]
    async fn count(lab: Lab, long: u64, most: usize) -> usize {
        lab.run()
    }
    let (lab, clock) = driven().await;
    count(lab.clone(), 90, 3).await;
    clock.advance(TTL_IS_OVER);
    count(lab.clone(), 90, 3).await;
    until_stored(&lab, "count", 2).await;

    clock.advance(TTL_IS_OVER);
    assert_eq!(count(lab.clone(), 90, 3).await, 2);
    assert_eq!(lab.runs(), 2, "the second value is fresh for 90 s");

    clock.advance(TTL_IS_OVER);
    assert_eq!(count(lab.clone(), 90, 3).await, 2);
    until(async || lab.runs() == 3).await;
    assert_eq!(count(lab, 90, 3).await, 4, "the third was not stored");
}
