//! Referrals: the users who refer most.

use cache_runtime::cacheable;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::db::Db;
use crate::error::Result;

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Referrer {
    pub rank: i64,
    pub user_id: i64,
    pub referrals: i64,
}

#[derive(Clone, Debug)]
pub struct Referrals {
    db: Db,
}

impl Referrals {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Returns the 100 users with the most referrals.
    #[cacheable(key = "leaderboard:referral:top100", ttl = 1800)]
    pub async fn top_referrers(&self) -> Result<Vec<Referrer>> {
        let referrers = sqlx::query_as(
            "SELECT rank() OVER (ORDER BY count(*) DESC) AS rank, referrer_id AS user_id, count(*) AS referrals
             FROM referrals
             GROUP BY referrer_id
             ORDER BY rank, user_id
             LIMIT 100",
        );
        Ok(referrers.fetch_all(self.db.read().await).await?)
    }
}
