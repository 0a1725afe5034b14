//! A body knows its declared return type and keeps its own control flow.

use cache_runtime::{cache_evict, cache_put, cacheable};

use crate::lab::{Event, Lab};

#[derive(Debug, PartialEq, Eq)]
struct Failed;

impl From<std::num::ParseIntError> for Failed {
    fn from(_: std::num::ParseIntError) -> Self {
        Self
    }
}

#[tokio::test]
async fn a_bare_none_and_question_marks_are_inferred_from_the_signature() {
    #[cacheable(key = "nothing", cache = lab.cache)]
    async fn nothing(lab: &Lab) -> Result<Option<Event>, Failed> {
        Ok(None)
    }
    #[cacheable(key = "sum:<one>:<other>", cache = lab.cache)]
    async fn sum(lab: &Lab, one: &str, other: &str) -> Result<i64, Failed> {
        let (one, other): (i64, i64) = (one.parse()?, other.parse()?);
        Ok(one + other)
    }
    #[cacheable(key = "collected", cache = lab.cache)]
    async fn collected(lab: &Lab) -> Vec<u8> {
        (1..=3).collect()
    }
    let lab = Lab::new();

    assert_eq!(nothing(&lab).await, Ok(None));
    assert_eq!(sum(&lab, "1", "2").await, Ok(3));
    assert_eq!(sum(&lab, "1", "x").await, Err(Failed));
    assert_eq!(collected(&lab).await, [1, 2, 3]);
}

#[tokio::test]
async fn an_early_return_is_stored() {
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn event(lab: &Lab, id: i64) -> Option<Event> {
        lab.run();
        for candidate in 0.. {
            if candidate == id {
                return Some(Event::new(candidate));
            }
        }
        None
    }
    let lab = Lab::new();

    assert_eq!(event(&lab, 3).await, Some(Event::new(3)));
    assert_eq!(event(&lab, 3).await, Some(Event::new(3)));

    assert_eq!(lab.runs(), 1);
}

#[tokio::test]
async fn a_body_can_consume_an_argument_of_the_key() {
    #[cache_put(key = "event:<event.id>:<event.title>", cache = lab.cache)]
    async fn save(lab: &Lab, event: Event) -> Event {
        event
    }
    let lab = Lab::new();

    save(&lab, Event::new(1)).await;

    assert_eq!(
        lab.cache.get::<Event>("event:1:event%201").await,
        Some(Event::new(1))
    );
}

#[tokio::test]
async fn a_body_can_consume_an_argument_of_a_later_eviction() {
    #[cache_put(key = "<tenant>:event:<id>", cache = lab.cache)]
    async fn save(lab: &Lab, tenant: &str, id: i64) -> Event {
        Event::new(id)
    }
    #[cache_evict(key = "<tenant>:event:<return.id>", cache = lab.cache)]
    async fn change(lab: &Lab, tenant: String, event: Event) -> Result<Event, Failed> {
        drop(tenant);
        Ok(event)
    }
    let lab = Lab::new();
    save(&lab, "a", 1).await;
    save(&lab, "b", 1).await;

    change(&lab, "a".to_owned(), Event::new(1))
        .await
        .expect("changed");

    assert!(!lab.holds("a:event:1").await);
    assert!(lab.holds("b:event:1").await);
}

#[tokio::test]
async fn a_body_that_ends_in_a_panic_compiles() {
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn event(lab: &Lab, id: i64) -> Event {
        if id == 0 {
            return Event::new(id);
        }
        panic!("no such event")
    }
    let lab = Lab::new();

    assert_eq!(event(&lab, 0).await, Event::new(0));
}
