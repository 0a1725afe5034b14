//! Two concurrent calls of one key. The first is stopped at each of its points in turn: before and after every operation of the
//! store, and in its body. The second runs while the first is stopped. Then the first continues, or is dropped.
//!
//! At every point: nothing that was loaded before a write is served or stored after it, and no caller waits forever.

use std::convert::identity;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Cache, CacheScope, Guard, Used};
use crate::clock::Clock;
use crate::config::Config;
use crate::entry::{self, Build, Origin, Reader};
use crate::key::{Key, Pattern};
use crate::plan::{EvictPlan, ReadPlan};
use crate::site::{OwnRules, Plain, Site, Ttl};
use crate::store::gate::{Gate, Gated};
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisStore;
use crate::store::{Mark, Store, support};
use crate::tag::{Tag, TagWriter};
use crate::target::Target;

const TTL: Duration = Duration::from_secs(60);

static READ: Site = Site::new("schedules::read", "row:<id>")
    .ttl_millis(60_000)
    .grace_millis(600_000);
static WRITE: Site = Site::new("schedules::write", "row:<id>")
    .ttl_millis(60_000)
    .grace_millis(600_000);
/// The same with a tag over the returned value.
static READ_NAMED: Site = Site::new("schedules::read", "row:<id>")
    .ttl_millis(60_000)
    .grace_millis(600_000)
    .tag_families(&["row"]);
static WRITE_NAMED: Site = Site::new("schedules::write", "row:<id>")
    .ttl_millis(60_000)
    .grace_millis(600_000)
    .tag_families(&["row"]);

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Actor {
    /// Loads an absent value, and refreshes a stale one.
    Read,
    /// The same, but refreshes in the background.
    ReadBehind,
    Put,
    EvictKey,
    EvictFenced,
    EvictPattern,
    Clear,
    /// Evicts the key in a scope that is committed.
    EvictScoped,
    EvictTag,
    EvictTagFenced,
    /// Evicts the tag in a scope that is committed.
    EvictTagScoped,
    /// The content of the key expires.
    Expire,
    /// The records of the tag and of its family are lost.
    LoseTag,
    /// The lease or the refresh mark expires.
    LoseLease,
}

use Actor::{
    Clear, EvictFenced, EvictKey, EvictPattern, EvictScoped, EvictTag, EvictTagFenced,
    EvictTagScoped, Expire, LoseLease, LoseTag, Put, Read, ReadBehind,
};

const ACTORS: [Actor; 10] = [
    Read,
    ReadBehind,
    Put,
    EvictKey,
    EvictFenced,
    EvictPattern,
    Clear,
    EvictScoped,
    Expire,
    LoseLease,
];

const TAG_ACTORS: [Actor; 9] = [
    Read,
    ReadBehind,
    Put,
    EvictKey,
    EvictTag,
    EvictTagFenced,
    EvictTagScoped,
    LoseTag,
    LoseLease,
];

/// The tag of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tagging {
    None,
    OverArguments,
    OverValue,
}

impl Actor {
    fn writes(self) -> bool {
        matches!(
            self,
            Put | EvictKey
                | EvictFenced
                | EvictPattern
                | EvictScoped
                | EvictTag
                | EvictTagFenced
                | EvictTagScoped
                | Clear
        )
    }
}

/// The content of the key at the start.
#[derive(Clone, Copy, Debug)]
enum Start {
    Absent,
    Fresh,
    Stale,
}

/// What happens to the stopped call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    GoesOn,
    IsDropped,
}

/// Two processes with one store and one database of one row.
struct World {
    caches: [Cache; 2],
    store: Arc<dyn Store>,
    gate: Gate,
    clock: Clock,
    row: Arc<AtomicU64>,
    tagging: Tagging,
    /// How long the second call may wait before the first continues.
    patience: Duration,
}

impl World {
    fn on_memory() -> Self {
        let clock = Clock::default();
        let store = Arc::new(MemoryStore::new(1 << 20, clock.clone()));
        // Time is paused, so this takes no time.
        Self::around(store, clock, "dev_", Duration::from_secs(100))
    }

    fn around(store: Arc<dyn Store>, clock: Clock, prefix: &str, patience: Duration) -> Self {
        let gate = Gate::default();
        let cache = || {
            let config = Config::default()
                .prefix(prefix)
                .clock(clock.clone())
                .lease_wait(Duration::from_millis(20))
                .command_timeout(Duration::from_secs(60));
            let gated: Arc<dyn Store> = Arc::new(Gated::new(Arc::clone(&store), gate.clone()));
            Cache::around(config, None, |config, wake| {
                let guard = Guard::remote(gated, config, wake);
                guard.begin_recovery();
                guard.finish_recovery(0);
                guard
            })
        };
        Self {
            caches: [cache(), cache()],
            store: Arc::clone(&store),
            gate: gate.clone(),
            clock: clock.clone(),
            row: Arc::new(AtomicU64::new(1)),
            tagging: Tagging::None,
            patience,
        }
    }

    fn key(&self) -> Key {
        Key::render(self.caches[0].prefix(), |key| {
            key.text("row:1");
        })
    }

    fn tag(&self) -> Tag {
        Tag::named(self.caches[0].prefix(), "row:1")
    }

    /// The plan of a function, or of the same function with a tag over its value.
    fn plan(&self, site: &'static Site, named: &'static Site) -> ReadPlan {
        match self.tagging {
            Tagging::None => ReadPlan::new(site, self.key()),
            Tagging::OverArguments => ReadPlan {
                tags: vec![self.tag()],
                ..ReadPlan::new(site, self.key())
            },
            Tagging::OverValue => ReadPlan::new(named, self.key()),
        }
    }

    async fn begin(&self, start: Start) {
        match start {
            Start::Absent => {}
            Start::Fresh => drop(self.run(Read, 0).await),
            Start::Stale => {
                self.run(Read, 0).await;
                self.clock.advance(TTL);
            }
        }
    }

    fn start(self: &Arc<Self>, actor: Actor, process: usize) -> JoinHandle<Option<u64>> {
        let world = Arc::clone(self);
        tokio::spawn(async move { world.run(actor, process).await })
    }

    /// Returns what the call returned.
    async fn run(&self, actor: Actor, process: usize) -> Option<u64> {
        let cache = &self.caches[process];
        let is_named = self.tagging == Tagging::OverValue;
        let rules = OwnRules {
            unless: |_: &u64| false,
            ttl: |_: &u64| None::<Ttl>,
            tags: move |_: &u64, tags: &mut TagWriter| {
                if is_named {
                    tags.tag(&mut |tag| {
                        tag.text("row:1");
                    });
                }
            },
        };
        let (row, gate) = (Arc::clone(&self.row), self.gate.clone());
        let load = async move {
            gate.point().await;
            let loaded = row.load(Ordering::SeqCst);
            gate.point().await;
            loaded
        };
        let write = async {
            self.gate.point().await;
            let written = self.row.fetch_add(1, Ordering::SeqCst) + 1;
            self.gate.point().await;
            written
        };
        let evict = async move |targets, fence, write| {
            let plan = EvictPlan {
                targets,
                fence,
                ..EvictPlan::new(&WRITE)
            };
            let call = (Used::named(cache), plan);
            Cache::evict::<Plain<u64>>(call, pin!(write)).await;
        };
        let key = || vec![Target::Key(self.key())];
        let tag = || vec![Target::Tag(self.tag())];
        match actor {
            Read => {
                let mut load = pin!(load);
                let read = Cache::read::<Plain<u64>>(
                    Some((Used::named(cache), self.plan(&READ, &READ_NAMED))),
                    rules,
                    load.as_mut(),
                );
                return Some(read.await);
            }
            ReadBehind => {
                return Some(
                    Cache::read_with_background_refresh::<Plain<u64>, _, _>(
                        Some((Used::named(cache), self.plan(&READ, &READ_NAMED))),
                        rules,
                        load,
                        identity,
                    )
                    .await,
                );
            }
            Put => {
                let call = Some((Used::named(cache), self.plan(&WRITE, &WRITE_NAMED)));
                Cache::write::<Plain<u64>>(call, rules, pin!(write)).await;
            }
            EvictKey => evict(key(), false, write).await,
            EvictFenced => {
                evict(key(), true, write).await;
            }
            EvictPattern => {
                let pattern = Pattern::render(cache.prefix(), |pattern| {
                    pattern.text("row:").any();
                });
                evict(vec![Target::Pattern(pattern)], false, write).await;
            }
            Clear => {
                evict(vec![Target::All], false, write).await;
            }
            EvictScoped => {
                let scope = CacheScope::new();
                scope.run(evict(key(), false, write)).await;
                scope.commit().await;
            }
            EvictTag => evict(tag(), false, write).await,
            EvictTagFenced => evict(tag(), true, write).await,
            EvictTagScoped => {
                let scope = CacheScope::new();
                scope.run(evict(tag(), false, write)).await;
                scope.commit().await;
            }
            Expire => drop(self.store.delete(&[self.key()]).await),
            LoseTag => {
                let marker = Tag::marker(cache.prefix(), "row");
                drop(self.store.delete(&[marker, self.tag().key().clone()]).await);
            }
            LoseLease => self.lose_lease().await,
        }
        None
    }

    async fn lose_lease(&self) {
        let key = self.key();
        let Some(bytes) = self.store.get(&key, 0).await.unwrap() else {
            return;
        };
        let stamp = entry::whole_stamp_of(&bytes).unwrap();
        if matches!(self.peek(&bytes), entry::Read::Lease) {
            self.store.delete_if(&key, &stamp).await.unwrap();
        } else {
            let marked = self.store.refresh(&key, stamp, Duration::ZERO, Mark::Own);
            marked.await.unwrap();
        }
    }

    fn peek(&self, bytes: &[u8]) -> entry::Read<u64> {
        let reader = Reader {
            key: &self.key(),
            origin: Origin::of::<u64>(Build::NONE, 0),
            now: 0,
            grace: 0,
            max_value: usize::MAX,
        };
        entry::read_as(bytes, &reader)
    }

    /// Waits until no background refresh runs.
    async fn idle(&self) {
        for cache in &self.caches {
            while cache.inner.refreshes.in_background() > 0 || cache.inner.journal.depth() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Returns the stored version, if its tags allow it to be served.
    async fn stored(&self) -> Option<u64> {
        let bytes = self.store.get(&self.key(), 0).await.unwrap()?;
        for (name, stamp) in entry::tags(&bytes) {
            let tag = Tag::named(self.caches[0].prefix(), name);
            let record = self.store.get(tag.key(), 0).await.unwrap()?;
            if entry::stamp_in(&record) != Some(stamp) {
                return None;
            }
        }
        match self.peek(&bytes) {
            entry::Read::Value(version, _) => Some(version),
            _ => None,
        }
    }
}

/// A schedule of two calls.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    first: Actor,
    second: Actor,
    start: Start,
    second_is_in: usize,
    end: End,
    point: usize,
}

impl Schedule {
    /// Returns whether the first call reached this point.
    async fn run(self, world: World) -> bool {
        let Self {
            first,
            second,
            start,
            second_is_in: process,
            end,
            point,
        } = self;
        let world = Arc::new(world);
        world.begin(start).await;
        let current = || world.row.load(Ordering::SeqCst);

        world.gate.stop_after(point);
        let mut one = world.start(first, 0);
        let is_stopped = tokio::select! {
            biased;
            () = world.gate.reached() => true,
            () = async { (&mut one).await.unwrap(); world.idle().await } => false,
        };
        world.gate.disarm();
        if !is_stopped && point > 0 {
            return false;
        }
        if end == End::IsDropped {
            one.abort();
        }

        let known = world.stored_or_acknowledged(first, is_stopped);
        let mut other = world.start(second, process);
        let answer = timeout(world.patience, &mut other).await;
        let is_over = answer.is_ok();
        if is_over && second.writes() {
            // It waits for nothing, however busy the machine is.
            let patience = world.patience.max(Duration::from_secs(10));
            let read = timeout(patience, world.run(Read, process)).await;
            assert_eq!(
                read.ok().flatten(),
                Some(current()),
                "{self:?}: read after the write"
            );
        }

        world.gate.open();
        let end_of_one = async {
            if !one.is_finished() {
                let _ = one.await;
            }
        };
        timeout(Duration::from_secs(200), end_of_one)
            .await
            .unwrap_or_else(|_| panic!("{self:?}: the first is left waiting"));
        let answer = match answer {
            Ok(answer) => answer.unwrap(),
            Err(_) => timeout(Duration::from_secs(200), other)
                .await
                .unwrap_or_else(|_| panic!("{self:?}: the second is left waiting"))
                .unwrap(),
        };
        world.idle().await;

        if let Some(answer) = answer {
            assert!(
                answer >= known,
                "{self:?}: {answer} was served, {known} was acknowledged"
            );
        }
        let stored = world.stored().await;
        assert!(
            stored.is_none_or(|version| version == current()),
            "{self:?}: {stored:?} is stored, {} is true",
            current()
        );
        for reader in [0, 1] {
            assert_eq!(
                world.run(Read, reader).await,
                Some(current()),
                "{self:?}: a read at rest"
            );
        }
        is_stopped
    }
}

impl World {
    /// Returns the oldest version that a call that begins now may return.
    fn stored_or_acknowledged(&self, first: Actor, is_stopped: bool) -> u64 {
        if first.writes() && is_stopped {
            1
        } else {
            self.row.load(Ordering::SeqCst)
        }
    }
}

/// Runs every pair of calls, from every start, in one process and in two, at every point.
async fn every_schedule(
    actors: &[Actor],
    ends: &[End],
    starts: &[Start],
    processes: &[usize],
    mut world: impl FnMut() -> World,
) -> usize {
    let mut count = 0;
    for &first in actors {
        for &second in actors {
            for &start in starts {
                for &second_is_in in processes {
                    for &end in ends {
                        for point in 0.. {
                            let schedule = Schedule {
                                first,
                                second,
                                start,
                                second_is_in,
                                end,
                                point,
                            };
                            count += 1;
                            if !schedule.run(world()).await {
                                break;
                            }
                        }
                    }
                }
            }
        }
    }
    count
}

const STARTS: [Start; 3] = [Start::Absent, Start::Fresh, Start::Stale];

#[tokio::test(start_paused = true)]
async fn no_schedule_of_two_calls_stores_or_serves_a_stale_value() {
    let count = every_schedule(&ACTORS, &[End::GoesOn], &STARTS, &[0, 1], World::on_memory).await;

    assert!(count > 1_000, "{count} schedules");
}

#[tokio::test(start_paused = true)]
async fn no_schedule_with_a_dropped_call_stores_or_serves_a_stale_value() {
    let count = every_schedule(
        &ACTORS,
        &[End::IsDropped],
        &STARTS,
        &[0, 1],
        World::on_memory,
    )
    .await;

    assert!(count > 1_000, "{count} schedules");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_schedule_of_two_processes_on_redis_stores_or_serves_a_stale_value() {
    let server = support::server();
    let store = RedisStore::new(&support::config(&server)).unwrap();
    store.probe().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let mut worlds = 0;

    let count = every_schedule(&ACTORS, &[End::GoesOn], &STARTS, &[1], || {
        worlds += 1;
        let (store, prefix) = (Arc::clone(&store), format!("world{worlds}_"));
        World::around(store, Clock::default(), &prefix, Duration::from_millis(50))
    })
    .await;

    assert!(count > 500, "{count} schedules");
}

#[tokio::test(start_paused = true)]
async fn no_schedule_of_two_calls_with_tags_stores_or_serves_a_stale_value() {
    for tagging in [Tagging::OverArguments, Tagging::OverValue] {
        let world = || World {
            tagging,
            ..World::on_memory()
        };
        let ends = [End::GoesOn, End::IsDropped];

        let count = every_schedule(&TAG_ACTORS, &ends, &STARTS, &[0, 1], world).await;

        assert!(count > 1_000, "{count} schedules");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_schedule_of_two_processes_with_tags_on_redis_stores_or_serves_a_stale_value() {
    let server = support::server();
    let store = RedisStore::new(&support::config(&server)).unwrap();
    store.probe().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let mut worlds = 0;

    for tagging in [Tagging::OverArguments, Tagging::OverValue] {
        let count = every_schedule(&TAG_ACTORS, &[End::GoesOn], &STARTS, &[1], || {
            worlds += 1;
            let (store, prefix) = (Arc::clone(&store), format!("world{worlds}_"));
            let patience = Duration::from_millis(50);
            World {
                tagging,
                ..World::around(store, Clock::default(), &prefix, patience)
            }
        })
        .await;

        assert!(count > 500, "{count} schedules");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_takes_no_journaled_value_from_another_process() {
    let world = Arc::new(World::on_memory());
    world.gate.stop_after(5);
    let other = world.start(Read, 1);
    world.gate.reached().await;
    let early = world.start(Read, 0);
    others_run().await;
    world.gate.refuse_removals(true);

    world.run(EvictKey, 0).await;
    let late = world.start(Read, 0);
    others_run().await;
    world.gate.open();
    assert_eq!(other.await.unwrap(), Some(1));

    assert_eq!(late.await.unwrap(), Some(2));
    assert_eq!(early.await.unwrap(), Some(2));
    world.gate.refuse_removals(false);
    world.idle().await;
    assert_eq!(world.run(Read, 1).await, Some(2));
}

/// Runs all other tasks until they are idle, without advancing time.
async fn others_run() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
