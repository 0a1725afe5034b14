//! Tickets: sold until there are none, and never more.

use cache_runtime::{cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::events::{Capacity, Event};
use crate::input::Id;

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Ticket {
    pub id: i64,
    pub event_id: i64,
    pub user_id: i64,
    pub quantity: i64,
    /// What one of them cost on the day.
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

    /// `None` means that there is no such user.
    #[cacheable(key = "ticket:user:<user_id>", ttl = 300, none_ttl = 30)]
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

    /// The update takes places only where they are left, so the database decides between two who want the last one.
    #[cache_evict(
        key = ["event:<event.id>", "analytics:<event.id>", "ticket:user:<user_id>"],
        pattern = ["events:*", "user:events:<event.organizer_id>:page:*"],
    )]
    pub async fn buy(&self, event: &Event, user_id: i64, quantity: i64) -> Result<Ticket> {
        let mut transaction = self.db.write().begin_with("BEGIN IMMEDIATE").await?;
        let price: Option<i64> = sqlx::query_scalar(
            "UPDATE events SET sold = sold + ?2
             WHERE id = ?1 AND published AND tickets_left >= ?2
             RETURNING price_cents",
        )
        .bind(event.id)
        .bind(quantity)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(price) = price else {
            let event = sqlx::query_as("SELECT * FROM events WHERE id = ?").bind(event.id);
            return Err(not_sold(event.fetch_optional(&mut *transaction).await?));
        };
        let ticket = sqlx::query_as(
            "INSERT INTO tickets (event_id, user_id, quantity, price_cents) VALUES (?, ?, ?, ?) RETURNING *",
        )
        .bind(event.id)
        .bind(user_id)
        .bind(quantity)
        .bind(price)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ticket)
    }
}

fn not_sold(event: Option<Event>) -> Error {
    match event {
        None => Error::conflict("id", "the event was deleted"),
        Some(event) if !event.published => Error::conflict("id", "the event is not published yet"),
        Some(event) if event.tickets_left == 0 => {
            Error::conflict("quantity", "the event is sold out")
        }
        Some(event) => Error::conflict("quantity", format!("only {} are left", event.tickets_left)),
    }
}
