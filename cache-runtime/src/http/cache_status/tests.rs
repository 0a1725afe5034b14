use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use tower::ServiceExt;

use super::*;
use crate::http::{DebugAccess, PeerAddr};
use crate::{Cache, Clock, Config, cacheable};

#[cacheable(key = "row:<id>", ttl = 60, crate = crate)]
async fn row(id: u32) -> String {
    id.to_string()
}

fn app() -> Router {
    let with_member = || async { ([(CACHE_STATUS, "origin; hit")], row(2).await) };
    Router::new()
        .route("/row", get(|| row(1)))
        .route(
            "/rows",
            get(|| async { [row(1).await, row(2).await].concat() }),
        )
        .route("/behind", get(with_member))
        .route("/none", get(|| async { "nothing" }))
}

fn layer() -> CacheStatusLayer {
    CacheStatusLayer::new("shop").unwrap()
}

/// Sends a request from `peer` with these fields. Returns the members of `Cache-Status`, and `Server-Timing`.
async fn ask(
    cache: &Cache,
    app: &Router,
    path: &str,
    peer: &str,
    fields: &[(&'static str, &'static str)],
) -> (Vec<String>, Option<String>) {
    let mut request = Request::get(path).body(Body::empty()).unwrap();
    if !fields.iter().any(|(name, _)| *name == "host") {
        let host = HeaderValue::from_static("localhost:8080");
        request.headers_mut().insert("host", host);
    }
    let peer: SocketAddr = peer.parse().unwrap();
    request.extensions_mut().insert(PeerAddr(peer));
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        request.headers_mut().append(*name, value);
    }
    let response = cache.run(app.clone().oneshot(request)).await.unwrap();
    let fields = |name: HeaderName| -> Vec<String> {
        let values = response.headers().get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    };
    (fields(CACHE_STATUS), fields(SERVER_TIMING).pop())
}

const LOCAL: &str = "127.0.0.1:50000";

#[tokio::test]
async fn a_response_has_one_member_for_all_calls() {
    let cache = Cache::local(Config::default().clock(Clock::stopped()));
    let app = app().layer(layer());
    let status = async |path| ask(&cache, &app, path, LOCAL, &[]).await.0;

    assert_eq!(status("/row").await, ["shop; fwd=miss; stored"]);
    assert_eq!(status("/row").await, ["shop; hit; ttl=60"]);
    assert_eq!(status("/rows").await, ["shop; fwd=miss; stored"]);
    assert_eq!(status("/rows").await, ["shop; hit; ttl=60"]);
    assert!(status("/none").await.is_empty());
}

#[tokio::test]
async fn the_member_follows_those_of_other_caches_and_is_not_repeated() {
    let cache = Cache::memory();
    let outer = CacheStatusLayer::new("outer").unwrap();
    let app = app().layer(layer()).layer(outer);

    let (members, _) = ask(&cache, &app, "/behind", LOCAL, &[]).await;

    assert_eq!(members, ["origin; hit", "shop; fwd=miss; stored"]);
}

#[tokio::test]
async fn server_timing_is_only_for_local_requests_that_ask() {
    let timed = layer().server_timing(DebugAccess::loopback());
    let (cache, app) = (Cache::memory(), app().layer(timed));
    let asked = ("cache-debug", "timing");
    let timing = async |peer, fields: &[_]| ask(&cache, &app, "/row", peer, fields).await.1;

    let told = timing(LOCAL, &[asked]).await.unwrap_or_default();
    let told_v6 = timing("[::1]:50000", &[asked]).await;

    assert!(told.starts_with(r#"cache;desc="miss";dur="#), "{told}");
    assert!(told_v6.is_some());
    for (peer, fields) in [
        (LOCAL, vec![]),
        (LOCAL, vec![("cache-debug", "explain")]),
        (LOCAL, vec![asked, asked]),
        ("192.0.2.1:50000", vec![asked]),
        (
            "192.0.2.1:50000",
            vec![asked, ("x-forwarded-for", "127.0.0.1")],
        ),
        // From a proxy on this machine.
        (LOCAL, vec![asked, ("x-forwarded-for", "127.0.0.1")]),
        (LOCAL, vec![asked, ("forwarded", "for=127.0.0.1")]),
        (LOCAL, vec![asked, ("via", "1.1 proxy")]),
        (LOCAL, vec![asked, ("x-real-ip", "127.0.0.1")]),
        (LOCAL, vec![asked, ("x-forwarded-host", "localhost")]),
        // From a page whose name leads to this machine.
        (LOCAL, vec![asked, ("host", "shop.example")]),
    ] {
        assert_eq!(timing(peer, &fields).await, None, "{peer} {fields:?}");
    }
}

#[tokio::test]
async fn without_the_setting_no_request_is_timed() {
    let (cache, app) = (Cache::memory(), app().layer(layer()));

    let (_, timing) = ask(&cache, &app, "/row", LOCAL, &[("cache-debug", "timing")]).await;

    assert_eq!(timing, None);
}

#[test]
fn a_name_is_a_token_or_a_string() {
    for (name, written) in [
        ("shop", Some("shop")),
        ("shop.example:8080/a", Some("shop.example:8080/a")),
        ("my shop", Some("\"my shop\"")),
        ("7", Some("\"7\"")),
        ("a\"b\\", Some("\"a\\\"b\\\\\"")),
        ("", None),
        ("shöp", None),
        ("a\nb", None),
    ] {
        assert_eq!(member(name).as_deref(), written, "{name}");
    }
    assert!(CacheStatusLayer::new("").is_err());
}
