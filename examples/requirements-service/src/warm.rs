//! Warming: reads what is requested most before the service reports that it is ready.

use cache_runtime::Cache;
use cache_runtime::warm::Summary;

use crate::db::Db;
use crate::error::Result;
use crate::features;
use crate::requirements::{self, Filter, Status};

/// The newest requirements are read most.
const NEWEST: i64 = 500;

/// A call of an annotated function.
enum Item {
    Search(Filter),
    Requirement(i64),
    Features(i64),
}

/// Warms the first page of each list, and the newest requirements with their features.
pub async fn run(db: &Db, cache: &Cache) -> Result<Summary> {
    let ids = requirements::newest(db, NEWEST).await?;
    let mut items = Vec::new();
    for status in [None, Some(Status::Draft), Some(Status::Accepted)] {
        items.push(Item::Search(Filter::new(status, "", 1)?));
    }
    items.extend(ids.iter().copied().map(Item::Requirement));
    items.extend(ids.iter().copied().map(Item::Features));
    let load = async |item| {
        let loaded = match item {
            Item::Search(filter) => requirements::search(db, &filter).await.map(drop),
            Item::Requirement(id) => requirements::find(db, id).await.map(drop),
            Item::Features(id) => features::of(db, id).await.map(drop),
        };
        loaded.map_err(|error| format!("{error:?}"))
    };
    Ok(cache.warm(items, load).run().await)
}
