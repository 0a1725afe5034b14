//! The return type decides what is stored, whatever its name is.

use std::num::ParseIntError;
use std::sync::Arc;

use cache_runtime::cacheable;

use crate::lab::{Event, Lab};

/// Neither `Clone` nor `'static` nor an `Error`.
#[derive(Debug)]
struct Borrowed<'a>(#[expect(dead_code, reason = "only its lifetime matters")] &'a str);

type Answer<T> = Result<T, ParseIntError>;
type Found = Option<Event>;
type MaybeFound = Answer<Found>;
type Shared = Arc<Event>;

#[tokio::test]
async fn a_plain_value_is_stored() {
    #[cacheable(key = "n", cache = lab.cache)]
    async fn number(lab: &Lab) -> usize {
        lab.run()
    }
    let lab = Lab::new();

    assert_eq!((number(&lab).await, number(&lab).await), (1, 1));
}

#[tokio::test]
async fn some_is_stored_and_none_is_not() {
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn event(lab: &Lab, id: i64) -> Option<Event> {
        lab.run();
        (id > 0).then(|| Event::new(id))
    }
    let lab = Lab::new();

    assert_eq!(
        (event(&lab, 1).await, event(&lab, 1).await),
        (Some(Event::new(1)), Some(Event::new(1)))
    );
    assert_eq!((event(&lab, 0).await, event(&lab, 0).await), (None, None));

    assert_eq!(lab.runs(), 3);
}

#[tokio::test]
async fn none_is_stored_with_none_ttl() {
    #[cacheable(key = "option", none_ttl = 30, cache = lab.cache)]
    async fn option(lab: &Lab) -> Option<Event> {
        lab.run();
        None
    }
    #[cacheable(key = "result", none_ttl = "30s", cache = lab.cache)]
    async fn result(lab: &Lab) -> Result<Option<Event>, Borrowed<'static>> {
        lab.run();
        Ok(None)
    }
    let lab = Lab::new();

    assert_eq!((option(&lab).await, option(&lab).await), (None, None));
    assert_eq!(result(&lab).await.expect("none"), None);
    assert_eq!(result(&lab).await.expect("none"), None);

    assert_eq!(lab.runs(), 2);
}

#[tokio::test]
async fn ok_is_stored_and_err_is_not() {
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn event<'a>(lab: &Lab, id: &'a str) -> Result<Event, Borrowed<'a>> {
        lab.run();
        Ok(Event::new(id.parse().map_err(|_| Borrowed(id))?))
    }
    let lab = Lab::new();
    let (good, bad) = ("1".to_owned(), "x".to_owned());

    assert_eq!(event(&lab, &good).await.expect("an event"), Event::new(1));
    assert_eq!(event(&lab, &good).await.expect("an event"), Event::new(1));
    event(&lab, &bad).await.expect_err("no number");
    event(&lab, &bad).await.expect_err("no number");

    assert_eq!(lab.runs(), 3);
}

#[tokio::test]
async fn a_result_of_an_option_is_inspected_twice() {
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn event(lab: &Lab, id: i64) -> Result<Option<Event>, Borrowed<'_>> {
        lab.run();
        Ok((id > 0).then(|| Event::new(id)))
    }
    let lab = Lab::new();

    for _ in 0..2 {
        assert_eq!(event(&lab, 1).await.expect("found"), Some(Event::new(1)));
        assert_eq!(event(&lab, 0).await.expect("not found"), None);
    }

    assert_eq!(lab.runs(), 3);
    assert_eq!(lab.cache.get::<Event>("event:1").await, Some(Event::new(1)));
}

#[tokio::test]
async fn an_arc_is_stored_as_its_inner_value() {
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn event(lab: &Lab, id: i64) -> Arc<Event> {
        lab.run();
        Arc::new(Event::new(id))
    }
    let lab = Lab::new();

    event(&lab, 1).await;
    assert_eq!(*event(&lab, 1).await, Event::new(1));

    assert_eq!(lab.runs(), 1);
    assert_eq!(lab.cache.get::<Event>("event:1").await, Some(Event::new(1)));
}

#[tokio::test]
async fn an_anyhow_result_is_a_result() {
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn event(lab: &Lab, id: &str) -> anyhow::Result<Event> {
        lab.run();
        Ok(Event::new(id.parse()?))
    }
    let lab = Lab::new();

    for _ in 0..2 {
        event(&lab, "1").await.expect("an event");
        event(&lab, "x").await.expect_err("no number");
    }

    assert_eq!(lab.runs(), 3);
}

#[tokio::test]
async fn a_type_alias_acts_like_its_type() {
    #[cacheable(key = "answer:<id>", cache = lab.cache)]
    async fn answer(lab: &Lab, id: &str) -> Answer<Event> {
        lab.run();
        Ok(Event::new(id.parse()?))
    }
    #[cacheable(key = "found:<id>", cache = lab.cache)]
    async fn found(lab: &Lab, id: i64) -> Found {
        lab.run();
        (id > 0).then(|| Event::new(id))
    }
    #[cacheable(key = "maybe:<id>", cache = lab.cache)]
    async fn maybe(lab: &Lab, id: &str) -> MaybeFound {
        lab.run();
        let id = id.parse()?;
        Ok((id > 0).then(|| Event::new(id)))
    }
    #[cacheable(key = "shared", cache = lab.cache)]
    async fn shared(lab: &Lab) -> Shared {
        lab.run();
        Arc::new(Event::new(1))
    }
    let lab = Lab::new();

    for _ in 0..2 {
        answer(&lab, "1").await.expect("an event");
        answer(&lab, "x").await.expect_err("no number");
    }
    assert_eq!(lab.runs(), 3);

    for _ in 0..2 {
        assert!(found(&lab, 1).await.is_some());
        assert!(found(&lab, 0).await.is_none());
    }
    assert_eq!(lab.runs(), 6);

    for _ in 0..2 {
        assert!(maybe(&lab, "1").await.expect("an answer").is_some());
        assert!(maybe(&lab, "0").await.expect("an answer").is_none());
        maybe(&lab, "x").await.expect_err("no number");
    }
    assert_eq!(lab.runs(), 11);

    shared(&lab).await;
    shared(&lab).await;
    assert_eq!(lab.runs(), 12);
}
