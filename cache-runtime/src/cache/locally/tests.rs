mod cluster;
mod failures;

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::*;
use crate::__private::{Bodied, TagWriter, cacheable_local, keep, no_own_ttl};
use crate::calls::ReadCall;
use crate::clock::Clock;
use crate::config::Config;
use crate::entry::HEADER;
use crate::site::Returns;
use crate::store::support::{ask, config, kill_listener, server, until};
use crate::testing::{FaultProxy, RedisServer};
use crate::{Cache, CacheScope, Evicted, OperationStats};

static USER: Site = Site::new("tests::user", "user:<id>")
    .reads()
    .local_millis(5_000);
static STEADY: Site = Site::new("tests::steady", "user:<id>")
    .reads()
    .local_millis(5_000)
    .local_outage_serve();

static MEMBER: Site = Site::new("tests::member", "user:<id>")
    .reads()
    .tags("team:<id>")
    .local_millis(5_000);

/// The tag is over the returned value.
static PLAYER: Site = Site::new("tests::player", "user:<id>")
    .reads()
    .tags("team:<return.team>")
    .tag_families(&["team"])
    .local_millis(5_000);

/// Both tags are the same.
static CAPTAIN: Site = Site::new("tests::captain", "user:<id>")
    .reads()
    .tags("team:<id>, team:<return.team>")
    .tag_families(&["team"])
    .local_millis(5_000);

/// The record of the tag of a member and of a player.
const TAG: &str = "test_cache:tag:team:1";

/// Longer than the default staleness.
const LONG: Duration = Duration::from_secs(3);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    version: u32,
}

/// A cache, and a database of one row, whose version counts its writes.
struct Lab {
    cache: Cache,
    site: &'static Site,
    version: AtomicU32,
    loads: AtomicU32,
}

impl Lab {
    async fn new(config: Config) -> Self {
        let cache = Cache::connect(config).await.expect("a configuration");
        Self {
            cache,
            site: &USER,
            version: AtomicU32::new(1),
            loads: AtomicU32::new(0),
        }
    }

    /// Returns a lab whose process has the value, and hears of changes.
    async fn warm(config: Config) -> Self {
        let lab = Self::new(config).await;
        lab.warm_up().await;
        lab
    }

    /// The same for another function.
    async fn warm_as(site: &'static Site, config: Config) -> Self {
        let mut lab = Self::new(config).await;
        lab.site = site;
        lab.warm_up().await;
        lab
    }

    async fn warm_up(&self) {
        self.user().await;
        until("changes are heard", || self.is_trusted()).await;
        // The first of them is a hit of Redis. A push of the fill may follow it.
        while self.hits_local() < 2 {
            self.user().await;
        }
        assert_eq!(self.loads.load(SeqCst), 1);
    }

    async fn user(&self) -> u32 {
        let mut call = ReadCall::by(self.site, &self.cache);
        if let Some(mut key) = call.key("user:") {
            key.value(&1);
        }
        if self.site.tags.contains("team:<id>")
            && let Some(mut tag) = call.tag("team:")
        {
            tag.value(&1);
        }
        let outcome = Some(Returns::<Arc<User>>::new().__outcome());
        let tags = |_: &Arc<User>, tags: &mut TagWriter| {
            if !self.site.tag_families.is_empty() {
                tags.tag(&mut |tag| {
                    tag.text("team:").value(&1);
                });
            }
        };
        let mut call = cacheable_local(call, outcome, keep, no_own_ttl, tags);
        let body = pin!(async {
            self.loads.fetch_add(1, SeqCst);
            Arc::new(User {
                version: self.version.load(SeqCst),
            })
        });
        let call = &mut call;
        Bodied { call, body }.await.version
    }

    /// Changes the row, and evicts it by hand as another process would.
    async fn change_elsewhere(&self, server: &RedisServer) -> u32 {
        let version = self.version.fetch_add(1, SeqCst) + 1;
        let _: u32 = ask(server, &["DEL", "test_user:1"]);
        version
    }

    fn doubts(&self) -> &crate::doubt::Doubts {
        &self.cache.inner.local.doubts
    }

    fn is_trusted(&self) -> bool {
        let doubts = self.doubts();
        doubts.are_all_trusted(doubts.latest())
    }

    fn reading(&self) -> Reading {
        self.reading_of("test_user:1")
    }

    fn reading_of(&self, name: &str) -> Reading {
        let doubts = self.doubts();
        doubts.reading(doubts.place(name.as_bytes()))
    }

    fn hits_local(&self) -> u64 {
        self.cache.stats().total.hits_local
    }

    fn loads(&self) -> u32 {
        self.loads.load(SeqCst)
    }

    /// How often the store was asked by this operation.
    fn asked(&self, operation: &str) -> u64 {
        let of = |stats: &OperationStats| match stats.operation {
            // A read of an entry together with its tags.
            "get many" => operation == "get",
            name => name == operation,
        };
        let operations = self.cache.stats().operations.into_iter();
        operations.filter(of).map(|stats| stats.time.count).sum()
    }
}

/// Commands go through the proxy and may take long. Changes are heard from the server itself.
fn patient(proxy: &FaultProxy, server: &RedisServer) -> Config {
    let mut config = proxy.config();
    config.command_timeout = Duration::from_secs(5);
    config.command_timeout_max = Duration::from_secs(5);
    config.listen_at = Some(server.address().clone());
    config
}

#[tokio::test]
async fn a_hit_of_redis_is_kept_and_then_served_without_redis() {
    let server = server();
    let lab = Lab::warm(config(&server)).await;
    let (gets, peeks) = (lab.asked("get"), lab.asked("confirm"));
    let hits = lab.hits_local();

    for _ in 0..10 {
        assert_eq!(lab.user().await, 1);
    }

    assert_eq!((lab.asked("get"), lab.asked("confirm")), (gets, peeks));
    assert_eq!(lab.hits_local(), hits + 10);
    assert_eq!(lab.loads(), 1);
}

#[cfg(feature = "admin")]
#[tokio::test]
async fn hits_in_the_process_count_for_the_hot_keys() {
    let lab = Lab::warm_in_memory().await;
    let hot = lab.cache.inner.metrics.hot();
    hot.set(true);

    for _ in 0..160 {
        lab.user().await;
    }
    // A call in a view takes the longer way.
    let _ = lab
        .cache
        .explain(async {
            for _ in 0..160 {
                lab.user().await;
            }
        })
        .await;

    let top = hot.top(lab.cache.prefix(), 9);
    assert_eq!((&*top[0].key, top[0].hits, top.len()), ("user:1", 320, 1));
}

#[tokio::test]
async fn a_function_does_not_keep_what_it_loaded_itself() {
    let server = server();
    let lab = Lab::new(config(&server)).await;
    lab.user().await;
    until("changes are heard", || lab.is_trusted()).await;
    lab.cache.delete("user:1").await;

    lab.user().await;

    assert_eq!(lab.cache.inner.local.usage().0, 0);
}

#[tokio::test]
async fn a_change_by_another_process_is_heard() {
    let server = server();
    let lab = Lab::warm(config(&server)).await;
    let before = lab.reading();

    lab.change_elsewhere(&server).await;
    until("it is heard", || lab.reading() != before).await;

    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn a_value_with_a_tag_over_itself_is_kept_and_then_served_without_redis() {
    let server = server();
    for site in [&PLAYER, &CAPTAIN] {
        server.flush().expect("flushed");
        let lab = Lab::warm_as(site, config(&server)).await;
        let sent = || ["get", "tags", "confirm"].map(|operation| lab.asked(operation));
        let (before, hits) = (sent(), lab.hits_local());

        for _ in 0..10 {
            assert_eq!(lab.user().await, 1);
        }

        assert_eq!(sent(), before, "{}", site.name);
        assert_eq!(lab.hits_local(), hits + 10);
    }
}

#[tokio::test]
async fn a_function_without_tags_listens_for_those_that_its_entries_have() {
    let server = server();
    let lab = Lab::new(config(&server)).await;
    let user = User { version: 1 };
    lab.user().await;
    until("changes are heard", || lab.is_trusted()).await;
    assert!(!lab.doubts().is_heard(TAG));

    let cache = lab.cache.tagged(&["team:1"]);
    assert!(cache.set("user:1", &user, 60_u64).await);
    let hits = lab.hits_local();
    until_served(&lab, hits).await;
    let before = lab.reading_of(TAG);
    lab.version.store(2, SeqCst);
    let removed: u32 = ask(&server, &["DEL", TAG]);
    until("it is heard", || lab.reading_of(TAG) != before).await;

    assert_eq!((removed, lab.user().await), (1, 2));
}

/// Calls until a hit is served without Redis.
async fn until_served(lab: &Lab, hits: u64) {
    let served = async {
        while lab.hits_local() == hits {
            lab.user().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let served = tokio::time::timeout(Duration::from_secs(10), served).await;
    served.expect("it is served without Redis");
}

#[tokio::test]
async fn an_eviction_by_tag_in_another_process_is_heard() {
    let server = server();
    for site in [&MEMBER, &PLAYER, &CAPTAIN] {
        server.flush().expect("flushed");
        let lab = Lab::warm_as(site, config(&server)).await;
        let before = lab.reading_of(TAG);

        lab.version.store(2, SeqCst);
        let removed: u32 = ask(&server, &["DEL", TAG]);
        until("it is heard", || lab.reading_of(TAG) != before).await;

        assert_eq!((removed, lab.user().await), (1, 2));
    }
}

#[tokio::test]
async fn an_eviction_by_tag_in_this_process_holds_at_once() {
    let server = server();
    for site in [&MEMBER, &PLAYER, &CAPTAIN] {
        server.flush().expect("flushed");
        for lab in [
            Lab::warm_as(site, config(&server)).await,
            Lab::warm_in_memory_as(site).await,
        ] {
            lab.version.store(2, SeqCst);

            lab.cache.delete_tagged("team:1").await;

            assert_eq!(lab.user().await, 2);
        }
    }
}

#[tokio::test]
async fn a_tag_that_changed_after_its_stamp_was_read_leaves_the_value_doubtful() {
    let server = server();
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let mut lab = Lab::new(patient(&proxy, &server)).await;
    lab.site = &PLAYER;
    lab.user().await;
    until("changes are heard", || lab.is_trusted()).await;
    let (before, gets) = (lab.reading_of(TAG), lab.asked("get"));

    // The stamp of the tag is on its way when the tag changes.
    proxy.delay(Duration::from_millis(300));
    let read = lab.user();
    let change = async {
        until("the entry is read", || lab.asked("get") > gets).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let removed: u32 = ask(&server, &["DEL", TAG]);
        until("the change is heard", || lab.reading_of(TAG) != before).await;
        removed
    };
    lab.version.store(2, SeqCst);
    let (old, removed) = tokio::join!(read, change);
    proxy.pass();

    assert_eq!((old, removed), (1, 1));
    assert_eq!(lab.cache.inner.local.usage().0, 1);
    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn a_doubtful_value_with_a_tag_is_compared_together_with_its_tag() {
    let (server, clock) = (server(), Clock::stopped());
    let lab = Lab::warm_as(&MEMBER, config(&server).clock(clock.clone())).await;
    let (gets, peeks) = (lab.asked("get"), lab.asked("confirm"));

    // Longer than values are certain.
    clock.advance(LONG * 2);
    assert_eq!(lab.user().await, 1);
    assert_eq!((lab.asked("get"), lab.asked("confirm")), (gets, peeks + 1));

    // The entry has the same stamp, and its tag has not.
    lab.version.store(2, SeqCst);
    kill_listener(&server);
    until("the end of the connection is noticed", || !lab.is_trusted()).await;
    let _: String = ask(&server, &["SET", TAG, "0123456789abcdef"]);
    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn a_value_without_the_tag_of_a_call_is_not_served() {
    let server = server();
    let mut lab = Lab::warm(config(&server)).await;

    lab.site = &MEMBER;
    lab.version.store(2, SeqCst);

    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn an_emptied_database_is_heard() {
    let server = server();
    let lab = Lab::warm(config(&server)).await;
    let before = lab.reading();

    lab.version.store(2, SeqCst);
    server.flush().expect("flushed");
    until("it is heard", || lab.reading() != before).await;

    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn a_value_that_changed_on_its_way_is_not_served_unasked() {
    let server = server();
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let lab = Lab::new(patient(&proxy, &server)).await;
    lab.user().await;
    until("changes are heard", || lab.is_trusted()).await;
    let before = lab.reading();
    let sent = proxy.bytes_to_server();

    // The answer is under way when the entry changes.
    proxy.delay(Duration::from_millis(300));
    let read = lab.user();
    let change = async {
        until("the read is sent", || proxy.bytes_to_server() > sent).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        lab.change_elsewhere(&server).await;
        until("the change is heard", || lab.reading() != before).await;
    };
    let (old, ()) = tokio::join!(read, change);
    proxy.pass();

    assert_eq!((old, lab.cache.inner.local.usage().0), (1, 1));
    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn a_killed_listener_does_not_hide_a_change() {
    let server = server();
    let lab = Lab::warm(config(&server)).await;

    kill_listener(&server);
    until("the end of the connection is noticed", || !lab.is_trusted()).await;
    lab.change_elsewhere(&server).await;

    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn after_a_reconnect_values_are_confirmed_and_not_loaded_again() {
    let server = server();
    let lab = Lab::warm(config(&server)).await;
    let before = lab.reading();
    let (gets, peeks) = (lab.asked("get"), lab.asked("confirm"));

    kill_listener(&server);
    until("it listens again", || {
        lab.reading().gaps != before.gaps && lab.is_trusted()
    })
    .await;
    for _ in 0..10 {
        assert_eq!(lab.user().await, 1);
    }

    assert_eq!((lab.asked("get"), lab.asked("confirm")), (gets, peeks + 1));
    assert_eq!(lab.loads(), 1);
}

#[tokio::test]
async fn a_listener_that_hears_nothing_hides_a_change_for_the_staleness_only() {
    let (server, clock) = (server(), Clock::stopped());
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let config = config(&server)
        .clock(clock.clone())
        .listen_at(proxy.address().clone());
    let staleness = config.local_staleness;
    let lab = Lab::warm(config).await;

    proxy.stall();
    lab.change_elsewhere(&server).await;
    assert_eq!(lab.user().await, 1, "nobody has told this process");
    clock.advance(staleness);

    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn a_cut_listener_leaves_values_to_be_confirmed() {
    let server = server();
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let lab = Lab::warm(config(&server).listen_at(proxy.address().clone())).await;
    let (gets, peeks) = (lab.asked("get"), lab.asked("confirm"));

    proxy.cut();
    until("the end of the connection is noticed", || !lab.is_trusted()).await;
    assert_eq!((lab.user().await, lab.user().await), (1, 1));
    assert_eq!((lab.asked("get"), lab.asked("confirm")), (gets, peeks + 2));

    lab.change_elsewhere(&server).await;
    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn the_own_eviction_counts_even_if_nothing_is_heard() {
    let (server, clock) = (server(), Clock::stopped());
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let config = config(&server)
        .clock(clock)
        .listen_at(proxy.address().clone());
    let lab = Lab::warm(config).await;
    proxy.stall();

    for (version, pattern) in [(2, None), (3, Some("user:*")), (4, Some("*"))] {
        lab.version.store(version, SeqCst);
        match pattern {
            None => lab.cache.delete("user:1").await,
            Some(pattern) => lab.cache.delete_matching(pattern).await,
        };
        assert_eq!(lab.user().await, version);
        // The next call finds it in Redis, and keeps it.
        assert_eq!((lab.user().await, lab.user().await), (version, version));
    }
    let value = User { version: 9 };
    assert!(lab.cache.set("user:1", &value, 60_u64).await);

    assert_eq!(lab.user().await, 9);
}

#[tokio::test]
async fn a_value_is_not_served_beyond_the_ttl_of_its_entry() {
    let clock = Clock::stopped();
    let lab = Lab::new(Config::default().clock(clock.clone())).await;
    lab.cache
        .set("user:1", &User { version: 1 }, Duration::from_secs(2))
        .await;
    lab.user().await;
    lab.user().await;
    assert_eq!((lab.hits_local(), lab.loads()), (1, 0));

    clock.advance(Duration::from_secs(2));
    lab.user().await;

    assert_eq!((lab.hits_local(), lab.loads()), (1, 1));
}

#[tokio::test]
async fn callers_of_a_doubtful_value_ask_once() {
    let (server, clock) = (server(), Clock::stopped());
    let lab = Lab::warm(config(&server).clock(clock.clone())).await;
    let (gets, peeks) = (lab.asked("get"), lab.asked("confirm"));

    // Longer than values are certain.
    clock.advance(LONG * 2);
    let values = join_all((0..50).map(|_| lab.user())).await;

    assert!(values.iter().all(|version| *version == 1));
    assert_eq!((lab.asked("get"), lab.asked("confirm")), (gets, peeks + 1));
}

#[tokio::test]
async fn a_mark_in_the_entry_costs_a_look_and_no_reload() {
    let server = server();
    let lab = Lab::warm(config(&server)).await;
    let before = lab.reading();
    let (gets, peeks) = (lab.asked("get"), lab.asked("confirm"));

    let mark = (HEADER - 16).to_string();
    let _: u32 = ask(&server, &["SETRANGE", "test_user:1", &mark, "12345678"]);
    until("the change is heard", || lab.reading() != before).await;

    assert_eq!((lab.user().await, lab.user().await), (1, 1));
    assert_eq!((lab.asked("get"), lab.asked("confirm")), (gets, peeks + 1));
}

#[tokio::test]
async fn a_server_that_lost_its_data_is_noticed() {
    let mut server = server();
    let lab = Lab::warm(config(&server)).await;

    lab.version.store(2, SeqCst);
    server.restart_empty().expect("restarted");
    until("the cache uses the new server", || {
        lab.cache.inner.guard.is_connected() && lab.cache.inner.guard.store().term() == 2
    })
    .await;

    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn without_redis_values_are_served_only_where_a_function_says_so() {
    let server = server();
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let mut lab = Lab::warm(proxy.config()).await;
    lab.version.store(2, SeqCst);
    proxy.cut();
    until("the outage is noticed", || {
        !lab.cache.inner.guard.is_connected()
    })
    .await;

    assert_eq!(lab.user().await, 2, "it bypasses the cache");
    lab.site = &STEADY;
    assert_eq!(lab.user().await, 1);
    assert_eq!(lab.cache.stats().total.hits_outage, 1);

    assert_eq!(lab.cache.delete("user:1").await, Evicted::Journaled);
    assert_eq!(lab.user().await, 2, "its eviction is in the journal");
}

#[tokio::test]
async fn without_redis_a_value_that_is_known_to_have_changed_is_not_served() {
    let server = server();
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let mut lab = Lab::warm(proxy.config()).await;
    lab.site = &STEADY;
    lab.version.store(2, SeqCst);
    assert!(matches!(
        lab.cache.delete("user:1").await,
        Evicted::Applied { .. }
    ));

    proxy.cut();
    until("the outage is noticed", || {
        !lab.cache.inner.guard.is_connected()
    })
    .await;

    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn a_scope_that_evicts_a_key_and_a_disabled_key_run_the_body() {
    let lab = Lab::warm_in_memory().await;
    lab.version.store(2, SeqCst);

    let scope = CacheScope::new();
    let seen = scope.run(async {
        lab.cache.delete("user:1").await;
        lab.user().await
    });
    assert_eq!(seen.await, 2);
    scope.rollback();
    assert_eq!(lab.user().await, 1);

    assert!(lab.cache.disable("user:*").is_ok());
    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn in_memory_mode_the_tier_is_in_front_of_the_store() {
    let lab = Lab::warm_in_memory().await;
    let gets = lab.asked("get");

    assert_eq!((lab.user().await, lab.asked("get")), (1, gets));
    lab.version.store(2, SeqCst);
    lab.cache.delete("user:1").await;
    assert_eq!((lab.user().await, lab.user().await), (2, 2));
    lab.version.store(3, SeqCst);
    lab.cache.delete_matching("user:*").await;
    assert_eq!((lab.user().await, lab.user().await), (3, 3));
}

#[tokio::test]
async fn a_server_that_does_not_report_changes_leaves_functions_as_without_local() {
    let server = server();
    let _: String = ask(
        &server,
        &[
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">pw",
            "~*",
            "&*",
            "+@all",
            "-client|tracking",
        ],
    );
    let lab = Lab::new(config(&server).username("app").password("pw")).await;

    for _ in 0..20 {
        assert_eq!(lab.user().await, 1);
    }

    assert_eq!((lab.loads(), lab.hits_local()), (1, 0));
    assert_eq!((lab.asked("get"), lab.asked("confirm")), (20, 0));
    assert_eq!(lab.cache.inner.local.usage().0, 0);
}

impl Lab {
    async fn warm_in_memory() -> Self {
        Self::warm_in_memory_as(&USER).await
    }

    async fn warm_in_memory_as(site: &'static Site) -> Self {
        let mut lab = Self::new(Config::default()).await;
        lab.site = site;
        for _ in 0..3 {
            lab.user().await;
        }
        assert_eq!((lab.loads(), lab.hits_local()), (1, 1));
        lab
    }
}
