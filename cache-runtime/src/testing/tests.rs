//! Everything follows tokio's clock if a test pauses it.

use std::time::{Duration, Instant};

use tokio::time::{advance, pause, sleep};

use super::{FaultProxy, RedisServer};
use crate::cache::Cache;
use crate::config::Config;
use crate::limit::{Identity, Policy, RateLimiter};
use crate::metrics::Mode;
use crate::session::{NewSession, SessionStore};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Returns whether `key` exists. An error of the cache fails the test.
async fn holds(cache: &Cache, key: &str) -> bool {
    cache.try_get::<u8>(key).await.expect("an answer").is_some()
}

#[tokio::test(start_paused = true)]
async fn advancing_tokio_time_expires_entries_in_memory() {
    let cache = Cache::memory();
    cache.set("a", &1_u8, 60).await;

    advance(59 * SECOND).await;
    let before = holds(&cache, "a").await;
    let left = cache.ttl("a").await;
    advance(2 * SECOND).await;

    assert!(before);
    assert_eq!(left, Some(SECOND));
    assert!(!holds(&cache, "a").await);
}

#[tokio::test]
async fn caches_from_before_and_after_the_pause_follow_it() {
    let old = Cache::memory();
    old.set("a", &1_u8, 60).await;
    pause();
    advance(30 * SECOND).await;
    let young = Cache::memory();
    young.set("a", &1_u8, 60).await;

    advance(31 * SECOND).await;

    assert!(!holds(&old, "a").await);
    assert!(holds(&young, "a").await);
}

#[tokio::test(start_paused = true)]
async fn real_time_does_not_expire_entries_under_a_paused_clock() {
    let cache = Cache::memory();
    cache.set("a", &1_u8, Duration::from_millis(2)).await;

    std::thread::sleep(Duration::from_millis(5));

    assert!(holds(&cache, "a").await);
}

#[tokio::test(start_paused = true)]
async fn operations_on_redis_do_not_time_out_under_a_paused_clock() {
    let server = RedisServer::start().expect("a server");
    let began = tokio::time::Instant::now();
    let cache = Cache::connect(server.config()).await.expect("valid");
    assert_eq!(cache.stats().mode, Mode::Redis);

    for n in 0..200 {
        let key = format!("a:{n}");
        assert!(cache.try_set(&key, &1_u8, 60).await.is_ok());
        assert!(holds(&cache, &key).await);
    }
    cache.try_delete("a:1").await.expect("an answer");

    let stats = cache.stats();
    assert_eq!((stats.total.timeouts, stats.total.errors), (0, 0));
    assert_eq!(began.elapsed(), Duration::ZERO, "no time has passed");
}

#[tokio::test(start_paused = true)]
async fn connections_survive_jumps_of_several_hours() {
    let server = RedisServer::start().expect("a server");
    let cache = Cache::connect(server.config()).await.expect("valid");
    cache.set("a", &1_u8, DAY).await;

    sleep(Duration::from_secs(3_600)).await;
    advance(Duration::from_secs(3_600)).await;

    assert!(holds(&cache, "a").await);
    let stats = cache.stats();
    assert_eq!(stats.fallback.entered, 0);
    assert_eq!(stats.pool.expect("a pool").lost, 0);
}

#[tokio::test(start_paused = true)]
async fn an_entry_in_redis_expires_by_tokio_time() {
    let server = RedisServer::start().expect("a server");
    let cache = Cache::connect(server.config()).await.expect("valid");
    cache.set("a", &1_u8, 60).await;

    advance(61 * SECOND).await;

    assert!(!holds(&cache, "a").await);
}

#[tokio::test(start_paused = true)]
async fn a_silent_redis_times_out_in_real_time() {
    let server = RedisServer::start().expect("a server");
    let network = FaultProxy::start(&server).expect("a proxy");
    let deadline = Duration::from_millis(200);
    let config = network.config().command_timeout(deadline);
    let cache = Cache::connect(config).await.expect("valid");
    assert!(!holds(&cache, "a").await);
    network.stall();
    let began = Instant::now();

    let answer = cache.try_get::<u8>("a").await;

    assert!(answer.expect_err("no answer").is_transient());
    assert!(began.elapsed() >= deadline, "{:?}", began.elapsed());
    assert!(began.elapsed() < 50 * deadline, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn advancing_tokio_time_ends_sessions() {
    let server = RedisServer::start().expect("a server");
    for config in [Config::default(), server.config()] {
        let cache = Cache::connect(config).await.expect("valid");
        let sessions = SessionStore::<()>::new(&cache).expect("valid");
        let session = sessions.create(NewSession::new(1, "ada")).await;
        let token = session.expect("no outage").token().clone();

        advance(DAY - SECOND).await;
        sessions
            .load(&token)
            .await
            .expect("the session has not ended");
        advance(2 * DAY).await;

        sessions
            .load(&token)
            .await
            .expect_err("the session has ended");
    }
}

#[tokio::test(start_paused = true)]
async fn advancing_tokio_time_frees_limits() {
    let server = RedisServer::start().expect("a server");
    for config in [Config::default(), server.config()] {
        let cache = Cache::connect(config).await.expect("valid");
        let policy = Policy::new("api").limit(1).per("1h");
        let limiter = RateLimiter::new(&cache, [policy]).expect("a policy");
        let client = Identity::key("a");
        let is_allowed = async || {
            let decision = limiter.check("api", &client).await;
            decision.expect("a policy").is_allowed()
        };
        let first = [is_allowed().await, is_allowed().await];

        advance(Duration::from_secs(3_601)).await;

        assert_eq!((first, is_allowed().await), ([true, false], true));
    }
}
