//! Warming: reads what is requested most before the service reports that it is ready.

use cache_runtime::Cache;
use cache_runtime::warm::Summary;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::features::Features;
use crate::requirements::{Filter, Requirements, Status};

/// The newest requirements are read most.
const NEWEST: i64 = 500;

/// A call of an annotated method.
enum Item {
    Search(Filter),
    Requirement(i64),
    Features(i64),
}

/// Warms the first page of each list, and the newest requirements with their features.
pub async fn run(db: &Db, cache: &Cache) -> Result<Summary> {
    let (requirements, features) = (Requirements::new(db.clone()), Features::new(db.clone()));
    let ids = requirements.newest(NEWEST).await?;
    let mut items = Vec::new();
    for status in [None, Some(Status::Draft), Some(Status::Accepted)] {
        items.push(Item::Search(Filter::new(status, "", 1)?));
    }
    items.extend(ids.iter().copied().map(Item::Requirement));
    items.extend(ids.iter().copied().map(Item::Features));
    let load = async |item| {
        let loaded = match item {
            Item::Search(filter) => requirements.search(&filter).await.map(drop),
            Item::Requirement(id) => requirements.find(id).await.map(drop),
            Item::Features(id) => features.of(id).await.map(drop),
        };
        loaded.map_err(|error| match error {
            Error::Refused(_, detail) => detail,
            Error::Session(error) => error.to_string(),
            Error::Internal(error) => error.to_string(),
        })
    };
    Ok(cache.warm(items, load).run().await)
}
