//! Tickets: bought at `/api/events/{id}/tickets`, listed for their user, and checked in by the organiser.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use cache_runtime::http::Session;

use super::App;
use super::auth::{owner, user_of};
use super::extract::{Json, Path, Query};
use crate::error::{Error, Result};
use crate::tickets::{Purchase, Ticket};

pub(super) async fn buy(
    State(app): State<Arc<App>>,
    session: Session,
    Path(id): Path<i64>,
    Json(purchase): Json<Purchase>,
) -> Result<impl IntoResponse> {
    let buyer = purchase.user_id.get();
    owner(&session, "user_id", buyer)?;
    let ticket = app.tickets.buy(id, buyer, purchase.quantity.get()).await?;
    Ok((StatusCode::CREATED, Answer(ticket)))
}

/// With `?status=`, only the tickets with that status.
pub(super) async fn of_user(
    State(app): State<Arc<App>>,
    session: Session,
    Path(id): Path<i64>,
    query: Query,
) -> Result<Answer<Vec<Ticket>>> {
    owner(&session, "id", id)?;
    let tickets = match query.get("status", "of `valid` and `used`")? {
        Some(status) => app.tickets.of_user_with(id, status).await?,
        None => app.tickets.of_user(id).await?,
    };
    tickets
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "user", id))
}

pub(super) async fn check_in(
    State(app): State<Arc<App>>,
    session: Session,
    Path(id): Path<i64>,
) -> Result<Answer<Ticket>> {
    Ok(Answer(app.tickets.check_in(id, user_of(&session)?).await?))
}
