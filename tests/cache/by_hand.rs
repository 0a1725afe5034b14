//! The cache's own methods.

use std::time::Duration;

use cache_runtime::{Cache, CacheScope, ErrorKind, Evicted, Mode};
use redis::AsyncCommands;

use crate::shared::on_a_cluster;
use crate::support::{cache, raw, server};

on_a_cluster! {
    get_returns_what_set_stored_until_it_is_deleted
    batches_keep_their_order
    keys_are_listed_by_pattern_without_the_prefix
    a_ttl_can_be_read_and_changed
    get_or_load_runs_the_load_once
    invalid_keys_are_refused_and_remove_nothing
    a_zero_ttl_is_refused
}

/// Runs the same steps with Redis and in memory mode. Both must give the same results.
async fn on_both(steps: impl AsyncFn(&Cache)) {
    let server = server();
    for cache in [cache(&server).await, Cache::memory()] {
        steps(&cache).await;
    }
}

#[tokio::test]
async fn get_returns_what_set_stored_until_it_is_deleted() {
    on_both(async |cache| {
        assert_eq!(cache.get::<String>("name").await, None);
        assert!(cache.set("name", &"value".to_owned(), 60_u64).await);
        assert_eq!(cache.get::<String>("name").await.as_deref(), Some("value"));
        assert!(cache.exists("name").await);

        assert_eq!(cache.delete("name").await, Evicted::Applied { keys: 1 });
        assert_eq!(cache.delete("name").await, Evicted::Applied { keys: 0 });
        assert_eq!(cache.get::<String>("name").await, None);
        assert!(!cache.exists("name").await);
    })
    .await;
}

#[tokio::test]
async fn batches_keep_their_order() {
    on_both(async |cache| {
        let pairs = [("a", &1), ("b", &2), ("c", &3)];
        assert!(cache.set_many(&pairs, 60_u64).await);

        let got = cache.get_many::<i32>(&["c", "x", "a"]).await;

        assert_eq!(got, [Some(3), None, Some(1)]);
        assert_eq!(
            cache.delete_many(&["a", "x", "b"]).await,
            Evicted::Applied { keys: 2 }
        );
        assert_eq!(
            cache.get_many::<i32>(&["a", "b", "c"]).await,
            [None, None, Some(3)]
        );
        assert_eq!(cache.get_many::<i32>(&[]).await, []);
    })
    .await;
}

#[tokio::test]
async fn keys_are_listed_by_pattern_without_the_prefix() {
    on_both(async |cache| {
        for name in ["event:1", "event:2", "user:1", "event:[x]"] {
            cache.set(name, &0, 60_u64).await;
        }

        let mut events = cache.keys("event:?").await;
        events.sort();

        assert_eq!(events, ["event:1", "event:2"]);
        assert_eq!(cache.keys("event:[x]").await, ["event:[x]"]);
        assert_eq!(
            cache.delete_matching("event:*").await,
            Evicted::Applied { keys: 3 }
        );
        assert_eq!(cache.keys("*").await, ["user:1"]);
        assert_eq!(cache.clear().await, Evicted::Applied { keys: 1 });
    })
    .await;
}

#[tokio::test]
async fn a_ttl_can_be_read_and_changed() {
    on_both(async |cache| {
        cache.set("name", &1, Duration::from_secs(60)).await;
        let before = cache.ttl("name").await.expect("the entry exists");
        assert!(before > Duration::from_secs(55) && before <= Duration::from_secs(60));

        assert!(cache.expire("name", 600_u64).await);

        let after = cache.ttl("name").await.expect("the entry exists");
        assert!(after > Duration::from_secs(595) && after <= Duration::from_secs(600));
        assert_eq!(cache.get::<i32>("name").await, Some(1));
        assert_eq!(cache.ttl("other").await, None);
        assert!(!cache.expire("other", 600_u64).await);
    })
    .await;
}

#[tokio::test]
async fn expire_changes_the_expiry_in_redis() {
    let server = server();
    let cache = cache(&server).await;
    cache.set("name", &1, 60_u64).await;

    cache.expire("name", 5_u64).await;

    let left: i64 = raw(&server).await.pttl("test_name").await.unwrap();
    assert!((1..=5_000).contains(&left), "{left} ms");
}

#[tokio::test]
async fn get_or_load_runs_the_load_once() {
    on_both(async |cache| {
        let first = cache
            .get_or_load("sum", 60_u64, async { Ok::<_, String>(3) })
            .await;
        let second = cache
            .get_or_load("sum", 60_u64, async { Err::<i32, _>("not run") })
            .await;
        let failed = cache
            .get_or_load("other", 60_u64, async { Err::<i32, _>("it failed") })
            .await;

        assert_eq!((first, second, failed), (Ok(3), Ok(3), Err("it failed")));
    })
    .await;
}

#[tokio::test]
async fn invalid_keys_are_refused_and_remove_nothing() {
    on_both(async |cache| {
        cache.set("name", &1, 60_u64).await;
        for key in [
            "",
            "with space",
            "line\nbreak",
            "session:1",
            "sessions:a",
            "ratelimit:x",
            "cache:x",
        ] {
            let error = cache.try_set(key, &1, 60_u64).await.expect_err(key);
            assert_eq!(error.kind(), ErrorKind::Input, "{key}");
            assert!(!cache.set(key, &1, 60_u64).await);
            assert_eq!(cache.get::<i32>(key).await, None);
            assert_eq!(cache.delete(key).await, Evicted::Refused, "{key}");
            let keys = ["name", key];
            assert_eq!(cache.delete_many(&keys).await, Evicted::Refused, "{key}");
            assert_eq!(
                cache
                    .get_or_load(key, 60_u64, async { Ok::<_, String>(7) })
                    .await,
                Ok(7)
            );
        }
        assert_eq!(
            cache
                .try_delete_matching("")
                .await
                .map_err(|error| error.kind()),
            Err(ErrorKind::Input)
        );
        assert_eq!(cache.delete_matching("").await, Evicted::Refused);
        for tag in ["", "a b", "a\nb"] {
            assert_eq!(cache.delete_tagged(tag).await, Evicted::Refused, "{tag:?}");
            let error = cache.try_delete_tagged(tag).await.expect_err(tag);
            assert_eq!(error.kind(), ErrorKind::Input, "{tag:?}");
        }
        let scope = CacheScope::new();
        assert_eq!(scope.run(cache.delete_tagged("")).await, Evicted::Refused);
        assert_eq!(scope.commit().await, Evicted::Applied { keys: 0 });
        assert_eq!(cache.get::<i32>("name").await, Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_zero_ttl_is_refused() {
    on_both(async |cache| {
        let error = cache.try_set("name", &1, 0_u64).await.expect_err("no life");
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(!cache.set("name", &1, Duration::from_micros(1)).await);
        cache.set("name", &1, 60_u64).await;
        assert!(!cache.expire("name", 0_u64).await);
        assert_eq!(cache.get::<i32>("name").await, Some(1));
    })
    .await;
}

#[tokio::test]
async fn memory_mode_is_healthy_and_counts() {
    let cache = Cache::memory();
    cache.set("name", &1, 60_u64).await;
    cache.get::<i32>("name").await;

    let (stats, health) = (cache.stats(), cache.health().await);

    assert_eq!(
        (stats.mode, health.mode, health.connected),
        (Mode::Memory, Mode::Memory, false)
    );
    assert_eq!(stats.total.hit_rate, Some(1.0));
    assert_eq!(stats.memory.map(|memory| memory.entries), Some(1));
    assert_eq!(Cache::memory().stats().total.hit_rate, None);
}

#[tokio::test]
async fn disabled_keys_are_not_read_or_stored() {
    on_both(async |cache| {
        cache.set("event:1", &1, 60_u64).await;
        cache.disable("event:*").expect("a valid pattern");

        assert_eq!(cache.get::<i32>("event:1").await, None);
        assert!(!cache.set("event:1", &2, 60_u64).await);

        assert_eq!(
            cache.enable("event:*").map_err(|error| error.kind()),
            Ok(true)
        );
        assert_eq!(
            cache.get::<i32>("event:1").await,
            None,
            "the old value is gone"
        );
    })
    .await;
}

#[tokio::test]
async fn disabled_keys_do_not_exist_and_have_no_ttl() {
    on_both(async |cache| {
        cache.set("event:1", &1, 60_u64).await;
        cache.disable("event:*").expect("a valid pattern");

        assert!(!cache.exists("event:1").await);
        assert_eq!(cache.ttl("event:1").await, None);
        assert!(!cache.expire("event:1", 600_u64).await);
        assert_eq!(cache.keys("*").await, Vec::<String>::new());

        cache.enable("event:*").expect("a valid pattern");
        assert!(cache.exists("event:1").await);
        assert!(
            cache
                .ttl("event:1")
                .await
                .is_some_and(|left| left <= Duration::from_secs(60))
        );
    })
    .await;
}

#[tokio::test]
async fn journaled_keys_do_not_exist_and_have_no_ttl() {
    let server = server();
    let (cache, other) = (cache(&server).await, cache(&server).await);
    let mut raw = raw(&server).await;
    let right = async |raw: &mut redis::aio::MultiplexedConnection, rule: &str| {
        let _: () = redis::cmd("ACL")
            .arg(&["SETUSER", "default", rule])
            .query_async(raw)
            .await
            .expect("a valid rule");
    };
    cache.set("name", &1, 60_u64).await;
    right(&mut raw, "-unlink").await;

    assert_eq!(cache.delete("name").await, Evicted::Journaled);

    assert_eq!(other.try_exists("name").await.ok(), Some(true));
    assert_eq!(cache.try_exists("name").await.ok(), Some(false));
    assert_eq!(cache.try_ttl("name").await.ok(), Some(None));
    assert_eq!(cache.try_expire("name", 600_u64).await.ok(), Some(false));
    assert_eq!(cache.keys("*").await, Vec::<String>::new());
    right(&mut raw, "+unlink").await;
}

#[tokio::test]
async fn try_exists_returns_an_error_while_redis_is_unavailable() {
    let mut server = cache_runtime::testing::RedisServer::tcp().expect("redis-server starts");
    let cache = cache(&server).await;
    cache.set("name", &1, 60_u64).await;
    server.kill();
    cache.get::<i32>("name").await;

    assert!(!cache.exists("name").await);
    let kind = cache.try_exists("name").await.map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::Unavailable));
    let kind = cache.try_ttl("name").await.map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::Unavailable));
    assert_eq!(
        cache
            .try_exists("with space")
            .await
            .map_err(|error| error.kind()),
        Err(ErrorKind::Input)
    );
}

#[tokio::test]
async fn exists_does_not_fetch_a_large_value() {
    let server = server();
    let cache = cache(&server).await;
    // Text that does not compress well.
    let text: String = (0..40_000_u64)
        .map(|n| format!("{:x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    assert!(cache.set("name", &text, 60_u64).await);
    let sent = async || {
        let info: String = redis::cmd("INFO")
            .arg("stats")
            .query_async(&mut raw(&server).await)
            .await
            .expect("Redis answers");
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.and_then(|bytes| bytes.trim().parse::<u64>().ok())
            .expect("a number")
    };
    let before = sent().await;

    assert!(cache.exists("name").await);
    assert!(cache.ttl("name").await.is_some());

    let sent = sent().await - before;
    assert!(sent < 100_000, "{sent} bytes");
}

#[cache_runtime::cacheable(key = "slow:<id>", ttl = 60, grace = 600, cache = cache)]
async fn graceful(cache: &Cache, id: u32) -> u32 {
    id
}

#[tokio::test]
async fn expire_keeps_the_grace() {
    let server = server();
    let cache = cache(&server).await;
    graceful(&cache, 1).await;
    let mut raw = raw(&server).await;

    assert!(cache.expire("slow:1", 300_u64).await);

    assert!(
        cache
            .ttl("slow:1")
            .await
            .is_some_and(|left| left <= Duration::from_secs(300))
    );
    let left: i64 = raw.pttl("test_slow:1").await.expect("Redis answers");
    assert!((890_000..=900_000).contains(&left), "{left} ms");

    let _: () = raw.persist("test_slow:1").await.expect("Redis answers");
    assert!(cache.expire("slow:1", 10_u64).await);
    let left: i64 = raw.pttl("test_slow:1").await.expect("Redis answers");
    assert!((1..=10_000).contains(&left), "{left} ms");
}
