use super::*;
use crate::cache::Lease;
use crate::site::Site;
use crate::{Cache, Clock, Config, cache_evict, cacheable};

static SITE: Site = Site::new("app::find", "row:<id>").reads();

/// A read with this result, load and outcome.
fn read(result: Event, load: Option<Event>, outcome: Option<Event>) -> CallReport {
    CallReport {
        site: &SITE,
        stamp: [1; 8],
        ttl_left: 0,
        age: 0,
        at: 0,
        took: 0,
        spent: [0; 3],
        result: Some(result),
        load,
        outcome,
        lease: Lease::Unasked,
        has_entry: true,
    }
}

fn hit(ttl_left: i64) -> CallReport {
    CallReport {
        ttl_left,
        ..read(Event::Hit, None, None)
    }
}

fn loaded(outcome: Event) -> CallReport {
    read(Event::MissAbsent, Some(Event::LoadDone), Some(outcome))
}

fn shown(reports: &[CallReport]) -> String {
    CacheStatus::sum(reports.iter()).map_or_else(String::new, |status| status.to_string())
}

#[test]
fn each_answer_has_the_parameters_of_rfc_9211() {
    let stale = CallReport {
        ttl_left: -12_000,
        ..read(Event::HitStale, None, None)
    };
    let just_stale = CallReport {
        ttl_left: -1,
        ..stale
    };
    let none = CallReport {
        ttl_left: 30_999,
        ..read(Event::HitNone, None, None)
    };
    let shared = |event| read(Event::MissAbsent, Some(event), None);
    for (report, expected) in [
        (hit(1_234_567), "hit; ttl=1234"),
        (none, "hit; ttl=30"),
        (stale, "hit; ttl=-12; detail=STALE"),
        (just_stale, "hit; ttl=-1; detail=STALE"),
        (shared(Event::LoadShared), "fwd=miss; collapsed"),
        (shared(Event::LoadAwaited), "fwd=miss; collapsed"),
        (loaded(Event::Fill), "fwd=miss; stored"),
        (loaded(Event::SkippedUnless), "fwd=miss"),
        (loaded(Event::Card), "fwd=miss"),
        (loaded(Event::FillRefused), "fwd=miss; detail=REFUSED"),
        (loaded(Event::FillFailed), "fwd=miss; detail=FAILED"),
        (
            read(Event::MissStale, Some(Event::LoadDone), Some(Event::Fill)),
            "fwd=stale; stored",
        ),
        (
            read(Event::MissFallback, Some(Event::LoadDone), None),
            "fwd=bypass; detail=fallback",
        ),
        (
            read(Event::MissDisabled, Some(Event::LoadDone), None),
            "fwd=bypass; detail=disabled",
        ),
    ] {
        assert_eq!(shown(&[report]), expected);
    }
}

#[test]
fn the_worst_read_decides() {
    let bypass = read(Event::MissFailed, None, None);
    for (reports, expected) in [
        (vec![hit(9_000), hit(5_000), hit(7_000)], "hit; ttl=5"),
        (vec![hit(9_000), loaded(Event::Fill)], "fwd=miss; stored"),
        (vec![loaded(Event::Fill), hit(9_000)], "fwd=miss; stored"),
        (
            vec![loaded(Event::FillRefused), loaded(Event::Fill)],
            "fwd=miss; detail=REFUSED",
        ),
        (
            vec![bypass, loaded(Event::Fill), hit(1_000)],
            "fwd=bypass; detail=failed",
        ),
    ] {
        assert_eq!(shown(&reports), expected);
    }
}

#[test]
fn puts_evictions_and_cancelled_calls_have_no_status() {
    let put = read(Event::Put, None, Some(Event::PutStored));
    let evict = read(Event::Evict, None, Some(Event::EvictApplied));
    let cancelled = CallReport {
        result: None,
        ..hit(1_000)
    };

    assert_eq!(shown(&[put, evict, cancelled]), "");
}

#[test]
fn server_timing_adds_up_the_times_of_all_calls() {
    let one = CallReport {
        spent: [412, 0, 0],
        ..hit(9_000)
    };
    let other = CallReport {
        spent: [88, 3_000, 182_000],
        ..loaded(Event::Fill)
    };

    let status = CacheStatus::sum([one, other].iter()).unwrap();

    assert_eq!(
        status.server_timing(),
        r#"cache;desc="miss";dur=0.500, wait;dur=3.000, load;dur=182.000"#
    );
}

#[cacheable(key = "row:<id>", ttl = 60, crate = crate)]
async fn row(id: u32) -> u32 {
    id
}

#[cache_evict(key = "row:<id>", crate = crate)]
async fn remove(id: u32) {}

#[tokio::test]
async fn calls_of_annotated_functions_count() {
    let cache = Cache::local(Config::default().clock(Clock::stopped()));
    let status = async || {
        let (_, status) = cache.run(CacheStatus::of(row(1))).await;
        status.map(|status| status.to_string())
    };

    let first = status().await;
    let second = status().await;
    let (_, evicted) = cache.run(CacheStatus::of(remove(1))).await;
    cache.disable("row:*").unwrap();
    let disabled = status().await;

    assert_eq!(first.as_deref(), Some("fwd=miss; stored"));
    assert_eq!(second.as_deref(), Some("hit; ttl=60"));
    assert_eq!(evicted, None);
    assert_eq!(disabled.as_deref(), Some("fwd=bypass; detail=disabled"));
}
