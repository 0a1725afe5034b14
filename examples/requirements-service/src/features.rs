//! Features: what a team builds for a requirement.

use cache_runtime::{cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::input::Text;

/// The most features of a requirement, so that a list of them is small.
const MOST: i64 = 100;

#[derive(Clone, Debug)]
pub struct Features {
    db: Db,
}

impl Features {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The tag is that of the list. What changes all features of a requirement evicts them by it.
    #[cacheable(
        key = "feature:<id>",
        policy = "features",
        tag = "features:<return.requirement_id>"
    )]
    pub async fn find(&self, id: i64) -> Result<Option<Feature>> {
        let found =
            sqlx::query_as("SELECT id, requirement_id, title, status FROM features WHERE id = $1");
        Ok(found.bind(id).fetch_optional(self.db.pool()).await?)
    }

    #[cacheable(
        key = "features:<requirement_id>",
        policy = "features",
        tag = "features:<requirement_id>",
        unless = |found| found.is_empty(),
    )]
    pub async fn of(&self, requirement_id: i64) -> Result<Vec<Feature>> {
        let found = sqlx::query_as(
            "SELECT id, requirement_id, title, status FROM features WHERE requirement_id = $1 ORDER BY id",
        );
        let found = found.bind(requirement_id);
        Ok(found.fetch_all(self.db.pool()).await?)
    }

    #[cache_evict(tag = "features:<requirement_id>")]
    pub async fn propose(
        &self,
        requirement_id: i64,
        user_id: i64,
        new: &NewFeature,
    ) -> Result<Feature> {
        let created = sqlx::query_as(
            "INSERT INTO features (requirement_id, title)
             SELECT id, $1 FROM requirements
             WHERE id = $2 AND team = (SELECT team FROM users WHERE id = $3)
               AND (SELECT count(*) FROM features WHERE requirement_id = $2) < $4
             RETURNING id, requirement_id, title, status",
        )
        .bind(new.title.as_str())
        .bind(requirement_id)
        .bind(user_id)
        .bind(MOST)
        .fetch_optional(self.db.pool())
        .await?;
        match created {
            Some(feature) => Ok(feature),
            None => Err(self.refused(requirement_id, user_id).await?),
        }
    }

    #[cache_evict(tag = "features:<return.requirement_id>")]
    pub async fn set_status(&self, id: i64, user_id: i64, change: &Change) -> Result<Feature> {
        let changed = sqlx::query_as(
            "UPDATE features SET status = $1
             WHERE id = $2 AND requirement_id IN (
                 SELECT id FROM requirements WHERE team = (SELECT team FROM users WHERE id = $3))
             RETURNING id, requirement_id, title, status",
        )
        .bind(change.status.as_str())
        .bind(id)
        .bind(user_id)
        .fetch_optional(self.db.pool())
        .await?;
        if let Some(feature) = changed {
            return Ok(feature);
        }
        let exists: Option<i64> = sqlx::query_scalar("SELECT id FROM features WHERE id = $1")
            .bind(id)
            .fetch_optional(self.db.pool())
            .await?;
        Err(match exists {
            Some(_) => Error::not_theirs("id"),
            None => Error::unknown("id", "feature", id),
        })
    }

    /// Returns why no feature was added to a requirement.
    async fn refused(&self, requirement_id: i64, user_id: i64) -> Result<Error> {
        // A comparison is a BOOLEAN in one database and a number in the other.
        let is_theirs: Option<i64> = sqlx::query_scalar(
            "SELECT CASE WHEN team = (SELECT team FROM users WHERE id = $1) THEN 1 ELSE 0 END
             FROM requirements WHERE id = $2",
        )
        .bind(user_id)
        .bind(requirement_id)
        .fetch_optional(self.db.pool())
        .await?;
        Ok(match is_theirs {
            None => Error::unknown("id", "requirement", requirement_id),
            Some(0) => Error::not_theirs("id"),
            Some(_) => Error::conflict("id", "it has 100 features: split the requirement"),
        })
    }
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
