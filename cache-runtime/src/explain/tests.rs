use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::*;
use crate::{Clock, Config, cache_evict, cache_put, cacheable};

#[cacheable(key = "explained:<id>", ttl = 60, crate = crate)]
async fn find(id: u32) -> u32 {
    id
}

#[cacheable(key = "unevicted:<id>", ttl = 60, crate = crate)]
async fn unevicted(id: u32) -> u32 {
    id
}

#[cacheable(key = "put:explained:<id>", ttl = 60, crate = crate)]
async fn replaced(id: u32) -> u32 {
    id
}

#[cache_put(key = "put:explained:<id>", ttl = 60, crate = crate)]
async fn replace(id: u32) -> u32 {
    id
}

#[cacheable(key = "counter:<id>", ttl = 60, crate = crate)]
async fn counter(id: u32) -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    id + NEXT.fetch_add(1, Relaxed)
}

#[cacheable(key = "listed:<page>", ttl = 60, crate = crate)]
async fn listed(page: u32) -> u32 {
    page
}

#[cacheable(key = "slow:<id>", ttl = 60, crate = crate)]
async fn slow(id: u32) -> u32 {
    std::thread::sleep(Duration::from_millis(5));
    id
}

#[cache_evict(key = ["explained:<id>", "counter:<id>", "slow:<id>"], crate = crate)]
async fn change(id: u32) {}

#[cache_evict(pattern = "listed:*", crate = crate)]
async fn change_list() {}

fn codes(call: &ExplainedCall) -> Vec<&'static str> {
    call.warnings.iter().map(|warning| warning.code).collect()
}

#[tokio::test]
async fn each_call_is_reported_in_order_with_its_key_and_times() {
    let clock = Clock::stopped();
    let cache = Cache::connect(Config::default().clock(clock.clone()))
        .await
        .unwrap();

    let (sum, report) = cache
        .explain(async {
            let sum = slow(3).await;
            clock.advance(Duration::from_secs(20));
            let sum = sum + slow(3).await;
            change(3).await;
            sum
        })
        .await;

    assert_eq!((sum, report.omitted), (6, 0));
    let [miss, hit, evict] = &report.calls[..] else {
        panic!("{report:?}")
    };
    assert!(miss.function.ends_with("explain::tests::slow"));
    assert_eq!((miss.template, &*miss.key), ("slow:<id>", "dev_slow:3"));
    assert_eq!((miss.result, miss.reason), (Some("miss"), Some("absent")));
    assert_eq!(
        (miss.lease, miss.load, miss.fill),
        (Some("won"), Some("success"), Some("stored"))
    );
    assert!(miss.loaded_micros >= 5_000 && miss.took_micros >= miss.loaded_micros);
    assert_eq!(
        (hit.result, hit.reason, hit.lease),
        (Some("hit"), None, None)
    );
    assert_eq!(hit.stamp, miss.stamp);
    let seconds = |time: Option<f64>| time.map(|time| time as i64);
    assert_eq!(
        (seconds(hit.age_seconds), seconds(hit.ttl_left_seconds)),
        (Some(20), Some(40))
    );
    assert!(hit.began_micros >= miss.took_micros);
    assert_eq!(
        (evict.result, evict.eviction, evict.fill),
        (Some("evict"), Some("applied"), None)
    );
    assert!(evict.key.starts_with("dev_explained:3, "), "{}", evict.key);
    assert!(codes(hit).is_empty(), "{hit:?}");
}

#[tokio::test]
async fn a_function_that_nothing_evicts_is_warned_about() {
    let cache = Cache::memory();

    let (_, report) = cache
        .explain(async {
            unevicted(1).await;
            find(1).await;
            replaced(1).await;
            replace(1).await
        })
        .await;

    let [unevicted, evicted, replaced, _] = &report.calls[..] else {
        panic!("{report:?}")
    };
    assert_eq!(codes(unevicted), ["not-evicted"]);
    assert_eq!(
        unevicted.warnings[0].message,
        "no function evicts or puts `unevicted:<id>` by a key, a pattern or a tag"
    );
    assert!(codes(evicted).is_empty(), "{evicted:?}");
    assert!(codes(replaced).is_empty(), "{replaced:?}");
}

#[tokio::test]
async fn a_load_that_is_faster_than_a_hit_is_warned_about() {
    let cache = Cache::memory();
    // A value that takes longer to decode than to make.
    #[cacheable(key = "explained:fast:<id>", ttl = 60, crate = crate)]
    async fn fast(id: u32) -> Vec<u32> {
        vec![id; 20_000]
    }
    #[cache_evict(key = "explained:fast:<id>", crate = crate)]
    async fn change_fast(id: u32) {}

    let (_, report) = cache
        .explain(async {
            for id in 0..10 {
                fast(id).await;
                fast(id).await;
                slow(id).await;
                slow(id).await;
            }
            change_fast(1).await;
        })
        .await;

    let of = |name: &str| {
        let found = report
            .calls
            .iter()
            .find(|call| call.function.ends_with(name));
        codes(found.expect("a call"))
    };
    assert_eq!((of("fast"), of("slow")), (vec!["load-is-faster"], vec![]));
}

#[tokio::test]
async fn a_value_that_differs_at_every_load_is_warned_about() {
    let clock = Clock::stopped();
    let cache = Cache::connect(Config::default().clock(clock.clone()))
        .await
        .unwrap();

    let (_, report) = cache
        .explain(async {
            for _ in 0..4 {
                counter(1).await;
                find(1).await;
                clock.advance(Duration::from_secs(61));
            }
        })
        .await;

    assert_eq!(codes(&report.calls[0]), ["value-differs"]);
    assert!(codes(&report.calls[1]).is_empty(), "{report:?}");
    let message = &report.calls[0].warnings[0].message;
    assert!(message.contains("3 of 3"), "{message}");
}

#[tokio::test]
async fn a_ttl_that_is_longer_than_entries_live_is_warned_about() {
    let clock = Clock::stopped();
    let cache = Cache::connect(Config::default().clock(clock.clone()))
        .await
        .unwrap();

    let (_, report) = cache
        .explain(async {
            for _ in 0..4 {
                find(1).await;
                clock.advance(Duration::from_secs(2));
                change(1).await;
            }
        })
        .await;

    assert_eq!(codes(&report.calls[0]), ["ttl-too-long"]);
    let message = &report.calls[0].warnings[0].message;
    assert!(
        message.contains("after 2.0 s instead of 60.0 s"),
        "{message}"
    );
}

#[tokio::test]
async fn evictions_that_walk_the_keyspace_are_warned_about() {
    let cache = Cache::memory();

    let (_, report) = cache
        .explain(async {
            listed(1).await;
            change_list().await;
        })
        .await;

    let [read, evict] = &report.calls[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        (codes(read), codes(evict)),
        (vec!["scans-keyspace"], vec!["scans-keyspace"])
    );
    let message = &read.warnings[0].message;
    assert!(
        message.contains("change_list` with `listed:*`"),
        "{message}"
    );
}
