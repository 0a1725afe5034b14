//! Functions with `local`: values in the process, in front of Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, CacheStatus, Config, LocalState, cacheable};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use crate::support::{calls, raw, until};

static LOADS: AtomicUsize = AtomicUsize::new(0);

#[cacheable(key = "shared:<id>", ttl = 60, local = "5s", cache = cache)]
async fn shared(cache: &Cache, id: u64) -> Arc<String> {
    LOADS.fetch_add(1, Ordering::SeqCst);
    Arc::new(format!("value of {id}"))
}

#[cacheable(key = "copied:<id>", ttl = 60, none_ttl = 60, local = "5s", cache = cache)]
async fn copied(cache: &Cache, id: u64) -> Result<Option<String>, String> {
    match id {
        0 => Ok(None),
        _ => Ok(Some(format!("value of {id}"))),
    }
}

#[cacheable(
    key = "fresh:<id>",
    ttl = 60,
    grace = 60,
    refresh = "background",
    local = 5
)]
async fn fresh(id: u64) -> u64 {
    id
}

/// Calls until the process has the value.
async fn keep<T>(cache: &Cache, call: impl AsyncFn() -> T) {
    let before = cache.stats().total.hits_local;
    until("the value is in the process", async || {
        call().await;
        cache.stats().total.hits_local > before
    })
    .await;
}

async fn connect(server: &RedisServer) -> Cache {
    let cache = Cache::connect(server.config()).await;
    cache.expect("a configuration")
}

#[tokio::test]
async fn callers_share_an_arc_and_get_copies_of_other_types() {
    let server = RedisServer::start().expect("a server");
    let cache = connect(&server).await;
    keep(&cache, async || shared(&cache, 1).await).await;
    keep(&cache, async || copied(&cache, 1).await).await;
    keep(&cache, async || copied(&cache, 0).await).await;
    let before = cache.stats().total.hits_local;

    let (one, other) = (shared(&cache, 1).await, shared(&cache, 1).await);
    let (some, none) = (copied(&cache, 1).await, copied(&cache, 0).await);

    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!((some, none), (Ok(Some("value of 1".to_owned())), Ok(None)));
    assert_eq!(cache.stats().total.hits_local, before + 4);
}

#[tokio::test]
async fn an_eviction_in_another_process_reaches_the_value() {
    let server = RedisServer::start().expect("a server");
    let (cache, other) = (connect(&server).await, connect(&server).await);
    keep(&cache, async || shared(&cache, 2).await).await;
    let loads = LOADS.load(Ordering::SeqCst);

    other.delete("shared:2").await;
    until("the value is loaded again", async || {
        shared(&cache, 2).await;
        LOADS.load(Ordering::SeqCst) > loads
    })
    .await;
}

static WRITTEN: AtomicU64 = AtomicU64::new(0);

#[cacheable(key = "written", ttl = 60, local = "5s", cache = cache)]
async fn written(cache: &Cache) -> u64 {
    WRITTEN.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_eviction_is_seen_at_once_while_others_hit_the_value() {
    let server = RedisServer::start().expect("a server");
    let cache = connect(&server).await;
    let mut others = JoinSet::new();
    for _ in 0..3 {
        let cache = cache.clone();
        others.spawn(async move {
            loop {
                written(&cache).await;
                tokio::task::yield_now().await;
            }
        });
    }

    for _ in 0..50 {
        keep(&cache, async || written(&cache).await).await;
        let last = WRITTEN.fetch_add(1, Ordering::SeqCst) + 1;
        cache.delete("written").await;
        assert!(written(&cache).await >= last);
    }
}

#[tokio::test]
async fn a_capacity_of_0_turns_the_values_off() {
    let server = RedisServer::start().expect("a server");
    for config in [server.config(), Config::default()] {
        let cache = Cache::connect(config.local_capacity(0)).await;
        let cache = cache.expect("a configuration");
        for _ in 0..4 {
            shared(&cache, 4).await;
        }

        let stats = cache.stats();
        assert_eq!((stats.total.hits, stats.total.hits_local), (3, 0));
        assert_eq!(stats.local, None);
        assert_eq!(cache.health().await.local, None);
        let metrics = cache.prometheus();
        for state in ["certain", "doubtful", "off"] {
            let line = format!("cache_local_state{{state=\"{state}\"}} 0");
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
    }
}

#[tokio::test]
async fn a_refresh_in_the_background_is_possible_too() {
    let server = RedisServer::start().expect("a server");
    let cache = connect(&server).await;

    cache
        .run(keep(&cache, async || {
            assert_eq!(fresh(7).await, 7);
        }))
        .await;
}

#[tokio::test]
async fn every_view_shows_a_hit_in_the_process() {
    let server = RedisServer::start().expect("a server");
    let cache = connect(&server).await;
    assert_eq!(cache.stats().local, None);
    keep(&cache, async || shared(&cache, 3).await).await;

    let (_, report) = cache.explain(shared(&cache, 3)).await;
    let (_, status) = CacheStatus::of(shared(&cache, 3)).await;

    assert_eq!(report.calls[0].result, Some("local"));
    assert!(report.calls[0].stamp.is_some());
    let status = status.expect("a read").to_string();
    assert!(status.starts_with("hit; ttl="), "{status}");
    let local = cache.stats().local.expect("a function was called");
    assert_eq!((local.state, local.entries), (LocalState::Certain, 1));
    assert_eq!(cache.health().await.local, Some(LocalState::Certain));
    let metrics = cache.prometheus();
    for line in [
        "cache_local_entries 1",
        r#"cache_local_state{state="certain"} 1"#,
        r#"function="cache::local::shared",result="local"}"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

static NAMED: AtomicUsize = AtomicUsize::new(0);
static VERSION: AtomicU64 = AtomicU64::new(1);

#[cacheable(key = "grouped:<id>", ttl = 60, tag = "group:<id>", local = "5s", cache = cache)]
async fn grouped(cache: &Cache, id: u64) -> u64 {
    id + VERSION.load(Ordering::SeqCst)
}

/// The same entries, by a function that does not know of the tag.
#[cacheable(key = "grouped:<id>", ttl = 60, local = "5s", cache = cache)]
async fn ungrouped(cache: &Cache, id: u64) -> u64 {
    id + VERSION.load(Ordering::SeqCst)
}

#[cacheable(key = "named:<id>", ttl = 60, tag = "group:<return.0>", local = "5s", cache = cache)]
async fn named(cache: &Cache, id: u64) -> (u64, u64) {
    NAMED.fetch_add(1, Ordering::SeqCst);
    (id, id)
}

#[cacheable(key = "hot:<id>", ttl = 60, tag = ["hot", "hot:<return>"], local = "5m", cache = cache)]
async fn hot(cache: &Cache, id: u64) -> u64 {
    id
}

/// Ends the connection on which the process listens for changes.
async fn kill_listener(raw: &mut MultiplexedConnection) {
    let list: String = redis::cmd("CLIENT")
        .arg("LIST")
        .query_async(raw)
        .await
        .expect("a list");
    let fields = |line: &str| {
        let fields = line.split(' ').filter_map(|field| field.split_once('='));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        fields.collect::<std::collections::HashMap<_, _>>()
    };
    // `B`: it tracks in the mode of broadcasts.
    let mut listeners = list
        .lines()
        .map(fields)
        .filter(|line| line["flags"].contains('B'));
    let listener = listeners.next().expect("it listens");
    let killed: u64 = redis::cmd("CLIENT")
        .arg(&["KILL", "ID", &listener["id"]])
        .query_async(raw)
        .await
        .expect("killed");
    assert_eq!(killed, 1);
}

#[tokio::test]
async fn values_that_become_doubtful_together_are_confirmed_together() {
    const HOT: u64 = 1_000;
    let server = RedisServer::start().expect("a server");
    // So that a busy machine gives up no confirmation.
    let patient = Duration::from_secs(5);
    let config = server.config().command_timeout(patient);
    let cache = Cache::connect(config.command_timeout_max(patient)).await;
    let (cache, mut raw) = (cache.expect("a configuration"), raw(&server).await);
    let all = async || {
        let call = |id| {
            let cache = cache.clone();
            async move { hot(&cache, id).await }
        };
        let calls: JoinSet<_> = (0..HOT).map(call).collect();
        calls.join_all().await.into_iter().sum::<u64>()
    };
    until("all values are in the process", async || {
        let before = cache.stats().total.hits_local;
        all().await;
        cache.stats().total.hits_local == before + HOT
    })
    .await;
    let local = || cache.stats().local.expect("a function was called");
    let before = local();

    kill_listener(&mut raw).await;
    until("it listens again", async || {
        hot(&cache, 0).await;
        local().confirmed > before.confirmed && local().state == LocalState::Certain
    })
    .await;
    let sent = async |raw: &mut _| [calls(raw, "getrange").await, calls(raw, "mget").await];
    let (sent_before, before) = (sent(&mut raw).await, local());
    let sum = all().await;

    assert_eq!(sum, (0..HOT).sum::<u64>());
    let [heads, reads] = sent(&mut raw).await;
    // Each entry, the tag of each, and the tag of all once for each question.
    let asked = heads - sent_before[0];
    assert!((1_990..2_050).contains(&asked), "{asked}");
    assert_eq!(reads, sent_before[1]);
    let after = local();
    assert_eq!(after.dropped, before.dropped);
    assert_eq!(after.confirmed - before.confirmed, HOT - 1);
}

#[tokio::test]
async fn a_kept_value_ends_with_its_tag_whoever_reads_it() {
    let server = RedisServer::start().expect("a server");
    let cache = connect(&server).await;
    keep(&cache, async || grouped(&cache, 6).await).await;
    assert_eq!(ungrouped(&cache, 6).await, 7);

    VERSION.store(2, Ordering::SeqCst);
    cache.delete_tagged("group:6").await;

    assert_eq!(ungrouped(&cache, 6).await, 8);
    assert_eq!(grouped(&cache, 6).await, 8);
}

#[tokio::test]
async fn a_kept_value_ends_with_a_tag_over_itself() {
    let server = RedisServer::start().expect("a server");
    let cache = connect(&server).await;
    keep(&cache, async || named(&cache, 6).await).await;
    let loads = NAMED.load(Ordering::SeqCst);

    cache.delete_tagged("group:6").await;
    named(&cache, 6).await;

    assert_eq!(NAMED.load(Ordering::SeqCst), loads + 1);
}
