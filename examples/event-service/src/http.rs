//! The routes, and what they all share.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{any, delete, get, post};
use cache_runtime::Cache;
use cache_runtime::http::{ClientIpSource, RateLimitLayer, SessionLayer};
use cache_runtime::limit::RateLimiter;

use crate::accounts::Accounts;
use crate::db::Db;
use crate::error::Error;
use crate::events::Events;
use crate::gateway::Gateway;
use crate::payments::Payments;
use crate::tickets::Tickets;
use crate::users::Users;

mod auth;
mod events;
mod extract;
mod health;
mod payments;
mod problem;
mod users;

/// The longest body, in bytes. The largest event, every character escaped, is a little shorter.
const MAX_BODY: usize = 64 * 1024;

/// What every request can reach.
#[derive(Clone, Debug)]
pub struct App {
    pub events: Events,
    pub tickets: Tickets,
    pub users: Users,
    pub payments: Payments,
    pub accounts: Accounts,
    /// For the routes that look into the cache. The others use it through the attributes.
    pub cache: Cache,
}

impl App {
    pub fn new(db: Db, cache: Cache) -> Self {
        Self {
            events: Events::new(db.clone()),
            tickets: Tickets::new(db.clone()),
            users: Users::new(db.clone()),
            payments: Payments::new(db.clone(), Gateway::default()),
            accounts: Accounts::new(db),
            cache,
        }
    }
}

/// The whole service. What is cached is cached in the installed cache; what is limited by user, in the installed limiter.
///
/// # Errors
///
/// A limiter without the policies `api` and `auth`.
pub fn router(
    app: App,
    limiter: &RateLimiter,
    client_ip: ClientIpSource,
    sessions: SessionLayer,
) -> Result<Router, cache_runtime::Error> {
    let api = RateLimitLayer::new(limiter.limit(&["api"])?)
        .client_ip(client_ip)
        // Whoever asks for the health decides whether the process lives: no crowd may come between.
        .bypass("/api/health")?
        .bypass("/api/health/cache")?;
    // By the address that the layer around it has found.
    let guesses = RateLimitLayer::new(limiter.limit(&["auth"])?);
    let logins = Router::new()
        .route("/api/auth/login", post(auth::log_in))
        .route("/api/auth/logout", post(auth::log_out))
        .route("/api/auth/logout-all", post(auth::log_out_everywhere))
        .route("/api/auth/sessions", get(auth::list))
        .route("/api/auth/sessions/{id}", delete(auth::end))
        .route("/api/auth/me", get(auth::me))
        // Whoever guesses what else there is, is limited as whoever guesses a password.
        .route("/api/auth/{*rest}", any(unknown_route))
        // Here, too, since what is added below is outside of this limit.
        .method_not_allowed_fallback(wrong_method)
        .route_layer(guesses);
    let router = Router::new()
        .route("/api/events", get(events::published).post(events::create))
        .route("/api/events/trending", get(events::trending))
        .route("/api/events/near/{location}", get(events::near))
        .route(
            "/api/events/{id}",
            get(events::find).put(events::update).delete(events::delete),
        )
        .route("/api/events/{id}/analytics", get(events::analytics))
        .route("/api/events/{id}/publish", post(events::publish))
        .route("/api/events/{id}/tickets", post(events::buy))
        .route("/api/users/{id}", get(users::find).put(users::update))
        .route(
            "/api/users/{id}/verify",
            post(users::verify).delete(users::unverify),
        )
        .route("/api/users/{id}/events", get(users::events))
        .route("/api/users/{id}/tickets", get(users::tickets))
        .route("/api/users/{id}/followers", get(users::followers))
        .route(
            "/api/users/{id}/followers/{follower_id}",
            post(users::follow).delete(users::unfollow),
        )
        .route("/api/leaderboard/referrals", get(users::top_referrers))
        .route("/api/payments", post(payments::initiate))
        .route("/api/payments/{tx}", get(payments::find))
        .route("/api/payments/{tx}/confirm", post(payments::confirm))
        .route("/api/payments/verify/{reference}", get(payments::verify))
        .route("/api/health", get(health::live))
        .route("/api/health/cache", get(health::cache))
        .route("/api/cache/stats", get(health::stats))
        .merge(logins)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        // Inside the next one, which finds the address that a session is to remember.
        .layer(sessions)
        // The outermost, so that it counts everything, also what has no route.
        .layer(api)
        .with_state(app);
    Ok(router)
}

async fn unknown_route(uri: Uri) -> Error {
    Error::refused(
        StatusCode::NOT_FOUND,
        None,
        format!("there is nothing at {}", uri.path()),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Error {
    Error::refused(
        StatusCode::METHOD_NOT_ALLOWED,
        None,
        format!("{} does not take {method}", uri.path()),
    )
}
