//! Requirements: written by teams, found by everybody.

use axum::http::StatusCode;
use cache_runtime::{CacheScope, KeyPart, cache_evict, cache_put, cacheable};
use serde::{Deserialize, Serialize};
use sqlx::{Any, AnyConnection, Executor, FromRow};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::input::Text;

/// The requirements of a page of a search.
const PAGE: i64 = 20;

/// The last page of a search that is answered. Clients should search for more words instead.
const LAST_PAGE: u32 = 50;

/// The longest text of a search, in characters.
const MAX_TEXT: usize = 64;

#[cacheable(key = "requirement:<id>", policy = "requirements", ignore = [db])]
pub async fn find(db: &Db, id: i64) -> Result<Option<Requirement>> {
    let find = "SELECT id, team, title, description, status FROM requirements WHERE id = $1";
    let found = sqlx::query_as(find).bind(id);
    Ok(found.fetch_optional(db.pool()).await?)
}

/// A page of a search, beginning with the newest. Clients choose the text, so the key has a hash of the filter, and only pages
/// that contain something are stored: text that nothing contains leaves no entry.
#[cacheable(
    key = "search:<filter>",
    policy = "queries",
    tag = "requirements",
    unless = |found| found.is_empty(),
    ignore = [db],
)]
pub async fn search(db: &Db, filter: &Filter) -> Result<Vec<Requirement>> {
    let found = sqlx::query_as(
        r"SELECT id, team, title, description, status FROM requirements
          WHERE ($1 = '' OR status = $1) AND folded LIKE $2 ESCAPE '\'
          ORDER BY id DESC LIMIT $3 OFFSET $4",
    )
    .bind(filter.status.map_or("", Status::as_str))
    .bind(filter.like())
    .bind(PAGE)
    .bind(i64::from(filter.page - 1) * PAGE);
    Ok(found.fetch_all(db.pool()).await?)
}

/// Returns the ids of the newest requirements, for warming.
pub(crate) async fn newest(db: &Db, limit: i64) -> sqlx::Result<Vec<i64>> {
    let ids = sqlx::query_scalar("SELECT id FROM requirements ORDER BY id DESC LIMIT $1");
    ids.bind(limit).fetch_all(db.pool()).await
}

/// A new requirement is a draft of its author's team.
#[cache_evict(tag = "requirements")]
pub async fn create(db: &Db, user_id: i64, new: &NewRequirement) -> Result<Requirement> {
    let created = sqlx::query_as(
        "INSERT INTO requirements (team, title, description, folded)
         VALUES ((SELECT team FROM users WHERE id = $1), $2, $3, $4)
         RETURNING id, team, title, description, status",
    )
    .bind(user_id)
    .bind(new.title.as_str())
    .bind(new.description.as_str())
    .bind(new.folded());
    Ok(db.write(created).await?.ok_or(sqlx::Error::RowNotFound)?)
}

// The database decides who may write: any program that can write to Redis can change a cached copy.

pub async fn update(db: &Db, id: i64, user_id: i64, new: &NewRequirement) -> Result<Requirement> {
    // Before the put, which removes the entry: otherwise refused requests would keep it uncached.
    let ours = "SELECT id FROM requirements WHERE id = $1 AND team = (SELECT team FROM users WHERE id = $2)";
    let ours = sqlx::query(ours).bind(id).bind(user_id);
    let ours = ours.fetch_optional(db.pool()).await?;
    written(db.pool(), id, ours).await?;
    replace(db, id, user_id, new).await
}

/// The entry is replaced by the new requirement, because the author reads it next. Searches load again.
#[cache_put(key = "requirement:<id>", policy = "requirements")]
#[cache_evict(tag = "requirements")]
async fn replace(db: &Db, id: i64, user_id: i64, new: &NewRequirement) -> Result<Requirement> {
    let updated = sqlx::query_as(
        "UPDATE requirements SET title = $1, description = $2, folded = $3
         WHERE id = $4 AND team = (SELECT team FROM users WHERE id = $5)
         RETURNING id, team, title, description, status",
    )
    .bind(new.title.as_str())
    .bind(new.description.as_str())
    .bind(new.folded())
    .bind(id)
    .bind(user_id);
    written(db.pool(), id, db.write(updated).await?).await
}

/// Deletes the requirement with its features.
#[cache_evict(key = "requirement:<id>", tag = ["requirements", "features:<id>"])]
pub async fn delete(db: &Db, id: i64, user_id: i64) -> Result<()> {
    let delete =
        "DELETE FROM requirements WHERE id = $1 AND team = (SELECT team FROM users WHERE id = $2)";
    let deleted = sqlx::query(delete).bind(id).bind(user_id);
    let deleted = deleted.execute(db.pool()).await?;
    let row = (deleted.rows_affected() > 0).then_some(());
    written(db.pool(), id, row).await
}

/// Accepts a requirement and plans its features, or neither. What the steps evict is evicted after the commit: before it, a reader
/// would store the old values again.
pub async fn accept(db: &Db, id: i64, user_id: i64) -> Result<Requirement> {
    let scope = CacheScope::new();
    let mut tx = db.begin().await?;
    let steps = scope.run(async {
        let accepted = set_accepted(&mut tx, id, user_id).await?;
        plan_features(&mut tx, id).await?;
        Ok(accepted)
    });
    let accepted = steps.await;
    if accepted.is_ok() {
        tx.commit().await?;
        scope.commit().await;
    } else {
        tx.rollback().await?;
        scope.rollback();
    }
    accepted
}

#[cache_evict(key = "requirement:<id>", tag = "requirements")]
async fn set_accepted(tx: &mut AnyConnection, id: i64, user_id: i64) -> Result<Requirement> {
    let accepted = sqlx::query_as(
        "UPDATE requirements SET status = 'accepted'
         WHERE id = $1 AND team = (SELECT team FROM users WHERE id = $2)
         RETURNING id, team, title, description, status",
    );
    let accepted = accepted.bind(id).bind(user_id);
    let accepted = accepted.fetch_optional(&mut *tx).await?;
    written(tx, id, accepted).await
}

#[cache_evict(tag = "features:<requirement_id>")]
async fn plan_features(tx: &mut AnyConnection, requirement_id: i64) -> Result<()> {
    let planned = sqlx::query(
        "UPDATE features SET status = 'planned' WHERE requirement_id = $1 AND status = 'proposed'",
    );
    let planned = planned.bind(requirement_id).execute(tx).await?;
    if planned.rows_affected() == 0 {
        let detail = "no feature of it is proposed: propose one first";
        return Err(Error::refused(StatusCode::CONFLICT, detail));
    }
    Ok(())
}

/// Returns the row that a write to a requirement returned, or why there is none.
pub(crate) async fn written<T>(
    db: impl Executor<'_, Database = Any>,
    id: i64,
    row: Option<T>,
) -> Result<T> {
    if let Some(row) = row {
        return Ok(row);
    }
    let requirement = sqlx::query("SELECT id FROM requirements WHERE id = $1").bind(id);
    let detail = "this belongs to another team: log in as a member of it";
    Err(match requirement.fetch_optional(db).await? {
        Some(_) => Error::refused(StatusCode::FORBIDDEN, detail),
        None => Error::unknown("requirement", id),
    })
}

words! {
    pub enum Status {
        Draft = "draft",
        Accepted = "accepted",
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, FromRow)]
pub struct Requirement {
    pub id: i64,
    pub team: String,
    pub title: String,
    pub description: String,
    pub status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRequirement {
    pub title: Text<200>,
    pub description: Text<5_000>,
}

impl NewRequirement {
    /// Lower case is made here, because SQLite knows only that of ASCII.
    fn folded(&self) -> String {
        let text = format!("{} {}", self.title.as_str(), self.description.as_str());
        text.to_lowercase()
    }
}

/// What a search looks for. Searches that differ only in case or in space around the text are equal.
#[derive(Clone, Debug, PartialEq, Eq, KeyPart)]
#[key_part(hash)]
pub struct Filter {
    status: Option<Status>,
    text: String,
    page: u32,
}

impl Filter {
    /// Returns the filter for the parameters of a request.
    pub fn new(status: Option<Status>, text: &str, page: u32) -> Result<Self> {
        let text = text.trim().to_lowercase();
        if text.chars().count() > MAX_TEXT || text.contains('\0') {
            let advice = format!("`text` must be at most {MAX_TEXT} characters, without NUL");
            return Err(Error::invalid(advice));
        }
        if !(1..=LAST_PAGE).contains(&page) {
            let advice = format!("`page` must be a whole number from 1 to {LAST_PAGE}");
            return Err(Error::invalid(advice));
        }
        Ok(Self { status, text, page })
    }

    /// Returns the pattern of `LIKE`, in which the text stands for itself.
    fn like(&self) -> String {
        let text = self.text.replace('\\', r"\\");
        format!("%{}%", text.replace('%', r"\%").replace('_', r"\_"))
    }
}
