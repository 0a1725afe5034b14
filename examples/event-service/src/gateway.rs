//! A simulated payment gateway: as slow as a real one, and deterministic.

use std::fmt;
use std::time::Duration;

use cache_runtime::Sensitive;
use serde::{Deserialize, Serialize};

use crate::payments::{Payment, Status};

/// The response time of the gateway.
const LATENCY: Duration = Duration::from_millis(200);

/// The gateway declines larger amounts.
const LIMIT_CENTS: i64 = 1_000_000;

#[derive(Clone, Debug, Default)]
pub struct Gateway {}

/// The permission to charge a user.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verification {
    pub reference: String,
    pub user_id: i64,
    pub status: Status,
    pub amount_cents: i64,
}

impl Gateway {
    pub async fn issue_token(&self, user_id: i64) -> Token {
        tokio::time::sleep(LATENCY).await;
        Token(format!("token-{user_id}-{}", uuid::Uuid::new_v4()))
    }

    /// Reserves the money and returns the reference of the reservation.
    pub async fn authorize(
        &self,
        _token: &Token,
        tx: &str,
        card_number: &Sensitive<String>,
    ) -> String {
        tracing::debug!(tx, ?card_number, "authorizing");
        tokio::time::sleep(LATENCY).await;
        format!("ref-{tx}")
    }

    /// Takes the money. A repeated call with the same reference takes nothing more and returns the same answer.
    pub async fn capture(&self, _token: &Token, payment: &Payment) -> Status {
        tracing::debug!(tx = payment.tx, "capturing");
        tokio::time::sleep(LATENCY).await;
        if payment.amount_cents > LIMIT_CENTS {
            Status::Failed
        } else {
            Status::Confirmed
        }
    }

    /// Returns the status of a payment.
    pub async fn verify(&self, payment: &Payment) -> Verification {
        tokio::time::sleep(LATENCY).await;
        Verification {
            reference: payment.reference.clone(),
            user_id: payment.user_id,
            status: payment.status,
            amount_cents: payment.amount_cents,
        }
    }
}
