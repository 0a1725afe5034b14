//! `GET /metrics`, as a scraper sends it.

use std::time::Instant;

use axum::body::to_bytes;
use axum::http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::{Router, body::Body};
use cache_runtime::{Cache, http};
use tower::ServiceExt;

use crate::exposition::in_redis;
use crate::promtool::promtool;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

fn app(cache: &Cache) -> Router {
    Router::new().route_service("/metrics", http::metrics(cache))
}

async fn send(app: &Router, method: Method, accept: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::builder()
        .method(method)
        .uri("/metrics")
        .header(ACCEPT, accept);
    let request = request.body(Body::empty()).expect("a request");
    let response = app.clone().oneshot(request).await.expect("a response");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 24).await.expect("a body");
    let text = String::from_utf8(body.to_vec()).expect("a text");
    (parts.status, parts.headers, text)
}

#[tokio::test]
async fn the_scraper_chooses_the_format() {
    let app = app(&Cache::memory());

    let (status, headers, plain) = send(&app, Method::GET, "*/*").await;
    let (_, other, openmetrics) = send(
        &app,
        Method::GET,
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    )
    .await;

    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[CONTENT_TYPE], PLAIN);
    assert_eq!(headers[VARY], "Accept");
    assert_eq!(headers[CACHE_CONTROL], "no-store");
    promtool(&["check", "metrics"], &plain);
    assert_eq!(other[CONTENT_TYPE], OPENMETRICS);
    assert!(openmetrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn head_has_the_headers_only_and_other_methods_are_refused() {
    let app = app(&Cache::memory());

    let (_, got, text) = send(&app, Method::GET, "text/plain").await;
    let (status, headers, nothing) = send(&app, Method::HEAD, "text/plain").await;
    let (refused, allowed, _) = send(&app, Method::POST, "text/plain").await;

    assert_eq!(got[CONTENT_LENGTH], text.len().to_string());
    assert_eq!((status, nothing.as_str()), (StatusCode::OK, ""));
    assert_eq!(headers[CONTENT_TYPE], PLAIN);
    let length: usize = headers[CONTENT_LENGTH]
        .to_str()
        .expect("a text")
        .parse()
        .expect("a number");
    // The uptime may have got a digit more.
    assert!(
        length.abs_diff(text.len()) < 50,
        "{length} and {}",
        text.len()
    );
    assert_eq!(refused, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(allowed[ALLOW], "GET, HEAD");
}

fn infos(cache: &Cache) -> u64 {
    let operations = cache.stats().operations;
    let info = operations.iter().find(|stats| stats.operation == "info");
    info.map_or(0, |stats| stats.time.count)
}

#[tokio::test]
async fn scrapes_ask_redis_at_most_once_per_second() {
    let (_server, cache) = in_redis().await;
    let app = app(&cache);
    let began = Instant::now();

    let (_, _, first) = send(&app, Method::GET, "*/*").await;
    for _ in 0..20 {
        send(&app, Method::GET, "*/*").await;
    }

    assert!(
        first.contains("\ncache_redis_keys 0\n"),
        "Redis was asked before the first response"
    );
    let (asked, most) = (infos(&cache), began.elapsed().as_secs() + 1);
    assert!((1..=most).contains(&asked), "{asked} times, {most} at most");
}
