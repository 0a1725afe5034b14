//! Warming: reads what is requested most before the service reports that it is ready.

use std::time::Duration;

use cache_runtime::Cache;
use cache_runtime::warm::Summary;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::db::Db;
use crate::error::Result;
use crate::features;
use crate::http::App;
use crate::requirements::{self, Filter, Status};

/// The newest requirements are read most.
const NEWEST: i64 = 500;

/// How long the service may report that it is not ready because it warms. Then a cold cache is better than no service.
const LIMIT: Duration = Duration::from_secs(60);

/// A call of an annotated function.
enum Item {
    Search(Filter),
    Requirement(i64),
    Features(i64),
}

/// Warms the first page of each list, and the newest requirements with their features.
pub async fn run(db: Db, cache: Cache) -> Result<Summary> {
    let ids = requirements::newest(&db, NEWEST).await?;
    let mut items = Vec::new();
    for status in [None, Some(Status::Draft), Some(Status::Accepted)] {
        items.push(Item::Search(Filter::new(status, "", 1)?));
    }
    items.extend(ids.iter().copied().map(Item::Requirement));
    items.extend(ids.iter().copied().map(Item::Features));
    let load = async |item| {
        let loaded = match item {
            Item::Search(filter) => requirements::search(&db, &filter).await.map(drop),
            Item::Requirement(id) => requirements::find(&db, id).await.map(drop),
            Item::Features(id) => features::of(&db, id).await.map(drop),
        };
        loaded.map_err(|error| format!("{error:?}"))
    };
    Ok(cache.warm(items, load).run().await)
}

/// Has the service report that it is ready after `job`, which warms, however it ends.
pub async fn ready_after(app: App, job: impl Future<Output = Result<Summary>> + Send + 'static) {
    // A task of its own, so that a panic does not end this one. The set aborts it when it is dropped.
    let mut task = JoinSet::new();
    task.spawn(timeout(LIMIT, job));
    while let Some(ended) = task.join_next().await {
        match ended {
            Ok(Ok(Ok(summary))) => tracing::info!("warmed: {summary}"),
            Ok(Ok(Err(error))) => tracing::warn!("not warmed: {error:?}"),
            Ok(Err(_)) => tracing::warn!("not warmed within {LIMIT:?}"),
            Err(panic) => tracing::error!("not warmed: {panic}"),
        }
    }
    app.set_ready();
}
