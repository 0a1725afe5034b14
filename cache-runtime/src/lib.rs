//! Redis caching for Rust services by attribute: a cache that cannot break or slow the service, and evictions that are never
//! undone. An annotated function returns what its body would have returned; the cache's own failures are counted, never yours.
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! use cache_runtime::{Cache, cache_evict, cacheable};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Event {
//!     id: i64,
//!     title: String,
//! }
//!
//! #[derive(Default)]
//! struct Events {
//!     queries: AtomicU32,
//! }
//!
//! impl Events {
//!     #[cacheable(key = "event:<id>", ttl = "30m")]
//!     async fn event(&self, id: i64) -> Result<Option<Event>, std::io::Error> {
//!         self.queries.fetch_add(1, Ordering::Relaxed); // or ask a database
//!         Ok(Some(Event { id, title: "A quartet".into() }))
//!     }
//!
//!     #[cache_evict(key = "event:<id>")]
//!     async fn rename(&self, id: i64, title: &str) -> Result<(), std::io::Error> {
//!         println!("event {id} is now called {title}"); // or tell a database
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Memory mode: no Redis. A service calls `Cache::connect(Config::from_env_over(defaults)?)`, which reads `REDIS_URL`.
//! Cache::memory().install()?;
//! let events = Events::default();
//!
//! assert_eq!(events.event(42).await?, events.event(42).await?);
//! assert_eq!(events.queries.load(Ordering::Relaxed), 1);
//!
//! events.rename(42, "A quintet").await?;
//! events.event(42).await?;
//! assert_eq!(events.queries.load(Ordering::Relaxed), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # What a call does
//!
//! ```text
//!  call ─► key ─► Redis GET ──value──────────────────────────► value
//!                   │    └───stale, within its grace─────────► value; one caller of all refreshes it
//!                   │ absent (or Redis is known to be down)
//!                   ▼
//!                flight        one loader per key in the process; those who wait share its encoded result
//!                   │ leader
//!                   ▼
//!                lease         one loader per key among all processes (SET NX GET: one round trip)
//!                   ▼
//!                body ──► fill if the lease still stands ────► value
//! ```
//!
//! While Redis is away no call waits for it: bodies run, and evictions are kept until it is back.
//!
//! # Names to know
//!
//! | name | what for |
//! |---|---|
//! | [`macro@cacheable`] | reads through the cache; its page has the language of keys |
//! | [`macro@cache_put`], [`macro@cache_evict`] | runs the body and stores what it returned; runs it and removes |
//! | [`Cache`] | made once with [`connect`](Cache::connect), [`install`](Cache::install)ed for all annotated functions; Redis's verbs by hand |
//! | [`Cache::run`], [`limit::RateLimiter::run`] | the cache or limiter of one test; [`in_current_run`] takes it along into a task |
//! | [`CacheScope`] | evictions that wait for the commit of a transaction |
//! | [`Config`] | every option with its default, from code, a file or the environment |
//! | [`Stats`], [`Health`] | what was counted, for each function; how the cache is, for health checks |
//! | [`Cache::warm`], [`warm::every`] | fills the cache before anybody asks, once or on a schedule |
//! | [`KeyPart`] | which types may stand in a key; implement it for your own |
//! | [`limit::RateLimiter`], [`macro@rate_limit`] | how often clients may do what, for all processes together; the same for one function |
//! | [`session::SessionStore`] | who is logged in, for all processes together; `http::SessionLayer` gives it to handlers |
//! | [`Sensitive`] | holds what must never be cached; a type that has one does not compile as a cached value |
//! | [`Error`], [`ErrorKind`] | what the methods that begin with `try_` tell; annotated functions never do |
//!
//! # Features
//!
//! | feature | default | adds | pulls in |
//! |---|---|---|---|
//! | `compression` | yes | values over `compress_above` are compressed. Without it, what another process compressed is a miss | `lz4_flex` |
//! | `limits` | yes | the module `limit`, `#[rate_limit]` | |
//! | `sessions` | yes | the module `session` | `aes-gcm`, `hkdf`, `hmac` |
//! | `tls` | yes | `rediss://` and `REDIS_TLS` | `rustls`, `tokio-rustls`, `webpki-roots` |
//! | `http` | no | the module `http`: rate limits, and with `sessions` sessions, as layers for axum and tower, and the address of a client behind proxies; turns `limits` on | `axum`, `ipnet` |
//! | `testing` | no | the module `testing`: real Redis servers, and a network that fails when it is told to | tokio's `io-util` |
//! | `tower-sessions` | no | `session::TowerSessionStore`: a store for services that have sessions of the crate `tower-sessions` already; turns `sessions` on | `tower-sessions-core` |
//! | `uuid` | no | `Uuid` in keys | `uuid` |
//!
//! Beside argon2 0.3 leave `tls` out: `default-features = false, features = ["compression", "limits", "sessions"]`. It wants a
//! `subtle` before 2.5, and rustls a later one.
//!
//! What is promised about stale values, outages and races, and what is not, is in `docs/consistency.md` of the repository;
//! every option with its variable is in `docs/configuration.md`.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "limits", feature = "sessions")),
    allow(
        dead_code,
        reason = "what only limits and sessions need of lower floors; a full build finds the rest"
    )
)]

mod background;
mod cache;
mod calls;
mod clock;
mod config;
mod entry;
mod error;
mod escape;
#[cfg(feature = "http")]
pub mod http;
mod key;
#[cfg(feature = "limits")]
pub mod limit;
#[cfg(feature = "limits")]
mod limited;
mod metrics;
mod plan;
mod registry;
mod run;
mod sensitive;
#[cfg(feature = "sessions")]
pub mod session;
mod site;
mod store;
mod target;
pub mod warm;

#[doc(hidden)]
pub mod __private;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use cache::{Cache, CacheScope, Evicted, Health, Status};
#[cfg(feature = "limits")]
pub use cache_macros::rate_limit;
pub use cache_macros::{cache_evict, cache_put, cacheable};
pub use clock::Clock;
pub use config::{Address, Config, Environment, Policy, Quota, Secret, SessionKeys, Tls, Topology};
pub use error::{AlreadyInstalled, Error, ErrorKind};
pub use key::{Key, KeyPart, KeyWriter, Pattern};
pub use metrics::{
    Counts, FallbackStats, LimitStats, MemoryStats, Mode, PoolStats, SessionStats, SiteStats,
    Stats, Times,
};
pub use run::in_current_run;
pub use sensitive::Sensitive;
pub use site::{CacheValue, Ttl};
// Here, too, so that rustc's messages do not speak of `__private`.
#[doc(hidden)]
pub use background::{background, cacheable_background};
#[cfg(feature = "limits")]
#[doc(hidden)]
pub use limited::{FromLimited, Refusable, refused};
#[doc(hidden)]
pub use site::{ValueTtl, life_of, storable};
pub use store::ServerInfo;
