//! A Redis user with only the documented permissions can run everything that the cache needs.

use std::collections::HashMap;
use std::time::Duration;

use cache_runtime::limit::{Algorithm, Identity, Policy, RateLimiter};
use cache_runtime::session::{NewSession, SessionError, SessionStore};
use cache_runtime::testing::RedisServer;
use cache_runtime::{
    AclPart, Cache, Config, HealthStatus, LocalState, cache_evict, cache_put, cacheable,
};
use redis::aio::MultiplexedConnection;

use crate::support::{Gate, Table, connect, gated_row, raw, row, server, soon, until};

const DOCUMENTED: &str = include_str!("../../docs/book/src/reference/deployment.md");

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

#[cacheable(key = "near:<id>", ignore = [table], ttl = 60, local = "1s", cache = cache)]
async fn near(cache: &Cache, table: &Table, id: u64) -> usize {
    table.read()
}

#[cacheable(
    key = "tagged:<id>",
    ignore = [table],
    ttl = 60,
    tag = ["tagged", "value:<return>"],
    local = "1s",
    cache = cache
)]
async fn tagged(cache: &Cache, table: &Table, id: u64) -> usize {
    table.read()
}

#[cache_evict(tag = "tagged", fence, cache = cache)]
async fn retag(cache: &Cache, table: &Table) -> usize {
    table.write()
}

/// Returns the documentation with each run of white space as one space.
fn documented() -> String {
    DOCUMENTED.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_documentation_has_the_rule_of_every_part() {
    let config = || Config::default().acl_rule();
    let added = |part| {
        let rule = config().only(&[part]);
        let commands = rule.commands().map(|command| format!("+{command}"));
        commands.collect::<Vec<_>>().join(" ")
    };
    let documented = documented();

    for text in [
        config().only(&[AclPart::Entries]).to_string(),
        config().to_string(),
        added(AclPart::Local),
        added(AclPart::Limits),
        added(AclPart::Sessions),
    ] {
        assert!(documented.contains(&format!("{text} ")), "{text}");
    }
}

/// A server with the user of this configuration, without the permission for a command.
async fn prepare(without: Option<&str>) -> (RedisServer, Config, MultiplexedConnection) {
    let server = server();
    let mut raw = raw(&server).await;
    let config = server
        .config()
        .prefix("dev_")
        .database(1)
        .username("app")
        .password("password");
    let mut rules = config.acl_rule().rules();
    rules.extend(without.map(|command| format!("-{command}")));
    let () = redis::cmd("ACL")
        .arg(&["SETUSER", "app"])
        .arg(rules)
        .query_async(&mut raw)
        .await
        .expect("the rules are valid");
    (server, config, raw)
}

/// Uses everything. Returns what failed.
async fn use_everything(cache: &Cache) -> Vec<String> {
    let table = Table::default();

    // Entries.
    for _ in 0..2 {
        row(cache, &table, 1).await;
        stale(cache, &table, 1).await;
        near(cache, &table, 1).await;
        tagged(cache, &table, 1).await;
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    stale(cache, &table, 1).await;
    put(cache, &table, 1).await;
    fenced(cache, &table, 1).await;
    all_rows(cache, &table).await;
    retag(cache, &table).await;
    tagged(cache, &table, 1).await;
    let by_hand = cache.tagged(&["by-hand"]);
    by_hand.set("b", &1, 60).await;
    by_hand
        .get_or_load("c", 60, async { Ok::<_, ()>(1) })
        .await
        .ok();
    cache.delete_tagged("by-hand").await;

    // An entry that another process evicts while it is loaded.
    let (gate, other) = (Gate::new(), connect(cache.config().clone()).await);
    let evict = async {
        gate.arrival().await;
        other.delete("row:9").await;
        gate.open(1);
    };
    tokio::join!(gated_row(cache, &table, 9, &gate), evict);

    cache.set("a", &1, Duration::from_secs(60)).await;
    cache.get_many::<u64>(&["a", "b"]).await;
    cache.exists("a").await;
    cache.ttl("a").await;
    cache.expire("a", Duration::from_secs(9)).await;
    cache.keys("*").await;
    cache.delete("a").await;
    cache.clear().await;

    let mut failed = use_sessions(cache)
        .await
        .err()
        .into_iter()
        .collect::<Vec<_>>();
    failed.extend(use_limits(cache).await.err());
    failed
}

async fn use_sessions(cache: &Cache) -> Result<(), String> {
    let fail = |error: SessionError| error.to_string();
    let sessions = SessionStore::<()>::new(cache).expect("a store without keys");
    let begin = async || sessions.create(NewSession::new(42, "ada")).await;
    let mut session = begin().await.map_err(fail)?;
    let token = session.token().expose().to_owned();
    let token = sessions.verify(&token).map_err(fail)?;
    sessions.load(&token).await.map_err(fail)?;
    sessions.save(&mut session).await.map_err(fail)?;
    sessions.rotate(&mut session).await.map_err(fail)?;
    sessions.list_user("42").await.map_err(fail)?;
    sessions.destroy(session.token()).await.map_err(fail)?;
    begin().await.map_err(fail)?;
    sessions.destroy_user("42", None).await.map_err(fail)?;
    Ok(())
}

async fn use_limits(cache: &Cache) -> Result<(), String> {
    let by = |name: &str, limit, algorithm| {
        Policy::new(name)
            .limit(limit)
            .per("1m")
            .algorithm(algorithm)
    };
    let policies = [
        by("log", 1, Algorithm::SlidingLog),
        by("more", 9, Algorithm::SlidingLog),
        by("buckets", 2_000, Algorithm::SlidingBuckets),
        by("gcra", 1, Algorithm::Gcra),
    ];
    let limiter = RateLimiter::new(cache, policies).expect("valid policies");
    let client = Identity::user(42);
    for policy in ["log", "more", "buckets", "gcra"] {
        for _ in 0..2 {
            limiter
                .check(policy, &client)
                .await
                .map_err(|error| error.to_string())?;
        }
        limiter
            .peek(policy, &client)
            .await
            .map_err(|error| error.to_string())?;
        limiter
            .reset(policy, &client)
            .await
            .map_err(|error| error.to_string())?;
    }
    soon("rejections are counted", async {
        while limiter
            .top_limited("log", 5)
            .await
            .map_err(|error| error.to_string())?
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_permissions_are_enough() {
    let (_server, config, mut raw) = prepare(None).await;
    let cache = connect(config).await;

    let failed = use_everything(&cache).await;
    until("changes are heard", async || {
        cache
            .stats()
            .local
            .is_some_and(|local| local.state == LocalState::Certain)
    })
    .await;

    assert_eq!(failed, [""; 0]);
    let refused: Vec<HashMap<String, redis::Value>> = redis::cmd("ACL")
        .arg("LOG")
        .query_async(&mut raw)
        .await
        .expect("the server answers");
    // Servers that know it are asked to note the name of the client library. Nothing depends on it.
    let refused = refused.into_iter().filter(|line| {
        let object = line
            .get("object")
            .cloned()
            .map(redis::from_redis_value::<String>);
        !matches!(object, Some(Ok(command)) if command == "client|setinfo")
    });
    assert_eq!(refused.collect::<Vec<_>>(), []);
    assert_eq!(cache.stats().total.errors, 0);
    assert_eq!(cache.health().await.status, HealthStatus::Healthy);
}

#[tokio::test]
async fn a_refused_read_of_several_keys_is_reported_although_reads_of_one_succeed() {
    let (_server, config, _) = prepare(Some("mget")).await;
    let cache = connect(config).await;

    cache.get_many::<u64>(&["a", "b"]).await;
    cache.get::<u64>("a").await;

    let health = cache.health().await;
    assert_eq!(health.status, HealthStatus::Degraded);
    let problems = health.problems.join("\n");
    assert!(problems.contains("refuses `get many`"), "{problems}");
}

#[tokio::test]
async fn health_names_each_permission_of_the_cache_that_is_missing() {
    let rule = Config::default().database(1).acl_rule();
    let rule = rule.only(&[AclPart::Entries, AclPart::Local]);
    let commands: Vec<_> = rule.commands().collect();
    for command in commands {
        let (_server, config, _) = prepare(Some(command)).await;
        let cache = connect(config).await;

        // Most calls fail.
        let _ = tokio::time::timeout(Duration::from_secs(1), use_everything(&cache)).await;

        let named = [format!("'{command}'"), format!("`+{command}`")];
        until(&format!("the missing {command} is named"), async || {
            let health = cache.health().await;
            let reasons = health.problems.into_iter().chain(health.fallback_reason);
            let reasons = reasons.collect::<Vec<_>>().join("\n");
            health.status == HealthStatus::Degraded
                && named.iter().any(|name| reasons.contains(name))
        })
        .await;
    }
}
