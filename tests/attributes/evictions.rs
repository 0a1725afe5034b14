//! Targets and times of evictions.

use cache_runtime::{cache_evict, cache_put};

use crate::lab::{Event, Lab};

#[cache_put(key = "<kind>:<id>", cache = lab.cache)]
async fn store(lab: &Lab, kind: &str, id: i64) -> Event {
    Event::new(id)
}

/// A cache that holds `event:1`, `event:2` and `user:1`.
async fn filled() -> Lab {
    let lab = Lab::new();
    store(&lab, "event", 1).await;
    store(&lab, "event", 2).await;
    store(&lab, "user", 1).await;
    lab
}

/// Returns which of the three are still cached.
async fn left(lab: &Lab) -> [bool; 3] {
    [
        lab.holds("event:1").await,
        lab.holds("event:2").await,
        lab.holds("user:1").await,
    ]
}

#[tokio::test]
async fn evict_removes_one_key() {
    #[cache_evict(key = "event:<id>", cache = lab.cache)]
    async fn change(lab: &Lab, id: i64) -> Event {
        Event::new(id)
    }
    let lab = filled().await;

    assert_eq!(change(&lab, 1).await, Event::new(1));

    assert_eq!(left(&lab).await, [false, true, true]);
}

#[tokio::test]
async fn evict_removes_a_list_of_keys() {
    #[cache_evict(key = ["event:<id>", "user:<user>"], cache = lab.cache)]
    async fn change(lab: &Lab, id: i64, user: i64) {}
    let lab = filled().await;

    change(&lab, 2, 1).await;

    assert_eq!(left(&lab).await, [true, false, false]);
}

#[tokio::test]
async fn evict_removes_patterns_and_keys() {
    #[cache_evict(key = "user:<user>", pattern = ["even?:*", "<kind>:*:nothing"], cache = lab.cache)]
    async fn change(lab: &Lab, user: i64, kind: &str) {}
    let lab = filled().await;

    change(&lab, 1, "event").await;

    assert_eq!(left(&lab).await, [false, false, false]);
}

#[tokio::test]
async fn a_value_in_a_pattern_is_not_a_wildcard() {
    #[cache_evict(pattern = "<kind>:?", cache = lab.cache)]
    async fn change(lab: &Lab, kind: &str) {}
    let lab = filled().await;

    change(&lab, "*").await;
    assert_eq!(left(&lab).await, [true, true, true]);

    change(&lab, "event").await;
    assert_eq!(left(&lab).await, [false, false, true]);
}

#[tokio::test]
async fn all_entries_removes_everything() {
    #[cache_evict(all_entries, cache = lab.cache)]
    async fn clear(lab: &Lab) {}
    let lab = filled().await;

    clear(&lab).await;

    assert_eq!(left(&lab).await, [false, false, false]);
}

#[tokio::test]
async fn a_target_can_use_a_field_of_the_return_value() {
    #[cache_evict(key = ["event:<return.id>", "user:<id>"], pattern = "event:<return.id>*", cache = lab.cache)]
    async fn found(lab: &Lab, id: i64) -> Result<Option<Event>, String> {
        Ok((id > 0).then(|| Event::new(id + 1)))
    }
    let lab = filled().await;

    found(&lab, 0).await.expect("nothing");
    assert_eq!(left(&lab).await, [true, true, true]);

    found(&lab, 1).await.expect("an event");
    assert_eq!(left(&lab).await, [true, false, false]);
}

#[tokio::test]
async fn a_target_can_use_the_return_value_itself() {
    #[cache_evict(key = "event:<return>", cache = lab.cache)]
    async fn newest(lab: &Lab) -> i64 {
        2
    }
    let lab = filled().await;

    newest(&lab).await;

    assert_eq!(left(&lab).await, [true, false, true]);
}

#[tokio::test]
async fn an_err_evicts_nothing_without_always() {
    #[cache_evict(key = "event:<id>", cache = lab.cache)]
    async fn fail(lab: &Lab, id: i64) -> Result<(), String> {
        Err("no".to_owned())
    }
    #[cache_evict(key = "event:<id>", always, cache = lab.cache)]
    async fn fail_always(lab: &Lab, id: i64) -> Result<(), String> {
        Err("no".to_owned())
    }
    let lab = filled().await;

    fail(&lab, 1).await.expect_err("no");
    assert_eq!(left(&lab).await, [true, true, true]);

    fail_always(&lab, 1).await.expect_err("no");
    assert_eq!(left(&lab).await, [false, true, true]);
}

#[tokio::test]
async fn before_evicts_before_and_after_the_body() {
    #[cache_evict(key = "event:<id>", before, cache = lab.cache)]
    async fn change(lab: &Lab, id: i64) -> bool {
        let found = lab.holds("event:1").await;
        store(lab, "event", id).await;
        found
    }
    let lab = filled().await;

    let found_in_body = change(&lab, 1).await;

    assert!(!found_in_body);
    assert_eq!(left(&lab).await, [false, true, true]);
}

#[tokio::test]
async fn a_false_condition_evicts_nothing() {
    #[cache_evict(all_entries, condition = *really, cache = lab.cache)]
    async fn clear(lab: &Lab, really: &bool) {}
    let lab = filled().await;

    clear(&lab, &false).await;
    assert_eq!(left(&lab).await, [true, true, true]);

    clear(&lab, &true).await;
    assert_eq!(left(&lab).await, [false, false, false]);
}
