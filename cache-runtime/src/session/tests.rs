//! Sessions through their public names.

mod lifecycle;

use std::time::Duration;

use super::{NewSession, Session, SessionError, SessionStore};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::{Config, SessionKeys};
use crate::store::support::config;
use crate::testing::RedisServer;

const KEY: &str = "a:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A store of sessions, at times that the test chooses, where it is kept in Redis and where it is not.
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
        let server = RedisServer::start().unwrap();
        let clock = Clock::stopped();
        let config = config(&server).clock(clock.clone()).session_keys(keys(KEY));
        let cache = Cache::connect(set(config)).await.unwrap();
        Self {
            server: Some(server),
            store: SessionStore::new(&cache).unwrap(),
            clock,
        }
    }

    fn in_memory() -> Self {
        let clock = Clock::stopped();
        let config = Config::default()
            .clock(clock.clone())
            .session_keys(keys(KEY));
        Self {
            server: None,
            store: SessionStore::new(&Cache::local(config)).unwrap(),
            clock,
        }
    }

    async fn both() -> [Self; 2] {
        [Self::new().await, Self::in_memory()]
    }
}

fn keys(text: &str) -> SessionKeys {
    SessionKeys::parse(text).unwrap()
}

async fn log_in(store: &SessionStore) -> Session {
    store.create(NewSession::new(42, "ada")).await.unwrap()
}

/// The end of a session, counted from now.
fn left(session: &Session, clock: &Clock) -> Duration {
    Duration::from_millis(session.expires_at() - clock.now_millis())
}
