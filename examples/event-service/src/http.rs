//! The routes and their common layers.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Router};
use cache_runtime::Cache;
use cache_runtime::http::{
    AdminService, CacheStatusLayer, ClientIp, ClientIpSource, DebugAccess, ExplainLayer,
    RateLimitLayer, SessionLayer, metrics,
};
use cache_runtime::limit::{Backend, Limited, RateLimiter, Verdict};
use cache_runtime::session::DebugTokens;

use tokio::sync::Semaphore;

use self::health::Looks;
use crate::accounts::Accounts;
use crate::db::Db;
use crate::devices::{DeviceCookie, Devices};
use crate::error::Error;
use crate::events::Events;
use crate::gateway::Gateway;
use crate::group_buys::GroupBuys;
use crate::guesses::Guesses;
use crate::payments::Payments;
use crate::referrals::Referrals;
use crate::settings::Settings;
use crate::tickets::Tickets;
use crate::users::Users;

mod auth;
mod events;
mod extract;
mod group_buys;
mod health;
mod payments;
mod problem;
mod referrals;
mod tickets;
mod users;

/// The longest body, in bytes. The largest event with every character escaped is slightly shorter.
const MAX_BODY: usize = 64 * 1024;

/// The routes of probes.
pub const HEALTH: [&str; 4] = ["/livez", "/readyz", "/api/health", "/api/health/cache"];

/// The route of metrics. A scraper is a client like others, because the response is large; but it is not refused because others are
/// too many.
const METRICS: &str = "/metrics";

/// Where the page and the API for operators are.
pub const ADMIN: &str = "/admin/cache/";

/// Marks a response that belongs to a user, so that caches do not store it.
const PRIVATE: Extension<Private> = Extension(Private);

#[derive(Clone)]
struct Private;

/// The state of all routes. They share it, because axum clones a state several times for each request.
#[derive(Debug)]
pub struct App {
    pub events: Events,
    pub tickets: Tickets,
    pub group_buys: GroupBuys,
    pub referrals: Referrals,
    pub users: Users,
    pub payments: Payments,
    pub accounts: Accounts,
    pub devices: Devices,
    pub device_cookie: DeviceCookie,
    pub guesses: Guesses,
    /// The cache, for routes that inspect it. Other routes use it through attributes.
    pub cache: Cache,
    looks: Looks,
}

impl App {
    /// # Errors
    ///
    /// If the limiter does not have the policies of [`guesses`](crate::guesses).
    pub fn new(
        db: Db,
        cache: Cache,
        limiter: &RateLimiter,
        settings: &Settings,
    ) -> Result<Self, cache_runtime::Error> {
        Ok(Self {
            events: Events::new(db.clone()),
            tickets: Tickets::new(db.clone()),
            group_buys: GroupBuys::new(db.clone()),
            referrals: Referrals::new(db.clone()),
            users: Users::new(db.clone()),
            payments: Payments::new(db.clone(), Gateway::default()),
            accounts: Accounts::new(db.clone(), settings.login_wait),
            devices: Devices::new(db),
            device_cookie: settings.device_cookie,
            guesses: Guesses::new(limiter)?,
            cache,
            looks: Looks::default(),
        })
    }
}

/// Returns the whole service. It uses the installed cache, and the installed limiter for limits by user.
///
/// # Errors
///
/// If the limiter does not have the policies `api` and `auth`.
pub fn router(
    app: App,
    limiter: &RateLimiter,
    client_ip: ClientIpSource,
    sessions: SessionLayer,
    admin: AdminService,
    max_requests: usize,
) -> Result<Router, cache_runtime::Error> {
    let under_way = Arc::new(Semaphore::new(max_requests.min(Semaphore::MAX_PERMITS)));
    let mut api = RateLimitLayer::new(limiter.limit(&["api"])?).client_ip(client_ip);
    for path in HEALTH {
        // Health checks decide whether the process is restarted, so load must not block them.
        api = api.bypass(path)?;
    }
    // By the address that the outer layer has found. Only wrong passwords count: otherwise an image on another site could lock out
    // the visitors of that site.
    let guesses = RateLimitLayer::new(limiter.limit(&["auth"])?)
        .count_if(|status| status == StatusCode::UNAUTHORIZED)
        .respond_with(too_many_guesses);
    let public = Router::new()
        .route("/api/events", get(events::list))
        .route("/api/events/trending", get(events::trending))
        .route("/api/events/near/{location}", get(events::near))
        .route("/api/events/{id}", get(events::find))
        .route("/api/events/{id}/analytics", get(events::analytics))
        .route("/api/users/{id}", get(users::find))
        .route("/api/users/{id}/events", get(users::events))
        .route("/api/users/{id}/followers", get(users::followers))
        .route("/api/groupbuys/{id}", get(group_buys::find))
        .route("/api/referrals/{code}", get(referrals::find))
        .route("/api/leaderboard/referrals", get(referrals::top_referrers))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/api/health", get(health::live))
        .route("/api/health/cache", get(health::cache))
        .route("/api/cache/stats", get(health::stats))
        .route_service(METRICS, metrics(&app.cache));
    let of_users = Router::new()
        .route("/api/events", post(events::create))
        .route(
            "/api/events/{id}",
            put(events::update).delete(events::delete),
        )
        .route("/api/events/{id}/publish", post(events::publish))
        .route("/api/events/{id}/tickets", post(tickets::buy))
        .route("/api/events/{id}/groupbuys", post(group_buys::create))
        .route("/api/groupbuys/{id}/join", post(group_buys::join))
        .route("/api/tickets/{id}/use", post(tickets::check_in))
        .route("/api/users/{id}", put(users::update))
        .route(
            "/api/users/{id}/verify",
            post(users::verify).delete(users::unverify),
        )
        .route("/api/users/{id}/tickets", get(tickets::of_user))
        .route(
            "/api/users/{id}/followers/{follower_id}",
            post(users::follow).delete(users::unfollow),
        )
        .route("/api/referrals/{code}/use", post(referrals::redeem))
        .route("/api/payments", post(payments::initiate))
        .route("/api/payments/{tx}", get(payments::find))
        .route("/api/payments/{tx}/status", get(payments::status))
        .route("/api/payments/{tx}/confirm", post(payments::confirm))
        .route("/api/payments/verify/{reference}", get(payments::verify))
        .route("/api/auth/login", post(auth::log_in).layer(guesses))
        .route("/api/auth/logout", post(auth::log_out))
        .route("/api/auth/logout-all", post(auth::log_out_everywhere))
        .route("/api/auth/sessions", get(auth::list))
        .route("/api/auth/sessions/{id}", delete(auth::end))
        .route("/api/auth/me", get(auth::me))
        .route_layer(map_response(private));
    let access = debug_access(&app.cache);
    let status = CacheStatusLayer::new("event-service")?.server_timing(access.clone());
    let explain = ExplainLayer::new(&app.cache, access);
    let router = public
        .merge(of_users)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        // Inside the next layer, which finds the address that a session records.
        .layer(sessions)
        .layer(status)
        .layer(explain)
        .layer(from_fn(bounded))
        // Counts all requests, including those without a route.
        .layer(api)
        // Not counted: an operator who resets a limited client may have the same address. It limits itself.
        .nest_service(ADMIN, admin)
        // The links of the page are relative to that path.
        .route("/admin/cache", get(|| async { Redirect::permanent(ADMIN) }))
        // Before anything is done for a request.
        .layer(from_fn_with_state(under_way, shed))
        .layer(map_response(headers))
        .with_state(Arc::new(app));
    Ok(router)
}

/// Requests from this machine may learn how the cache answered them, and requests with a token of `event-service debug-token`.
fn debug_access(cache: &Cache) -> DebugAccess {
    let access = DebugAccess::loopback();
    match DebugTokens::new(cache.config()) {
        Ok(tokens) => access.or_signed(tokens),
        // There are no keys, as on the machine of a developer.
        Err(_) => access,
    }
}

/// Logs that an address guesses passwords when it is refused, but not again while it is blocked.
fn too_many_guesses(limited: &Limited, parts: &Parts) -> Response {
    let decision = limited.decision();
    if decision.verdict == Verdict::Limited && decision.backend != Backend::Known {
        let address = parts
            .extensions
            .get()
            .map(|ClientIp(address)| address.to_string());
        let (address, wait) = (address.as_deref(), limited.retry_after());
        tracing::warn!(target: "audit", address, ?wait, "an address has too many failed logins and is refused");
    }
    limited.clone().into_response()
}

async fn private(mut response: Response) -> Response {
    // A rejection by a limit contains no user data, and the limit sets its cache headers.
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        response.extensions_mut().insert(Private);
    }
    response
}

/// The headers of every response.
async fn headers(mut response: Response) -> Response {
    let is_private = response.extensions().get::<Private>().is_some();
    let device = response.extensions_mut().remove::<SetDevice>();
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if is_private {
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-store"),
        );
    }
    if let Some(SetDevice(cookie)) = device {
        headers.append(header::SET_COOKIE, cookie);
    }
    response
}

/// Adds the cookie of a device to a response, after that of the session.
#[derive(Clone)]
struct SetDevice(HeaderValue);

/// Refuses a body as soon as its announced length is too large.
async fn bounded(request: Request, next: Next) -> Response {
    if announced(request.headers()).is_some_and(|length| length > MAX_BODY as u64) {
        let refused = Error::refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            None,
            format!("the body must be at most {MAX_BODY} bytes"),
        );
        // The body is not read, so no other request can follow on this connection.
        return ([(header::CONNECTION, "close")], refused).into_response();
    }
    next.run(request).await
}

/// Refuses a request at once while too many are under way, so that those are answered in time. Probes, scrapers and operators are
/// always answered.
async fn shed(State(under_way): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if HEALTH.contains(&path) || path == METRICS || path.starts_with(ADMIN) {
        return next.run(request).await;
    }
    let Ok(_permit) = under_way.try_acquire() else {
        let busy = Error::Busy {
            detail: "too many requests are under way",
            retry_after: 1,
        };
        return busy.into_response();
    };
    next.run(request).await
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

async fn unknown_route(uri: Uri) -> Error {
    Error::refused(
        StatusCode::NOT_FOUND,
        None,
        format!("no route matches {}", uri.path()),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Error {
    Error::refused(
        StatusCode::METHOD_NOT_ALLOWED,
        None,
        format!("{} does not support {method}", uri.path()),
    )
}
