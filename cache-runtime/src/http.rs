//! Rate limits and sessions around an axum router or any other tower service, and the address of a client behind proxies.
//!
//! Sessions: see [`SessionLayer`]. The rest of this page is about limits.
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
//! let cache = Cache::memory(); // a service says `Cache::connect(Config::from_env()?).await?`
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
//! Those of an address: of the peer, or of what proxies in front of the service say as far as they are trusted
//! ([`ClientIpSource`]). IPv4 is IPv4 however it is written, and IPv6 counts by networks of 64 bits
//! ([`ipv6_prefix`](RateLimitLayer::ipv6_prefix)). A layer can ask for something else, such as the user of a verified session
//! ([`identify`](RateLimitLayer::identify)). Put limits by address outside of the [`SessionLayer`], so that they cost the
//! session store nothing, and limits by user inside of it and of a middleware that asks for the [`Session`]:
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
//! Behind a proxy, say which: otherwise its address is everybody's, and all clients share one limit. For nginx on the same host:
//! `proxy_set_header X-Real-IP $remote_addr;` with `ClientIpSource::header("X-Real-IP", ["127.0.0.1", "::1"])?`. On a Unix socket
//! there is no peer, so no header counts: use [`trusted_hops`](ClientIpSource::trusted_hops). Try it: [`ClientIp`] in a handler must
//! show your own address, not the proxy's.
//!
//! For a stricter limit on some routes, merge a router with a layer of its own, which takes the address that the outer one found:
//! `Router::new().route("/login", post(login)).route_layer(RateLimitLayer::new(limiter.limit(&["auth"])?))`. To count failed logins only,
//! add [`count_if`](RateLimitLayer::count_if).
//!
//! # What clients see
//!
//! | | status | body's `type` |
//! |---|---|---|
//! | over a limit | 429 | `https://iana.org/assignments/http-problem-types#quota-exceeded` |
//! | costs more than the whole limit | 429 | `https://iana.org/assignments/http-problem-types#quota-exceeded` |
//! | blocked | 429 | `https://iana.org/assignments/http-problem-types#abnormal-usage-detected` |
//! | Redis is away, and a policy allows nothing meanwhile | 503 | `https://iana.org/assignments/http-problem-types#temporary-reduced-capacity` |
//!
//! Each of these has `Retry-After` in whole seconds, at least 1, `Cache-Control: no-store`, and a body of `application/problem+json`
//! ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) with the names of the `violated-policies`:
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
//! The last two, on every response unless [`RateLimitHeaders`] says otherwise, are those of the IETF's
//! [draft-ietf-httpapi-ratelimit-headers-11](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/): how
//! many units a policy grants in how many seconds, how many are left, and in how many seconds there will be more (left out if
//! nothing is used). Each policy
//! is a member, and what an inner layer or the handler wrote stays.
//!
//! A function with `#[rate_limit]` that a handler calls fails with your error, made from a [`Limited`](crate::limit::Limited). In
//! its `IntoResponse` write `Self::Limited(limited) => limited.into_response()`: the same response.

mod bypass;
mod client_ip;
#[cfg(feature = "sessions")]
mod cookie;
mod fields;
mod hops;
mod limit;
mod networks;
mod origin;
mod problem;
#[cfg(feature = "sessions")]
mod session;
#[cfg(test)]
mod support;

pub use self::client_ip::{ClientIp, ClientIpSource, MissingClientIp};
#[cfg(feature = "sessions")]
pub use self::cookie::{SameSite, SessionCookie};
pub use self::fields::RateLimitHeaders;
pub use self::limit::{OnMissing, RateLimitLayer, RateLimitService};
#[cfg(feature = "sessions")]
pub use self::session::{Session, SessionLayer, SessionService, Sessions};
