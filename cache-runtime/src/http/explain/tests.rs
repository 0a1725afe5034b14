use std::net::SocketAddr;

use axum::Router;
use axum::body::to_bytes;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::http::PeerAddr;
use crate::{Config, cache_evict, cacheable};
#[cfg(feature = "sessions")]
use crate::{SessionKeys, session::DebugTokens};

#[cacheable(key = "row:<id>", ttl = 60, crate = crate)]
async fn row(id: u32) -> String {
    id.to_string()
}

#[cache_evict(key = "row:<id>", crate = crate)]
async fn change(id: u32) {}

async fn find() -> impl IntoResponse {
    let found = row(7).await;
    let fields = [
        (header::ETAG, "\"1\""),
        (header::CONTENT_LANGUAGE, "en"),
        (header::SET_COOKIE, "a=b"),
    ];
    (StatusCode::ACCEPTED, fields, found)
}

fn app(cache: &Cache, access: DebugAccess) -> Router {
    Router::new()
        .route("/row", get(find))
        .route("/change", post(|| change(7)))
        .route("/empty", get(|| async { StatusCode::NO_CONTENT }))
        .layer(ExplainLayer::new(cache, access))
}

async fn send(
    app: &Router,
    method: &str,
    path: &str,
    peer: &str,
    field: &str,
) -> Response<axum::body::Body> {
    let request = Request::builder().method(method).uri(path);
    let mut request = request
        .header("host", "localhost:8080")
        .header("cache-debug", field)
        .body(axum::body::Body::empty())
        .unwrap();
    let peer: SocketAddr = peer.parse().unwrap();
    request.extensions_mut().insert(PeerAddr(peer));
    app.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response<axum::body::Body>) -> String {
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn explained(app: &Router, method: &str, path: &str) -> Value {
    let response = send(app, method, path, LOCAL, "explain").await;
    serde_json::from_str(&text(response).await).unwrap()
}

const LOCAL: &str = "127.0.0.1:50000";
const REMOTE: &str = "192.0.2.1:50000";

#[tokio::test]
async fn a_request_that_asks_gets_a_report_instead_of_its_response() {
    let cache = Cache::memory();
    let app = app(&cache, DebugAccess::loopback());

    let response = send(&app, "GET", "/row", LOCAL, "Explain").await;
    let (status, headers) = (response.status(), response.headers().clone());
    let first: Value = serde_json::from_str(&text(response).await).unwrap();
    let second = explained(&app, "GET", "/row").await;
    let change = explained(&app, "POST", "/change").await;
    let empty = explained(&app, "GET", "/empty").await;

    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(headers[header::SET_COOKIE], "a=b");
    assert!(!headers.contains_key(header::ETAG) && !headers.contains_key(header::CONTENT_LANGUAGE));
    assert_eq!(first["status"], 202);
    let call = |report: &Value| report["calls"][0].clone();
    assert_eq!(call(&first)["result"], "miss");
    assert_eq!(call(&first)["key"], "dev_row:7");
    assert_eq!(call(&second)["result"], "hit");
    assert_eq!(call(&second)["stamp"], call(&first)["stamp"]);
    assert_eq!(call(&change)["result"], "evict");
    assert!(!cache.exists("row:7").await, "the request was handled");
    assert_eq!(empty, json!({"status": 204, "calls": [], "omitted": 0}));
}

#[tokio::test]
async fn other_requests_pass_unchanged() {
    let cache = Cache::memory();
    let app = app(&cache, DebugAccess::loopback());

    for (peer, field) in [
        (REMOTE, "explain"),
        (LOCAL, "timing"),
        (LOCAL, ""),
        (LOCAL, "1"),
        (REMOTE, "explain; token=v1.a.b.c"),
    ] {
        let response = cache.run(send(&app, "GET", "/row", peer, field)).await;

        assert_eq!(response.headers()[header::ETAG], "\"1\"", "{peer} {field}");
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(text(response).await, "7");
    }
}

#[cfg(feature = "sessions")]
#[tokio::test]
async fn a_signed_request_may_come_from_anywhere() {
    let keys = SessionKeys::parse("a:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
    let config = Config::default().session_keys(keys);
    let tokens = DebugTokens::new(&config).unwrap();
    let token = tokens.issue(std::time::Duration::from_secs(60)).unwrap();
    let cache = Cache::connect(config).await.unwrap();
    let strict = app(&cache, DebugAccess::signed(tokens.clone()));
    let both = app(&cache, DebugAccess::loopback().or_signed(tokens));
    let is_explained = async |app: &Router, peer, field: &str| {
        let response = cache.run(send(app, "GET", "/row", peer, field)).await;
        response.status() == StatusCode::OK
    };

    let signed = format!("explain; token={token}");
    let quoted = format!("explain;token=\"{token}\"");
    for app in [&strict, &both] {
        assert!(is_explained(app, REMOTE, &signed).await);
        assert!(is_explained(app, REMOTE, &quoted).await);
        assert!(!is_explained(app, REMOTE, "explain").await);
        assert!(!is_explained(app, REMOTE, &format!("{signed}A")).await);
    }
    assert!(is_explained(&both, LOCAL, "explain").await);
    assert!(!is_explained(&strict, LOCAL, "explain").await);
}

#[tokio::test]
async fn keys_are_masked_if_the_configuration_says_so() {
    let cache = Cache::connect(Config::default().mask_keys(true))
        .await
        .unwrap();
    let app = app(&cache, DebugAccess::loopback());

    let report = explained(&app, "GET", "/row").await;

    let shown = report["calls"][0]["key"].as_str().unwrap();
    assert!(!shown.contains("row:7"), "{shown}");
}
