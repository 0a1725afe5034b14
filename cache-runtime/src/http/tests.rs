//! The layers around services that do not use axum.

use std::convert::Infallible;
use std::net::SocketAddr;

use ::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::cache::Cache;
use crate::limit::{Limit, Policy, RateLimiter};

type Answer<B = Full<Bytes>> = Response<ResponseBody<B>>;

fn one_a_minute() -> Limit {
    let policy = Policy::new("api").limit(1).per("1m");
    let limiter = RateLimiter::new(&Cache::memory(), [policy]).unwrap();
    limiter.limit(&["api"]).unwrap()
}

fn request(peer: &str) -> Request<()> {
    let mut request = Request::new(());
    let peer = SocketAddr::new(peer.parse().unwrap(), 50_000);
    request.extensions_mut().insert(PeerAddr(peer));
    request
}

async fn whoami(request: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = match ClientIp::of(request.extensions()) {
        Some(ClientIp(address)) => address.to_string(),
        None => "unknown".to_owned(),
    };
    Ok(Response::new(Full::from(text)))
}

async fn text(response: Answer) -> String {
    let body = response.into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn clients_are_limited_by_the_address_of_the_peer() {
    let app = RateLimitLayer::new(one_a_minute()).layer(service_fn(whoami));
    let send = async |peer| app.clone().oneshot(request(peer)).await.unwrap();

    let first = send("192.0.2.1").await;
    let rejected = send("192.0.2.1").await;
    let other = send("192.0.2.2").await;

    assert_eq!(first.headers()["ratelimit"], r#""api";r=0;t=60"#);
    assert_eq!(text(first).await, "192.0.2.1");
    assert_eq!(rejected.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(text(rejected).await.contains("#quota-exceeded"));
    assert_eq!(text(other).await, "192.0.2.2");
}

#[tokio::test]
async fn a_response_for_rejected_requests_may_have_a_body_of_another_type() {
    let layer = RateLimitLayer::new(one_a_minute())
        .respond_with(|limited, _| Response::new(limited.policy().to_owned()));
    let app = layer.layer(service_fn(whoami));

    let _ = app.clone().oneshot(request("192.0.2.1")).await.unwrap();
    let rejected = app.oneshot(request("192.0.2.1")).await.unwrap();

    assert_eq!(rejected.headers()["cache-control"], "no-store");
    assert_eq!(text(rejected).await, "api");
}

#[cfg(feature = "sessions")]
mod sessions {
    use super::*;
    use crate::session::{NewSession, SessionError, SessionStore};

    /// Logs in with a `POST`, and names the user of a `GET`.
    async fn handle(request: Request<()>) -> Result<Response<String>, Infallible> {
        let named = async {
            let sessions = Sessions::<()>::of(request.extensions())?;
            let session = match *request.method() {
                Method::POST => sessions.log_in(NewSession::new(42, "ada")).await?,
                _ => sessions.current().await?,
            };
            Ok::<_, SessionError>(session.username.clone())
        };
        Ok(named.await.map_or_else(Response::from, Response::new))
    }

    fn app() -> impl Service<Request<()>, Response = Answer<String>, Error = Infallible> + Clone {
        let store = SessionStore::new(&Cache::memory()).unwrap();
        SessionLayer::<()>::new(store).layer(service_fn(handle))
    }

    #[tokio::test]
    async fn a_handler_finds_the_session_of_its_request() {
        let app = app();
        let mut log_in = request("192.0.2.1");
        *log_in.method_mut() = Method::POST;
        let response = app.clone().oneshot(log_in).await.unwrap();
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        let (cookie, _) = cookie.split_once(';').unwrap();

        let mut named = request("192.0.2.1");
        let value = cookie.parse().unwrap();
        named.headers_mut().insert(header::COOKIE, value);
        let named = app.oneshot(named).await.unwrap();

        let body = named.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "ada");
    }

    #[tokio::test]
    async fn an_error_becomes_a_response() {
        let rejected = app().oneshot(request("192.0.2.1")).await.unwrap();

        assert_eq!(rejected.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(rejected.headers()["cache-control"], "no-store");
    }

    #[test]
    fn without_a_layer_there_are_no_sessions() {
        let sessions = Sessions::<()>::of(request("192.0.2.1").extensions());

        assert!(matches!(sessions, Err(SessionError::NoLayer("()"))));
    }
}
