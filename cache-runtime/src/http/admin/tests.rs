use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::HeaderMap;
use serde_json::json;
use tokio::sync::Notify;
use tower::ServiceExt;

use super::*;
use crate::cacheable;
use crate::http::PeerAddr;
use crate::limit::{Identity, Policy, RateLimiter};
use crate::testing::{FaultProxy, RedisServer};
use crate::warm::Summary;

mod api;
mod crowds;
mod documents;
mod refusals;

const READ: &str = "the-token-of-readers";
const WRITE: &str = "the-token-of-writers";

/// A response, read to its end.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    fn detail(&self) -> String {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{self:?}"
        );
        self.json()["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// A request from this machine.
fn local(method: &str, path: &str) -> ::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost:8080")
        .extension(PeerAddr(SocketAddr::from(([127, 0, 0, 1], 50_000))))
}

/// A request from elsewhere with a token.
fn remote(method: &str, path: &str, token: &str) -> ::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "cache.example")
        .header("authorization", format!("Bearer {token}"))
        .extension(PeerAddr(SocketAddr::from(([192, 0, 2, 1], 50_000))))
}

async fn send(service: &AdminService, request: ::http::request::Builder, body: &str) -> Got {
    let request = request.body(body.to_owned()).expect("a request");
    let response = service.clone().oneshot(request).await;
    let response = response.expect("it never fails");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    Got {
        status: parts.status.as_u16(),
        headers: parts.headers,
        text: String::from_utf8(bytes.to_vec()).expect("UTF-8"),
    }
}

async fn get(service: &AdminService, path: &str) -> Got {
    send(service, local("GET", path), "").await
}

async fn post(service: &AdminService, path: &str, body: Value) -> Got {
    send(service, local("POST", path), &body.to_string()).await
}

fn of(cache: &Cache) -> AdminService {
    admin(cache, AdminConfig::default())
}

fn with_tokens(cache: &Cache) -> AdminService {
    let config = AdminConfig::default().read_token(READ).expect("a token");
    admin(cache, config.write_token(WRITE).expect("a token"))
}
