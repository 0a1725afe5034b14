//! Which calls are admitted, and what the decisions contain.

use super::super::{Algorithm, Backend, Identity, Penalty, Policy, RateLimiter, Verdict};
use super::{Bench, admitted, another, check, client, in_memory, millis, policy};
use crate::error::ErrorKind;
use crate::shared::on_a_cluster;

on_a_cluster! {
    no_window_of_a_hammering_client_holds_more_than_the_limit
    a_client_is_admitted_at_retry_after_and_not_1_ms_earlier
    four_concurrent_processes_admit_the_limit_in_total
    the_remaining_units_are_exact
    a_call_counts_in_all_its_policies_or_in_none
    a_call_uses_as_many_units_as_it_costs
    peek_counts_nothing
    a_changed_limit_keeps_the_usage
    the_shortest_and_the_longest_windows_work
    one_window_is_one_strike_and_the_second_strike_blocks
    a_strike_is_forgiven_after_its_time
    memory_mode_decides_like_redis
    an_unknown_policy_is_an_error_with_the_known_names
    each_client_has_its_own_count
}

/// Returns the most admissions in any window.
fn most_in_a_window(stamps: &[u64], window: u64) -> usize {
    let within = |first: &u64| {
        stamps
            .iter()
            .filter(|stamp| (*first..first + window).contains(*stamp))
            .count()
    };
    stamps.iter().map(within).max().unwrap_or(0)
}

#[tokio::test]
async fn no_window_of_a_hammering_client_holds_more_than_the_limit() {
    for (algorithm, limit) in [
        (Algorithm::SlidingLog, 5),
        (Algorithm::SlidingLog, 10),
        (Algorithm::SlidingLog, 100),
        (Algorithm::SlidingLog, 1_000),
        (Algorithm::SlidingBuckets, 100),
    ] {
        let bench = Bench::new([policy(limit).algorithm(algorithm)]).await;
        let mut stamps = Vec::new();
        // The worst case is a burst at the end of a window.
        bench.clock.advance(millis(990));
        for step in 0..4_000 / 2 {
            for _ in 0..if limit > 100 { 2 } else { 1 } {
                if check(&bench.limiter).await.is_allowed() {
                    stamps.push(step * 2);
                }
            }
            bench.clock.advance(millis(2));
        }

        assert_eq!(
            most_in_a_window(&stamps, 1_000),
            limit as usize,
            "{algorithm:?}, {limit}"
        );
    }
}

#[tokio::test]
async fn a_client_is_admitted_at_retry_after_and_not_1_ms_earlier() {
    for algorithm in [
        Algorithm::SlidingLog,
        Algorithm::SlidingBuckets,
        Algorithm::Gcra,
    ] {
        let bench = Bench::new([policy(3).algorithm(algorithm)]).await;
        for _ in 0..3 {
            bench.clock.advance(millis(7));
            assert!(check(&bench.limiter).await.is_allowed());
        }

        let wait = check(&bench.limiter).await.retry_after.unwrap();

        bench.clock.advance(wait - millis(1));
        assert!(!check(&bench.limiter).await.is_allowed(), "{algorithm:?}");
        bench.clock.advance(millis(1));
        assert!(check(&bench.limiter).await.is_allowed(), "{algorithm:?}");
    }
}

#[tokio::test]
async fn four_concurrent_processes_admit_the_limit_in_total() {
    let bench = Bench::new([policy(100)]).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (_, limiter) = another(&bench.server, &bench.clock, [policy(100)]).await;
        for _ in 0..200 {
            let limiter = limiter.clone();
            calls.spawn(async move { check(&limiter).await.is_allowed() });
        }
    }

    let admitted = calls
        .join_all()
        .await
        .into_iter()
        .filter(|allowed| *allowed)
        .count();

    assert_eq!(admitted, 100);
}

#[tokio::test]
async fn the_remaining_units_are_exact() {
    let bench = Bench::new([policy(3)]).await;

    let left = async || check(&bench.limiter).await.policies[0].remaining;

    assert_eq!(
        (left().await, left().await, left().await, left().await),
        (2, 1, 0, 0)
    );
}

#[tokio::test]
async fn a_call_counts_in_all_its_policies_or_in_none() {
    let policies = || [policy(3), Policy::new("tight").limit(1).per("1s")];
    let bench = Bench::new(policies()).await;
    let both = bench.limiter.limit(&["tight", "test"]).unwrap();
    assert!(both.check(&client()).await.is_allowed());

    let second = both.check(&client()).await;

    assert_eq!(second.verdict, Verdict::Limited);
    let verdicts: Vec<_> = second
        .policies
        .iter()
        .map(|status| (&*status.policy, status.verdict))
        .collect();
    assert_eq!(
        verdicts,
        [("test", Verdict::Allowed), ("tight", Verdict::Limited)]
    );
    let test = bench.limiter.peek("test", &client()).await.unwrap();
    assert_eq!(
        test.policies[0].remaining, 2,
        "the rejected call was not counted"
    );
}

#[tokio::test]
async fn a_call_uses_as_many_units_as_it_costs() {
    let bench = Bench::new([policy(10)]).await;
    let limit = bench.limiter.limit(&["test"]).unwrap();
    assert!(limit.check_cost(&client(), 8).await.is_allowed());

    assert!(!limit.check_cost(&client(), 3).await.is_allowed());
    assert!(
        limit.check_cost(&client(), 2).await.is_allowed(),
        "a cheaper call is decided again"
    );
    assert!(limit.check_cost(&client(), 0).await.is_allowed());
    let never = limit.check_cost(&client(), 11).await;
    assert_eq!(
        (never.verdict, never.retry_after),
        (Verdict::TooCostly, None)
    );
    assert_eq!(
        limit.check_cost(&client(), u32::MAX).await.verdict,
        Verdict::TooCostly
    );
}

#[tokio::test]
async fn a_known_rejection_sends_no_command() {
    let bench = Bench::new([policy(1).per("10s")]).await;
    admitted(&bench.limiter, 2).await;
    let before = bench.commands();

    let known = check(&bench.limiter).await;

    assert_eq!(
        (known.verdict, known.backend),
        (Verdict::Limited, Backend::Known)
    );
    assert_eq!(bench.commands(), before);
    bench.clock.advance(millis(1_000));
    assert_eq!(
        check(&bench.limiter).await.backend,
        Backend::Redis,
        "Redis is asked again after 1 s"
    );
    assert_eq!(bench.commands(), before + 1);
}

#[tokio::test]
async fn peek_counts_nothing() {
    let bench = Bench::new([policy(1)]).await;

    for _ in 0..5 {
        assert!(
            bench
                .limiter
                .peek("test", &client())
                .await
                .unwrap()
                .is_allowed()
        );
    }
    assert_eq!(admitted(&bench.limiter, 2).await, 1);
    assert!(
        !bench
            .limiter
            .peek("test", &client())
            .await
            .unwrap()
            .is_allowed()
    );
}

#[tokio::test]
async fn a_changed_limit_keeps_the_usage() {
    let bench = Bench::new([policy(5)]).await;
    assert_eq!(admitted(&bench.limiter, 4).await, 4);

    let (_, lowered) = another(&bench.server, &bench.clock, [policy(3)]).await;
    let (_, raised) = another(&bench.server, &bench.clock, [policy(6)]).await;

    assert_eq!(admitted(&lowered, 2).await, 0);
    assert_eq!(admitted(&raised, 5).await, 2);
}

#[tokio::test]
async fn the_shortest_and_the_longest_windows_work() {
    for (window, late) in [
        (millis(1), millis(1)),
        (millis(31 * 86_400_000), millis(31 * 86_400_000)),
    ] {
        let bench = Bench::new([policy(1).per(window)]).await;
        assert_eq!(admitted(&bench.limiter, 3).await, 1);
        bench.clock.advance(late);
        assert_eq!(admitted(&bench.limiter, 3).await, 1, "{window:?}");
    }
}

#[tokio::test]
async fn one_window_is_one_strike_and_the_second_strike_blocks() {
    let bench =
        Bench::new([policy(1).penalty(Penalty::default().forgive_after(millis(60_000)))]).await;
    admitted(&bench.limiter, 1_000).await;
    bench.clock.advance(millis(1_000));
    assert_eq!(
        admitted(&bench.limiter, 2).await,
        1,
        "the first strike does not block"
    );

    let blocked = check(&bench.limiter).await;

    assert_eq!(blocked.retry_after, Some(millis(1_000)));
    bench.clock.advance(millis(999));
    assert_eq!(check(&bench.limiter).await.verdict, Verdict::Limited);
    bench.clock.advance(millis(1));
    assert_eq!(admitted(&bench.limiter, 2).await, 1);
    let third = check(&bench.limiter).await;
    assert_eq!(
        third.retry_after,
        Some(millis(2_000)),
        "each block is twice as long"
    );
}

#[tokio::test]
async fn a_strike_is_forgiven_after_its_time() {
    let penalty = Penalty::default().forgive_after(millis(10_000));
    for (wait, expected) in [(8_999, 2_000), (9_000, 1_000)] {
        let bench = Bench::new([policy(1).penalty(penalty)]).await;
        admitted(&bench.limiter, 2).await;
        bench.clock.advance(millis(1_000));
        admitted(&bench.limiter, 2).await;
        bench.clock.advance(millis(1_000 + wait));
        assert_eq!(admitted(&bench.limiter, 1).await, 1);

        let wait = check(&bench.limiter).await.retry_after.unwrap();

        assert_eq!(wait, millis(expected));
    }
}

#[tokio::test]
async fn memory_mode_decides_like_redis() {
    let policies = || [policy(3).penalty(Penalty::default())];
    let bench = Bench::new(policies()).await;
    let (memory, clock) = in_memory(policies());

    for step in 0..60_u64 {
        let (one, other) = (check(&bench.limiter).await, check(&memory).await);
        assert_eq!(
            one.verdict == Verdict::Allowed,
            other.verdict == Verdict::Allowed,
            "step {step}"
        );
        assert_eq!(one.retry_after, other.retry_after, "step {step}");
        assert_eq!(
            one.policies[0].remaining, other.policies[0].remaining,
            "step {step}"
        );
        for clock in [&bench.clock, &clock] {
            clock.advance(millis(step * 7 % 130));
        }
    }
}

#[test]
fn all_problems_of_policies_are_reported_together() {
    let cache = crate::cache::Cache::memory();

    let error = RateLimiter::new(
        &cache,
        [
            Policy::new("a\"b").limit(1).per("1s"),
            Policy::new("none"),
            Policy::new("when").limit(1).per("soon"),
            Policy::new("long").limit(1).per("32days"),
            Policy::new("fine")
                .limit(1_000_000)
                .per("31days")
                .algorithm(Algorithm::Gcra)
                .penalty(None),
            Policy::new("finer")
                .limit(u32::MAX)
                .per("31days")
                .algorithm(Algorithm::Gcra),
            Policy::new("big")
                .limit(20_000)
                .per("1s")
                .algorithm(Algorithm::SlidingLog),
            Policy::api(),
            Policy::api(),
        ],
    )
    .unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    for part in [
        "`a\"b` is not a policy name",
        "`none` allows nothing",
        "`soon`",
        "`long` has an invalid window",
        "`finer` is too large",
        "`big` would log",
        "`api` is listed twice",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("`fine`"), "{text}");
}

#[tokio::test]
async fn an_unknown_policy_is_an_error_with_the_known_names() {
    let (limiter, _) = in_memory([Policy::api(), Policy::auth()]);

    let error = limiter.check("ap", &client()).await.unwrap_err();

    assert_eq!(
        error.to_string(),
        "the limiter has no policy `ap`; it has `api`, `auth`"
    );
    assert_eq!(
        limiter.limit(&["api", "api"]).unwrap_err().kind(),
        ErrorKind::Input
    );
    assert_eq!(limiter.limit(&[]).unwrap_err().kind(), ErrorKind::Input);
}

#[test]
fn the_configuration_overrides_a_policy() {
    let quota = |limit| crate::config::Quota {
        limit,
        window: millis(5_000),
    };
    let config = crate::config::Config::default()
        .limit("api", quota(7))
        .limit("a_b", quota(8));
    let cache = crate::cache::Cache::local(config);
    let limiter = RateLimiter::new(
        &cache,
        [Policy::api(), Policy::new("A-b").limit(1).per("1s")],
    )
    .unwrap();

    let limits: Vec<_> = limiter
        .inner
        .policies
        .iter()
        .map(|policy| (policy.rule.limit, policy.rule.window))
        .collect();

    assert_eq!(limits, [(7, 5_000), (8, 5_000)]);
}

#[tokio::test]
async fn each_client_has_its_own_count() {
    let bench = Bench::new([policy(1)]).await;
    let address = Identity::ip("1.2.3.4".parse().unwrap());
    for client in [
        Identity::user("1.2.3.4"),
        address,
        Identity::key("1.2.3.4"),
        Identity::user("{1.2.3.4}:test"),
    ] {
        assert!(
            bench
                .limiter
                .check("test", &client)
                .await
                .unwrap()
                .is_allowed(),
            "{client}"
        );
    }
}
