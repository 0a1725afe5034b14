//! The preferences of a user.

use cache_runtime::{cache_put, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::db::Db;
use crate::error::Result;

/// Returns the defaults for a user who has set nothing.
#[cacheable(key = "preferences:<user_id>", policy = "preferences", ignore = [db])]
pub async fn of(db: &Db, user_id: i64) -> Result<Preferences> {
    let set = sqlx::query_as("SELECT theme, digest FROM preferences WHERE user_id = $1");
    let set = set.bind(user_id).fetch_optional(db.pool()).await?;
    let (theme, digest) = (Theme::Light, Digest::Weekly);
    Ok(set.unwrap_or(Preferences { theme, digest }))
}

/// Stores what it has written, because the user reads it next.
#[cache_put(key = "preferences:<user_id>", policy = "preferences")]
pub async fn set(db: &Db, user_id: i64, new: Preferences) -> Result<Preferences> {
    let set = sqlx::query_as(
        "INSERT INTO preferences (user_id, theme, digest) VALUES ($1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET theme = excluded.theme, digest = excluded.digest
         RETURNING theme, digest",
    );
    let set = set.bind(user_id).bind(new.theme.as_str());
    let set = db.write(set.bind(new.digest.as_str())).await?;
    Ok(set.ok_or(sqlx::Error::RowNotFound)?)
}

words! {
    pub enum Theme {
        Light = "light",
        Dark = "dark",
    }
}

words! {
    /// How often the user gets a mail with what changed.
    pub enum Digest {
        Never = "never",
        Daily = "daily",
        Weekly = "weekly",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, FromRow)]
#[serde(deny_unknown_fields)]
pub struct Preferences {
    pub theme: Theme,
    pub digest: Digest,
}
