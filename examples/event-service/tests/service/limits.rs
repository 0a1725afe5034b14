//! Rate limits, and the responses to clients that exceed them.

use std::time::{Duration, Instant};

use cache_runtime::testing::RedisServer;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Service, credentials, entries, eventually, everything_in};

const EVENT: &str = "/api/events/1";

const LOGIN: &str = "/api/auth/login";

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
fn a_client_over_its_limit_gets_retry_after() {
    let service = Service::with(&[("CACHE_LIMIT_API", "3/60s")]);
    let statuses = [(); 3].map(|()| service.get(EVENT).status);
    assert_eq!(statuses, [200; 3]);

    let rejected = service.get(EVENT);

    assert_is_rejection(&rejected, "api");
    assert_eq!(rejected.header("ratelimit-policy"), r#""api";q=3;w=60"#);
    let rest = rejected.header("ratelimit");
    assert!(rest.starts_with(r#""api";r=0;t="#), "{rest}");
    let nowhere = service.get("/no/such/route");
    assert_eq!(
        nowhere.status, 429,
        "requests without a route are counted too"
    );
}

#[test]
fn remaining_requests_are_reported_in_advance() {
    let service = Service::with(&[("CACHE_LIMIT_API", "3/60s")]);

    let first = service.get(EVENT);

    let rest = first.header("ratelimit");
    assert!(rest.starts_with(r#""api";r=2"#), "{rest}");
}

#[test]
fn health_is_never_limited_but_similar_paths_are() {
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
fn the_eleventh_wrong_password_is_refused_and_reads_still_work() {
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
    assert_eq!(right.status, 429, "the right password is refused too");
    assert_eq!(service.get(EVENT).status, 200);
}

#[test]
fn only_wrong_passwords_count() {
    let service = Service::with(&[("CACHE_LIMIT_AUTH", "1/60s")]);
    let client = service.client();

    for (method, path, body, status) in [
        ("POST", "/api/auth/login", None, 415),
        ("POST", "/api/auth/login", Some("{}"), 422),
        ("POST", "/api/auth/logout", None, 204),
        ("POST", "/api/auth/logout-all", None, 401),
        ("GET", "/api/auth/sessions", None, 401),
        ("DELETE", "/api/auth/sessions/1", None, 401),
        ("GET", "/api/auth/me", None, 401),
        ("GET", "/api/auth/login", None, 405),
        // Like an image on a page of another site.
        ("GET", "/api/auth/x", None, 404),
        ("POST", "/api/auth/register", None, 404),
    ] {
        for _ in 0..3 {
            let answer = client.send(method, path, body);
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        }
    }
    let logins = [(); 3].map(|()| service.client().log_in(1).status);

    assert_eq!(logins, [200; 3], "right passwords do not count");
    let guesses = [(); 2].map(|()| guess(&client, "192.0.2.1", "user1").status);
    assert_eq!(guesses, [401, 429]);
}

#[test]
fn concurrent_wrong_passwords_are_counted_too() {
    let service = Service::with(&[("CACHE_LIMIT_AUTH", "3/60s")]);

    let statuses: Vec<_> = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| guess(&service.client(), "192.0.2.1", "user1").status))
            .collect();
        guesses
            .into_iter()
            .map(|guess| guess.join().expect("an answer"))
            .collect()
    });

    let tried = statuses.iter().filter(|status| **status == 401).count();
    assert_eq!((tried, statuses.len()), (3, 20), "{statuses:?}");
}

#[test]
fn guesses_from_many_addresses_are_slowed_and_do_not_lock_the_account() {
    let service = Service::with(&[
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("CACHE_LIMIT_ACCOUNT", "5/15m"),
        ("CACHE_LIMIT_ACCOUNT_SLOW", "1/1s"),
    ]);
    let known = service.client();
    assert_eq!(
        known
            .send_from("192.0.2.1", "POST", LOGIN, Some(&credentials(1)))
            .status,
        200
    );
    known.send_from("192.0.2.1", "POST", "/api/auth/logout", None);
    let stranger = service.client();

    let statuses: Vec<_> = (0..30)
        .map(|number| guess(&stranger, &format!("198.51.100.{number}"), "user1").status)
        .collect();

    assert_eq!(statuses[..5], [401; 5]);
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused >= 15, "{statuses:?}");
    // The known browser of the user is not affected, from any address.
    let owner = known.send_from("203.0.113.9", "POST", LOGIN, Some(&credentials(1)));
    assert_eq!(owner.status, 200, "{owner:?}");
    // An unknown browser waits for a short time and is then admitted.
    let new = service.client();
    eventually("a login", || {
        let login = new.send_from("203.0.113.10", "POST", LOGIN, Some(&credentials(1)));
        if login.status == 429 {
            let wait: u64 = login.header("retry-after").parse().expect("seconds");
            assert!(wait <= 1, "{login:?}");
        }
        login.status == 200
    });
    // Other accounts are not affected.
    let other = service.client();
    assert_eq!(
        other
            .send_from("203.0.113.11", "POST", LOGIN, Some(&credentials(2)))
            .status,
        200
    );
}

#[test]
fn a_known_browser_is_limited_too() {
    let service = Service::with(&[
        ("CACHE_LIMIT_ACCOUNT", "3/15m"),
        ("CACHE_LIMIT_ACCOUNT_SLOW", "1/60s"),
    ]);
    let thief = service.log_in(1);

    let statuses = [(); 6].map(|()| guess(&thief, "192.0.2.1", "user1").status);

    assert_eq!(statuses, [401, 401, 401, 401, 429, 429]);
}

#[test]
fn unknown_names_leave_a_bounded_number_of_records() {
    let redis = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&redis);
    let client = service.client();

    for number in 0..60 {
        let status = guess(&client, "192.0.2.1", &format!("nobody{number}")).status;
        assert_eq!(status, 401);
    }

    let kept = String::from_utf8_lossy(&everything_in(&redis)).into_owned();
    assert!(!kept.contains("nobody"), "{kept}");
    assert_eq!(entries(&redis).len(), 0);
}

#[test]
fn failed_logins_and_refused_addresses_are_logged_without_input() {
    let service = Service::with(&[
        ("CACHE_LIMIT_AUTH", "2/60s"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ]);
    let client = service.client();

    for name in ["user7", "hunter2\\n\\u202e", "user7"] {
        guess(&client, "192.0.2.7", name);
    }

    let said = |text: &str| eventually(text, || service.has_said(text));
    said("login failed address=192.0.2.7 user_id=7");
    said("login failed address=192.0.2.7 user_id=nobody");
    said("refused address=\"192.0.2.7\"");
    for typed in ["user7", "hunter2", "sesame", "202e"] {
        assert!(!service.has_said(typed), "{typed}");
    }
}

#[test]
fn concurrent_right_passwords_do_not_count() {
    let redis = RedisServer::start().expect("redis-server starts");
    let service = Service::with(&[
        ("REDIS_URL", &redis.url()),
        ("CACHE_LIMIT_AUTH", "2/60s"),
        ("CACHE_LIMIT_ACCOUNT", "2/60s"),
    ]);

    let statuses: Vec<_> = std::thread::scope(|scope| {
        let logins: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| service.client().log_in(1).status))
            .collect();
        logins
            .into_iter()
            .map(|login| login.join().expect("an answer"))
            .collect()
    });

    assert_eq!(statuses, [200; 12]);
    assert!(!service.has_said("login failed"));
    assert!(!service.has_said("is refused"));
}

#[test]
fn the_queue_of_logins_is_bounded() {
    let service = Service::with(&[("LOGIN_WAIT", "100ms")]);
    let slowest = std::sync::Mutex::new(Duration::ZERO);

    let statuses: Vec<_> = std::thread::scope(|scope| {
        let logins: Vec<_> = (0..150)
            .map(|_| {
                scope.spawn(|| {
                    let began = Instant::now();
                    let login = service.client().log_in(1);
                    if login.status == 503 {
                        assert_eq!(login.header("retry-after"), "5", "{login:?}");
                        assert_eq!(login.content_type, "application/problem+json");
                    }
                    let mut slowest = slowest.lock().expect("nobody panicked");
                    *slowest = began.elapsed().max(*slowest);
                    login.status
                })
            })
            .collect();
        logins
            .into_iter()
            .map(|login| login.join().expect("an answer"))
            .collect()
    });

    let count = |status| statuses.iter().filter(|other| **other == status).count();
    assert!(*slowest.lock().expect("nobody panicked") < Duration::from_secs(20));
    assert!(count(200) > 0 && count(503) > 0, "{statuses:?}");
    assert_eq!(count(200) + count(503), 150, "{statuses:?}");
}

#[test]
fn the_sixth_payment_of_a_user_is_refused_and_others_are_not() {
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
    assert_eq!(first.get(&paid).status, 200, "reading does not count");
}

#[test]
fn a_confirmation_counts_for_the_paying_user() {
    let service = Service::with(&[("CACHE_LIMIT_PAYMENT", "1/60s")]);
    let client = service.log_in(1);
    let payment = pay(&client, 1);
    let tx = payment.body["tx"].as_str().expect("text");

    let confirmed = client.send("POST", &format!("/api/payments/{tx}/confirm"), None);

    assert_is_rejection(&confirmed, "payment");
    let payment = client.get(&format!("/api/payments/{tx}")).body;
    assert_eq!(payment["status"], "pending", "the user was not charged");
}

#[test]
fn a_payment_for_another_user_does_not_use_their_limit() {
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
fn a_forged_address_is_ignored() {
    let service = Service::with(&[("CACHE_LIMIT_API", "1/60s")]);
    assert_eq!(service.get_for("192.0.2.1", EVENT).status, 200);

    let forged = service.get_for("192.0.2.2", EVENT);

    assert_eq!(forged.status, 429);
}

#[test]
fn a_trusted_proxy_reports_the_client() {
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
    assert_eq!(forged.status, 429, "only the entries of the proxies count");
}

#[test]
fn the_login_limit_uses_the_forwarded_address_too() {
    let variables = [
        ("CACHE_LIMIT_AUTH", "1/60s"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let service = Service::with(&variables);

    let client = service.client();
    let statuses = ["192.0.2.1", "192.0.2.1", "192.0.2.2"]
        .map(|address| guess(&client, address, "user1").status);

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
fn an_outage_of_redis_grants_no_new_quota() {
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
fn rejections_are_counted_by_policy_and_route_without_clients() {
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
    let client = service.client();
    let guesses = [(); 2].map(|()| guess(&client, "192.0.2.2", "user1").status);
    assert_eq!(guesses, [401, 429]);

    let stats = service.get_for("192.0.2.3", "/api/cache/stats").body;

    let (api, auth) = (of_policy(&stats, "api"), of_policy(&stats, "auth"));
    assert_eq!((&api["allowed"], &api["limited"]), (&json!(5), &json!(3)));
    assert_eq!(
        api["rejected_by_route"],
        json!({"/api/events/{id}": 2, "unmatched": 1})
    );
    assert_eq!(auth["rejected_by_route"], json!({"/api/auth/login": 1}));
    assert!(!stats.to_string().contains("192.0.2."), "{stats}");
}

/// Asserts that a rejection contains everything that a client needs.
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

/// Logs in with a wrong password from this address.
fn guess(client: &Client<'_>, address: &str, name: &str) -> Answer {
    let body = format!(r#"{{"username": "{name}", "password": "sesame"}}"#);
    client.send_from(address, "POST", LOGIN, Some(&body))
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
