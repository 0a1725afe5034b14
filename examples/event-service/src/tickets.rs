//! Tickets: sold until none is left, and never oversold.

use cache_runtime::{CacheScope, cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, SqliteConnection};

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
    #[cacheable(key = "ticket:user:<user_id>", ttl = 300)]
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

    /// Each step evicts what it changes after the transaction is committed. Before that, a reader would store the old values again.
    pub async fn buy(&self, event_id: i64, user_id: i64, quantity: i64) -> Result<Ticket> {
        let scope = CacheScope::new();
        let mut transaction = self.db.write().begin_with("BEGIN IMMEDIATE").await?;
        let sale = scope.run(async {
            let places = take_places(&mut transaction, event_id, user_id, quantity).await?;
            let sale = Sale {
                event_id,
                user_id,
                quantity,
                price_cents: places.price_cents,
            };
            issue(&mut transaction, sale).await
        });
        match sale.await {
            Ok(ticket) => {
                transaction.commit().await?;
                scope.commit().await;
                Ok(ticket)
            }
            Err(refused) => {
                transaction.rollback().await?;
                scope.rollback();
                Err(refused)
            }
        }
    }
}

/// A ticket that is not written yet.
struct Sale {
    event_id: i64,
    user_id: i64,
    quantity: i64,
    price_cents: i64,
}

/// The reserved places, as the database has them.
#[derive(FromRow)]
struct Places {
    organizer_id: i64,
    /// The price of one ticket.
    price_cents: i64,
}

/// Takes places only if enough are left, so the database decides between two buyers of the last place.
#[cache_evict(
    key = ["event:<event_id>", "analytics:<event_id>"],
    tag = ["events", "user:<return.organizer_id>"],
)]
async fn take_places(
    transaction: &mut SqliteConnection,
    event_id: i64,
    user_id: i64,
    quantity: i64,
) -> Result<Places> {
    let places = sqlx::query_as(
        "UPDATE events SET sold = sold + ?2
         WHERE id = ?1 AND published AND tickets_left >= ?2
         RETURNING organizer_id, price_cents",
    )
    .bind(event_id)
    .bind(quantity)
    .fetch_optional(&mut *transaction)
    .await?;
    match places {
        Some(places) => Ok(places),
        None => {
            let event = sqlx::query_as("SELECT * FROM events WHERE id = ?").bind(event_id);
            let event: Option<Event> = event.fetch_optional(transaction).await?;
            let event = event.filter(|event| event.is_for(Some(user_id)));
            Err(event.map_or_else(|| Error::unknown("id", "event", event_id), not_sold))
        }
    }
}

#[cache_evict(key = "ticket:user:<sale.user_id>")]
async fn issue(transaction: &mut SqliteConnection, sale: Sale) -> Result<Ticket> {
    let ticket = sqlx::query_as(
        "INSERT INTO tickets (event_id, user_id, quantity, price_cents) VALUES (?, ?, ?, ?) RETURNING *",
    )
    .bind(sale.event_id)
    .bind(sale.user_id)
    .bind(sale.quantity)
    .bind(sale.price_cents);
    Ok(ticket.fetch_one(transaction).await?)
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
