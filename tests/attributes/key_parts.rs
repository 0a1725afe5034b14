//! `#[derive(KeyPart)]`: the keys that user-defined types produce.

use std::collections::HashSet;
use std::marker::PhantomData;

use cache_runtime::{KeyPart, cacheable};

use crate::lab::Lab;

/// Returns the text of a value in a key.
async fn text(value: impl KeyPart) -> String {
    #[cacheable(key = "of:<value>", any_type, cache = lab.cache)]
    async fn store(lab: &Lab, value: impl KeyPart) -> usize {
        lab.run()
    }
    let lab = Lab::new();

    store(&lab, value).await;

    let mut keys = lab.cache.keys("of:*").await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.remove(0)["of:".len()..].to_owned()
}

async fn texts<T: KeyPart>(values: impl IntoIterator<Item = T>) -> HashSet<String> {
    let mut texts = HashSet::new();
    for value in values {
        texts.insert(text(value).await);
    }
    texts
}

#[derive(Clone, Copy, KeyPart)]
enum Kind {
    Concert,
    r#Final,
}

#[tokio::test]
async fn a_newtype_writes_its_field() {
    #[derive(KeyPart)]
    struct EventId(i64);
    #[derive(KeyPart)]
    struct Name<'a> {
        text: &'a str,
    }

    assert_eq!(text(EventId(42)).await, "42");
    assert_eq!(text(Name { text: "a b" }).await, "a%20b");
    assert_eq!(text(None::<EventId>).await, "%n");
}

#[tokio::test]
async fn an_enum_writes_the_name_of_its_variant() {
    assert_eq!(text(Kind::Concert).await, "Concert");
    assert_eq!(text(Some(Kind::r#Final)).await, "Final");
}

#[tokio::test]
async fn a_skipped_field_is_not_written_and_need_not_be_a_key_part() {
    struct User;
    #[derive(KeyPart)]
    struct Id<T>(i64, #[key_part(skip)] PhantomData<T>);

    assert_eq!(text(Id::<User>(7, PhantomData)).await, "7");
}

#[tokio::test]
async fn values_with_different_fields_have_different_texts() {
    #[derive(KeyPart)]
    struct Inner<T> {
        first: T,
        second: Option<&'static str>,
    }
    #[derive(KeyPart)]
    struct Outer(Option<Inner<&'static str>>, &'static str);
    const TEXTS: [&str; 5] = ["", "a", "%c", "%n", "a%c"];

    let mut values = Vec::new();
    for last in TEXTS {
        values.push(Outer(None, last));
        for first in TEXTS {
            values.push(Outer(
                Some(Inner {
                    first,
                    second: None,
                }),
                last,
            ));
            values.extend(TEXTS.map(|second| {
                let second = Some(second);
                Outer(Some(Inner { first, second }), last)
            }));
        }
    }
    let count = values.len();

    assert_eq!(texts(values).await.len(), count);
}

#[tokio::test]
async fn a_hash_has_a_fixed_length_and_depends_on_each_field() {
    #[derive(KeyPart)]
    #[key_part(hash)]
    struct Filter {
        kind: Option<Kind>,
        city: &'static str,
        free: bool,
    }
    let filter = |kind, city, free| Filter { kind, city, free };

    let texts = texts([
        filter(None, "Oslo", false),
        filter(None, "Oslo", true),
        filter(None, "Bergen", true),
        filter(Some(Kind::Concert), "Bergen", true),
        filter(Some(Kind::r#Final), "Bergen", true),
        filter(Some(Kind::r#Final), "Bergen", true),
    ])
    .await;

    assert_eq!(texts.len(), 5);
    assert!(
        texts
            .iter()
            .all(|text| text.starts_with("%h") && text.len() == 34)
    );
}
