//! Tickets: sold until none is left, never oversold, and used once.

use std::str::FromStr;

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
    pub status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub enum Status {
    /// It is bought and not used.
    Valid,
    Used,
}

impl Status {
    /// The name in keys.
    fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Used => "used",
        }
    }
}

impl FromStr for Status {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = [Self::Valid, Self::Used].into_iter();
        all.find(|status| status.name() == text).ok_or(())
    }
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
        self.list(user_id, None).await
    }

    /// Returns the tickets with this status. `None` means that the user does not exist.
    #[cacheable(
        key = "ticket:user:<user_id>:status:<status.name()>",
        tag = "tickets:<user_id>",
        ttl = 300
    )]
    pub async fn of_user_with(&self, user_id: i64, status: Status) -> Result<Option<Vec<Ticket>>> {
        self.list(user_id, Some(status)).await
    }

    async fn list(&self, user_id: i64, status: Option<Status>) -> Result<Option<Vec<Ticket>>> {
        let db = self.db.read().await;
        let user = sqlx::query("SELECT 1 FROM users WHERE id = ?")
            .bind(user_id)
            .fetch_optional(db)
            .await?;
        if user.is_none() {
            return Ok(None);
        }
        let tickets = sqlx::query_as(
            "SELECT * FROM tickets WHERE user_id = ?1 AND status = coalesce(?2, status) ORDER BY id",
        )
        .bind(user_id)
        .bind(status);
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

    /// Checks a ticket in. The database decides who organises its event, and whether the ticket is still valid.
    ///
    /// The user of the ticket is known only after the statement. In a transaction, whose scope has the eviction before the commit, a
    /// request that is cancelled during the commit evicts, too.
    pub async fn check_in(&self, id: i64, organizer_id: i64) -> Result<Ticket> {
        self.db
            .in_transaction(async |transaction| use_ticket(transaction, id, organizer_id).await)
            .await
    }
}

async fn use_ticket(
    transaction: &mut SqliteConnection,
    id: i64,
    organizer_id: i64,
) -> Result<Ticket> {
    let check_in = async {
        let used = sqlx::query_as(
            "UPDATE tickets SET status = 'used'
             WHERE id = ?1 AND status = 'valid' AND event_id IN (SELECT id FROM events WHERE organizer_id = ?2)
             RETURNING *",
        )
        .bind(id)
        .bind(organizer_id)
        .fetch_optional(&mut *transaction)
        .await?;
        match used {
            Some(ticket) => Ok(ticket),
            None => Err(not_checked_in(transaction, id, organizer_id).await?),
        }
    };
    evicting(check_in).await
}

/// Returns why a ticket is not checked in.
async fn not_checked_in(
    transaction: &mut SqliteConnection,
    id: i64,
    organizer_id: i64,
) -> Result<Error> {
    let is_organizer: Option<bool> = sqlx::query_scalar(
        "SELECT event_id IN (SELECT id FROM events WHERE organizer_id = ?2) FROM tickets WHERE id = ?1",
    )
    .bind(id)
    .bind(organizer_id)
    .fetch_optional(transaction)
    .await?;
    Ok(match is_organizer {
        Some(true) => Error::conflict("id", "the ticket is already used"),
        Some(false) => Error::forbidden(
            "id",
            "only the organiser of its event can check a ticket in",
        ),
        None => Error::unknown("id", "ticket", id),
    })
}

/// Takes places only if enough are left, so the database decides between two buyers of the last place. Returns the event as it is
/// afterwards.
pub(crate) async fn take_places(
    transaction: &mut SqliteConnection,
    event_id: i64,
    user_id: i64,
    quantity: i64,
) -> Result<Event> {
    let organizer_id = sqlx::query_scalar("SELECT organizer_id FROM events WHERE id = ?")
        .bind(event_id)
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or_else(|| Error::unknown("id", "event", event_id))?;
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
    changes::removing(event_id, organizer_id, take).await
}

/// Issues a ticket for places that are taken.
pub(crate) async fn issue(
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

/// Runs a change of a ticket as a step of a transaction. Earlier lists of its user's tickets are not served again after the commit.
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
