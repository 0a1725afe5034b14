//! The page and the API for operators.

use cache_runtime::testing::RedisServer;
use serde_json::json;

use crate::support::{Service, eventually};

const TOKEN: &str = "a-token-for-operators";
const READER: &str = "a-token-for-dashboards";

fn with_tokens() -> Service {
    Service::with(&[("ADMIN_TOKEN", TOKEN), ("ADMIN_READ_TOKEN", READER)])
}

#[test]
fn without_a_token_this_machine_may_use_it_and_clients_of_a_proxy_may_not() {
    let service = Service::start();

    let status = service.get("/admin/cache/api/status");
    assert_eq!(
        (status.status, &status.body["role"]),
        (200, &json!("write"))
    );
    let forwarded = service.get_for("127.0.0.1", "/admin/cache/api/status");
    assert_eq!(forwarded.status, 403);
    assert_eq!(forwarded.content_type, "application/problem+json");
}

#[test]
fn with_a_token_everybody_needs_one_and_readers_change_nothing() {
    let service = with_tokens();
    let send = |token: &str, method, path: &str, body| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer)];
        let client = service.client();
        client.send_with_body(&headers, method, path, body).status
    };
    let evict = Some(r#"{"all": true}"#);

    assert_eq!(service.get("/admin/cache/api/status").status, 401);
    assert_eq!(
        send("a-token-of-nobody", "GET", "/admin/cache/api/status", None),
        401
    );
    assert_eq!(send(READER, "GET", "/admin/cache/api/status", None), 200);
    assert_eq!(send(READER, "POST", "/admin/cache/api/evict", evict), 403);
    assert_eq!(
        send(TOKEN, "POST", "/admin/cache/api/evict", Some("{}")),
        422
    );
    assert_eq!(send(TOKEN, "POST", "/admin/cache/api/evict", evict), 200);
    eventually("the eviction is logged", || {
        service.has_said("cache_runtime::admin") && service.has_said("the write token")
    });
}

#[test]
fn a_token_that_is_too_short_keeps_the_service_from_starting() {
    let (code, said) = crate::support::refused(&[("ADMIN_TOKEN", "secret")]);

    assert_eq!(code, Some(1));
    assert!(
        said.contains("ADMIN_TOKEN") && said.contains("16 to 512"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn pages_of_other_origins_cannot_evict() {
    let service = Service::start();
    service.get("/api/events/1");
    let from = |origin: &str| {
        let client = service.client();
        let headers = [("origin", origin)];
        let body = Some(r#"{"all": true}"#);
        client.send_with_body(&headers, "POST", "/admin/cache/api/evict", body)
    };

    assert_eq!(from("https://evil.example").status, 403);
    assert_eq!(
        service.get("/admin/cache/api/keys").body["keys"][0]["key"],
        "event:1"
    );
    let own = format!("http://{}", service.address);
    assert_eq!(from(&own).body["keys"], 1);
}

#[test]
fn a_dry_run_counts_what_an_eviction_removes() {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    for event in 1..=5 {
        service.get(&format!("/api/events/{event}"));
    }
    let evict = |body: &str| {
        service
            .send("POST", "/admin/cache/api/evict", Some(body))
            .body
    };

    let counted = evict(r#"{"pattern": "event:?", "dry_run": true}"#);
    assert_eq!(
        counted,
        json!({"keys": 5, "is_complete": true, "dry_run": true})
    );
    assert_eq!(crate::support::entries(&server).len(), 5);

    assert_eq!(evict(r#"{"pattern": "event:?"}"#)["keys"], 5);
    assert!(crate::support::entries(&server).is_empty());
}

#[test]
fn a_pattern_that_is_off_is_bypassed() {
    let service = Service::start();
    service.get("/api/events/1");
    let switch = |way: &str| {
        let path = format!("/admin/cache/api/switches/{way}");
        let answer = service.send("POST", &path, Some(r#"{"pattern": "event:*"}"#));
        assert_eq!(answer.status, 200, "{answer:?}");
    };

    switch("off");
    service.get("/api/events/1");
    assert_eq!(service.counts()["misses_by_reason"]["disabled"], 1);
    switch("on");
    service.get("/api/events/1");
    assert_eq!(service.counts()["hits"], 1);
}

#[test]
fn sessions_clients_and_jobs_of_the_service_are_there() {
    let service = Service::with(&[("CACHE_LIMIT_PAYMENT", "1/60s")]);
    let client = service.log_in(7);

    let sessions = service.get("/admin/cache/api/sessions?user=7").body;
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(1));
    let body = Some(r#"{"user": "7"}"#);
    let ended = service.send("POST", "/admin/cache/api/sessions/end", body);
    assert_eq!(ended.body, json!({"ended": 1}));
    assert_eq!(client.get("/api/auth/me").status, 401);

    let top = service.get("/admin/cache/api/limits/top?policy=api");
    assert_eq!(top.body, json!({"policy": "api", "clients": []}));

    let started = service.send("POST", "/admin/cache/api/jobs/popular/run", None);
    assert_eq!(started.status, 200, "{started:?}");
    eventually("the job ends", || {
        let jobs = service.get("/admin/cache/api/jobs").body;
        jobs["jobs"][0]["last"]["loaded"]
            .as_u64()
            .is_some_and(|loaded| loaded > 0)
    });
}

#[test]
fn the_page_is_under_a_path_with_a_slash_and_works_without_redis() {
    let mut server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    service.get("/api/events/1");

    // The client follows the redirect.
    let moved = service.get("/admin/cache");
    assert_eq!(
        (moved.status, &*moved.content_type),
        (200, "text/html; charset=utf-8")
    );
    let page = service.get("/admin/cache/");
    assert_eq!(
        (page.status, &*page.content_type),
        (200, "text/html; charset=utf-8")
    );
    let script = service.get("/admin/cache/app.js");
    assert_eq!(script.status, 200);

    server.kill();
    eventually("the page shows the outage", || {
        service.get("/api/events/1");
        let view = service.get("/admin/cache/api/view").body;
        let periods = view["periods"].as_array().cloned().unwrap_or_default();
        periods
            .last()
            .is_some_and(|period| period["mode"] == "fallback")
    });
    assert_eq!(service.get("/admin/cache/").status, 200);
}
