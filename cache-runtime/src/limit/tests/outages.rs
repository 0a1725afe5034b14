//! Decisions during an outage of Redis and after it.

use super::super::table::Table;
use super::super::{Backend, Identity, OnOutage, Policy, RateLimiter, Share, Verdict};
use super::{Bench, admitted, another, check, client, in_memory, millis, policy};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::store::support::{config, until};
use crate::testing::{FaultProxy, RedisServer};

/// The pauses before the calls of a burst, in milliseconds.
const BURST: [u64; 12] = [0, 0, 100, 0, 0, 400, 0, 499, 1, 0, 100, 450];

#[tokio::test]
async fn killing_redis_at_any_step_of_a_burst_changes_no_decision() {
    for killed_at in 0..BURST.len() {
        let mut bench = Bench::new([policy(4)]).await;
        let (memory, clock) = in_memory([policy(4)]);
        for (step, pause) in BURST.into_iter().enumerate() {
            if step == killed_at {
                bench.server.kill();
            }
            bench.clock.advance(millis(pause));
            clock.advance(millis(pause));

            let (one, other) = (check(&bench.limiter).await, check(&memory).await);

            assert_eq!(
                one.verdict, other.verdict,
                "killed at {killed_at}, step {step}"
            );
            assert_eq!(
                one.retry_after, other.retry_after,
                "killed at {killed_at}, step {step}"
            );
            assert_eq!(one.policies[0].remaining, other.policies[0].remaining);
        }
    }
}

#[tokio::test]
async fn a_redis_that_returns_empty_grants_no_new_quota() {
    let mut bench = Bench::new([policy(4)]).await;
    assert_eq!(admitted(&bench.limiter, 3).await, 3);
    bench.server.kill();
    assert_eq!(
        admitted(&bench.limiter, 3).await,
        1,
        "the process has counted 3 calls"
    );

    bench.server.restart_empty().unwrap();
    bench.connected().await;

    assert_eq!(admitted(&bench.limiter, 3).await, 0);
    bench.clock.advance(millis(1_000));
    assert_eq!(admitted(&bench.limiter, 5).await, 4);
    bench.clock.advance(millis(1_000));
    let decision = check(&bench.limiter).await;
    assert_eq!(
        (decision.backend, decision.verdict),
        (Backend::Redis, Verdict::Allowed)
    );
}

#[tokio::test]
async fn a_redis_that_returns_empty_grants_concurrent_calls_no_new_quota() {
    let mut bench = Bench::new([policy(100)]).await;
    assert_eq!(admitted(&bench.limiter, 60).await, 60);
    bench.kill().await;
    bench.server.restart_empty().unwrap();
    let _ = check(&bench.limiter).await;
    bench.connected().await;

    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let limiter = bench.limiter.clone();
        calls.spawn(async move { check(&limiter).await.is_allowed() });
    }
    let more = calls
        .join_all()
        .await
        .into_iter()
        .filter(|allowed| *allowed)
        .count();

    assert_eq!(more, 39, "the previous call was number 61");
}

#[tokio::test]
async fn a_silent_redis_delays_a_decision_by_the_deadline_at_most() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let clock = Clock::stopped();
    let config = proxy
        .config()
        .clock(clock.clone())
        .command_timeout(millis(100));
    let cache = Cache::connect(config).await.unwrap();
    let limiter = RateLimiter::new(&cache, [policy(4)]).unwrap();
    assert_eq!(admitted(&limiter, 2).await, 2);

    proxy.stall();
    let decisions = [
        check(&limiter).await,
        check(&limiter).await,
        check(&limiter).await,
    ];

    let verdicts = decisions.map(|decision| (decision.verdict, decision.backend));
    let memory = Backend::Memory;
    assert_eq!(
        verdicts,
        [
            (Verdict::Allowed, memory),
            (Verdict::Allowed, memory),
            (Verdict::Limited, memory)
        ]
    );
}

#[tokio::test]
async fn a_late_answer_is_not_used_for_another_client() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let clock = Clock::stopped();
    let config = proxy
        .config()
        .clock(clock.clone())
        .command_timeout(millis(60));
    let cache = Cache::connect(config).await.unwrap();
    let limiter = RateLimiter::new(&cache, [policy(4)]).unwrap();

    proxy.delay(millis(90));
    let late = limiter.check("test", &client()).await.unwrap();
    proxy.pass();
    until("Redis answers in time", || {
        cache.stats().mode == crate::metrics::Mode::Redis
    })
    .await;
    let other = limiter.check("test", &Identity::user(2)).await.unwrap();

    assert!(late.is_allowed());
    assert_eq!(
        other.policies[0].remaining, 3,
        "the answer for the other client"
    );
}

#[tokio::test]
async fn on_outage_decides_during_an_outage() {
    let open = Policy::new("open")
        .limit(1)
        .per("1s")
        .on_outage(OnOutage::Allow);
    let closed = Policy::new("closed")
        .limit(1)
        .per("1s")
        .on_outage(OnOutage::Deny);
    let mut bench = Bench::new([open, closed, policy(1)]).await;
    bench.server.kill();
    let _ = check(&bench.limiter).await;

    for _ in 0..3 {
        assert!(
            bench
                .limiter
                .check("open", &client())
                .await
                .unwrap()
                .is_allowed()
        );
        let denied = bench.limiter.check("closed", &client()).await.unwrap();
        assert_eq!(denied.verdict, Verdict::Unavailable);
        assert!(denied.retry_after.is_some());
    }
    assert_eq!(check(&bench.limiter).await.verdict, Verdict::Limited);
}

#[tokio::test]
async fn a_process_grants_its_share_during_an_outage() {
    let mut server = RedisServer::start().unwrap();
    let cache = Cache::connect(config(&server).clock(Clock::stopped()).replicas(4))
        .await
        .unwrap();
    let limiter = RateLimiter::new(&cache, [policy(10).share(Share::Replica)]).unwrap();
    assert_eq!(admitted(&limiter, 2).await, 2);

    server.kill();

    assert_eq!(
        admitted(&limiter, 9).await,
        3,
        "a quarter of 10, rounded up"
    );
}

#[tokio::test]
async fn a_call_cancelled_during_a_request_to_redis_holds_nothing() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let config = proxy
        .config()
        .clock(Clock::stopped())
        .command_timeout(millis(2_000));
    let cache = Cache::connect(config).await.unwrap();
    let limiter = RateLimiter::new(&cache, [policy(2)]).unwrap();

    proxy.stall();
    for _ in 0..5 {
        let gone = tokio::time::timeout(millis(20), check(&limiter)).await;
        assert!(gone.is_err());
    }
    proxy.cut();

    assert_eq!(admitted(&limiter, 4).await, 2);
}

#[tokio::test]
async fn each_process_continues_from_the_usage_that_it_has_seen() {
    let mut bench = Bench::new([policy(10)]).await;
    let (_, other) = another(&bench.server, &bench.clock, [policy(10)]).await;
    assert_eq!(admitted(&other, 6).await, 6);
    assert_eq!(
        admitted(&bench.limiter, 1).await,
        1,
        "the answer includes the other 6 calls"
    );

    bench.server.kill();

    assert_eq!(admitted(&bench.limiter, 9).await, 3);
}

#[test]
fn new_clients_share_an_allowance_when_the_table_is_full() {
    let (limiter, clock) = in_memory([policy(1)]);
    let policies = &limiter.inner.policies;
    let table = Table::new(16);
    let now = limiter.inner.now();
    let use_one = |name: &str, now| {
        table.with(name, policies, now, |client| {
            let is_shared = client.is_shared;
            for slot in client.slots(&[0], policies) {
                slot.state.add(&policies[0].rule, 1, now);
            }
            is_shared
        })
    };

    let shared = (0..1_000)
        .filter(|name| use_one(&name.to_string(), now))
        .count();

    assert!(
        shared >= 1_000 - 16,
        "{shared} clients shared the allowance"
    );
    assert!(table.len() <= 16);
    clock.advance(millis(2_000));
    let later = limiter.inner.now();
    assert!(!use_one("new", later), "clients without usage make room");
}

#[tokio::test]
async fn the_shared_allowance_is_ten_times_the_limit() {
    let config = crate::config::Config::default()
        .clock(crate::clock::Clock::stopped())
        .max_clients(16);
    let cache = crate::cache::Cache::local(config);
    let limiter = super::RateLimiter::new(&cache, [policy(2)]).unwrap();

    let mut admitted = 0;
    for client in 0..2_000 {
        let client = super::Identity::user(client);
        admitted += usize::from(limiter.check("test", &client).await.unwrap().is_allowed());
    }

    // One for each of the 16 places, and the shared allowance.
    assert_eq!(admitted, 16 + 20);
}
