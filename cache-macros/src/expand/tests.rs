use expect_test::expect_file;
use syn::{Expr, ItemFn, Stmt};

use super::*;
use crate::template::Kind;

fn expanded(macro_: Attribute, arguments: &str, function: &str) -> syn::File {
    let tokens = attribute(
        macro_,
        arguments.parse().expect(arguments),
        function.parse().expect(function),
    );
    syn::parse2(tokens).expect("valid Rust")
}

/// Returns the number of statements that the expansion adds to a function.
fn generated(file: &syn::File, written: &str) -> usize {
    let [syn::Item::Fn(framed)] = file.items.as_slice() else {
        panic!("an attribute emits one function")
    };
    let body = framed
        .block
        .stmts
        .iter()
        .find_map(|statement| match statement {
            Stmt::Local(local) => match local.init.as_ref().map(|init| &*init.expr) {
                Some(Expr::Macro(pin)) => match pin.mac.parse_body() {
                    Ok(Expr::Async(body)) => Some(body.block.stmts.len()),
                    _ => None,
                },
                Some(Expr::Call(owned)) => match owned.args.first() {
                    Some(Expr::Async(body)) => Some(body.block.stmts.len()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        });
    let written: ItemFn = syn::parse_str(written).expect("a function");
    framed.block.stmts.len() + body.expect("an async body") - written.block.stmts.len()
}

#[test]
fn cacheable_expands_to_one_call() {
    let function = "/// Finds an event.
        pub async fn find<'a>(pool: &'a Pool, id: i64) -> Result<Option<Event>, Error> {
            let row = pool.query(id).await?;
            Ok(row.map(Event::from))
        }";
    let arguments = r#"key = "event:<id>", ignore = [pool], ttl = "30m", none_ttl = 30, unless = |event| event.is_none()"#;

    let file = expanded(Attribute::Cacheable, arguments, function);

    assert!(generated(&file, function) <= 7);
    expect_file!["../../expansions/cacheable.rs"].assert_eq(&prettyplease::unparse(&file));
}

#[test]
fn a_background_refresh_owns_its_arguments() {
    let function = "async fn find(self: Arc<Self>, id: i64) -> Event { self.query(id).await }";
    let arguments = r#"key = "event:<id>", ttl = |event| event.ttl, grace = "10m", ttl_jitter = "10%",
        refresh = "background", unless = |event| event.draft, cache = self.cache"#;

    let file = expanded(Attribute::Cacheable, arguments, function);

    assert!(generated(&file, function) <= 7);
    expect_file!["../../expansions/cacheable_background.rs"]
        .assert_eq(&prettyplease::unparse(&file));
}

#[test]
fn tags_are_written_before_the_body_and_after_it() {
    let function = "async fn find(organizer: String, id: i64) -> Result<Option<Event>, Error> { query(organizer, id).await }";
    let arguments = r#"key = "event:<organizer>:<id>", ttl = "30m",
        tag = ["events", "organizer:<organizer>", "place:<organizer>:<return.place.id()>"]"#;

    let file = expanded(Attribute::Cacheable, arguments, function);

    assert!(generated(&file, function) <= 8);
    expect_file!["../../expansions/cacheable_tagged.rs"].assert_eq(&prettyplease::unparse(&file));
}

#[test]
fn a_local_function_has_an_entry_point_of_its_own() {
    let function = "async fn find(id: i64) -> Result<Arc<Event>, Error> { query(id).await }";
    let arguments = r#"key = "event:<id>", tag = "events", local = "5s", local_outage = "serve""#;

    let file = expanded(Attribute::Cacheable, arguments, function);

    assert!(generated(&file, function) <= 7);
    expect_file!["../../expansions/cacheable_local.rs"].assert_eq(&prettyplease::unparse(&file));
}

#[test]
fn a_background_refresh_owns_what_its_tags_need() {
    let function = "async fn find(id: i64, tenant: String) -> Arc<Event> { query(id).await }";
    let arguments = r#"key = "event:<tenant>:<id>", tag = "place:<tenant>:<return.place>", local = 5,
        grace = 60, refresh = "background""#;

    let file = expanded(Attribute::Cacheable, arguments, function);

    let text = prettyplease::unparse(&file);
    assert!(text.contains("cacheable_background_local("), "{text}");
    assert!(
        text.contains("move |__cache_return, __cache_tags|"),
        "{text}"
    );
}

#[test]
fn cache_put_expands_to_one_call() {
    let function =
        "async fn initiate(payment: Payment, gateway: &Gateway) -> Result<Receipt, Error> {
            gateway.initiate(payment).await
        }";
    let arguments = r#"key = "payment:<payment.shop>-<payment.tx()>", ttl = gateway.ttl(), version = 2,
        policy = "payments", condition = payment.cents > 0, cache = gateway.cache"#;

    let file = expanded(Attribute::CachePut, arguments, function);

    assert!(generated(&file, function) <= 7);
    expect_file!["../../expansions/cache_put.rs"].assert_eq(&prettyplease::unparse(&file));
}

#[test]
fn cache_evict_expands_to_one_call() {
    let function = "async fn publish(tenant: String, draft: Draft) -> Result<Event, Error> {
            draft.publish(tenant).await
        }";
    let arguments = r#"key = ["draft:<draft.id>", "event:<tenant>:<return.id>"], pattern = "events:*:page:?",
        tag = ["events", "place:<tenant>:<return.place>"],
        crate = crate::cache"#;

    let file = expanded(Attribute::CacheEvict, arguments, function);

    assert!(generated(&file, function) <= 8);
    expect_file!["../../expansions/cache_evict.rs"].assert_eq(&prettyplease::unparse(&file));
}

#[test]
fn rate_limit_expands_to_one_statement_before_the_body() {
    let function =
        "async fn pay(user: i64, payment: Payment, bank: &Bank) -> Result<Receipt, Error> {
            let transfer = bank.prepare(payment).await?;
            transfer.commit().await
        }";
    let arguments = r#"policy = ["payment", "api"], key = "<user>:<payment.shop>", cost = payment.items(),
        limiter = bank.limiter"#;

    let file = expanded(Attribute::RateLimit, arguments, function);

    let [syn::Item::Fn(gated)] = file.items.as_slice() else {
        panic!("an attribute emits one function")
    };
    let written: ItemFn = syn::parse_str(function).expect("a function");
    assert_eq!(gated.sig, written.sig);
    assert_eq!(gated.block.stmts[1..], written.block.stmts);
    expect_file!["../../expansions/rate_limit.rs"].assert_eq(&prettyplease::unparse(&file));
}

#[test]
fn the_function_is_emitted_unchanged_after_an_error() {
    let function = "async fn find(id: i64) -> i64 { id }";

    let file = expanded(Attribute::Cacheable, "", function);

    let [syn::Item::Macro(_), syn::Item::Fn(kept)] = file.items.as_slice() else {
        panic!("expected an error, then the function")
    };
    assert_eq!(
        kept,
        &syn::parse_str::<ItemFn>(function).expect("a function")
    );
}

#[test]
fn a_derived_key_part_writes_its_fields_or_variant() {
    let types = [
        "#[derive(KeyPart)]
        pub struct Id<'a, T: ?Sized>(&'a str, #[key_part(skip)] PhantomData<T>);",
        "#[key_part(hash, crate = crate::cache)]
        struct Filter<K, const N: usize> where K: Kind {
            kind: Option<K>,
            r#type: [u8; N],
        }",
        "enum Kind { Concert, r#Final }",
        "struct All;",
    ];

    let derived: TokenStream = types
        .iter()
        .map(|written| key_part::derive(written.parse().expect(written)))
        .collect();

    let file = syn::parse2(derived).expect("valid Rust");
    expect_file!["../../expansions/key_part.rs"].assert_eq(&prettyplease::unparse(&file));
}

#[test]
fn a_key_by_hand_expands_to_one_call() {
    let arguments = r#""event:<id>:<name>-<self.tenant>", name = event.name()"#;

    let text = key::text(arguments.parse().expect(arguments), Kind::Key);

    let function = quote!(fn key(&self, id: i64, event: &Event) -> String { #text });
    let file: syn::File = syn::parse2(function).expect("the expansion is Rust");
    expect_file!["../../expansions/key.rs"].assert_eq(&prettyplease::unparse(&file));
}
