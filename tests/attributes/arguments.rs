//! The arguments of the attributes.

use std::time::Duration;

use cache_runtime::{Cache, Ttl, cache_evict, cache_put, cacheable};

use crate::lab::{Event, Lab};

#[tokio::test]
async fn a_false_condition_bypasses_the_cache() {
    #[cacheable(key = "event:<id>", ignore = [fresh], condition = id > 0 && !fresh, cache = lab.cache)]
    async fn event(lab: &Lab, id: i64, fresh: bool) -> usize {
        lab.run()
    }
    let lab = Lab::new();

    assert_eq!(event(&lab, 1, false).await, 1);
    assert_eq!(event(&lab, 1, true).await, 2);
    assert_eq!(event(&lab, 1, false).await, 1);
    event(&lab, 0, false).await;

    assert!(!lab.holds("event:0").await);
}

#[tokio::test]
async fn unless_sees_the_value_inside_ok() {
    #[cacheable(key = "events:<page>", unless = |events| events.is_empty(), cache = lab.cache)]
    async fn events(lab: &Lab, page: usize) -> Result<Vec<Event>, String> {
        lab.run();
        Ok(vec![Event::new(1); page])
    }
    #[cache_put(key = "event:<id>", unless = |event: &Option<Event>| event.is_some(), none_ttl = 5, cache = lab.cache)]
    async fn save(lab: &Lab, id: i64) -> Result<Option<Event>, String> {
        Ok(Some(Event::new(id)))
    }
    let lab = Lab::new();

    for _ in 0..2 {
        events(&lab, 0).await.expect("no event");
        events(&lab, 1).await.expect("one event");
    }
    save(&lab, 1).await.expect("saved");

    assert_eq!(lab.runs(), 3);
    assert!(!lab.holds("events:0").await);
    assert!(lab.holds("events:1").await);
    assert!(!lab.holds("event:1").await);
}

#[tokio::test]
async fn unless_accepts_a_function() {
    #[cacheable(key = "n", unless = is_odd, cache = lab.cache)]
    async fn number(lab: &Lab) -> usize {
        lab.run()
    }
    fn is_odd(number: &usize) -> bool {
        number % 2 == 1
    }
    let lab = Lab::new();

    assert_eq!(
        [number(&lab).await, number(&lab).await, number(&lab).await],
        [1, 2, 2]
    );
}

#[tokio::test]
async fn a_ttl_accepts_any_type_that_converts_into_it() {
    const HOUR: u64 = 3600;
    struct Settings {
        ttl: Duration,
    }

    #[cacheable(key = "number:<id>", ttl = 30 * 60, cache = lab.cache)]
    async fn number(lab: &Lab, id: i64) -> i64 {
        id
    }
    #[cacheable(key = "text:<id>", ttl = "1h 30m", cache = lab.cache)]
    async fn text(lab: &Lab, id: i64) -> i64 {
        id
    }
    #[cacheable(key = "constant:<id>", ttl = HOUR, cache = lab.cache)]
    async fn constant(lab: &Lab, id: i64) -> i64 {
        id
    }
    #[cacheable(key = "argument:<id>", ignore = [settings], ttl = settings.ttl / 2, cache = lab.cache)]
    async fn argument(lab: &Lab, settings: Settings, id: i64) -> i64 {
        id
    }
    #[cacheable(key = "chosen:<id>", ttl = if id > 1 { HOUR.into() } else { Ttl::from(60_u32) }, cache = lab.cache)]
    async fn chosen(lab: &Lab, id: i64) -> i64 {
        id
    }
    let lab = Lab::new();

    number(&lab, 1).await;
    text(&lab, 1).await;
    constant(&lab, 1).await;
    argument(
        &lab,
        Settings {
            ttl: Duration::from_secs(60),
        },
        1,
    )
    .await;
    chosen(&lab, 1).await;

    for (key, seconds) in [
        ("number:1", 1800),
        ("text:1", 5400),
        ("constant:1", 3600),
        ("argument:1", 30),
        ("chosen:1", 60),
    ] {
        let left = lab.cache.ttl(key).await.expect(key);
        assert!(
            left <= Duration::from_secs(seconds) && left > Duration::from_secs(seconds - 5),
            "{key}: {left:?}"
        );
    }
}

#[tokio::test]
async fn an_entry_of_another_version_is_not_read() {
    #[cacheable(key = "n", cache = lab.cache)]
    async fn first(lab: &Lab) -> usize {
        lab.run()
    }
    #[cacheable(key = "n", version = 2, cache = lab.cache)]
    async fn second(lab: &Lab) -> usize {
        lab.run()
    }
    let lab = Lab::new();

    assert_eq!(first(&lab).await, 1);
    assert_eq!(second(&lab).await, 2);
    assert_eq!(second(&lab).await, 2);
}

#[tokio::test]
async fn cache_accepts_any_expression() {
    #[cacheable(key = "n", cache = caches[0])]
    async fn indexed(caches: &[Cache]) -> u8 {
        1
    }
    #[cacheable(key = "n", cache = cache)]
    async fn shared(cache: std::sync::Arc<Cache>) -> u8 {
        drop(cache);
        1
    }
    let (one, other) = (Lab::new(), Lab::new());

    indexed(std::slice::from_ref(&one.cache)).await;
    shared(other.cache.clone().into()).await;

    assert!(one.holds("n").await);
    assert!(other.holds("n").await);
}

mod renamed {
    pub(crate) use cache_runtime as runtime;
}

#[tokio::test]
async fn crate_accepts_another_path_of_the_runtime() {
    #[cacheable(key = "n", crate = crate::arguments::renamed::runtime, cache = lab.cache)]
    async fn number(lab: &Lab) -> usize {
        lab.run()
    }
    #[cache_evict(all_entries, crate = renamed::runtime, cache = lab.cache)]
    async fn clear(lab: &Lab) {
        lab.run();
    }
    let lab = Lab::new();

    assert_eq!((number(&lab).await, number(&lab).await), (1, 1));
    clear(&lab).await;

    assert!(!lab.holds("n").await);
}

#[tokio::test]
async fn arguments_can_come_from_a_macro() {
    macro_rules! cached {
        ($name:ident, $key:literal, $ttl:expr) => {
            #[cacheable(key = $key, ttl = $ttl, cache = lab.cache)]
            async fn $name(lab: &Lab, id: i64) -> usize {
                lab.run()
            }
        };
    }
    cached!(event, "event:<id>", 60);
    let lab = Lab::new();

    assert_eq!((event(&lab, 1).await, event(&lab, 1).await), (1, 1));
}
