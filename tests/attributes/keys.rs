//! The keys that templates produce.

use cache_runtime::cacheable;

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
