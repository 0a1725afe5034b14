//! Methods with every kind of receiver, and without one.

use std::pin::Pin;
use std::sync::Arc;

use cache_runtime::{cache_evict, cache_put, cacheable};

use crate::lab::{Event, Lab};

struct Events {
    lab: Lab,
    tenant: &'static str,
}

impl Events {
    fn new(tenant: &'static str) -> Self {
        Self {
            lab: Lab::new(),
            tenant,
        }
    }

    fn tenant(&self) -> &str {
        self.tenant
    }

    #[cacheable(key = "<self.tenant>:event:<id>", cache = self.lab.cache)]
    async fn borrowed(&self, id: i64) -> Event {
        self.lab.run();
        Event::new(id)
    }

    #[cacheable(key = "<self.tenant()>:event:<id>", cache = self.lab.cache)]
    async fn shared(self: Arc<Self>, id: i64) -> Event {
        self.lab.run();
        drop(self);
        Event::new(id)
    }

    #[cacheable(key = "<self.tenant>:event:<id>", cache = self.lab.cache)]
    async fn owned(self, id: i64) -> Event {
        let Self { lab, .. } = self;
        lab.run();
        Event::new(id)
    }

    #[cacheable(key = "<self.tenant>:event:<id>", cache = self.lab.cache)]
    async fn pinned(self: Pin<&Self>, id: i64) -> Event {
        self.lab.run();
        Event::new(id)
    }

    #[cache_put(key = "<self.tenant>:event:<event.id>", cache = self.lab.cache)]
    async fn replace(&mut self, event: Event) -> Event {
        self.tenant = "changed";
        event
    }

    #[cacheable(key = "event:<id>", cache = lab.cache)]
    async fn of(lab: &Lab, id: i64) -> Event {
        lab.run();
        Event::new(id)
    }

    #[cache_evict(key = "<self.tenant>:event:<id>", cache = self.lab.cache)]
    async fn remove(&self, id: i64) {
        self.lab.run();
    }
}

#[tokio::test]
async fn a_borrowed_receiver_is_accepted() {
    let events = Events::new("a");

    events.borrowed(1).await;
    assert_eq!(events.borrowed(1).await, Event::new(1));

    assert_eq!(events.lab.runs(), 1);
    assert!(events.lab.holds("a:event:1").await);
}

#[tokio::test]
async fn a_shared_receiver_is_accepted() {
    let events = Arc::new(Events::new("a"));

    Arc::clone(&events).shared(1).await;
    assert_eq!(Arc::clone(&events).shared(1).await, Event::new(1));

    assert_eq!(events.lab.runs(), 1);
}

#[tokio::test]
async fn an_owned_receiver_is_accepted() {
    let lab = Lab::new();
    let events = || Events {
        lab: lab.clone(),
        tenant: "a",
    };

    events().owned(1).await;
    assert_eq!(events().owned(1).await, Event::new(1));

    assert_eq!(lab.runs(), 1);
}

#[tokio::test]
async fn a_pinned_receiver_is_accepted() {
    let events = Events::new("a");

    Pin::new(&events).pinned(1).await;
    Pin::new(&events).pinned(1).await;

    assert_eq!(events.lab.runs(), 1);
}

#[tokio::test]
async fn a_mutable_receiver_is_accepted() {
    let mut events = Events::new("a");

    events.replace(Event::new(1)).await;

    assert_eq!(events.tenant, "changed");
    assert!(events.lab.holds("a:event:1").await);
}

#[tokio::test]
async fn an_associated_function_is_accepted() {
    let lab = Lab::new();

    Events::of(&lab, 1).await;
    Events::of(&lab, 1).await;

    assert_eq!(lab.runs(), 1);
}

#[tokio::test]
async fn an_eviction_can_return_nothing() {
    let events = Events::new("a");
    events.borrowed(1).await;

    events.remove(1).await;

    assert!(!events.lab.holds("a:event:1").await);
}
