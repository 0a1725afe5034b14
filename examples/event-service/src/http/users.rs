//! `/api/users`, and the leaderboard that they are on.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use cache_runtime::http::Session;
use serde::Serialize;

use super::App;
use super::auth::owner;
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
    Ok(Answer(user(&app, id).await?))
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
    session: Session,
    Path(id): Path<i64>,
    Json(change): Json<ProfileChange>,
) -> Result<Answer<User>> {
    owner(&session, "id", id)?;
    let updated = app.users.update(id, &change).await?;
    updated
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "user", id))
}

pub(super) async fn verify(
    State(app): State<App>,
    session: Session,
    Path(id): Path<i64>,
) -> Result<Answer<User>> {
    authenticate(&app, session, id, Authentication::Verified).await
}

pub(super) async fn unverify(
    State(app): State<App>,
    session: Session,
    Path(id): Path<i64>,
) -> Result<Answer<User>> {
    authenticate(&app, session, id, Authentication::Unverified).await
}

pub(super) async fn follow(
    State(app): State<App>,
    session: Session,
    Path((id, follower_id)): Path<(i64, i64)>,
) -> Result<StatusCode> {
    check_follower(&app, &session, id, follower_id).await?;
    app.users.follow(id, follower_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unfollow(
    State(app): State<App>,
    session: Session,
    Path((id, follower_id)): Path<(i64, i64)>,
) -> Result<StatusCode> {
    check_follower(&app, &session, id, follower_id).await?;
    app.users.unfollow(id, follower_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn authenticate(
    app: &App,
    mut session: Session,
    id: i64,
    status: Authentication,
) -> Result<Answer<User>> {
    owner(&session, "id", id)?;
    let user = app.users.authenticate(id, status).await?;
    let user = user.ok_or_else(|| Error::unknown("id", "user", id))?;
    // A session says how far its user is trusted. This one is told, and gets a new token: whoever has the old one by stealth
    // shall not gain by the change.
    let is_verified = status == Authentication::Verified;
    session
        .update(|data| data.is_verified = is_verified)
        .await?;
    session.rotate().await?;
    // Those elsewhere would go on saying what was true before, so they end. Only now: of two clicks at once one gets here, since
    // the old token is gone for the other, which would else end the session that the first has just been given.
    session.log_out_others().await?;
    Ok(Answer(user))
}

/// One follows in one's own name, and somebody else who is there.
async fn check_follower(app: &App, session: &Session, id: i64, follower_id: i64) -> Result<()> {
    owner(session, "follower_id", follower_id)?;
    if id == follower_id {
        return Err(Error::invalid("follower_id", "nobody follows themselves"));
    }
    user(app, id).await.map(drop)
}

async fn user(app: &App, id: i64) -> Result<User> {
    app.users
        .find(id)
        .await?
        .ok_or_else(|| Error::unknown("id", "user", id))
}
