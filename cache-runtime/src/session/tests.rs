//! Tests of sessions through their public API.

mod lifecycle;
mod outages;
mod races;
mod rights;
mod rotations;
mod secrets;
mod stored;
mod times;
mod tokens;
mod transitions;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::FromRedisValue;

use super::transition::Which;
use super::{COOKIE, NewSession, SessionError, SessionStore, SessionToken, StoredSession};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::{Config, SessionKeys};
use crate::shared::on_a_cluster;
use crate::store::support::{as_user, ask, config, connect, server_with_user, until};
use crate::testing::{FaultProxy, RedisServer};

const KEY: &str = "a:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A newer key before that one, as during a rotation of keys.
const BOTH_KEYS: &str = "b:-_-_Mjw0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGU,\
                         a:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The newer key alone, as after the rotation.
const NEW_KEY: &str = "b:-_-_Mjw0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGU";

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Asserts that a result is this error, and prints the actual one otherwise.
macro_rules! assert_refused {
    ($outcome:expr, $error:pat) => {
        assert_refused!($outcome, $error, "")
    };
    ($outcome:expr, $error:pat, $($said:tt)+) => {{
        let outcome = $outcome;
        assert!(matches!(outcome, Err($error)), "{outcome:?} {}", format!($($said)+));
    }};
}
use assert_refused;

/// A store with Redis or in memory mode, and a clock that the test controls.
struct Bench {
    server: Option<RedisServer>,
    store: SessionStore,
    clock: Clock,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|config| config).await
    }

    async fn with(set: impl FnOnce(Config) -> Config) -> Self {
        let server = server_with_user(&[]);
        let clock = Clock::stopped();
        let config = config(&server).clock(clock.clone()).session_keys(keys(KEY));
        let cache = connect(as_user(set(config))).await;
        Self {
            server: Some(server),
            store: SessionStore::new(&cache).unwrap(),
            clock,
        }
    }

    fn in_memory_with(set: impl FnOnce(Config) -> Config) -> Self {
        let clock = Clock::stopped();
        let config = Config::default()
            .clock(clock.clone())
            .session_keys(keys(KEY));
        Self {
            server: None,
            store: SessionStore::new(&Cache::local(set(config))).unwrap(),
            clock,
        }
    }

    async fn both() -> [Self; 2] {
        Self::both_with(|config| config).await
    }

    async fn both_with(set: impl Fn(Config) -> Config) -> [Self; 2] {
        [Self::with(&set).await, Self::in_memory_with(&set)]
    }

    fn server(&self) -> &RedisServer {
        self.server.as_ref().unwrap()
    }

    /// Creates another process on the same server.
    async fn another(&self) -> SessionStore {
        self.another_with(|config| config).await
    }

    async fn another_with(&self, set: impl FnOnce(Config) -> Config) -> SessionStore {
        let config = config(self.server()).clock(self.clock.clone());
        let config = set(config.session_keys(keys(KEY)));
        store(as_user(config)).await
    }

    /// What the server knows of a session.
    fn record(&self, session: &StoredSession) -> String {
        self.key_of(session.token())
    }

    fn key_of(&self, token: &SessionToken) -> String {
        let place = token.place();
        place.tag.base(&self.store.inner.prefix) + &place.sid.text()
    }

    fn index(&self, session: &StoredSession) -> String {
        let tag = session.token().place().tag;
        tag.index(&self.store.inner.prefix).as_str().to_owned()
    }

    fn keys(&self) -> Vec<String> {
        ask(self.server(), &["KEYS", "*"])
    }

    /// Returns the number of scripts that the server has run.
    fn calls(&self) -> u64 {
        let info: String = ask(self.server(), &["INFO", "commandstats"]);
        let calls = |line: &str| {
            let is_ours = line.starts_with("cmdstat_eval");
            let calls = line.split("calls=").nth(1)?.split(',').next()?;
            calls.parse::<u64>().ok().filter(|_| is_ours)
        };
        info.lines().filter_map(calls).sum()
    }
}

async fn store(config: Config) -> SessionStore {
    SessionStore::new(&connect(config).await).unwrap()
}

/// An attacker that writes to the server directly.
struct Intruder(redis::Connection);

impl Intruder {
    fn at(server: &RedisServer) -> Self {
        let client = redis::Client::open(server.url()).unwrap();
        Self(client.get_connection().unwrap())
    }

    fn ask<T: FromRedisValue>(&mut self, command: &str, arguments: &[&[u8]]) -> T {
        redis::cmd(command)
            .arg(arguments)
            .query(&mut self.0)
            .unwrap()
    }

    fn read(&mut self, key: &str) -> Vec<u8> {
        self.ask("GET", &[key.as_bytes()])
    }

    /// Replaces a record and keeps its expiry.
    fn write(&mut self, key: &str, record: &[u8]) {
        let () = self.ask("SET", &[key.as_bytes(), record, b"KEEPTTL"]);
    }
}

fn keys(text: &str) -> SessionKeys {
    SessionKeys::parse(text).unwrap()
}

async fn log_in(store: &SessionStore) -> StoredSession {
    log_in_as(store, 42).await
}

async fn log_in_as(store: &SessionStore, user: u32) -> StoredSession {
    store.create(NewSession::new(user, "ada")).await.unwrap()
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The end of a session, counted from now.
fn left(session: &StoredSession, clock: &Clock) -> Duration {
    Duration::from_millis(session.expires_at() - clock.now_millis())
}
