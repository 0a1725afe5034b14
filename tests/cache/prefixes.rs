//! Caches on one Redis where one prefix begins with another, next to keys of other programs.

use std::time::Duration;

use cache_runtime::limit::{Identity, Policy, RateLimiter};
use cache_runtime::session::{NewSession, SessionStore};
use cache_runtime::testing::{FaultProxy, RedisServer};
use cache_runtime::{Cache, Evicted, Mode, cache_evict};
use redis::AsyncCommands;

use crate::support::{Table, connect, raw, row, server, until};

/// The first prefix of each pair is the beginning of the second.
const PAIRS: [(&str, &str); 3] = [
    ("shop_", "shop_admin_"),
    ("dev_", "dev_shop_"),
    ("app", "app2_"),
];

#[cache_evict(all_entries, cache = cache)]
async fn evict_all(cache: &Cache) {}

#[cache_evict(pattern = "*", cache = cache)]
async fn evict_matching(cache: &Cache) {}

/// A service that shares a Redis with others.
struct Service {
    cache: Cache,
    sessions: SessionStore,
    limiter: RateLimiter,
    client: Identity,
}

impl Service {
    async fn new(server: &RedisServer, prefix: &str) -> Self {
        Self::on(connect(server.config().prefix(prefix)).await)
    }

    fn on(cache: Cache) -> Self {
        Self {
            sessions: SessionStore::new(&cache).expect("a store without keys"),
            limiter: RateLimiter::new(
                &cache,
                [Policy::new("login").limit(1).per(Duration::from_secs(600))],
            )
            .expect("a valid policy"),
            client: Identity::user(7),
            cache,
        }
    }
}

/// Runs `evict` on the cache of the first service, and checks that the second service still has everything.
async fn leaves_alone(what: &str, evict: impl AsyncFn(&Cache)) {
    for (short, long) in PAIRS {
        let server = server();
        let (ours, theirs) = (
            Service::new(&server, short).await,
            Service::new(&server, long).await,
        );
        let mut raw = raw(&server).await;
        let session = theirs
            .sessions
            .create(NewSession::new(42, "ada"))
            .await
            .expect("the session is stored");
        let token = session.token().clone();
        theirs
            .limiter
            .check("login", &theirs.client)
            .await
            .expect("Redis answers");
        row(&theirs.cache, &Table::default(), 1).await;
        row(&ours.cache, &Table::default(), 1).await;
        let _: () = raw
            .set(format!("{short}somebody"), "text")
            .await
            .expect("the key is set");
        let _: () = raw
            .rpush(format!("{short}list"), "item")
            .await
            .expect("the key is set");

        evict(&ours.cache).await;

        assert_eq!(
            ours.cache.keys("*").await,
            Vec::<String>::new(),
            "{what}: {short}"
        );
        assert_eq!(theirs.cache.keys("*").await, ["row:1"], "{what}: {long}");
        let table = Table::default();
        row(&theirs.cache, &table, 1).await;
        assert_eq!(table.reads(), 0, "{what}: the entry of {long}");
        theirs
            .sessions
            .load(&token)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        // The limiter that made the call would decide from its own memory for a moment.
        let other = Service::new(&server, long).await;
        let decision = other
            .limiter
            .check("login", &other.client)
            .await
            .expect("Redis answers");
        assert!(!decision.is_allowed(), "{what}: the limit of {long}");
        for name in ["somebody", "list"] {
            let exists: bool = raw
                .exists(format!("{short}{name}"))
                .await
                .expect("it answers");
            assert!(exists, "{what}: {short}{name}");
        }
    }
}

#[tokio::test]
async fn evictions_do_not_affect_a_longer_prefix() {
    leaves_alone("clear", async |cache| {
        assert_eq!(cache.clear().await, Evicted::Applied { keys: 1 });
    })
    .await;
    leaves_alone("all_entries", async |cache| evict_all(cache).await).await;
    leaves_alone("pattern", async |cache| evict_matching(cache).await).await;
    leaves_alone("delete_matching", async |cache| {
        cache.delete_matching("*row*").await;
    })
    .await;
}

#[tokio::test]
async fn a_full_journal_does_not_affect_a_longer_prefix() {
    leaves_alone("journal", async |cache| {
        let address = match cache.config().redis.clone() {
            Some(cache_runtime::Topology::Standalone(address)) => address,
            other => panic!("{other:?}"),
        };
        let network = FaultProxy::to(address).expect("the proxy starts");
        let config = network
            .config()
            .journal_capacity(2)
            .prefix(cache.config().prefix.clone());
        let full = connect(config).await;
        network.cut();
        for id in 0..5_u32 {
            full.delete(&format!("other:{id}")).await;
        }
        assert!(
            full.stats().journal_depth < 5,
            "the journal became all entries"
        );
        network.pass();
        until("the journal is applied", async || {
            full.stats().mode == Mode::Redis && full.stats().journal_depth == 0
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_key_shared_by_two_prefixes_is_not_served_to_the_other_cache() {
    let server = server();
    let ours = connect(server.config().prefix("shop_")).await;
    let theirs = connect(server.config().prefix("shop_admin_")).await;

    theirs.set("x", &"theirs".to_owned(), 60_u64).await;

    assert_eq!(ours.get::<String>("admin_x").await, None);
    assert!(!ours.exists("admin_x").await);
}

#[tokio::test]
async fn entries_named_like_internal_records_are_ordinary_entries() {
    let server = server();
    let cache = connect(server.config()).await;
    for name in ["page_cache:1", "user_session:{1}", "a:ratelimit:{x}:y"] {
        assert!(cache.set(name, &1, 60_u64).await);
    }

    assert_eq!(cache.clear().await, Evicted::Applied { keys: 3 });
}
