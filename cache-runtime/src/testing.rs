//! Tools for testing services that use the cache: real Redis servers, and a network that fails on command.
//!
//! A mock returns what its author expects from Redis. A real server returns what Redis returns. It starts in about 20 ms, so
//! every test can have its own:
//!
//! ```
//! use cache_runtime::testing::{FaultProxy, RedisServer};
//!
//! # fn main() -> std::io::Result<()> {
//! let server = RedisServer::start()?;         // stops when dropped, even after a panic
//! let network = FaultProxy::start(&server)?;
//! let config = network.config();              // for `Cache::connect`
//! network.stall();                            // accepts connections and never answers
//! network.cut();                              // closes all connections and refuses new ones
//! network.pass();                             // forwards everything again
//! # drop(config);
//! # Ok(())
//! # }
//! ```
//!
//! [`Cache::run`](crate::Cache::run) gives the annotated functions of one test their own cache.
//! [`RateLimiter::run`](crate::limit::RateLimiter::run) gives them their own limiter:
//!
//! ```
//! use cache_runtime::{Cache, cacheable};
//! use cache_runtime::testing::RedisServer;
//!
//! #[cacheable(key = "answer")]
//! async fn answer() -> u32 { 42 }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = RedisServer::start()?;
//! let cache = Cache::connect(server.config()).await?; // or `Cache::memory()`
//! cache.run(async {
//!     assert_eq!(answer().await, 42);
//! })
//! .await;
//! assert_eq!(cache.get::<u32>("answer").await, Some(42));
//! # Ok(())
//! # }
//! ```
//!
//! [`Sentinels`] and [`Cluster`] start several servers that replace a primary that fails.
//!
//! # Time
//!
//! A [`Clock`] in the [`Config`] sets the time of one cache. The test can stop it and advance it.
//!
//! ```
//! use std::time::Duration;
//!
//! use cache_runtime::testing::Clock;
//! use cache_runtime::{Cache, Config};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), cache_runtime::Error> {
//! let clock = Clock::stopped();
//! let cache = Cache::connect(Config::default().clock(clock.clone())).await?;
//! cache.set("a", &1, 60).await;
//! clock.advance(Duration::from_secs(61));
//! assert_eq!(cache.get::<i32>("a").await, None);
//! # Ok(())
//! # }
//! ```
//!
//! With this feature everything also follows tokio's clock:
//!
//! - After `tokio::time::pause`, entries, graces, sessions and limits age with `tokio::time::advance`, in memory and in Redis.
//! - Operations on a real Redis keep their deadlines in real time: tokio's clock does not jump while an answer is pending.
//! - Redis itself follows its own clock, so it removes an entry later than the cache stops serving it.
//! - An outage does not end by itself, but pauses between attempts to reach Redis take no time.
//!
//! # Processes
//!
//! This module works inside and outside a tokio runtime. Calls return within microseconds, except those that start a server and
//! wait until it answers. The proxy runs on its own thread and uses the real clock, so it works in
//! tests that pause tokio's clock.
//!
//! `redis-server` must be in the path. Otherwise `CACHE_TEST_REDIS_SERVER` must name it, or a compatible server such as
//! `valkey-server`.

mod cluster;
#[cfg(test)]
pub(crate) mod log;
mod proxy;
mod sentinels;
mod server;
#[cfg(test)]
pub(crate) mod shared;

pub use cluster::{Cluster, ClusterBuilder, Failover, Migration};
pub use proxy::FaultProxy;
pub use sentinels::Sentinels;
#[cfg(test)]
pub(crate) use server::{Directory, binary, free_port};
pub use server::{RedisServer, RedisServerBuilder};

pub use crate::clock::{Clock, assume_real_time};

#[cfg(test)]
mod tests;

use crate::config::{Address, Config, Secret, Topology};

/// The address of a server, with conversions to a URL and a [`Config`].
#[derive(Clone, Debug)]
struct Endpoint {
    address: Address,
    password: Option<String>,
}

impl Endpoint {
    fn url(&self) -> String {
        let password = self.password.as_deref().map(percent_encoded);
        match (&self.address, password) {
            (Address::Tcp(host, port), None) => format!("redis://{host}:{port}"),
            (Address::Tcp(host, port), Some(password)) => {
                format!("redis://:{password}@{host}:{port}")
            }
            (Address::Unix(path), None) => format!("redis+unix://{}", path.display()),
            (Address::Unix(path), Some(password)) => {
                format!("redis+unix://{}?pass={password}", path.display())
            }
        }
    }

    fn config(&self) -> Config {
        Config {
            prefix: "test_".into(),
            redis: Some(Topology::Standalone(self.address.clone())),
            password: self.password.as_deref().map(Secret::from),
            ..Config::default()
        }
    }
}

impl Config {
    /// Has a cache with this configuration listen for changes at this address, such as that of a [`FaultProxy`], and send everything
    /// else as before. A Redis Cluster ignores it, because it has several networks.
    #[must_use]
    pub fn listen_at(mut self, address: Address) -> Self {
        self.listen_at = Some(address);
        self
    }
}

fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
