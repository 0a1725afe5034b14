//! The cache's own methods.

use std::time::Duration;

use cache_runtime::{Cache, ErrorKind, Evicted, Mode};
use redis::AsyncCommands;

use crate::support::{cache, raw, server};

/// Runs the same steps on a Redis and in memory: a caller cannot tell them apart.
async fn on_both(steps: impl AsyncFn(&Cache)) {
    let server = server();
    for cache in [cache(&server).await, Cache::memory()] {
        steps(&cache).await;
    }
}

#[tokio::test]
async fn what_is_set_can_be_got_until_it_is_deleted() {
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
        assert_eq!(
            cache
                .set_many(&[("a", &1), ("b", &2), ("c", &3)], 60_u64)
                .await,
            3
        );

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
async fn a_time_to_live_can_be_read_and_changed() {
    on_both(async |cache| {
        cache.set("name", &1, Duration::from_secs(60)).await;
        let before = cache.ttl("name").await.expect("there is an entry");
        assert!(before > Duration::from_secs(55) && before <= Duration::from_secs(60));

        assert!(cache.expire("name", 600_u64).await);

        let after = cache.ttl("name").await.expect("there is an entry");
        assert!(after > Duration::from_secs(595) && after <= Duration::from_secs(600));
        assert_eq!(cache.get::<i32>("name").await, Some(1));
        assert_eq!(cache.ttl("other").await, None);
        assert!(!cache.expire("other", 600_u64).await);
    })
    .await;
}

#[tokio::test]
async fn an_expiry_that_is_changed_is_changed_in_redis_too() {
    let server = server();
    let cache = cache(&server).await;
    cache.set("name", &1, 60_u64).await;

    cache.expire("name", 5_u64).await;

    let left: i64 = raw(&server).await.pttl("test_name").await.unwrap();
    assert!((1..=5_000).contains(&left), "{left} ms");
}

#[tokio::test]
async fn one_load_stores_for_all() {
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
async fn keys_that_cannot_be_used_are_refused_and_lose_nothing() {
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
            assert_eq!(cache.delete(key).await, Evicted::Applied { keys: 0 });
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
        assert_eq!(
            cache.delete_matching("").await,
            Evicted::Applied { keys: 0 }
        );
        assert_eq!(cache.get::<i32>("name").await, Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_time_to_live_of_nothing_is_refused() {
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
async fn what_is_switched_off_is_neither_stored_nor_found() {
    on_both(async |cache| {
        cache.set("event:1", &1, 60_u64).await;
        cache.disable("event:*").expect("the pattern is right");

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
