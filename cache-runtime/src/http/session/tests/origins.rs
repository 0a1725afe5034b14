//! Requests that pages of other origins cause a browser to send.

use super::*;
use crate::testing::RedisServer;

fn from(method: Method, path: &str, cookies: &[&str], fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = with(method, path, cookies);
    let headers = request.headers_mut();
    headers.insert(header::HOST, "a.example".parse().unwrap());
    for (name, value) in fields {
        let name: header::HeaderName = name.parse().unwrap();
        headers.append(name, value.parse().unwrap());
    }
    request
}

const FOREIGN: [(&str, &str); 2] = [
    ("origin", "http://evil.example"),
    ("sec-fetch-site", "cross-site"),
];

#[tokio::test]
async fn a_page_of_another_origin_cannot_change_anything() {
    let server = RedisServer::start().unwrap();
    let (_cache, app) = on_redis(&server).await;
    let ada = cookie_of(&enter(&app, "ada", &[]).await);
    for fields in [
        &FOREIGN[..],
        &FOREIGN[..1],
        &FOREIGN[1..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "null")],
    ] {
        for path in [
            "/logout-all",
            "/logout",
            "/put/thing",
            "/login/eve",
            "/nowhere",
        ] {
            let response = send(&app, from(Method::POST, path, &[&ada], fields)).await;

            assert_eq!(response.status(), 403, "{path} {fields:?}");
            assert_eq!(set_cookies(&response), [""; 0]);
            let headers = response.headers();
            assert_eq!(headers["content-type"], "application/problem+json");
            assert_eq!(headers["cache-control"], "no-store");
            let problem: Value = serde_json::from_str(&text(response).await).unwrap();
            assert_eq!(problem["status"], 403);
            assert_eq!(
                problem["detail"],
                "the request was sent by a page of another origin"
            );
        }
        let read = send(&app, from(Method::GET, "/whoami", &[&ada], fields)).await;
        assert_eq!(read.status(), 200);
    }
    let own = [
        ("origin", "https://a.example"),
        ("sec-fetch-site", "same-origin"),
    ];
    let response = send(&app, from(Method::POST, "/logout-all", &[&ada], &own)).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_login_from_another_origin_is_refused_without_a_cookie_too() {
    let app = app_in_memory();
    let response = send(&app, from(Method::POST, "/login/eve", &[], &FOREIGN)).await;
    assert_eq!(response.status(), 403);
}

#[tokio::test]
async fn trusted_origins_pass_and_the_check_can_be_turned_off() {
    let cache = in_memory(OLD);
    let trusting = layer(&cache)
        .trusted_origins(["http://evil.example"])
        .unwrap();
    let open = layer(&cache).allow_any_origin();
    for (layer, origin, expected) in [
        (trusting.clone(), "http://evil.example", 200),
        (trusting, "http://other.example", 403),
        (open, "http://other.example", 200),
    ] {
        let app = app(layer);
        let fields = [("origin", origin), ("sec-fetch-site", "cross-site")];
        let response = send(&app, from(Method::POST, "/login/ada", &[], &fields)).await;
        assert_eq!(response.status().as_u16(), expected, "{origin}");
    }
    let wrong = layer(&cache).trusted_origins(["evil.example"]).unwrap_err();
    assert!(
        wrong
            .to_string()
            .contains("`evil.example` is not an origin"),
        "{wrong}"
    );
}

#[tokio::test]
async fn requests_with_a_bearer_token_skip_the_origin_check() {
    let cache = in_memory(OLD);
    let app = app(layer(&cache).bearer());
    let token = enter(&app, "ada", &[]).await;
    let cookie = cookie_of(&enter(&app, "ada", &[]).await);
    let ours = ("authorization", format!("Bearer {token}"));
    let others = ("authorization", "Bearer of-another-service".to_owned());
    let basic = ("authorization", "Basic YWRhOg==".to_owned());
    for (authorization, cookies, expected) in [
        (&ours, vec![], 200),
        // Only the token counts.
        (&ours, vec![&*cookie], 200),
        (&others, vec![], 401),
        (&others, vec![&*cookie], 403),
        // Browsers add this header themselves.
        (&basic, vec![], 403),
    ] {
        let mut fields = FOREIGN.to_vec();
        fields.push((authorization.0, &authorization.1));
        let response = send(&app, from(Method::POST, "/put/thing", &cookies, &fields)).await;
        assert_eq!(
            response.status().as_u16(),
            expected,
            "{authorization:?} {cookies:?}"
        );
    }
}
