//! The catalog of this program: what the attributes of real functions state, and whether calls agree.

use std::time::Duration;

use cache_runtime::catalog::{Attribute, Catalog, Code, Function, TargetKind, TtlFrom};
use cache_runtime::testing::RedisServer;
use cache_runtime::{Cache, Config, TtlPolicy, assert_catalog_clean, cache_evict, cacheable};

#[cacheable(key = "catalog:policy", policy = "catalog")]
#[expect(dead_code, reason = "the catalog has it without a call")]
async fn by_policy() -> Option<u8> {
    None
}

#[cacheable(key = "catalog:default")]
async fn by_default() -> u8 {
    1
}

#[cacheable(key = "catalog:written", ttl = "90s", policy = "catalog")]
async fn written() -> u8 {
    1
}

#[cacheable(key = "catalog:none", policy = "catalog")]
async fn none() -> Option<u8> {
    None
}

#[cache_evict(key = ["catalog:default", "catalog:written"], pattern = "catalog:n*")]
#[expect(dead_code, reason = "the catalog has it without a call")]
async fn evict() {}

#[cacheable(key = "catalog:list:<size>")]
#[expect(dead_code, reason = "the catalog has it without a call")]
async fn list(size: u8, _page: u8) -> u8 {
    size + _page
}

fn config() -> Config {
    configured(Config::default())
}

fn configured(config: Config) -> Config {
    let policy = TtlPolicy::default()
        .ttl(Duration::from_secs(7_200))
        .none_ttl(Duration::from_secs(30));
    config
        .default_ttl(Duration::from_secs(600))
        .policy("catalog", policy)
}

fn function<'a>(catalog: &'a Catalog, name: &str) -> &'a Function {
    let name = format!("observability::{name}");
    let found = catalog
        .functions
        .iter()
        .find(|function| function.name == name);
    found.expect(&name)
}

/// Returns the codes of the findings about a function.
fn codes(catalog: &Catalog, name: &str) -> Vec<Code> {
    let name = format!("observability::{name}");
    let findings = catalog.findings.iter();
    findings
        .filter(|finding| finding.functions.contains(&&*name))
        .map(|finding| finding.code)
        .collect()
}

#[test]
fn functions_are_described_from_their_attributes() {
    let catalog = Catalog::new(&config());

    let row = function(&catalog, "service::row");
    assert_eq!(
        (row.attribute, row.targets[0].template),
        (Attribute::Cacheable, "row:<id>")
    );
    assert!(
        row.file.ends_with("observability/service.rs"),
        "{}",
        row.file
    );
    let source = include_str!("service.rs")
        .lines()
        .nth(row.line as usize - 1);
    assert_eq!(
        source,
        Some(r#"#[cacheable(key = "row:<id>", none_ttl = 30)]"#)
    );
    assert_eq!(
        row.stores.as_ref().map(|stores| stores.value),
        Some("String")
    );
    let by: Vec<_> = row.evicted_by.iter().map(|by| by.function).collect();
    assert_eq!(
        by,
        [
            "observability::service::update",
            "observability::service::clear"
        ]
    );
    let kinds = |name| {
        let targets = function(&catalog, name).targets.iter();
        targets.map(|target| target.kind).collect::<Vec<_>>()
    };
    assert_eq!(
        kinds("catalog::evict"),
        [TargetKind::Key, TargetKind::Key, TargetKind::Pattern]
    );
    assert_eq!(kinds("service::clear"), [TargetKind::All]);
    assert_eq!(
        function(&catalog, "service::store").attribute,
        Attribute::CachePut
    );
}

#[tokio::test]
async fn entries_live_as_long_as_the_catalog_says() {
    let server = RedisServer::start().expect("redis-server starts");
    let cache = Cache::connect(configured(server.config()))
        .await
        .expect("a valid configuration");
    cache
        .run(async {
            by_default().await;
            written().await;
            none().await;
        })
        .await;
    let catalog = cache.catalog();

    for (name, key, from, seconds) in [
        ("by_default", "catalog:default", TtlFrom::Default, 600.0),
        ("written", "catalog:written", TtlFrom::Attribute, 90.0),
        ("none", "catalog:none", TtlFrom::Policy, 30.0),
    ] {
        let stores = function(&catalog, &format!("catalog::{name}"))
            .stores
            .clone()
            .expect(name);
        assert_eq!(stores.ttl_from, from, "{name}");
        let said = match name {
            "none" => stores.none_ttl_seconds,
            _ => stores.ttl_seconds,
        };
        assert_eq!(said, Some(seconds), "{name}");
        let left = cache.ttl(key).await.expect("it is stored").as_secs_f64();
        assert!((seconds - 5.0..=seconds).contains(&left), "{name}: {left}");
    }
}

#[test]
fn findings_depend_on_the_configuration() {
    let (configured, default) = (Catalog::new(&config()), Catalog::new(&Config::default()));

    // `all_entries` of the service evicts all of them.
    assert_eq!(codes(&configured, "catalog::by_policy"), []);
    assert_eq!(codes(&default, "catalog::by_policy"), [Code::UnknownPolicy]);
    assert_eq!(codes(&configured, "catalog::list"), [Code::UnkeyedArgument]);
    assert_eq!(
        codes(&configured, "service::update"),
        [Code::UnmatchedEviction]
    );
}

#[test]
#[should_panic(
    expected = "unkeyed-argument observability::catalog::list: the body reads `_page`, which is missing from the key"
)]
fn the_assertion_fails_with_each_finding() {
    assert_catalog_clean!(
        Catalog::new(&config()),
        allow = ["unmatched-eviction service::update"]
    );
}

#[test]
#[should_panic(expected = "`value-types` is allowed but not found; remove it from `allow`")]
fn the_assertion_without_a_catalog_uses_the_default_configuration() {
    assert_catalog_clean!(
        allow = [
            "unmatched-eviction",
            "unkeyed-argument",
            "unknown-policy",
            "value-types"
        ]
    );
}

#[test]
fn the_assertion_accepts_findings_by_name() {
    assert_catalog_clean!(
        Catalog::new(&config()),
        allow = [
            "unmatched-eviction service::update",
            "unkeyed-argument list"
        ],
    );
}
