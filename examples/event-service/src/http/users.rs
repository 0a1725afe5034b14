//! `/api/users`, and the leaderboard that they are on.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::App;
use super::extract::{Json, Path};
use crate::error::{Error, Result};
use crate::events::EventPage;
use crate::page::Page;
use crate::tickets::Ticket;
use crate::users::{Authentication, ProfileChange, Referrer, User};

#[derive(Serialize)]
pub(super) struct Followers {
    count: i64,
}

pub(super) async fn find(State(app): State<App>, Path(id): Path<i64>) -> Result<Answer<User>> {
    Ok(Answer(user(&app, "id", id).await?))
}

pub(super) async fn events(
    State(app): State<App>,
    Path(id): Path<i64>,
    page: Page,
) -> Result<Answer<EventPage>> {
    let events = app.events.organized_by(id, page).await?;
    events
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "user", id))
}

pub(super) async fn tickets(
    State(app): State<App>,
    Path(id): Path<i64>,
) -> Result<Answer<Vec<Ticket>>> {
    let tickets = app.tickets.of_user(id).await?;
    tickets
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "user", id))
}

pub(super) async fn followers(
    State(app): State<App>,
    Path(id): Path<i64>,
) -> Result<Answer<Followers>> {
    let count = app.users.followers(id).await?;
    count
        .map(|count| Answer(Followers { count }))
        .ok_or_else(|| Error::unknown("id", "user", id))
}

pub(super) async fn top_referrers(State(app): State<App>) -> Result<Answer<Vec<Referrer>>> {
    Ok(Answer(app.users.top_referrers().await?))
}

pub(super) async fn update(
    State(app): State<App>,
    Path(id): Path<i64>,
    Json(change): Json<ProfileChange>,
) -> Result<Answer<User>> {
    let updated = app.users.update(id, &change).await?;
    updated
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "user", id))
}

pub(super) async fn verify(State(app): State<App>, Path(id): Path<i64>) -> Result<Answer<User>> {
    let verified = app.users.authenticate(id, Authentication::Verified).await?;
    verified
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "user", id))
}

pub(super) async fn unverify(State(app): State<App>, Path(id): Path<i64>) -> Result<Answer<User>> {
    let unverified = app
        .users
        .authenticate(id, Authentication::Unverified)
        .await?;
    unverified
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "user", id))
}

pub(super) async fn follow(
    State(app): State<App>,
    Path(ids): Path<(i64, i64)>,
) -> Result<StatusCode> {
    let (followed, follower) = both(&app, ids).await?;
    app.users.follow(followed.id, follower.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unfollow(
    State(app): State<App>,
    Path(ids): Path<(i64, i64)>,
) -> Result<StatusCode> {
    let (followed, follower) = both(&app, ids).await?;
    app.users.unfollow(followed.id, follower.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The user that `field` names.
pub(super) async fn user(app: &App, field: &str, id: i64) -> Result<User> {
    app.users
        .find(id)
        .await?
        .ok_or_else(|| Error::unknown(field, "user", id))
}

async fn both(app: &App, (id, follower_id): (i64, i64)) -> Result<(User, User)> {
    if id == follower_id {
        return Err(Error::invalid("follower_id", "nobody follows themselves"));
    }
    Ok((
        user(app, "id", id).await?,
        user(app, "follower_id", follower_id).await?,
    ))
}
