//! Sessions: 30 minutes, encrypted, shared by all instances.

use std::time::Duration;

use axum::http::Method;

use crate::support::{Instance, Shared};

const MINUTE: Duration = Duration::from_secs(60);

async fn me(instance: &Instance, cookie: &str) -> u16 {
    let answer = instance.as_user(cookie, Method::GET, "/api/me", None).await;
    answer.status
}

#[tokio::test]
async fn a_session_of_one_instance_is_valid_at_the_other_until_it_ends_there() {
    let shared = Shared::on_sqlite().await;
    let (one, other) = (shared.instance().await, shared.instance().await);

    let cookie = one.log_in("alice").await;
    let seen = other.as_user(&cookie, Method::GET, "/api/me", None).await;
    assert_eq!(
        (seen.status, &seen.body["username"]),
        (200, &"alice".into())
    );

    let out = one
        .as_user(&cookie, Method::POST, "/api/logout", None)
        .await;
    assert_eq!((out.status, me(&other, &cookie).await), (204, 401));
}

#[tokio::test]
async fn a_session_ends_30_minutes_after_its_last_use() {
    let shared = Shared::on_sqlite().await;
    let (one, other) = (shared.instance().await, shared.instance().await);
    let unused = one.log_in("bob").await;
    let used = one.log_in("alice").await;

    shared.clock.advance(30 * MINUTE - Duration::from_secs(1));
    assert_eq!(me(&other, &used).await, 200);
    shared.clock.advance(Duration::from_secs(1));
    assert_eq!((me(&one, &unused).await, me(&one, &used).await), (401, 200));
    shared.clock.advance(30 * MINUTE);
    assert_eq!((me(&one, &used).await, me(&other, &used).await), (401, 401));
}

#[tokio::test]
async fn a_session_that_is_always_used_ends_after_12_hours() {
    let shared = Shared::on_sqlite().await;
    let service = shared.instance().await;
    let cookie = service.log_in("alice").await;

    for _ in 0..12 * 3 - 1 {
        shared.clock.advance(20 * MINUTE);
        assert_eq!(me(&service, &cookie).await, 200);
    }
    shared.clock.advance(20 * MINUTE);

    assert_eq!(me(&service, &cookie).await, 401);
}

#[tokio::test]
async fn redis_does_not_have_the_name_of_a_user_in_clear() {
    let shared = Shared::on_sqlite().await;
    let service = shared.instance().await;
    let cookie = service.log_in("alice").await;
    // What is not encrypted is found.
    service.get("/api/requirements/1").await;

    let stored = shared.everything();

    let contains = |text: &str| {
        stored
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(contains("session") && contains("Refund a payment"));
    let (_, token) = cookie.split_once('=').expect("a value");
    assert!(!contains("alice") && !contains(token));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_get_the_same_answer() {
    let shared = Shared::on_sqlite().await;
    let service = shared.instance().await;
    let log_in = async |name: &str| {
        let body = format!(r#"{{"name": "{name}", "password": "bob-demo"}}"#);
        service
            .send(Method::POST, "/api/login", &[], Some(&body))
            .await
    };

    let (wrong, unknown) = (log_in("alice").await, log_in("nobody").await);

    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.body, unknown.body);
    assert_eq!(wrong.headers["www-authenticate"], "Session");
}
