//! The ttl that a value chooses, jitter, and grace.

use std::time::Duration;

use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Clock, Config, TtlPolicy, cache_put, cacheable};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::lab::{Event, Lab};

#[derive(Debug, PartialEq)]
struct Down;

/// A lab with a clock that the test advances.
async fn driven(config: Config) -> (Lab, Clock) {
    let clock = Clock::default();
    let mut lab = Lab::new();
    lab.cache = Cache::connect(config.clock(clock.clone()))
        .await
        .expect("a valid configuration");
    (lab, clock)
}

/// Returns how many seconds an entry stays fresh, without the time that the test took.
async fn fresh_for(lab: &Lab, key: &str) -> Option<f64> {
    let fresh = lab.cache.ttl(key).await?;
    Some(fresh.as_secs_f64().ceil())
}

fn by_id(event: &Event) -> Duration {
    Duration::from_secs(event.id.unsigned_abs())
}

#[tokio::test]
async fn the_value_chooses_its_ttl() {
    #[cacheable(key = "plain:<id>", ttl = |event| by_id(event), cache = lab.cache)]
    async fn plain(lab: &Lab, id: i64) -> Event {
        Event::new(id)
    }
    #[cache_put(key = "put:<id>", ttl = |event| by_id(event), cache = lab.cache)]
    async fn put(lab: &Lab, id: i64) -> Event {
        Event::new(id)
    }
    let lab = Lab::new();

    plain(&lab, 40).await;
    put(&lab, 50).await;

    assert_eq!(fresh_for(&lab, "plain:40").await, Some(40.0));
    assert_eq!(fresh_for(&lab, "put:50").await, Some(50.0));
}

#[tokio::test]
async fn a_ttl_closure_sees_the_value_inside_ok_and_some() {
    #[cacheable(key = "option:<id>", ttl = |event| by_id(event), cache = lab.cache)]
    async fn option(lab: &Lab, id: i64) -> Option<Event> {
        Some(Event::new(id))
    }
    #[cacheable(key = "result:<id>", ttl = |event| by_id(event), cache = lab.cache)]
    async fn result(lab: &Lab, id: i64) -> Result<Event, Down> {
        Ok(Event::new(id))
    }
    #[cacheable(key = "both:<id>", ttl = |event| by_id(event), none_ttl = 7, cache = lab.cache)]
    async fn both(lab: &Lab, id: i64) -> Result<Option<Event>, Down> {
        Ok((id > 0).then(|| Event::new(id)))
    }
    let lab = Lab::new();

    option(&lab, 40).await;
    result(&lab, 50).await.expect("it returns `Ok`");
    both(&lab, 60).await.expect("it returns `Ok`");
    both(&lab, 0).await.expect("it returns `Ok`");

    assert_eq!(fresh_for(&lab, "option:40").await, Some(40.0));
    assert_eq!(fresh_for(&lab, "result:50").await, Some(50.0));
    assert_eq!(fresh_for(&lab, "both:60").await, Some(60.0));
    assert_eq!(fresh_for(&lab, "both:0").await, Some(7.0));
}

#[tokio::test]
async fn a_ttl_closure_can_use_arguments_and_return_early() {
    #[cacheable(
        key = "event:<id>", ignore = [short],
        ttl = |event| {
            if event.title.is_empty() {
                return 1;
            }
            short
        },
        cache = lab.cache
    )]
    async fn find(lab: &Lab, id: i64, short: u64) -> Event {
        Event::new(id)
    }
    let lab = Lab::new();

    find(&lab, 1, 20).await;

    assert_eq!(fresh_for(&lab, "event:1").await, Some(20.0));
}

#[tokio::test]
async fn jitter_shortens_the_ttl_within_its_bound() {
    #[cacheable(key = "event:<id>", ttl = 1000, ttl_jitter = "10%", cache = lab.cache)]
    async fn find(lab: &Lab, id: i64) -> Event {
        Event::new(id)
    }
    let lab = Lab::new();

    let mut ttls = Vec::new();
    for id in 0..200 {
        find(&lab, id).await;
        ttls.extend(fresh_for(&lab, &format!("event:{id}")).await);
    }

    assert_eq!(ttls.len(), 200);
    assert!(ttls.iter().all(|ttl| (900.0..=1000.0).contains(ttl)));
    assert!(ttls.iter().any(|ttl| *ttl < 950.0));
    assert!(ttls.iter().any(|ttl| *ttl > 950.0));
}

#[cacheable(key = "count", ignore = [gate], ttl = 60, grace = "10m", cache = lab.cache)]
async fn count(lab: &Lab, gate: &Notify) -> usize {
    let count = lab.run();
    // A caller that waits this long should not run the body.
    let _ = timeout(Duration::from_secs(10), gate.notified()).await;
    count
}

#[tokio::test]
async fn one_caller_refreshes_in_grace_and_others_get_the_stale_value() {
    let (lab, clock) = driven(Config::default()).await;
    let gate = Notify::new();
    gate.notify_one();
    count(&lab, &gate).await;
    clock.advance(Duration::from_secs(61));

    let (refreshed, stale) = tokio::join!(count(&lab, &gate), async {
        let stale = [count(&lab, &gate).await, count(&lab, &gate).await];
        gate.notify_one();
        stale
    });

    assert_eq!((refreshed, stale), (2, [1, 1]));
    assert_eq!(count(&lab, &gate).await, 2);
    assert_eq!(lab.runs(), 2);
}

#[tokio::test]
async fn a_value_is_gone_after_its_grace() {
    let (lab, clock) = driven(Config::default()).await;
    let gate = Notify::new();
    gate.notify_one();
    count(&lab, &gate).await;

    clock.advance(Duration::from_secs(60 + 600 + 1));
    gate.notify_one();

    assert_eq!(count(&lab, &gate).await, 2);
    assert_eq!(lab.cache.stats().total.refreshes, 0);
}

#[tokio::test]
async fn a_failed_refresh_returns_the_stale_value_and_is_not_retried_immediately() {
    #[cacheable(key = "count", ignore = [is_up], ttl = 60, grace = "10m", cache = lab.cache)]
    async fn count(lab: &Lab, is_up: bool) -> Result<usize, Down> {
        let count = lab.run();
        is_up.then_some(count).ok_or(Down)
    }
    let (lab, clock) = driven(Config::default()).await;
    assert_eq!(count(&lab, true).await, Ok(1));
    clock.advance(Duration::from_secs(61));

    assert_eq!(count(&lab, false).await, Ok(1));
    assert_eq!(count(&lab, true).await, Ok(1));
    assert_eq!(lab.runs(), 2);
}

#[tokio::test]
async fn a_policy_can_set_the_grace() {
    #[cacheable(key = "count", ignore = [is_up], policy = "counts", cache = lab.cache)]
    async fn count(lab: &Lab, is_up: bool) -> Result<usize, Down> {
        let count = lab.run();
        is_up.then_some(count).ok_or(Down)
    }
    let policy = TtlPolicy::default()
        .ttl(Duration::from_secs(60))
        .grace(Duration::from_secs(600));
    let (lab, clock) = driven(Config::default().policy("counts", policy)).await;
    assert_eq!(count(&lab, true).await, Ok(1));

    clock.advance(Duration::from_secs(61));

    assert_eq!(count(&lab, false).await, Ok(1));
    assert_eq!(lab.runs(), 2);
}

#[tokio::test]
async fn a_put_value_is_served_in_its_grace() {
    #[cache_put(key = "event:<id>", ttl = 60, grace = 600, cache = lab.cache)]
    async fn save(lab: &Lab, id: i64) -> Event {
        Event::new(id)
    }
    #[cacheable(key = "event:<id>", ttl = 60, grace = 600, cache = lab.cache)]
    async fn find(lab: &Lab, id: i64) -> Result<Event, Down> {
        lab.run();
        Err(Down)
    }
    let (lab, clock) = driven(Config::default()).await;
    save(&lab, 1).await;

    clock.advance(Duration::from_secs(61));

    assert_eq!(find(&lab, 1).await, Ok(Event::new(1)));
    assert_eq!(lab.runs(), 1);
}

#[tokio::test]
async fn redis_keeps_an_entry_for_its_ttl_plus_its_grace() {
    #[cacheable(key = "read:<id>", ttl = 60, grace = "10m", cache = lab.cache)]
    async fn read(lab: &Lab, id: i64) -> Event {
        Event::new(id)
    }
    #[cache_put(key = "put:<id>", ttl = |event| by_id(event), grace = 600, cache = lab.cache)]
    async fn put(lab: &Lab, id: i64) -> Event {
        Event::new(id)
    }
    #[cacheable(key = "plain:<id>", ttl = 60, cache = lab.cache)]
    async fn plain(lab: &Lab, id: i64) -> Event {
        Event::new(id)
    }
    let server = RedisServer::start().expect("redis-server starts");
    let mut lab = Lab::new();
    lab.cache = Cache::connect(server.config())
        .await
        .expect("a valid configuration");
    let began = Instant::now();

    read(&lab, 1).await;
    put(&lab, 30).await;
    plain(&lab, 1).await;

    for (key, ttl) in [
        ("read:1", 660_000),
        ("put:30", 630_000),
        ("plain:1", 60_000),
    ] {
        let left = pttl(&server, &format!("{}{key}", lab.cache.config().prefix)).await;
        let taken = i64::try_from(began.elapsed().as_millis()).expect("a short test") + 1;
        assert!(
            (ttl - taken..=ttl).contains(&left),
            "{key}: {left} of {ttl} are left after {taken}"
        );
    }
}

/// Returns the milliseconds after which Redis removes a key.
async fn pttl(server: &RedisServer, key: &str) -> i64 {
    let url = server.url().replace("redis+unix://", "unix://");
    let client = redis::Client::open(url).expect("a valid URL");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("the server answers");
    redis::cmd("PTTL")
        .arg(key)
        .query_async(&mut connection)
        .await
        .expect("PTTL answers")
}
