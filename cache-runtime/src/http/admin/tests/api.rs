//! What the routes return and do.

use tracing::Level;

use super::*;
use crate::testing::log::Log;

#[cacheable(key = "admin:row:<id>", ttl = "1m", cache = cache, crate = crate)]
async fn row(cache: &Cache, id: i64) -> i64 {
    let _ = cache;
    id
}

async fn redis() -> (RedisServer, Cache) {
    let server = RedisServer::start().expect("redis-server starts");
    let cache = Cache::connect(server.config()).await;
    (server, cache.expect("it connects"))
}

async fn all_keys(service: &AdminService, pattern: &str) -> (Vec<String>, usize) {
    let (mut keys, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let path = format!("/api/keys?pattern={pattern}&cursor={cursor}");
        let page = get(service, &path).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let found = page["keys"].as_array().expect("keys");
        assert!(found.len() < 1_000, "a page is bounded: {}", found.len());
        keys.extend(
            found
                .iter()
                .map(|key| key["key"].as_str().expect("a key").to_owned()),
        );
        pages += 1;
        match page["cursor"].as_str() {
            Some(next) => cursor = next.replace('%', "%25").replace(':', "%3A"),
            None => break,
        }
    }
    keys.sort();
    keys.dedup();
    (keys, pages)
}

#[tokio::test]
async fn keys_come_page_by_page_with_redis_and_without() {
    let (_server, cache) = redis().await;
    for cache in [Cache::memory(), cache] {
        let numbers: Vec<i32> = (0..1_200).collect();
        let names: Vec<String> = numbers
            .iter()
            .map(|number| format!("event:{number}"))
            .collect();
        let pairs: Vec<_> = names.iter().map(String::as_str).zip(&numbers).collect();
        assert!(cache.set_many(&pairs, 60_u64).await);
        cache.set("user:1", &1, 60_u64).await;
        let service = of(&cache);

        let (keys, pages) = all_keys(&service, "event:*").await;

        assert_eq!(keys.len(), 1_200);
        assert!((2..=10).contains(&pages), "{pages}");
        assert_eq!(all_keys(&service, "user:%3F").await.0, ["user:1"]);
    }
}

#[tokio::test]
async fn a_cursor_is_void_after_a_restart_of_redis() {
    let (_server, cache) = redis().await;
    let service = of(&cache);

    let got = get(&service, "/api/keys?cursor=5.99").await;
    assert!(
        got.status == 400 && got.detail().contains("start again"),
        "{got:?}"
    );
    let got = get(&service, "/api/keys?cursor=x").await;
    assert!(
        got.status == 400 && got.detail().contains("start again"),
        "{got:?}"
    );
}

#[tokio::test]
async fn an_entry_shows_its_value_only_if_that_is_configured() {
    let (_server, cache) = redis().await;
    for cache in [Cache::memory(), cache] {
        let text = "x".repeat(5_000);
        cache.set("event:1", &text, Duration::from_secs(60)).await;

        let entry = get(&of(&cache), "/api/entry?key=event:1").await.json();
        assert_eq!(entry["kind"], "value");
        assert_eq!(entry.get("value"), None);
        let fresh = entry["fresh_ms"].as_u64().expect("a time");
        assert!((50_000..=60_000).contains(&fresh), "{entry}");
        assert!(
            entry["bytes"].as_u64().is_some_and(|bytes| bytes > 80),
            "{entry}"
        );

        let config = AdminConfig::default().show_values();
        let entry = get(&admin(&cache, config), "/api/entry?key=event:1")
            .await
            .json();
        assert_eq!(entry["value"], json!(text));
    }
}

#[tokio::test]
async fn a_dry_run_counts_and_evicts_nothing() {
    let (_server, cache) = redis().await;
    for cache in [Cache::memory(), cache] {
        for number in 0..300 {
            cache.set(&format!("event:{number}"), &number, 60_u64).await;
        }
        cache.set("user:1", &1, 60_u64).await;
        let service = of(&cache);
        let dry = |targets: Value| {
            let mut body = targets;
            body["dry_run"] = true.into();
            post(&service, "/api/evict", body)
        };

        let counted = dry(json!({ "pattern": "event:*" })).await.json();
        assert_eq!(
            counted,
            json!({ "keys": 300, "is_complete": true, "dry_run": true })
        );
        assert_eq!(dry(json!({ "all": true })).await.json()["keys"], 301);
        assert_eq!(dry(json!({ "key": "user:1" })).await.json()["keys"], 1);
        assert_eq!(dry(json!({ "key": "user:2" })).await.json()["keys"], 0);
        assert_eq!(cache.keys("*").await.len(), 301);

        let done = post(&service, "/api/evict", json!({ "pattern": "event:*" }))
            .await
            .json();
        assert_eq!(
            done,
            json!({ "outcome": "applied", "keys": 300, "dry_run": false })
        );
        let done = post(&service, "/api/evict", json!({ "key": "user:1" }))
            .await
            .json();
        assert_eq!(done["keys"], 1);
        assert!(cache.keys("*").await.is_empty());
    }
}

#[tokio::test]
async fn a_tag_is_evicted_without_a_count() {
    let (_server, cache) = redis().await;
    for cache in [Cache::memory(), cache] {
        cache.tagged(&["events"]).set("event:1", &1, 60_u64).await;
        cache.set("event:2", &2, 60_u64).await;
        let service = of(&cache);
        let body = |dry_run: bool| json!({ "tag": "events", "dry_run": dry_run });

        let dry = post(&service, "/api/evict", body(true)).await.json();
        assert_eq!(
            dry,
            json!({ "keys": 0, "is_complete": false, "dry_run": true })
        );
        assert_eq!(cache.get::<u32>("event:1").await, Some(1));
        let done = post(&service, "/api/evict", body(false)).await.json();

        let applied = json!({ "outcome": "applied", "keys": 0, "dry_run": false });
        assert_eq!(done, applied);
        assert_eq!(
            cache.get_many::<u32>(&["event:1", "event:2"]).await,
            [None, Some(2)]
        );
        let bad = post(
            &service,
            "/api/evict",
            json!({ "tag": "a b", "dry_run": true }),
        )
        .await;
        assert_eq!(bad.status, 400);
    }
}

#[tokio::test]
async fn a_pattern_that_is_off_is_bypassed_until_it_is_on() {
    let cache = Cache::memory();
    let service = of(&cache);
    row(&cache, 1).await;

    let off = post(
        &service,
        "/api/switches/off",
        json!({ "pattern": "admin:row:*" }),
    )
    .await;
    assert_eq!(off.json(), json!({ "off": ["admin:row:*"] }));
    row(&cache, 1).await;
    let view = get(&service, "/api/view").await.json();
    assert_eq!(view["off"], json!(["admin:row:*"]));
    let is_row = |row: &&Value| row["cache"] == "admin:row:<id>";
    let shown = view["functions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(is_row)
        .cloned();
    let shown = shown.expect("the function");
    assert_eq!(shown["misses_by_reason"]["disabled"], 1);
    let entry = get(&service, "/api/entry?key=admin:row:1").await.json();
    assert_eq!(entry["is_off"], true);

    let on = post(
        &service,
        "/api/switches/on",
        json!({ "pattern": "admin:row:*" }),
    )
    .await;
    assert_eq!(on.json(), json!({ "off": [] }));
    row(&cache, 1).await;
    assert_eq!(cache.stats().total.hits, 1);
}

#[tokio::test]
async fn usage_counts_the_entries_of_each_function() {
    let (_server, cache) = redis().await;
    for cache in [Cache::memory(), cache] {
        for id in 0..30 {
            row(&cache, id).await;
        }
        cache.set("by:hand", &1, 60_u64).await;

        let usage = get(&of(&cache), "/api/usage").await.json();

        assert_eq!(usage["is_complete"], true);
        let functions = usage["functions"].as_array().expect("functions");
        let of_row = functions
            .iter()
            .find(|row| row["cache"] == "admin:row:<id>");
        let of_row = of_row.expect("the function");
        assert_eq!(of_row["keys"], 30);
        let mean = of_row["mean_bytes"].as_u64().expect("a size");
        assert_eq!(of_row["estimated_bytes"], mean * 30);
        let by_hand = functions.iter().find(|row| row["cache"].is_null());
        assert_eq!(by_hand.expect("others")["keys"], 1);
    }
}

#[tokio::test]
async fn a_job_runs_once_at_a_time_and_its_outcome_is_kept() {
    let (go, runs) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let config = AdminConfig::default()
        .job("lists", {
            let (go, runs) = (Arc::clone(&go), Arc::clone(&runs));
            move || {
                let (go, runs) = (Arc::clone(&go), Arc::clone(&runs));
                async move {
                    go.notified().await;
                    match runs.fetch_add(1, Ordering::Relaxed) {
                        0 => Ok(Summary::default()),
                        1 => Err("no database"),
                        _ => panic!("a bug"),
                    }
                }
            }
        })
        .job("lists", || async { Err::<Summary, _>("never") });
    let service = admin(&Cache::memory(), config);
    let jobs = async || get(&service, "/api/jobs").await.json();
    let ended = async || {
        go.notify_one();
        while jobs().await["jobs"][0]["running_seconds"].is_number() {
            tokio::task::yield_now().await;
        }
        jobs().await["jobs"][0]["last"].take()
    };
    assert_eq!(jobs().await["jobs"].as_array().map(Vec::len), Some(1));

    let run = async || post(&service, "/api/jobs/lists/run", json!({})).await;
    assert_eq!(run().await.status, 200);
    let again = run().await;
    assert!(
        again.status == 409 && again.detail().contains("running"),
        "{again:?}"
    );
    assert_eq!(ended().await["loaded"], 0);
    assert_eq!(run().await.status, 200);
    assert_eq!(ended().await["error"], "no database");
    assert_eq!(run().await.status, 200);
    assert!(
        ended().await["error"]
            .as_str()
            .is_some_and(|error| error.contains("panicked"))
    );
}

#[tokio::test]
async fn the_most_limited_clients_are_listed_and_reset() {
    let cache = Cache::memory();
    let policy = Policy::new("api").limit(1).per("1m");
    let limiter = RateLimiter::new(&cache, [policy]).expect("a policy");
    let client = Identity::user("ada lovelace");
    for _ in 0..3 {
        limiter.check("api", &client).await.expect("a policy");
    }
    let service = admin(&cache, AdminConfig::default().limiter(&limiter));

    let top = get(&service, "/api/limits/top?policy=api").await.json();
    assert_eq!(
        top["clients"],
        json!([{ "client": "user:ada%20lovelace", "rejected": 2 }])
    );
    let unknown = get(&service, "/api/limits/top?policy=none").await;
    assert!(
        unknown.status == 400 && unknown.detail().contains("it has `api`"),
        "{unknown:?}"
    );

    let name = &top["clients"][0]["client"];
    let reset = post(
        &service,
        "/api/limits/reset",
        json!({ "policy": "api", "client": name }),
    )
    .await;
    assert_eq!(reset.status, 200, "{reset:?}");
    assert!(
        limiter
            .check("api", &client)
            .await
            .is_ok_and(|decision| decision.is_allowed())
    );
}

#[cfg(feature = "sessions")]
#[tokio::test]
async fn sessions_of_a_user_are_listed_without_their_data_and_ended() {
    use crate::session::{NewSession, SessionStore};

    let cache = Cache::memory();
    let store = SessionStore::<String>::new(&cache).expect("valid settings");
    for _ in 0..3 {
        let new = NewSession::new(42, "ada")
            .user_agent("Firefox")
            .extension("a secret".to_owned());
        store.create(new).await.expect("it is stored");
    }
    let service = admin(&cache, AdminConfig::default().sessions(&store));

    let listed = get(&service, "/api/sessions?user=42").await;
    assert!(!listed.text.contains("secret"), "{listed:?}");
    let listed = listed.json();
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(3));
    assert_eq!(listed["sessions"][0]["user_agent"], "Firefox");

    let id = &listed["sessions"][0]["id"];
    let one = post(
        &service,
        "/api/sessions/end",
        json!({ "user": "42", "id": id }),
    )
    .await;
    assert_eq!(one.json(), json!({ "ended": 1 }));
    let rest = post(&service, "/api/sessions/end", json!({ "user": "42" })).await;
    assert_eq!(rest.json(), json!({ "ended": 2 }));
    let none = get(&service, "/api/sessions?user=42").await.json();
    assert_eq!(none["sessions"], json!([]));
}

#[tokio::test]
async fn caches_have_the_shape_of_springs_actuator_with_numbers() {
    let service = of(&Cache::memory());

    let caches = get(&service, "/actuator/caches").await.json();
    let caches = &caches["cacheManagers"]["cacheManager"]["caches"];
    let row = &caches["admin:row:<id>"];
    assert!(
        row["target"]
            .as_str()
            .is_some_and(|name| name.ends_with("::row")),
        "{row}"
    );
    assert!(row["hits"].is_u64() && row["hitRate"].is_null(), "{row}");

    let one = get(&service, "/actuator/caches/admin:row:%3Cid%3E")
        .await
        .json();
    assert_eq!(
        (&one["name"], &one["cacheManager"]),
        (&json!("admin:row:<id>"), &json!("cacheManager"))
    );
}

#[tokio::test]
async fn caches_are_cleared_as_springs_actuator_clears_them() {
    let (_server, cache) = redis().await;
    for cache in [Cache::memory(), cache] {
        let service = of(&cache);
        let fill = async || {
            row(&cache, 1).await;
            cache.set("event:1", &1, 60_u64).await;
        };
        let delete = async |path: &str| send(&service, local("DELETE", path), "").await;
        let log = Log::listen(Level::INFO);

        fill().await;
        let one = delete("/actuator/caches/admin:row:%3Cid%3E?cacheManager=cacheManager").await;
        assert_eq!((one.status, &*one.text), (204, ""));
        assert_eq!(cache.keys("*").await, ["event:1"]);
        fill().await;
        assert_eq!(delete("/actuator/caches").await.status, 204);
        assert!(cache.keys("*").await.is_empty());
        fill().await;
        assert_eq!(delete("/actuator/caches/none").await.status, 404);
        let other = "/actuator/caches/admin:row:%3Cid%3E?cacheManager=other";
        assert_eq!(delete(other).await.status, 404);
        assert_eq!(cache.keys("*").await.len(), 2);

        let lines = log.take();
        let changes = lines
            .iter()
            .filter(|line| line.target == "cache_runtime::admin");
        let changes: Vec<_> = changes
            .map(|line| (&*line.fields["action"], &*line.fields["what"]))
            .collect();
        let all = cache.shown_in_logs("*");
        assert_eq!(
            changes,
            [
                ("clear a cache", "admin:row:<id>"),
                ("clear the caches", &*all),
                ("clear a cache", "none"),
                ("clear a cache", "admin:row:<id>"),
            ]
        );
    }
}

#[tokio::test]
async fn it_answers_while_redis_is_down_and_shows_when_that_began() {
    let (mut server, cache) = redis().await;
    cache.set("event:1", &1, 60_u64).await;
    let service = of(&cache);
    assert_eq!(get(&service, "/api/status").await.json()["mode"], "redis");

    server.kill();
    let view = loop {
        cache.get::<i32>("event:1").await;
        let view = get(&service, "/api/view").await.json();
        let last = view["periods"]
            .as_array()
            .and_then(|periods| periods.last().cloned());
        if last.is_some_and(|period| period["mode"] == "fallback") {
            break view;
        }
        tokio::task::yield_now().await;
    };

    assert_eq!(view["health"]["mode"], "fallback");
    assert_eq!(get(&service, "/").await.status, 200);
    let keys = get(&service, "/api/keys").await;
    assert!(
        keys.status == 503 && keys.detail().contains("unavailable"),
        "{keys:?}"
    );
    let evicted = post(&service, "/api/evict", json!({ "key": "event:1" }))
        .await
        .json();
    assert_eq!(evicted["outcome"], "journaled");
}

#[tokio::test]
async fn hot_keys_and_slow_operations_are_shown() {
    let server = RedisServer::start().expect("redis-server starts");
    let proxy = FaultProxy::start(&server).expect("a proxy");
    proxy.delay(Duration::from_millis(2));
    let config = crate::Config {
        slow_threshold: Duration::from_millis(1),
        ..proxy.config()
    };
    let cache = Cache::connect(config).await.expect("it connects");
    let service = of(&cache);
    cache.set("event:1", &1, 60_u64).await;
    get(&service, "/api/view").await;
    for _ in 0..64 {
        cache.get::<i32>("event:1").await;
    }

    let view = get(&service, "/api/view").await.json();

    assert_eq!(view["hot"][0]["key"], "event:1");
    assert_eq!(view["slow"].as_array().map(Vec::len), Some(50));
    let slow = &view["slow"][1];
    assert_eq!(
        (&slow["operation"], &slow["function"]),
        (&json!("get"), &json!("Cache"))
    );
    assert!(
        slow["millis"].as_f64().is_some_and(|millis| millis >= 1.0),
        "{slow}"
    );
}
