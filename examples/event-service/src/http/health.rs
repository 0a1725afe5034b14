//! `/livez`, `/readyz`, `/api/health…` and `/api/cache/stats`: the health of the service, for probes and for people.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use cache_runtime::{Cache, Health, HealthStatus, Mode, Stats};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::App;

/// How old an answer of Redis may be. These routes have no rate limit, so they must not cause load on Redis.
const FRESH: Duration = Duration::from_secs(1);

/// The last answer of Redis, shared by all requests. Requests that arrive during a check wait for its result.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    last: Arc<Mutex<Option<(Instant, Health)>>>,
}

impl Looks {
    async fn look(&self, cache: &Cache) -> Health {
        let mut last = self.last.lock().await;
        if let Some((at, health)) = &*last
            && at.elapsed() < FRESH
        {
            return health.clone();
        }
        let health = cache.health().detail().await;
        *last = Some((Instant::now(), health.clone()));
        health
    }
}

/// Returns whether the process answers. It checks nothing else, so that an outage elsewhere does not cause a restart.
pub(super) async fn live(State(app): State<Arc<App>>) -> (StatusCode, Answer<Value>) {
    verdict(app.cache.health().live())
}

/// Returns whether the process should get requests. Without Redis it should, because it works without Redis.
pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Answer<Value>) {
    verdict(app.cache.health().ready())
}

fn verdict(is_ok: bool) -> (StatusCode, Answer<Value>) {
    match is_ok {
        true => (StatusCode::OK, Answer(json!({ "status": "ok" }))),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            Answer(json!({ "status": "down" })),
        ),
    }
}

/// Returns 503 only after the cache was shut down: without Redis the service is slower, but works.
pub(super) async fn cache(State(app): State<Arc<App>>) -> (StatusCode, Answer<CacheHealth>) {
    let health = CacheHealth::new(&app.looks.look(&app.cache).await, &app.cache.stats());
    let code = if health.status == HealthStatus::Down {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (code, Answer(health))
}

pub(super) async fn stats(State(app): State<Arc<App>>) -> Answer<Stats> {
    Answer(app.cache.stats())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CacheHealth {
    status: HealthStatus,
    redis: Redis,
    cache: Traffic,
    fallback_mode: bool,
    mode: Mode,
}

/// All fields except `connected` are null without a reachable Redis.
#[derive(Serialize)]
struct Redis {
    connected: bool,
    uptime: Option<u64>,
    memory: Memory,
}

#[derive(Serialize)]
struct Memory {
    used: Option<String>,
    peak: Option<String>,
}

/// The rates are null without traffic.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Traffic {
    hit_rate: Option<f64>,
    miss_rate: Option<f64>,
    total_operations: u64,
}

impl CacheHealth {
    fn new(health: &Health, stats: &Stats) -> Self {
        let server = health.server.as_ref();
        Self {
            status: health.status,
            redis: Redis {
                connected: health.connected,
                uptime: server.map(|server| server.uptime_seconds),
                memory: Memory {
                    used: server.map(|server| human(server.memory_used)),
                    peak: server.map(|server| human(server.memory_peak)),
                },
            },
            cache: Traffic {
                hit_rate: stats.total.hit_rate,
                miss_rate: stats.total.miss_rate,
                total_operations: stats.total.operations,
            },
            fallback_mode: health.mode == Mode::Fallback,
            mode: health.mode,
        }
    }
}

/// Formats bytes like `INFO` of Redis: `1.23M`.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["K", "M", "G", "T"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.2}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn memory_is_formatted_like_in_redis() {
        assert_eq!(human(0), "0B");
        assert_eq!(human(1_023), "1023B");
        assert_eq!(human(1_258_291), "1.20M");
        assert_eq!(human(3 << 40), "3.00T");
        assert_eq!(human(u64::MAX), "16777216.00T");
    }
}
