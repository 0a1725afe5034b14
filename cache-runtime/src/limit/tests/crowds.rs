//! Calls of one client that arrive while others are on their way.

use std::future::Future;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::task::{JoinHandle, JoinSet};

use super::super::crowd::ALONE;
use super::super::{Algorithm, Backend, Decision, Limit, Penalty, Policy, Verdict};
use super::{Bench, another, check, client, millis, policy};
use crate::cache::Cache;
use crate::limit::RateLimiter;
use crate::store::support::until;
use crate::testing::{FaultProxy, RedisServer};

const ALGORITHMS: [Algorithm; 3] = [
    Algorithm::SlidingLog,
    Algorithm::SlidingBuckets,
    Algorithm::Gcra,
];

/// A limiter behind a proxy, with a clock that stands still.
async fn behind(proxy: &FaultProxy, timeout: u64, policy: Policy) -> (Cache, RateLimiter) {
    let config = proxy
        .config()
        .clock(crate::clock::Clock::stopped())
        // Two connections have no common order.
        .pool_min(1)
        .pool_max(1)
        .command_timeout(millis(timeout));
    let cache = Cache::connect(config).await.unwrap();
    let limiter = RateLimiter::new(&cache, [policy]).unwrap();
    (cache, limiter)
}

/// Starts a call, and returns once it is on its way or waits.
fn begin(limit: &Limit) -> JoinHandle<Decision> {
    begin_cost(limit, 1)
}

fn begin_cost(limit: &Limit, cost: u32) -> JoinHandle<Decision> {
    let limit = limit.clone();
    let mut call = Box::pin(async move { limit.check_cost(&client(), cost).await });
    let first = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending(), "{first:?}");
    tokio::spawn(call)
}

/// Starts as many calls as are sent alone.
fn begin_alone(limit: &Limit) -> Vec<JoinHandle<Decision>> {
    (0..ALONE).map(|_| begin(limit)).collect()
}

/// Returns how many calls wait for a batch.
fn waiting(limiter: &RateLimiter) -> u32 {
    let inner = &limiter.inner;
    let now = inner.now();
    inner
        .table
        .with(client().as_str(), &inner.policies, now, |known| {
            known.slots(&[0], &inner.policies)[0].waiting
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_in_two_processes_gets_exactly_the_limit() {
    for algorithm in ALGORITHMS {
        let policies = || [policy(1_000).per("10m").algorithm(algorithm)];
        let bench = Bench::new(policies()).await;
        let (other_cache, other) = another(&bench.server, &bench.clock, policies()).await;
        let mut calls = JoinSet::new();
        for _ in 0..3_000 {
            for limiter in [&bench.limiter, &other] {
                let limiter = limiter.clone();
                calls.spawn(async move { check(&limiter).await });
            }
        }

        let decisions = calls.join_all().await;

        let admitted = decisions.iter().filter(|decision| decision.is_allowed());
        assert_eq!(admitted.count(), 1_000, "{algorithm:?}");
        let in_memory = decisions
            .iter()
            .filter(|decision| decision.backend == Backend::Memory);
        assert_eq!(in_memory.count(), 0, "{algorithm:?}");
        let scripts = bench.commands();
        assert!(scripts < 600, "{algorithm:?}: {scripts} scripts");
        for cache in [&bench.cache, &other_cache] {
            let stats = &cache.stats().limits[0];
            assert!(stats.batches > 0, "{algorithm:?}: {stats:?}");
            assert!(stats.batched > stats.batches, "{algorithm:?}: {stats:?}");
        }
    }
}

#[tokio::test]
async fn the_calls_of_a_batch_are_admitted_in_order_of_arrival() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    for algorithm in ALGORITHMS {
        let (_cache, limiter) = behind(&proxy, 5_000, policy(10).algorithm(algorithm)).await;
        let limit = limiter.limit(&["test"]).unwrap();
        proxy.stall();
        let calls: Vec<_> = (0..20).map(|_| begin(&limit)).collect();

        proxy.pass();
        let mut decisions = Vec::new();
        for call in calls {
            decisions.push(call.await.unwrap());
        }

        let left: Vec<_> = decisions
            .iter()
            .map(|decision| (decision.is_allowed(), decision.policies[0].remaining))
            .collect();
        let expected = (0..20).map(|call| (call < 10, 9_u32.saturating_sub(call)));
        assert_eq!(left, expected.collect::<Vec<_>>(), "{algorithm:?}");
        limiter.reset("test", &client()).await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_counts_one_strike() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let penalty = Penalty::default().first(millis(500));
    let (cache, limiter) = behind(&proxy, 5_000, policy(5).penalty(penalty)).await;
    let limit = limiter.limit(&["test"]).unwrap();
    let clock = cache.config().clock.clone();
    let mut verdicts = Vec::new();
    for _ in 0..2 {
        proxy.stall();
        let calls: Vec<_> = (0..9).map(|_| begin(&limit)).collect();
        proxy.pass();
        for call in calls {
            verdicts.push(call.await.unwrap().verdict);
        }
        clock.advance(millis(1_000));
    }

    let of = |verdict: Verdict, times: usize| std::iter::repeat_n(verdict, times);
    let first_round = of(Verdict::Allowed, 5).chain(of(Verdict::Limited, 4));
    let second_round = of(Verdict::Allowed, 5)
        .chain(of(Verdict::Limited, 1))
        .chain(of(Verdict::Blocked, 3));
    assert_eq!(
        verdicts,
        first_round.chain(second_round).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_call_cancelled_while_it_waits_is_not_charged() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let (_cache, limiter) = behind(&proxy, 5_000, policy(10)).await;
    let limit = limiter.limit(&["test"]).unwrap();
    proxy.stall();
    let mut calls = begin_alone(&limit);
    calls.push(begin(&limit));
    until("the batch has left", || waiting(&limiter) == 0).await;
    let cancelled: Vec<_> = (0..5).map(|_| begin(&limit)).collect();
    calls.push(begin(&limit));
    assert_eq!(waiting(&limiter), 6);

    for call in cancelled {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    proxy.pass();

    for call in calls {
        assert!(call.await.unwrap().is_allowed());
    }
    let left = limit.peek(&client()).await;
    assert_eq!(left.policies[0].remaining, 10 - ALONE - 2);
    assert_eq!(waiting(&limiter), 0);
}

#[tokio::test]
async fn a_call_does_not_wait_for_a_caller_that_does_not_continue() {
    let bench = Bench::new([policy(10)]).await;
    let limit = bench.limiter.limit(&["test"]).unwrap();
    let mut stuck: Vec<_> = (0..ALONE)
        .map(|_| Box::pin(async { limit.check(&client()).await }))
        .collect();
    for call in &mut stuck {
        let first = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(first, Poll::Pending));
    }

    let other = check(&bench.limiter).await;

    assert_eq!(
        (other.verdict, other.backend),
        (Verdict::Allowed, Backend::Redis)
    );
    for call in stuck {
        assert!(call.await.is_allowed());
    }
}

#[tokio::test]
async fn each_call_of_a_batch_gets_an_answer_in_time_when_redis_does_not_answer() {
    for is_killed in [false, true] {
        let mut server = RedisServer::start().unwrap();
        let proxy = FaultProxy::start(&server).unwrap();
        let (_cache, limiter) = behind(&proxy, 400, policy(30)).await;
        let limit = limiter.limit(&["test"]).unwrap();
        assert!(check(&limiter).await.is_allowed());
        proxy.stall();
        let began = Instant::now();
        let mut calls: Vec<_> = (0..50).map(|_| begin(&limit)).collect();
        until("the batch has left", || waiting(&limiter) == 0).await;
        calls.extend((0..50).map(|_| begin(&limit)));
        assert_eq!(waiting(&limiter), 50);
        if is_killed {
            server.kill();
            proxy.cut();
        }

        let mut admitted = 0;
        for call in calls {
            let decision = call.await.unwrap();
            assert_eq!(decision.backend, Backend::Memory);
            admitted += usize::from(decision.is_allowed());
        }

        assert_eq!(admitted, 29, "killed: {is_killed}");
        // The deadline, and time for a busy machine.
        assert!(began.elapsed() < millis(700), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn calls_under_other_policies_or_of_another_cost_do_not_share_a_batch() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let config = proxy
        .config()
        .clock(crate::clock::Clock::stopped())
        .command_timeout(millis(5_000));
    let cache = Cache::connect(config).await.unwrap();
    let tight = Policy::new("tight").limit(3).per("1s");
    let limiter = RateLimiter::new(&cache, [policy(100), tight]).unwrap();
    let one = limiter.limit(&["test"]).unwrap();
    let same = limiter.limit(&["test"]).unwrap();
    let both = limiter.limit(&["tight", "test"]).unwrap();
    proxy.stall();
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.extend([&one, &same, &both].map(begin));
        calls.push(begin_cost(&one, 2));
    }

    proxy.pass();
    let mut admitted = 0;
    for call in calls {
        admitted += usize::from(call.await.unwrap().is_allowed());
    }

    assert_eq!(admitted, 10 + 10 + 3 + 10);
    let left = limiter.peek("test", &client()).await.unwrap();
    assert_eq!(left.policies[0].remaining, 100 - 10 - 10 - 3 - 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refunds_in_a_crowd_leave_exact_counts() {
    let bench = Bench::new([policy(500).per("10m")]).await;
    let limit = bench.limiter.limit(&["test"]).unwrap();
    let mut calls = JoinSet::new();
    for call in 0..600 {
        let limit = limit.clone();
        calls.spawn(async move {
            let mut decision = limit.check(&client()).await;
            if call % 3 == 0 && decision.is_allowed() {
                limit.refund(&client(), &mut decision).await;
            }
            decision.charged
        });
    }

    let charged: u32 = calls.join_all().await.into_iter().sum();

    let left = limit.peek(&client()).await.policies[0].remaining;
    assert_eq!(left, 500 - charged);
}

#[test]
fn callers_of_another_runtime_begin_again_when_the_runtime_of_the_batches_ends() {
    let build = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (main, ending) = (build(), build());
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::start(&server).unwrap();
    let (_cache, limiter) = main.block_on(behind(&proxy, 5_000, policy(10)));
    let limit = limiter.limit(&["test"]).unwrap();
    proxy.stall();
    let begin_in = |runtime: &tokio::runtime::Runtime| {
        let _entered = runtime.enter();
        begin(&limit)
    };
    let alone: Vec<_> = (0..ALONE).map(|_| begin_in(&main)).collect();
    // The batches are sent by the runtime that ends.
    let lost = begin_in(&ending);
    main.block_on(until("the batch has left", || waiting(&limiter) == 0));
    let waits = begin_in(&main);
    assert_eq!(waiting(&limiter), 1);

    ending.shutdown_background();
    main.block_on(async {
        assert!(lost.await.unwrap_err().is_cancelled());
        proxy.pass();
        for call in alone {
            assert!(call.await.unwrap().is_allowed());
        }
        let decision = waits.await.unwrap();
        assert_eq!(
            (decision.verdict, decision.backend),
            (Verdict::Allowed, Backend::Redis)
        );
    });
    assert_eq!(waiting(&limiter), 0);
}
