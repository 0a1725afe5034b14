//! `tag`: entries that are evicted together, by arguments and by the returned value.

use std::sync::Arc;

use cache_runtime::{CacheScope, cache_evict, cache_put, cacheable};

use crate::lab::{Event, Lab};

#[cacheable(key = "page:<page>", tag = ["events", "size:<size>"], ignore = [size], cache = lab.cache)]
async fn page(lab: &Lab, page: u32, size: u32) -> usize {
    lab.run()
}

/// The title is moved into the value.
#[cacheable(key = "event:<id>:<title>", tag = "titled:<id>:<return.title>", cache = lab.cache)]
async fn titled(lab: &Lab, id: i64, title: String) -> Option<Event> {
    lab.run();
    Some(Event { id, title })
}

#[cache_put(key = "event:<id>:<title>", tag = ["put", "titled:<id>:<return.title>"], cache = lab.cache)]
async fn put(lab: &Lab, id: i64, title: String) -> Result<Event, ()> {
    Ok(Event { id, title })
}

#[tokio::test]
async fn an_eviction_by_tag_removes_every_entry_with_the_tag() {
    #[cache_evict(tag = "events", cache = lab.cache)]
    async fn change(lab: &Lab) {}
    let lab = Lab::new();
    let read = async || [page(&lab, 1, 10).await, page(&lab, 2, 20).await];
    assert_eq!([read().await, read().await], [[1, 2], [1, 2]]);

    change(&lab).await;

    assert_eq!([read().await, read().await], [[3, 4], [3, 4]]);
}

#[tokio::test]
async fn an_eviction_by_tag_leaves_entries_with_other_tags() {
    #[cache_evict(tag = ["size:<size>", "unknown"], cache = lab.cache)]
    async fn change(lab: &Lab, size: u32) {}
    let lab = Lab::new();
    page(&lab, 1, 10).await;
    page(&lab, 2, 20).await;

    change(&lab, 20).await;

    assert_eq!((page(&lab, 1, 10).await, page(&lab, 2, 20).await), (1, 3));
}

#[tokio::test]
async fn a_tag_over_the_returned_value_is_that_of_what_the_body_returned() {
    #[cache_evict(tag = "titled:<return.id>:<return.title>", cache = lab.cache)]
    async fn change(lab: &Lab, event: Event) -> Result<Event, ()> {
        Ok(event)
    }
    let lab = Lab::new();
    let read = async |title: &str| {
        let event = titled(&lab, 7, title.to_owned()).await;
        assert_eq!(event.expect("an event").title, title);
        lab.runs()
    };
    assert_eq!(
        (read("a:b").await, read("c").await, read("c").await),
        (1, 2, 2)
    );

    let title = "a:b".to_owned();
    change(&lab, Event { id: 7, title })
        .await
        .expect("it returns `Ok`");

    assert_eq!((read("c").await, read("a:b").await), (2, 3));
}

#[tokio::test]
async fn a_put_gives_its_entry_tags() {
    #[cache_evict(tag = "put", cache = lab.cache)]
    async fn change(lab: &Lab) {}
    #[cache_evict(tag = "titled:<id>:<title>", cache = lab.cache)]
    async fn rename(lab: &Lab, id: i64, title: &str) {}
    let lab = Lab::new();
    let save = async || put(&lab, 1, "a".to_owned()).await.expect("it returns `Ok`");

    save().await;
    assert!(lab.holds("event:1:a").await);
    change(&lab).await;
    assert!(!lab.holds("event:1:a").await);
    save().await;
    rename(&lab, 1, "a").await;
    assert!(!lab.holds("event:1:a").await);
}

#[tokio::test]
async fn a_failed_body_evicts_its_tag_only_with_before_or_always() {
    #[cache_evict(tag = "events", cache = lab.cache)]
    async fn after(lab: &Lab) -> Result<(), ()> {
        Err(())
    }
    #[cache_evict(tag = "events", before, cache = lab.cache)]
    async fn before(lab: &Lab) -> Result<(), ()> {
        Err(())
    }
    #[cache_evict(tag = "events", always, cache = lab.cache)]
    async fn always(lab: &Lab) -> Result<(), ()> {
        Err(())
    }
    let lab = Lab::new();
    page(&lab, 1, 10).await;

    after(&lab).await.expect_err("it fails");
    assert_eq!(page(&lab, 1, 10).await, 1);
    before(&lab).await.expect_err("it fails");
    assert_eq!(page(&lab, 1, 10).await, 2);
    always(&lab).await.expect_err("it fails");
    assert_eq!(page(&lab, 1, 10).await, 3);
}

#[tokio::test]
async fn a_fenced_tag_keeps_its_entries_uncached_while_the_body_runs() {
    #[cache_evict(tag = "events", fence, cache = lab.cache)]
    async fn change(lab: &Lab) -> [usize; 2] {
        [page(lab, 1, 10).await, page(lab, 1, 10).await]
    }
    let lab = Lab::new();
    page(&lab, 1, 10).await;

    assert_eq!(change(&lab).await, [2, 3]);

    assert_eq!((page(&lab, 1, 10).await, page(&lab, 1, 10).await), (4, 4));
}

#[tokio::test]
async fn a_scope_evicts_its_tags_at_the_commit() {
    #[cache_evict(tag = "events", cache = lab.cache)]
    async fn change(lab: &Lab) {}
    let lab = Lab::new();
    page(&lab, 1, 10).await;
    let scope = CacheScope::new();

    let inside = scope.run(async {
        change(&lab).await;
        page(&lab, 1, 10).await
    });

    assert_eq!(inside.await, 2, "the transaction sees its own change");
    assert_eq!(page(&lab, 1, 10).await, 1);
    scope.commit().await;
    assert_eq!(page(&lab, 1, 10).await, 3);
}

#[tokio::test]
async fn a_local_function_returns_what_it_returns_without_local() {
    #[cacheable(key = "shared:<id>", tag = "events", local = "5s", cache = lab.cache)]
    async fn shared(lab: &Lab, id: i64) -> Arc<Event> {
        lab.run();
        Arc::new(Event::new(id))
    }
    #[cacheable(
        key = "own:<id>",
        local = 5,
        local_outage = "serve",
        grace = "5m",
        refresh = "background",
        unless = |event| event.is_none(),
        cache = lab.cache
    )]
    async fn owned(lab: Lab, id: i64) -> Result<Option<Event>, ()> {
        lab.run();
        Ok(Some(Event::new(id)))
    }
    #[cache_evict(tag = "events", key = "own:<id>", cache = lab.cache)]
    async fn change(lab: &Lab, id: i64) {}
    let lab = Lab::new();

    for runs in [2, 4] {
        for _ in 0..3 {
            assert_eq!(*shared(&lab, 1).await, Event::new(1));
            assert_eq!(owned(lab.clone(), 1).await, Ok(Some(Event::new(1))));
        }
        assert_eq!(lab.runs(), runs);
        change(&lab, 1).await;
    }
}
