use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, Response as HttpResponse, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::support::{
    PEER, app_behind, get_from, limit, limit_called, lines, one_a_minute, request, rests, send,
    status_for, text, waits,
};
use crate::limit::{Policy, RateLimiter};

#[tokio::test]
async fn a_client_over_its_limit_gets_retry_after() {
    let app = app_behind(RateLimitLayer::new(limit(2)));

    let first = send(&app, get_from(PEER)).await;
    let second = send(&app, get_from(PEER)).await;
    let third = send(&app, get_from(PEER)).await;

    assert_eq!(first.headers()["ratelimit-policy"], r#""api";q=2;w=60"#);
    assert_eq!(first.headers()["ratelimit"], r#""api";r=1;t=60"#);
    assert_eq!(rests(second.headers()), [r#""api";r=0"#]);
    assert!(!second.headers().contains_key("retry-after"));
    assert_eq!(text(second).await, "an event");
    assert_eq!(third.status(), 429);
    assert_eq!(third.headers()["content-type"], "application/problem+json");
    assert_eq!(third.headers()["cache-control"], "no-store");
    assert_eq!(rests(third.headers()), [r#""api";r=0"#]);
    let (retry, more) = waits(third.headers());
    assert!(more <= retry && (1..=60).contains(&retry), "{more} {retry}");
    let problem: Value = serde_json::from_str(&text(third).await).unwrap();
    assert_eq!(problem["violated-policies"][0], "api");
}

#[tokio::test]
async fn each_address_has_its_own_limit() {
    let app = app_behind(one_a_minute());

    assert_eq!(status_for(&app, "192.0.2.1").await, 200);
    assert_eq!(status_for(&app, "192.0.2.2").await, 200);
    assert_eq!(status_for(&app, "192.0.2.1").await, 429);
    assert_eq!(status_for(&app, "::ffff:192.0.2.2").await, 429);
    assert_eq!(status_for(&app, "::ffff:c000:202").await, 429);
}

#[tokio::test]
async fn all_addresses_of_an_ipv6_network_are_one_client() {
    let app = app_behind(one_a_minute());
    assert_eq!(status_for(&app, "2001:db8:1:2::1").await, 200);
    assert_eq!(status_for(&app, "2001:db8:1:2:ffff::7").await, 429);
    assert_eq!(status_for(&app, "2001:db8:1:3::1").await, 200);

    let app = app_behind(one_a_minute().ipv6_prefix(56).unwrap());
    assert_eq!(status_for(&app, "2001:db8:1:2::1").await, 200);
    assert_eq!(status_for(&app, "2001:db8:1:3::1").await, 429);
    assert_eq!(status_for(&app, "2001:db8:1:102::1").await, 200);
}

#[tokio::test]
async fn a_forged_header_does_not_create_a_client() {
    let behind = ClientIpSource::trusted_proxies(["10.0.0.0/8"]).unwrap();
    let app = app_behind(one_a_minute().client_ip(behind));
    let forge = |peer: &str, forged: &str| {
        let mut request = get_from(peer);
        request
            .headers_mut()
            .insert("x-forwarded-for", forged.parse().unwrap());
        request
    };

    assert_eq!(send(&app, forge(PEER, "6.6.6.1")).await.status(), 200);
    assert_eq!(send(&app, forge(PEER, "6.6.6.2")).await.status(), 429);
    assert_eq!(
        send(&app, forge("10.0.0.1", "6.6.6.3, 192.0.2.7"))
            .await
            .status(),
        200
    );
    assert_eq!(
        send(&app, forge("10.0.0.1", "6.6.6.4, 192.0.2.7"))
            .await
            .status(),
        429
    );
    assert_eq!(
        send(&app, forge("10.0.0.1", "6.6.6.5, 192.0.2.7:999"))
            .await
            .status(),
        429
    );
}

#[tokio::test]
async fn on_missing_decides_for_unidentified_clients() {
    let anonymous = || Request::new(Body::empty());
    let statuses = async |layer| {
        let app = Router::new().route("/", get(|| async {})).layer(layer);
        let (first, second) = (send(&app, anonymous()).await, send(&app, anonymous()).await);
        (first.status().as_u16(), second.status().as_u16())
    };
    let nobody = || one_a_minute().identify(|_| None);

    assert_eq!(statuses(one_a_minute()).await, (200, 429));
    assert_eq!(
        statuses(one_a_minute().on_missing(OnMissing::Skip)).await,
        (200, 200)
    );
    assert_eq!(
        statuses(one_a_minute().on_missing(OnMissing::Reject)).await,
        (500, 500)
    );
    assert_eq!(statuses(nobody()).await, (200, 429));
    assert_eq!(
        statuses(nobody().on_missing(OnMissing::Reject)).await,
        (403, 403)
    );
}

fn grpc_call(peer: &str) -> Request<Body> {
    let mut call = request(Method::POST, "/login", peer);
    let content_type = HeaderValue::from_static("application/grpc");
    call.headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    call
}

#[tokio::test]
async fn a_grpc_call_over_its_limit_gets_resource_exhausted() {
    let app = app_behind(one_a_minute());

    let first = send(&app, grpc_call(PEER)).await;
    let second = send(&app, grpc_call(PEER)).await;

    assert!(!first.headers().contains_key("grpc-status"));
    assert_eq!(second.status(), 200);
    assert_eq!(second.headers()["grpc-status"], "8");
    let message = second.headers()["grpc-message"].to_str().unwrap();
    assert!(
        message.starts_with("rate limit `api` exceeded"),
        "{message}"
    );
    assert_eq!(rests(second.headers()), [r#""api";r=0"#]);
    assert!(second.headers().contains_key("retry-after"));
    assert_eq!(text(second).await, "");
}

#[tokio::test]
async fn a_grpc_call_of_an_unknown_client_gets_a_code() {
    let nobody = one_a_minute()
        .identify(|_| None)
        .on_missing(OnMissing::Reject);
    let no_address = one_a_minute().on_missing(OnMissing::Reject);

    for (layer, code) in [(nobody, "7"), (no_address, "13")] {
        let mut call = grpc_call(PEER);
        call.extensions_mut().clear();
        let response = send(&app_behind(layer), call).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], code);
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn codes_of_grpc_decide_which_calls_count() {
    let layer = one_a_minute().count_if(|status| status == StatusCode::UNAUTHORIZED);
    let log_in = async |headers: HeaderMap| match headers.get("right") {
        Some(_) => [("grpc-status", "0")],
        None => [("grpc-status", "16")],
    };
    let app = Router::new().route("/login", post(log_in)).layer(layer);
    let codes = async |right: bool| {
        let mut call = grpc_call(PEER);
        if right {
            call.headers_mut()
                .insert("right", HeaderValue::from_static("yes"));
        }
        send(&app, call).await.headers()["grpc-status"].clone()
    };

    assert_eq!([codes(true).await, codes(true).await], ["0", "0"]);
    assert_eq!([codes(false).await, codes(true).await], ["16", "8"]);
}

#[tokio::test]
async fn a_user_is_counted_across_addresses() {
    let app = app_behind(one_a_minute().identify(|parts| {
        let user: &u32 = parts.extensions.get()?;
        Some(Identity::user(user))
    }));
    let from = |user: u32, peer: &str| {
        let mut request = get_from(peer);
        request.extensions_mut().insert(user);
        request
    };

    assert_eq!(send(&app, from(1, "192.0.2.1")).await.status(), 200);
    assert_eq!(send(&app, from(1, "192.0.2.2")).await.status(), 429);
    assert_eq!(send(&app, from(2, "192.0.2.1")).await.status(), 200);
}

#[tokio::test]
async fn an_inner_layer_and_the_handler_get_the_address_of_the_outer_layer() {
    let seen = Arc::new(Mutex::new(None));
    let saw = Arc::clone(&seen);
    let inner = RateLimitLayer::new(limit_called("inner", 9)).identify(move |parts| {
        *saw.lock().unwrap() = parts.extensions.get::<ClientIp>().copied();
        None
    });
    let outer = one_a_minute().client_ip(ClientIpSource::trusted_hops(1).unwrap());
    let whoami = |ClientIp(address): ClientIp| async move { address.to_string() };
    let app = Router::new()
        .route("/", get(whoami))
        .layer(inner)
        .layer(outer);
    let mut request = request(Method::GET, "/", "10.0.0.1");
    request
        .headers_mut()
        .insert("x-forwarded-for", HeaderValue::from_static("192.0.2.7"));

    let response = send(&app, request).await;

    assert_eq!(text(response).await, "192.0.2.7");
    assert_eq!(*seen.lock().unwrap(), Some(ClientIp([192, 0, 2, 7].into())));
}

mod fields_of_a_response {
    use super::*;

    #[tokio::test]
    async fn nested_layers_and_the_handler_each_keep_their_fields() {
        let fields = [
            ("ratelimit", r#""handler";r=5"#),
            ("ratelimit-policy", r#""handler";q=5"#),
        ];
        let app = Router::new()
            .route("/", get(move || async move { fields }))
            .layer(RateLimitLayer::new(limit_called("inner", 1)))
            .layer(RateLimitLayer::new(limit_called("outer", 9)));
        let ask = || request(Method::GET, "/", PEER);

        let allowed = send(&app, ask()).await;
        let limits = rests(allowed.headers());
        assert_eq!(
            limits,
            [r#""handler";r=5"#, r#""inner";r=0"#, r#""outer";r=8"#]
        );
        let policies = lines(allowed.headers(), "ratelimit-policy");
        assert_eq!(
            policies,
            [
                r#""handler";q=5"#,
                r#""inner";q=1;w=60"#,
                r#""outer";q=9;w=60"#
            ]
        );

        let rejected = send(&app, ask()).await;
        assert_eq!(rejected.status(), 429);
        assert_eq!(
            rests(rejected.headers()),
            [r#""inner";r=0"#, r#""outer";r=7"#]
        );
    }

    #[tokio::test]
    async fn policies_decided_together_share_one_field() {
        let policies = [
            Policy::new("minute").limit(1).per("1m"),
            Policy::new("hour").limit(9).per("1h"),
        ];
        let limiter = RateLimiter::new(&Cache::memory(), policies).unwrap();
        let app = app_behind(RateLimitLayer::new(
            limiter.limit(&["minute", "hour"]).unwrap(),
        ));

        let allowed = send(&app, get_from(PEER)).await;
        let rejected = send(&app, get_from(PEER)).await;

        assert_eq!(
            allowed.headers()["ratelimit-policy"],
            r#""minute";q=1;w=60, "hour";q=9;w=3600"#
        );
        let problem: Value = serde_json::from_str(&text(rejected).await).unwrap();
        assert_eq!(problem["violated-policies"], serde_json::json!(["minute"]));
    }

    #[tokio::test]
    async fn fields_are_sent_as_configured() {
        for (headers, on_success, on_rejection) in [
            (RateLimitHeaders::Always, true, true),
            (RateLimitHeaders::OnRejection, false, true),
            (RateLimitHeaders::Never, false, false),
        ] {
            let app = app_behind(one_a_minute().headers(headers));

            let allowed = send(&app, get_from(PEER)).await;
            let rejected = send(&app, get_from(PEER)).await;

            assert_eq!(fields::are_in(allowed.headers()), on_success, "{headers:?}");
            assert_eq!(
                fields::are_in(rejected.headers()),
                on_rejection,
                "{headers:?}"
            );
            assert!(rejected.headers().contains_key("retry-after"));
        }
    }
}

mod a_custom_response {
    use super::*;

    #[tokio::test]
    async fn it_gets_missing_headers() {
        let app = app_behind(one_a_minute().respond_with(|limited, parts| {
            let text = format!("{} {}", limited.policy(), parts.uri.path());
            (StatusCode::TOO_MANY_REQUESTS, text).into_response()
        }));

        send(&app, get_from(PEER)).await;
        let rejected = send(&app, get_from(PEER)).await;

        assert_eq!(rejected.headers()["cache-control"], "no-store");
        assert_eq!(rests(rejected.headers()), [r#""api";r=0"#]);
        assert!(waits(rejected.headers()).0 >= 1);
        assert_eq!(text(rejected).await, "api /api/events/1");
    }

    #[tokio::test]
    async fn it_keeps_its_own_headers() {
        let app = app_behind(one_a_minute().respond_with(|limited, _| {
            let mut response = limited.clone().into_response();
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("90"));
            response
        }));

        send(&app, get_from(PEER)).await;
        let rejected = send(&app, get_from(PEER)).await;

        assert_eq!(lines(rejected.headers(), "retry-after"), ["90"]);
        assert_eq!(rests(rejected.headers()), [r#""api";r=0"#]);
    }
}

/// A service that accepts the password `right` in its path.
fn logins(layer: RateLimitLayer) -> Router {
    let log_in = |Path(password): Path<String>| async move {
        match password.as_str() {
            "right" => StatusCode::NO_CONTENT,
            _ => StatusCode::UNAUTHORIZED,
        }
    };
    Router::new()
        .route("/login/{password}", post(log_in))
        .layer(layer)
}

#[tokio::test]
async fn only_selected_responses_are_counted() {
    let failures = RateLimitLayer::new(limit(3)).count_if(|status| status == 401);
    let app = logins(failures);
    let guess = |password: &str| request(Method::POST, &format!("/login/{password}"), PEER);

    for _ in 0..10 {
        let response = send(&app, guess("right")).await;
        assert_eq!(response.status(), 204);
        assert_eq!(rests(response.headers()), [r#""api";r=3"#]);
    }
    for left in [2, 1, 0] {
        let response = send(&app, guess("wrong")).await;
        assert_eq!(response.status(), 401);
        assert_eq!(rests(response.headers()), [format!(r#""api";r={left}"#)]);
    }

    assert_eq!(send(&app, guess("wrong")).await.status(), 429);
    assert_eq!(send(&app, guess("right")).await.status(), 429);
}

#[tokio::test]
async fn concurrent_guesses_do_not_exceed_the_limit() {
    let failures = RateLimitLayer::new(limit(3)).count_if(|status| status == 401);
    let app = Router::new()
        .route(
            "/login",
            post(|| async {
                tokio::task::yield_now().await;
                StatusCode::UNAUTHORIZED
            }),
        )
        .layer(failures);

    let guesses = (0..60).map(|_| send(&app, request(Method::POST, "/login", PEER)));
    let statuses = futures_util::future::join_all(guesses).await;

    let tried = statuses.iter().filter(|guess| guess.status() == 401);
    assert_eq!(tried.count(), 3);
}

#[tokio::test]
async fn concurrent_right_passwords_are_all_admitted() {
    let failures = RateLimitLayer::new(limit(3)).count_if(|status| status == 401);
    let app = Router::new()
        .route(
            "/login",
            post(|| async {
                tokio::task::yield_now().await;
                StatusCode::NO_CONTENT
            }),
        )
        .layer(failures);

    let logins = (0..60).map(|_| send(&app, request(Method::POST, "/login", PEER)));
    let responses = futures_util::future::join_all(logins).await;

    assert!(responses.iter().all(|login| login.status() == 204));
    let last = send(&app, request(Method::POST, "/login", PEER)).await;
    assert_eq!(rests(last.headers()), [r#""api";r=3"#]);
}

#[tokio::test]
async fn rejections_of_random_paths_share_few_names() {
    let cache = Cache::memory();
    let limiter = RateLimiter::new(&cache, [Policy::new("api").limit(1).per("1m")]).unwrap();
    let app = app_behind(RateLimitLayer::new(limiter.limit(&["api"]).unwrap()));
    send(&app, get_from(PEER)).await;

    for number in 0..100 {
        let event = format!("/api/events/{number}?{number}");
        for path in [&event, &format!("/{number}/{{id}}"), "/login"] {
            send(&app, request(Method::POST, path, PEER)).await;
        }
    }

    let counted = cache.stats().limits[0].rejected_by_route.clone();
    let expected = ["/api/events/{id}", "/login", "unmatched"].map(|route| (route.to_owned(), 100));
    assert_eq!(counted, BTreeMap::from(expected));
}

#[tokio::test]
async fn a_client_is_admitted_after_retry_after_and_not_before() {
    let clock = Clock::stopped();
    let cache = Cache::connect(Config::default().clock(clock.clone()))
        .await
        .unwrap();
    let limiter = RateLimiter::new(&cache, [Policy::new("api").limit(1).per("1m")]).unwrap();
    let app = app_behind(RateLimitLayer::new(limiter.limit(&["api"]).unwrap()));
    send(&app, get_from(PEER)).await;

    for (passed, left) in [(0, 60), (1_000, 59), (57_001, 2), (1_000, 1), (997, 1)] {
        clock.advance(Duration::from_millis(passed));
        let rejected = send(&app, get_from(PEER)).await;
        assert_eq!(rejected.status(), 429);
        assert_eq!(waits(rejected.headers()), (left, left));
    }
    clock.advance(Duration::from_millis(2));
    assert_eq!(status_for(&app, PEER).await, 200);
}

#[tokio::test]
async fn requests_without_a_route_are_counted() {
    let app = app_behind(one_a_minute());
    assert_eq!(
        send(&app, request(Method::GET, "/nothing", PEER))
            .await
            .status(),
        404
    );
    assert_eq!(
        send(&app, request(Method::GET, "/wp-admin", PEER))
            .await
            .status(),
        429
    );
}

#[tokio::test]
async fn a_rejection_is_sent_before_the_body_is_read() {
    let app = app_behind(one_a_minute());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(axum::serve(listener, service).into_future());

    for expected in ["HTTP/1.1 200 ", "HTTP/1.1 429 "] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let length = 1_u64 << 40;
        let head = format!("POST /login HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(&[b'x'; 1 << 16]).await.unwrap();
        let mut answer = [0; 13];
        connection.read_exact(&mut answer).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer), Ok(expected));
    }
    server.abort();
}

#[tokio::test]
async fn the_inner_service_is_polled_for_readiness_before_a_call() {
    /// Fails if a clone is called without `poll_ready`.
    struct Strict {
        is_ready: bool,
        calls: Arc<AtomicUsize>,
    }

    impl Clone for Strict {
        fn clone(&self) -> Self {
            let calls = Arc::clone(&self.calls);
            Self {
                is_ready: false,
                calls,
            }
        }
    }

    impl Service<Request<String>> for Strict {
        type Response = HttpResponse<String>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<HttpResponse<String>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.is_ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<String>) -> Self::Future {
            assert!(std::mem::take(&mut self.is_ready), "not ready");
            self.calls.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(HttpResponse::new(request.into_body())))
        }
    }

    let calls = Arc::new(AtomicUsize::new(0));
    let strict = Strict {
        is_ready: false,
        calls: Arc::clone(&calls),
    };
    let mut service = RateLimitLayer::new(limit(2)).layer(strict);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let ready = service.ready().await.unwrap();
        let response = ready.call(Request::new("echo".to_owned())).await.unwrap();
        statuses.push(response.status().as_u16());
    }

    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_error_of_the_inner_service_passes_unchanged() {
    let failing = service_fn(|_: Request<Body>| async { Err::<Response, _>("broken") });
    let service = one_a_minute().layer(failing);
    assert_eq!(service.oneshot(get_from(PEER)).await.unwrap_err(), "broken");
}

#[test]
fn an_invalid_prefix_is_refused_with_advice() {
    for bits in [0, 31, 129] {
        let error = one_a_minute().ipv6_prefix(bits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("use 64, 56 or 48"), "{error}");
    }
}

#[test]
fn debug_output_contains_the_settings() {
    let layer = one_a_minute().bypass("/health").unwrap();
    assert!(format!("{layer:?}").contains("/health"));
}
