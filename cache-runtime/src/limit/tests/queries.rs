//! Queries about clients, and resets, blocks and refunds.

use super::super::{Algorithm, Identity, Penalty, Policy, Verdict};
use super::{Bench, admitted, another, check, client, in_memory, millis, policy};
use crate::error::ErrorKind;
use crate::shared::on_a_cluster;

on_a_cluster! {
    a_reset_applies_immediately_here_and_within_1_s_elsewhere
    a_blocked_client_is_blocked_everywhere_until_unblocked
    top_limited_includes_all_processes
    decisions_are_counted_by_policy_and_route
    routes_above_the_cap_are_counted_together
    a_refund_returns_only_the_units_of_an_allowed_call
    only_a_client_that_keeps_failing_is_blocked
}

#[tokio::test]
async fn a_reset_applies_immediately_here_and_within_1_s_elsewhere() {
    let bench = Bench::new([policy(1).per("10s").penalty(Penalty::default())]).await;
    let (_, other) = another(
        &bench.server,
        &bench.clock,
        [policy(1).per("10s").penalty(Penalty::default())],
    )
    .await;
    assert_eq!(admitted(&bench.limiter, 2).await, 1);
    assert_eq!(admitted(&other, 1).await, 0);

    bench.limiter.reset("test", &client()).await.unwrap();

    assert_eq!(admitted(&bench.limiter, 2).await, 1);
    bench.limiter.reset("test", &client()).await.unwrap();
    bench.clock.advance(millis(1_000));
    assert_eq!(admitted(&other, 2).await, 1);
}

#[tokio::test]
async fn a_blocked_client_is_blocked_everywhere_until_unblocked() {
    let bench = Bench::new([policy(5)]).await;
    let (_, other) = another(&bench.server, &bench.clock, [policy(5)]).await;

    bench
        .limiter
        .block("test", &client(), millis(60_000))
        .await
        .unwrap();

    for limiter in [&bench.limiter, &other] {
        let blocked = check(limiter).await;
        assert_eq!(
            (blocked.verdict, blocked.retry_after),
            (Verdict::Blocked, Some(millis(60_000)))
        );
    }
    bench.limiter.unblock("test", &client()).await.unwrap();
    assert_eq!(admitted(&bench.limiter, 1).await, 1);
    bench
        .limiter
        .block("test", &client(), millis(1_500))
        .await
        .unwrap();
    bench.clock.advance(millis(1_500));
    assert_eq!(
        admitted(&bench.limiter, 1).await,
        1,
        "a block ends by itself"
    );
}

#[tokio::test]
async fn blocks_and_resets_work_in_memory() {
    let (limiter, _) = in_memory([policy(1)]);
    assert_eq!(admitted(&limiter, 2).await, 1);
    limiter.reset("test", &client()).await.unwrap();
    assert_eq!(admitted(&limiter, 2).await, 1);
    limiter.reset("test", &client()).await.unwrap();

    limiter
        .block("test", &client(), millis(60_000))
        .await
        .unwrap();

    assert_eq!(check(&limiter).await.verdict, Verdict::Blocked);
}

#[tokio::test]
async fn a_reset_during_an_outage_is_an_error_and_applies_to_this_process() {
    let mut bench = Bench::new([policy(1)]).await;
    bench.server.kill();
    assert_eq!(admitted(&bench.limiter, 2).await, 1);

    let outcome = bench.limiter.reset("test", &client()).await;

    assert!(outcome.unwrap_err().is_transient());
    assert_eq!(admitted(&bench.limiter, 2).await, 1);
}

#[tokio::test]
async fn an_invalid_block_is_refused() {
    let (limiter, _) = in_memory([policy(1)]);

    for duration in [millis(0), millis(32 * 86_400_000), std::time::Duration::MAX] {
        let error = limiter
            .block("test", &client(), duration)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
    }
}

#[tokio::test]
async fn top_limited_includes_all_processes() {
    let bench = Bench::new([policy(1).per("1h")]).await;
    let (_, other) = another(&bench.server, &bench.clock, [policy(1).per("1h")]).await;
    for (limiter, calls) in [(&bench.limiter, 4), (&other, 3)] {
        for _ in 0..calls {
            let _ = limiter.check("test", &Identity::user("worst")).await;
        }
        let _ = limiter.check("test", &Identity::user("bad")).await;
    }

    let _ = other.top_limited("test", 9).await.unwrap();
    let top = bench.limiter.top_limited("test", 9).await.unwrap();

    assert_eq!(
        top,
        [("user:worst".to_owned(), 6), ("user:bad".to_owned(), 1)]
    );
    assert_eq!(bench.limiter.top_limited("test", 1).await.unwrap().len(), 1);
    assert_eq!(bench.limiter.top_limited("test", 0).await.unwrap(), []);
}

#[tokio::test]
async fn decisions_are_counted_by_policy_and_route() {
    let bench = Bench::new([policy(1).per("10s")]).await;
    let limit = bench.limiter.limit(&["test"]).unwrap();
    for _ in 0..12 {
        let decision = limit.check(&client()).await;
        if !decision.is_allowed() {
            limit.count_rejection(&decision, "/api/events/{id}");
        }
    }

    let stats = bench.stats("test");

    assert_eq!((stats.allowed, stats.limited, stats.known), (1, 11, 10));
    assert_eq!(
        stats.suspicious, 1,
        "more than 10 times the limit counts once per window"
    );
    assert_eq!(stats.rejected_by_route["/api/events/{id}"], 11);
}

#[tokio::test]
async fn routes_above_the_cap_are_counted_together() {
    let (limiter, _) = in_memory([Policy::new("test").limit(1).per("1h")]);
    let limit = limiter.limit(&["test"]).unwrap();
    let _ = limit.check(&client()).await;
    let rejected = limit.check(&client()).await;

    for number in 0..1_000 {
        limit.count_rejection(&rejected, &format!("/{number}"));
    }

    let stats = limiter.inner.cache.stats().limits.remove(0);
    assert!(stats.rejected_by_route.len() <= 257);
    assert_eq!(stats.rejected_by_route.values().sum::<u64>(), 1_000);
}

#[tokio::test]
async fn a_refund_returns_only_the_units_of_an_allowed_call() {
    let policies = || {
        [
            policy(3),
            Policy::new("many").limit(2_000).per("1s"),
            Policy::new("even")
                .limit(3)
                .per("1s")
                .algorithm(Algorithm::Gcra),
        ]
    };
    let bench = Bench::new(policies()).await;
    let (local, _) = in_memory(policies());
    for limiter in [&bench.limiter, &local] {
        for name in ["test", "many", "even"] {
            let limit = limiter.limit(&[name]).unwrap();
            let all = limit.peek(&client()).await.policies[0].remaining;

            let mut allowed = limit.check_cost(&client(), 2).await;
            assert_eq!(
                (allowed.charged, allowed.policies[0].remaining),
                (2, all - 2)
            );
            limit.refund(&client(), &mut allowed).await;
            limit.refund(&client(), &mut allowed).await;

            assert_eq!((allowed.charged, allowed.policies[0].remaining), (0, all));
            let after = limit.peek(&client()).await;
            assert_eq!(after.policies[0].remaining, all, "{name}");
        }
        assert_eq!(admitted(limiter, 4).await, 3);
        let limit = limiter.limit(&["test"]).unwrap();
        let mut refused = limit.check(&client()).await;
        limit.refund(&client(), &mut refused).await;
        assert_eq!(admitted(limiter, 1).await, 0);
    }
}

#[tokio::test]
async fn only_a_client_that_keeps_failing_is_blocked() {
    let logins = || [policy(3).per("10s").penalty(Penalty::default())];
    let bench = Bench::new(logins()).await;
    let limit = bench.limiter.limit(&["test"]).unwrap();

    for _ in 0..50 {
        let mut decision = limit.check(&client()).await;
        assert!(decision.is_allowed());
        limit.refund(&client(), &mut decision).await;
    }
    for _ in 0..2 {
        assert_eq!(admitted(&bench.limiter, 4).await, 3);
        bench.clock.advance(millis(10_000));
        admitted(&bench.limiter, 3).await;
        assert!(!check(&bench.limiter).await.is_allowed());
        if check(&bench.limiter).await.verdict == Verdict::Blocked {
            return;
        }
        bench.clock.advance(millis(10_000));
    }
    panic!("a client that keeps failing is not blocked");
}

#[tokio::test]
async fn a_refund_during_an_outage_applies_to_this_process() {
    let mut bench = Bench::new([policy(3)]).await;
    bench.kill().await;
    let limit = bench.limiter.limit(&["test"]).unwrap();

    for _ in 0..10 {
        let mut decision = limit.check(&client()).await;
        assert!(decision.is_allowed(), "{decision:?}");
        limit.refund(&client(), &mut decision).await;
    }

    assert_eq!(admitted(&bench.limiter, 5).await, 3);
}
