//! If the return type is a type parameter, the concrete type decides what is stored.

use std::fmt::Debug;
use std::marker::PhantomData;

use cache_runtime::{cache_evict, cache_put, cacheable};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lab::Lab;

type Ok2<T> = Result<T, String>;

/// The bounds of a row.
trait Row: Clone + Debug + PartialEq + Serialize + DeserializeOwned {}

impl<T: Clone + Debug + PartialEq + Serialize + DeserializeOwned> Row for T {}

/// A type with an associated type.
trait Query {
    type Out: Row;
}

struct Asks<T>(PhantomData<T>);

impl<T: Row> Query for Asks<T> {
    type Out = T;
}

#[cacheable(key = "row:<id>", none_ttl = 60, any_type, cache = lab.cache)]
async fn parameter<T: Row>(lab: &Lab, id: &str, _row: &T) -> T {
    lab.run();
    _row.clone()
}

#[cacheable(key = "row:<id>", any_type, cache = lab.cache)]
async fn without_none<T: Row>(lab: &Lab, id: &str, _row: &T) -> T {
    lab.run();
    _row.clone()
}

#[cacheable(key = "row:<id>", none_ttl = 60, any_type, cache = lab.cache)]
async fn in_result<T: Row>(lab: &Lab, id: &str, _row: &T) -> Result<T, String> {
    lab.run();
    Ok(_row.clone())
}

#[cacheable(key = "row:<id>", none_ttl = 60, any_type, cache = lab.cache)]
async fn in_option<T: Row>(lab: &Lab, id: &str, _row: &T) -> Option<T> {
    lab.run();
    Some(_row.clone())
}

#[cacheable(key = "row:<id>", none_ttl = 60, any_type, cache = lab.cache)]
async fn associated<Q: Query>(lab: &Lab, id: &str, _row: &Q::Out) -> Q::Out {
    lab.run();
    _row.clone()
}

#[cache_put(key = "row:<id>", none_ttl = 60, any_type, cache = lab.cache)]
async fn put<T: Row>(lab: &Lab, id: &str, _row: &T) -> T {
    _row.clone()
}

#[cache_evict(key = "row:<id>", cache = lab.cache)]
async fn evict<T: Row>(lab: &Lab, id: &str, _row: &T) -> T {
    _row.clone()
}

/// Its return type has no bounds.
#[cache_evict(key = "row:<id>", cache = lab.cache)]
async fn evict_anything<T>(lab: &Lab, id: &str, _row: T) -> T {
    _row
}

struct Store<T> {
    lab: Lab,
    row: T,
}

impl<T: Row> Store<T> {
    #[cacheable(key = "row:<id>", none_ttl = 60, cache = self.lab.cache)]
    async fn find(&self, id: &str) -> T {
        self.lab.run();
        self.row.clone()
    }
}

/// Calls each function three times. All calls must return `row`. Returns which functions stored it.
async fn runs<T: Row>(row: T) -> [usize; 4] {
    let lab = Lab::new();
    let store = Store {
        lab: lab.clone(),
        row: row.clone(),
    };
    for _ in 0..3 {
        assert_eq!(parameter(&lab, "1", &row).await, row);
        assert_eq!(without_none(&lab, "2", &row).await, row);
        assert_eq!(associated::<Asks<T>>(&lab, "3", &row).await, row);
        assert_eq!(store.find("4").await, row);
    }
    let mut runs = [0; 4];
    for (runs, id) in runs.iter_mut().zip(["1", "2", "3", "4"]) {
        *runs = usize::from(lab.holds(&format!("row:{id}")).await);
    }
    let expected: usize = runs.iter().map(|held| 3 - 2 * held).sum();
    assert_eq!(lab.runs(), expected);
    runs
}

#[tokio::test]
async fn an_err_is_not_stored_if_the_parameter_is_a_result() {
    assert_eq!(runs(Ok2::Ok(7_u8)).await, [1; 4]);
    assert_eq!(runs(Ok2::<u8>::Err("away".into())).await, [0; 4]);
    assert_eq!(runs(Ok2::<Option<u8>>::Err("away".into())).await, [0; 4]);
}

#[tokio::test]
async fn a_none_is_stored_only_with_none_ttl_if_the_parameter_is_an_option() {
    assert_eq!(runs(Some(7_u8)).await, [1; 4]);
    assert_eq!(runs(None::<u8>).await, [1, 0, 1, 1]);
    assert_eq!(runs(Ok2::Ok(Some(7_u8))).await, [1; 4]);
    assert_eq!(runs(Ok2::<Option<u8>>::Ok(None)).await, [1, 0, 1, 1]);
}

#[tokio::test]
async fn only_the_outermost_layers_are_inspected() {
    assert_eq!(runs(Some(None::<u8>)).await, [1; 4]);
    assert_eq!(runs(Ok2::Ok(Ok2::<u8>::Err("away".into()))).await, [1; 4]);
    assert_eq!(runs(Ok2::Ok(Some(None::<u8>))).await, [1; 4]);
    assert_eq!(runs(Some(Ok2::<u8>::Err("away".into()))).await, [1; 4]);
    assert_eq!(runs(Ok2::Ok(())).await, [1; 4]);
}

#[tokio::test]
async fn a_none_of_a_parameter_counts_inside_result_but_not_inside_option() {
    let lab = Lab::new();
    for _ in 0..2 {
        assert_eq!(in_result(&lab, "1", &None::<u8>).await, Ok(None));
        assert_eq!(in_result(&lab, "2", &Some(1_u8)).await, Ok(Some(1)));
        assert_eq!(in_option(&lab, "3", &None::<u8>).await, Some(None));
        let err = Ok2::<u8>::Err("away".into());
        assert_eq!(in_result(&lab, "4", &err).await, Ok(err));
    }

    assert_eq!(lab.runs(), 4);
    assert_eq!(lab.cache.stats().total.hits_none, 1);
}

#[tokio::test]
async fn a_parameter_and_a_concrete_type_share_the_entry() {
    #[cacheable(key = "row:<id>", none_ttl = 60, cache = lab.cache)]
    async fn spelled(lab: &Lab, id: &str) -> Result<Option<u8>, String> {
        lab.run();
        Err("the other function stored the entry".to_owned())
    }
    let lab = Lab::new();
    let _ = parameter(&lab, "1", &Ok2::Ok(Some(7_u8))).await;
    let _ = parameter(&lab, "2", &Ok2::Ok(vec![7_u8])).await;

    assert_eq!(spelled(&lab, "1").await, Ok(Some(7)));

    assert_eq!(lab.cache.get::<u8>("row:1").await, Some(7));
    assert_eq!(lab.cache.get::<Vec<u8>>("row:2").await, Some(vec![7]));
}

#[tokio::test]
async fn a_put_of_a_parameter_evicts_on_err() {
    let lab = Lab::new();
    for id in ["1", "2", "3"] {
        lab.cache.set(&format!("row:{id}"), &1_u8, 60).await;
    }

    let _ = put(&lab, "1", &Ok2::<u8>::Err("away".into())).await;
    let _ = put(&lab, "2", &Ok2::Ok(7_u8)).await;
    put(&lab, "3", &None::<u8>).await;

    assert!(!lab.holds("row:1").await);
    assert_eq!(lab.cache.get::<u8>("row:2").await, Some(7));
    assert_eq!(lab.cache.get::<u8>("row:3").await, None);
}

#[tokio::test]
async fn an_eviction_evicts_nothing_if_its_parameter_is_an_err() {
    #[derive(Clone)]
    struct NoData;
    let lab = Lab::new();
    let set = async || lab.cache.set("row:1", &1_u8, 60).await;

    set().await;
    let _ = evict(&lab, "1", &Ok2::<u8>::Err("away".into())).await;
    let _ = evict_anything(&lab, "1", Err::<NoData, _>(NoData)).await;
    assert!(lab.holds("row:1").await);

    let _ = evict(&lab, "1", &Ok2::Ok(7_u8)).await;
    assert!(!lab.holds("row:1").await);
    for result in [Ok(NoData), Ok(NoData)] {
        set().await;
        let _ = evict_anything(&lab, "1", result as Result<_, NoData>).await;
        assert!(!lab.holds("row:1").await);
    }
    set().await;
    evict_anything(&lab, "1", None::<NoData>).await;
    assert!(!lab.holds("row:1").await);
}

#[tokio::test]
async fn a_user_defined_type_named_result_is_a_value() {
    #[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
    enum Result<T> {
        Ok(T),
        Err(String),
    }

    assert_eq!(runs(Result::<u8>::Err("a value".into())).await, [1; 4]);
}
