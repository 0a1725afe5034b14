//! Metrics for a recorder of the crate `metrics`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Mode};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};

use crate::service::{limiter, work};

/// Remembers what was reported, by series.
#[derive(Default)]
struct Recorded {
    values: Arc<Mutex<BTreeMap<String, f64>>>,
    described: Mutex<Vec<String>>,
}

struct Series {
    values: Arc<Mutex<BTreeMap<String, f64>>>,
    name: String,
}

impl Series {
    fn put(&self, value: f64) {
        let mut values = self.values.lock().expect("nobody panicked");
        values.insert(self.name.clone(), value);
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        panic!("{} is set, not increased by {value}", self.name);
    }

    fn absolute(&self, value: u64) {
        self.put(value as f64);
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        panic!("{} is set, not increased by {value}", self.name);
    }

    fn decrement(&self, value: f64) {
        panic!("{} is set, not decreased by {value}", self.name);
    }

    fn set(&self, value: f64) {
        self.put(value);
    }
}

impl Recorded {
    fn series(&self, key: &Key) -> Arc<Series> {
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}=\"{}\"", label.key(), label.value()))
            .collect();
        let name = match labels.is_empty() {
            true => key.name().to_owned(),
            false => format!("{}{{{}}}", key.name(), labels.join(",")),
        };
        let values = Arc::clone(&self.values);
        Arc::new(Series { values, name })
    }

    fn describe(&self, name: &KeyName) {
        let mut described = self.described.lock().expect("nobody panicked");
        described.push(name.as_str().to_owned());
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("no samples of the histogram {} follow", name.as_str());
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("{} is a histogram", key.name());
    }
}

#[tokio::test]
async fn a_recorder_gets_all_counters_and_gauges_as_prometheus_does() {
    let cache = Cache::memory();
    let limiter = limiter(&cache);
    work(&cache, &limiter).await;
    let recorder = Recorded::default();

    metrics::with_local_recorder(&recorder, || {
        cache.record_metrics();
        cache.record_metrics();
    });

    let text = cache.prometheus();
    let histograms: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"))
        .collect();
    let mut expected: BTreeMap<String, f64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter(|line| !histograms.iter().any(|name| line.starts_with(name)))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect();
    let mut recorded = recorder.values.lock().expect("nobody panicked").clone();
    // The time goes on in between.
    assert!(expected.remove("cache_uptime_seconds") >= recorded.remove("cache_uptime_seconds"));
    assert_eq!(recorded, expected);
    let described = recorder.described.lock().expect("nobody panicked");
    assert!(described.iter().any(|name| name == "cache_gets_total"));
}

#[tokio::test]
async fn a_recorder_gets_fractions_of_seconds() {
    let mut server = RedisServer::start().expect("redis-server starts");
    let cache = Cache::connect(server.config()).await.expect("it connects");
    server.kill();
    while cache.stats().mode != Mode::Fallback {
        cache.get::<u8>("a").await;
        tokio::task::yield_now().await;
    }
    let recorder = Recorded::default();

    metrics::with_local_recorder(&recorder, || cache.record_metrics());

    let recorded = recorder.values.lock().expect("nobody panicked");
    let seconds = recorded["cache_fallback_seconds_total"];
    assert!(seconds > 0.0, "{seconds}");
    let known = cache.stats().fallback.total_seconds;
    assert!(seconds <= known, "{seconds} {known}");
}

#[test]
fn without_a_recorder_nothing_happens() {
    let cache = Cache::memory();
    let before = cache.prometheus();

    cache.record_metrics();

    let without_uptime = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("cache_uptime"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_uptime(&cache.prometheus()), without_uptime(&before));
}
