//! Starting, stopping, and health in each mode.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cache_runtime::testing::RedisServer;
use serde_json::{Value, json};

use crate::support::{Service, eventually, refused};

#[test]
fn it_answers_within_1_s_after_its_start() {
    // The machine may be busy with other tests, so the fastest of three starts counts.
    let quickest = (0..3).map(|_| {
        let began = Instant::now();
        assert_eq!(Service::start().get("/api/events/1").status, 200);
        began.elapsed()
    });

    let quickest = quickest.min().expect("three starts");

    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
}

#[test]
fn without_redis_it_is_healthy_in_memory_mode_and_logs_how_to_use_redis() {
    let mut service = Service::start();

    for probe in ["/livez", "/readyz", "/api/health"] {
        let answer = service.get(probe);
        assert_eq!((answer.status, answer.body), (200, json!({"status": "ok"})));
    }
    let health = service.get("/api/health/cache");
    service.terminate();

    assert_eq!(health.status, 200);
    assert_eq!(
        health.body,
        json!({
            "status": "healthy",
            "redis": {"connected": false, "uptime": null, "memory": {"used": null, "peak": null}},
            "cache": {"hitRate": null, "missRate": null, "totalOperations": 0},
            "fallbackMode": false,
            "mode": "memory",
        })
    );
    assert!(service.wait().1.contains("REDIS_URL"));
}

#[test]
fn with_redis_it_is_healthy_in_redis_mode() {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    service.get("/api/events/1");
    service.get("/api/events/1");
    service.get("/api/events/1");
    service.get("/api/events/1");

    let health = service.get("/api/health/cache");

    let Value::Object(redis) = &health.body["redis"] else {
        panic!("{health:?}")
    };
    assert_eq!(health.status, 200);
    assert_eq!(
        (&health.body["status"], &health.body["mode"]),
        (&json!("healthy"), &json!("redis"))
    );
    assert_eq!(health.body["fallbackMode"], false);
    assert_eq!(
        health.body["cache"],
        json!({"hitRate": 0.75, "missRate": 0.25, "totalOperations": 4})
    );
    assert!(
        redis["connected"] == true && redis["uptime"].is_u64(),
        "{redis:?}"
    );
    assert!(
        redis["memory"]["used"]
            .as_str()
            .is_some_and(|used| used.ends_with(['K', 'M'])),
        "{redis:?}"
    );
    assert!(
        redis["memory"]["peak"]
            .as_str()
            .is_some_and(|peak| peak.ends_with(['K', 'M'])),
        "{redis:?}"
    );
}

#[test]
fn metrics_show_all_functions_and_what_they_did() {
    let service = Service::start();
    let shown = |metrics: &str, series: &str| {
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("{series} is missing"))
            .to_owned()
    };
    let hits = r#"cache_gets_total{cache="event:<id>",function="event_service::events::find",result="hit"}"#;
    let evictions = r#"cache_evictions_total{cache="event:<id>",function="event_service::events::changes::removing",outcome="applied"}"#;

    let before = service.get("/metrics");
    service.get("/api/events/1");
    service.get("/api/events/1");
    let after = service.get("/metrics");

    assert_eq!(
        (before.status, &*before.content_type),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    let (Value::String(before), Value::String(after)) = (before.body, after.body) else {
        panic!("metrics are text")
    };
    assert_eq!(
        (shown(&before, hits), shown(&after, hits)),
        ("0".into(), "1".into())
    );
    assert_eq!(shown(&before, evictions), "0");
    assert_eq!(
        shown(
            &before,
            r#"cache_limit_decisions_total{policy="payment",outcome="limited"}"#
        ),
        "0"
    );
    assert_eq!(service.send("POST", "/metrics", None).status, 405);
}

#[test]
fn many_health_requests_ask_redis_once_per_second() {
    let server = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&server);
    let infos = || {
        let mut redis = redis::Client::open(server.url())
            .and_then(|client| client.get_connection())
            .expect("a connection");
        let stats: String = redis::cmd("INFO")
            .arg("commandstats")
            .query(&mut redis)
            .expect("statistics");
        let calls = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_info:calls="));
        let calls = calls.and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u64>().expect("a number"))
    };
    let (before, began) = (infos(), Instant::now());

    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let health = service.get("/api/health/cache");
                    assert_eq!(
                        (health.status, &health.body["mode"]),
                        (200, &json!("redis"))
                    );
                }
            });
        }
    });

    // One per second, one that began before, and the request for the count itself.
    let most = began.elapsed().as_secs() + 3;
    let asked = infos() - before;
    assert!(asked <= most, "{asked} of 400, {most} at most");
}

#[test]
fn without_a_reachable_redis_it_works_degraded() {
    let mut server = RedisServer::tcp().expect("redis-server starts");
    server.kill();
    let service = Service::on(&server);

    let event = service.get("/api/events/1");
    let health = service.get("/api/health/cache");

    assert_eq!(event.status, 200);
    assert_eq!(health.status, 200);
    assert_eq!(
        (&health.body["status"], &health.body["mode"]),
        (&json!("degraded"), &json!("fallback"))
    );
    assert_eq!(
        (
            &health.body["fallbackMode"],
            &health.body["redis"]["connected"]
        ),
        (&json!(true), &json!(false))
    );
    assert_eq!(service.get("/api/health").status, 200);
}

#[test]
fn the_service_survives_an_outage_of_redis() {
    let mut server = RedisServer::tcp().expect("redis-server starts");
    let service = Service::on(&server);
    let mode = || service.get("/api/health/cache").body["mode"].take();
    assert_eq!(mode(), "redis");

    server.kill();
    for _ in 0..20 {
        assert_eq!(service.get("/api/events/1").status, 200);
    }
    eventually("the fallback mode", || mode() == "fallback");
    server.restart().expect("redis-server starts");

    eventually("the redis mode", || mode() == "redis");
    assert_eq!(service.get("/api/events/1").status, 200);
}

#[test]
fn the_statistics_are_complete() {
    let service = Service::start();
    service.get("/api/events/1");

    let stats = service.get("/api/cache/stats").body;

    assert_eq!(
        (&stats["mode"], &stats["total"]["misses"]),
        (&json!("memory"), &json!(1))
    );
    let site = stats["sites"]
        .as_array()
        .and_then(|sites| sites.iter().find(|site| site["template"] == "event:<id>"));
    assert!(
        site.is_some_and(|site| site["misses"] == 1 && site["fills"] == 1),
        "{stats}"
    );
}

#[test]
fn sigterm_finishes_requests_and_accepts_no_new_ones() {
    let mut service = Service::with(&[("SLOW_DB_MS", "700")]);
    let address = service.address.clone();

    let answer = std::thread::scope(|scope| {
        let request = scope.spawn(|| service.get("/api/events/1"));
        eventually("the request", || service.counts()["misses"] == 1);
        service.terminate();
        eventually("the end of listening", || {
            TcpStream::connect(&address).is_err()
        });
        request.join().expect("an answer")
    });
    let (status, log) = service.wait();

    assert_eq!((answer.status, &answer.body["id"]), (200, &json!(1)));
    assert!(
        status.success() && log.contains("stopped"),
        "{status}: {log}"
    );
}

#[test]
fn an_error_at_the_start_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let cases: &[(&str, &str)] = &[
        ("BIND", &taken),
        ("BIND", "nonsense"),
        ("DATABASE_URL", "postgres://localhost/events"),
        ("DATABASE_URL", "sqlite:/no/such/folder/events.db"),
        ("SLOW_DB_MS", "soon"),
        ("WARM_EVERY", "soon"),
        ("WARM_EVERY", "0"),
        ("TRUSTED_PROXIES", "localhost"),
        ("TRUSTED_PROXIES", "0.0.0.0/0"),
        ("TRUSTED_ORIGINS", "example.com"),
        ("INSECURE_COOKIE", "perhaps"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS_PER_ADDRESS", "many"),
        ("HEAD_TIMEOUT", "0ms"),
        ("BODY_TIMEOUT", "soon"),
        ("WRITE_TIMEOUT", "-1s"),
        ("LOGIN_WAIT", "2h"),
        ("CACHE_SESSION_KEYS", "secret"),
        ("CACHE_LIMIT_API", "many"),
        ("REDIS_URL", "http://localhost"),
        ("CACHE_DEFAULT_TLL", "60"),
    ];

    for &(name, value) in cases {
        let (code, said) = refused(&[("BIND", "127.0.0.1:0"), (name, value)]);

        assert_eq!(code, Some(1), "{name}={value}: {said}");
        assert!(
            said.starts_with("event-service: ") && said.contains(name),
            "{name}={value}: {said}"
        );
        assert!(!said.contains("panicked"), "{name}={value}: {said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_flood_of_logins_uses_bounded_memory() {
    let service = Service::start();
    let before = service.resident();

    std::thread::scope(|scope| {
        for user in 1..=4 {
            let service = &service;
            scope.spawn(move || (0..25).for_each(|_| drop(service.log_in(user))));
        }
    });

    // 19 MiB for each of four hashes, and some room for the rest.
    let grown = service.resident().saturating_sub(before);
    assert!(grown < 4 * 19 + 30, "{grown} MiB");
}
