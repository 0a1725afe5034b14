//! Users: profiles and followers.

use cache_runtime::{cache_evict, cache_put, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::input::Text;

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct User {
    pub id: i64,
    pub name: String,
    pub email: String,
    pub bio: String,
    pub authentication: Authentication,
}

/// A user as others see them. Only the user sees the e-mail address.
#[derive(Debug, Serialize)]
pub struct Profile {
    pub id: i64,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    pub bio: String,
    pub authentication: Authentication,
}

impl User {
    /// Returns the profile as this user may see it.
    pub fn seen_by(self, user_id: Option<i64>) -> Profile {
        let Self {
            id,
            name,
            email,
            bio,
            authentication,
        } = self;
        Profile {
            id,
            name,
            email: (user_id == Some(id)).then_some(email),
            bio,
            authentication,
        }
    }
}

/// Whether the identity of a user is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum Authentication {
    Verified,
    Unverified,
}

/// Fields that are missing do not change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileChange {
    pub name: Option<Text<100>>,
    pub email: Option<Text<254>>,
    pub bio: Option<Text<2_000>>,
}

// Without `none_ttl`: a client chooses the id, and each unknown id would leave an entry.
#[derive(Clone, Debug)]
pub struct Users {
    db: Db,
}

impl Users {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    #[cacheable(key = "user:profile:<id>", policy = "profiles")]
    pub async fn find(&self, id: i64) -> Result<Option<User>> {
        let user = sqlx::query_as("SELECT * FROM users WHERE id = ?").bind(id);
        Ok(user.fetch_optional(self.db.read().await).await?)
    }

    /// Returns the number of followers of a user. `None` means that the user does not exist.
    #[cacheable(key = "user:followers:<id>", ttl = 300)]
    pub async fn followers(&self, id: i64) -> Result<Option<i64>> {
        let count = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM followers WHERE user_id = users.id) FROM users WHERE id = ?",
        )
        .bind(id);
        Ok(count.fetch_optional(self.db.read().await).await?)
    }

    /// Nothing else shows what this changes.
    #[cache_put(key = "user:profile:<id>", policy = "profiles")]
    pub async fn update(&self, id: i64, change: &ProfileChange) -> Result<Option<User>> {
        let updated = sqlx::query_as(
            "UPDATE users
             SET name = coalesce(?, name), email = coalesce(?, email), bio = coalesce(?, bio)
             WHERE id = ?
             RETURNING *",
        )
        .bind(change.name.as_ref().map(Text::as_str))
        .bind(change.email.as_ref().map(Text::as_str))
        .bind(change.bio.as_ref().map(Text::as_str))
        .bind(id)
        .fetch_optional(self.db.write())
        .await;
        updated.map_err(|error| match error.as_database_error() {
            Some(cause) if cause.is_unique_violation() => {
                Error::conflict("email", "another user already has this address")
            }
            _ => error.into(),
        })
    }

    pub async fn authenticate(&self, id: i64, status: Authentication) -> Result<Option<User>> {
        let change = async {
            let user =
                sqlx::query_as("UPDATE users SET authentication = ? WHERE id = ? RETURNING *")
                    .bind(status)
                    .bind(id);
            Ok(user.fetch_optional(self.db.write()).await?)
        };
        evicting(id, change).await
    }

    /// Following twice has the same effect as once.
    pub async fn follow(&self, id: i64, follower_id: i64) -> Result<()> {
        let follow = "INSERT OR IGNORE INTO followers (user_id, follower_id) VALUES (?, ?)";
        self.change_followers(follow, id, follower_id).await
    }

    pub async fn unfollow(&self, id: i64, follower_id: i64) -> Result<()> {
        let unfollow = "DELETE FROM followers WHERE user_id = ? AND follower_id = ?";
        self.change_followers(unfollow, id, follower_id).await
    }

    #[cache_evict(key = "user:followers:<id>")]
    async fn change_followers(
        &self,
        statement: &'static str,
        id: i64,
        follower_id: i64,
    ) -> Result<()> {
        let change = sqlx::query(statement).bind(id).bind(follower_id);
        change.execute(self.db.write()).await?;
        Ok(())
    }
}

/// Runs a change of the trust in a user. If it succeeds, no earlier cached data of the user is served again.
#[cache_evict(
    key = ["user:profile:<id>", "user:followers:<id>"],
    tag = ["organizer:<id>", "tickets:<id>"],
)]
pub(crate) async fn evicting<T>(id: i64, change: impl Future<Output = Result<T>>) -> Result<T> {
    change.await
}
