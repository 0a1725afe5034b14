//! What is refused, on SQLite and on Postgres.

use axum::http::Method;

use crate::support::{NEW, Shared};

on_both_databases! {
    only_the_team_of_a_requirement_changes_it,
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
