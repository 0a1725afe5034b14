//! Group buys: users who buy a ticket each, as soon as enough of them have joined.

use std::time::{SystemTime, UNIX_EPOCH};

use cache_runtime::{cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, SqliteConnection};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::input::{Id, Whole};
use crate::tickets::{issue, take_places};

/// Whether the group is complete depends on these figures, and whether it has expired on the time. So the cached value holds no status.
#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct GroupBuy {
    pub id: i64,
    pub event_id: i64,
    pub target: i64,
    pub participants: i64,
    /// Seconds since 1970.
    pub expires_at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Open,
    /// Each participant has a ticket.
    Complete,
    /// It expired before it was complete.
    Expired,
}

impl GroupBuy {
    /// Returns the status now.
    pub fn status(&self) -> Status {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        if self.participants == self.target {
            Status::Complete
        } else if u64::try_from(self.expires_at).is_ok_and(|end| now < end) {
            Status::Open
        } else {
            Status::Expired
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewGroupBuy {
    /// The first participant.
    pub user_id: Id,
    pub target: Whole<2, 100>,
    /// In seconds: from 1 minute to 30 days.
    pub expires_in: Whole<60, 2_592_000>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joining {
    pub user_id: Id,
}

#[derive(Clone, Debug)]
pub struct GroupBuys {
    db: Db,
}

impl GroupBuys {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    // Without `none_ttl`: a client can guess the next id.
    #[cacheable(key = "groupbuy:<id>", ttl = 300)]
    pub async fn find(&self, id: i64) -> Result<Option<GroupBuy>> {
        let group = sqlx::query_as("SELECT * FROM group_buys WHERE id = ?").bind(id);
        Ok(group.fetch_optional(self.db.read().await).await?)
    }

    pub async fn create(&self, event_id: i64, new: &NewGroupBuy) -> Result<GroupBuy> {
        self.db
            .in_transaction(async |transaction| {
                let id = open(transaction, event_id, new).await?;
                admit(transaction, id, new.user_id.get()).await
            })
            .await
    }

    /// The last participant completes the group: each participant gets a ticket. If the event does not have enough places, the user is
    /// refused and the group stays open.
    pub async fn join(&self, id: i64, user_id: i64) -> Result<GroupBuy> {
        self.db
            .in_transaction(async |transaction| {
                let group = admit(transaction, id, user_id).await?;
                if group.status() == Status::Complete {
                    issue_to_all(transaction, &group, user_id).await?;
                }
                Ok(group)
            })
            .await
    }
}

async fn open(transaction: &mut SqliteConnection, event_id: i64, new: &NewGroupBuy) -> Result<i64> {
    let left: Option<i64> =
        sqlx::query_scalar("SELECT tickets_left FROM events WHERE id = ? AND published")
            .bind(event_id)
            .fetch_optional(&mut *transaction)
            .await?;
    let left = left.ok_or_else(|| Error::unknown("id", "event", event_id))?;
    if left < new.target.get() {
        return Err(Error::conflict("target", format!("only {left} are left")));
    }
    let id = sqlx::query_scalar(
        "INSERT INTO group_buys (event_id, target, expires_at) VALUES (?, ?, unixepoch() + ?) RETURNING id",
    )
    .bind(event_id)
    .bind(new.target.get())
    .bind(new.expires_in.get());
    Ok(id.fetch_one(transaction).await?)
}

/// Adds a participant. The database decides between two users who want the last place.
#[cache_evict(key = "groupbuy:<id>")]
async fn admit(transaction: &mut SqliteConnection, id: i64, user_id: i64) -> Result<GroupBuy> {
    let grown: Option<GroupBuy> = sqlx::query_as(
        "UPDATE group_buys SET participants = participants + 1
         WHERE id = ? AND participants < target AND expires_at > unixepoch()
         RETURNING *",
    )
    .bind(id)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(group) = grown else {
        let group = sqlx::query_as("SELECT * FROM group_buys WHERE id = ?").bind(id);
        let group: Option<GroupBuy> = group.fetch_optional(transaction).await?;
        return Err(match group {
            Some(group) if group.participants == group.target => {
                Error::conflict("id", "the group buy is complete")
            }
            Some(_) => Error::conflict("id", "the group buy has expired"),
            None => Error::unknown("id", "group buy", id),
        });
    };
    let joined = sqlx::query(
        "INSERT OR IGNORE INTO group_buy_participants (group_buy_id, user_id) VALUES (?, ?)",
    )
    .bind(id)
    .bind(user_id)
    .execute(transaction)
    .await?;
    match joined.rows_affected() {
        0 => Err(Error::conflict("user_id", "the user has already joined")),
        _ => Ok(group),
    }
}

async fn issue_to_all(
    transaction: &mut SqliteConnection,
    group: &GroupBuy,
    last: i64,
) -> Result<()> {
    let event = take_places(transaction, group.event_id, last, group.target).await;
    let event = event.map_err(|error| match error {
        Error::Refused { status, detail, .. } => Error::refused(status, Some("id"), detail),
        other => other,
    })?;
    let participants: Vec<i64> =
        sqlx::query_scalar("SELECT user_id FROM group_buy_participants WHERE group_buy_id = ?")
            .bind(group.id)
            .fetch_all(&mut *transaction)
            .await?;
    for user_id in participants {
        issue(transaction, &event, user_id, 1).await?;
    }
    Ok(())
}
