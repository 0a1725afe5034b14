//! The metrics of a cache as a response, in the format that the scraper asks for.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tower_service::Service;

use crate::cache::Cache;
use crate::sync::Mutex;

/// How old what Redis reports about itself may be. A client that reads metrics must not cause load on Redis.
const FRESH: Duration = Duration::from_secs(1);

/// Which of the formats a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Prometheus,
    OpenMetrics,
}

/// A service that responds with the metrics of a cache. [`metrics()`] creates it.
#[derive(Clone, Debug)]
pub struct MetricsService {
    cache: Cache,
    /// When Redis was asked last.
    asked: Arc<Mutex<Option<Instant>>>,
}

/// Returns a service for `GET /metrics`, for a scraper such as Prometheus.
/// `docs/book/src/reference/observability.md` lists the metrics.
///
/// ```
/// use axum::Router;
/// use cache_runtime::{Cache, http};
///
/// # let cache = Cache::memory();
/// let app: Router = Router::new().route_service("/metrics", http::metrics(&cache));
/// ```
///
/// - The format is OpenMetrics 1.0 if `Accept` names it and does not prefer plain text. Otherwise it is the text format of
///   Prometheus, which browsers can show.
/// - It accepts `GET` and `HEAD`, and answers other methods with 405.
/// - It asks Redis for its memory and keys, at most once per second, and not at all in fallback mode.
/// - The metrics name functions and routes, so do not expose them to the internet. The service has no access control of its own.
pub fn metrics(cache: &Cache) -> MetricsService {
    MetricsService {
        cache: cache.clone(),
        asked: Arc::default(),
    }
}

impl MetricsService {
    async fn respond(self, method: Method, format: Format) -> Response<String> {
        if ![Method::GET, Method::HEAD].contains(&method) {
            let mut refused = Response::new("use GET or HEAD\n".to_owned());
            *refused.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            let headers = refused.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            headers.insert(CONTENT_TYPE, plain);
            return refused;
        }
        if self.is_due() {
            // For the statistics, which remember it.
            let _ = self.cache.health().detail().await;
        }
        let (text, content_type) = match format {
            Format::Prometheus => (
                self.cache.prometheus(),
                "text/plain; version=0.0.4; charset=utf-8",
            ),
            Format::OpenMetrics => (
                self.cache.openmetrics(),
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
        };
        let length = HeaderValue::from(text.len());
        let mut response = Response::new(match method {
            Method::HEAD => String::new(),
            _ => text,
        });
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CONTENT_LENGTH, length);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        response
    }

    /// Returns whether this request asks Redis. Others that arrive while it does are not delayed.
    fn is_due(&self) -> bool {
        let mut asked = self.asked.lock();
        let is_due = asked.is_none_or(|at| at.elapsed() >= FRESH);
        if is_due {
            *asked = Some(Instant::now());
        }
        is_due
    }
}

impl<B> Service<Request<B>> for MetricsService {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, format) = (request.method().clone(), Format::of(request.headers()));
        let service = self.clone();
        Box::pin(async move { Ok(service.respond(method, format).await) })
    }
}

impl Format {
    /// OpenMetrics has to be named: a wildcard stands for plain text, because any client can read that.
    fn of(headers: &HeaderMap) -> Self {
        let (mut openmetrics, mut plain) = (0, 0);
        for value in headers.get_all(ACCEPT) {
            let Ok(value) = value.to_str() else { continue };
            for range in value.split(',') {
                let mut parts = range.split(';').map(str::trim);
                let media = parts.next().unwrap_or_default().to_ascii_lowercase();
                let (mut quality, mut version) = (1_000, None);
                for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                    match name.trim().to_ascii_lowercase().as_str() {
                        "q" => quality = thousandths(value.trim()),
                        "version" => version = Some(value.trim().trim_matches('"')),
                        _ => {}
                    }
                }
                match (&*media, version) {
                    ("application/openmetrics-text", None | Some("1.0.0")) => {
                        openmetrics = openmetrics.max(quality);
                    }
                    ("text/plain", _) => plain = plain.max(quality),
                    _ => {}
                }
            }
        }
        match openmetrics > 0 && openmetrics >= plain {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }
}

/// Returns a quality, which is from 0 to 1 with at most three decimals. An invalid one refuses its format.
fn thousandths(quality: &str) -> u32 {
    let quality: f64 = quality.parse().unwrap_or_default();
    match (0.0..=1.0).contains(&quality) {
        true => (quality * 1_000.0) as u32,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        Format::of(&headers)
    }

    #[test]
    fn scrapers_that_prefer_openmetrics_get_it() {
        // Prometheus 2 and 3.
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "Application/OpenMetrics-Text; charset=utf-8",
            "application/openmetrics-text; version=\"1.0.0\"",
        ] {
            assert_eq!(asked(&[accept]), Format::OpenMetrics, "{accept}");
        }
        let lines = ["text/plain;q=0.1", "application/openmetrics-text;q=0.2"];
        assert_eq!(asked(&lines), Format::OpenMetrics);
    }

    #[test]
    fn everything_else_gets_plain_text() {
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/*",
            "application/json",
            "text/plain",
            "text/plain;q=0.9,application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=x",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;version=0.0.1",
        ] {
            assert_eq!(asked(&[accept]), Format::Prometheus, "{accept}");
        }
        assert_eq!(asked(&[]), Format::Prometheus);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(Format::of(&headers), Format::Prometheus);
    }
}
