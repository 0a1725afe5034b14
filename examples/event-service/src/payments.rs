//! Payments: a gateway decides, we remember what it said. The card number passes through and is kept nowhere.

use cache_runtime::{Sensitive, cache_evict, cache_put, cacheable, rate_limit};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::db::Db;
use crate::error::Result;
use crate::gateway::{Gateway, Token, Verification};
use crate::input::{Cents, Id, card_number};

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Payment {
    pub tx: String,
    /// What the gateway calls it.
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
    Confirmed,
    Failed,
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
}

impl Payments {
    pub fn new(db: Db, gateway: Gateway) -> Self {
        Self { db, gateway }
    }

    /// `tx` comes from the caller, because the entry is fenced under its name before the payment begins.
    ///
    /// The user in `new` is the one whose session it is, and so whose limit: routes see to that, here and in
    /// [`confirm`](Self::confirm).
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

    /// What the gateway says today.
    #[cacheable(key = "payment:verification:<reference>", ttl = 300)]
    pub async fn verify(&self, reference: &str) -> Result<Option<Verification>> {
        let payment = sqlx::query_as("SELECT * FROM payments WHERE reference = ?").bind(reference);
        match payment.fetch_optional(self.db.read().await).await? {
            Some(payment) => Ok(Some(self.gateway.verify(&payment).await)),
            None => Ok(None),
        }
    }

    /// The gateway's leave to charge a user. It holds for an hour; we ask again a little earlier.
    #[cacheable(key = "payment:token:<user_id>", ttl = 3000)]
    pub async fn token(&self, user_id: i64) -> Result<Token> {
        Ok(self.gateway.issue_token(user_id).await)
    }

    /// Asks the gateway for the money and records its answer. `None` means that this had been done already.
    #[rate_limit(policy = "payment", key = "<payment.user_id>")]
    pub async fn confirm(&self, payment: &Payment) -> Result<Option<Payment>> {
        let token = self.token(payment.user_id).await?;
        let answer = self.gateway.capture(&token, payment).await;
        self.settle(payment, answer).await
    }

    #[cache_evict(key = ["payment:transaction:<payment.tx>", "payment:verification:<payment.reference>"])]
    async fn settle(&self, payment: &Payment, status: Status) -> Result<Option<Payment>> {
        let settled = sqlx::query_as(
            "UPDATE payments SET status = ? WHERE tx = ? AND status = 'pending' RETURNING *",
        )
        .bind(status)
        .bind(&payment.tx);
        Ok(settled.fetch_optional(self.db.write()).await?)
    }
}
