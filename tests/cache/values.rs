//! A hit returns what the body would have returned, through serde and across deploys.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cache_runtime::{Cache, cacheable};
use redis::AsyncCommands;
use serde::{Deserialize, Serialize};
use tracing::Level;

use crate::log::{Line, Log};
use crate::support::{cache, raw, server};

/// Returns the lines that contain `text`.
fn naming<'a>(lines: &'a [String], word: &str) -> Vec<&'a str> {
    let lines = lines.iter().map(String::as_str);
    lines.filter(|line| line.contains(word)).collect()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t")]
enum Price {
    C { cents: Option<u8> },
}

/// The same type after a deploy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t")]
enum NewPrice {
    C { euros: Option<u8> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Status {
    Pending,
    Priced(i64),
}

#[cacheable(key = "price:<id>", ttl = 60, cache = cache)]
async fn price(cache: &Cache, id: u64) -> Price {
    Price::C { cents: Some(5) }
}

#[cacheable(key = "price:<id>", ttl = 60, cache = cache)]
async fn new_price(cache: &Cache, id: u64) -> NewPrice {
    NewPrice::C { euros: Some(6) }
}

#[cacheable(key = "status:<id>", ttl = 60, cache = cache)]
async fn status(cache: &Cache, id: i64) -> Status {
    match id {
        0 => Status::Pending,
        id => Status::Priced(id),
    }
}

#[cacheable(key = "maybe:<id>", ttl = 60, none_ttl = 60, cache = cache)]
async fn maybe(cache: &Cache, id: u64) -> Option<Price> {
    None
}

#[tokio::test]
async fn a_renamed_field_is_not_read_as_none() {
    let cache = Cache::memory();
    price(&cache, 1).await;

    let new = [new_price(&cache, 1).await, new_price(&cache, 1).await];

    let six = NewPrice::C { euros: Some(6) };
    assert_eq!(new, [six.clone(), six]);
    assert_eq!(cache.stats().total.misses_by_reason["other_shape"], 1);
    assert_eq!(cache.stats().total.hits, 1);
}

#[tokio::test]
async fn a_type_gets_only_values_that_were_stored() {
    /// Accepts what it is given here, and nothing else.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(from = "u8", into = "u8")]
    struct Month(u8);
    impl From<u8> for Month {
        fn from(month: u8) -> Self {
            assert_eq!(month, 7, "this value was not stored");
            Self(month)
        }
    }
    impl From<Month> for u8 {
        fn from(Month(month): Month) -> Self {
            month
        }
    }
    #[cacheable(key = "month", ttl = 60, cache = cache)]
    async fn month(cache: &Cache) -> Month {
        Month(7)
    }
    let cache = Cache::memory();

    for _ in 0..2 {
        assert_eq!(month(&cache).await, Month(7));
        assert_eq!(status(&cache, 0).await, Status::Pending);
        assert_eq!(status(&cache, 3).await, Status::Priced(3));
    }

    assert_eq!(cache.stats().total.hits, 3);
}

#[tokio::test]
async fn local_types_with_the_same_name_are_different_types() {
    async fn first(cache: &Cache) -> bool {
        #[derive(Serialize, Deserialize)]
        struct Price {
            #[serde(default)]
            cents: Option<u8>,
        }
        cache.set("price", &Price { cents: Some(5) }, 60).await
    }
    async fn second(cache: &Cache) -> bool {
        #[derive(Serialize, Deserialize)]
        struct Price {
            #[serde(default)]
            euros: Option<u8>,
        }
        cache
            .get::<Price>("price")
            .await
            .is_some_and(|price| price.euros.is_none())
    }
    let cache = Cache::memory();

    assert!(first(&cache).await);

    assert!(!second(&cache).await);
    assert_eq!(cache.stats().total.misses_by_reason["other_shape"], 1);
}

/// Not a test: acts as another release of this program. `two_builds_share_…` runs it from a changed copy of this executable.
#[tokio::test]
#[ignore = "run by a test, with a server"]
async fn another_build() {
    let url = std::env::var("VALUES_OF_ANOTHER_BUILD").expect("run by a test");
    let config = cache_runtime::Config::default()
        .redis_url(&url)
        .expect("a URL")
        .prefix("test_");
    let cache = Cache::connect(config).await.expect("connected");
    // Until the program knows its own hash.
    let mut first = None;
    for id in 1..100 {
        status(&cache, id).await;
        let build = build_of(&url, &format!("test_status:{id}")).await;
        if *first.get_or_insert_with(|| build.clone()) != build {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    price(&cache, 1).await;
    status(&cache, 0).await;
    maybe(&cache, 1).await;
    cache.shutdown().await;
}

/// Reads the header.
async fn build_of(url: &str, key: &str) -> Vec<u8> {
    let url = url.replace("redis+unix://", "unix://");
    let client = redis::Client::open(url).expect("a URL");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("connected");
    connection.getrange(key, 24, 31).await.expect("an entry")
}

#[tokio::test]
async fn two_builds_share_equal_entries_and_replace_others() {
    let server = server();
    let (build, folder) = (
        std::env::current_exe().expect("this file"),
        std::env::temp_dir(),
    );
    let other = folder.join(format!("another-build-{}", std::process::id()));
    let mut bytes = std::fs::read(build).expect("this file");
    bytes.extend_from_slice(b"a change");
    std::fs::write(&other, bytes).expect("a copy");
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o700)).expect("a program");
    let run = Command::new(&other)
        .args(["values::another_build", "--exact", "--ignored"])
        .env("VALUES_OF_ANOTHER_BUILD", server.url())
        .output()
        .expect("it runs");
    std::fs::remove_file(&other).expect("the copy");
    assert!(run.status.success(), "{run:?}");
    let cache = cache(&server).await;

    assert_eq!(price(&cache, 1).await, Price::C { cents: Some(5) });
    assert_eq!(status(&cache, 0).await, Status::Pending);
    assert_eq!(maybe(&cache, 1).await, None);
    assert_eq!(new_price(&cache, 1).await, NewPrice::C { euros: Some(6) });

    let total = cache.stats().total;
    assert_eq!(
        (total.hits, total.hits_none, total.entries_checked),
        (3, 1, 3)
    );
    assert_eq!(total.misses_by_reason["other_shape"], 1);
    assert_ne!(
        build_of(&server.url(), "test_price:1").await,
        build_of(&server.url(), "test_status:0").await
    );
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    F(f64),
    I(i64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Renamed {
    #[serde(rename(serialize = "id", deserialize = "key"))]
    id: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Account {
    #[serde(skip_deserializing)]
    email: String,
}

#[cacheable(key = "number:<id>", ttl = 60, cache = cache)]
async fn number(cache: &Cache, id: i64) -> Number {
    match id {
        0 => Number::F(0.5),
        id => Number::I(id),
    }
}

#[cacheable(key = "renamed:<id>", ttl = 60, cache = cache)]
async fn renamed(cache: &Cache, id: i64) -> Renamed {
    Renamed { id }
}

#[cacheable(key = "account", ttl = 60, cache = cache)]
async fn account(cache: &Cache) -> Account {
    Account {
        email: "a@example.com".to_owned(),
    }
}

#[tokio::test]
async fn a_value_that_serde_changes_is_not_stored_and_logged_once() {
    let log = Log::listen(Level::WARN);
    let cache = Cache::memory();

    for id in [1, 2, 1, 2] {
        assert_eq!(number(&cache, id).await, Number::I(id));
        assert_eq!(renamed(&cache, id).await, Renamed { id });
        assert_eq!(account(&cache).await.email, "a@example.com");
    }
    for _ in 0..2 {
        assert_eq!(number(&cache, 0).await, Number::F(0.5));
    }

    let total = cache.stats().total;
    assert_eq!((total.refused_lossy, total.fills, total.hits), (12, 1, 1));
    let warnings = log.take().iter().map(Line::to_string).collect::<Vec<_>>();
    let said = naming(&warnings, "is not cached");
    assert_eq!(said.len(), 3, "{said:#?}");
    let with_serde = naming(&warnings, "missing field `key`");
    assert_eq!(with_serde.len(), 1, "{said:#?}");
    assert!(with_serde[0].contains("values::Renamed"), "{with_serde:?}");
    assert!(naming(&warnings, "a@example.com").is_empty(), "{said:#?}");
}

#[tokio::test]
async fn one_value_in_a_thousand_is_checked() {
    let cache = Cache::memory();
    number(&cache, 0).await;

    for id in 1..=1_100 {
        assert_eq!(number(&cache, id).await, Number::I(id));
    }

    assert_eq!(cache.stats().total.refused_lossy, 101);
}

#[tokio::test]
async fn two_types_under_one_key_are_logged_once_per_function() {
    let log = Log::listen(Level::WARN);
    let cache = Cache::memory();

    for _ in 0..3 {
        price(&cache, 1).await;
        new_price(&cache, 1).await;
    }

    let warnings = log.take().iter().map(Line::to_string).collect::<Vec<_>>();
    let said = naming(&warnings, "different types under one key");
    assert_eq!(said.len(), 2, "{said:#?}");
    for line in &said {
        assert!(
            line.contains("values::Price") && line.contains("values::NewPrice"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn data_of_another_program_is_logged_once_with_its_first_bytes() {
    let log = Log::listen(Level::WARN);
    let server = server();
    let cache = cache(&server).await;
    let mut other = raw(&server).await;
    for id in 1..4 {
        let () = other
            .set(
                format!("test_price:{id}"),
                r#"{"amount":1,"password":"secret"}"#,
            )
            .await
            .expect("set");
        price(&cache, id).await;
    }
    let () = other.rpush("test_status:0", "item").await.expect("pushed");
    status(&cache, 0).await;

    let warnings = log.take().iter().map(Line::to_string).collect::<Vec<_>>();
    let said = naming(&warnings, "another program stores data");
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(
        said[0].contains("amount") && !said[0].contains("secret"),
        "{said:#?}"
    );
    assert!(said[1].contains("not a string"), "{said:#?}");
    assert_eq!(cache.stats().total.misses_by_reason["foreign"], 4);
}

#[tokio::test]
async fn a_value_nested_too_deeply_for_serde_is_not_stored() {
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Comment {
        replies: Vec<Self>,
    }
    #[cacheable(key = "thread:<depth>", ttl = 60, cache = cache)]
    async fn thread(cache: &Cache, depth: u64) -> Comment {
        (0..depth).fold(Comment::default(), |reply, _| Comment {
            replies: vec![reply],
        })
    }
    let cache = Cache::memory();

    for _ in 0..2 {
        thread(&cache, 62).await;
        thread(&cache, 63).await;
    }

    let total = cache.stats().total;
    assert_eq!((total.hits, total.fills, total.refused_lossy), (1, 1, 2));
    assert!(cache.exists("thread:62").await);
}

#[tokio::test]
async fn the_first_value_is_checked_after_a_stored_none() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Renamed {
        #[serde(default, rename(serialize = "written"))]
        read: u32,
    }
    #[cacheable(key = "renamed:<id>", none_ttl = 60, cache = cache)]
    async fn renamed(cache: &Cache, id: u32) -> Option<Renamed> {
        (id > 0).then_some(Renamed { read: id })
    }
    let cache = Cache::memory();

    assert_eq!(renamed(&cache, 0).await, None);

    for _ in 0..2 {
        assert_eq!(renamed(&cache, 7).await, Some(Renamed { read: 7 }));
    }
}
