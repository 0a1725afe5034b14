//! What a collection exports, from a real cache.

use std::collections::BTreeMap;

use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, cacheable};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_example::register;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};

#[cacheable(key = "square:<n>", ttl = "1m")]
async fn square(n: u64) -> u64 {
    n * n
}

/// Collects on demand.
struct Collector {
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

impl Collector {
    fn of(cache: &Cache) -> Self {
        let exporter = InMemoryMetricExporter::default();
        let provider = SdkMeterProvider::builder()
            .with_periodic_exporter(exporter.clone())
            .build();
        register(&provider.meter("test"), cache);
        Self { provider, exporter }
    }

    fn collect(&self) -> ResourceMetrics {
        self.exporter.reset();
        self.provider.force_flush().expect("an export");
        let mut exported = self.exporter.get_finished_metrics().expect("metrics");
        assert_eq!(exported.len(), 1, "one collection is exported once");
        exported.remove(0)
    }
}

fn metrics(exported: &ResourceMetrics) -> impl Iterator<Item = &Metric> {
    exported.scope_metrics().flat_map(|scope| scope.metrics())
}

/// The values of all whole numbers, by their names and attributes.
fn values(exported: &ResourceMetrics) -> BTreeMap<String, i64> {
    let mut values = BTreeMap::new();
    let mut add = |metric: &Metric, attributes: Vec<String>, value| {
        let series = format!("{}{{{}}}", metric.name(), attributes.join(","));
        assert_eq!(values.insert(series, value), None);
    };
    for metric in metrics(exported) {
        match metric.data() {
            AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                for point in sum.data_points() {
                    add(metric, sorted(point.attributes()), point.value() as i64);
                }
            }
            AggregatedMetrics::I64(MetricData::Sum(sum)) => {
                for point in sum.data_points() {
                    add(metric, sorted(point.attributes()), point.value());
                }
            }
            _ => {}
        }
    }
    values
}

fn sorted<'a>(attributes: impl Iterator<Item = &'a opentelemetry::KeyValue>) -> Vec<String> {
    let mut attributes: Vec<_> = attributes
        .map(|attribute| format!("{}={}", attribute.key, attribute.value))
        .collect();
    attributes.sort();
    attributes
}

/// The name that Prometheus gives to a metric.
fn prometheus_name(metric: &Metric) -> String {
    let is_counter = match metric.data() {
        AggregatedMetrics::U64(MetricData::Sum(sum)) => sum.is_monotonic(),
        AggregatedMetrics::F64(MetricData::Sum(sum)) => sum.is_monotonic(),
        _ => false,
    };
    let unit = match metric.unit() {
        "s" => "_seconds",
        "By" => "_bytes",
        "1" => "_ratio",
        annotation => {
            assert!(
                annotation.starts_with('{'),
                "{annotation} of {}",
                metric.name()
            );
            ""
        }
    };
    let total = if is_counter { "_total" } else { "" };
    format!("{}{unit}{total}", metric.name().replace('.', "_"))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_exported_by_the_next_collection() {
    let server = RedisServer::start().unwrap();
    let cache = Cache::connect(server.config()).await.unwrap();
    let collector = Collector::of(&cache);

    let [first, second] = cache
        .run(async {
            square(3).await;
            square(3).await;
            let first = values(&collector.collect());
            square(3).await;
            square(4).await;
            [first, values(&collector.collect())]
        })
        .await;

    let gets = |result: &str| {
        format!("cache.gets{{cache=square:<n>,function=metrics::square,result={result}}}")
    };
    let absent = "cache.misses{cache=square:<n>,function=metrics::square,reason=absent}";
    for (collected, hits, misses) in [(&first, 1, 1), (&second, 2, 2)] {
        assert_eq!(collected[&gets("hit")], hits, "{collected:#?}");
        assert_eq!(collected[&gets("miss")], misses, "{collected:#?}");
        assert_eq!(collected[absent], misses, "{collected:#?}");
        assert_eq!(collected["cache.mode{mode=redis}"], 1);
        assert_eq!(collected["cache.mode{mode=fallback}"], 0);
        assert_eq!(collected["cache.journal.entries{}"], 0);
        assert_eq!(
            collected["cache.operation.failures{operation=get,reason=timeout}"],
            0
        );
        assert!(collected["cache.pool.connections{state=open}"] > 0);
    }
    cache.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_have_the_results_that_the_cache_has_for_prometheus() {
    let cache = Cache::memory();
    let collector = Collector::of(&cache);

    cache
        .run(async {
            square(3).await;
            square(3).await;
            cache.disable("square:*").expect("a pattern");
            square(3).await;
        })
        .await;

    let collected = values(&collector.collect());
    let text = cache.prometheus();
    let labels = "cache=\"square:<n>\",function=\"metrics::square\"";
    for (metric, label, value, count) in [
        ("cache.gets", "result", "hit", 1),
        ("cache.gets", "result", "none", 0),
        ("cache.gets", "result", "stale", 0),
        ("cache.gets", "result", "miss", 1),
        ("cache.gets", "result", "bypass", 1),
        ("cache.bypass", "reason", "disabled", 1),
    ] {
        let series =
            format!("{metric}{{cache=square:<n>,function=metrics::square,{label}={value}}}");
        assert_eq!(collected[&series], count, "{collected:#?}");
        let name = metric.replace('.', "_");
        let line = format!("{name}_total{{{labels},{label}=\"{value}\"}} {count}");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let misses: Vec<_> = collected
        .keys()
        .filter(|series| series.starts_with("cache.misses{"))
        .collect();
    assert_eq!(
        misses,
        ["cache.misses{cache=square:<n>,function=metrics::square,reason=absent}"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_become_those_that_the_cache_has_for_prometheus() {
    let server = RedisServer::start().unwrap();
    let with_redis = Cache::connect(server.config()).await.unwrap();
    for (cache, own) in [
        (with_redis, "cache_pool_utilization_ratio"),
        (Cache::memory(), "cache_memory_bytes"),
    ] {
        cache.run(square(5)).await;

        let exported = Collector::of(&cache).collect();

        let text = cache.prometheus();
        let names: Vec<_> = metrics(&exported).map(prometheus_name).collect();
        for name in &names {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
        assert!(names.iter().any(|name| name == own), "{names:?}");
        cache.shutdown().await;
    }
}
