//! Features: what a team builds for a requirement.

use cache_runtime::{cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::input::Text;
use crate::requirements::written;

/// Writes evict by the tag: a write that changes one feature also changes the list of its requirement.
#[cacheable(
    key = "feature:<id>",
    policy = "features",
    tag = "features:<return.requirement_id>",
    ignore = [db],
)]
pub async fn find(db: &Db, id: i64) -> Result<Option<Feature>> {
    let found =
        sqlx::query_as("SELECT id, requirement_id, title, status FROM features WHERE id = $1");
    Ok(found.bind(id).fetch_optional(db.pool()).await?)
}

/// Returns the first 100 features of a requirement. An empty list is not stored, because any number can be asked for.
#[cacheable(
    key = "features:<requirement_id>",
    policy = "features",
    tag = "features:<requirement_id>",
    unless = |found| found.is_empty(),
    ignore = [db],
)]
pub async fn of(db: &Db, requirement_id: i64) -> Result<Vec<Feature>> {
    let found = sqlx::query_as(
        "SELECT id, requirement_id, title, status FROM features
         WHERE requirement_id = $1 ORDER BY id LIMIT 100",
    );
    Ok(found.bind(requirement_id).fetch_all(db.pool()).await?)
}

#[cache_evict(tag = "features:<requirement_id>")]
pub async fn propose(
    db: &Db,
    requirement_id: i64,
    user_id: i64,
    new: &NewFeature,
) -> Result<Feature> {
    let proposed = sqlx::query_as(
        "INSERT INTO features (requirement_id, title)
         SELECT id, $1 FROM requirements
         WHERE id = $2 AND team = (SELECT team FROM users WHERE id = $3)
         RETURNING id, requirement_id, title, status",
    );
    let proposed = proposed.bind(new.title.as_str());
    let proposed = proposed.bind(requirement_id).bind(user_id);
    let feature = match db.write(proposed).await {
        // The requirement was deleted while this statement ran.
        Err(sqlx::Error::Database(cause)) if cause.is_foreign_key_violation() => None,
        proposed => proposed?,
    };
    written(db.pool(), requirement_id, feature).await
}

#[cache_evict(tag = "features:<return.requirement_id>")]
pub async fn set_status(db: &Db, id: i64, user_id: i64, change: &Change) -> Result<Feature> {
    let changed = sqlx::query_as(
        "UPDATE features SET status = $1
         WHERE id = $2 AND requirement_id IN (
             SELECT id FROM requirements WHERE team = (SELECT team FROM users WHERE id = $3))
         RETURNING id, requirement_id, title, status",
    );
    let changed = changed.bind(change.status.as_str()).bind(id).bind(user_id);
    let changed = db.write(changed).await?;
    changed.ok_or_else(|| Error::unknown("feature of your team:", id))
}

words! {
    pub enum FeatureStatus {
        Proposed = "proposed",
        Planned = "planned",
        Done = "done",
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Feature {
    pub id: i64,
    pub requirement_id: i64,
    pub title: String,
    pub status: FeatureStatus,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewFeature {
    pub title: Text<200>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub status: FeatureStatus,
}
