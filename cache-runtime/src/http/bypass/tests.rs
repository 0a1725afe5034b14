use ::http::HeaderValue;
use axum::Router;

use super::*;
use crate::http::OnMissing;
use crate::http::fields;
use crate::http::support::{PEER, app_behind, get_from, one_a_minute, request, send, status_for};

fn healthy() -> Router {
    app_behind(one_a_minute().bypass("/health").unwrap())
}

#[tokio::test]
async fn a_bypass_is_never_counted_and_carries_no_fields() {
    let app = healthy();
    for method in [Method::GET, Method::HEAD, Method::GET] {
        for path in ["/health", "/health?full=1"] {
            let response = send(&app, request(method.clone(), path, PEER)).await;
            assert_eq!(response.status(), 200);
            assert!(!fields::are_in(response.headers()));
        }
    }
    assert_eq!(status_for(&app, PEER).await, 200);
    assert_eq!(status_for(&app, PEER).await, 429);
    assert_eq!(
        send(&app, request(Method::GET, "/health", PEER))
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_bypass_needs_no_address() {
    let app = app_behind(
        one_a_minute()
            .bypass("/health")
            .unwrap()
            .on_missing(OnMissing::Reject),
    );
    let mut request = request(Method::GET, "/health", PEER);
    request.extensions_mut().clear();
    assert_eq!(send(&app, request).await.status(), 200);
}

#[tokio::test]
async fn a_bypass_applies_only_to_its_path_and_methods() {
    for (method, path) in [
        (Method::GET, "//health"),
        (Method::GET, "/health/"),
        (Method::GET, "/health/..%2flogin"),
        (Method::GET, "/health/../login"),
        (Method::GET, "/%68ealth"),
        (Method::GET, "/HEALTH"),
        (Method::GET, "/healthx"),
        (Method::GET, "/health;x"),
        (Method::GET, "/health%00"),
        (Method::GET, "/login?/health"),
        (Method::OPTIONS, "/health"),
        (Method::POST, "/health"),
    ] {
        let app = healthy();
        assert_eq!(status_for(&app, PEER).await, 200);
        let response = send(&app, request(method.clone(), path, PEER)).await;
        assert_eq!(response.status(), 429, "{method} {path}");
    }
}

#[tokio::test]
async fn a_header_cannot_cause_a_bypass() {
    let app = healthy();
    assert_eq!(status_for(&app, PEER).await, 200);
    let mut forged = get_from(PEER);
    for (name, value) in [
        ("user-agent", "kube-probe/1.30"),
        ("x-original-url", "/health"),
        ("x-rewrite-url", "/health"),
        ("x-forwarded-uri", "/health"),
        ("x-http-method-override", "HEAD"),
        ("host", "localhost"),
    ] {
        forged
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }

    assert_eq!(send(&app, forged).await.status(), 429);
}

#[tokio::test]
async fn a_bypass_can_name_other_methods() {
    let layer = one_a_minute()
        .bypass_method(Method::OPTIONS, "/login")
        .unwrap();
    let app = app_behind(layer);
    assert_eq!(status_for(&app, PEER).await, 200);

    assert_eq!(
        send(&app, request(Method::OPTIONS, "/login", PEER))
            .await
            .status(),
        405
    );
    assert_eq!(
        send(&app, request(Method::POST, "/login", PEER))
            .await
            .status(),
        429
    );
}

#[test]
fn an_inexact_path_is_refused_with_advice() {
    for path in [
        "",
        "health",
        "/health/{id}",
        "/health/*",
        "/health?full",
        "/h#",
        "/a b",
        "/gesundheitsprüfung",
        "/\n",
    ] {
        let error = Bypass::new(Method::GET, path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{path}");
        assert!(error.to_string().contains("use one exact path"), "{error}");
    }
    for path in [
        "/",
        "/health",
        "/health/",
        "/a%20b",
        "/.well-known/live:v1~",
    ] {
        assert!(Bypass::new(Method::GET, path).is_ok(), "{path}");
    }
}
