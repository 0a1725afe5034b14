//! What operators see of how the cache is used.

use serde_json::{Value, json};

use crate::support::{Service, eventually};

#[test]
fn the_keys_with_the_most_hits_are_shown() {
    let service = Service::start();
    let view = || service.get("/admin/cache/api/view").body;
    // Hits are counted while an operator looks.
    view();

    let hot = || view()["hot"].as_array().cloned().unwrap_or_default();
    eventually("event 1 is the hottest", || {
        (0..50).for_each(|_| drop(service.get("/api/events/1")));
        service.get("/api/events/2");
        hot().first().is_some_and(|first| first["key"] == "event:1")
    });

    let hits: Vec<_> = hot().iter().map(|key| key["hits"].as_u64()).collect();
    assert!(hits.is_sorted_by(|one, next| one >= next), "{hits:?}");
}

#[test]
fn each_function_has_its_hits_and_misses() {
    let service = Service::start();
    for path in [
        "/api/events/1",
        "/api/events/1",
        "/api/events/1",
        "/api/users/1",
    ] {
        service.get(path);
    }

    let stats = service.get("/admin/cache/api/stats").body;

    let of = |name: &str| {
        let sites = stats["sites"].as_array().expect("a list").iter();
        let mut found = sites.filter(|site| site["name"] == name);
        let site = found.next().unwrap_or_else(|| panic!("{name} is missing"));
        (site["hits"].clone(), site["misses"].clone())
    };
    assert_eq!(of("event_service::events::find"), (json!(2), json!(1)));
    assert_eq!(of("event_service::users::find"), (json!(0), json!(1)));
}

#[test]
fn the_catalog_advises_what_to_change() {
    let clean = Service::start();
    let service = Service::with(&[("CACHE_POLICY_LISTS_TTL", "5m")]);
    let findings =
        |service: &Service| service.get("/admin/cache/api/catalog").body["findings"].take();

    let found = findings(&service);

    assert_eq!(findings(&clean), json!([]));
    let Some([finding]) = found.as_array().map(Vec::as_slice) else {
        panic!("{found}")
    };
    assert_eq!(finding["code"], "unused-policy");
    let advice = finding["advice"]
        .as_str()
        .is_some_and(|advice| !advice.is_empty());
    assert!(advice, "{finding}");
    let page = service.get("/admin/cache/").body;
    let Value::String(page) = page else {
        panic!("{page}")
    };
    assert!(page.contains("unused-policy"));
}
