//! Reservations: calls that are counted or cancelled later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::*;
use crate::limit::{Algorithm, Limit, Penalty, Verdict};
use crate::shared::on_a_cluster;

on_a_cluster! {
    concurrent_calls_that_do_not_count_are_all_admitted
    no_more_counting_calls_than_the_limit_are_admitted
    a_dropped_reservation_counts_and_lets_the_next_call_continue
    a_call_dropped_while_waiting_blocks_no_other_call
    a_call_waits_at_most_10_s_for_undecided_calls
    clients_do_not_wait_for_each_other
    calls_beyond_the_queue_are_rejected_without_waiting
    calls_do_not_wait_if_there_is_room_for_all
    no_call_waits_beyond_the_window
    a_call_cancelled_after_its_window_returns_no_units
}

fn logins() -> [Policy; 2] {
    [
        Policy::new("test")
            .limit(3)
            .per("1h")
            .penalty(Penalty::default()),
        Policy::new("even")
            .limit(3)
            .per("1h")
            .algorithm(Algorithm::Gcra),
    ]
}

/// Makes `calls` reservations concurrently. Those at a multiple of `counting` count, the others are cancelled. Returns which were
/// admitted.
async fn reserve_all(limit: &Limit, calls: usize, counting: usize) -> Vec<bool> {
    let calls = (0..calls).map(|number| async move {
        let Ok(reservation) = limit.reserve(&client()).await else {
            return false;
        };
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        if number % counting == 0 {
            reservation.count();
        } else {
            reservation.cancel().await;
        }
        true
    });
    join_all(calls).await
}

fn allowed(calls: &[bool]) -> usize {
    calls.iter().filter(|is_allowed| **is_allowed).count()
}

#[tokio::test]
async fn concurrent_calls_that_do_not_count_are_all_admitted() {
    let bench = Bench::new(logins()).await;
    let (local, _) = in_memory(logins());
    for limiter in [&bench.limiter, &local] {
        for policies in [&["test"][..], &["even"], &["test", "even"]] {
            let limit = limiter.limit(policies).unwrap();

            let calls = reserve_all(&limit, 50, 100).await;

            // The first call counts.
            assert_eq!(allowed(&calls), 50, "{policies:?}");
            assert!(limiter.inner.queues.is_empty());
            for policy in policies {
                limiter.reset(policy, &client()).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn no_more_counting_calls_than_the_limit_are_admitted() {
    let bench = Bench::new(logins()).await;
    let (local, _) = in_memory(logins());
    for limiter in [&bench.limiter, &local] {
        let limit = limiter.limit(&["test"]).unwrap();

        let calls = reserve_all(&limit, 50, 2).await;

        let counted = calls.iter().step_by(2).filter(|allowed| **allowed).count();
        assert_eq!(counted, 3);
        assert!(!limit.check(&client()).await.is_allowed());
        assert!(limiter.inner.queues.is_empty());
    }
}

#[tokio::test]
async fn a_dropped_reservation_counts_and_lets_the_next_call_continue() {
    let (limiter, _) = in_memory([policy(1)]);
    let limit = limiter.limit(&["test"]).unwrap();
    let first = limit.reserve(&client()).await.unwrap();
    let next = tokio::spawn({
        let limit = limit.clone();
        async move { limit.reserve(&client()).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(!next.is_finished());

    drop(first);

    let limited = next.await.unwrap().unwrap_err();
    assert_eq!(limited.decision().verdict, Verdict::Limited);
    assert!(limiter.inner.queues.is_empty());
}

#[tokio::test]
async fn a_call_dropped_while_waiting_blocks_no_other_call() {
    let (limiter, _) = in_memory([policy(1)]);
    let limit = limiter.limit(&["test"]).unwrap();
    let first = limit.reserve(&client()).await.unwrap();
    let through = Arc::new(AtomicUsize::new(0));
    let wait = |limit: Limit, through: Arc<AtomicUsize>| async move {
        let reservation = limit.reserve(&client()).await.unwrap();
        through.fetch_add(1, Ordering::Relaxed);
        reservation.cancel().await;
    };
    let waiting: Vec<_> = (0..3)
        .map(|_| tokio::spawn(wait(limit.clone(), Arc::clone(&through))))
        .collect();
    tokio::task::yield_now().await;

    waiting[0].abort();
    tokio::task::yield_now().await;
    first.cancel().await;
    for task in waiting {
        let _ = task.await;
    }

    assert_eq!(through.load(Ordering::Relaxed), 2);
    assert!(limiter.inner.queues.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_at_most_10_s_for_undecided_calls() {
    let (limiter, _) = in_memory([policy(1)]);
    let limit = limiter.limit(&["test"]).unwrap();
    let _undecided = limit.reserve(&client()).await.unwrap();
    let (began, client) = (Instant::now(), client());

    let rejected = join_all((0..20).map(|_| limit.reserve(&client))).await;

    assert!(rejected.iter().all(Result::is_err));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn clients_do_not_wait_for_each_other() {
    let (limiter, _) = in_memory([policy(1)]);
    let limit = limiter.limit(&["test"]).unwrap();
    let _undecided = limit.reserve(&client()).await.unwrap();

    assert!(limit.reserve(&Identity::user("another")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_queue_are_rejected_without_waiting() {
    let (limiter, _) = in_memory([policy(1)]);
    let limit = limiter.limit(&["test"]).unwrap();
    let _undecided = limit.reserve(&client()).await.unwrap();
    let waiting: Vec<_> = (0..64)
        .map(|_| {
            let limit = limit.clone();
            tokio::spawn(async move { limit.reserve(&client()).await.map(drop) })
        })
        .collect();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();

    for _ in 0..1_000 {
        assert!(limit.reserve(&client()).await.is_err());
    }

    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(waiting.iter().all(|call| !call.is_finished()));
}

#[tokio::test]
async fn calls_do_not_wait_if_there_is_room_for_all() {
    let (limiter, _) = in_memory([policy(100)]);
    let limit = limiter.limit(&["test"]).unwrap();
    let client = client();
    drop(limit.reserve(&client).await.unwrap());
    let place = limit.reserve(&client).await.unwrap();

    // A call that waits for its decision and is not polled again.
    let mut held = Box::pin(limit.reserve(&client));
    let _ = futures_util::poll!(held.as_mut());
    let next = tokio::time::timeout(millis(50), limit.reserve(&client)).await;

    assert!(next.is_ok_and(|reserved| reserved.is_ok()));
    drop(place);
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_beyond_the_window() {
    let (limiter, clock) = in_memory([Policy::new("test").limit(1).per("200ms")]);
    let limit = limiter.limit(&["test"]).unwrap();
    let undecided = limit.reserve(&client()).await.unwrap();
    clock.advance(millis(300));
    tokio::time::advance(millis(300)).await;
    let began = Instant::now();

    assert!(limit.reserve(&client()).await.is_ok());

    assert_eq!(began.elapsed(), Duration::ZERO);
    drop(undecided);
}

#[tokio::test]
async fn a_call_cancelled_after_its_window_returns_no_units() {
    let bench = Bench::new([policy(2)]).await;
    let (local, clock) = in_memory([policy(2)]);
    for (limiter, clock) in [(&bench.limiter, &bench.clock), (&local, &clock)] {
        let limit = limiter.limit(&["test"]).unwrap();
        let old = limit.reserve(&client()).await.unwrap();
        clock.advance(millis(1_001));
        limit.reserve(&client()).await.unwrap().count();
        limit.reserve(&client()).await.unwrap().count();

        old.cancel().await;

        assert!(!limit.check(&client()).await.is_allowed());
    }
}
