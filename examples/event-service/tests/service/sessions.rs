//! Logging in and out, and actions that only their own user may take.

use std::collections::BTreeSet;

use cache_runtime::testing::RedisServer;
use serde_json::{Value, json};

use crate::support::{Client, Service, eventually, everything_in, refused};

const PAYMENT: &str =
    r#"{"user_id": 8, "event_id": 1, "amount_cents": 100, "card_number": "4111111111111111"}"#;

const NEW_EVENT: &str = r#"{"organizer_id": 8, "title": "Opening", "description": "All are welcome.", "location": "Rome",
                            "state": "Lazio", "type": "meetup", "starts_at": 1900000000, "price_cents": 0, "capacity": 5}"#;

/// Requests that only user 8 may send, except for followers, where it is user 2; with the field that names the user.
#[rustfmt::skip] // One route, one line.
const WRITES: &[(&str, &str, Option<&str>, &str)] = &[
    ("PUT", "/api/users/8", Some(r#"{"name": "Zoé"}"#), "id"),
    ("POST", "/api/users/8/verify", None, "id"),
    ("DELETE", "/api/users/8/verify", None, "id"),
    // Not even the followed user.
    ("POST", "/api/users/9/followers/2", None, "follower_id"),
    ("DELETE", "/api/users/9/followers/2", None, "follower_id"),
    ("POST", "/api/events", Some(NEW_EVENT), "organizer_id"),
    ("PUT", "/api/events/1", Some(r#"{"title": "New"}"#), "id"),
    ("POST", "/api/events/1/publish", None, "id"),
    ("DELETE", "/api/events/1", None, "id"),
    ("POST", "/api/events/1/tickets", Some(r#"{"user_id": 8, "quantity": 1}"#), "user_id"),
    ("POST", "/api/payments", Some(PAYMENT), "user_id"),
];

#[test]
fn a_user_is_logged_in_until_they_log_out() {
    let service = Service::start();
    let client = service.client();
    assert_eq!(client.get("/api/auth/me").status, 401);

    let login = client.log_in(7);
    let me = client.get("/api/auth/me");
    let logout = client.send("POST", "/api/auth/logout", None);
    let after = client.get("/api/auth/me");

    let session = &login.body;
    assert_eq!(login.status, 200);
    assert_eq!(
        (&session["userId"], &session["username"]),
        (&json!("7"), &json!("user7"))
    );
    assert_eq!(session["ipAddress"], "127.0.0.1");
    assert!(text(&session["userAgent"]).starts_with("ureq/"));
    assert!(session["isVerified"].is_boolean() && session["createdAt"].is_u64());
    assert_eq!((me.status, constant(&me.body)), (200, constant(session)));
    assert!(me.body["lastActivity"].as_u64() >= session["createdAt"].as_u64());
    assert_eq!(me.header("cache-control"), "private, no-store");
    assert_eq!((logout.status, after.status), (204, 401));
}

#[test]
fn logging_out_without_a_session_succeeds() {
    let service = Service::start();

    let logout = service.send("POST", "/api/auth/logout", None);

    assert_eq!((logout.status, logout.body), (204, Value::Null));
}

#[test]
fn a_wrong_password_and_an_unknown_name_get_the_same_response() {
    let service = Service::start();
    let log_in = |name: &str, password: &str| {
        let body = json!({"username": name, "password": password}).to_string();
        service.send("POST", "/api/auth/login", Some(&body))
    };

    let (wrong, unknown) = (log_in("user1", "password2"), log_in("user201", "password1"));

    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.body, unknown.body);
    for answer in [wrong, unknown] {
        assert_eq!(answer.content_type, "application/problem+json");
        assert_eq!(answer.header("www-authenticate"), "Session");
        assert_eq!(answer.header("set-cookie"), "");
    }
}

#[test]
fn an_invalid_login_is_reported_by_field_without_the_password() {
    let service = Service::start();

    for (body, status, field) in [
        (r#"{"password":"sesame"}"#, 422, "username"),
        (r#"{"username":"user1"}"#, 422, "password"),
        (r#"{"username":"","password":"sesame"}"#, 422, "username"),
        (r#"{"username":"user1","password":""}"#, 422, "password"),
        (r#"{"username":17,"password":"sesame"}"#, 422, "username"),
        (r#"{"username":"user1","password":471147}"#, 422, "password"),
        (
            r#"{"username":"user1","password":"sesame","admin":1}"#,
            422,
            "admin",
        ),
        (r#"{"username":"user1","password":"sesame"#, 400, "body"),
    ] {
        let answer = service.send("POST", "/api/auth/login", Some(body));

        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert_eq!(answer.content_type, "application/problem+json", "{body}");
        assert_eq!(answer.body["field"], field, "{body}: {answer:?}");
        let told = answer.body.to_string();
        assert!(!told.contains("sesame") && !told.contains("4711"), "{told}");
    }
}

#[test]
fn the_cookie_is_only_for_this_host_over_tls_and_not_for_scripts() {
    for (environment, name, secure) in [
        (&[][..], "__Host-session=", "; Secure"),
        (&[("INSECURE_COOKIE", "1")], "session=", ""),
    ] {
        let service = Service::with(environment);
        let client = service.client();

        let login = client.log_in(1);
        let cookie = client.cookie();
        let logout = client.send("POST", "/api/auth/logout", None);

        let set = login.headers.get_all("set-cookie").iter();
        let set: Vec<_> = set.map(|set| set.to_str().expect("ASCII")).collect();
        assert_eq!(
            set[0],
            format!("{cookie}; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax{secure}")
        );
        let device = name.replace("session", "device");
        assert!(set[1].starts_with(&device), "{set:?}");
        let kept = format!("; Path=/; Max-Age=15552000; HttpOnly; SameSite=Lax{secure}");
        assert!(set[1].ends_with(&kept), "{set:?}");
        assert!(cookie.starts_with(name), "{name}");
        assert!(!login.body.to_string().contains(&cookie[name.len()..]));
        assert_eq!(login.header("cache-control"), "private, no-store");
        // Browsers remove a cookie only if its attributes are given.
        assert_eq!(
            logout.header("set-cookie"),
            format!(
                "{name}; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax{secure}"
            )
        );
        assert!(client.cookie().is_empty());
    }
}

#[test]
fn a_token_is_invalid_after_a_logout() {
    let service = Service::start();
    let client = service.log_in(1);
    let thief = service.client_with(&client.cookie());
    assert_eq!(thief.get("/api/auth/me").status, 200);

    client.send("POST", "/api/auth/logout", None);

    assert_eq!(thief.get("/api/auth/me").status, 401);
}

#[test]
fn logging_out_everywhere_ends_only_sessions_of_the_user() {
    let service = Service::start();
    let (phone, laptop, other) = (service.log_in(1), service.log_in(1), service.log_in(2));

    let answer = phone.send("POST", "/api/auth/logout-all", None);

    assert_eq!((answer.status, phone.cookie().is_empty()), (204, true));
    assert_eq!(laptop.get("/api/auth/me").status, 401);
    assert_eq!(other.get("/api/auth/me").status, 200);
    let nobody = phone.send("POST", "/api/auth/logout-all", None);
    assert_eq!(nobody.status, 401);
}

#[test]
fn users_see_their_sessions_and_the_current_one() {
    let service = Service::start();
    let (phone, laptop, other) = (service.log_in(1), service.log_in(1), service.log_in(2));

    let listed = phone.get("/api/auth/sessions");

    let sessions = listed.body.as_array().expect("a list");
    assert_eq!((listed.status, sessions.len()), (200, 2));
    assert_eq!(listed.header("cache-control"), "private, no-store");
    for session in sessions {
        assert_eq!(session["userId"], "1");
        assert!(session["expiresAt"].as_u64() > session["createdAt"].as_u64());
    }
    let ids = [current(&phone), current(&laptop)].map(Value::from);
    let listed: BTreeSet<_> = sessions
        .iter()
        .map(|session| session["id"].to_string())
        .collect();
    assert_eq!(listed, ids.iter().map(Value::to_string).collect());
    assert!(!listed.contains(&Value::from(current(&other)).to_string()));
}

#[test]
fn a_user_ends_a_session_by_its_id() {
    let service = Service::start();
    let (phone, laptop) = (service.log_in(1), service.log_in(1));
    let path = format!("/api/auth/sessions/{}", current(&laptop));

    let (ended, again) = (
        phone.send("DELETE", &path, None),
        phone.send("DELETE", &path, None),
    );

    assert_eq!((ended.status, again.status), (204, 404));
    assert_eq!(laptop.get("/api/auth/me").status, 401);
    assert_eq!(phone.get("/api/auth/me").status, 200);
}

#[test]
fn ending_the_current_session_is_a_logout() {
    let service = Service::start();
    let client = service.log_in(1);
    let path = format!("/api/auth/sessions/{}", current(&client));

    let ended = client.send("DELETE", &path, None);

    assert_eq!((ended.status, client.cookie().is_empty()), (204, true));
}

#[test]
fn a_session_of_another_user_cannot_be_ended() {
    let service = Service::start();
    let (client, other) = (service.log_in(1), service.log_in(2));
    let path = format!("/api/auth/sessions/{}", current(&other));

    let answer = client.send("DELETE", &path, None);

    assert_eq!(
        (answer.status, answer.body["field"].as_str()),
        (404, Some("id"))
    );
    assert_eq!(other.get("/api/auth/me").status, 200);
}

#[test]
fn a_token_from_before_a_login_is_invalid_after_it() {
    let service = Service::start();
    let planted = service.log_in(2).cookie();
    let victim = service.client_with(&planted);

    let login = victim.log_in(1);

    assert_eq!(login.status, 200);
    assert_ne!(victim.cookie(), planted);
    assert_eq!(victim.get("/api/auth/me").body["userId"], "1");
    let attacker = service.client_with(&planted);
    assert_eq!(attacker.get("/api/auth/me").status, 401);
}

#[test]
fn a_session_records_the_client_and_not_the_proxy() {
    let service = Service::with(&[("TRUSTED_PROXIES", "127.0.0.1")]);
    let body = r#"{"username": "user1", "password": "password1"}"#;

    let login = service.send_for("192.0.2.1", "POST", "/api/auth/login", Some(body));

    assert_eq!(login.body["ipAddress"], "192.0.2.1");
}

#[test]
fn only_the_logged_in_owner_can_write() {
    let service = Service::start();
    let payer = service.log_in(8);
    let paid = payer.send("POST", "/api/payments", Some(PAYMENT));
    let paid = format!("/api/payments/{}", text(&paid.body["tx"]));
    let confirm = format!("{paid}/confirm");
    let writes = WRITES
        .iter()
        .copied()
        .chain([("POST", &*confirm, None, "tx")]);
    let state = || {
        [
            "/api/users/8",
            "/api/users/9/followers",
            "/api/events/1",
            "/api/users/8/events",
            "/api/users/8/tickets",
            &paid,
        ]
        .map(|path| payer.get(path).body)
    };
    let before = state();
    let (nobody, another) = (service.client(), service.log_in(9));

    for (method, path, body, field) in writes {
        let (unknown, wrong) = (
            nobody.send(method, path, body),
            another.send(method, path, body),
        );

        for (answer, status) in [(&unknown, 401), (&wrong, 403)] {
            let case = format!("{method} {path}: {answer:?}");
            assert_eq!(answer.status, status, "{case}");
            assert_eq!(answer.content_type, "application/problem+json", "{case}");
        }
        assert_eq!(wrong.body["field"], field, "{method} {path}");
    }

    assert_eq!(state(), before);
}

#[test]
fn a_write_without_a_session_reveals_no_validation_errors() {
    let service = Service::start();

    for (method, path, body) in [
        ("PUT", "/api/events/4711", "{}"),
        ("PUT", "/api/users/x", "{}"),
        ("POST", "/api/events", "[1,2]"),
        ("POST", "/api/payments/none/confirm", "{}"),
    ] {
        let answer = service.send(method, path, Some(body));

        assert_eq!(answer.status, 401, "{method} {path}");
    }
}

#[test]
fn a_change_of_the_verification_gives_a_new_token_and_ends_the_other_sessions() {
    let service = Service::start();
    let (phone, laptop, other) = (service.log_in(7), service.log_in(7), service.log_in(2));
    let is_verified = |client: &Client<'_>| client.get("/api/auth/me").body["isVerified"].take();
    for (method, verified) in [("DELETE", false), ("POST", true)] {
        let old = phone.cookie();

        let changed = phone.send(method, "/api/users/7/verify", None);

        assert_eq!(changed.status, 200);
        assert_ne!(phone.cookie(), old);
        assert_eq!(service.client_with(&old).get("/api/auth/me").status, 401);
        assert_eq!(is_verified(&phone), verified);
        assert_eq!(laptop.get("/api/auth/me").status, 401);
        assert_eq!(other.get("/api/auth/me").status, 200);
        laptop.log_in(7);
        assert_eq!(is_verified(&laptop), verified);
    }
}

#[test]
fn one_of_two_concurrent_changes_of_the_verification_keeps_its_session() {
    let redis = RedisServer::start().expect("redis-server starts");
    let service = Service::on(&redis);
    let mut cookie = service.log_in(7).cookie();

    for round in 0..100 {
        let clicks = [&cookie; 2].map(|cookie| service.client_with(cookie));
        let statuses = std::thread::scope(|scope| {
            clicks
                .each_ref()
                .map(|click| scope.spawn(|| click.send("POST", "/api/users/7/verify", None)))
                .map(|answer| answer.join().expect("no panic").status)
        });

        let mut outcomes = std::iter::zip(&clicks, statuses);
        let done = outcomes.find(|(_, status)| *status == 200);
        let (done, _) = done.unwrap_or_else(|| panic!("round {round}: {statuses:?}"));
        let me = done.get("/api/auth/me");
        assert_eq!(me.status, 200, "round {round}: {statuses:?}");
        cookie = done.cookie();
    }
}

#[test]
fn an_outage_allows_no_login_or_logout_and_reads_still_work() {
    let on_disk = ["--appendonly", "yes", "--appendfsync", "always"];
    let redis = RedisServer::builder().tcp().args(on_disk).start();
    let mut redis = redis.expect("redis-server starts");
    let service = Service::on(&redis);
    let (leaving, staying) = (service.log_in(1), service.log_in(2));
    let forged = service.client_with(&format!("{}x", staying.cookie()));

    redis.kill();
    let me = staying.get("/api/auth/me");
    let write = staying.send("PUT", "/api/users/2", Some(r#"{"name": "Zoé"}"#));
    let login = service.client().log_in(3);
    let logout = leaving.send("POST", "/api/auth/logout", None);
    let unknown = forged.get("/api/auth/me");
    let read = service.get("/api/users/2");

    for answer in [&me, &write, &login, &logout] {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.content_type, "application/problem+json");
        assert_eq!(answer.header("retry-after"), "3");
        assert_eq!(answer.header("set-cookie"), "");
    }
    assert_eq!((unknown.status, read.status), (401, 200));
    assert_ne!(read.body["name"], "Zoé");
    redis.restart().expect("redis-server starts");
    eventually("the sessions", || staying.get("/api/auth/me").status == 200);
    assert_eq!(leaving.get("/api/auth/me").status, 401);
}

#[test]
fn two_processes_share_sessions_and_their_end() {
    let redis = RedisServer::start().expect("redis-server starts");
    let (one, other) = (Service::on(&redis), Service::on(&redis));
    let here = one.log_in(1);
    let there = other.client_with(&here.cookie());
    assert_eq!(there.get("/api/auth/me").body["userId"], "1");

    let ended = here.send("POST", "/api/auth/logout-all", None);

    assert_eq!(ended.status, 204);
    assert_eq!(there.get("/api/auth/me").status, 401);
}

#[test]
fn a_session_outlives_the_process() {
    let redis = RedisServer::start().expect("redis-server starts");
    let first = Service::on(&redis);
    let cookie = first.log_in(1).cookie();
    drop(first);

    let second = Service::on(&redis);

    let me = second.client_with(&cookie).get("/api/auth/me");
    assert_eq!((me.status, &me.body["userId"]), (200, &json!("1")));
}

#[test]
fn the_log_and_redis_contain_no_password_token_or_name() {
    let redis = RedisServer::start().expect("redis-server starts");
    let environment = [("REDIS_URL", &*redis.url()), ("RUST_LOG", "trace")];
    let mut service = Service::with(&environment);
    let guess = r#"{"username": "user5", "password": "sesame"}"#;

    service.send("POST", "/api/auth/login", Some(guess));
    let client = service.log_in(5);
    let tokens = [client.cookie(), {
        client.send("POST", "/api/users/5/verify", None);
        client.cookie()
    }];
    client.get("/api/auth/sessions");
    let forged = service.client_with(&format!("{}x", tokens[0]));
    assert_eq!(forged.get("/api/auth/me").status, 401);
    let kept = everything_in(&redis);
    client.send("POST", "/api/auth/logout-all", None);
    drop(client);
    service.terminate();
    let (_, log) = service.wait();

    let kept = String::from_utf8_lossy(&kept);
    assert!(kept.contains("dev_session:") && log.contains("listening"));
    let [old, new] = tokens.map(|cookie| cookie.split_once('=').expect("a cookie").1.to_owned());
    for secret in ["sesame", "password5", "user5", "$argon2id", &old, &new] {
        assert!(!log.contains(secret), "{secret}: {log}");
        assert!(!kept.contains(secret), "{secret}: {kept}");
    }
}

#[test]
fn sessions_need_keys_in_production() {
    let in_memory = ("CACHE_REQUIRE_REDIS", "false");
    let (code, said) = refused(&[("BIND", "127.0.0.1:0"), ("CACHE_ENV", "prod"), in_memory]);

    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("event-service: sessions in production need keys"));
    assert!(said.contains("set `CACHE_SESSION_KEYS` to"), "{said}");
}

/// Returns the id of the session of this client.
fn current(client: &Client<'_>) -> String {
    let sessions = client.get("/api/auth/sessions").body;
    let sessions = sessions.as_array().expect("a list");
    let current: Vec<_> = sessions
        .iter()
        .filter(|session| session["current"] == true)
        .collect();
    assert_eq!(current.len(), 1, "{sessions:?}");
    text(&current[0]["id"]).to_owned()
}

/// Returns the data of a session without its last use.
fn constant(session: &Value) -> Value {
    let mut session = session.clone();
    session["lastActivity"].take();
    session
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}
