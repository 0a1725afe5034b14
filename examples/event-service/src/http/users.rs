//! `/api/users`

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use cache_runtime::http::{Session, Sessions};
use serde::Serialize;

use super::auth::{owner, viewer};
use super::extract::{Json, Path};
use super::{App, PRIVATE};
use crate::error::{Error, Result};
use crate::page::Page;
use crate::users::{Authentication, ProfileChange, User};

#[derive(Serialize)]
pub(super) struct Followers {
    count: i64,
}

pub(super) async fn find(
    State(app): State<Arc<App>>,
    sessions: Sessions,
    Path(id): Path<i64>,
) -> Result<Response> {
    let viewer = viewer_or_public(&sessions).await;
    let profile = user(&app, id).await?.seen_by(viewer);
    Ok(as_seen_by(viewer == Some(id), Answer(profile)))
}

pub(super) async fn events(
    State(app): State<Arc<App>>,
    sessions: Sessions,
    Path(id): Path<i64>,
    page: Page,
) -> Result<Response> {
    let is_own = viewer_or_public(&sessions).await == Some(id);
    let events = match is_own {
        true => app.events.all_organized_by(id, page).await?,
        false => app.events.organized_by(id, page).await?,
    };
    let events = events.ok_or_else(|| Error::unknown("id", "user", id))?;
    Ok(as_seen_by(is_own, Answer(events)))
}

/// If the user is unknown during an outage, the public profile is returned, so that reads work without Redis.
async fn viewer_or_public(sessions: &Sessions) -> Option<i64> {
    viewer(sessions).await.unwrap_or(None)
}

/// The response depends on the cookie, so caches must know that.
fn as_seen_by(is_own: bool, answer: impl IntoResponse) -> Response {
    let varies = [(header::VARY, "cookie")];
    match is_own {
        true => (PRIVATE, varies, answer).into_response(),
        false => (varies, answer).into_response(),
    }
}

pub(super) async fn followers(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Result<Answer<Followers>> {
    let count = app.users.followers(id).await?;
    count
        .map(|count| Answer(Followers { count }))
        .ok_or_else(|| Error::unknown("id", "user", id))
}

pub(super) async fn update(
    State(app): State<Arc<App>>,
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
    State(app): State<Arc<App>>,
    session: Session,
    Path(id): Path<i64>,
) -> Result<Answer<User>> {
    authenticate(&app, session, id, Authentication::Verified).await
}

pub(super) async fn unverify(
    State(app): State<Arc<App>>,
    session: Session,
    Path(id): Path<i64>,
) -> Result<Answer<User>> {
    authenticate(&app, session, id, Authentication::Unverified).await
}

pub(super) async fn follow(
    State(app): State<Arc<App>>,
    session: Session,
    Path((id, follower_id)): Path<(i64, i64)>,
) -> Result<StatusCode> {
    check_follower(&app, &session, id, follower_id).await?;
    app.users.follow(id, follower_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unfollow(
    State(app): State<Arc<App>>,
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
    // A session records how far its user is trusted. This session is updated and gets a new token, so that a stolen old token does
    // not gain rights.
    let is_verified = status == Authentication::Verified;
    session
        .update(|data| data.is_verified = is_verified)
        .await?;
    session.rotate().await?;
    // Other sessions would keep the old state, so they end. This happens last: of two concurrent clicks only one gets here, because
    // the old token is invalid for the other. Otherwise the second would end the session that the first has just received.
    session.log_out_others().await?;
    Ok(Answer(user))
}

/// Checks that the user follows in their own name, and follows another existing user.
async fn check_follower(app: &App, session: &Session, id: i64, follower_id: i64) -> Result<()> {
    owner(session, "follower_id", follower_id)?;
    if id == follower_id {
        return Err(Error::invalid(
            "follower_id",
            "users cannot follow themselves",
        ));
    }
    user(app, id).await.map(drop)
}

async fn user(app: &App, id: i64) -> Result<User> {
    app.users
        .find(id)
        .await?
        .ok_or_else(|| Error::unknown("id", "user", id))
}
