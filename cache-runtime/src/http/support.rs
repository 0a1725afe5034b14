//! What the tests of this module share: a router behind a layer, and requests to it.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, Uri};
use axum::response::Response;
use axum::routing::{any, get, post};
use tower::ServiceExt;

use super::limit::RateLimitLayer;
use crate::cache::Cache;
use crate::limit::{Limit, Policy, RateLimiter};

pub(super) const PEER: &str = "192.0.2.1";

/// A limit of so many requests a minute.
pub(super) fn limit(requests: u32) -> Limit {
    limit_called("api", requests)
}

pub(super) fn limit_called(name: &str, requests: u32) -> Limit {
    let policy = Policy::new(name).limit(requests).per("1m");
    let limiter = RateLimiter::new(&Cache::memory(), [policy]).unwrap();
    limiter.limit(&[name]).unwrap()
}

pub(super) fn one_a_minute() -> RateLimitLayer {
    RateLimitLayer::new(limit(1))
}

/// A router with some routes and a fallback behind `layer`.
pub(super) fn app_behind(layer: RateLimitLayer) -> Router {
    Router::new()
        .route("/health", any(|| async { "ok" }))
        .route("/api/events/{id}", get(|| async { "an event" }))
        .route("/login", post(|| async { "welcome" }))
        .layer(layer)
}

pub(super) fn request(method: Method, path: &str, peer: &str) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse::<Uri>().unwrap();
    let peer = SocketAddr::new(peer.parse().unwrap(), 50_000);
    request.extensions_mut().insert(ConnectInfo(peer));
    request
}

pub(super) fn get_from(peer: &str) -> Request<Body> {
    request(Method::GET, "/api/events/1", peer)
}

pub(super) async fn send(app: &Router, request: Request<Body>) -> Response {
    app.clone().oneshot(request).await.unwrap()
}

pub(super) async fn status_for(app: &Router, peer: &str) -> u16 {
    send(app, get_from(peer)).await.status().as_u16()
}

pub(super) async fn text(response: Response) -> String {
    let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

pub(super) fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    lines
        .map(|line| line.to_str().unwrap().to_owned())
        .collect()
}

/// `RateLimit` without its times, since time goes on between two requests.
pub(super) fn rests(headers: &HeaderMap) -> Vec<String> {
    let lines = lines(headers, "ratelimit").into_iter();
    lines
        .map(|line| line.split(";t=").next().unwrap().to_owned())
        .collect()
}

/// `Retry-After`, and the time in the only member of `RateLimit`.
pub(super) fn waits(headers: &HeaderMap) -> (u64, u64) {
    let retry = headers["retry-after"].to_str().unwrap();
    let (_, more) = headers["ratelimit"]
        .to_str()
        .unwrap()
        .split_once(";t=")
        .unwrap();
    (retry.parse().unwrap(), more.parse().unwrap())
}
