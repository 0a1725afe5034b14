//! `/api/auth`: logging in and out, and the data of sessions.

use std::sync::Arc;

use axum::Extension;
use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use cache_runtime::Sensitive;
use cache_runtime::http::{ClientIp, Session, Sessions};
use cache_runtime::session::{ListedSession, NewSession, SessionData};
use serde::{Deserialize, Serialize};

use super::extract::{Json, Path};
use super::{App, SetDevice};
use crate::error::{Error, Result};
use crate::input::password;
use crate::users::Authentication;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    username: String,
    #[serde(deserialize_with = "password")]
    password: Sensitive<String>,
}

/// A session of the current user, as in a list of devices.
#[derive(Serialize)]
pub(super) struct Device {
    #[serde(flatten)]
    session: ListedSession,
    /// Whether it is the current session.
    current: bool,
}

pub(super) async fn log_in(
    State(app): State<Arc<App>>,
    sessions: Sessions,
    ClientIp(address): ClientIp,
    headers: HeaderMap,
    Json(sent): Json<Credentials>,
) -> Result<impl IntoResponse> {
    let cookie = app.device_cookie.read(&headers);
    let device = app.devices.find(cookie, &sent.username).await?;
    let attempt = app.guesses.admit(&sent.username, device.as_ref(), address);
    let attempt = attempt.await?;
    let outcome = app.accounts.log_in(&sent.username, &sent.password).await;
    let user = match outcome {
        Ok(Ok(user)) => user,
        Ok(Err(wrong)) => {
            attempt.failed(&wrong);
            // The same text for a wrong name and a wrong password, so that names of accounts are not revealed.
            let detail = "the username or the password is wrong";
            return Err(Error::refused(StatusCode::UNAUTHORIZED, None, detail));
        }
        Err(error) => {
            attempt.forgive().await;
            return Err(error);
        }
    };
    attempt.forgive().await;
    let is_verified = user.authentication == Authentication::Verified;
    let new = NewSession::new(user.id, sent.username).verified(is_verified);
    let session = sessions.log_in(new).await?;
    let device = app.devices.remember(user.id, device).await?;
    let cookie = app.device_cookie.set(&device).map_err(Error::internal)?;
    Ok((Extension(SetDevice(cookie)), Answer(session.clone())))
}

/// Logging out twice has the same effect as once.
pub(super) async fn log_out(sessions: Sessions) -> Result<StatusCode> {
    sessions.log_out().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn log_out_everywhere(session: Session) -> Result<StatusCode> {
    session.log_out_everywhere().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn list(session: Session) -> Result<Answer<Vec<Device>>> {
    let id = session.id();
    let devices = session.list().await?.into_iter().map(|session| Device {
        current: session.id == id,
        session,
    });
    Ok(Answer(devices.collect()))
}

pub(super) async fn end(session: Session, Path(id): Path<String>) -> Result<StatusCode> {
    if id == session.id() {
        session.log_out().await?;
    } else if !session.end(&id).await? {
        return Err(Error::unknown("id", "session", id));
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn me(session: Session) -> Answer<SessionData> {
    Answer(session.clone())
}

/// Returns the user of the session.
pub(super) fn user_of(session: &Session) -> Result<i64> {
    session.user_id.parse().map_err(Error::internal)
}

/// Returns 403 unless this user is logged in. `field` names what belongs to the user.
pub(super) fn owner(session: &Session, field: &str, user_id: i64) -> Result<()> {
    match user_of(session)? == user_id {
        true => Ok(()),
        false => Err(Error::not_theirs(field)),
    }
}

/// Returns the current user, if logged in.
pub(super) async fn viewer(sessions: &Sessions) -> Result<Option<i64>> {
    match sessions.current().await {
        Ok(session) => user_of(&session).map(Some),
        Err(error) if error.is_logged_out() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
