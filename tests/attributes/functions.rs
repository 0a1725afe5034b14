//! Free functions: generics, lifetimes, borrowed and pattern arguments.

use std::fmt::Display;

use cache_runtime::{KeyPart, KeyWriter, cacheable};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lab::{Event, Lab};

#[tokio::test]
async fn a_second_call_is_a_hit_and_another_argument_is_a_miss() {
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn event(lab: &Lab, id: i64) -> Event {
        lab.run();
        Event::new(id)
    }
    let lab = Lab::new();

    let first = event(&lab, 1).await;
    let second = event(&lab, 1).await;
    let other = event(&lab, 2).await;

    assert_eq!(
        (first, second, other),
        (Event::new(1), Event::new(1), Event::new(2))
    );
    assert_eq!(lab.runs(), 2);
    assert_eq!(lab.cache.get::<Event>("event:1").await, Some(Event::new(1)));
}

#[tokio::test]
async fn a_generic_function_with_a_where_clause_is_cached() {
    #[cacheable(key = "largest:<name>", ignore = [values], any_type, cache = lab.cache)]
    async fn largest<K, T, const N: usize>(lab: &Lab, name: K, values: [T; N]) -> Option<T>
    where
        K: KeyPart + Send,
        T: Serialize + DeserializeOwned + Ord + Send,
    {
        lab.run();
        drop(name);
        values.into_iter().max()
    }
    let lab = Lab::new();

    assert_eq!(largest(&lab, "a", [1, 3, 2]).await, Some(3));
    assert_eq!(largest(&lab, String::from("a"), [9]).await, Some(3));
    assert_eq!(
        largest(&lab, 7_u8, ["x".to_owned()]).await.as_deref(),
        Some("x")
    );

    assert_eq!(lab.runs(), 2);
}

#[tokio::test]
async fn borrowed_arguments_and_named_lifetimes_are_accepted() {
    #[cacheable(key = "page:<path>:<ids.len()>", cache = lab.cache)]
    async fn page<'a, 'b: 'a>(lab: &'a Lab, path: &'b str, ids: &[i64]) -> Vec<String> {
        lab.run();
        ids.iter().map(|id| format!("{path}/{id}")).collect()
    }
    let lab = Lab::new();

    let first = page(&lab, "events", &[1, 2]).await;
    let second = page(&lab, "events", &[3, 4]).await;

    assert_eq!(first, ["events/1", "events/2"]);
    assert_eq!(second, first);
    assert_eq!(lab.runs(), 1);
}

#[tokio::test]
async fn destructured_arguments_are_accepted() {
    struct Path<T>(T);
    struct Page {
        number: u32,
        size: u32,
    }

    #[cacheable(key = "events:<id>:<page>:<size>:<tenant>", cache = lab.cache)]
    async fn list(
        lab: &Lab,
        Path(id): Path<i64>,
        Page { number: page, size }: Page,
        (tenant, _): (&str, bool),
    ) -> String {
        lab.run();
        format!("{id} {page} {size} {tenant}")
    }
    let lab = Lab::new();

    list(&lab, Path(1), Page { number: 2, size: 3 }, ("a", true)).await;
    let again = list(&lab, Path(1), Page { number: 2, size: 3 }, ("a", false)).await;

    assert_eq!(again, "1 2 3 a");
    assert_eq!(lab.runs(), 1);
    assert!(lab.holds("events:1:2:3:a").await);
}

#[tokio::test]
async fn impl_trait_and_mutable_arguments_are_accepted() {
    #[cacheable(key = "sum:<start>:<label.to_string()>", ignore = [more], any_type, cache = lab.cache)]
    async fn sum(
        lab: &Lab,
        mut start: u64,
        label: impl Display + Send,
        more: impl Iterator<Item = u64> + Send,
    ) -> u64 {
        lab.run();
        drop(label);
        for value in more {
            start += value;
        }
        start
    }
    let lab = Lab::new();

    assert_eq!(sum(&lab, 1, "a", [2, 3].into_iter()).await, 6);
    assert_eq!(sum(&lab, 1, 'a', std::iter::empty()).await, 6);

    assert_eq!(lab.runs(), 1);
}

#[tokio::test]
async fn a_key_can_contain_a_user_defined_type() {
    struct EventId(i64);

    impl KeyPart for EventId {
        fn write_key(&self, key: &mut KeyWriter<'_>) {
            key.display(&self.0);
        }
    }

    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn event(lab: &Lab, id: EventId) -> Event {
        lab.run();
        Event::new(id.0)
    }
    let lab = Lab::new();

    event(&lab, EventId(5)).await;
    event(&lab, EventId(5)).await;

    assert_eq!(lab.runs(), 1);
    assert!(lab.holds("event:5").await);
}

#[tokio::test]
async fn a_function_can_call_itself() {
    #[cacheable(key = "factorial:<n>", cache = lab.cache)]
    async fn factorial(lab: &Lab, n: u64) -> u64 {
        lab.run();
        if n == 0 {
            1
        } else {
            n * Box::pin(factorial(lab, n - 1)).await
        }
    }
    let lab = Lab::new();

    assert_eq!(factorial(&lab, 5).await, 120);
    assert_eq!(factorial(&lab, 4).await, 24);

    assert_eq!(lab.runs(), 6);
}

#[tokio::test]
async fn the_future_is_send_if_the_body_is() {
    #[cacheable(key = "event:<id>", cache = lab.cache, ttl = 60, unless = |event| event.is_none())]
    async fn event(lab: Lab, id: i64) -> Result<Option<Event>, std::fmt::Error> {
        tokio::task::yield_now().await;
        lab.run();
        Ok(Some(Event::new(id)))
    }
    let lab = Lab::new();

    let answer = tokio::spawn(event(lab.clone(), 1)).await.expect("no panic");

    assert_eq!(answer, Ok(Some(Event::new(1))));
}

#[tokio::test]
async fn a_function_without_arguments_uses_the_installed_cache() {
    #[cacheable(key = "leaderboard")]
    async fn leaderboard() -> Vec<u32> {
        vec![3, 2, 1]
    }
    let lab = Lab::new();
    lab.cache.install().expect("no other cache is installed");

    leaderboard().await;

    assert_eq!(
        lab.cache.get::<Vec<u32>>("leaderboard").await,
        Some(vec![3, 2, 1])
    );

    lab.cache.install().expect("the same cache");
    let second = Lab::new().cache.install().expect_err("another cache");
    assert_eq!(
        second.to_string(),
        "another cache is already installed and stays installed; in tests, wrap the calls in `cache.run(async { … })`; in a \
         service, install one cache and use `cache = …` on functions that need another"
    );
}
