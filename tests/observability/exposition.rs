//! The metrics of a cache, as Prometheus reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use cache_runtime::testing::{FaultProxy, RedisServer};
use cache_runtime::{Cache, Mode, Stats};
use tokio::time::{sleep, timeout};

use crate::promtool::promtool;
use crate::service::{limiter, work};

/// Every series with its value, in the order of the text.
fn samples(text: &str) -> Vec<(String, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

fn values(cache: &Cache) -> BTreeMap<String, f64> {
    samples(&cache.prometheus()).into_iter().collect()
}

/// Adds up the series of a family that have all of these labels.
fn sum(values: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let of_family = values.iter().filter(|(series, _)| {
        let rest = series
            .strip_prefix(name)
            .filter(|rest| rest.is_empty() || rest.starts_with('{'));
        rest.is_some_and(|rest| labels.iter().all(|label| rest.contains(label)))
    });
    of_family.map(|(_, value)| value).sum()
}

pub(crate) async fn in_redis() -> (RedisServer, Cache) {
    let server = RedisServer::start().expect("redis-server starts");
    let cache = Cache::connect(server.config())
        .await
        .expect("a valid configuration");
    (server, cache)
}

#[tokio::test]
async fn promtool_finds_no_problem_before_and_after_calls() {
    let (_server, redis) = in_redis().await;
    for cache in [Cache::memory(), redis] {
        let limiter = limiter(&cache);
        promtool(&["check", "metrics"], &cache.prometheus());

        work(&cache, &limiter).await;
        cache.health().detail().await;

        promtool(&["check", "metrics"], &cache.prometheus());
    }
}

#[tokio::test]
async fn the_parser_of_prometheus_reads_openmetrics() {
    let (_server, cache) = in_redis().await;
    let limiter = limiter(&cache);
    work(&cache, &limiter).await;
    cache.health().detail().await;
    let text = cache.openmetrics();
    // promtool imports OpenMetrics into a database, which needs a time for each sample.
    let lines = text.lines().map(|line| match line.starts_with('#') {
        true => format!("{line}\n"),
        false => format!("{line} 1700000000\n"),
    });
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openmetrics");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("metrics.txt");
    fs::write(&file, lines.collect::<String>()).expect("a file");
    let (file, blocks) = (file.to_string_lossy(), folder.join("blocks"));
    let blocks = blocks.to_string_lossy();

    promtool(
        &["tsdb", "create-blocks-from", "openmetrics", &file, &blocks],
        "",
    );

    // The dump expects a log of recent writes, too.
    fs::create_dir(Path::new(&*blocks).join("wal")).expect("a folder");
    let read = promtool(&["tsdb", "dump", &blocks], "");
    let expected = samples(&text).len();
    assert_eq!(
        read.lines().filter(|line| line.starts_with('{')).count(),
        expected
    );
    assert_eq!(
        samples(&text)
            .into_iter()
            .map(|(series, _)| series)
            .collect::<Vec<_>>(),
        samples(&cache.prometheus())
            .into_iter()
            .map(|(series, _)| series)
            .collect::<Vec<_>>(),
        "both formats have the same series"
    );
}

#[tokio::test]
async fn every_series_exists_before_the_first_call() {
    let (_server, redis) = in_redis().await;
    for cache in [Cache::memory(), redis] {
        let limiter = limiter(&cache);
        cache.health().detail().await;
        let before: BTreeSet<_> = values(&cache).into_keys().collect();

        work(&cache, &limiter).await;

        let after: BTreeSet<_> = values(&cache).into_keys().collect();
        assert_eq!(
            after.symmetric_difference(&before).collect::<Vec<_>>(),
            [&""; 0]
        );
        for series in [
            r#"cache_gets_total{cache="unused:<id>",function="observability::service::unused",result="bypass"}"#,
            r#"cache_load_duration_seconds_bucket{cache="unused:<id>",function="observability::service::unused",le="0.1"}"#,
            r#"cache_puts_total{cache="put:<id>",function="observability::service::put"}"#,
            r#"cache_fills_total{cache="put:<id>",function="observability::service::put",outcome="stored"}"#,
            r#"cache_evictions_total{cache="row:<id>, rows:*",function="observability::service::update",outcome="deferred"}"#,
            r#"cache_operation_duration_seconds_bucket{operation="delete_each",le="5e-05"}"#,
            r#"cache_limit_decisions_total{policy="payment",outcome="blocked"}"#,
        ] {
            assert!(before.contains(series), "{series} is missing");
        }
    }
}

#[test]
fn functions_that_only_put_have_no_series_of_reads_and_loads() {
    let cache = Cache::memory();

    let values = values(&cache);

    let of_put = |series: &&String| series.contains("service::put\"");
    let families: BTreeSet<_> = values
        .keys()
        .filter(of_put)
        .filter_map(|series| series.split('{').next())
        .collect();
    let expected = [
        "cache_evictions_total",
        "cache_fills_total",
        "cache_puts_total",
        "cache_removals_total",
    ];
    assert_eq!(families.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_metric_exists() {
    let (_server, redis) = in_redis().await;
    let mut exported = BTreeSet::new();
    for cache in [Cache::memory(), redis] {
        let text = cache.prometheus();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        exported.extend(types.filter_map(|line| Some(line.split_once(' ')?.0.to_owned())));
    }

    let guide = include_str!("../../docs/book/src/reference/observability.md");
    let tables = guide.lines().filter(|line| line.starts_with("| `cache_"));
    let names = tables.filter_map(|line| line.split('|').nth(1));
    let documented: BTreeSet<_> = names
        .flat_map(|names| names.split('`').skip(1).step_by(2).map(str::to_owned))
        .collect();

    assert_eq!(documented, exported);
}

#[tokio::test]
async fn functions_of_one_name_and_template_are_one_series() {
    let cache = Cache::memory();
    let limiter = limiter(&cache);

    work(&cache, &limiter).await;

    let samples = samples(&cache.prometheus());
    let series: BTreeSet<_> = samples.iter().map(|(series, _)| series).collect();
    assert_eq!(series.len(), samples.len(), "a series appears twice");
    let values = values(&cache);
    let twins = ["service::twin\""];
    assert_eq!(sum(&values, "cache_gets_total", &twins), 2.0);
    assert_eq!(sum(&values, "cache_load_total", &twins), 1.0);
}

#[tokio::test]
async fn metrics_equal_the_statistics() {
    let (_server, cache) = in_redis().await;
    let limiter = limiter(&cache);

    work(&cache, &limiter).await;

    let (values, stats) = (values(&cache), cache.stats());
    assert_equal(&values, &stats);
    let of = |name: &str, labels: &[&str]| sum(&values, name, labels) as u64;
    let pool = stats.pool.as_ref().expect("Redis");
    assert!(of("cache_process_lag_seconds_count", &[]) <= pool.lag.count);
    assert_eq!(of("cache_mode", &["redis"]), 1);
}

#[tokio::test]
async fn metrics_equal_the_statistics_with_hits_in_the_process() {
    let cache = Cache::memory();
    let limiter = limiter(&cache);

    work(&cache, &limiter).await;

    let (values, stats) = (values(&cache), cache.stats());
    assert_eq!(stats.total.hits_local, 2);
    assert_equal(&values, &stats);
    assert_eq!(sum(&values, "cache_mode", &["memory"]), 1.0);
}

fn assert_equal(values: &BTreeMap<String, f64>, stats: &Stats) {
    let total = &stats.total;
    let of = |name: &str, labels: &[&str]| sum(values, name, labels) as u64;
    let gets = |result: &str| of("cache_gets_total", &[&format!("result=\"{result}\"")]);
    assert_eq!(
        (gets("local"), gets("outage"), gets("none"), gets("stale")),
        (
            total.hits_local,
            total.hits_outage,
            total.hits_none,
            total.hits_stale
        )
    );
    let hits = ["hit", "local", "outage", "none", "stale"].map(gets);
    assert_eq!(hits.iter().sum::<u64>(), total.hits);
    assert_eq!(gets("miss") + gets("bypass"), total.misses);
    assert_eq!(of("cache_gets_total", &[]), total.gets);
    assert_eq!(of("cache_misses_total", &[]), gets("miss"));
    assert_eq!(of("cache_bypass_total", &[]), gets("bypass"));
    assert_eq!(
        of("cache_puts_total", &[]),
        total.fills + total.puts_stored + total.sets
    );
    assert_eq!(of("cache_fills_total", &["stored"]), total.fills);
    assert_eq!(of("cache_load_total", &[]), total.loads);
    assert_eq!(of("cache_load_total", &["failure"]), total.loads_failed);
    assert_eq!(of("cache_load_duration_seconds_count", &[]), total.loads);
    let timed = of("cache_hit_duration_seconds_count", &[]);
    assert_eq!(timed, total.hit_time.count);
    assert_eq!(timed + gets("local") + gets("outage"), total.hits);
    assert_eq!(
        of("cache_evictions_total", &["applied"]),
        total.evictions_applied
    );
    assert_eq!(of("cache_evictions_total", &["deferred"]), 1);
    assert_eq!(
        of("cache_evictions_total", &["journaled"]),
        total.evictions_journaled
    );
    assert_eq!(of("cache_removals_total", &[]), total.evicted_keys);
    let operations: u64 = stats.operations.iter().map(|stats| stats.time.count).sum();
    assert_eq!(
        of("cache_operation_duration_seconds_count", &[]),
        operations
    );
    assert_eq!(
        of("cache_value_bytes_count", &["stored"]),
        of("cache_puts_total", &[]) - 1
    );
    assert_eq!(of("cache_limit_decisions_total", &["api", "allowed"]), 1);
    assert_eq!(of("cache_limit_decisions_total", &["api", "limited"]), 2);
    assert_eq!(of("cache_sessions_total", &["created"]), 1);
    assert_eq!(of("cache_mode", &[]), 1);
}

#[tokio::test]
async fn values_are_measured_before_and_after_compression() {
    let cache = Cache::memory();
    let long = "x".repeat(100_000);

    cache.set("long", &long, 60_u64).await;

    let values = values(&cache);
    let bytes = |stage| sum(&values, "cache_value_bytes_sum", &[stage]);
    assert_eq!(bytes("encoded"), 100_002.0);
    assert!(
        bytes("stored") > 0.0 && bytes("stored") < 2_000.0,
        "{}",
        bytes("stored")
    );
    assert_eq!(
        sum(
            &values,
            "cache_value_bytes_bucket",
            &["encoded", "le=\"100000.0\""]
        ),
        0.0
    );
    assert_eq!(
        sum(
            &values,
            "cache_value_bytes_bucket",
            &["encoded", "le=\"250000.0\""]
        ),
        1.0
    );
}

#[tokio::test]
async fn what_redis_reports_is_unknown_until_it_is_asked_and_in_an_outage() {
    let server = RedisServer::start().expect("redis-server starts");
    let network = FaultProxy::start(&server).expect("a proxy");
    let cache = Cache::connect(network.config())
        .await
        .expect("a valid configuration");
    let unasked = values(&cache);
    cache.set("a", &1, 60_u64).await;

    cache.health().detail().await;
    let asked = values(&cache);
    network.cut();
    while cache.get::<i32>("a").await.is_some() {}
    let away = values(&cache);

    assert!(unasked["cache_redis_keys"].is_nan());
    assert!(!unasked.contains_key("cache_redis_evicted_keys_total"));
    assert_eq!(asked["cache_redis_keys"], 1.0);
    assert!(asked["cache_redis_memory_used_bytes"] > 0.0);
    assert_eq!(asked["cache_redis_memory_max_bytes"], f64::INFINITY);
    assert!(away["cache_redis_keys"].is_nan());
    assert_eq!(away["cache_redis_evicted_keys_total"], 0.0);
    assert_eq!(away["cache_mode{mode=\"fallback\"}"], 1.0);
    assert_eq!(away["cache_fallbacks_total"], 1.0);
    promtool(&["check", "metrics"], &cache.prometheus());
}

#[tokio::test]
async fn calls_during_an_outage_are_bypasses() {
    let (server, cache) = in_redis().await;
    drop(server);
    cache.set("a", &1, 60_u64).await;
    let outage = async {
        while cache.stats().mode != Mode::Fallback {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), outage)
        .await
        .expect("fallback mode begins");

    cache.get::<i32>("a").await;
    cache.delete("a").await;

    let values = values(&cache);
    let by_hand = ["function=\"Cache\""];
    let by_hand_and = |label| [by_hand[0], label];
    assert_eq!(
        sum(&values, "cache_gets_total", &by_hand_and("bypass")),
        1.0
    );
    assert_eq!(sum(&values, "cache_gets_total", &by_hand), 1.0);
    assert_eq!(
        sum(&values, "cache_bypass_total", &by_hand_and("fallback")),
        1.0
    );
    assert_eq!(
        sum(&values, "cache_evictions_total", &by_hand_and("journaled")),
        2.0
    );
    assert!(sum(&values, "cache_journal_entries", &[]) > 0.0);
}
