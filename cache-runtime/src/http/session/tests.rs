mod jar;
mod origins;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;

use super::*;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::{Config, SessionKeys};
use crate::http::support::{PEER, lines, request, send, text};
use crate::http::{RateLimitLayer, SameSite};
use crate::session::{NewSession, SessionData, SessionError};
use crate::store::support::{ask, config, until};
use crate::testing::RedisServer;

const OLD: &str = "old:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW: &str = "new:ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

type Cart = Vec<String>;

/// A service with sessions and its routes.
fn app(layer: SessionLayer<Cart>) -> Router {
    Router::new()
        .route("/login/{user}", post(log_in))
        .route("/logout", post(log_out))
        .route("/logout-all", post(log_out_everywhere))
        .route("/whoami", get(whoami))
        .route("/varied", get(varied))
        .route("/guest", get(guest))
        .route("/twice", get(twice))
        .route("/put/{thing}", post(put))
        .route("/promote", post(promote))
        .route("/public", get(|| async { "for all" }))
        .layer(layer)
}

async fn log_in(
    sessions: Sessions<Cart>,
    Path(user): Path<String>,
) -> Result<String, SessionError> {
    let new = NewSession::new(&user, format!("the {user}")).extension(Cart::new());
    let session = sessions.log_in(new).await?;
    Ok(session.token().expose().to_owned())
}

async fn log_out(sessions: Sessions<Cart>) -> Result<StatusCode, SessionError> {
    sessions.log_out().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn log_out_everywhere(session: Session<Cart>) -> Result<String, SessionError> {
    Ok(session.log_out_everywhere().await?.to_string())
}

async fn whoami(session: Session<Cart>) -> Json<SessionData<Cart>> {
    Json(session.clone())
}

/// States by itself that the response depends on the cookies.
async fn varied(_: Session<Cart>) -> ([(header::HeaderName, &'static str); 1], &'static str) {
    ([(header::VARY, "Accept, Cookie")], "for one")
}

async fn guest(session: Option<Session<Cart>>) -> String {
    session.map_or_else(|| "nobody".to_owned(), |session| session.username.clone())
}

async fn twice(
    one: Session<Cart>,
    other: Option<Session<Cart>>,
    sessions: Sessions<Cart>,
) -> String {
    let third = sessions.current().await.unwrap();
    assert_eq!(one.id(), other.unwrap().id());
    assert_eq!(one.last_activity, third.last_activity);
    one.id()
}

async fn put(
    mut session: Session<Cart>,
    sessions: Sessions<Cart>,
    Path(thing): Path<String>,
) -> Result<Json<Cart>, SessionError> {
    session
        .update(|data| data.extension.push(thing.clone()))
        .await?;
    // Later extractors of this request see it too.
    Ok(Json(sessions.current().await?.extension.clone()))
}

/// A handler that fails after it has changed the token.
async fn promote(mut session: Session<Cart>) -> Result<StatusCode, SessionError> {
    session.update(|data| data.is_verified = true).await?;
    session.rotate().await?;
    Ok(StatusCode::INTERNAL_SERVER_ERROR)
}

fn keys(text: &str) -> SessionKeys {
    SessionKeys::parse(text).unwrap()
}

fn in_memory(keys_text: &str) -> Cache {
    Cache::local(Config::default().session_keys(keys(keys_text)))
}

fn layer(cache: &Cache) -> SessionLayer<Cart> {
    SessionLayer::new(SessionStore::new(cache).unwrap())
}

fn app_in_memory() -> Router {
    app(layer(&in_memory(OLD)))
}

async fn on_redis(server: &RedisServer) -> (Cache, Router) {
    let config = config(server).session_keys(keys(OLD));
    let cache = Cache::connect(config).await.unwrap();
    (cache.clone(), app(layer(&cache)))
}

/// Returns a request with these lines of cookies.
fn with(method: Method, path: &str, cookies: &[&str]) -> Request<Body> {
    let mut request = request(method, path, PEER);
    for cookie in cookies {
        request
            .headers_mut()
            .append(header::COOKIE, cookie.parse().unwrap());
    }
    request
}

fn cookie_of(token: &str) -> String {
    format!("__Host-session={token}")
}

fn set_cookies(response: &Response) -> Vec<String> {
    let headers = response.headers().get_all(header::SET_COOKIE).iter();
    headers
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

/// Returns the token that a response sets.
fn token_in(response: &Response) -> String {
    let [cookie] = &set_cookies(response)[..] else {
        panic!("expected one cookie: {response:?}")
    };
    let value = cookie.strip_prefix("__Host-session=").unwrap();
    value.split(';').next().unwrap().to_owned()
}

/// Logs in and returns the token.
async fn enter(app: &Router, user: &str, cookies: &[&str]) -> String {
    let path = format!("/login/{user}");
    let response = send(app, with(Method::POST, &path, cookies)).await;
    assert_eq!(response.status(), 200);
    token_in(&response)
}

/// Returns the status of `/whoami` for these cookies.
async fn status(app: &Router, cookies: &[&str]) -> u16 {
    let response = send(app, with(Method::GET, "/whoami", cookies)).await;
    response.status().as_u16()
}

#[tokio::test]
async fn a_login_sets_a_cookie_that_lives_as_long_as_the_session_can() {
    let app = app_in_memory();

    let response = send(&app, with(Method::POST, "/login/ada", &[])).await;

    let token = token_in(&response);
    assert_eq!(
        set_cookies(&response),
        [format!(
            "__Host-session={token}; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax; Secure"
        )]
    );
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(text(response).await, token);
    assert_eq!(status(&app, &[&cookie_of(&token)]).await, 200);
}

#[tokio::test]
async fn a_session_records_the_address_and_the_browser_of_the_login() {
    let app = app_in_memory();
    let mut request = with(Method::POST, "/login/ada", &[]);
    let browser = HeaderValue::from_bytes(b"Mozilla/5.0 \xc3\xa9\t\xff").unwrap();
    request.headers_mut().insert(header::USER_AGENT, browser);

    let token = token_in(&send(&app, request).await);

    let response = send(&app, with(Method::GET, "/whoami", &[&cookie_of(&token)])).await;
    let data: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(data["ipAddress"], PEER);
    assert_eq!(data["userAgent"], "Mozilla/5.0 é\u{fffd}");
    assert_eq!(
        (&data["userId"], &data["username"]),
        (&"ada".into(), &"the ada".into())
    );
    assert_eq!(data["extension"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn the_address_of_a_session_is_the_one_behind_the_proxies() {
    let source = crate::http::ClientIpSource::trusted_hops(1).unwrap();
    let limit = RateLimitLayer::new(crate::http::support::limit(100)).client_ip(source);
    let app = app_in_memory().layer(limit);
    let mut request = with(Method::POST, "/login/ada", &[]);
    let forwarded = HeaderValue::from_static("198.51.100.7");
    request.headers_mut().insert("x-forwarded-for", forwarded);

    let token = token_in(&send(&app, request).await);

    let response = send(&app, with(Method::GET, "/whoami", &[&cookie_of(&token)])).await;
    let data: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(data["ipAddress"], "198.51.100.7");
}

#[tokio::test]
async fn every_invalid_session_gets_the_same_response() {
    let clock = Clock::stopped();
    let config = Config::default()
        .session_keys(keys(OLD))
        .clock(clock.clone());
    let other = app(layer(&in_memory(NEW)));
    let app = app(layer(&Cache::local(config)));
    let expired = cookie_of(&enter(&app, "ada", &[]).await);
    clock.advance(Duration::from_secs(86_400));
    let foreign = cookie_of(&enter(&other, "ada", &[]).await);
    let long = cookie_of(&"x".repeat(1 << 20));

    let mut answers = Vec::new();
    for cookies in [
        vec![],
        vec!["__Host-session="],
        vec!["__Host-session=v1.old.a.b.c"],
        vec![&*expired],
        vec![&*foreign],
        vec![&*long],
        vec!["__host-session=x; other=y"],
    ] {
        let response = send(&app, with(Method::GET, "/whoami", &cookies)).await;
        assert_eq!(response.status(), 401, "{cookies:?}");
        assert_eq!(response.headers()["www-authenticate"], "Session");
        assert!(set_cookies(&response).is_empty());
        answers.push(text(response).await);
        let response = send(&app, with(Method::GET, "/guest", &cookies)).await;
        assert_eq!(text(response).await, "nobody");
    }
    answers.dedup();
    assert_eq!(
        answers,
        [r#"{"detail":"log in first","status":401,"title":"Unauthorized"}"#]
    );
}

#[tokio::test]
async fn a_logout_ends_the_session_and_removes_the_cookie() {
    let app = app_in_memory();
    let cookie = cookie_of(&enter(&app, "ada", &[]).await);

    let response = send(&app, with(Method::POST, "/logout", &[&cookie])).await;

    assert_eq!(response.status(), 204);
    assert_eq!(
        set_cookies(&response),
        [
            "__Host-session=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax; Secure"
        ]
    );
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(status(&app, &[&cookie]).await, 401);
    let again = send(&app, with(Method::POST, "/logout", &[&cookie])).await;
    assert_eq!(
        (again.status().as_u16(), set_cookies(&again).len()),
        (204, 1)
    );
}

#[tokio::test]
async fn a_logout_removes_the_cookie_only_if_it_was_sent() {
    let app = app_in_memory();
    let logout = async |cookies: &[&str]| {
        let response = send(&app, with(Method::POST, "/logout", cookies)).await;
        (response.status().as_u16(), set_cookies(&response).len())
    };

    // Another site can make a browser send this request, but not the cookie.
    assert_eq!(logout(&[]).await, (204, 0));
    assert_eq!(logout(&["other=1"]).await, (204, 0));
    assert_eq!(logout(&["__Host-session=forged"]).await, (204, 1));
}

#[tokio::test]
async fn a_logout_everywhere_ends_sessions_on_other_devices() {
    let app = app_in_memory();
    let one = cookie_of(&enter(&app, "ada", &[]).await);
    let other = cookie_of(&enter(&app, "ada", &[]).await);
    let eve = cookie_of(&enter(&app, "eve", &[]).await);

    let response = send(&app, with(Method::POST, "/logout-all", &[&one])).await;

    assert!(set_cookies(&response)[0].contains("Max-Age=0"));
    assert_eq!(text(response).await, "2");
    assert_eq!(status(&app, &[&one]).await, 401);
    assert_eq!(status(&app, &[&other]).await, 401);
    assert_eq!(status(&app, &[&eve]).await, 200);
}

#[tokio::test]
async fn a_session_from_before_a_login_is_ended_by_it() {
    let app = app_in_memory();
    for planter in ["ada", "eve"] {
        let planted = cookie_of(&enter(&app, planter, &[]).await);

        let cookie = cookie_of(&enter(&app, "ada", &[&planted]).await);

        assert_ne!(cookie, planted);
        assert_eq!(status(&app, &[&planted]).await, 401);
        assert_eq!(status(&app, &[&cookie]).await, 200);
    }
    // With two cookies at the same time, both sessions end.
    let one = cookie_of(&enter(&app, "eve", &[]).await);
    let two = cookie_of(&enter(&app, "bob", &[]).await);
    enter(&app, "ada", &[&one, &two]).await;
    assert_eq!(status(&app, &[&one]).await, 401);
    assert_eq!(status(&app, &[&two]).await, 401);
}

#[tokio::test]
async fn two_valid_tokens_of_different_users_are_both_refused() {
    let app = app_in_memory();
    let ada = cookie_of(&enter(&app, "ada", &[]).await);
    let eve = cookie_of(&enter(&app, "eve", &[]).await);
    let forged = cookie_of("v1.old.AAAA.AAAA.AAAA");

    assert_eq!(status(&app, &[&ada, &eve]).await, 401);
    assert_eq!(status(&app, &[&eve, &ada]).await, 401);
    assert_eq!(status(&app, &[&format!("{ada}; {eve}")]).await, 401);
    // A repeated token and an invalid token change nothing.
    assert_eq!(status(&app, &[&ada, &ada]).await, 200);
    assert_eq!(status(&app, &[&forged, &ada]).await, 200);
    assert_eq!(status(&app, &[&ada, &forged]).await, 200);
    // Other cookies with this name matter only if there are more than the limit.
    let mut many = vec![&*forged; 63];
    many.push(&ada);
    assert_eq!(status(&app, &many).await, 200);
    many.insert(0, &forged);
    assert_eq!(status(&app, &many).await, 401);
}

#[tokio::test]
async fn a_token_is_valid_only_in_its_own_cookie() {
    let cache = in_memory(OLD);
    let store = SessionStore::new(&cache).unwrap();
    let one = app(SessionLayer::new(store.for_cookie("third")));
    let cookie = SessionCookie::insecure().same_site(SameSite::Strict);
    let other = app(SessionLayer::new(store.clone()).cookie(cookie).unwrap());

    let token = enter(&one, "ada", &[]).await;

    assert!(store.verify(&token).is_ok());
    assert_eq!(status(&one, &[&cookie_of(&token)]).await, 200);
    assert_eq!(status(&other, &[&format!("session={token}")]).await, 401);
    let response = send(&other, with(Method::POST, "/login/ada", &[])).await;
    let cookie = set_cookies(&response).remove(0);
    assert!(cookie.starts_with("session=v1."), "{cookie}");
    assert!(
        cookie.ends_with("; Max-Age=604800; HttpOnly; SameSite=Strict"),
        "{cookie}"
    );
}

#[tokio::test]
async fn a_cookie_that_browsers_refuse_is_a_configuration_error() {
    let refused = layer(&in_memory(OLD)).cookie(SessionCookie::default().domain("example.com"));

    assert_eq!(refused.unwrap_err().kind(), crate::ErrorKind::Config);
}

#[tokio::test]
async fn changes_are_stored_before_the_handler_continues_and_none_is_lost() {
    let server = RedisServer::start().unwrap();
    let (_, app) = on_redis(&server).await;
    let cookie = cookie_of(&enter(&app, "ada", &[]).await);

    let mut calls = tokio::task::JoinSet::new();
    for thing in 0..8 {
        let (app, cookie) = (app.clone(), cookie.clone());
        calls.spawn(async move {
            let path = format!("/put/{thing}");
            let response = send(&app, with(Method::POST, &path, &[&cookie])).await;
            assert_eq!(response.status(), 200);
            let cart: Cart = serde_json::from_str(&text(response).await).unwrap();
            assert!(cart.contains(&thing.to_string()));
        });
    }
    calls.join_all().await;

    let response = send(&app, with(Method::GET, "/whoami", &[&cookie])).await;
    let data: Value = serde_json::from_str(&text(response).await).unwrap();
    let mut cart: Cart = serde_json::from_value(data["extension"].clone()).unwrap();
    cart.sort();
    assert_eq!(cart, ["0", "1", "2", "3", "4", "5", "6", "7"]);
}

#[tokio::test]
async fn a_failed_response_still_sets_a_new_token() {
    let app = app_in_memory();
    let old = cookie_of(&enter(&app, "ada", &[]).await);

    let response = send(&app, with(Method::POST, "/promote", &[&old])).await;

    assert_eq!(response.status(), 500);
    let new = cookie_of(&token_in(&response));
    assert_eq!(status(&app, &[&old]).await, 401);
    let response = send(&app, with(Method::GET, "/whoami", &[&new])).await;
    assert!(set_cookies(&response).is_empty());
    assert!(text(response).await.contains(r#""isVerified":true"#));
}

#[tokio::test]
async fn a_token_under_an_older_key_is_replaced_with_the_next_response() {
    let server = RedisServer::start().unwrap();
    let app_with = async |text: &str| {
        let config = config(&server).session_keys(keys(text));
        app(layer(&Cache::connect(config).await.unwrap()))
    };
    let before = app_with(OLD).await;
    let during = app_with(&format!("{NEW},{OLD}")).await;
    let old = enter(&before, "ada", &[]).await;

    let response = send(&during, with(Method::GET, "/whoami", &[&cookie_of(&old)])).await;

    let new = token_in(&response);
    assert!(
        old.starts_with("v1.old.") && new.starts_with("v1.new."),
        "{new}"
    );
    // Both are the same session, and no token needs to be replaced.
    assert_eq!(
        status(&during, &[&cookie_of(&old), &cookie_of(&new)]).await,
        200
    );
    let response = send(&during, with(Method::GET, "/whoami", &[&cookie_of(&new)])).await;
    assert!(set_cookies(&response).is_empty());
    // A route without a session extractor replaces nothing.
    let response = send(&during, with(Method::GET, "/public", &[&cookie_of(&old)])).await;
    assert!(set_cookies(&response).is_empty());
}

#[tokio::test]
async fn bearer_tokens_are_opt_in_and_set_no_cookie() {
    let store = SessionStore::new(&in_memory(OLD)).unwrap();
    let web = app(SessionLayer::new(store.clone()));
    let api = app(SessionLayer::new(store).bearer());
    let token = enter(&web, "ada", &[]).await;
    let bearing = |method, path: &str, scheme: &str| {
        let mut request = with(method, path, &[]);
        let value = format!("{scheme} {token}").parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        request
    };

    let refused = send(&web, bearing(Method::GET, "/whoami", "Bearer")).await;
    assert_eq!(refused.status(), 401);
    let refused = send(&api, bearing(Method::GET, "/whoami", "Basic")).await;
    assert_eq!(refused.status(), 401);
    let taken = send(&api, bearing(Method::GET, "/whoami", "bearer")).await;
    assert_eq!(taken.status(), 200);
    // The header wins for a client that also keeps cookies.
    let mut both = bearing(Method::GET, "/whoami", "Bearer");
    let other = cookie_of(&enter(&api, "eve", &[]).await);
    both.headers_mut()
        .insert(header::COOKIE, other.parse().unwrap());
    let response = send(&api, both).await;
    assert!(text(response).await.contains(r#""userId":"ada""#));
    let refused = send(&api, with(Method::GET, "/whoami", &[])).await;
    let challenges = lines(refused.headers(), "www-authenticate");
    assert_eq!(challenges, ["Session", "Bearer"]);
    for path in ["/promote", "/logout"] {
        let response = send(&api, bearing(Method::POST, path, "Bearer")).await;
        assert!(set_cookies(&response).is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_foreign_bearer_token_does_not_affect_the_cookie() {
    let app = app(layer(&in_memory(OLD)).bearer());
    let cookie = cookie_of(&enter(&app, "ada", &[]).await);
    let foreign = |method, path: &str, cookies: &[&str]| {
        let mut request = with(method, path, cookies);
        let value = HeaderValue::from_static("Bearer eyJ.other.service");
        request.headers_mut().insert(header::AUTHORIZATION, value);
        request
    };

    let promoted = send(&app, foreign(Method::POST, "/promote", &[&cookie])).await;
    assert_eq!(set_cookies(&promoted).len(), 1);
    let entered = send(&app, foreign(Method::POST, "/login/ada", &[])).await;
    assert_eq!(set_cookies(&entered).len(), 1);
}

#[tokio::test]
async fn other_cookies_can_contain_anything() {
    let app = app_in_memory();
    let token = enter(&app, "ada", &[]).await;
    let mut request = with(Method::GET, "/whoami", &[]);
    let line = [b"x=\xff; ".as_slice(), cookie_of(&token).as_bytes()].concat();
    let line = HeaderValue::from_bytes(&line).unwrap();
    request.headers_mut().insert(header::COOKIE, line);

    assert_eq!(send(&app, request).await.status(), 200);
}

#[tokio::test]
async fn a_logout_without_the_key_fails_and_keeps_the_cookie() {
    let cookie = cookie_of(&enter(&app(layer(&in_memory(NEW))), "ada", &[]).await);
    let app = app_in_memory();

    let response = send(&app, with(Method::POST, "/logout", &[&cookie])).await;

    assert_eq!(response.status(), 401);
    assert!(set_cookies(&response).is_empty());
}

#[tokio::test]
async fn responses_for_a_user_are_not_cached_for_others() {
    let app = app_in_memory();
    let cookie = cookie_of(&enter(&app, "ada", &[]).await);

    let own = send(&app, with(Method::GET, "/whoami", &[&cookie])).await;
    assert_eq!(own.headers()["cache-control"], "private, no-cache");
    assert_eq!(own.headers()["vary"], "cookie");
    let varied = send(&app, with(Method::GET, "/varied", &[&cookie])).await;
    let fields: Vec<_> = varied.headers().get_all("vary").iter().collect();
    assert_eq!(fields, ["Accept, Cookie"], "it is stated once");
    let public = send(&app, with(Method::GET, "/public", &[&cookie])).await;
    assert!(!public.headers().contains_key("cache-control"));
    assert!(!public.headers().contains_key("vary"));
}

#[tokio::test]
async fn an_outage_is_not_a_logout() {
    let mut server = RedisServer::start().unwrap();
    let (cache, app) = on_redis(&server).await;
    let cookie = cookie_of(&enter(&app, "ada", &[]).await);
    server.kill();

    for (method, path) in [
        (Method::GET, "/whoami"),
        (Method::GET, "/guest"),
        (Method::POST, "/put/book"),
        (Method::POST, "/logout-all"),
        (Method::POST, "/login/ada"),
        (Method::POST, "/logout"),
    ] {
        let response = send(&app, with(method, path, &[&cookie])).await;
        assert_eq!(response.status(), 503, "{path}");
        assert_eq!(response.headers()["retry-after"], "3");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert!(set_cookies(&response).is_empty(), "{path}");
    }
    // Requests that need no session, or send no valid token, are answered as usual.
    assert_eq!(status(&app, &["__Host-session=forged"]).await, 401);
    assert_eq!(status(&app, &[]).await, 401);
    let public = send(&app, with(Method::GET, "/public", &[&cookie])).await;
    assert_eq!(public.status(), 200);
    // The logout is recorded in this process.
    assert_eq!(status(&app, &[&cookie]).await, 401);
    assert_eq!(cache.stats().mode, crate::Mode::Fallback);
}

#[tokio::test]
async fn a_request_asks_redis_at_most_once() {
    let server = RedisServer::start().unwrap();
    let (_, app) = on_redis(&server).await;
    let cookie = cookie_of(&enter(&app, "ada", &[]).await);
    // The first call sends the script to the server.
    assert_eq!(status(&app, &[&cookie]).await, 200);
    let calls = || {
        let info: String = ask(&server, &["INFO", "commandstats"]);
        let calls = info.split("cmdstat_evalsha:calls=").nth(1).unwrap();
        calls.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    let before = calls();

    let twice = send(&app, with(Method::GET, "/twice", &[&cookie])).await;
    assert_eq!(twice.status(), 200);
    assert_eq!(calls(), before + 1);
    send(&app, with(Method::GET, "/public", &[&cookie])).await;
    assert_eq!(status(&app, &["__Host-session=v1.old.x.y.z"]).await, 401);
    assert_eq!(calls(), before + 1);
}

#[tokio::test]
async fn oversized_data_is_refused_and_changes_nothing() {
    let app = app_in_memory();
    let cookie = cookie_of(&enter(&app, "ada", &[]).await);
    let path = format!("/put/{}", "x".repeat(17_000));

    let response = send(&app, with(Method::POST, &path, &[&cookie])).await;

    assert_eq!(response.status(), 413);
    let cart = text(send(&app, with(Method::POST, "/put/book", &[&cookie])).await).await;
    assert_eq!(cart, r#"["book"]"#);
}

#[tokio::test]
async fn a_session_extractor_without_a_layer_is_a_server_error() {
    let bare = Router::new().route("/whoami", get(whoami));
    let other = bare.clone().layer(SessionLayer::new(
        SessionStore::<()>::new(&in_memory(OLD)).unwrap(),
    ));

    assert_eq!(status(&bare, &[]).await, 500);
    assert_eq!(status(&other, &[]).await, 500);
}

#[tokio::test]
async fn a_disconnected_client_leaves_a_working_session() {
    let server = RedisServer::start().unwrap();
    let (cache, _) = on_redis(&server).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let slow = async |State(begun): State<Arc<AtomicUsize>>, mut session: Session<Cart>| {
        session
            .update(|data| data.is_verified = true)
            .await
            .unwrap();
        begun.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<String>().await
    };
    let app = app(layer(&cache)).merge(
        Router::new()
            .route("/slow", get(slow))
            .layer(layer(&cache))
            .with_state(Arc::clone(&begun)),
    );
    let cookie = cookie_of(&enter(&app, "ada", &[]).await);

    let call = {
        let (app, cookie) = (app.clone(), cookie.clone());
        tokio::spawn(async move { send(&app, with(Method::GET, "/slow", &[&cookie])).await })
    };
    until("the request is running", || {
        begun.load(Ordering::SeqCst) == 1
    })
    .await;
    call.abort();

    let response = send(&app, with(Method::GET, "/whoami", &[&cookie])).await;
    assert!(text(response).await.contains(r#""isVerified":true"#));
}

#[test]
fn debug_output_contains_no_token() {
    let layer = layer(&in_memory(OLD));

    let shown = format!("{layer:?}");

    assert!(shown.contains("__Host-session"), "{shown}");
    assert!(
        !shown.contains("MDEy") && !shown.contains("0123"),
        "{shown}"
    );
}
