//! Callers that stop, types that panic, and evictions of other entries.

use std::sync::atomic::AtomicBool;

use futures_util::poll;
use tokio::time::timeout;

use super::*;
use crate::site::{CacheValue, LocalValue, Outcome};

static STEADY_MEMBER: Site = Site::new("tests::steady_member", "user:<id>")
    .reads()
    .tags("team:<id>")
    .local_millis(5_000)
    .local_outage_serve();

static SHORT: Site = Site::new("tests::short", "user:<id>")
    .reads()
    .ttl_millis(1_000)
    .ttl_jitter(0)
    .local_millis(60_000);

static OPTIONAL: Site = Site::new("tests::optional", "shape:1")
    .reads()
    .none_ttl_millis(60_000)
    .local_millis(5_000);

static PLAIN: Site = Site::new("tests::plain", "shape:1")
    .reads()
    .local_millis(5_000);

/// Calls a function without arguments.
async fn call<O: Outcome<Value: CacheValue + LocalValue>>(
    cache: &Cache,
    site: &'static Site,
    outcome: Option<O>,
    body: impl Future<Output = O::Output>,
) -> O::Output {
    let mut call = ReadCall::by(site, cache);
    let _ = call.key("shape:1");
    let no_tags = |_: &O::Value, _: &mut TagWriter| {};
    let mut call = cacheable_local(call, outcome, |_: &O::Returned| false, no_own_ttl, no_tags);
    let body = pin!(body);
    let call = &mut call;
    Bodied { call, body }.await
}

#[tokio::test]
async fn a_caller_does_not_wait_for_one_that_is_not_polled() {
    let server = server();
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let lab = Lab::warm(proxy.config()).await;
    lab.doubts().lost_track();
    proxy.delay(Duration::from_millis(30));

    let mut asker = pin!(lab.user());
    assert!(poll!(asker.as_mut()).is_pending());
    let waiter = timeout(Duration::from_secs(5), lab.user()).await;

    assert_eq!(waiter.ok(), Some(1));
}

#[tokio::test]
async fn all_callers_of_a_value_share_a_question_that_fails() {
    let server = server();
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let mut lab = Lab::warm(proxy.config()).await;
    lab.site = &STEADY;
    lab.version.store(2, SeqCst);
    lab.doubts().lost_track();
    let peeks = lab.asked("confirm");

    proxy.stall();
    let values = join_all((0..20).map(|_| lab.user())).await;

    assert_eq!((values, lab.asked("confirm")), (vec![1; 20], peeks + 1));
}

#[tokio::test]
async fn an_eviction_of_another_entry_hides_no_value_with_a_tag() {
    let server = server();
    let proxy = FaultProxy::start(&server).expect("a proxy");
    let lab = Lab::warm_as(&STEADY_MEMBER, proxy.config()).await;
    lab.version.store(2, SeqCst);
    proxy.cut();
    until("the outage is noticed", || {
        !lab.cache.inner.guard.is_connected()
    })
    .await;

    assert_eq!(lab.cache.delete("other:9").await, Evicted::Journaled);
    assert_eq!(lab.user().await, 1);
    assert_eq!(lab.cache.delete_tagged("team:1").await, Evicted::Journaled);
    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn an_entry_that_is_given_a_shorter_time_ends_in_the_process_too() {
    let clock = Clock::stopped();
    let lab = Lab::new(Config::default().clock(clock.clone())).await;
    for _ in 0..3 {
        lab.user().await;
    }
    lab.version.store(2, SeqCst);

    assert!(lab.cache.expire("user:1", 1_u64).await);
    clock.advance(Duration::from_millis(1_500));

    assert_eq!(lab.user().await, 2);
}

#[tokio::test]
async fn a_value_that_replaces_an_expired_one_does_not_count_as_an_eviction() {
    let clock = Clock::stopped();
    let mut lab = Lab::new(Config::default().clock(clock.clone())).await;
    lab.site = &SHORT;

    for _ in 0..3 {
        for _ in 0..3 {
            lab.user().await;
        }
        clock.advance(Duration::from_millis(1_500));
    }

    let local = lab.cache.stats().local.expect("it is used");
    assert_eq!((lab.loads(), local.evicted), (3, 0));
}

static PANICS: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Serialize, Deserialize)]
struct Brittle(u32);

impl Clone for Brittle {
    fn clone(&self) -> Self {
        assert!(!PANICS.load(SeqCst), "it cannot be cloned");
        Self(self.0)
    }
}

#[tokio::test]
async fn a_value_that_panics_when_it_is_cloned_is_read_from_the_store() {
    let cache = Cache::memory();
    let read = || {
        let outcome = Some(Returns::<Brittle>::new().__outcome());
        call(&cache, &PLAIN, outcome, async { Brittle(7) })
    };
    for _ in 0..3 {
        read().await;
    }
    let hits = cache.stats().total.hits_local;

    PANICS.store(true, SeqCst);
    let Brittle(value) = read().await;

    assert_eq!((value, hits > 0), (7, true));
    assert_eq!(cache.stats().total.hits_local, hits);
}

#[tokio::test]
async fn a_value_of_another_shape_is_no_hit() {
    let cache = Cache::memory();
    for _ in 0..4 {
        let outcome = Some(Returns::<Option<u32>>::new().__outcome());
        call(&cache, &OPTIONAL, outcome, async { None }).await;
    }
    let hits = cache.stats().total.hits_local;

    let outcome = Some(Returns::<u32>::new().__outcome());
    let value = call(&cache, &PLAIN, outcome, async { 7 }).await;

    assert_eq!((value, hits > 0), (7, true));
    assert_eq!(cache.stats().total.hits_local, hits);
}
