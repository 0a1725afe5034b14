//! `Cache::run` and `RateLimiter::run`: the cache and the limiter of the functions that are called inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::limit::{Limited, Policy, RateLimiter};
use cache_runtime::{
    Cache, Clock, Config, cache_evict, cache_put, cacheable, in_current_run, rate_limit, warm,
};

use crate::lab::Lab;

#[cacheable(key = "run:greeting:<name>")]
async fn greeting(name: &str) -> String {
    tokio::task::yield_now().await;
    format!("hello, {name}")
}

#[cache_put(key = "run:greeting:<name>")]
async fn set_greeting(name: &str, text: &str) -> String {
    tokio::task::yield_now().await;
    text.to_owned()
}

#[cache_evict(key = "run:greeting:<name>")]
async fn forget_greeting(name: &str) {
    tokio::task::yield_now().await;
}

async fn has_greeted(cache: &Cache, name: &str) -> bool {
    cache.exists(&format!("run:greeting:{name}")).await
}

#[tokio::test]
async fn functions_inside_use_only_the_cache_of_the_run() {
    let (cache, other) = (Cache::memory(), Cache::memory());

    let (one, two) = tokio::join!(
        cache.run(async {
            set_greeting("one", "a").await;
            greeting("one").await
        }),
        other.run(async {
            set_greeting("one", "b").await;
            greeting("one").await
        }),
    );
    cache.run(forget_greeting("one")).await;

    assert_eq!((one.as_str(), two.as_str()), ("a", "b"));
    assert!(!has_greeted(&cache, "one").await);
    assert!(has_greeted(&other, "one").await);
}

#[tokio::test]
async fn the_innermost_run_wins_until_it_ends() {
    let (outer, inner) = (Cache::memory(), Cache::memory());

    outer
        .run(async {
            greeting("before").await;
            inner.run(greeting("inside")).await;
            greeting("after").await;
        })
        .await;

    for (name, in_outer) in [("before", true), ("inside", false), ("after", true)] {
        assert_eq!(has_greeted(&outer, name).await, in_outer, "{name}");
        assert_eq!(has_greeted(&inner, name).await, !in_outer, "{name}");
    }
}

#[tokio::test]
async fn the_cache_argument_wins_over_the_run() {
    #[cacheable(key = "run:named", cache = lab.cache)]
    async fn named(lab: &Lab) -> u8 {
        1
    }
    let (lab, cache) = (Lab::new(), Cache::memory());

    cache.run(named(&lab)).await;

    assert!(lab.holds("run:named").await);
    assert!(!cache.exists("run:named").await);
}

#[tokio::test]
async fn a_future_polled_outside_does_not_use_the_run() {
    let cache = Cache::memory();

    let made_inside = cache.run(std::future::ready(greeting("outside"))).await;
    made_inside.await;

    assert!(!has_greeted(&cache, "outside").await);
}

#[tokio::test]
async fn a_spawned_task_uses_the_run_only_with_in_current_run() {
    let cache = Cache::memory();

    cache
        .run(async {
            let plain = tokio::spawn(greeting("plain"));
            let along = tokio::spawn(in_current_run(greeting("along")));
            let again = tokio::spawn(cache.run(greeting("again")));
            plain.await.expect("no panic");
            along.await.expect("no panic");
            again.await.expect("no panic");
        })
        .await;

    assert!(!has_greeted(&cache, "plain").await);
    assert!(has_greeted(&cache, "along").await);
    assert!(has_greeted(&cache, "again").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn synchronous_code_inside_uses_the_run() {
    let cache = Cache::memory();

    cache
        .run(async {
            let runtime = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| runtime.block_on(greeting("blocking")));
        })
        .await;

    assert!(has_greeted(&cache, "blocking").await);
}

#[test]
fn a_run_works_on_any_tokio_runtime() {
    let cache = Cache::memory();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");

    let is_there = runtime.block_on(cache.run(async {
        greeting("by-hand").await;
        let current = Cache::current().expect("the cache of the run");
        has_greeted(&current, "by-hand").await
    }));

    assert!(is_there);
}

#[tokio::test]
async fn a_background_refresh_uses_the_cache_and_the_limiter_of_its_run() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    static REFUSALS: AtomicUsize = AtomicUsize::new(0);
    #[rate_limit(policy = "refresh", key = "refresh")]
    async fn limited() -> Result<(), Limited> {
        Ok(())
    }
    #[cacheable(key = "run:outer", ttl = 60, grace = "10m", refresh = "background")]
    async fn outer() -> usize {
        greeting("refreshed").await;
        if limited().await.is_err() {
            REFUSALS.fetch_add(1, Ordering::SeqCst);
        }
        RUNS.fetch_add(1, Ordering::SeqCst) + 1
    }
    let clock = Clock::default();
    let cache = Cache::connect(Config::default().clock(clock.clone()))
        .await
        .expect("the configuration is right");
    let policy = Policy::new("refresh").limit(1).per("1h");
    let limiter = RateLimiter::new(&cache, [policy]).expect("a policy");

    cache
        .run(limiter.run(async {
            outer().await;
            cache.delete("run:greeting:refreshed").await;
            clock.advance(Duration::from_secs(61));
            assert_eq!(outer().await, 1, "the stale value");
        }))
        .await;
    while cache.get("run:outer").await != Some(2_usize) {
        tokio::task::yield_now().await;
    }

    assert!(has_greeted(&cache, "refreshed").await);
    assert_eq!(
        REFUSALS.load(Ordering::SeqCst),
        1,
        "the second call was refused"
    );
}

#[tokio::test]
async fn a_scheduled_job_uses_the_run_in_which_it_was_created() {
    let cache = Cache::memory();
    let done = Arc::new(tokio::sync::Notify::new());

    let schedule = cache
        .run(async {
            warm::every(Duration::from_secs(1), &cache, "run", {
                let done = Arc::clone(&done);
                move || {
                    let done = Arc::clone(&done);
                    async move {
                        greeting("scheduled").await;
                        done.notify_one();
                    }
                }
            })
        })
        .await;
    done.notified().await;
    schedule.stop();

    assert!(has_greeted(&cache, "scheduled").await);
}

#[tokio::test]
async fn runs_of_a_limiter_and_a_cache_nest_in_any_order() {
    #[rate_limit(policy = "run", key = "<user>")]
    async fn pay(user: i64) -> Result<String, Limited> {
        Ok(greeting(&format!("payer-{user}")).await)
    }
    let cache = Cache::memory();
    let limiter = || {
        let policy = Policy::new("run").limit(1).per("1h");
        RateLimiter::new(&cache, [policy]).expect("a policy")
    };
    let (one, other) = (limiter(), limiter());

    cache.run(one.run(pay(1))).await.expect("the first");
    one.run(cache.run(pay(1))).await.expect_err("the second");
    let twice = async {
        pay(2).await.expect("the first");
        tokio::spawn(in_current_run(pay(2)))
            .await
            .expect("no panic")
            .expect_err("the second");
        RateLimiter::current().expect("the limiter of the run");
    };
    other.run(cache.run(twice)).await;

    assert!(has_greeted(&cache, "payer-1").await);
    assert!(has_greeted(&cache, "payer-2").await);
}
