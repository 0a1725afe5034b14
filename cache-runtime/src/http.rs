//! Rate limits, sessions and metrics for an axum router or any other tower service, and the address of a client behind proxies.
//!
//! The feature `http` has the layers. The feature `axum` adds extractors and `IntoResponse`. [Without axum](#without-axum), ask for
//! the same by name.
//!
//! [`SessionLayer`] describes sessions, [`metrics()`] the route of metrics, and [`CacheStatusLayer`] and [`ExplainLayer`] what clients and
//! developers can learn about a response. The rest of this page describes limits.
//!
//! ```
//! use std::net::SocketAddr;
//!
//! use axum::{Router, routing::get};
//! use cache_runtime::Cache;
//! use cache_runtime::http::{ClientIpSource, RateLimitLayer};
//! use cache_runtime::limit::{Policy, RateLimiter};
//!
//! # fn main() -> Result<(), cache_runtime::Error> {
//! let cache = Cache::memory(); // a service calls `Cache::connect(Config::from_env()?).await?`
//! let limiter = RateLimiter::new(&cache, [Policy::api()])?;
//!
//! let by_address = RateLimitLayer::new(limiter.limit(&["api"])?)
//!     .client_ip(ClientIpSource::trusted_proxies(["10.0.0.0/8"])?)
//!     .bypass("/health")?;
//! let app = Router::new()
//!     .route("/api/events", get(|| async { "events" }))
//!     .route("/health", get(|| async { "ok" }))
//!     .layer(by_address);
//!
//! // Without this, the address of the peer is not known.
//! let service = app.into_make_service_with_connect_info::<SocketAddr>();
//! # let _ = service;
//! # Ok(())
//! # }
//! ```
//!
//! # Whose requests are counted
//!
//! By default, requests are counted by address:
//!
//! - The address is that of the peer, or the address that trusted proxies in front of the service report ([`ClientIpSource`]).
//! - All notations of an IPv4 address count as the same address. IPv6 addresses count by networks of 64 bits
//!   ([`ipv6_prefix`](RateLimitLayer::ipv6_prefix)).
//!
//! A layer can count by something else, such as the user of a verified session ([`identify`](RateLimitLayer::identify)).
//!
//! Put limits by address outside of the [`SessionLayer`], so that refused requests do not load the session store. Put limits by
//! user inside of it, and inside of a middleware that extracts the [`Session`]:
//!
//! ```
//! # use axum::Router;
//! # use axum::extract::Request;
//! # use axum::middleware::{Next, from_fn};
//! # use axum::response::Response;
//! # use cache_runtime::{Cache, Error};
//! # use cache_runtime::http::{ClientIp, RateLimitLayer, Session, SessionLayer};
//! # use cache_runtime::limit::{Identity, Policy, RateLimiter};
//! # use cache_runtime::session::SessionStore;
//! #[derive(Clone)]
//! struct User(String);
//!
//! async fn user_of_session(session: Option<Session>, mut request: Request, next: Next) -> Response {
//!     if let Some(session) = session {
//!         request.extensions_mut().insert(User(session.user_id.clone()));
//!     }
//!     next.run(request).await
//! }
//!
//! # fn main() -> Result<(), Error> {
//! # let cache = Cache::memory();
//! # let limiter = RateLimiter::new(&cache, [Policy::api(), Policy::payment()])?;
//! # let app = Router::<()>::new();
//! let by_user = RateLimitLayer::new(limiter.limit(&["payment"])?).identify(|parts| {
//!     let user = parts.extensions.get().map(|User(id)| Identity::user(id));
//!     let address = parts.extensions.get(); // from the outer layer
//!     user.or_else(|| address.map(|ClientIp(address)| Identity::ip(*address)))
//! });
//! let by_address = RateLimitLayer::new(limiter.limit(&["api"])?);
//!
//! // Of axum's layers, the last is the outermost.
//! let app = app
//!     .layer(by_user)
//!     .layer(from_fn(user_of_session))
//!     .layer(SessionLayer::new(SessionStore::<()>::new(&cache)?))
//!     .layer(by_address);
//! # let _ = app;
//! # Ok(())
//! # }
//! ```
//!
//! Behind a proxy, configure which proxy is trusted. Otherwise every client has the proxy's address, and all clients share one
//! limit.
//!
//! - For nginx on the same host: `proxy_set_header X-Real-IP $remote_addr;` with
//!   `ClientIpSource::header("X-Real-IP", ["127.0.0.1", "::1"])?`.
//! - A Unix socket does not have a peer address, so headers are not trusted: use [`trusted_hops`](ClientIpSource::trusted_hops).
//! - To test it, return [`ClientIp`] from a handler. It must be your own address, not the proxy's.
//!
//! For a stricter limit on some routes, merge a router with its own layer. That layer uses the address that the outer layer found:
//! `Router::new().route("/login", post(login)).route_layer(RateLimitLayer::new(limiter.limit(&["auth"])?))`. To count only failed
//! logins, add [`count_if`](RateLimitLayer::count_if).
//!
//! # What clients see
//!
//! | request | status | body's `type` |
//! |---|---|---|
//! | over a limit | 429 | `https://iana.org/assignments/http-problem-types#quota-exceeded` |
//! | costs more than the whole limit | 429 | `https://iana.org/assignments/http-problem-types#quota-exceeded` |
//! | blocked | 429 | `https://iana.org/assignments/http-problem-types#abnormal-usage-detected` |
//! | Redis is unavailable, and a policy allows no call during an outage | 503 | `https://iana.org/assignments/http-problem-types#temporary-reduced-capacity` |
//!
//! Each of these responses has
//!
//! - `Retry-After` in whole seconds, at least 1
//! - `Cache-Control: no-store`
//! - a body of `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) with the names of the
//!   `violated-policies`:
//!
//! ```text
//! HTTP/1.1 429 Too Many Requests
//! Content-Type: application/problem+json
//! Retry-After: 17
//! Cache-Control: no-store
//! RateLimit-Policy: "api";q=100;w=60
//! RateLimit: "api";r=0;t=17
//! ```
//!
//! The last two fields are on every response unless [`RateLimitHeaders`] changes this. They follow the IETF draft
//! [draft-ietf-httpapi-ratelimit-headers-11](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/):
//!
//! - `q` is the number of units that a policy grants, and `w` the window in seconds.
//! - `r` is the number of units left. `t` is the number of seconds until there are more; it is left out if nothing is used.
//! - Each policy is a member. The layer keeps what an inner layer or the handler wrote.
//!
//! A gRPC call, which is a `POST` whose `Content-Type` begins with `application/grpc`, gets a response that its client can read:
//! HTTP status 200 and the code of gRPC in its headers. 429 becomes `RESOURCE_EXHAUSTED`, 503 `UNAVAILABLE`, 403 `PERMISSION_DENIED` and 500
//! `INTERNAL`. The other fields are the same.
//!
//! If a handler calls a function with `#[rate_limit]`, the function fails with your error type, made from a
//! [`Limited`](crate::limit::Limited). In its `IntoResponse`, write `Self::Limited(limited) => limited.into_response()` to get the
//! same response.
//!
//! # Without axum
//!
//! A layer accepts every service whose response has a body of [`Bytes`](bytes::Bytes), and returns a [`ResponseBody`] around it.
//!
//! - Insert a [`PeerAddr`] into each request, which is where the address of its client comes from.
//! - [`ClientIp::of`] and [`Sessions::of`] are what the extractors return.
//! - A [`Limited`](crate::limit::Limited), a [`SessionError`](crate::session::SessionError) and a [`MissingClientIp`] convert into a
//!   `Response<B>` of the crate `http` for each body `B: From<String>`.

#[cfg(feature = "admin")]
mod admin;
#[cfg(feature = "axum")]
mod axum;
mod body;
mod bypass;
mod cache_status;
mod client_ip;
#[cfg(feature = "sessions")]
mod cookie;
mod debug_access;
mod explain;
mod fields;
mod grpc;
mod hops;
mod limit;
mod metrics;
mod networks;
mod origin;
mod problem;
#[cfg(any(feature = "admin", feature = "sessions"))]
mod sent_cookies;
#[cfg(feature = "sessions")]
mod session;
#[cfg(feature = "axum")]
#[cfg(test)]
mod support;
#[cfg(test)]
mod tests;
mod this_machine;

use std::mem;

#[cfg(feature = "admin")]
pub use self::admin::{AdminConfig, AdminRole, AdminService, AdminUser, admin};
pub use self::body::ResponseBody;
pub use self::cache_status::{CacheStatusLayer, CacheStatusService};
pub use self::client_ip::{ClientIp, ClientIpSource, MissingClientIp, PeerAddr};
#[cfg(feature = "sessions")]
pub use self::cookie::{SameSite, SessionCookie};
pub use self::debug_access::DebugAccess;
pub use self::explain::{ExplainLayer, ExplainService};
pub use self::fields::RateLimitHeaders;
pub use self::limit::{OnMissing, RateLimitLayer, RateLimitService};
pub use self::metrics::{MetricsService, metrics};
#[cfg(feature = "sessions")]
pub use self::session::{Session, SessionLayer, SessionService, Sessions};

/// Takes the service that is ready, to call it. Its clone must become ready first.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let next = service.clone();
    mem::replace(service, next)
}
