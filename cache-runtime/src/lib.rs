//! Redis caching for Rust services through attributes. An annotated function returns what its body would return. If the cache fails,
//! the body runs, and the failure is counted. It never becomes an error of the function. An eviction is never undone.
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
//!                   │    └───stale, within its grace─────────► value; one caller across all processes refreshes it
//!                   │ absent (or Redis is known to be down)
//!                   ▼
//!                flight        one loader per key in the process; waiters share its encoded result
//!                   │ leader
//!                   ▼
//!                lease         one loader per key among all processes (SET NX GET: one round trip); skipped while Redis is down
//!                   ▼
//!                body ──► fill if the lease still stands ────► value
//! ```
//!
//! A function with `local` looks for the value in this process before it asks Redis. A function with `tag` also reads the records of its
//! tags. If a tag was evicted after the load of an entry began, the entry is not served.
//!
//! While Redis is unavailable, no call waits for it. Bodies run, and evictions are kept in a journal until Redis is back.
//!
//! # Main items
//!
//! | name | purpose |
//! |---|---|
//! | [`macro@cacheable`] | Reads through the cache; its page describes keys |
//! | [`macro@cache_put`] | Runs the body and stores its result |
//! | [`macro@cache_evict`] | Runs the body and removes entries |
//! | [`Cache`] | The cache: [`connect`](Cache::connect) creates it and [`install`](Cache::install) makes it the cache of all annotated functions; `get`, `set` and `delete` use it directly |
//! | [`Cache::run`], [`limit::RateLimiter::run`] | Sets the cache or the limiter of one test; [`in_current_run`] passes it on to a task |
//! | [`Cache::tagged`], [`Cache::delete_tagged`] | Stores values under tags, and evicts all entries with a tag |
//! | [`CacheScope`] | Delays evictions until a transaction commits |
//! | [`Config`] | Holds every option with its default, from code, a file or the environment |
//! | [`Stats`] | Holds the counters, in total and for each function; [`Cache::prometheus`] writes them for Prometheus |
//! | [`Cache::catalog`], [`assert_catalog_clean!`] | Lists all annotated functions, and what looks like a mistake in them |
//! | [`Cache::health`], [`Health`] | Reports the state of the cache, for probes and for people |
//! | [`Cache::warm`], [`warm::every`] | Fills the cache in advance, once or on a schedule |
//! | [`macro@key`] | Writes the key of an entry by hand, escaped as attributes escape it |
//! | [`trait@KeyPart`] | Marks types that can be part of a key; [derive](derive@KeyPart) it for your own types |
//! | [`limit::RateLimiter`], [`macro@rate_limit`] | Limits how often clients may do something, across all processes; `#[rate_limit]` does this for one function |
//! | [`session::SessionStore`] | Stores login sessions that all processes share; `http::SessionLayer` passes them to handlers |
//! | [`Sensitive`] | Holds a value that must never be cached; caching a type that contains it is a compile error |
//! | [`Error`], [`ErrorKind`] | The error of methods that can fail, such as those that begin with `try_`; annotated functions never return it |
//!
//! # Features
//!
//! | feature | default | adds | pulls in |
//! |---|---|---|---|
//! | `compression` | yes | Compresses values above `compress_above`. Without it, values that another process compressed count as misses | `lz4_flex` |
//! | `limits` | yes | The module `limit` and `#[rate_limit]` | |
//! | `sessions` | yes | The module `session` | `aes-gcm`, `hkdf`, `hmac` |
//! | `ring` | yes | Encrypts with `ring`. Enables `tls` | `ring` |
//! | `tls` | yes | `rediss://` and `REDIS_TLS`. Without `ring` and `aws-lc`, it encrypts with the provider that the process has installed in `rustls` | `rustls`, `tokio-rustls`, `webpki-roots` |
//! | `aws-lc` | no | Encrypts with AWS-LC, in place of `ring`. Enables `tls` | `aws-lc-rs` |
//! | `admin` | no | `http::admin`: a page and an API for operators. Enables `http` | `hmac` |
//! | `axum` | no | For handlers of axum: `ClientIp`, `Session` and `Sessions` as extractors, `IntoResponse` for rejections and errors, and rejections counted by route. Enables `http` | `axum` |
//! | `chrono` | no | `DateTime` and `NaiveDate` in keys | `chrono` |
//! | `http` | no | The module `http`: rate limits, `Cache-Status`, reports of requests and, with `sessions`, sessions as layers for tower, metrics as a service, and the address of a client behind proxies. Enables `limits` | `bytes`, `http`, `http-body`, `http-body-util`, `ipnet`, `pin-project-lite`, `tower-layer`, `tower-service` |
//! | `metrics` | no | `Cache::record_metrics`: counters and gauges for the recorder of the crate `metrics` | `metrics` |
//! | `testing` | no | The module `testing`: real Redis servers, and a network that fails on command | tokio's `io-util` |
//! | `time` | no | `OffsetDateTime` and `Date` in keys | `time` |
//! | `tower-sessions` | no | `session::TowerSessionStore`: a store for services that already use the crate `tower-sessions`. Enables `sessions` | `tower-sessions-core` |
//! | `uuid` | no | `Uuid` in keys | `uuid` |
//!
//! If you also depend on argon2 0.3, leave `ring` and `tls` out: `default-features = false, features = ["compression", "limits", "sessions"]`.
//! argon2 0.3 needs `subtle` before 2.5, and rustls needs a later version.
//!
//! `docs/book/src/reference/consistency.md` in the repository describes the promises about stale values, outages and races, and their
//! limits. `docs/book/src/reference/configuration.md` lists every option with its environment variable.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "limits", feature = "sessions")),
    allow(
        dead_code,
        reason = "used only by limits and sessions; a full build reports real dead code"
    )
)]

mod acl;
mod background;
mod cache;
mod cache_status;
mod calls;
pub mod catalog;
mod clock;
mod config;
mod doubt;
mod entry;
mod error;
mod escape;
mod explain;
#[cfg(feature = "http")]
pub mod http;
mod key;
#[cfg(feature = "limits")]
pub mod limit;
#[cfg(feature = "limits")]
mod limited;
mod metrics;
mod plan;
mod queue;
mod registry;
mod run;
mod sensitive;
#[cfg(feature = "sessions")]
pub mod session;
mod singleton;
mod site;
#[cfg(feature = "limits")]
mod sketch;
mod slot;
mod spare;
mod store;
mod sync;
mod tag;
mod target;
mod throttle;
pub mod warm;

#[doc(hidden)]
pub mod __private;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
use testing::shared;

pub use acl::{AclPart, AclRule};
pub use cache::{
    Cache, CacheScope, Evicted, Health, HealthCheck, HealthStatus, KeyStream, TaggedCache,
};
#[cfg(feature = "limits")]
pub use cache_macros::rate_limit;
pub use cache_macros::{KeyPart, cache_evict, cache_put, cacheable, key, tag};
pub use cache_status::CacheStatus;
pub use clock::Clock;
pub use config::{
    Address, Config, Credentials, Environment, EvictDurability, Login, Quota, Secret, SessionKeys,
    Tls, Topology, TtlPolicy,
};
pub use error::{AlreadyInstalled, Error, ErrorKind};
pub use explain::{ExplainWarning, ExplainedCall, Explanation};
pub use key::{KeyPart, KeyWriter};
pub use metrics::{
    Counts, FallbackStats, LimitStats, LocalState, LocalStats, MemoryStats, Mode, OperationStats,
    PoolStats, RedisStats, SessionStats, SiteStats, Stats, Times,
};
pub use run::in_current_run;
pub use sensitive::Sensitive;
pub use site::{CacheValue, Ttl};
// Also exported here, so that rustc's messages do not mention `__private`.
#[doc(hidden)]
pub use background::{background, cacheable_background, cacheable_background_local};
#[cfg(feature = "limits")]
#[doc(hidden)]
pub use limited::{FromLimited, Refusable, refused};
#[doc(hidden)]
pub use site::{LocalValue, ValueTtl, locally_storable, storable, ttl_of};
pub use store::{NodeHealth, NodeState, ServerInfo};
