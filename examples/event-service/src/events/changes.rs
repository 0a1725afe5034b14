//! The changes of events, and what each evicts.
//!
//! Each change of an event that exists goes through `storing` or `removing`, and so through `evicting`.

use cache_runtime::{cache_evict, cache_put};
use serde::Deserialize;

use super::{Event, EventType, Events};
use crate::error::{Error, Result};
use crate::input::{Cents, Id, Text, Whole};

impl Events {
    /// A new event is a draft, so only its organiser's lists contain it.
    #[cache_evict(tag = "organizer:<organizer_id>")]
    pub async fn create(&self, organizer_id: i64, new: &NewEvent) -> Result<Event> {
        let event = sqlx::query_as(
            "INSERT INTO events (organizer_id, title, description, location, state, type, starts_at, price_cents, capacity)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
             RETURNING *",
        )
        .bind(organizer_id)
        .bind(new.title.as_str())
        .bind(new.description.as_str())
        .bind(new.location.as_str())
        .bind(new.state.as_str())
        .bind(new.kind)
        .bind(new.starts_at.get())
        .bind(new.price_cents.get())
        .bind(new.capacity.get());
        Ok(event.fetch_one(self.db.write()).await?)
    }

    // The database decides who owns the event, in the statement that changes it: any program that can write to Redis can change a
    // cached copy.

    pub async fn update(&self, id: i64, organizer_id: i64, change: &EventChange) -> Result<Event> {
        self.check_organizer(id, organizer_id).await?;
        let update = async {
            let updated = sqlx::query_as(
                "UPDATE events
                 SET title = coalesce(?, title), description = coalesce(?, description),
                     location = coalesce(?, location), state = coalesce(?, state), type = coalesce(?, type),
                     starts_at = coalesce(?, starts_at), price_cents = coalesce(?, price_cents),
                     capacity = coalesce(?, capacity)
                 WHERE id = ? AND organizer_id = ?
                 RETURNING *",
            )
            .bind(change.title.as_ref().map(Text::as_str))
            .bind(change.description.as_ref().map(Text::as_str))
            .bind(change.location.as_ref().map(Text::as_str))
            .bind(change.state.as_ref().map(Text::as_str))
            .bind(change.kind)
            .bind(change.starts_at.map(Whole::get))
            .bind(change.price_cents.map(Whole::get))
            .bind(change.capacity.map(Whole::get))
            .bind(id)
            .bind(organizer_id)
            .fetch_optional(self.db.write())
            .await;
            match updated {
                Ok(Some(event)) => Ok(event),
                Ok(None) => Err(self.refused(id).await?),
                Err(error) => Err(match error.as_database_error() {
                    Some(cause) if cause.is_check_violation() => {
                        Error::conflict("capacity", "more tickets are already sold")
                    }
                    _ => error.into(),
                }),
            }
        };
        storing(id, organizer_id, update).await
    }

    pub async fn publish(&self, id: i64, organizer_id: i64) -> Result<Event> {
        self.check_organizer(id, organizer_id).await?;
        let publish = async {
            let published = sqlx::query_as(
                "UPDATE events SET published = TRUE WHERE id = ? AND organizer_id = ? RETURNING *",
            )
            .bind(id)
            .bind(organizer_id)
            .fetch_optional(self.db.write())
            .await?;
            match published {
                Some(event) => Ok(event),
                None => Err(self.refused(id).await?),
            }
        };
        storing(id, organizer_id, publish).await
    }

    /// Returns the event as it was.
    pub async fn delete(&self, id: i64, organizer_id: i64) -> Result<Event> {
        let delete = async {
            let deleted =
                sqlx::query_as("DELETE FROM events WHERE id = ? AND organizer_id = ? RETURNING *")
                    .bind(id)
                    .bind(organizer_id)
                    .fetch_optional(self.db.write())
                    .await?;
            match deleted {
                Some(event) => Ok(event),
                None => Err(self.refused(id).await?),
            }
        };
        removing(id, organizer_id, delete).await
    }

    /// Refuses other users before a put removes the entry. Otherwise their requests would keep the event uncached.
    async fn check_organizer(&self, id: i64, organizer_id: i64) -> Result<()> {
        let organizer = sqlx::query_scalar("SELECT organizer_id FROM events WHERE id = ?").bind(id);
        let organizer: Option<i64> = organizer.fetch_optional(self.db.write()).await?;
        match organizer == Some(organizer_id) {
            true => Ok(()),
            false => Err(self.refused(id).await?),
        }
    }

    /// Returns why a user who is not the organiser cannot change an event. For such users a draft does not exist.
    async fn refused(&self, id: i64) -> Result<Error> {
        let published: Option<bool> =
            sqlx::query_scalar("SELECT published FROM events WHERE id = ?")
                .bind(id)
                .fetch_optional(self.db.write())
                .await?;
        Ok(match published {
            Some(true) => Error::not_theirs("id"),
            Some(false) | None => Error::unknown("id", "event", id),
        })
    }
}

// These functions take the id and the organiser, although a change returns both: what `<return.…>` names is known only if the change
// returns, and a request that is cancelled after its commit must evict, too.

/// Runs a change of an event and stores the event as the change returns it, so that the next read is a hit.
///
/// Not for a step of a transaction, which could fail: a put would keep the event uncached for some time after that.
#[cache_put(key = "event:<id>", ttl = 1800)]
async fn storing(
    id: i64,
    organizer_id: i64,
    change: impl Future<Output = Result<Event>>,
) -> Result<Event> {
    evicting(id, organizer_id, change).await
}

/// Runs a change of an event. If it succeeds, the event from before it is not served again.
#[cache_evict(key = "event:<id>")]
pub(crate) async fn removing(
    id: i64,
    organizer_id: i64,
    change: impl Future<Output = Result<Event>>,
) -> Result<Event> {
    evicting(id, organizer_id, change).await
}

/// Runs a change of an event. If it succeeds, the lists and figures from before it are not served again.
#[cache_evict(key = "analytics:<id>", tag = ["events", "organizer:<organizer_id>"])]
async fn evicting(
    id: i64,
    organizer_id: i64,
    change: impl Future<Output = Result<Event>>,
) -> Result<Event> {
    change.await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    pub organizer_id: Id,
    pub title: Text<200>,
    pub description: Text<5_000>,
    pub location: Text<100>,
    pub state: Text<100>,
    #[serde(rename = "type")]
    pub kind: EventType,
    pub starts_at: StartsAt,
    pub price_cents: Cents<0>,
    pub capacity: Capacity,
}

/// Fields that are missing do not change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventChange {
    pub title: Option<Text<200>>,
    pub description: Option<Text<5_000>>,
    pub location: Option<Text<100>>,
    pub state: Option<Text<100>>,
    #[serde(rename = "type")]
    pub kind: Option<EventType>,
    pub starts_at: Option<StartsAt>,
    pub price_cents: Option<Cents<0>>,
    pub capacity: Option<Capacity>,
}

/// The end of the year 9999.
pub type StartsAt = Whole<0, 253_402_300_799>;
pub type Capacity = Whole<1, 1_000_000>;
