//! Tests of the limiter through its public API.

mod crowds;
mod decisions;
mod outages;
mod queries;
mod records;
mod reservations;

use std::time::{Duration, Instant};

use super::{Decision, Identity, Policy, RateLimiter};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::metrics::{LimitStats, Mode};
use crate::store::support::{as_user, config, connect, server_with_user, until};
use crate::testing::RedisServer;

/// A limiter with a Redis and a clock that the test controls.
struct Bench {
    server: RedisServer,
    cache: Cache,
    limiter: RateLimiter,
    clock: Clock,
}

impl Bench {
    async fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        let server = server_with_user(&[]);
        let clock = Clock::stopped();
        let (cache, limiter) = another(&server, &clock, policies).await;
        Self {
            server,
            cache,
            limiter,
            clock,
        }
    }

    async fn kill(&mut self) {
        self.server.kill();
        let cache = self.cache.clone();
        // This call notices the outage.
        until("the outage is noticed", move || {
            cache.losses() > 0 || cache.stats().mode == Mode::Fallback
        })
        .await;
    }

    async fn connected(&self) {
        let began = Instant::now();
        // Retry until Redis answers: the outage may not be noticed yet.
        while self.limiter.top_limited("test", 1).await.is_err()
            || self.cache.stats().mode != Mode::Redis
        {
            assert!(began.elapsed() < millis(10_000), "Redis is not used again");
            tokio::time::sleep(millis(5)).await;
        }
    }

    fn stats(&self, policy: &str) -> LimitStats {
        let limits = self.cache.stats().limits;
        limits
            .into_iter()
            .find(|limit| limit.policy == policy)
            .unwrap()
    }

    /// Returns the number of commands that the server has run, without those that concern connections.
    fn commands(&self) -> u64 {
        let info: String = crate::store::support::ask(&self.server, &["INFO", "commandstats"]);
        let calls = |line: &str| {
            let is_ours = line.starts_with("cmdstat_eval");
            let calls = line
                .split("calls=")
                .nth(1)?
                .split(',')
                .next()?
                .parse::<u64>()
                .ok()?;
            is_ours.then_some(calls)
        };
        info.lines().filter_map(calls).sum()
    }
}

/// Creates another process on the same server.
async fn another(
    server: &RedisServer,
    clock: &Clock,
    policies: impl IntoIterator<Item = Policy>,
) -> (Cache, RateLimiter) {
    let config = as_user(config(server)).clock(clock.clone());
    let cache = connect(config).await;
    let limiter = RateLimiter::new(&cache, policies).unwrap();
    (cache, limiter)
}

fn in_memory(policies: impl IntoIterator<Item = Policy>) -> (RateLimiter, Clock) {
    let clock = Clock::stopped();
    let config = crate::config::Config::default().clock(clock.clone());
    let cache = Cache::local(config);
    (RateLimiter::new(&cache, policies).unwrap(), clock)
}

fn policy(limit: u32) -> Policy {
    Policy::new("test").limit(limit).per("1s")
}

fn client() -> Identity {
    Identity::user(1)
}

async fn check(limiter: &RateLimiter) -> Decision {
    limiter.check("test", &client()).await.unwrap()
}

/// Makes `calls` calls and returns how many were admitted.
async fn admitted(limiter: &RateLimiter, calls: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..calls {
        admitted += usize::from(check(limiter).await.is_allowed());
    }
    admitted
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
