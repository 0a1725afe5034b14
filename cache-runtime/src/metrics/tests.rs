use std::thread;

use super::*;

fn surroundings() -> Surroundings {
    Surroundings {
        local: None,
        mode: Mode::Memory,
        fallback: FallbackStats::default(),
        journal_depth: 0,
        loads_waiting: 0,
        store: StoreStats::Memory(MemoryStats {
            entries: 0,
            bytes: 0,
        }),
        redis: None,
    }
}

fn leaked_site() -> &'static SiteSlot {
    Box::leak(Box::new(SiteSlot::new("service::event", "event:<id>")))
}

#[test]
fn concurrent_counts_are_not_lost() {
    let metrics = Metrics::new();
    let site = leaked_site();

    thread::scope(|scope| {
        for _ in 0..2 * STRIPES {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    metrics.site(site).count(Event::Hit);
                    metrics.site(site).count(Event::MissAbsent);
                    metrics.site(site).add(Event::EvictedKeys, 3);
                    metrics
                        .site(site)
                        .time(Timer::Hit, Duration::from_micros(7));
                }
            });
        }
    });

    let total = metrics.stats(surroundings()).total;
    let calls = 2_000 * STRIPES as u64;
    assert_eq!(
        (total.gets, total.hits, total.misses, total.evicted_keys),
        (2 * calls, calls, calls, 3 * calls)
    );
    assert_eq!(
        (total.operations, total.operations_per_minute),
        (2 * calls, 2 * calls)
    );
    assert_eq!(
        (total.hit_time.count, total.hit_time.average_micros),
        (calls, Some(7.0))
    );
}

#[test]
fn each_cache_has_its_own_counts_for_a_site() {
    let (first, second) = (Metrics::new(), Metrics::new());
    let site = leaked_site();

    first.site(site).count(Event::Hit);
    second.site(site).add(Event::Hit, 5);
    second.site(site).count(Event::MissStale);

    let hits = |metrics: &Metrics| {
        metrics
            .stats(surroundings())
            .sites
            .iter()
            .map(|site| site.counts.hits)
            .collect::<Vec<_>>()
    };
    assert_eq!(hits(&first), [1]);
    assert_eq!(hits(&second), [5]);
    assert!(
        matches!(first.site(site), SiteRef::Slot(_)),
        "the first cache reads its numbers without a lock"
    );
}

#[test]
fn sites_above_the_cap_are_counted_together() {
    let metrics = Metrics::new();

    for _ in 0..MAX_SITES + 3 {
        let site = leaked_site();
        metrics.site(site).count(Event::Hit);
        metrics.site(site).count(Event::Hit);
    }

    let stats = metrics.stats(surroundings());
    assert_eq!(stats.sites.len(), MAX_SITES + 1);
    assert_eq!(
        stats
            .sites
            .iter()
            .find(|site| site.name == "overflow")
            .map(|site| site.counts.hits),
        Some(6)
    );
    assert_eq!(stats.total.hits, 2 * (MAX_SITES as u64 + 3));
}

#[test]
fn rates_are_unknown_without_a_read() {
    let metrics = Metrics::new();
    let site = metrics.site(leaked_site());

    site.count(Event::Put);
    let before = metrics.stats(surroundings()).total;
    site.add(Event::Hit, 2);
    site.count(Event::HitNone);
    site.count(Event::MissFallback);
    let after = metrics.stats(surroundings()).total;

    assert_eq!(
        (before.hit_rate, before.miss_rate, before.operations),
        (None, None, 1)
    );
    assert_eq!(
        (after.hit_rate, after.miss_rate, after.operations),
        (Some(0.75), Some(0.25), 5)
    );
    assert_eq!((after.hits, after.hits_none), (3, 1));
    assert_eq!(
        after.misses_by_reason.into_iter().collect::<Vec<_>>(),
        [("fallback", 1)]
    );
}

#[test]
fn every_event_is_in_the_statistics() {
    for (event, _) in Event::ALL {
        let metrics = Metrics::new();
        let nothing = metrics.stats(surroundings()).total;

        metrics.site(leaked_site()).count(*event);

        assert_ne!(
            metrics.stats(surroundings()).total,
            nothing,
            "{event:?} is counted but not shown"
        );
    }
}

#[test]
fn every_lookup_is_one_hit_or_one_miss() {
    for (event, kind) in Event::ALL {
        let metrics = Metrics::new();

        metrics.site(leaked_site()).count(*event);

        let total = metrics.stats(surroundings()).total;
        let expected = match kind {
            Kind::Hit => (1, 1, 0, 1),
            Kind::Miss(_) | Kind::Bypass(_) => (1, 0, 1, 1),
            Kind::Write => (0, 0, 0, 1),
            Kind::Degraded(_) | Kind::Step => (0, 0, 0, 0),
        };
        assert_eq!(
            (total.gets, total.hits, total.misses, total.operations),
            expected,
            "{event:?}"
        );
        assert_eq!(total.operations, total.operations_per_minute, "{event:?}");
        assert_eq!(
            total.misses,
            total.misses_by_reason.values().sum::<u64>(),
            "{event:?}"
        );
    }
}

#[test]
fn a_stale_value_is_a_hit_if_served_and_a_miss_if_refreshed() {
    let metrics = Metrics::new();
    let site = metrics.site(leaked_site());

    site.add(Event::HitStale, 3);
    site.count(Event::MissStale);
    site.add(Event::Refresh, 2);
    site.count(Event::RefreshFailed);
    site.count(Event::RefreshCrowded);
    site.count(Event::LoadOverdue);
    site.add(Event::LoadStuck, 2);

    let total = metrics.stats(surroundings()).total;
    assert_eq!(
        (total.gets, total.hits, total.hits_stale, total.misses),
        (4, 3, 3, 1)
    );
    assert_eq!(
        (
            total.refreshes,
            total.refreshes_failed,
            total.refreshes_crowded,
            total.loads_overdue,
            total.loads_stuck
        ),
        (2, 1, 1, 1, 2)
    );
}

#[test]
fn degraded_puts_are_counted_once_with_their_reason() {
    let metrics = Metrics::new();
    let site = metrics.site(leaked_site());
    site.add(Event::Put, 20);

    for (event, times) in [
        (Event::PutJoined, 1),
        (Event::PutReplaced, 2),
        (Event::PutGone, 3),
        (Event::PutUnanswered, 4),
    ] {
        site.add(event, times);
    }

    let total = metrics.stats(surroundings()).total;
    assert_eq!(
        (total.puts, total.puts_degraded, total.operations),
        (20, 10, 20)
    );
    assert_eq!(
        total
            .puts_degraded_by_reason
            .into_iter()
            .collect::<Vec<_>>(),
        [
            ("gone", 3),
            ("joined", 1),
            ("replaced", 2),
            ("unanswered", 4)
        ]
    );
    assert!(total.misses_by_reason.is_empty());
}

#[test]
fn no_two_reasons_share_a_name() {
    let metrics = Metrics::new();
    let site = metrics.site(leaked_site());

    for (event, _) in Event::ALL {
        site.count(*event);
    }

    let total = metrics.stats(surroundings()).total;
    let reasons =
        |is_one: fn(&Kind) -> bool| Event::ALL.iter().filter(|(_, kind)| is_one(kind)).count();
    assert_eq!(
        total.misses_by_reason.len(),
        reasons(|kind| kind.miss_reason().is_some())
    );
    assert_eq!(
        total.puts_degraded_by_reason.len(),
        reasons(|kind| matches!(kind, Kind::Degraded(_)))
    );
}

#[test]
fn the_expected_size_follows_the_observed_sizes() {
    let metrics = Metrics::new();
    let site = metrics.site(leaked_site());
    assert_eq!(site.expected_bytes(), UNKNOWN_BYTES);

    site.saw_bytes(1_600);
    assert_eq!(site.expected_bytes(), 1_600);

    site.saw_bytes(3_200);
    assert_eq!(site.expected_bytes(), 1_700);

    for _ in 0..1_000 {
        site.saw_bytes(usize::MAX);
        site.saw_bytes(0);
    }
    assert!(site.expected_bytes() <= usize::MAX / WEIGHT);
}

#[test]
fn each_kind_of_warning_is_logged_once_per_site() {
    let metrics = Metrics::new();
    let site = metrics.site(leaked_site());

    assert!(site.warn_once(Warning::TooLarge));
    assert!(site.warn_once(Warning::Card));

    assert!(!site.warn_once(Warning::TooLarge));
    assert!(!site.warn_once(Warning::Card));
    assert!(site.warn_once(Warning::UnknownPolicy));
}

#[test]
fn statistics_are_json_with_plain_names() {
    let metrics = Metrics::new();
    metrics.site(leaked_site()).count(Event::MissOtherShape);

    let json = serde_json::to_value(metrics.stats(surroundings())).expect("plain data");

    assert_eq!(json["mode"], "memory");
    assert_eq!(json["pool"], serde_json::Value::Null);
    assert_eq!(json["sites"][0]["template"], "event:<id>");
    assert_eq!(json["sites"][0]["misses_by_reason"]["other_shape"], 1);
    assert_eq!(json["total"]["hit_rate"], 0.0);
    assert_eq!(
        json["total"]["load_time"]["p99_micros"],
        serde_json::Value::Null
    );
}

#[test]
fn the_metrics_of_a_site_have_a_bounded_size() {
    assert!(
        size_of::<SiteMetrics>() <= 15 << 10,
        "{} bytes",
        size_of::<SiteMetrics>()
    );
}
