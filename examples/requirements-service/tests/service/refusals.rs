//! What is refused, on SQLite and on Postgres.

use std::time::Duration;

use axum::http::Method;
use axum::response::IntoResponse;
use requirements_service::accounts::{Accounts, Credentials};
use sqlx::Executor as _;
use tokio::time::timeout;

use crate::support::{NEW, Shared};

on_both_databases! {
    only_the_team_of_a_requirement_changes_it,
    refused_writes_leave_a_requirement_cached,
    invalid_input_is_refused_with_a_problem,
}

async fn only_the_team_of_a_requirement_changes_it(shared: &Shared) {
    let service = shared.instance().await;
    let carol = service.log_in("carol").await;
    let feature = Some(r#"{"title": "x"}"#);
    let done = Some(r#"{"status": "done"}"#);

    for (method, path, body, expected) in [
        (Method::PUT, "/api/requirements/1", Some(NEW), 403),
        (Method::DELETE, "/api/requirements/1", None, 403),
        (Method::POST, "/api/requirements/1/accept", None, 403),
        (Method::POST, "/api/requirements/1/features", feature, 403),
        (Method::PUT, "/api/features/1", done, 404),
        (Method::PUT, "/api/requirements/77", Some(NEW), 404),
    ] {
        let anonymous = service.send(method.clone(), path, &[], body).await;
        let stranger = service.as_user(&carol, method, path, body).await;
        assert_eq!(
            (anonymous.status, stranger.status),
            (401, expected),
            "{path}"
        );
    }
    assert_eq!(
        service.get("/api/requirements/1").await.body["title"],
        "Refund a payment"
    );
}

async fn refused_writes_leave_a_requirement_cached(shared: &Shared) {
    let service = shared.instance().await;
    let carol = service.log_in("carol").await;
    service.get("/api/requirements/1").await;
    let feature = Some(r#"{"title": "x"}"#);

    for (method, path, body) in [
        (Method::PUT, "/api/requirements/1", Some(NEW)),
        (Method::DELETE, "/api/requirements/1", None),
        (Method::POST, "/api/requirements/1/accept", None),
        (Method::POST, "/api/requirements/1/features", feature),
    ] {
        let refused = service.as_user(&carol, method.clone(), path, body).await;

        assert_eq!(refused.status, 403, "{method} {path}");
        let ttl = shared.ttl("requirement:1");
        assert!(ttl.is_some(), "{method} {path}");
    }
}

async fn invalid_input_is_refused_with_a_problem(shared: &Shared) {
    let service = shared.instance().await;
    let alice = service.log_in("alice").await;
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let list = "/api/requirements";

    for (method, path, body, status, told) in [
        (
            get.clone(),
            "/api/requirements/x",
            None,
            400,
            "`x` to a `i64`",
        ),
        (
            get.clone(),
            "/api/requirements?status=new",
            None,
            400,
            "expected `draft` or `accepted`",
        ),
        (
            get.clone(),
            "/api/requirements?page=51",
            None,
            422,
            "1 to 50",
        ),
        (get, "/api/nothing", None, 404, "README"),
        (put.clone(), list, Some(NEW), 405, "README"),
        (post.clone(), list, Some("{"), 400, "EOF"),
        (
            post.clone(),
            list,
            Some(r#"{"title": "x"}"#),
            422,
            "missing field `description`",
        ),
        (
            post.clone(),
            list,
            Some(r#"{"title": " ", "description": "x"}"#),
            422,
            "title",
        ),
        (
            post.clone(),
            list,
            Some(r#"{"title": "a\u0000", "description": "x"}"#),
            422,
            "NUL",
        ),
        (
            post,
            "/api/schemas/other/validate",
            Some("{}"),
            404,
            "there is no schema other",
        ),
        (
            put,
            "/api/preferences",
            Some(r#"{"theme": "red", "digest": "never"}"#),
            422,
            "theme",
        ),
    ] {
        let answer = service.as_user(&alice, method, path, body).await;

        assert_eq!(answer.status, status, "{path} {body:?}: {answer:?}");
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{path}"
        );
        let detail = answer.body["detail"].as_str().expect("a text");
        assert!(detail.contains(told), "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_login_that_waits_too_long_is_told_to_try_again() {
    let shared = Shared::on_sqlite().await;
    let accounts = Accounts::limited(shared.db.clone(), 0, Duration::ZERO);
    let credentials = r#"{"name": "alice", "password": "alice-demo"}"#;
    let credentials: Credentials = serde_json::from_str(credentials).expect("credentials");

    let logged_in = timeout(Duration::from_secs(30), accounts.log_in(credentials)).await;

    let refused = logged_in.expect("an end of the wait").expect_err("no turn");
    let response = refused.into_response();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "5");
}

#[tokio::test]
async fn a_write_whose_commit_fails_is_an_error() {
    let shared = Shared::on_postgres().await;
    let service = shared.instance().await;
    let alice = service.log_in("alice").await;
    let mut statements = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql
                          AS $$ BEGIN RAISE 'the commit fails'; END $$;"
        .to_owned();
    for table in ["requirements", "features", "preferences", "schemas"] {
        statements += &format!(
            "CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE OR DELETE ON {table}
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail();"
        );
    }
    let created = shared.db.pool().execute(&*statements).await;
    created.expect("triggers");
    let feature = Some(r#"{"title": "x"}"#);
    let preferences = Some(r#"{"theme": "dark", "digest": "never"}"#);

    for (method, path, body) in [
        (Method::POST, "/api/requirements", Some(NEW)),
        (Method::PUT, "/api/requirements/1", Some(NEW)),
        (Method::DELETE, "/api/requirements/1", None),
        (Method::POST, "/api/requirements/1/accept", None),
        (Method::POST, "/api/requirements/1/features", feature),
        (
            Method::PUT,
            "/api/features/1",
            Some(r#"{"status": "done"}"#),
        ),
        (Method::PUT, "/api/preferences", preferences),
        (Method::PUT, "/api/schemas/requirement", Some("[]")),
    ] {
        let failed = service.as_user(&alice, method.clone(), path, body).await;

        assert_eq!(failed.status, 500, "{method} {path}: {failed:?}");
    }
    let kept = service.get("/api/requirements/1").await;
    assert_eq!(kept.body["title"], "Refund a payment");
}

#[tokio::test]
async fn a_feature_for_a_requirement_that_is_just_deleted_is_refused_as_unknown() {
    let shared = Shared::on_postgres().await;
    let service = shared.instance().await;
    let alice = service.log_in("alice").await;
    let mut delete = shared.db.begin().await.expect("a transaction");
    let deleted = delete.execute("DELETE FROM requirements WHERE id = 1");
    deleted.await.expect("a row");

    let path = "/api/requirements/1/features";
    let feature = Some(r#"{"title": "x"}"#);
    let propose = service.as_user(&alice, Method::POST, path, feature);
    let commit = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waits = async || {
            let waiting = sqlx::query_scalar::<_, i64>(waiting);
            waiting.fetch_one(shared.db.pool()).await.expect("a count") > 0
        };
        let wait = async {
            while !waits().await {
                tokio::task::yield_now().await;
            }
        };
        let waited = timeout(Duration::from_secs(30), wait).await;
        waited.expect("the new feature waits for the deletion");
        delete.commit().await.expect("a commit");
    };
    let (proposed, ()) = tokio::join!(propose, commit);

    assert_eq!(proposed.status, 404, "{proposed:?}");
}
