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
    let summary = cache.run(warm::run(&shared.db, cache)).await;
    service.app.set_ready();

    let summary = summary.expect("a database");
    assert_eq!((summary.loaded, summary.failed), (9, 0), "{summary}");
    assert_eq!(probes().await, (200, 200));
    let first = service.get("/api/requirements/3").await;
    let status = first.headers["cache-status"].to_str().expect("ASCII");
    assert!(status.contains("; hit"), "{status}");
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
    service.get("/api/requirements/1").await;
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
    let series = metrics.lines().find(|line| {
        line.starts_with("cache_gets_total{")
            && line.contains("requirements_service::requirements::find")
    });
    assert!(series.is_some(), "{metrics}");
    assert!(
        std::fs::read_to_string(rules)
            .expect("a file")
            .contains("cache_gets_total{")
    );
}
