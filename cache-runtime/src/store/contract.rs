//! The contract of stores, as tests that run on every store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::memory::MemoryStore;
use super::redis::RedisStore;
use super::support::{self, SingleEntry, ask, key};
use super::{Cursor, Mark, Refreshing, Scanned, Store};
use crate::clock::Clock;
use crate::entry::{FENCE_COUNT_AT, REFRESH_AT};
use crate::key::{Key, Pattern};
use crate::shared::Turn;
use crate::testing::RedisServer;

macro_rules! on_every_store {
    ($($test:ident)+) => {
        mod on_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(crate::store::contract::memory()).await; })+
        }
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(crate::store::contract::redis().await).await; })+
        }
        mod on_cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(crate::store::contract::cluster().await).await; })+
        }
    };
}

mod batches;
mod entries;
mod only_redis;
mod refreshes;
mod tags;

const TTL: Duration = Duration::from_secs(60);

/// A store and the means to advance its time.
struct Subject {
    store: Arc<dyn Store>,
    clock: Clock,
    server: Option<RedisServer>,
    cluster: Option<Turn>,
}

fn memory() -> Subject {
    let clock = Clock::default();
    Subject {
        store: Arc::new(MemoryStore::new(64 << 20, clock.clone())),
        clock,
        server: None,
        cluster: None,
    }
}

async fn redis() -> Subject {
    let server = support::server_with_user(&[]);
    let config = support::as_user(support::config(&server));
    let store = RedisStore::new(&config).unwrap();
    store.probe().await.unwrap();
    Subject {
        store: Arc::new(store),
        clock: Clock::default(),
        server: Some(server),
        cluster: None,
    }
}

async fn cluster() -> Subject {
    let turn = Turn::take();
    let config = support::as_user(support::patient(turn.cluster().config()));
    Subject {
        store: Arc::new(support::open_all_nodes(&config).await),
        clock: Clock::default(),
        server: None,
        cluster: Some(turn),
    }
}

impl Subject {
    /// Ends the life of `key`: in memory time passes, in Redis the key is made to expire.
    fn expire(&self, key: &Key, ttl: Duration) {
        match self.server_of(key) {
            None => self.clock.advance(ttl),
            Some(server) => assert_eq!(ask::<u32>(server, &["PEXPIRE", key.as_str(), "0"]), 1),
        }
    }

    /// Ends the mark of whoever refreshes `key`, to the millisecond: in memory time passes, in Redis the mark is moved to the
    /// server's present.
    fn end_mark(&self, key: &Key, ttl: Duration) {
        const NOW: &str = "local time = redis.call('TIME')
            local now = time[1] * 1000 + math.floor(time[2] / 1000)
            return redis.call('SETRANGE', KEYS[1], ARGV[1], struct.pack('<I8', now))";
        match self.server_of(key) {
            None => self.clock.advance(ttl),
            Some(server) => assert_eq!(
                ask::<u32>(
                    server,
                    &["EVAL", NOW, "1", key.as_str(), &REFRESH_AT.to_string()]
                ),
                96
            ),
        }
    }

    /// Returns the server that has a key, if there is one.
    fn server_of(&self, key: &Key) -> Option<&RedisServer> {
        let in_cluster = self
            .cluster
            .as_ref()
            .map(|turn| turn.server_of(key.as_str()));
        self.server.as_ref().or(in_cluster)
    }

    /// Returns the time of the store.
    fn now(&self) -> u64 {
        self.clock.now_millis()
    }

    async fn set(&self, name: &str, entry: &[u8]) {
        self.store.set(&key(name), entry, TTL).await.unwrap();
    }

    async fn refresh(&self, stamp: &[u8; 8], ttl: Duration, mark: Mark) -> Refreshing {
        let answer = self.store.refresh(&key("a"), *stamp, ttl, mark).await;
        answer.unwrap()
    }

    async fn get(&self, key: &Key) -> Option<Vec<u8>> {
        self.store.get(key, 0).await.unwrap()
    }

    /// Returns the names that a whole scan finds.
    async fn scan(&self, globs: &[&str]) -> Vec<String> {
        let patterns: Vec<_> = globs.iter().copied().map(pattern).collect();
        let (mut names, mut cursor) = (BTreeSet::new(), Some(Cursor::default()));
        while let Some(from) = cursor {
            let slice = self.store.scan(&patterns, from).await.unwrap();
            cursor = slice.next;
            names.extend(slice.names.iter().map(|key| key.as_str().to_owned()));
        }
        names.into_iter().collect()
    }

    async fn keys(&self, glob: &str) -> Vec<String> {
        self.scan(&[glob]).await
    }

    async fn delete_matching(&self, glob: &str) -> u64 {
        let (patterns, mut removed) = ([pattern(glob)], 0);
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            let Scanned { names, next, .. } = self.store.scan(&patterns, from).await.unwrap();
            cursor = next;
            removed += self.store.delete_entries(&names).await.unwrap().removed;
        }
        removed
    }
}

/// Runs the step 32 times concurrently, each with its own stamp.
async fn at_once<T, F>(subject: &Subject, step: impl Fn(Arc<dyn Store>, [u8; 8]) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let steps: Vec<_> = (0..32_u64)
        .map(|n| tokio::spawn(step(subject.store.clone(), n.to_be_bytes())))
        .collect();
    let mut results = Vec::new();
    for step in steps {
        results.push(step.await.unwrap());
    }
    results
}

fn pattern(glob: &str) -> Pattern {
    Pattern::render("dev_", |pattern| {
        for character in glob.chars() {
            match character {
                '*' => pattern.any(),
                '?' => pattern.one(),
                other => pattern.text(other.encode_utf8(&mut [0; 4])),
            };
        }
    })
}

/// Returns the beginning of an entry of this kind: see the table in `entry.rs`.
const MAGIC: [u8; 4] = [0xCA, 0xCE, b'E', 3];
const KIND_LEASE: u8 = 3;
const KIND_FENCE: u8 = 4;

fn entry(kind: u8, stamp: &[u8; 8]) -> Vec<u8> {
    // All keys here have a prefix of 4 bytes.
    let mut entry = MAGIC.to_vec();
    entry.extend([kind, 0, 4, 0]);
    entry.extend(stamp);
    entry.resize(96, 0xA5);
    entry[REFRESH_AT..REFRESH_AT + 8].fill(0);
    entry
}

fn fence(stamp: &[u8; 8]) -> Vec<u8> {
    let mut fence = entry(KIND_FENCE, stamp);
    fence[FENCE_COUNT_AT..FENCE_COUNT_AT + 4].copy_from_slice(&[0; 4]);
    fence
}
