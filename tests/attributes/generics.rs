//! Type and const parameters in keys.

use std::marker::PhantomData;

use cache_runtime::{KeyPart, KeyWriter, cache_evict, cache_put, cacheable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::lab::Lab;

trait Row: Serialize + DeserializeOwned + Send {
    const TABLE: &'static str;

    fn version() -> u32;

    fn of(id: i64) -> Self;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User(i64);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order(i64);

impl Row for User {
    const TABLE: &'static str = "users";

    fn version() -> u32 {
        1
    }

    fn of(id: i64) -> Self {
        Self(id)
    }
}

impl Row for Order {
    const TABLE: &'static str = "orders";

    fn version() -> u32 {
        2
    }

    fn of(id: i64) -> Self {
        Self(id * 100)
    }
}

#[cacheable(key = "<T>:<id>", cache = lab.cache)]
async fn by_name<T: Row>(lab: &Lab, id: i64) -> Vec<Option<T>> {
    lab.run();
    vec![Some(T::of(id))]
}

#[tokio::test]
async fn each_type_in_the_key_has_its_own_entry() {
    let lab = Lab::new();

    for _ in 0..2 {
        assert_eq!(by_name::<User>(&lab, 1).await, [Some(User(1))]);
        assert_eq!(by_name::<Order>(&lab, 1).await, [Some(Order(100))]);
    }

    assert_eq!(lab.runs(), 2);
    let key = format!("{}.User:1", module_path!().replace("::", "."));
    assert!(
        lab.holds(&key).await,
        "the key contains the path of the type: {key}"
    );
}

#[tokio::test]
async fn constants_and_functions_of_a_type_distinguish_entries() {
    #[cacheable(key = "row:<T::TABLE>:<T::version()>:<id>", cache = lab.cache)]
    async fn row<T: Row>(lab: &Lab, id: i64) -> Result<T, std::fmt::Error> {
        lab.run();
        Ok(T::of(id))
    }
    let lab = Lab::new();

    for _ in 0..2 {
        assert_eq!(row::<User>(&lab, 1).await, Ok(User(1)));
        assert_eq!(row::<Order>(&lab, 1).await, Ok(Order(100)));
    }

    assert_eq!(lab.runs(), 2);
    assert!(lab.holds("row:users:1:1").await);
    assert!(lab.holds("row:orders:2:1").await);
}

#[tokio::test]
async fn each_constant_in_the_key_has_its_own_entry() {
    #[cacheable(key = "first:<N>-<FLAG>", cache = lab.cache)]
    async fn first<const N: usize, const FLAG: bool>(lab: &Lab) -> Vec<usize> {
        lab.run();
        (0..N).collect()
    }
    let lab = Lab::new();

    for _ in 0..2 {
        assert_eq!(first::<1, true>(&lab).await, [0]);
        assert_eq!(first::<3, true>(&lab).await, [0, 1, 2]);
        assert_eq!(first::<3, false>(&lab).await, [0, 1, 2]);
    }

    assert_eq!(lab.runs(), 3);
    assert!(lab.holds("first:3-true").await);
}

/// A number whose text in a key does not contain the type `T`.
struct Id<T>(i64, PhantomData<T>);

impl<T> KeyPart for Id<T> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.display(&self.0);
    }
}

#[tokio::test]
async fn a_type_next_to_its_argument_distinguishes_entries() {
    #[cacheable(key = "<T>:<id>", cache = lab.cache)]
    async fn owner<T: Row>(lab: &Lab, id: Id<T>) -> String {
        lab.run();
        format!("{} {}", T::TABLE, id.0)
    }
    let lab = Lab::new();

    for _ in 0..2 {
        assert_eq!(owner(&lab, Id::<User>(1, PhantomData)).await, "users 1");
        assert_eq!(owner(&lab, Id::<Order>(1, PhantomData)).await, "orders 1");
    }

    assert_eq!(lab.runs(), 2);
}

#[tokio::test]
async fn any_type_shares_one_entry_between_types() {
    #[cacheable(key = "count", any_type, cache = lab.cache)]
    async fn count<T: Row, const N: usize>(lab: &Lab) -> usize {
        lab.run();
        7
    }
    let lab = Lab::new();

    assert_eq!(count::<User, 1>(&lab).await, 7);
    assert_eq!(count::<Order, 2>(&lab).await, 7);

    assert_eq!(lab.runs(), 1);
}

#[tokio::test]
async fn puts_and_evictions_use_the_same_keys() {
    #[cache_put(key = "<T>:<id>", cache = lab.cache)]
    async fn put<T: Row>(lab: &Lab, id: i64) -> Vec<Option<T>> {
        vec![None, Some(T::of(id))]
    }
    #[cache_evict(key = "<T>:<id>", cache = lab.cache)]
    async fn evict<T: Row>(lab: &Lab, id: i64) {}
    #[cache_evict(pattern = "<T>:*", cache = lab.cache)]
    async fn evict_all<T: Row>(lab: &Lab) {}
    #[cache_evict(key = "<T>:<kind>:<return>", cache = lab.cache)]
    async fn evict_returned<T: Row>(lab: &Lab, kind: &str) -> i64 {
        1
    }
    let lab = Lab::new();

    put::<User>(&lab, 1).await;
    put::<Order>(&lab, 1).await;
    assert_eq!(by_name::<User>(&lab, 1).await, [None, Some(User(1))]);
    evict::<User>(&lab, 1).await;
    assert_eq!(by_name::<User>(&lab, 1).await, [Some(User(1))]);
    assert_eq!(by_name::<Order>(&lab, 1).await, [None, Some(Order(100))]);
    evict_all::<Order>(&lab).await;
    evict_returned::<User>(&lab, "x").await;
    assert_eq!(by_name::<Order>(&lab, 1).await, [Some(Order(100))]);

    assert_eq!(lab.runs(), 2);
}

struct Store<'a, T, const SIZE: usize> {
    lab: &'a Lab,
    rows: PhantomData<fn() -> T>,
}

impl<T: Row, const SIZE: usize> Store<'_, T, SIZE> {
    #[cacheable(key = "store:<T>:<SIZE>:<id>", cache = self.lab.cache)]
    async fn row(&self, id: i64) -> (T, usize) {
        self.lab.run();
        (T::of(id), SIZE)
    }

    #[cacheable(key = "self:<Self>:<T::TABLE>:<id>", cache = self.lab.cache)]
    async fn own(&self, id: i64) -> (T, usize) {
        self.lab.run();
        (T::of(id), SIZE)
    }
}

#[tokio::test]
async fn the_parameters_of_an_impl_are_in_scope() {
    let lab = Lab::new();
    let users = Store::<User, 1> {
        lab: &lab,
        rows: PhantomData,
    };
    let orders = Store::<Order, 1> {
        lab: &lab,
        rows: PhantomData,
    };
    let more = Store::<Order, 2> {
        lab: &lab,
        rows: PhantomData,
    };

    for _ in 0..2 {
        assert_eq!(users.row(1).await, (User(1), 1));
        assert_eq!(orders.row(1).await, (Order(100), 1));
        assert_eq!(more.row(1).await, (Order(100), 2));
        assert_eq!(users.own(1).await, (User(1), 1));
        assert_eq!(orders.own(1).await, (Order(100), 1));
        assert_eq!(more.own(1).await, (Order(100), 2));
    }

    assert_eq!(lab.runs(), 6);
}

trait Named: Sized + Send {
    const NAME: &'static str;

    #[cacheable(key = "name:<Self::NAME>:<Self>:<id>", cache = lab.cache)]
    async fn name(lab: &Lab, id: i64) -> String {
        lab.run();
        format!("{} {id}", Self::NAME)
    }
}

impl Named for User {
    const NAME: &'static str = "user";
}

impl Named for Order {
    const NAME: &'static str = "order";
}

#[tokio::test]
async fn a_default_method_has_an_entry_for_each_implementing_type() {
    let lab = Lab::new();

    for _ in 0..2 {
        assert_eq!(User::name(&lab, 1).await, "user 1");
        assert_eq!(Order::name(&lab, 1).await, "order 1");
    }

    assert_eq!(lab.runs(), 2);
}

#[async_trait::async_trait]
trait Boxed {
    async fn boxed<T: Row + 'static>(&self, id: i64) -> Option<T>;
}

#[async_trait::async_trait]
impl Boxed for Lab {
    #[cacheable(key = "boxed:<T>:<id>", cache = self.cache)]
    async fn boxed<T: Row + 'static>(&self, id: i64) -> Option<T> {
        self.run();
        Some(T::of(id))
    }
}

#[tokio::test]
async fn an_async_trait_method_can_have_a_type_in_its_key() {
    let lab = Lab::new();

    for _ in 0..2 {
        assert_eq!(lab.boxed::<User>(1).await, Some(User(1)));
        assert_eq!(lab.boxed::<Order>(1).await, Some(Order(100)));
    }

    assert_eq!(lab.runs(), 2);
}
