//! Tickets: sold until none is left, and never oversold.

use cache_runtime::{cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, SqliteConnection};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::events::changes::{self, Capacity};
use crate::input::Id;

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Ticket {
    pub id: i64,
    pub event_id: i64,
    pub user_id: i64,
    pub quantity: i64,
    /// The price of one ticket at the time of the purchase.
    pub price_cents: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purchase {
    pub user_id: Id,
    pub quantity: Capacity,
}

#[derive(Clone, Debug)]
pub struct Tickets {
    db: Db,
}

impl Tickets {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// `None` means that the user does not exist.
    #[cacheable(key = "ticket:user:<user_id>", tag = "tickets:<user_id>", ttl = 300)]
    pub async fn of_user(&self, user_id: i64) -> Result<Option<Vec<Ticket>>> {
        let db = self.db.read().await;
        let user = sqlx::query("SELECT 1 FROM users WHERE id = ?")
            .bind(user_id)
            .fetch_optional(db)
            .await?;
        if user.is_none() {
            return Ok(None);
        }
        let tickets =
            sqlx::query_as("SELECT * FROM tickets WHERE user_id = ? ORDER BY id").bind(user_id);
        Ok(Some(tickets.fetch_all(db).await?))
    }

    pub async fn buy(&self, event_id: i64, user_id: i64, quantity: i64) -> Result<Ticket> {
        self.db
            .in_transaction(async |transaction| {
                let event = take_places(transaction, event_id, user_id, quantity).await?;
                issue(transaction, &event, user_id, quantity).await
            })
            .await
    }
}

/// Takes places only if enough are left, so the database decides between two buyers of the last place. Returns the event as it is
/// afterwards.
async fn take_places(
    transaction: &mut SqliteConnection,
    event_id: i64,
    user_id: i64,
    quantity: i64,
) -> Result<Event> {
    let take = async {
        let taken = sqlx::query_as(
            "UPDATE events SET sold = sold + ?2
             WHERE id = ?1 AND published AND tickets_left >= ?2
             RETURNING *",
        )
        .bind(event_id)
        .bind(quantity)
        .fetch_optional(&mut *transaction)
        .await?;
        match taken {
            Some(event) => Ok(event),
            None => {
                let event = sqlx::query_as("SELECT * FROM events WHERE id = ?").bind(event_id);
                let event: Option<Event> = event.fetch_optional(transaction).await?;
                let event = event.filter(|event| event.is_for(Some(user_id)));
                Err(event.map_or_else(|| Error::unknown("id", "event", event_id), not_sold))
            }
        }
    };
    changes::removing(take).await
}

/// Issues a ticket for places that are taken.
async fn issue(
    transaction: &mut SqliteConnection,
    event: &Event,
    user_id: i64,
    quantity: i64,
) -> Result<Ticket> {
    let issue = async {
        let ticket = sqlx::query_as(
            "INSERT INTO tickets (event_id, user_id, quantity, price_cents) VALUES (?, ?, ?, ?) RETURNING *",
        )
        .bind(event.id)
        .bind(user_id)
        .bind(quantity)
        .bind(event.price_cents);
        Ok(ticket.fetch_one(transaction).await?)
    };
    evicting(issue).await
}

/// Runs a change of a ticket. If it succeeds, earlier lists of its user's tickets are not served again.
#[cache_evict(tag = "tickets:<return.user_id>")]
async fn evicting(change: impl Future<Output = Result<Ticket>>) -> Result<Ticket> {
    change.await
}

fn not_sold(event: Event) -> Error {
    if !event.published {
        return Error::conflict("id", "the event is not published yet");
    }
    match event.tickets_left {
        0 => Error::conflict("quantity", "the event is sold out"),
        left => Error::conflict("quantity", format!("only {left} are left")),
    }
}
