//! How clients and developers learn how the cache answered a request.

use cache_runtime::testing::RedisServer;
use serde_json::Value;

use crate::support::{Answer, PATIENCE, Service, eventually, run};

const KEYS: (&str, &str) = (
    "CACHE_SESSION_KEYS",
    "test:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
);
const EVENT: &str = "/api/events/1";

fn status(answer: &Answer) -> String {
    answer.header("cache-status")
}

fn ask(service: &Service, headers: &[(&str, &str)], path: &str) -> Answer {
    service.client().send_with(headers, "GET", path)
}

#[test]
fn responses_have_the_status_of_the_cache() {
    let mut server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);

    let miss = service.get(EVENT);
    let hit = service.get(EVENT);
    let unknown = service.get("/api/events/999999");
    server.kill();
    eventually("the outage is in the field", || {
        status(&service.get(EVENT)) == "event-service; fwd=bypass; detail=fallback"
    });

    assert_eq!(status(&miss), "event-service; fwd=miss; stored");
    let hit = status(&hit);
    let ttl = hit.strip_prefix("event-service; hit; ttl=");
    let ttl: u32 = ttl.expect("a hit").parse().expect("seconds");
    assert!((1..=1_800).contains(&ttl), "{hit}");
    assert_eq!(unknown.status, 404);
    assert!(
        status(&unknown).starts_with("event-service; fwd=miss"),
        "{unknown:?}"
    );
    for path in ["/livez", "/api/health/cache", "/metrics"] {
        assert_eq!(status(&service.get(path)), "", "{path}");
    }
}

#[test]
fn a_local_request_is_explained_and_timed() {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    service.get(EVENT);

    let explained = ask(&service, &[("cache-debug", "explain")], EVENT);
    let timed = ask(&service, &[("cache-debug", "timing")], EVENT);
    let plain = service.get(EVENT);

    assert_eq!(
        (explained.status, &explained.body["status"]),
        (200, &200.into())
    );
    assert_eq!(explained.header("cache-control"), "no-store");
    let Value::Array(calls) = &explained.body["calls"] else {
        panic!("{explained:?}")
    };
    let [call] = &calls[..] else {
        panic!("{explained:?}")
    };
    assert_eq!(call["function"], "event_service::events::find");
    assert_eq!(
        (&call["key"], &call["result"]),
        (&"dev_event:1".into(), &"hit".into())
    );
    assert!(call["redis_micros"].as_u64() > Some(0), "{call}");
    assert_eq!(timed.body, plain.body);
    let timing = timed.header("server-timing");
    assert!(timing.starts_with("cache;desc=\"hit\";dur="), "{timing}");
    assert_eq!(plain.header("server-timing"), "");
}

#[test]
fn a_request_through_a_proxy_needs_a_token() {
    let service = Service::start();
    let from_afar = ("x-forwarded-for", "192.0.2.1");
    let explained = |value: &str| {
        let answer = ask(&service, &[from_afar, ("cache-debug", value)], EVENT);
        answer.body["calls"].is_array()
    };

    let printed = run(&["debug-token"], &[KEYS, PATIENCE]);
    let token = printed.printed.trim();

    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(explained(&format!("explain; token={token}")));
    assert!(!explained("explain"));
    assert!(!explained(&format!("explain; token={token}x")));
    assert!(!explained("explain; token=v1.test.9999999999.AAAA"));
}

#[test]
fn without_keys_there_are_no_debug_tokens() {
    let refused = run(&["debug-token"], &[PATIENCE]);

    assert_eq!(refused.code, Some(1));
    assert!(refused.said.contains("CACHE_SESSION_KEYS"), "{refused:?}");
}
