//! The keys that templates produce.

use cache_runtime::{Evicted, KeyPart, cache_evict, cacheable, key};

use crate::lab::Lab;

#[tokio::test]
async fn placeholders_accept_fields_and_methods_of_arguments() {
    struct Page {
        number: u32,
        range: (u8, u8),
    }
    impl Page {
        fn kind(&self) -> &'static str {
            "all"
        }
    }

    #[cacheable(key = "events:<page.number>:<page.range.1>:{page.kind()}:<r#type>:<type>", cache = lab.cache)]
    async fn events(lab: &Lab, page: Page, r#type: &str) -> usize {
        lab.run()
    }
    let lab = Lab::new();

    events(
        &lab,
        Page {
            number: 3,
            range: (1, 2),
        },
        "x",
    )
    .await;

    assert!(lab.holds("events:3:2:all:x:x").await);
}

#[tokio::test]
async fn a_doubled_bracket_is_a_literal_bracket() {
    #[cacheable(key = "a<<b>:{{c}:<id>", cache = lab.cache)]
    async fn number(lab: &Lab, id: i64) -> usize {
        lab.run()
    }
    let lab = Lab::new();

    number(&lab, 1).await;

    assert!(lab.holds("a<b>:{c}:1").await);
}

#[tokio::test]
async fn different_arguments_have_different_keys() {
    #[cacheable(key = "<a>-<b>", cache = lab.cache)]
    async fn joined(lab: &Lab, a: &str, b: &str) -> usize {
        lab.run()
    }
    #[cacheable(key = "path:<a>:<b>", cache = lab.cache)]
    async fn path(lab: &Lab, a: &str, b: &str) -> usize {
        lab.run()
    }
    let lab = Lab::new();

    for (a, b) in [("x-y", "z"), ("x", "y-z"), ("", "x-y-z"), ("x%2Dy", "z")] {
        joined(&lab, a, b).await;
        path(&lab, &a.replace('-', ":"), &b.replace('-', ":")).await;
    }

    assert_eq!(lab.runs(), 8);
}

#[tokio::test]
async fn a_pattern_names_the_keys_of_a_value_that_contains_its_separator() {
    #[cacheable(key = "seats:<hall>-<row>", cache = lab.cache)]
    async fn row(lab: &Lab, hall: &str, row: u32) -> usize {
        lab.run()
    }
    #[cacheable(key = "seats:<hall>-free", cache = lab.cache)]
    async fn free(lab: &Lab, hall: &str) -> usize {
        lab.run()
    }
    #[cache_evict(pattern = "seats:<hall>-*", cache = lab.cache)]
    async fn close(lab: &Lab, hall: &str) {
        lab.run();
    }
    let lab = Lab::new();
    for hall in ["north-wing", "north"] {
        row(&lab, hall, 1).await;
        free(&lab, hall).await;
    }

    close(&lab, "north-wing").await;

    assert_eq!(row(&lab, "north", 1).await, 3);
    assert_eq!(free(&lab, "north").await, 4);
    assert_eq!(row(&lab, "north-wing", 1).await, 6);
    assert_eq!(free(&lab, "north-wing").await, 7);
}

#[tokio::test]
async fn an_option_can_be_in_a_key() {
    #[cacheable(key = "events:<after>", cache = lab.cache)]
    async fn events(lab: &Lab, after: Option<&str>) -> usize {
        lab.run()
    }
    let lab = Lab::new();

    assert_eq!(events(&lab, None).await, 1);
    assert_eq!(events(&lab, Some("")).await, 2);
    assert_eq!(events(&lab, Some("None")).await, 3);
    assert_eq!(events(&lab, None).await, 1);
}

#[tokio::test]
async fn a_key_by_hand_is_the_key_of_an_attribute() {
    #[derive(KeyPart)]
    struct Filter {
        city: String,
        day: Option<u8>,
    }
    struct Page {
        number: u32,
    }
    #[cacheable(key = "rows:<name>-<after>:{filter}:<page.number>:<T>", cache = lab.cache)]
    async fn rows<T>(
        lab: &Lab,
        name: &str,
        after: Option<i64>,
        filter: &Filter,
        page: Page,
    ) -> usize {
        lab.run()
    }
    let lab = Lab::new();

    let long = "x".repeat(300);
    for name in [
        "a",
        "",
        "a:b",
        "a b",
        "x-y",
        "%n",
        "*?[{<>}]\\",
        "é\u{2003}\n",
        &long,
    ] {
        for (after, day) in [(None, None), (Some(-7), Some(31))] {
            let filter = Filter {
                city: name.to_owned(),
                day,
            };
            rows::<String>(&lab, name, after, &filter, Page { number: 3 }).await;

            let page = Page { number: 3 };
            let key = key!("rows:<name>-<after>:{filter}:<page.number>:<String>");
            assert!(lab.holds(&key).await, "{key}");
        }
    }
    assert_eq!(lab.runs(), 18);
}

#[tokio::test]
async fn a_key_by_hand_takes_values_by_name() {
    #[cacheable(key = "row:<kind>:<id>", cache = lab.cache)]
    async fn row(lab: &Lab, kind: &str, id: u64) -> usize {
        lab.run()
    }
    let lab = Lab::new();
    row(&lab, "a:b", 42).await;

    let id = 41;
    let of_row = |kind: String| key!("row:<kind>:<id>", id = id + 1);

    assert!(lab.holds(&of_row("a:b".to_owned())).await);
    assert_eq!(
        key!("row:<kind>:<id>", kind = format!("{id}"), id = 1),
        "row:41:1"
    );
}

#[tokio::test]
async fn a_key_by_hand_names_what_its_method_has() {
    struct Tenant(u8);
    impl Tenant {
        const KIND: &str = "tenant";

        fn key(&self) -> String {
            key!("<Self::KIND>:<self.0>")
        }
    }

    assert_eq!(Tenant(7).key(), "tenant:7");
}

#[tokio::test]
async fn a_key_by_hand_keeps_off_reserved_roots() {
    #[cacheable(key = "<word>:<id>", cache = lab.cache)]
    async fn row(lab: &Lab, word: &str, id: u64) -> usize {
        lab.run()
    }
    let lab = Lab::new();

    for word in ["session", "sessions", "ratelimit", "cache", "row"] {
        row(&lab, word, 1).await;

        assert!(lab.holds(&key!("<word>:<id>", id = 1)).await, "{word}");
    }
}

#[tokio::test]
async fn a_pattern_by_hand_takes_no_wildcard_from_a_value() {
    #[cacheable(key = "<kind>:<name>:<id>", cache = lab.cache)]
    async fn row(lab: &Lab, kind: &str, name: &str, id: u64) -> usize {
        lab.run()
    }
    let lab = Lab::new();
    for kind in ["orders", "session"] {
        for (name, id) in [("*", 1), ("*", 2), ("a", 1)] {
            row(&lab, kind, name, id).await;
        }

        let pattern = key!("<kind>:<name>:", name = "*") + "*";
        let removed = lab.cache.delete_matching(&pattern).await;

        assert_eq!(removed, Evicted::Applied { keys: 2 }, "{pattern}");
        assert!(lab.holds(&key!("<kind>:a:1")).await);
    }
}

#[tokio::test]
async fn a_key_by_hand_is_shortened_as_that_of_an_attribute() {
    #[cacheable(key = "rows:<a>:<b>:<a>:<b>:<a>:<b>:<a>:<b>:<a>:<b>:<id>", cache = lab.cache)]
    async fn rows(lab: &Lab, a: &str, b: &str, id: u64) -> usize {
        lab.run()
    }
    let lab = Lab::new();
    let (a, b) = ("a".repeat(128), "b".repeat(128));

    for id in 0..2 {
        rows(&lab, &a, &b, id).await;
        let key = key!("rows:<a>:<b>:<a>:<b>:<a>:<b>:<a>:<b>:<a>:<b>:<id>");

        assert!(key.len() > 1_024);
        assert!(lab.holds(&key).await, "{id}");
    }
    let listed = lab.cache.keys("rows:*").await;
    assert_eq!(listed.len(), 2);
    for key in listed {
        assert!(lab.holds(&key).await, "{key}");
    }
}
