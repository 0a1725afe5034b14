//! What is cached, for how long, and what evicts it. Each test runs on SQLite and on Postgres.

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, NEW, Shared};

on_both_databases! {
    each_read_is_stored_for_the_time_of_its_policy,
    a_second_read_does_not_ask_the_database,
    no_instance_serves_an_old_value_after_a_write,
    accepting_changes_the_requirement_and_its_features_or_neither,
    a_search_finds_words_in_any_case_and_text_that_nothing_contains_is_not_stored,
    a_new_schema_replaces_the_verdicts_of_the_old_one,
    the_id_of_a_deleted_requirement_is_not_used_again,
}

fn ids(answer: &Answer) -> Vec<i64> {
    let list = answer.body.as_array().expect("a list");
    list.iter()
        .map(|item| item["id"].as_i64().expect("an id"))
        .collect()
}

async fn each_read_is_stored_for_the_time_of_its_policy(shared: &Shared) {
    let service = shared.instance().await;
    let alice = service.log_in("alice").await;
    let validate = "/api/schemas/requirement/validate";

    for path in [
        "/api/requirements/1",
        "/api/features/1",
        "/api/requirements/1/features",
    ] {
        assert_eq!(service.get(path).await.status, 200, "{path}");
    }
    service.get("/api/requirements?text=refund").await;
    service
        .as_user(&alice, Method::POST, validate, Some("{}"))
        .await;
    service
        .as_user(&alice, Method::GET, "/api/preferences", None)
        .await;

    let minutes = |key: &str| shared.ttl(key).map(|seconds| (seconds + 59) / 60);
    assert_eq!(minutes("requirement:1"), Some(60));
    assert_eq!(minutes("feature:1"), Some(15));
    assert_eq!(minutes("features:1"), Some(15));
    assert_eq!(minutes("validation:requirement:*"), Some(120));
    assert_eq!(minutes("search:*"), Some(5));
    assert_eq!(minutes("preferences:1"), Some(24 * 60));
}

async fn a_second_read_does_not_ask_the_database(shared: &Shared) {
    let (one, other) = (shared.instance().await, shared.instance().await);
    let first = one.get("/api/requirements/1").await;
    let rename = "UPDATE requirements SET title = 'changed behind the cache' WHERE id = 1";
    sqlx::query(rename)
        .execute(shared.db.pool())
        .await
        .expect("a row");

    let second = other.get("/api/requirements/1").await;

    assert_eq!((second.status, second.body), (200, first.body));
    let status = second.headers["cache-status"]
        .to_str()
        .expect("ASCII")
        .to_owned();
    assert!(status.starts_with("requirements-service; hit"), "{status}");
}

async fn no_instance_serves_an_old_value_after_a_write(shared: &Shared) {
    let (one, other) = (shared.instance().await, shared.instance().await);
    let alice = one.log_in("alice").await;
    let write = async |method, path: &str, body| one.as_user(&alice, method, path, body).await;
    let list = async || ids(&other.get("/api/requirements").await);
    assert_eq!(list().await, [3, 2, 1]);
    other.get("/api/requirements/1").await;
    other.get("/api/requirements/1/features").await;
    other.get("/api/features/1").await;

    let created = write(Method::POST, "/api/requirements", Some(NEW)).await;
    assert_eq!(
        (created.status, &created.body["team"]),
        (201, &json!("payments"))
    );
    let id = created.body["id"].as_i64().expect("an id");
    assert_eq!(list().await, [id, 3, 2, 1]);

    let updated = write(Method::PUT, "/api/requirements/1", Some(NEW)).await;
    assert_eq!(updated.status, 200);
    assert!(
        shared.ttl("requirement:1").is_some(),
        "the update stores what it wrote"
    );
    assert_eq!(
        other.get("/api/requirements/1").await.body["title"],
        "Größe %"
    );
    let found = other.get("/api/requirements").await;
    assert_eq!(found.body[3]["title"], "Größe %");

    let new = Some(r#"{"title": "A new feature"}"#);
    assert_eq!(
        write(Method::POST, "/api/requirements/1/features", new)
            .await
            .status,
        201
    );
    assert_eq!(
        ids(&other.get("/api/requirements/1/features").await).len(),
        3
    );
    write(
        Method::PUT,
        "/api/features/1",
        Some(r#"{"status": "done"}"#),
    )
    .await;
    assert_eq!(other.get("/api/features/1").await.body["status"], "done");
    let features = other.get("/api/requirements/1/features").await;
    assert_eq!(features.body[0]["status"], "done");

    let preferences = Some(r#"{"theme": "dark", "digest": "never"}"#);
    write(Method::PUT, "/api/preferences", preferences).await;
    assert!(shared.ttl("preferences:1").is_some());
    let seen = other
        .as_user(&alice, Method::GET, "/api/preferences", None)
        .await;
    assert_eq!(seen.body, json!({"theme": "dark", "digest": "never"}));

    assert_eq!(
        write(Method::DELETE, "/api/requirements/1", None)
            .await
            .status,
        204
    );
    assert_eq!(other.get("/api/requirements/1").await.status, 404);
    assert_eq!(other.get("/api/features/1").await.status, 404);
    assert_eq!(list().await, [id, 3, 2]);
}

async fn accepting_changes_the_requirement_and_its_features_or_neither(shared: &Shared) {
    let (one, other) = (shared.instance().await, shared.instance().await);
    let alice = one.log_in("alice").await;
    let status = async |path: &str| other.get(path).await.body["status"].clone();
    assert_eq!(status("/api/requirements/1").await, "draft");
    assert_eq!(status("/api/features/2").await, "proposed");

    let accept = "/api/requirements/1/accept";
    let accepted = one.as_user(&alice, Method::POST, accept, None).await;
    assert_eq!(accepted.status, 200);
    assert_eq!(status("/api/requirements/1").await, "accepted");
    assert_eq!(status("/api/features/2").await, "planned");

    let created = one
        .as_user(&alice, Method::POST, "/api/requirements", Some(NEW))
        .await;
    let path = format!("/api/requirements/{}", created.body["id"]);
    let without_features = format!("{path}/accept");
    let refused = one
        .as_user(&alice, Method::POST, &without_features, None)
        .await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(status(&path).await, "draft");
}

async fn a_search_finds_words_in_any_case_and_text_that_nothing_contains_is_not_stored(
    shared: &Shared,
) {
    let service = shared.instance().await;
    let alice = service.log_in("alice").await;
    let created = service
        .as_user(&alice, Method::POST, "/api/requirements", Some(NEW))
        .await;
    let id = created.body["id"].as_i64().expect("an id");
    let find = async |query: &str| ids(&service.get(&format!("/api/requirements?{query}")).await);

    assert!(find("text=nothing%20like%20this").await.is_empty());
    assert_eq!(shared.ttl("search:*"), None);
    assert_eq!(find("text=GR%C3%96SSE%20%25").await, Vec::<i64>::new());
    assert_eq!(find("text=GR%C3%96%C3%9FE%20%25").await, [id]);
    assert_eq!(find("text=%25").await, [id], "a wildcard stands for itself");
    assert_eq!(find("text=%5F").await, Vec::<i64>::new());
    assert_eq!(find("status=accepted").await, [2]);
    assert_eq!(find("status=draft&text=refund").await, [1]);
    assert_eq!(find("page=2").await, Vec::<i64>::new());
    let long = "x".repeat(65);
    let refused = service.get(&format!("/api/requirements?text={long}")).await;
    assert_eq!(refused.status, 422);
}

async fn a_new_schema_replaces_the_verdicts_of_the_old_one(shared: &Shared) {
    let (one, other) = (shared.instance().await, shared.instance().await);
    let alice = one.log_in("alice").await;
    let path = "/api/schemas/requirement/validate";
    let validate = async |document| {
        other
            .as_user(&alice, Method::POST, path, Some(document))
            .await
    };

    let verdict = validate(r#"{"priority": "high", "owner": 1}"#).await;
    let named = |verdict: &Value| {
        let problems = verdict["problems"].as_array().expect("a list").iter();
        let named = problems.map(|problem| problem["field"].as_str().expect("a name").to_owned());
        named.collect::<Vec<_>>()
    };
    assert_eq!(verdict.body["valid"], false);
    assert_eq!(named(&verdict.body), ["title", "priority", "owner"]);
    // The same document in another spelling is a hit.
    let again = validate(r#"{ "owner":1, "priority":"high" }"#).await;
    let status = again.headers["cache-status"].to_str().expect("ASCII");
    assert!(status.contains("; hit"), "{status}");

    let fields = r#"[{"name": "priority", "kind": "text", "required": true},
                     {"name": "owner", "kind": "number", "required": false}]"#;
    let set = one
        .as_user(
            &alice,
            Method::PUT,
            "/api/schemas/requirement",
            Some(fields),
        )
        .await;
    assert_eq!(set.status, 204, "{set:?}");
    let verdict = validate(r#"{"priority": "high", "owner": 1}"#).await;
    assert_eq!(verdict.body, json!({"valid": true, "problems": []}));
}

async fn the_id_of_a_deleted_requirement_is_not_used_again(shared: &Shared) {
    let service = shared.instance().await;
    let alice = service.log_in("alice").await;
    let create = async || {
        let list = "/api/requirements";
        let created = service.as_user(&alice, Method::POST, list, Some(NEW));
        created.await.body["id"].as_i64().expect("an id")
    };

    let first = create().await;
    let path = format!("/api/requirements/{first}");
    let deleted = service.as_user(&alice, Method::DELETE, &path, None).await;
    let second = create().await;

    assert_eq!(deleted.status, 204, "{deleted:?}");
    assert!(second > first, "{second} after {first}");
}
