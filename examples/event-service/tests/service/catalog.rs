//! The catalog of the service, and `event-service catalog`.

use cache_runtime::assert_catalog_clean;
use cache_runtime::catalog::{Catalog, Code};
use event_service::settings::cache_defaults;
use serde_json::Value;

use crate::support::{Service, eventually, run};

#[test]
fn the_catalog_is_clean() {
    let catalog = Catalog::new(&cache_defaults());

    let stores = |name: &str| {
        let function = (catalog.functions.iter()).find(|function| function.name.ends_with(name));
        let function = function.expect(name);
        let stores = function.stores.as_ref().expect(name);
        (stores.value, stores.ttl_seconds, function.evicted_by.len())
    };
    assert_eq!(stores("events::find"), ("Event", Some(1800.0), 1));
    assert_eq!(stores("payments::token"), ("Token", Some(3000.0), 0));
    assert_catalog_clean!(catalog);
}

#[test]
fn the_command_prints_what_is_cached_as_a_table_and_as_json() {
    let table = run(&["catalog"], &[]);
    let json = run(&["catalog", "--json"], &[("CACHE_DEFAULT_TTL", "5m")]);

    let functions = Catalog::new(&cache_defaults()).functions.len();
    assert_eq!(
        (table.code, json.code),
        (Some(0), Some(0)),
        "{table:?}, {json:?}"
    );
    let row = table
        .printed
        .lines()
        .find(|line| line.contains("events::trending"));
    let row: Vec<_> = row.expect("a row").split_whitespace().collect();
    let trending = "event_service::events::trending";
    let by = ["event_service::events::changes::evicting", "(tag)"];
    let expected = [
        trending,
        "cacheable",
        "events:trending:page:<page>",
        "EventPage",
        "10m",
        by[0],
        by[1],
    ];
    assert_eq!(row, expected);
    let catalog: Value = serde_json::from_str(&json.printed).expect("JSON");
    assert_eq!(
        catalog["functions"].as_array().map(Vec::len),
        Some(functions)
    );
    assert_eq!(catalog["findings"], Value::Array(Vec::new()));
}

#[test]
fn the_command_fails_with_findings() {
    let ended = run(&["catalog"], &[("CACHE_POLICY_LISTS_TTL", "5m")]);

    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.printed.contains(Code::UnusedPolicy.as_str()),
        "{ended:?}"
    );
    assert_eq!(ended.said, "event-service: the catalog has findings\n");
}

#[test]
fn the_service_logs_findings_when_it_starts() {
    let service = Service::with(&[("CACHE_POLICY_LISTS_TTL", "5m")]);

    eventually("a warning", || {
        service.has_said("no annotated function names the configured policy `lists`")
    });
    assert!(service.has_said("code=unused-policy"));
}
