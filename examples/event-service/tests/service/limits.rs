//! Who may ask how often, and what those are told who ask more.

use cache_runtime::testing::RedisServer;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Service, eventually};

const EVENT: &str = "/api/events/1";

#[test]
fn an_address_has_a_hundred_requests_a_minute() {
    let service = Service::with(&[("CACHE_LIMIT_API", "")]);
    for _ in 0..100 {
        assert_eq!(service.get(EVENT).status, 200);
    }

    let rejected = service.get(EVENT);

    assert_eq!(rejected.status, 429);
    assert_eq!(rejected.header("ratelimit-policy"), r#""api";q=100;w=60"#);
}

#[test]
fn who_asks_too_much_is_told_when_to_come_back() {
    let service = Service::with(&[("CACHE_LIMIT_API", "3/60s")]);
    let statuses = [(); 3].map(|()| service.get(EVENT).status);
    assert_eq!(statuses, [200; 3]);

    let rejected = service.get(EVENT);

    assert_is_rejection(&rejected, "api");
    assert_eq!(rejected.header("ratelimit-policy"), r#""api";q=3;w=60"#);
    let rest = rejected.header("ratelimit");
    assert!(rest.starts_with(r#""api";r=0;t="#), "{rest}");
    let nowhere = service.get("/no/such/route");
    assert_eq!(nowhere.status, 429, "what has no route is counted as well");
}

#[test]
fn what_is_left_is_told_before_it_is_used_up() {
    let service = Service::with(&[("CACHE_LIMIT_API", "3/60s")]);

    let first = service.get(EVENT);

    let rest = first.header("ratelimit");
    assert!(rest.starts_with(r#""api";r=2"#), "{rest}");
}

#[test]
fn health_is_never_limited_and_what_only_looks_like_it_is() {
    let service = Service::with(&[("CACHE_LIMIT_API", "1/60s")]);
    assert_eq!(service.get(EVENT).status, 200);
    assert_eq!(service.get(EVENT).status, 429);

    for path in ["/api/health", "/api/health/cache", "/api/health?deep=1"] {
        for _ in 0..5 {
            let health = service.get(path);
            assert_eq!(health.status, 200, "{path}");
            assert_eq!(health.header("ratelimit"), "", "{path}");
        }
    }

    for path in [
        "/api/health/",
        "//api/health",
        "/api/HEALTH",
        "/api/health%2F",
    ] {
        assert_eq!(service.get(path).status, 429, "{path}");
    }
    assert_eq!(service.send("POST", "/api/health", None).status, 429);
}

#[test]
fn the_eleventh_guess_of_a_password_is_too_many_and_reading_goes_on() {
    let service = Service::with(&[("CACHE_LIMIT_AUTH", "")]);
    let guess = |number| {
        let body = format!(r#"{{"username": "user1", "password": "guess{number}"}}"#);
        service.send("POST", "/api/auth/login", Some(&body))
    };
    for number in 1..=10 {
        assert_eq!(guess(number).status, 401, "guess {number}");
    }

    let rejected = guess(11);

    assert_is_rejection(&rejected, "auth");
    assert_eq!(
        rejected.header("ratelimit-policy"),
        r#""auth";q=10;w=60, "api";q=1000000;w=60"#
    );
    let right = service.client().log_in(1);
    assert_eq!(right.status, 429, "nor does the right password help now");
    assert_eq!(service.get(EVENT).status, 200);
}

#[test]
fn all_below_auth_counts_as_a_guess_whether_it_is_there_or_not() {
    for (method, path, status) in [
        ("POST", "/api/auth/login", 415),
        ("POST", "/api/auth/logout", 204),
        ("POST", "/api/auth/logout-all", 401),
        ("GET", "/api/auth/sessions", 401),
        ("DELETE", "/api/auth/sessions/1", 401),
        ("GET", "/api/auth/me", 401),
        ("GET", "/api/auth/login", 405),
        ("POST", "/api/auth/register", 404),
        ("GET", "/api/auth/no/such/thing", 404),
    ] {
        let service = Service::with(&[("CACHE_LIMIT_AUTH", "1/60s")]);

        let (first, second) = (
            service.send(method, path, None),
            service.send(method, path, None),
        );

        assert_eq!(first.status, status, "{method} {path}");
        assert_is_rejection(&second, "auth");
    }
}

#[test]
fn the_sixth_payment_of_a_user_is_too_many_and_others_go_on() {
    let service = Service::with(&[("CACHE_LIMIT_PAYMENT", "")]);
    let (first, second) = (service.log_in(1), service.log_in(2));
    let payments = [(); 5].map(|()| pay(&first, 1));
    assert!(payments.iter().all(|payment| payment.status == 201));

    let sixth = pay(&first, 1);
    let other = pay(&second, 2);

    assert_is_rejection(&sixth, "payment");
    assert!(
        sixth
            .header("ratelimit-policy")
            .contains(r#""payment";q=5;w=60"#)
    );
    assert_eq!(other.status, 201);
    let paid = format!(
        "/api/payments/{}",
        payments[0].body["tx"].as_str().expect("text")
    );
    assert_eq!(service.get(&paid).status, 200, "reading is no payment");
}

#[test]
fn confirming_counts_for_whoever_pays() {
    let service = Service::with(&[("CACHE_LIMIT_PAYMENT", "1/60s")]);
    let client = service.log_in(1);
    let payment = pay(&client, 1);
    let tx = payment.body["tx"].as_str().expect("text");

    let confirmed = client.send("POST", &format!("/api/payments/{tx}/confirm"), None);

    assert_is_rejection(&confirmed, "payment");
    let payment = service.get(&format!("/api/payments/{tx}")).body;
    assert_eq!(payment["status"], "pending", "nobody was charged");
}

#[test]
fn who_pays_in_the_name_of_another_uses_up_nothing_of_theirs() {
    let service = Service::with(&[("CACHE_LIMIT_PAYMENT", "2/60s")]);
    let (payer, another) = (service.log_in(1), service.log_in(2));
    let payment = pay(&payer, 1);
    let confirm = format!(
        "/api/payments/{}/confirm",
        payment.body["tx"].as_str().expect("text")
    );

    let tries = [(); 3].map(|()| {
        let (paid, confirmed) = (pay(&another, 1), another.send("POST", &confirm, None));
        (paid.status, confirmed.status)
    });

    assert_eq!(tries, [(403, 403); 3]);
    assert_eq!(payer.send("POST", &confirm, None).status, 200);
}

#[test]
fn a_forged_address_does_not_help() {
    let service = Service::with(&[("CACHE_LIMIT_API", "1/60s")]);
    assert_eq!(service.get_for("192.0.2.1", EVENT).status, 200);

    let forged = service.get_for("192.0.2.2", EVENT);

    assert_eq!(forged.status, 429);
}

#[test]
fn what_a_trusted_proxy_says_is_the_client() {
    let variables = [
        ("CACHE_LIMIT_API", "1/60s"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1"),
    ];
    let service = Service::with(&variables);
    assert_eq!(service.get_for("192.0.2.1", EVENT).status, 200);

    let (again, other) = (
        service.get_for("192.0.2.1", EVENT).status,
        service.get_for("192.0.2.2", EVENT).status,
    );
    let forged = service.get_for("192.0.2.99, 192.0.2.1, 10.1.2.3", EVENT);

    assert_eq!((again, other), (429, 200));
    assert_eq!(forged.status, 429, "only what the proxies added counts");
}

#[test]
fn the_limit_of_logins_counts_the_forwarded_address_too() {
    let variables = [
        ("CACHE_LIMIT_AUTH", "1/60s"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let service = Service::with(&variables);

    let statuses = ["192.0.2.1", "192.0.2.1", "192.0.2.2"]
        .map(|client| service.get_for(client, "/api/auth/me").status);

    assert_eq!(statuses, [401, 429, 401]);
}

#[test]
fn two_processes_share_a_limit() {
    let redis = RedisServer::start().expect("redis-server starts");
    let variables = [("CACHE_LIMIT_API", "2/60s"), ("REDIS_URL", &*redis.url())];
    let (one, other) = (Service::with(&variables), Service::with(&variables));
    assert_eq!((one.get(EVENT).status, other.get(EVENT).status), (200, 200));

    let third = (one.get(EVENT).status, other.get(EVENT).status);

    assert_eq!(third, (429, 429));
}

#[test]
fn an_outage_of_redis_and_its_end_are_no_fresh_allowance() {
    let mut redis = RedisServer::tcp().expect("redis-server starts");
    let service = Service::with(&[("CACHE_LIMIT_API", "6/60s"), ("REDIS_URL", &redis.url())]);
    let three = || [(); 3].map(|()| service.get(EVENT).status);
    let mode = || service.get("/api/health/cache").body["mode"].take();
    assert_eq!(three(), [200; 3]);

    redis.kill();
    let during = (three(), three());
    redis.restart_empty().expect("redis-server starts");
    eventually("the redis mode", || mode() == "redis");
    let after = three();

    assert_eq!(during, ([200; 3], [429; 3]));
    assert_eq!(after, [429; 3]);
}

#[test]
fn rejections_are_counted_by_policy_and_route_and_nobody_is_named() {
    let service = Service::with(&[
        ("CACHE_LIMIT_API", "2/60s"),
        ("CACHE_LIMIT_AUTH", "1/60s"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ]);
    for path in [
        EVENT,
        "/api/events/2",
        "/api/events/3",
        "/api/events/4",
        "/no/route",
    ] {
        service.get_for("192.0.2.1", path);
    }
    service.get_for("192.0.2.2", "/api/auth/me");
    service.get_for("192.0.2.2", "/api/auth/me");

    let stats = service.get_for("192.0.2.3", "/api/cache/stats").body;

    let (api, auth) = (of_policy(&stats, "api"), of_policy(&stats, "auth"));
    assert_eq!((&api["allowed"], &api["limited"]), (&json!(5), &json!(3)));
    assert_eq!(
        api["rejected_by_route"],
        json!({"/api/events/{id}": 2, "unmatched": 1})
    );
    assert_eq!(auth["rejected_by_route"], json!({"/api/auth/me": 1}));
    assert!(!stats.to_string().contains("192.0.2."), "{stats}");
}

/// Everything that a rejected client has to know.
fn assert_is_rejection(answer: &Answer, policy: &str) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.content_type, "application/problem+json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let wait: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(
        (&answer.body["status"], &answer.body["violated-policies"]),
        (&json!(429), &json!([policy]))
    );
}

fn of_policy<'a>(stats: &'a Value, policy: &str) -> &'a Value {
    let limits = stats["limits"].as_array().expect("a list");
    let found = limits.iter().find(|limit| limit["policy"] == policy);
    found.expect("the policy")
}

fn pay(client: &Client<'_>, user: i64) -> Answer {
    let body = format!(
        r#"{{"user_id":{user},"event_id":1,"amount_cents":100,"card_number":"4111111111111111"}}"#
    );
    client.send("POST", "/api/payments", Some(&body))
}
