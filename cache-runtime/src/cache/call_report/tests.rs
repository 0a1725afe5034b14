use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;

use super::*;
use crate::cache::handle::HANDLE;
use crate::{Cache, Clock, Config, cache_evict, cache_put, cacheable, in_current_run};

#[cacheable(key = "row:<id>", ttl = 60, crate = crate)]
async fn row(id: u32) -> Result<u32, String> {
    match id {
        0 => Err("no row".to_owned()),
        _ => Ok(id),
    }
}

#[cacheable(key = "fragile", ttl = 60, grace = 30, ignore = [is_ok], crate = crate)]
async fn fragile(is_ok: bool) -> Result<u32, String> {
    is_ok.then_some(1).ok_or_else(|| "broken".to_owned())
}

#[cacheable(key = "missing:<id>", none_ttl = 10, crate = crate)]
async fn missing(id: u32) -> Option<u32> {
    (id > 1_000).then_some(id)
}

#[cache_put(key = "row:<id>", ttl = 60, crate = crate)]
async fn save(id: u32) -> u32 {
    id
}

#[cache_evict(key = "row:<id>", crate = crate)]
async fn remove(id: u32) {}

/// The result, the end of the load and the outcome of each call.
type Told = Vec<(
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    Lease,
)>;

fn told(calls: &Calls) -> Told {
    let reports = calls.calls.iter().map(|call| &call.report);
    reports
        .map(|report| {
            (
                report.result.and_then(Event::result).unwrap_or("none yet"),
                report.load.and_then(Event::load),
                report.outcome.and_then(Event::outcome),
                report.lease,
            )
        })
        .collect()
}

async fn reports<T>(cache: &Cache, work: impl Future<Output = T>) -> Calls {
    cache.run(collect(Wanted::Reports, work)).await.1
}

#[tokio::test]
async fn each_call_has_a_report_in_the_order_in_which_they_began() {
    let cache = Cache::memory();

    let calls = reports(&cache, async {
        let _ = row(1).await;
        let _ = row(1).await;
        let _ = row(0).await;
        missing(1).await;
        missing(1).await;
        save(2).await;
        remove(2).await;
    })
    .await;

    let unasked = Lease::Unasked;
    assert_eq!(
        told(&calls),
        [
            ("miss", Some("success"), Some("stored"), Lease::Won),
            ("hit", None, None, unasked),
            ("miss", Some("failure"), None, Lease::Won),
            ("miss", Some("success"), Some("stored"), Lease::Won),
            ("none", None, None, unasked),
            ("put", None, Some("stored"), unasked),
            ("evict", None, Some("applied"), unasked),
        ]
    );
    let [loaded, hit, ..] = &calls.calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(loaded.report.stamp, hit.report.stamp);
    assert!(loaded.report.has_entry && hit.report.has_entry);
    assert!(loaded.report.at <= hit.report.at);
}

#[tokio::test]
async fn reports_and_metrics_agree() {
    let cache = Cache::memory();

    let calls = reports(&cache, async {
        for id in [0, 1, 1, 2, 1] {
            let _ = row(id).await;
        }
    })
    .await;

    let counts = cache.stats().total;
    let results = told(&calls);
    let times = |result| results.iter().filter(|told| told.0 == result).count() as u64;
    assert_eq!((times("hit"), times("miss")), (counts.hits, counts.misses));
}

#[tokio::test]
async fn age_and_ttl_are_those_of_the_entry() {
    let clock = Clock::stopped();
    let cache = Cache::connect(Config::default().clock(clock.clone())).await;
    let cache = cache.unwrap();
    cache.run(fragile(true)).await.unwrap();

    clock.advance(Duration::from_secs(20));
    let fresh = reports(&cache, fragile(true)).await;
    clock.advance(Duration::from_secs(52));
    let stale = reports(&cache, fragile(false)).await;

    let seconds = |calls: &Calls| {
        let report = calls.calls[0].report;
        (report.age / 1_000, report.ttl_left / 1_000)
    };
    assert_eq!((seconds(&fresh), seconds(&stale)), ((20, 40), (72, -12)));
    assert_eq!(
        told(&stale),
        [("stale", Some("failure"), None, Lease::Refresh)]
    );
}

#[tokio::test]
async fn a_call_that_is_cancelled_has_a_report_without_a_result() {
    let cache = Cache::memory();

    let calls = reports(&cache, async {
        let _ = cache
            .get_or_load("slow", 60_u64, async {
                Notify::new().notified().await;
                Ok::<_, String>(1)
            })
            .now_or_never();
        remove(1).await;
    })
    .await;

    assert_eq!(
        told(&calls),
        [
            ("miss", Some("cancelled"), None, Lease::Won),
            ("evict", None, Some("applied"), Lease::Unasked)
        ]
    );
}

#[tokio::test]
async fn a_view_around_another_one_gets_its_reports_too() {
    let cache = Cache::memory();

    let calls = reports(&cache, async {
        let _ = row(1).await;
        let ((), inner) = collect(Wanted::ReportsAndDetails, async {
            let _ = row(1).await;
        })
        .await;
        assert_eq!(told(&inner), [("hit", None, None, Lease::Unasked)]);
        assert!(inner.calls[0].detail.is_some());
    })
    .await;

    let results: Vec<_> = told(&calls).iter().map(|told| told.0).collect();
    assert_eq!(results, ["miss", "hit"]);
}

#[tokio::test]
async fn spawned_work_belongs_to_the_view_only_in_the_current_run() {
    let cache = Cache::memory();

    let calls = reports(&cache, async {
        tokio::spawn(row(1)).await.unwrap().unwrap();
        tokio::spawn(in_current_run(row(2))).await.unwrap().unwrap();
    })
    .await;

    assert_eq!(calls.calls.len(), 1);
}

#[tokio::test]
async fn the_number_of_reports_is_limited() {
    let cache = Cache::memory();

    let calls = reports(&cache, async {
        for _ in 0..MAX_CALLS + 3 {
            let _ = row(1).await;
        }
    })
    .await;

    assert_eq!((calls.calls.len(), calls.omitted), (MAX_CALLS, 3));
}

#[tokio::test]
async fn a_call_outside_of_a_view_keeps_no_report() {
    let cache = Cache::memory();
    let counted = cache.inner.metrics.site(&HANDLE.metrics);
    let metrics = CallMetrics::begin(counted, &HANDLE, Instant::now(), || {
        unreachable!("nothing shows the key")
    });

    assert!(metrics.report.is_none());
}
