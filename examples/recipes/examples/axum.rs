//! A service with axum: cached reads, a limit for each client, and routes for probes and metrics.
//!
//! ```text
//! cargo run -p recipes --example axum
//! curl -i http://127.0.0.1:3000/events/1
//! curl -i -X PUT -H 'content-type: application/json' -d '"A quintet"' http://127.0.0.1:3000/events/1
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::{env, io};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use cache_runtime::http::{CacheStatusLayer, RateLimitLayer, metrics};
use cache_runtime::limit::{Policy, RateLimiter};
use cache_runtime::{Cache, Config, cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Serialize, Deserialize, sqlx::FromRow)]
struct Event {
    id: i64,
    title: String,
}

#[derive(Clone)]
struct Events {
    db: SqlitePool,
}

impl Events {
    #[cacheable(key = "event:<id>", ttl = "30m")]
    async fn find(&self, id: i64) -> sqlx::Result<Option<Event>> {
        let event = sqlx::query_as("SELECT id, title FROM events WHERE id = ?").bind(id);
        event.fetch_optional(&self.db).await
    }

    /// Returns whether the event exists.
    #[cache_evict(key = "event:<id>")]
    async fn rename(&self, id: i64, title: &str) -> sqlx::Result<bool> {
        let update = sqlx::query("UPDATE events SET title = ? WHERE id = ?")
            .bind(title)
            .bind(id);
        let updated = update.execute(&self.db).await?;
        Ok(updated.rows_affected() == 1)
    }
}

/// The error of the handlers. Clients do not see its cause.
struct Failed(sqlx::Error);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        eprintln!("a request failed: {}", self.0);
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

type App = State<Arc<Events>>;

async fn find(State(events): App, Path(id): Path<i64>) -> Result<Response, Failed> {
    Ok(match events.find(id).await? {
        Some(event) => Json(event).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

async fn rename(
    State(events): App,
    Path(id): Path<i64>,
    Json(title): Json<String>,
) -> Result<StatusCode, Failed> {
    Ok(match events.rename(id, &title).await? {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::NOT_FOUND,
    })
}

/// Waits for SIGTERM, as container platforms send it, or Ctrl-C. Listens from this call on.
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let cache = Cache::connect(Config::from_env()?).await?;
    cache.install()?;
    let limiter = RateLimiter::new(&cache, [Policy::api()])?; // 100 requests a minute for each address
    let pool = SqlitePoolOptions::new().max_connections(1);
    let db = pool.connect("sqlite::memory:").await?;
    let seed = "CREATE TABLE events (id INTEGER PRIMARY KEY, title TEXT NOT NULL); INSERT INTO events VALUES (1, 'A quartet')";
    sqlx::raw_sql(seed).execute(&db).await?;

    let probed = cache.clone();
    let ready = move || async move {
        match probed.health().ready() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        }
    };
    // Behind a proxy, add `.client_ip(ClientIpSource::trusted_proxies([…])?)`. Otherwise all clients share one limit.
    let limit = RateLimitLayer::new(limiter.limit(&["api"])?)
        .bypass("/livez")?
        .bypass("/readyz")?;
    let app = Router::new()
        .route("/events/{id}", get(find).put(rename))
        // It names functions and routes: let the proxy refuse it, or serve it on an address of its own.
        .route_service("/metrics", metrics(&cache))
        .route("/livez", get(StatusCode::OK))
        .route("/readyz", get(ready))
        .layer(CacheStatusLayer::new("shop")?) // says in each response how the cache answered
        .layer(limit)
        .with_state(Arc::new(Events { db }));

    let bind = env::var("BIND").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(bind).await?;
    let stop = told_to_stop()?;
    println!("listening on http://{}", listener.local_addr()?);
    // Limits need the address of the client.
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, service).with_graceful_shutdown(stop);
    let served = served.await;
    cache.shutdown().await; // also if serving failed
    Ok(served?)
}
