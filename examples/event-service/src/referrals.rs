//! Referrals: the code of each user, and the users whose codes were used most.

use cache_runtime::{cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::input::Id;

/// A code, and how many users have used it.
#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Referral {
    pub code: String,
    pub referrer_id: i64,
    pub referrals: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Referrer {
    pub rank: i64,
    pub user_id: i64,
    pub referrals: i64,
}

/// The user who uses a code.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Referred {
    pub user_id: Id,
}

#[derive(Clone, Debug)]
pub struct Referrals {
    db: Db,
}

impl Referrals {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    // Without `none_ttl`: a client chooses the code, and each unknown code would leave an entry.
    #[cacheable(key = "referral:<code>", ttl = 1800)]
    pub async fn find(&self, code: &str) -> Result<Option<Referral>> {
        let referral = sqlx::query_as(
            "SELECT code, user_id AS referrer_id,
                    (SELECT count(*) FROM referrals WHERE referrer_id = user_id) AS referrals
             FROM referral_codes WHERE code = ?",
        )
        .bind(code);
        Ok(referral.fetch_optional(self.db.read().await).await?)
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

    /// Records who referred a user. A user can use one code, once.
    ///
    /// The leaderboard is evicted each time, so it is always right. Its TTL does not delay a referral.
    #[cache_evict(key = ["referral:<code>", "leaderboard:referral:top100"])]
    pub async fn redeem(&self, code: &str, user_id: i64) -> Result<()> {
        let referrer = sqlx::query_scalar("SELECT user_id FROM referral_codes WHERE code = ?");
        let referrer: Option<i64> = referrer.bind(code).fetch_optional(self.db.write()).await?;
        let referrer = referrer.ok_or_else(|| Error::unknown("code", "referral code", code))?;
        if referrer == user_id {
            let detail = "users cannot refer themselves";
            return Err(Error::invalid("code", detail));
        }
        let recorded =
            sqlx::query("INSERT OR IGNORE INTO referrals (referred_id, referrer_id) VALUES (?, ?)")
                .bind(user_id)
                .bind(referrer)
                .execute(self.db.write())
                .await?;
        match recorded.rows_affected() {
            0 => Err(Error::conflict("user_id", "the user was already referred")),
            _ => Ok(()),
        }
    }
}
