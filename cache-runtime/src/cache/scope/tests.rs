//! What scopes collect, and how they work with grace, with fences and without a runtime.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::cache::{Cache, Used};
use crate::config::Config;
use crate::key::{Key, Pattern};
use crate::plan::{EvictPlan, ReadPlan};
use crate::site::{NoRules, Plain, ResultOf, Site};
use crate::target::{Target, TargetSet};

static READ: Site = Site::new("row", "row:<id>")
    .ttl_millis(1_000)
    .grace_millis(60_000);
static WRITE: Site = Site::new("update", "row:<id>");

fn key(id: u64) -> Key {
    Key::render("dev_", |key| {
        key.text("row:").value(&id);
    })
}

fn target(id: u64) -> Target {
    Target::Key(key(id))
}

/// Reads row 1, whose current value is `value`.
async fn read(cache: &Cache, value: u32) -> u32 {
    let cache = Used::named(cache);
    let call = Some((cache, ReadPlan::new(&READ, key(1))));
    Cache::read::<Plain<u32>>(call, NoRules, pin!(async { value })).await
}

/// Writes row 1 behind a fence.
async fn write(cache: &Cache, outcome: Result<(), ()>) {
    let plan = EvictPlan {
        targets: vec![target(1)],
        fence: true,
        ..EvictPlan::new(&WRITE)
    };
    let call = (Used::named(cache), plan);
    let body = pin!(async { outcome });
    let _ = Cache::evict::<ResultOf<(), ()>>(call, body).await;
}

fn misses(cache: &Cache, reason: &str) -> u64 {
    let reasons = cache.stats().total.misses_by_reason;
    reasons.get(reason).copied().unwrap_or(0)
}

#[test]
fn a_target_is_kept_once() {
    let mut targets = TargetSet::default();

    for _ in 0..10_000 {
        let pattern = Pattern::parse("dev_", "row:*").expect("a pattern");
        targets.collect(&[target(1), Target::Pattern(pattern)], 10);
    }

    assert_eq!(targets.len(), 2);
    assert!(targets.covers(&key(7)));
    assert_eq!(targets.into_vec().len(), 2);
}

#[test]
fn too_many_targets_become_all_entries() {
    let mut targets = TargetSet::default();

    targets.collect(&(0..10).map(target).collect::<Vec<_>>(), 10);
    assert!(!targets.covers(&key(99)));
    targets.collect(&(0..11).map(target).collect::<Vec<_>>(), 10);

    assert!(targets.covers(&key(99)));
    assert_eq!(targets.into_vec(), [Target::All]);
}

#[tokio::test]
async fn a_stale_value_is_served_and_not_refreshed() {
    let config = Config::default();
    let clock = config.clock.clone();
    let (cache, scope) = (Cache::local(config), CacheScope::new());
    read(&cache, 1).await;
    clock.advance(Duration::from_secs(2));

    assert_eq!(scope.run(read(&cache, 2)).await, 1);

    assert_eq!(cache.stats().total.refreshes, 0);
    assert_eq!(read(&cache, 3).await, 3, "refreshed outside of the scope");
    scope.rollback();
}

#[tokio::test]
async fn a_fenced_process_that_dies_between_the_commits_leaves_nothing_stale() {
    let config = Config::default();
    let (clock, fence_ttl) = (config.clock.clone(), config.fence_ttl);
    let cache = Cache::local(config);
    read(&cache, 1).await;

    let scope = CacheScope::new();
    scope.run(write(&cache, Ok(()))).await;
    assert_eq!(read(&cache, 1).await, 1, "a reader before the commit");
    std::mem::forget(scope);
    clock.advance(fence_ttl + Duration::from_millis(1));

    assert_eq!(misses(&cache, "fenced"), 1);
    assert_eq!(read(&cache, 2).await, 2);
}

#[tokio::test]
async fn a_failed_step_keeps_the_fence_of_another_step() {
    let (cache, scope) = (Cache::memory(), CacheScope::new());

    scope.run(write(&cache, Ok(()))).await;
    scope.run(write(&cache, Err(()))).await;
    read(&cache, 1).await;

    assert_eq!(misses(&cache, "fenced"), 1);
    assert_eq!(scope.commit().await, Evicted::Applied { keys: 1 });
}

#[test]
fn a_scope_needs_no_runtime_in_memory_mode() {
    let cache = Cache::memory();

    let evicted = at_once(async {
        let scope = CacheScope::new();
        read(&cache, 1).await;
        scope.run(write(&cache, Ok(()))).await;
        drop(scope);
        assert_eq!(read(&cache, 2).await, 2);

        let scope = CacheScope::default();
        scope.run(write(&cache, Ok(()))).await;
        scope.commit().await
    });

    assert_eq!(evicted, Evicted::Applied { keys: 1 });
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the scope must not wait"),
    }
}

#[test]
fn a_scope_moves_with_its_task() {
    fn goes<T: Send>(what: T) -> T {
        what
    }
    fn is_shared<T: Sync>(_: &T) {}
    let (cache, scope) = (Cache::memory(), CacheScope::new());

    is_shared(&scope);
    drop(goes(scope.run(cache.clear())));
    drop(goes(goes(scope).commit()));
}
