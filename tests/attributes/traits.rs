//! Trait methods, native and with `#[async_trait]`, in implementations and as defaults, next to other attributes.

use std::sync::Arc;

use async_trait::async_trait;
use cache_runtime::{cache_evict, cacheable};
use tracing::instrument;

use crate::lab::{Event, Lab};

#[derive(Debug)]
struct Missing;

struct Database {
    lab: Lab,
}

trait Native {
    fn lab(&self) -> &Lab;

    async fn find(&self, id: i64) -> Result<Option<Event>, Missing>;

    #[cacheable(key = "count", cache = self.lab().cache)]
    async fn count(&self) -> usize {
        self.lab().run()
    }
}

impl Native for Database {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    #[cacheable(key = "event:<id>", cache = self.lab.cache)]
    async fn find(&self, id: i64) -> Result<Option<Event>, Missing> {
        self.lab.run();
        Ok(Some(Event::new(id)))
    }
}

#[async_trait]
trait Repository: Send + Sync {
    fn lab(&self) -> &Lab;

    async fn find(&self, id: i64) -> Result<Event, Missing>;
    async fn rename(&self, id: i64, title: String) -> Result<Event, Missing>;
    async fn shared(self: Arc<Self>, name: &str) -> Option<Event>;
    async fn traced_above(&self, id: i64) -> Result<Event, Missing>;
    async fn traced_below(&self, id: i64) -> Result<Event, Missing>;
    async fn remove(&self, id: i64);

    #[cacheable(key = "count", cache = self.lab().cache)]
    async fn count(&self) -> usize {
        self.lab().run()
    }
}

#[async_trait]
impl Repository for Database {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    #[cacheable(key = "event:<id>", cache = self.lab.cache)]
    async fn find(&self, id: i64) -> Result<Event, Missing> {
        self.lab.run();
        if id < 0 {
            return Err(Missing);
        }
        Ok(Event::new(id))
    }

    #[allow(clippy::unused_async, reason = "another attribute above ours")]
    #[cache_evict(key = ["event:<id>", "event:<return.title>:<title>"], cache = self.lab.cache)]
    async fn rename(&self, id: i64, title: String) -> Result<Event, Missing> {
        Ok(Event { id, title })
    }

    #[cacheable(key = "event:<name>", cache = self.lab.cache)]
    async fn shared(self: Arc<Self>, name: &str) -> Option<Event> {
        self.lab.run();
        name.parse().ok().map(Event::new)
    }

    #[instrument(skip(self))]
    #[cacheable(key = "event:<id>", cache = self.lab.cache)]
    async fn traced_above(&self, id: i64) -> Result<Event, Missing> {
        self.lab.run();
        Ok(Event::new(id))
    }

    #[cacheable(key = "event:<id>", cache = self.lab.cache)]
    #[instrument(skip(self))]
    async fn traced_below(&self, id: i64) -> Result<Event, Missing> {
        self.lab.run();
        Ok(Event::new(id))
    }

    #[cache_evict(key = "event:<id>", cache = self.lab.cache)]
    async fn remove(&self, id: i64) {
        self.lab.run();
    }
}

fn database() -> Database {
    Database { lab: Lab::new() }
}

#[tokio::test]
async fn a_native_method_is_cached() {
    let database = database();

    Native::find(&database, 1).await.expect("found");
    let again = Native::find(&database, 1).await.expect("found");

    assert_eq!(again, Some(Event::new(1)));
    assert_eq!(database.lab.runs(), 1);
}

#[tokio::test]
async fn a_native_default_method_is_cached() {
    let database = database();

    assert_eq!(Native::count(&database).await, 1);
    assert_eq!(Native::count(&database).await, 1);
}

#[tokio::test]
async fn an_async_trait_method_is_cached_behind_a_pointer() {
    let database = database();
    let repository: &dyn Repository = &database;

    repository.find(1).await.expect("found");
    assert_eq!(repository.find(1).await.expect("found"), Event::new(1));
    repository.find(-1).await.expect_err("missing");

    assert_eq!(database.lab.runs(), 2);
}

#[tokio::test]
async fn an_async_trait_default_method_is_cached() {
    let database = database();

    assert_eq!(Repository::count(&database).await, 1);
    assert_eq!(Repository::count(&database).await, 1);
}

#[tokio::test]
async fn an_async_trait_method_accepts_a_shared_receiver() {
    let database = Arc::new(database());

    Arc::clone(&database).shared("7").await;
    let again = Arc::clone(&database).shared("7").await;

    assert_eq!(again, Some(Event::new(7)));
    assert_eq!(database.lab.runs(), 1);
}

#[tokio::test]
async fn an_async_trait_method_evicts_by_argument_and_by_result() {
    let database = database();
    Repository::find(&database, 1).await.expect("found");

    database.rename(1, "new".to_owned()).await.expect("renamed");

    assert!(!database.lab.holds("event:1").await);
}

#[tokio::test]
async fn an_async_trait_eviction_can_return_nothing() {
    let database = database();
    Repository::find(&database, 1).await.expect("found");

    database.remove(1).await;

    assert!(!database.lab.holds("event:1").await);
}

#[tokio::test]
async fn an_async_trait_method_accepts_instrument_above_and_below() {
    let database = database();

    database.traced_above(1).await.expect("found");
    database.traced_below(1).await.expect("found");

    assert_eq!(database.lab.runs(), 1);
}

#[tokio::test]
async fn a_function_accepts_instrument_above_and_below() {
    #[instrument(skip(lab))]
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn above(lab: &Lab, id: i64) -> Result<Event, Missing> {
        lab.run();
        Ok(Event::new(id))
    }
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    #[instrument(skip(lab))]
    async fn below(lab: &Lab, id: i64) -> Result<Event, Missing> {
        lab.run();
        Ok(Event::new(id))
    }
    let lab = Lab::new();

    above(&lab, 1).await.expect("found");
    below(&lab, 1).await.expect("found");

    assert_eq!(lab.runs(), 1);
}

#[tokio::test]
async fn a_hand_written_boxed_future_is_cached() {
    #[cacheable(key = "event:<id>", cache = lab.cache)]
    fn event(lab: &Lab, id: i64) -> std::pin::Pin<Box<dyn Future<Output = Event> + Send + '_>> {
        Box::pin(async move {
            lab.run();
            Event::new(id)
        })
    }
    let lab = Lab::new();

    event(&lab, 1).await;
    event(&lab, 1).await;

    assert_eq!(lab.runs(), 1);
}
