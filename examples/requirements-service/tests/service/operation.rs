//! Probes, warming, metrics, the page for operators, alerts and the catalog.

use std::path::Path;
use std::process::Command;

use axum::http::Method;
use cache_runtime::assert_catalog_clean;
use cache_runtime::catalog::Catalog;
use requirements_service::settings::cache_defaults;
use requirements_service::warm;

use crate::support::{ADMIN_TOKEN, Shared};

#[test]
fn the_catalog_is_clean() {
    let catalog = Catalog::new(&cache_defaults());

    assert!(catalog.functions.len() >= 12, "{catalog}");
    assert_catalog_clean!(catalog);
}

#[tokio::test]
async fn it_is_ready_after_it_has_warmed() {
    let shared = Shared::on_sqlite().await;
    let service = shared.instance().await;
    let probes = async || {
        let (live, ready) = (service.get("/livez").await, service.get("/readyz").await);
        (live.status, ready.status)
    };
    assert_eq!(probes().await, (200, 503));

    let cache = &service.app.cache;
    let warming = warm::run(shared.db.clone(), cache.clone());
    let summary = cache.run(warming).await;
    service.app.set_ready();

    let summary = summary.expect("a database");
    assert_eq!((summary.loaded, summary.failed), (9, 0), "{summary}");
    assert_eq!(probes().await, (200, 200));
    let first = service.get("/api/requirements/3").await;
    let status = first.headers["cache-status"].to_str().expect("ASCII");
    assert!(status.contains("; hit"), "{status}");
}

#[tokio::test]
async fn it_is_ready_also_if_warming_panics() {
    let shared = Shared::on_sqlite().await;
    let service = shared.instance().await;
    assert_eq!(service.get("/readyz").await.status, 503);

    let panics = async { panic!("a bug in warming, which this test needs") };
    warm::ready_after(service.app.clone(), panics).await;

    assert_eq!(service.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn it_stays_ready_and_answers_while_redis_is_away() {
    let mut shared = Shared::on_sqlite().await;
    let service = shared.instance().await;
    service.app.set_ready();
    let alice = service.log_in("alice").await;

    shared.redis.kill();

    let read = service.get("/api/requirements/1").await;
    assert_eq!(
        (read.status, &read.body["title"]),
        (200, &"Refund a payment".into())
    );
    assert_eq!(service.get("/readyz").await.status, 200);
    // Nobody is logged out, but nobody can prove to be logged in.
    let write = service
        .as_user(&alice, Method::DELETE, "/api/requirements/1", None)
        .await;
    assert_eq!(write.status, 503);
}

#[tokio::test]
async fn operators_clear_by_pattern_and_nobody_else_does() {
    let shared = Shared::on_sqlite().await;
    let service = shared.instance().await;
    for path in [
        "/api/requirements/1",
        "/api/requirements/2",
        "/api/features/1",
    ] {
        service.get(path).await;
    }
    let clear = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer)];
        let body = Some(r#"{"pattern": "requirement:*"}"#);
        service
            .send(Method::POST, "/admin/cache/api/evict", &headers, body)
            .await
    };

    assert_eq!(clear("a-token-of-nobody").await.status, 401);
    assert!(shared.ttl("requirement:1").is_some());
    let cleared = clear(ADMIN_TOKEN).await;

    assert_eq!(
        (cleared.status, &cleared.body["keys"]),
        (200, &2.into()),
        "{cleared:?}"
    );
    assert_eq!(
        (shared.ttl("requirement:1"), shared.ttl("requirement:2")),
        (None, None)
    );
    assert!(shared.ttl("feature:1").is_some());
}

#[tokio::test]
async fn the_alert_is_valid_and_uses_metrics_that_exist() {
    let shared = Shared::on_sqlite().await;
    let service = shared.instance().await;
    for path in [
        "/api/requirements/1",
        "/api/requirements/1",
        "/api/requirements",
        "/api/requirements",
    ] {
        service.get(path).await;
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts.yml");

    let program = std::env::var("CACHE_TEST_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let checked = Command::new(program)
        .args(["check", "rules"])
        .arg(&rules)
        .output();
    let checked = checked.expect("`promtool` is missing: run `tests/run`, which installs it");
    let metrics = service.get("/metrics").await;

    assert!(checked.status.success(), "{checked:?}");
    let metrics = metrics.body.as_str().expect("a text").to_owned();
    let series = metrics.lines();
    let series = series.filter(|line| line.starts_with("cache_gets_total{"));
    let rules = std::fs::read_to_string(rules).expect("a file");
    let selectors = rules.split("cache_gets_total{").skip(1);
    let selectors = selectors.map(|rest| rest.split_once('}').expect("an end").0);
    assert_eq!(selectors.clone().count(), 3, "{rules}");
    for selector in selectors {
        let selected = series.clone().filter(|line| selects(selector, line));
        let selected: Vec<_> = selected
            .filter_map(|line| label(line, "function"))
            .collect();
        let finds = selected.contains(&"requirements_service::requirements::find");
        let searches = selected.contains(&"requirements_service::requirements::search");
        assert_eq!((finds, searches), (true, false), "{selector}: {metrics}");
    }
}

/// Returns whether a selector such as `function=~"a::.*",result="hit"` selects a series. Unlike in Prometheus, the series must have
/// every label of the selector, so that a misspelt one is found.
fn selects(selector: &str, series: &str) -> bool {
    selector.split(',').all(|matcher| {
        let (operator, pattern) = matcher.split_once('"').expect("a value");
        let pattern = pattern.strip_suffix('"').expect("a value");
        let (name, operator) = operator.split_at(operator.find(['=', '!']).expect("an operator"));
        let Some(value) = label(series, name) else {
            return false;
        };
        // The rules need no other patterns.
        let matches = || match pattern.split_once(".*") {
            Some((start, end)) => value.starts_with(start) && value.ends_with(end),
            None => value == pattern,
        };
        match operator {
            "=" => value == pattern,
            "=~" => matches(),
            "!~" => !matches(),
            other => panic!("`{other}` in `{selector}`: compare it, too"),
        }
    })
}

/// Returns the value of a label of a series.
fn label<'a>(series: &'a str, name: &str) -> Option<&'a str> {
    let (labels, _) = series.split_once('{')?.1.split_once('}')?;
    let mut labels = labels.split(',').filter_map(|label| label.split_once('='));
    let (_, value) = labels.find(|(label, _)| *label == name)?;
    Some(value.trim_matches('"'))
}
