//! A Redis user with only the documented permissions can run everything that the cache needs.

use std::time::Duration;

use cache_runtime::limit::{Algorithm, Identity, Policy, RateLimiter};
use cache_runtime::session::{NewSession, SessionStore};
use cache_runtime::{Cache, cache_evict, cache_put, cacheable};

use crate::support::{Table, connect, raw, row, server, soon};

const DOCUMENTED: &str = include_str!("../../docs/deployment.md");

#[cacheable(key = "stale:<id>", ignore = [table], ttl = "50ms", grace = 60, cache = cache)]
async fn stale(cache: &Cache, table: &Table, id: u64) -> usize {
    table.read()
}

#[cache_put(key = "row:<id>", ttl = 60, cache = cache)]
async fn put(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

#[cache_evict(key = "row:<id>", fence, cache = cache)]
async fn fenced(cache: &Cache, table: &Table, id: u64) -> usize {
    table.write()
}

#[cache_evict(pattern = "row:*", cache = cache)]
async fn all_rows(cache: &Cache, table: &Table) -> usize {
    table.write()
}

/// Returns the rules of the documented `ACL SETUSER`, without its comments.
fn documented_user() -> Vec<&'static str> {
    let (_, rest) = DOCUMENTED
        .split_once("ACL SETUSER app ")
        .expect("the rules are documented");
    let (rules, _) = rest.split_once("```").expect("the block has an end");
    rules
        .split_whitespace()
        .filter(|word| !word.starts_with('['))
        .collect()
}

#[tokio::test]
async fn the_documented_permissions_are_enough() {
    let server = server();
    let mut raw = raw(&server).await;
    let () = redis::cmd("ACL")
        .arg(&["SETUSER", "app"])
        .arg(documented_user())
        .query_async(&mut raw)
        .await
        .expect("the rules are valid");
    let config = server
        .config()
        .prefix("dev_")
        .username("app")
        .password("password");
    let cache = connect(config).await;
    let table = Table::default();

    // Entries.
    for _ in 0..2 {
        row(&cache, &table, 1).await;
        stale(&cache, &table, 1).await;
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    stale(&cache, &table, 1).await;
    put(&cache, &table, 1).await;
    fenced(&cache, &table, 1).await;
    all_rows(&cache, &table).await;
    cache.set("a", &1, Duration::from_secs(60)).await;
    cache.get_many::<u64>(&["a", "b"]).await;
    cache.exists("a").await;
    cache.ttl("a").await;
    cache.expire("a", Duration::from_secs(9)).await;
    let keys = cache.keys("*").await;
    cache.delete("a").await;
    cache.clear().await;

    // Sessions.
    let sessions = SessionStore::<()>::new(&cache).expect("a store without keys");
    let begin = async || sessions.create(NewSession::new(42, "ada")).await;
    let mut session = begin().await.expect("a session begins");
    let token = session.token().expose().to_owned();
    let token = sessions.verify(&token).expect("the token is valid");
    sessions.load(&token).await.expect("the session exists");
    sessions
        .save(&mut session)
        .await
        .expect("the session exists");
    sessions
        .rotate(&mut session)
        .await
        .expect("the session exists");
    sessions
        .list_user("42")
        .await
        .expect("the sessions are listed");
    sessions.destroy(session.token()).await.expect("it ends");
    begin().await.expect("a session begins");
    sessions.destroy_user("42", None).await.expect("all end");

    // Limits.
    let by = |name: &str, limit, algorithm| {
        Policy::new(name)
            .limit(limit)
            .per("1m")
            .algorithm(algorithm)
    };
    let policies = [
        by("log", 1, Algorithm::SlidingLog),
        by("buckets", 2_000, Algorithm::SlidingBuckets),
        by("gcra", 1, Algorithm::Gcra),
    ];
    let limiter = RateLimiter::new(&cache, policies).expect("valid policies");
    let client = Identity::user(42);
    for policy in ["log", "buckets", "gcra"] {
        for _ in 0..2 {
            limiter.check(policy, &client).await.expect("it decides");
        }
        limiter.peek(policy, &client).await.expect("it answers");
        limiter.reset(policy, &client).await.expect("it forgets");
    }
    soon("rejections are counted", async {
        while limiter
            .top_limited("log", 5)
            .await
            .is_ok_and(|top| top.is_empty())
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    assert_eq!(keys.len(), 2, "{keys:?}");
    let refused: Vec<Vec<redis::Value>> = redis::cmd("ACL")
        .arg("LOG")
        .query_async(&mut raw)
        .await
        .expect("the server answers");
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(cache.stats().total.errors, 0);
}
