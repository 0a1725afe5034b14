//! The routes and their common layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use cache_runtime::Cache;
use cache_runtime::http::{CacheStatusLayer, RateLimitLayer, SessionLayer, admin, metrics};
use cache_runtime::limit::{Policy, RateLimiter};
use cache_runtime::session::SessionStore;

use crate::accounts::Accounts;
use crate::db::Db;
use crate::error::problems;
use crate::settings::Settings;

mod api;

/// The longest body, in bytes: more than the longest requirement with every character escaped.
const MAX_BODY: usize = 64 * 1024;

/// The state of all routes.
#[derive(Clone, Debug)]
pub struct App {
    pub db: Db,
    pub cache: Cache,
    accounts: Accounts,
    is_ready: Arc<AtomicBool>,
}

impl App {
    pub fn new(db: Db, cache: Cache) -> Self {
        Self {
            accounts: Accounts::new(db.clone()),
            db,
            cache,
            is_ready: Arc::default(),
        }
    }

    /// Has `/readyz` report that the service is ready: it has warmed, or has tried to.
    pub fn set_ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// Returns whether the service should get requests. Without Redis it should, because it works without Redis.
    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed) && self.cache.health().ready()
    }
}

/// Returns the whole service.
///
/// # Errors
///
/// If sessions or limits cannot use the configuration of the cache, for example because `CACHE_ENV=prod` and there is no
/// `CACHE_SESSION_KEYS`.
pub fn router(app: App, settings: &Settings) -> Result<Router, cache_runtime::Error> {
    let cache = app.cache.clone();
    let limiter = RateLimiter::new(&cache, [Policy::api(), Policy::auth()])?;
    let limits = RateLimitLayer::new(limiter.limit(&["api"])?);
    let limits = limits.client_ip(settings.client_ip.clone());
    // These decide whether the process is restarted, so load must not block them.
    let limits = limits.bypass("/livez")?.bypass("/readyz")?;
    // By the address that the outer layer has found.
    let guesses = RateLimitLayer::new(limiter.limit(&["auth"])?)
        .count_if(|status| status == StatusCode::UNAUTHORIZED);
    let store = SessionStore::<()>::new(&cache)?;
    let sessions = SessionLayer::new(store.clone()).cookie(settings.cookie.clone())?;
    let operators = settings.admin.clone().limiter(&limiter).sessions(&store);
    let live = get(async |State(app): State<App>| status(app.cache.health().live()));
    let ready = get(async |State(app): State<App>| status(app.is_ready()));
    let public = Router::new()
        .route("/livez", live)
        .route("/readyz", ready)
        .route_service("/metrics", metrics(&cache));
    let preferences = get(api::preferences).put(api::set_preferences);
    let requirement = get(api::find).put(api::update).delete(api::delete);
    let features = get(api::features).post(api::propose);
    let feature = get(api::feature).put(api::set_feature);
    let api = Router::new()
        .route("/api/login", post(api::log_in).layer(guesses))
        .route("/api/logout", post(api::log_out))
        .route("/api/me", get(api::me))
        .route("/api/preferences", preferences)
        .route("/api/requirements", get(api::search).post(api::create))
        .route("/api/requirements/{id}", requirement)
        .route("/api/requirements/{id}/accept", post(api::accept))
        .route("/api/requirements/{id}/features", features)
        .route("/api/features/{id}", feature)
        .route("/api/schemas/{name}", put(api::set_schema))
        .route("/api/schemas/{name}/validate", post(api::validate))
        .route_layer(map_response(private));
    Ok(public
        .merge(api)
        .layer(map_response(problems))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        // Inside the limits, which find the address that a session records.
        .layer(sessions)
        .layer(CacheStatusLayer::new("requirements-service")?)
        .layer(limits)
        // Not counted: an operator who resets a limited client may have the same address. It limits itself.
        .nest_service("/admin/cache/", admin(&cache, operators))
        .with_state(app))
}

fn status(is_ok: bool) -> (StatusCode, &'static str) {
    match is_ok {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "down"),
    }
}

/// Browsers and proxies must not keep what others change at any time. They could not hear of an eviction.
async fn private(response: Response) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "private, no-store")], response)
}
