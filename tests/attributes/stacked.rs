//! Several cache attributes on one function.

use cache_runtime::{cache_evict, cache_put, cacheable};

use crate::lab::{Event, Lab};

#[cacheable(key = "event:<id>", cache = lab.cache)]
async fn event(lab: &Lab, id: i64) -> Option<Event> {
    lab.run();
    Some(Event::new(id))
}

#[cacheable(key = "page:<page>", cache = lab.cache)]
async fn page(lab: &Lab, page: u32) -> Vec<Event> {
    lab.run();
    vec![Event::new(page.into())]
}

async fn filled() -> Lab {
    let lab = Lab::new();
    event(&lab, 1).await;
    page(&lab, 1).await;
    lab
}

#[tokio::test]
async fn a_put_above_an_eviction_does_both() {
    #[cache_put(key = "event:<event.id>", cache = lab.cache)]
    #[cache_evict(pattern = "page:*", cache = lab.cache)]
    async fn save(lab: &Lab, event: Event) -> Result<Event, String> {
        Ok(event)
    }
    let lab = filled().await;

    save(
        &lab,
        Event {
            id: 1,
            title: "new".to_owned(),
        },
    )
    .await
    .expect("saved");

    assert_eq!(event(&lab, 1).await.expect("an event").title, "new");
    assert!(!lab.holds("page:1").await);
}

#[tokio::test]
async fn an_eviction_above_a_put_does_both() {
    #[cache_evict(pattern = "page:*", cache = lab.cache)]
    #[cache_put(key = "event:<event.id>", cache = lab.cache)]
    async fn save(lab: &Lab, event: Event) -> Result<Event, String> {
        Ok(event)
    }
    let lab = filled().await;

    save(
        &lab,
        Event {
            id: 1,
            title: "new".to_owned(),
        },
    )
    .await
    .expect("saved");

    assert_eq!(event(&lab, 1).await.expect("an event").title, "new");
    assert!(!lab.holds("page:1").await);
}

#[tokio::test]
async fn three_evictions_all_apply() {
    #[cache_evict(key = "event:<id>", cache = lab.cache)]
    #[cache_evict(pattern = "page:*", cache = lab.cache)]
    #[cache_evict(key = "nothing:<return.id>:<title>", cache = lab.cache)]
    async fn change(lab: &Lab, id: i64, title: String) -> Event {
        Event { id, title }
    }
    let lab = filled().await;

    change(&lab, 1, "new".to_owned()).await;

    assert!(!lab.holds("event:1").await);
    assert!(!lab.holds("page:1").await);
}

#[tokio::test]
async fn the_lowest_attribute_is_the_outermost() {
    #[cacheable(key = "inner", cache = lab.cache)]
    #[cache_evict(key = "event:1", cache = lab.cache)]
    async fn evicts_on_every_call(lab: &Lab) -> u8 {
        1
    }
    #[cache_evict(key = "event:1", cache = lab.cache)]
    #[cacheable(key = "outer", cache = lab.cache)]
    async fn evicts_on_a_miss(lab: &Lab) -> u8 {
        1
    }
    let lab = filled().await;

    evicts_on_every_call(&lab).await;
    event(&lab, 1).await;
    evicts_on_every_call(&lab).await;
    assert!(!lab.holds("event:1").await);

    evicts_on_a_miss(&lab).await;
    event(&lab, 1).await;
    evicts_on_a_miss(&lab).await;
    assert!(lab.holds("event:1").await);
}
