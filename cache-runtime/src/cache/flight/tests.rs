use std::sync::LazyLock;
use std::sync::atomic::AtomicU32;

use super::*;
use crate::tag::Tag;

const LEASE: Stamp = [7; 8];

fn flights() -> (Flights, Arc<AtomicU32>) {
    let released = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&released);
    let flights = Flights::new(Duration::from_secs(30), move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    (flights, released)
}

fn observation() -> Observation {
    Observation {
        since: Instant::now(),
        observed: Observed::Nothing,
    }
}

static KEY: LazyLock<Key> = LazyLock::new(|| {
    Key::render("dev_", |key| {
        key.text("event:1");
    })
});

fn lead<'a>(flights: &'a Flights) -> Leader<'a> {
    match flights.join(&KEY, &[], observation()) {
        Turn::Lead(leader) => leader,
        Turn::Wait(_) => panic!("another caller leads already"),
    }
}

fn wait<'a>(flights: &'a Flights) -> Waiter<'a> {
    match flights.join(&KEY, &[], observation()) {
        Turn::Wait(waiter) => waiter,
        Turn::Lead(_) => panic!("nobody leads"),
    }
}

#[tokio::test]
async fn waiters_get_the_result() {
    let (flights, _) = flights();
    let mut leader = lead(&flights);
    let waiter = wait(&flights);

    leader.land(Arc::from(*b"entry"));

    assert!(matches!(waiter.arrival().await, Arrival::Landed(entry) if *entry == *b"entry"));
    drop(leader);
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn a_dropped_leader_passes_its_lease_to_the_next_waiter() {
    let (flights, released) = flights();
    let leader = lead(&flights);
    leader.set_lease(LEASE);
    let (first, second) = (wait(&flights), wait(&flights));

    drop(leader);

    let Arrival::Lead(mut next) = first.arrival().await else {
        panic!("the first waiter takes over")
    };
    assert_eq!(next.lease(), Some(LEASE));
    next.land(Arc::from(*b"entry"));
    assert!(matches!(second.arrival().await, Arrival::Landed(_)));
    assert_eq!(released.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn after_a_failed_load_one_waiter_takes_over_and_the_others_load_alone() {
    let (flights, _) = flights();
    let leader = lead(&flights);
    let (first, second) = (wait(&flights), wait(&flights));

    assert_eq!(leader.give_up(), None);

    let next = first.arrival().await;
    assert!(matches!(next, Arrival::Lead(_)));
    assert!(matches!(second.arrival().await, Arrival::Alone));
    drop(next);
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn a_lease_without_a_successor_is_released() {
    let (flights, released) = flights();
    let leader = lead(&flights);
    leader.set_lease(LEASE);

    drop(leader);

    assert_eq!(released.load(Ordering::Relaxed), 1);
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn the_last_waiter_releases_the_lease_when_it_leaves() {
    let (flights, released) = flights();
    let leader = lead(&flights);
    leader.set_lease(LEASE);
    let waiter = wait(&flights);

    drop(leader);
    drop(waiter);

    assert_eq!(released.load(Ordering::Relaxed), 1);
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn a_caller_after_an_eviction_begins_a_new_load() {
    let (flights, _) = flights();
    let mut invalidated = lead(&flights);
    let waiter = wait(&flights);

    flights.invalidate(&[Target::Key(KEY.clone())]);

    assert!(invalidated.is_invalidated());
    let fresh = lead(&flights);
    assert!(!fresh.is_invalidated());
    invalidated.land(Arc::from(*b"old"));
    assert!(matches!(waiter.arrival().await, Arrival::Landed(_)));
    drop(invalidated);
    assert_eq!(flights.len(), 1);
}

#[tokio::test]
async fn a_caller_after_an_eviction_of_a_tag_or_of_its_family_begins_a_new_load() {
    let tag = |text| Tag::parse("dev_", text).expect("a valid tag");
    let evict = |text| [Target::Tag(tag(text))];
    for hash in [tag("organizer:7").key().hash(), family_hash("organizer")] {
        let ((flights, _), tags) = (flights(), [hash]);
        let join = || flights.join(&KEY, &tags, observation());
        let Turn::Lead(first) = join() else {
            panic!("another caller leads already");
        };

        flights.invalidate(&evict("place:7"));
        assert!(!first.is_invalidated() && matches!(join(), Turn::Wait(_)));
        flights.invalidate(&evict("organizer:7"));

        assert!(first.is_invalidated() && matches!(join(), Turn::Lead(_)));
    }
}

#[tokio::test]
async fn a_bounded_number_of_tags_is_remembered_and_none_is_missed() {
    let (flights, _) = flights();
    let first = lead(&flights);

    for tag in 0..1_000 {
        drop(flights.join(&KEY, &[tag], observation()));
    }

    let remembered = |loads: &Loads| loads.tags.len();
    assert_eq!(
        flights.shard(&KEY).get(&KEY).map(remembered),
        Some(MAX_TAGS)
    );
    assert!(!first.is_invalidated());
    let tag = Tag::parse("dev_", "organizer:7").expect("a valid tag");
    flights.invalidate(&[Target::Tag(tag)]);
    assert!(first.is_invalidated());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_see_the_lease_begins_a_new_load() {
    let (flights, _) = flights();
    let old = lead(&flights);
    old.set_snapshot(Instant::now(), Some(LEASE));
    let early = observation();
    tokio::time::advance(Duration::from_millis(1)).await;
    let saw = |saw| Observation {
        observed: saw,
        ..observation()
    };

    for joins in [early, saw(Observed::Entry(LEASE)), saw(Observed::Unknown)] {
        assert!(matches!(flights.join(&KEY, &[], joins), Turn::Wait(_)));
    }
    assert!(matches!(
        flights.join(&KEY, &[], saw(Observed::Nothing)),
        Turn::Lead(_)
    ));
    drop(old);
    assert_eq!(flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_value_found_before_a_call_began_is_not_returned_to_it() {
    let (flights, _) = flights();
    let mut leader = lead(&flights);
    let asked = Instant::now();
    let early = wait(&flights);
    tokio::time::advance(Duration::from_millis(1)).await;
    let late = wait(&flights);

    leader.set_snapshot(asked, None);
    leader.land(Arc::from(*b"found"));

    assert!(matches!(early.arrival().await, Arrival::Landed(_)));
    assert!(matches!(late.arrival().await, Arrival::Lead(_)));
}

/// Begins a load and keeps all later callers from joining it.
fn lead_and_invalidate<'a>(flights: &'a Flights) -> Leader<'a> {
    let leader = lead(flights);
    flights.invalidate(&[Target::Key(KEY.clone())]);
    leader
}

#[tokio::test]
async fn a_third_load_begins_when_one_of_two_ends_and_serves_all_that_waited() {
    let (flights, _) = flights();
    let (first, second) = (lead_and_invalidate(&flights), lead_and_invalidate(&flights));
    let (third, fourth) = (wait(&flights), wait(&flights));
    flights.invalidate(&[Target::Key(KEY.clone())]);
    let mut third = std::pin::pin!(third.arrival());
    assert!(futures_util::poll!(&mut third).is_pending());

    drop(first);

    let Arrival::Lead(mut next) = third.await else {
        panic!("the first waiter leads")
    };
    assert!(!next.is_invalidated(), "it began after the eviction");
    assert!(matches!(
        flights.join(&KEY, &[], observation()),
        Turn::Wait(_)
    ));
    next.land(Arc::from(*b"entry"));
    assert!(matches!(fourth.arrival().await, Arrival::Landed(_)));
    drop((second, next));
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn the_next_load_begins_when_a_body_ends_before_its_value_is_stored() {
    let (flights, _) = flights();
    let (mut first, _second) = (lead_and_invalidate(&flights), lead_and_invalidate(&flights));
    let third = wait(&flights);

    first.land(Arc::from(*b"old"));

    assert!(matches!(third.arrival().await, Arrival::Lead(_)));
    drop(first);
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_any_more_does_not_begin() {
    let (flights, _) = flights();
    let (first, second) = (lead_and_invalidate(&flights), lead_and_invalidate(&flights));
    drop(wait(&flights));

    drop(first);

    assert_eq!(flights.len(), 1);
    drop(second);
    assert_eq!(flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_for_the_next_load_does_not_wait_for_stuck_ones() {
    let (flights, released) = flights();
    let (first, second) = (lead_and_invalidate(&flights), lead_and_invalidate(&flights));
    first.set_lease(LEASE);
    let waiter = wait(&flights);
    for leader in [&first, &second] {
        // Each is woken, and its task does not poll it.
        std::task::Wake::wake(leader.pulse());
    }

    let arrival = waiter.arrival().await;

    assert!(matches!(arrival, Arrival::Lead(_)));
    assert_eq!(first.lease(), None);
    assert_eq!(released.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn loads_that_are_too_old_do_not_delay_the_next() {
    let (flights, _) = flights();
    let _hung = (lead_and_invalidate(&flights), lead_and_invalidate(&flights));
    tokio::time::advance(Duration::from_secs(29)).await;
    let waiter = wait(&flights);
    tokio::time::advance(Duration::from_secs(1)).await;

    let fresh = lead(&flights);

    assert!(futures_util::poll!(std::pin::pin!(waiter.arrival())).is_pending());
    drop(fresh);
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_one_waiter_begins_a_load_and_the_rest_wait_for_it() {
    let (flights, _) = flights();
    let hung = lead(&flights);
    tokio::time::advance(Duration::from_secs(1)).await;
    let (first, second) = (wait(&flights), wait(&flights));

    let Arrival::Lead(mut relief) = first.arrival().await else {
        panic!("the first waiter begins another load")
    };
    relief.land(Arc::from(*b"entry"));

    assert_eq!(relief.relieves(), Some(Relieved::Overdue));
    assert!(!hung.abandon(), "the load is already abandoned");
    assert!(matches!(second.arrival().await, Arrival::Landed(_)));
}

#[tokio::test(start_paused = true)]
async fn no_caller_waits_longer_than_the_load_deadline() {
    let (flights, _) = flights();
    let _hung = lead(&flights);
    tokio::time::advance(Duration::from_secs(10)).await;
    let came = Instant::now();
    let (first, second) = (wait(&flights), wait(&flights));
    let Arrival::Lead(_hung_as_well) = first.arrival().await else {
        panic!("the first waiter begins another load")
    };

    let arrival = second.arrival().await;

    assert!(matches!(arrival, Arrival::Alone));
    assert_eq!(came.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_load_does_not_block_other_loads() {
    let (flights, _) = flights();
    let hung = lead(&flights);

    assert!(hung.abandon());

    let next = lead(&flights);
    assert_eq!(next.relieves(), None, "it was already reported");
    drop(hung);
    assert_eq!(flights.len(), 1);
}
