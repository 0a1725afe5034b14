//! Two processes that share a store, and functions whose entries have tags.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Semaphore;

use super::*;
use crate::__private::no_tags;
use crate::cache::{CacheScope, Evicted, Guard, Refresh, Storing, Used, ValueType, function, read};
use crate::clock::Clock;
use crate::config::Config;
use crate::plan::{EvictPlan, ReadPlan};
use crate::site::{NoRules, OwnRules, Plain, ResultOf, Site, Ttl};
use crate::store::memory::MemoryStore;
use crate::store::{Store, gate, support};
use crate::tag::TagWriter;
use crate::target::Target;
use crate::testing::RedisServer;

/// A list under the tag `events`.
static LIST: Site = Site::new("tags::list", "list:<id>")
    .reads()
    .ttl_millis(60_000)
    .grace_millis(600_000);
/// An event under the tag `organizer:<return.organizer>`.
static EVENT: Site = Site::new("tags::event", "event:<id>")
    .reads()
    .ttl_millis(60_000)
    .grace_millis(600_000)
    .tag_families(&["organizer"]);
static WRITE: Site = Site::new("tags::write", "");

macro_rules! on_every_store {
    ($($test:ident)+) => {
        mod on_memory {
            $(#[tokio::test]
            async fn $test() { super::$test(super::Lab::on_memory()).await; })+
        }
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(super::Lab::on_redis().await).await; })+
        }
    };
}

on_every_store! {
    an_evicted_tag_makes_its_entries_unusable_in_every_process
    one_of_two_tags_is_enough
    an_entry_without_a_tag_of_the_call_is_loaded_again
    a_tag_that_is_lost_costs_loads_and_serves_nothing_old
    a_load_that_began_before_an_eviction_is_not_served_after_it
    a_refresh_that_began_before_an_eviction_is_not_served_after_it
    an_entry_whose_tag_was_evicted_is_not_taken_by_a_caller_that_waits_for_its_load
    callers_share_a_load_under_a_tag
    a_load_of_a_value_that_was_evicted_by_its_tag_is_not_stored
    a_value_evicted_by_its_own_tag_is_loaded_again
    a_value_with_another_tag_stays
    nothing_is_stored_under_a_tag_that_is_fenced
    a_failed_body_behind_a_fence_frees_the_tag
    a_scope_that_evicts_a_tag_reads_its_own_writes
    a_stale_value_is_refreshed_under_its_tag
    a_tag_lives_as_long_as_a_value_with_a_longer_ttl
    methods_without_tags_respect_the_tags_of_an_entry
    values_are_stored_under_tags_by_hand
    a_put_stores_under_its_tags
    a_key_and_a_tag_are_evicted_together
}

/// Two processes with one store.
struct Lab {
    caches: [Cache; 2],
    clock: Clock,
    /// How often a body ran.
    loads: AtomicU32,
    /// What a body returns: the organizer of the event.
    organizer: AtomicU32,
    _server: Option<RedisServer>,
}

impl Lab {
    fn on_memory() -> Self {
        let clock = Clock::default();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20, clock.clone()));
        let cache = || {
            let config = Config::default().prefix("dev_").clock(clock.clone());
            Cache::around(config, None, |config, wake| {
                Guard::local(Arc::clone(&store), config, wake)
            })
        };
        Self::with([cache(), cache()], clock.clone(), None)
    }

    async fn on_redis() -> Self {
        let (server, clock) = (support::server(), Clock::default());
        let config = || support::config(&server).prefix("dev_").clock(clock.clone());
        let caches = [
            Cache::connect(config())
                .await
                .unwrap_or_else(|error| panic!("{error}")),
            Cache::connect(config())
                .await
                .unwrap_or_else(|error| panic!("{error}")),
        ];
        Self::with(caches, clock, Some(server))
    }

    fn with(caches: [Cache; 2], clock: Clock, server: Option<RedisServer>) -> Self {
        Self {
            caches,
            clock,
            loads: AtomicU32::new(0),
            organizer: AtomicU32::new(7),
            _server: server,
        }
    }

    fn loads(&self) -> u32 {
        self.loads.load(Ordering::SeqCst)
    }

    fn is_organized_by(&self, organizer: u32) {
        self.organizer.store(organizer, Ordering::SeqCst);
    }

    async fn body(&self) -> u32 {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.organizer.load(Ordering::SeqCst)
    }

    /// Reads a list.
    async fn list(&self, process: usize, id: u32, tags: &[&str]) -> u32 {
        self.list_by(process, id, tags, self.body()).await
    }

    async fn list_by(
        &self,
        process: usize,
        id: u32,
        tags: &[&str],
        body: impl Future<Output = u32>,
    ) -> u32 {
        let plan = plan(&LIST, "list", id, tags);
        let call = Some((Used::named(&self.caches[process]), plan));
        Cache::read::<Plain<u32>>(call, NoRules, pin!(body)).await
    }

    /// Reads an event.
    async fn event(&self, process: usize, id: u32) -> u32 {
        self.event_by(process, id, self.body()).await
    }

    async fn event_by(&self, process: usize, id: u32, body: impl Future<Output = u32>) -> u32 {
        let call = Some((
            Used::named(&self.caches[process]),
            plan(&EVENT, "event", id, &[]),
        ));
        let rules = OwnRules {
            unless: |_: &u32| false,
            ttl: |_: &u32| None::<Ttl>,
            tags: |organizer: &u32, tags: &mut TagWriter| {
                tags.tag(&mut |tag| {
                    tag.text("organizer:").value(organizer);
                });
            },
        };
        let steps = read(call, ValueType::of_outcome::<Plain<u32>>(), Refresh::Caller);
        let call = &mut Storing::<Plain<u32>, _, _>::new(steps, rules);
        let body = pin!(body);
        function::Bodied { call, body }.await
    }

    /// Writes and evicts.
    async fn write(
        &self,
        process: usize,
        tags: &[&str],
        is_fenced: bool,
        body: impl Future<Output = Result<(), ()>>,
    ) {
        let tags = tags.iter().map(|tag| Target::Tag(Tag::named("dev_", tag)));
        let plan = EvictPlan {
            targets: tags.collect(),
            fence: is_fenced,
            ..EvictPlan::new(&WRITE)
        };
        let call = (Used::named(&self.caches[process]), plan);
        let _ = Cache::evict::<ResultOf<(), ()>>(call, pin!(body)).await;
    }

    async fn evict(&self, process: usize, tag: &str) {
        let evicted = self.caches[process].delete_tagged(tag).await;
        assert_eq!(evicted, Evicted::Applied { keys: 0 });
    }

    fn misses(&self, process: usize, reason: &str) -> u64 {
        let reasons = self.caches[process].stats().total.misses_by_reason;
        reasons.get(reason).copied().unwrap_or(0)
    }
}

fn plan(site: &'static Site, name: &str, id: u32, tags: &[&str]) -> ReadPlan {
    let key = Key::render("dev_", |key| {
        key.text(name).text(":").value(&id);
    });
    ReadPlan {
        tags: tags.iter().map(|tag| Tag::named("dev_", tag)).collect(),
        ..ReadPlan::new(site, key)
    }
}

/// Polls a call until its body waits for `gate`, runs `then`, and lets the body return.
async fn during<T>(
    call: impl Future<Output = T>,
    gate: &Gate,
    then: impl Future<Output = ()>,
) -> T {
    let begun = async {
        gate.arrived.acquire().await.expect("open").forget();
        then.await;
        gate.opened.add_permits(1);
    };
    tokio::join!(call, begun).0
}

struct Gate {
    arrived: Semaphore,
    opened: Semaphore,
}

impl Gate {
    fn new() -> Self {
        Self {
            arrived: Semaphore::new(0),
            opened: Semaphore::new(0),
        }
    }

    /// A body that reads before it waits.
    async fn hold(&self, body: impl Future<Output = u32>) -> u32 {
        let read = body.await;
        self.arrived.add_permits(1);
        self.opened.acquire().await.expect("open").forget();
        read
    }
}

async fn an_evicted_tag_makes_its_entries_unusable_in_every_process(lab: Lab) {
    for id in 0..3 {
        lab.list(0, id, &["events"]).await;
    }
    lab.list(0, 9, &["places"]).await;
    assert_eq!(lab.loads(), 4);
    for process in 0..2 {
        assert_eq!(lab.list(process, 1, &["events"]).await, 7);
    }
    assert_eq!(lab.loads(), 4);

    lab.evict(0, "events").await;
    lab.is_organized_by(8);

    for process in 0..2 {
        for id in 0..3 {
            assert_eq!(lab.list(process, id, &["events"]).await, 8);
        }
    }
    assert_eq!(lab.list(1, 9, &["places"]).await, 7);
    assert_eq!(lab.loads(), 7);
    assert_eq!((lab.misses(0, "tag"), lab.misses(1, "tag")), (3, 0));
}

async fn one_of_two_tags_is_enough(lab: Lab) {
    let tags = ["events", "user:5"];
    for (round, tag) in (1..).zip(["user:5", "events", "user:6"]) {
        lab.list(0, 1, &tags).await;
        assert_eq!(lab.loads(), round);
        lab.evict(1, tag).await;
    }

    lab.list(0, 1, &tags).await;

    assert_eq!(lab.loads(), 3);
}

async fn an_entry_without_a_tag_of_the_call_is_loaded_again(lab: Lab) {
    lab.list(0, 1, &[]).await;
    lab.list(0, 1, &["events"]).await;
    assert_eq!((lab.loads(), lab.misses(0, "tag")), (2, 1));

    lab.list(0, 1, &["events"]).await;
    lab.list(0, 1, &[]).await;

    assert_eq!(lab.loads(), 2);
    lab.evict(1, "events").await;
    lab.list(0, 1, &[]).await;
    assert_eq!(lab.loads(), 3);
}

async fn a_tag_that_is_lost_costs_loads_and_serves_nothing_old(lab: Lab) {
    lab.list(0, 1, &["events"]).await;
    let record = Tag::named("dev_", "events");
    let store = lab.caches[0].inner.guard.store();
    let keys = [record.key().clone()];
    assert_eq!(store.delete(&keys).await.expect("deleted"), 1);

    assert_eq!(lab.list(1, 1, &["events"]).await, 7);
    assert_eq!(lab.list(0, 1, &["events"]).await, 7);

    assert_eq!(lab.loads(), 2);
}

async fn a_load_that_began_before_an_eviction_is_not_served_after_it(lab: Lab) {
    for process in 0..2 {
        let gate = Gate::new();
        lab.is_organized_by(1);
        let id = 10 + process as u32;
        let load = lab.list_by(0, id, &["events"], gate.hold(lab.body()));

        let old = during(load, &gate, async {
            lab.is_organized_by(2);
            lab.evict(process, "events").await;
            // It may neither share the load nor take its result.
            assert_eq!(lab.list(0, id, &["events"]).await, 2);
        })
        .await;

        assert_eq!(old, 1);
        for reader in 0..2 {
            assert_eq!(lab.list(reader, id, &["events"]).await, 2);
        }
    }
}

async fn a_refresh_that_began_before_an_eviction_is_not_served_after_it(lab: Lab) {
    for process in 0..2 {
        let gate = Gate::new();
        lab.is_organized_by(1);
        let id = 10 + process as u32;
        lab.list(0, id, &["events"]).await;
        lab.clock.advance(Duration::from_secs(61));
        let before = lab.loads();
        let refresh = lab.list_by(0, id, &["events"], gate.hold(lab.body()));

        let old = during(refresh, &gate, async {
            assert_eq!(lab.loads(), before + 1);
            lab.is_organized_by(2);
            lab.evict(process, "events").await;
        })
        .await;

        assert_eq!(old, 1);
        for reader in 0..2 {
            assert_eq!(lab.list(reader, id, &["events"]).await, 2);
        }
    }
}

#[tokio::test]
async fn the_clocks_of_processes_do_not_matter_to_an_eviction_by_tag() {
    let (early, late) = (Clock::stopped(), Clock::stopped());
    late.advance(Duration::from_secs(5));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20, early.clone()));
    let cache = |clock: &Clock| {
        let config = Config::default().prefix("dev_").clock(clock.clone());
        Cache::around(config, None, |config, wake| {
            Guard::local(Arc::clone(&store), config, wake)
        })
    };
    let lab = Lab::with([cache(&early), cache(&late)], early.clone(), None);

    for (round, (writer, other)) in (1..).zip([(0, 1), (1, 0)]) {
        lab.is_organized_by(round);
        let gate = Gate::new();
        lab.list(writer, 1, &["events"]).await;
        let load = lab.list_by(other, 2, &["events"], gate.hold(lab.body()));

        during(load, &gate, async {
            lab.is_organized_by(10 * round);
            lab.evict(writer, "events").await;
        })
        .await;

        for process in 0..2 {
            for id in 1..3 {
                assert_eq!(lab.list(process, id, &["events"]).await, 10 * round);
            }
        }
        lab.evict(writer, "events").await;
    }
}

async fn an_entry_whose_tag_was_evicted_is_not_taken_by_a_caller_that_waits_for_its_load(lab: Lab) {
    let gate = Gate::new();
    lab.is_organized_by(1);
    let load = lab.list_by(1, 1, &["events"], gate.hold(lab.body()));
    let waiting = async {
        // The load has its lease.
        gate.arrived.acquire().await.expect("open").forget();
        let waiter = lab.list(0, 1, &["events"]);
        let eviction = async {
            while lab.misses(0, "leased") == 0 {
                tokio::task::yield_now().await;
            }
            lab.is_organized_by(2);
            // Another process evicts, so neither of these knows of it.
            let record = [Tag::named("dev_", "events").key().clone()];
            let store = lab.caches[0].inner.guard.store();
            assert_eq!(store.delete(&record).await.expect("deleted"), 1);
            gate.opened.add_permits(1);
        };
        tokio::join!(waiter, eviction).0
    };

    let (loaded, waited) = tokio::join!(load, waiting);

    assert_eq!((loaded, waited), (1, 2));
    assert_eq!(lab.caches[1].stats().total.fills, 1);
}

#[tokio::test]
async fn a_load_gets_its_lease_however_often_others_store_what_a_tag_makes_unusable() {
    let (clock, gate) = (Clock::default(), gate::Gate::default());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20, clock.clone()));
    let gated = Arc::new(gate::Gated::new(Arc::clone(&store), gate.clone()));
    let cache = |store| {
        let config = Config::default().prefix("dev_").clock(clock.clone());
        Cache::around(config, None, |config, wake| {
            Guard::local(store, config, wake)
        })
    };
    let lab = Lab::with([cache(gated), cache(store)], clock.clone(), None);
    gate.stop_after(0);
    let load = lab.list(0, 1, &["events"]);
    let others = async {
        for _ in 0..50 {
            gate.reached().await;
            let other = lab.caches[1].tagged(&["events"]);
            assert!(other.set("list:1", &9_u32, 60).await);
            lab.evict(1, "events").await;
            gate.stop_after(0);
            gate.open();
        }
        gate.disarm();
    };

    let loaded = tokio::select! {
        biased;
        loaded = load => loaded,
        () = async { others.await; std::future::pending().await } => 0,
    };

    assert_eq!(loaded, 7);
    assert_eq!(lab.caches[0].stats().total.fills, 1);
}

async fn callers_share_a_load_under_a_tag(lab: Lab) {
    let gate = Gate::new();
    let load = lab.list_by(0, 1, &["events"], gate.hold(lab.body()));
    let event = lab.event_by(0, 1, gate.hold(lab.body()));
    let more = async {
        for _ in 0..2 {
            gate.arrived.acquire().await.expect("open").forget();
        }
        let joined = futures_util::future::join(lab.list(0, 1, &["events"]), lab.event(0, 1));
        let mut joined = pin!(joined);
        for _ in 0..50 {
            tokio::select! {
                biased;
                _ = &mut joined => panic!("the loads have not ended"),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
        gate.opened.add_permits(2);
        joined.await
    };

    let (list, event, joined) = tokio::join!(load, event, more);

    assert_eq!((list, event, joined), (7, 7, (7, 7)));
    assert_eq!(lab.loads(), 2);
}

async fn a_load_of_a_value_that_was_evicted_by_its_tag_is_not_stored(lab: Lab) {
    for process in 0..2 {
        let gate = Gate::new();
        lab.is_organized_by(7);
        let id = 10 + process as u32;
        let load = lab.event_by(0, id, gate.hold(lab.body()));
        let before = lab.loads();

        during(load, &gate, async {
            lab.is_organized_by(8);
            lab.evict(process, "organizer:7").await;
        })
        .await;

        for reader in 0..2 {
            assert_eq!(lab.event(reader, id).await, 8);
        }
        assert_eq!(lab.loads(), before + 2);
    }
    let refused = lab.caches[0].stats().total.fills_refused;
    assert_eq!(refused, 2);
}

async fn a_value_evicted_by_its_own_tag_is_loaded_again(lab: Lab) {
    lab.event(0, 1).await;
    assert_eq!(lab.event(1, 1).await, 7);
    assert_eq!(lab.loads(), 1);

    lab.evict(1, "organizer:7").await;
    lab.is_organized_by(8);

    for process in 0..2 {
        assert_eq!(lab.event(process, 1).await, 8);
    }
    assert_eq!(lab.loads(), 2);
    lab.evict(0, "organizer:8").await;
    lab.event(1, 1).await;
    assert_eq!(lab.loads(), 3);
}

async fn a_value_with_another_tag_stays(lab: Lab) {
    lab.event(0, 1).await;

    lab.evict(1, "organizer:8").await;
    lab.evict(1, "organizer").await;

    lab.event(0, 1).await;
    assert_eq!(lab.loads(), 1);
}

async fn nothing_is_stored_under_a_tag_that_is_fenced(lab: Lab) {
    lab.list(0, 1, &["events"]).await;
    lab.event(0, 1).await;
    let gate = Gate::new();
    let write = lab.write(1, &["events", "organizer:7"], true, async {
        gate.hold(async { 0 }).await;
        Ok(())
    });

    during(write, &gate, async {
        for round in 1..3 {
            lab.list(0, 1, &["events"]).await;
            lab.event(0, 1).await;
            assert_eq!(lab.loads(), 2 + 2 * round);
        }
    })
    .await;

    for _ in 0..2 {
        lab.list(0, 1, &["events"]).await;
        lab.event(0, 1).await;
    }
    assert_eq!(lab.loads(), 8);
}

async fn a_failed_body_behind_a_fence_frees_the_tag(lab: Lab) {
    lab.write(0, &["events"], true, async { Err(()) }).await;

    for _ in 0..2 {
        lab.list(0, 1, &["events"]).await;
    }

    assert_eq!(lab.loads(), 1);
}

async fn a_scope_that_evicts_a_tag_reads_its_own_writes(lab: Lab) {
    lab.list(0, 1, &["events"]).await;
    lab.event(0, 1).await;
    let scope = CacheScope::new();

    scope
        .run(async {
            lab.write(0, &["events", "organizer:7"], false, async { Ok(()) })
                .await;
            assert_eq!(lab.loads(), 2);
            lab.list(0, 1, &["events"]).await;
            lab.event(0, 1).await;
            assert_eq!(lab.loads(), 4);
            // A caller that does not name the tag finds it in the entry.
            assert_eq!(lab.caches[0].get::<u32>("list:1").await, None);
            assert_eq!(lab.caches[0].get_many::<u32>(&["event:1"]).await, [None]);
        })
        .await;

    assert_eq!(lab.list(1, 1, &["events"]).await, 7);
    assert_eq!(lab.loads(), 4);
    assert!(matches!(scope.commit().await, Evicted::Applied { .. }));
    lab.list(1, 1, &["events"]).await;
    lab.event(1, 1).await;
    assert_eq!(lab.loads(), 6);
}

async fn a_stale_value_is_refreshed_under_its_tag(lab: Lab) {
    lab.list(0, 1, &["events"]).await;
    lab.event(0, 1).await;
    lab.clock.advance(Duration::from_secs(61));

    lab.list(0, 1, &["events"]).await;
    lab.event(0, 1).await;
    assert_eq!(lab.loads(), 4);
    lab.list(1, 1, &["events"]).await;
    lab.event(1, 1).await;
    assert_eq!(lab.loads(), 4);

    lab.evict(1, "events").await;
    lab.evict(1, "organizer:7").await;
    lab.list(0, 1, &["events"]).await;
    lab.event(0, 1).await;
    assert_eq!(lab.loads(), 6);

    // A stale value whose tag was evicted is no value.
    lab.clock.advance(Duration::from_secs(61));
    lab.evict(1, "events").await;
    let before = lab.misses(0, "tag");
    lab.list(0, 1, &["events"]).await;
    assert_eq!(lab.misses(0, "tag"), before + 1);
}

async fn a_tag_lives_as_long_as_a_value_with_a_longer_ttl(lab: Lab) {
    let call = Some((
        Used::named(&lab.caches[0]),
        plan(&LIST, "list", 1, &["events"]),
    ));
    let rules = OwnRules {
        unless: |_: &u32| false,
        ttl: |_: &u32| Some(Ttl::from(6_000_u64)),
        tags: no_tags,
    };
    Cache::read::<Plain<u32>>(call, rules, pin!(lab.body())).await;

    let store = lab.caches[0].inner.guard.store();
    let record = Tag::named("dev_", "events");
    let (_, left) = store
        .measure(record.key())
        .await
        .expect("measured")
        .expect("a record");
    assert!(left >= Duration::from_secs(6_600), "{left:?}");
    lab.list(1, 1, &["events"]).await;
    assert_eq!(lab.loads(), 1);
}

async fn methods_without_tags_respect_the_tags_of_an_entry(lab: Lab) {
    let cache = &lab.caches[1];
    for id in 1..3 {
        lab.list(0, id, &["events"]).await;
    }
    assert_eq!(cache.get::<u32>("list:1").await, Some(7));
    let both = ["list:1", "list:2"];
    assert_eq!(cache.get_many::<u32>(&both).await, [Some(7), Some(7)]);
    assert!(cache.exists("list:1").await && cache.ttl("list:1").await.is_some());
    assert!(cache.expire("list:1", 600_u64).await);
    assert_eq!(lab.list(1, 1, &["events"]).await, 7);
    assert_eq!(lab.loads(), 2);

    lab.evict(0, "events").await;

    assert!(!cache.expire("list:1", 600_u64).await);
    assert!(!cache.exists("list:1").await && cache.ttl("list:1").await.is_none());
    assert_eq!(cache.get_many::<u32>(&both).await, [None, None]);
    assert_eq!(cache.get::<u32>("list:1").await, None);
    let loaded = cache.get_or_load("list:1", 60_u64, async { Ok::<_, ()>(9) });
    assert_eq!(loaded.await, Ok(9));
}

async fn values_are_stored_under_tags_by_hand(lab: Lab) {
    let [first, second] = &lab.caches;
    let tags = ["events", "user:5"];
    let load = async |n: u32| {
        let load = async move { Ok::<_, ()>(n) };
        first
            .tagged(&tags)
            .get_or_load("loaded", 60_u64, load)
            .await
    };
    assert!(first.tagged(&tags).set("set", &1, 60).await);
    let pairs = [("many:1", &2), ("many:2", &3)];
    assert!(first.tagged(&tags).set_many(&pairs, 60).await);
    assert_eq!((load(4).await, load(5).await), (Ok(4), Ok(4)));
    let keys = ["set", "many:1", "many:2", "loaded"];
    let found = second.get_many::<u32>(&keys).await;
    assert_eq!(found, [Some(1), Some(2), Some(3), Some(4)]);

    assert_eq!(
        second.delete_tagged("user:5").await,
        Evicted::Applied { keys: 0 }
    );

    assert_eq!(first.get_many::<u32>(&keys).await, [None; 4]);
    assert_eq!(load(6).await, Ok(6));
    assert!(!first.tagged(&["a b"]).set("set", &1, 60).await);
    assert!(first.tagged(&["a b"]).try_set("set", &1, 60).await.is_err());
    assert!(second.try_delete_tagged("").await.is_err());
}

async fn a_put_stores_under_its_tags(lab: Lab) {
    let put = async |tags: &[&str], body: &mut dyn FnMut() -> u32| {
        let call = Some((Used::named(&lab.caches[0]), plan(&LIST, "list", 1, tags)));
        let value = body();
        Cache::write::<Plain<u32>>(call, NoRules, pin!(async { value })).await
    };
    put(&["events"], &mut || 3).await;
    assert_eq!(lab.list(1, 1, &["events"]).await, 3);

    lab.evict(1, "events").await;

    assert_eq!(lab.list(1, 1, &["events"]).await, 7);
    let gate = Gate::new();
    let call = Some((
        Used::named(&lab.caches[0]),
        plan(&LIST, "list", 1, &["events"]),
    ));
    let body = pin!(gate.hold(async { 4 }));
    let put = Cache::write::<Plain<u32>>(call, NoRules, body);
    during(put, &gate, lab.evict(1, "events")).await;
    assert_eq!(lab.list(1, 1, &["events"]).await, 7);
}

async fn a_key_and_a_tag_are_evicted_together(lab: Lab) {
    lab.list(0, 1, &["events"]).await;
    lab.list(0, 2, &[]).await;
    let key = plan(&LIST, "list", 2, &[]).key;
    let targets = [
        Target::Key(key),
        Target::Tag(Tag::named("dev_", "events")),
        Target::Tag(Tag::named("dev_", "places")),
    ];

    let evicted = lab.caches[1].remove(&targets).await;

    assert_eq!(evicted, Evicted::Applied { keys: 1 });
    lab.list(0, 1, &["events"]).await;
    lab.list(0, 2, &[]).await;
    assert_eq!(lab.loads(), 4);
}
