//! GraphQL with async-graphql: all events of a query come from the cache in one batch, and all misses from the database in one query.
//!
//! ```text
//! cargo run -p recipes --example graphql
//! curl -H 'content-type: application/json' -d '{"query": "{ a: event(id: 1) { title } b: event(id: 2) { title } }"}' http://127.0.0.1:3000/
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::{env, io};

use async_graphql::dataloader::{DataLoader, Loader};
use async_graphql::futures_util::future::try_join_all;
use async_graphql::{Context, EmptyMutation, EmptySubscription, Object, Schema, SimpleObject};
use async_graphql::{Request, Response};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use cache_runtime::{Cache, Config, cacheable, key};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{QueryBuilder, Sqlite, SqlitePool};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

type Failed = Arc<sqlx::Error>;

#[derive(Clone, Serialize, Deserialize, SimpleObject, sqlx::FromRow)]
struct Event {
    id: i64,
    title: String,
}

/// Gathers the ids of misses, and reads their rows with one query.
struct Rows {
    db: SqlitePool,
}

impl Loader<i64> for Rows {
    type Value = Event;
    type Error = Failed;

    async fn load(&self, ids: &[i64]) -> Result<HashMap<i64, Event>, Failed> {
        println!("query for {} events", ids.len());
        let mut query = QueryBuilder::<Sqlite>::new("SELECT id, title FROM events WHERE id IN (");
        let mut listed = query.separated(", ");
        for id in ids {
            listed.push_bind(id);
        }
        query.push(")");
        let events: Vec<Event> = query.build_query_as().fetch_all(&self.db).await?;
        Ok(events.into_iter().map(|event| (event.id, event)).collect())
    }
}

/// Gathers the ids of a query, and reads their entries with one command.
struct Events {
    cache: Cache,
    rows: Arc<DataLoader<Rows>>,
}

impl Events {
    // Each miss is a call of this function. So it has a lease, and an eviction during the load keeps the old value out of the cache.
    // `Cache::set_many` after the query would store it.
    #[cacheable(key = "event:<id>", ttl = "30m", ignore = [rows])]
    async fn event(rows: Arc<DataLoader<Rows>>, id: i64) -> Result<Option<Event>, Failed> {
        rows.load_one(id).await
    }
}

impl Loader<i64> for Events {
    type Value = Event;
    type Error = Failed;

    async fn load(&self, ids: &[i64]) -> Result<HashMap<i64, Event>, Failed> {
        let keys: Vec<String> = ids.iter().map(|id| key!("event:<id>", id = *id)).collect();
        let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
        let cached = self.cache.get_many::<Event>(&keys).await;

        let missing = ids.iter().zip(&cached).filter(|(_, event)| event.is_none());
        let loads = missing.map(|(id, _)| Self::event(Arc::clone(&self.rows), *id));
        let loaded = try_join_all(loads).await?;
        let found = cached.into_iter().chain(loaded).flatten();
        Ok(found.map(|event| (event.id, event)).collect())
    }
}

struct Query;

#[Object]
impl Query {
    async fn event(&self, context: &Context<'_>, id: i64) -> async_graphql::Result<Option<Event>> {
        Ok(context.data::<DataLoader<Events>>()?.load_one(id).await?)
    }
}

type Api = Schema<Query, EmptyMutation, EmptySubscription>;

async fn answer(State(api): State<Api>, Json(request): Json<Request>) -> Json<Response> {
    Json(api.execute(request).await)
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
    let pool = SqlitePoolOptions::new().max_connections(1);
    let db = pool.connect("sqlite::memory:").await?;
    let seed = "CREATE TABLE events (id INTEGER PRIMARY KEY, title TEXT NOT NULL);
                INSERT INTO events VALUES (1, 'A quartet'), (2, 'A quintet'), (3, 'A sextet');";
    sqlx::raw_sql(seed).execute(&db).await?;

    // The loaders of async-graphql have no cache of their own unless they are given one, which no eviction would reach.
    let rows = DataLoader::new(Rows { db }, tokio::spawn);
    // Longer than a command in Redis takes, so that the misses of a query are gathered.
    let rows = Arc::new(rows.delay(Duration::from_millis(5)));
    let events = Events {
        cache: cache.clone(),
        rows,
    };
    let events = DataLoader::new(events, tokio::spawn);
    let api = Schema::build(Query, EmptyMutation, EmptySubscription)
        .data(events)
        .limit_complexity(200) // a client chooses how many events a query has
        .finish();
    let app = Router::new().route("/", post(answer)).with_state(api);

    let bind = env::var("BIND").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(bind).await?;
    let stop = told_to_stop()?;
    println!("listening on http://{}", listener.local_addr()?);
    let served = axum::serve(listener, app).with_graceful_shutdown(stop);
    let served = served.await;
    cache.shutdown().await; // also if serving failed
    Ok(served?)
}
