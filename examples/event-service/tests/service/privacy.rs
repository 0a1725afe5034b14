//! Which users may see and change what, and which responses caches may keep.

use std::time::Duration;

use cache_runtime::testing::RedisServer;
use event_service::db::Db;
use serde_json::{Value, json};

use crate::support::{Client, Service};
use crate::tickets::DatabaseFile;

const DRAFT: &str = r#"{"organizer_id": 3, "title": "Secret", "description": "Not yet.", "location": "Oslo",
                        "state": "Oslo", "type": "meetup", "starts_at": 1900000000, "price_cents": 100, "capacity": 50}"#;

const PAYMENT: &str =
    r#"{"user_id": 8, "event_id": 1, "amount_cents": 100, "card_number": "4111111111111111"}"#;

#[test]
fn only_their_own_user_can_read_tickets_and_payments() {
    let service = Service::start();
    let (nobody, another, payer) = (service.client(), service.log_in(9), service.log_in(8));
    let paid = payer.send("POST", "/api/payments", Some(PAYMENT)).body;
    let payment = format!("/api/payments/{}", text(&paid["tx"]));
    let status = format!("{payment}/status");
    let verification = format!("/api/payments/verify/{}", text(&paid["reference"]));

    for (path, field) in [
        ("/api/users/8/tickets", "id"),
        ("/api/users/8/tickets?status=valid", "id"),
        (&*payment, "tx"),
        (&*status, "tx"),
        (&*verification, "reference"),
    ] {
        // Twice: once uncached, once cached.
        for _ in 0..2 {
            let answers = [&nobody, &another, &payer].map(|client| client.get(path));

            let statuses = answers.each_ref().map(|answer| answer.status);
            assert_eq!(statuses, [401, 403, 200], "{path}");
            assert_eq!(answers[1].body["field"], field, "{path}");
            for answer in &answers {
                assert!(
                    answer.header("cache-control").contains("no-store"),
                    "{path}"
                );
            }
            assert_eq!(answers[2].header("cache-control"), "private, no-store");
        }
    }
}

#[test]
fn only_its_own_user_sees_an_e_mail_address() {
    let service = Service::start();
    let (nobody, another, user) = (service.client(), service.log_in(9), service.log_in(8));

    let answers = [&nobody, &another, &user].map(|client| client.get("/api/users/8"));

    let emails = answers
        .each_ref()
        .map(|answer| answer.body["email"].clone());
    assert_eq!(
        emails,
        [Value::Null, Value::Null, json!("user8@example.com")]
    );
    assert!(
        answers
            .iter()
            .all(|answer| answer.body["name"] == answers[0].body["name"])
    );
    let varies = answers
        .iter()
        .all(|answer| answer.header("vary").contains("cookie"));
    assert!(varies, "one address, two answers");
    assert_eq!(answers[2].header("cache-control"), "private, no-store");
}

#[test]
fn a_draft_does_not_exist_for_others() {
    let service = Service::start();
    let (nobody, another, organiser) = (service.client(), service.log_in(9), service.log_in(3));
    let events = |client: &Client<'_>| client.get("/api/users/3/events").body["total"].take();
    let before = [events(&nobody), events(&another), events(&organiser)];
    let id = organiser.send("POST", "/api/events", Some(DRAFT)).body["id"].to_string();
    let (event, analytics) = (
        format!("/api/events/{id}"),
        format!("/api/events/{id}/analytics"),
    );

    for path in [&event, &analytics] {
        for _ in 0..2 {
            let statuses = [&nobody, &another, &organiser].map(|client| client.get(path).status);
            assert_eq!(statuses, [404, 404, 200], "{path}");
        }
        assert_eq!(
            organiser.get(path).header("cache-control"),
            "private, no-store"
        );
    }
    let listed = [events(&nobody), events(&another), events(&organiser)];
    let more = |total: &Value| json!(total.as_i64().expect("a number") + 1);
    assert_eq!(
        listed,
        [before[0].clone(), before[1].clone(), more(&before[2])]
    );
    // Requests that change it do not reveal that it exists either.
    let purchase = r#"{"user_id": 9, "quantity": 1}"#;
    let payment = format!(
        r#"{{"user_id": 9, "event_id": {id}, "amount_cents": 100, "card_number": "4111111111111111"}}"#
    );
    for (method, path, body) in [
        ("PUT", event.clone(), Some("{}")),
        ("DELETE", event.clone(), None),
        ("POST", format!("{event}/publish"), None),
        ("POST", format!("{event}/tickets"), Some(purchase)),
        ("POST", "/api/payments".to_owned(), Some(&*payment)),
    ] {
        let (draft, missing) = (
            another.send(method, &path, body),
            another.send(
                method,
                &path.replace(&id, "4711"),
                body.map(|body| body.replace(&id, "4711")).as_deref(),
            ),
        );
        assert_eq!(
            (draft.status, missing.status),
            (404, 404),
            "{method} {path}"
        );
        let told = draft.body["detail"].to_string().replace(&id, "4711");
        assert_eq!(told, missing.body["detail"].to_string());
    }

    organiser.send("POST", &format!("{event}/publish"), None);

    let published = service.get(&event);
    assert_eq!(
        (published.status, published.header("cache-control")),
        (200, String::new())
    );
    assert_eq!(events(&nobody), more(&before[0]));
}

#[test]
fn cached_copies_grant_no_permissions() {
    let redis = RedisServer::start().expect("redis-server starts");
    let file = DatabaseFile::new("rights");
    let environment = [("REDIS_URL", &*redis.url()), ("DATABASE_URL", &file.url())];
    let service = Service::with(&environment);
    let (former, owner) = (service.log_in(8), service.log_in(9));
    let paid = former.send("POST", "/api/payments", Some(PAYMENT)).body;
    let payment = format!("/api/payments/{}", text(&paid["tx"]));
    // The cache keeps the old copy while the database changes, as if another program had written to Redis.
    assert_eq!(service.get("/api/events/1").body["organizer_id"], 8);
    assert_eq!(former.get(&payment).status, 200);
    execute(&file, "UPDATE events SET organizer_id = 9 WHERE id = 1");
    execute(&file, "UPDATE payments SET user_id = 9");

    let confirm = format!("{payment}/confirm");
    let writes = [
        ("PUT", "/api/events/1", Some(r#"{"title": "Mine"}"#)),
        ("POST", "/api/events/1/publish", None),
        ("POST", &*confirm, None),
        ("DELETE", "/api/events/1", None),
    ];

    for (method, path, body) in writes {
        assert_eq!(
            former.send(method, path, body).status,
            403,
            "{method} {path}"
        );
    }
    assert_eq!(
        service.get("/api/events/1").body["organizer_id"],
        8,
        "the copy is still cached"
    );
    for (method, path, body) in writes {
        let status = owner.send(method, path, body).status;
        assert!([200, 204].contains(&status), "{method} {path}: {status}");
    }
}

#[test]
fn every_response_has_nosniff() {
    let service = Service::with(&[("CACHE_LIMIT_PAYMENT", "1/60s")]);
    let client = service.log_in(8);

    for (method, path, body) in [
        ("GET", "/api/events", None),
        ("GET", "/api/events/4711", None),
        ("GET", "/no/such/route", None),
        ("PATCH", "/api/events/1", None),
        ("GET", "/api/health", None),
        ("GET", "/api/cache/stats", None),
        ("GET", "/api/auth/me", None),
        ("POST", "/api/payments", Some("{")),
        ("POST", "/api/payments", Some(PAYMENT)),
        ("POST", "/api/payments", Some(PAYMENT)),
        ("POST", "/api/auth/logout", None),
    ] {
        let answer = client.send(method, path, body);
        assert_eq!(
            answer.header("x-content-type-options"),
            "nosniff",
            "{method} {path}"
        );
    }
}

#[test]
fn responses_for_a_user_are_not_stored_by_caches() {
    let service = Service::start();
    let client = service.log_in(8);

    for (method, path, body) in [
        ("GET", "/api/auth/me", None),
        ("GET", "/api/auth/sessions", None),
        ("GET", "/api/users/8", None),
        ("GET", "/api/users/8/events", None),
        ("GET", "/api/users/8/tickets", None),
        ("PUT", "/api/users/8", Some(r#"{"bio": "I like jazz."}"#)),
        (
            "POST",
            "/api/events/1/tickets",
            Some(r#"{"user_id": 8, "quantity": 1}"#),
        ),
        ("POST", "/api/payments", Some(PAYMENT)),
        ("POST", "/api/users/8/verify", None),
    ] {
        let answer = client.send(method, path, body);
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
        assert_eq!(
            answer.header("cache-control"),
            "private, no-store",
            "{method} {path}"
        );
    }
    for path in ["/api/events", "/api/events/1", "/api/leaderboard/referrals"] {
        assert_eq!(service.get(path).header("cache-control"), "", "{path}");
    }
}

#[test]
fn a_write_from_an_untrusted_origin_is_refused() {
    let trusted = (
        "TRUSTED_ORIGINS",
        "https://app.example, https://shop.example",
    );
    let service = Service::with(&[trusted]);
    let client = service.log_in(8);
    let from = |origin| {
        let headers = [("origin", origin), ("sec-fetch-site", "cross-site")];
        client.send_with(&headers, "POST", "/api/users/8/verify")
    };

    let forged = from("http://evil.example");

    assert_eq!(
        (forged.status, &*forged.content_type),
        (403, "application/problem+json")
    );
    assert_eq!(client.get("/api/auth/me").status, 200);
    assert_eq!(from("https://shop.example").status, 200);
}

pub(crate) fn execute(file: &DatabaseFile, statement: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let db = Db::open(Some(&file.url()), Duration::ZERO).await;
        let db = db.expect("a database");
        let done = sqlx::query(statement).execute(db.write()).await;
        assert_eq!(done.expect("a statement").rows_affected(), 1);
        db.close().await;
    });
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}
