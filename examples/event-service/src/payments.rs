//! Payments: a gateway decides, and the service records its answer. The card number is passed on and never stored.

use cache_runtime::{Cache, Sensitive, cache_evict, cache_put, cacheable, rate_limit};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use tokio::task;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::gateway::{Gateway, Token, Verification};
use crate::input::{Cents, Id, card_number};

/// How long a confirmation may wait for the gateway, in seconds. An older claim was abandoned by a process that died.
const CLAIM: i64 = 30;

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Payment {
    pub tx: String,
    /// The reference of the gateway.
    pub reference: String,
    pub user_id: i64,
    pub event_id: i64,
    pub amount_cents: i64,
    pub status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum Status {
    Pending,
    /// One confirmation has claimed it and asks the gateway.
    Capturing,
    Confirmed,
    Failed,
}

/// The status of a payment, and the user who may see it.
#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct PaymentStatus {
    pub user_id: i64,
    pub status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    pub user_id: Id,
    pub event_id: Id,
    pub amount_cents: Cents<1>,
    #[serde(deserialize_with = "card_number")]
    pub card_number: Sensitive<String>,
}

#[derive(Clone, Debug)]
pub struct Payments {
    db: Db,
    gateway: Gateway,
    /// A separate cache in memory: a token is a credential, which must not be readable in Redis.
    tokens: Cache,
}

impl Payments {
    pub fn new(db: Db, gateway: Gateway) -> Self {
        Self {
            db,
            gateway,
            tokens: Cache::memory(),
        }
    }

    /// The caller passes `tx`, because the entry is fenced under its key before the payment begins.
    ///
    /// The routes ensure that the user in `new` is the user of the session, so their limit applies.
    #[cache_put(key = "payment:transaction:<tx>", ttl = 1800)]
    #[rate_limit(policy = "payment", key = "<new.user_id.get()>")]
    pub async fn initiate(&self, tx: &str, new: &NewPayment) -> Result<Payment> {
        let token = self.token(new.user_id.get()).await?;
        let reference = self.gateway.authorize(&token, tx, &new.card_number).await;
        let payment = sqlx::query_as(
            "INSERT INTO payments (tx, reference, user_id, event_id, amount_cents) VALUES (?, ?, ?, ?, ?) RETURNING *",
        )
        .bind(tx)
        .bind(reference)
        .bind(new.user_id.get())
        .bind(new.event_id.get())
        .bind(new.amount_cents.get());
        Ok(payment.fetch_one(self.db.write()).await?)
    }

    #[cacheable(key = "payment:transaction:<tx>", ttl = 1800)]
    pub async fn find(&self, tx: &str) -> Result<Option<Payment>> {
        let payment = sqlx::query_as("SELECT * FROM payments WHERE tx = ?").bind(tx);
        Ok(payment.fetch_optional(self.db.read().await).await?)
    }

    /// Returns the status of a payment, which clients ask for while they wait for it.
    #[cacheable(key = "payment:status:<tx>", policy = "payment-status")]
    pub async fn status(&self, tx: &str) -> Result<Option<PaymentStatus>> {
        let status = sqlx::query_as("SELECT user_id, status FROM payments WHERE tx = ?").bind(tx);
        Ok(status.fetch_optional(self.db.read().await).await?)
    }

    /// Returns the current answer of the gateway.
    #[cacheable(key = "payment:verification:<reference>", ttl = 300)]
    pub async fn verify(&self, reference: &str) -> Result<Option<Verification>> {
        let payment = sqlx::query_as("SELECT * FROM payments WHERE reference = ?").bind(reference);
        match payment.fetch_optional(self.db.read().await).await? {
            Some(payment) => Ok(Some(self.gateway.verify(&payment).await)),
            None => Ok(None),
        }
    }

    /// The permission of the gateway to charge a user. It lasts for 1 h, and is requested again slightly earlier.
    #[cacheable(cache = self.tokens, key = "payment:token:<user_id>", ttl = 3000)]
    pub async fn token(&self, user_id: i64) -> Result<Token> {
        Ok(self.gateway.issue_token(user_id).await)
    }

    /// Asks the gateway for the money once, and records its answer. Returns 409 if another confirmation did so or is doing so.
    pub async fn confirm(&self, tx: &str, user_id: i64) -> Result<Payment> {
        let owner = "SELECT user_id FROM payments WHERE tx = ?";
        let owner = sqlx::query_scalar::<_, i64>(owner).bind(tx);
        match owner.fetch_optional(self.db.write()).await? {
            Some(owner) if owner == user_id => self.confirm_own(tx, user_id).await,
            // No limit is charged.
            Some(_) => Err(Error::not_theirs("tx")),
            None => Err(Error::unknown("tx", "payment", tx)),
        }
    }

    #[rate_limit(policy = "payment", key = "<user_id>")]
    async fn confirm_own(&self, tx: &str, user_id: i64) -> Result<Payment> {
        let (this, tx) = (self.clone(), tx.to_owned());
        // In its own task, which continues without the client, so that the answer of the gateway is recorded.
        let captured = task::spawn(async move { this.capture(&tx, user_id).await });
        captured.await.map_err(Error::internal)?
    }

    async fn capture(&self, tx: &str, user_id: i64) -> Result<Payment> {
        let payment = self.claim(tx, user_id).await?;
        let token = self.token(payment.user_id).await?;
        let answer = self.gateway.capture(&token, &payment).await;
        self.settle(&payment, answer).await
    }

    /// One of several confirmations claims the payment before it asks the gateway. An abandoned claim can be taken over, because the
    /// gateway identifies the payment by its reference.
    async fn claim(&self, tx: &str, user_id: i64) -> Result<Payment> {
        let claim = async {
            let claimed = sqlx::query_as(
                "UPDATE payments SET status = 'capturing', claimed_at = unixepoch()
                 WHERE tx = ?1 AND user_id = ?2
                   AND (status = 'pending' OR status = 'capturing' AND claimed_at <= unixepoch() - ?3)
                 RETURNING *",
            )
            .bind(tx)
            .bind(user_id)
            .bind(CLAIM)
            .fetch_optional(self.db.write())
            .await?;
            claimed.ok_or_else(|| {
                let detail = "the payment is being confirmed, is already confirmed, or has failed";
                Error::conflict("tx", detail)
            })
        };
        evicting(claim).await
    }

    async fn settle(&self, payment: &Payment, status: Status) -> Result<Payment> {
        let settle = async {
            let settled = sqlx::query_as(
                "UPDATE payments SET status = ?, claimed_at = NULL WHERE tx = ? AND status = 'capturing' RETURNING *",
            )
            .bind(status)
            .bind(&payment.tx)
            .fetch_optional(self.db.write())
            .await?;
            // Another confirmation has settled it if the claim was taken over.
            settled.ok_or_else(|| {
                Error::conflict("tx", "the payment is already confirmed, or has failed")
            })
        };
        evicting(settle).await
    }
}

/// Runs a change of a payment, in a task that is not cancelled. If it succeeds, no earlier state of the payment is served again.
#[cache_evict(key = [
    "payment:transaction:<return.tx>",
    "payment:status:<return.tx>",
    "payment:verification:<return.reference>",
])]
async fn evicting(change: impl Future<Output = Result<Payment>>) -> Result<Payment> {
    change.await
}

#[cfg(test)]
mod tests;
