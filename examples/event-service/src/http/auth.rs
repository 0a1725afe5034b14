//! `/api/auth`: logging in and out, and what a session says about its user.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use cache_runtime::Sensitive;
use cache_runtime::http::{Session, Sessions};
use cache_runtime::session::{ListedSession, NewSession, SessionData};
use serde::{Deserialize, Serialize};

use super::App;
use super::extract::{Json, Path};
use crate::error::{Error, Result};
use crate::input::password;
use crate::users::Authentication;

/// For answers about a session, which nobody between here and the client shall keep for others.
type Private<T> = ([(HeaderName, &'static str); 1], Answer<T>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    username: String,
    #[serde(deserialize_with = "password")]
    password: Sensitive<String>,
}

/// A session of the user who asks, as a page of devices shows it.
#[derive(Serialize)]
pub(super) struct Device {
    #[serde(flatten)]
    session: ListedSession,
    /// Whether it is the one that asks.
    current: bool,
}

pub(super) async fn log_in(
    State(app): State<App>,
    sessions: Sessions,
    Json(sent): Json<Credentials>,
) -> Result<Private<SessionData>> {
    let user = app.accounts.log_in(&sent.username, &sent.password).await?;
    // The same words for both, so that nobody learns who has an account.
    let user = user.ok_or_else(|| {
        let detail = "the username or the password is wrong";
        Error::refused(StatusCode::UNAUTHORIZED, None, detail)
    })?;
    let is_verified = user.authentication == Authentication::Verified;
    let new = NewSession::new(user.id, sent.username).verified(is_verified);
    let session = sessions.log_in(new).await?;
    Ok(private(session.clone()))
}

/// Logging out twice is logging out once.
pub(super) async fn log_out(sessions: Sessions) -> Result<StatusCode> {
    sessions.log_out().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn log_out_everywhere(session: Session) -> Result<StatusCode> {
    session.log_out_everywhere().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn list(session: Session) -> Result<Private<Vec<Device>>> {
    let id = session.id();
    let devices = session.list().await?.into_iter().map(|session| Device {
        current: session.id == id,
        session,
    });
    Ok(private(devices.collect()))
}

pub(super) async fn end(session: Session, Path(id): Path<String>) -> Result<StatusCode> {
    if id == session.id() {
        session.log_out().await?;
    } else if !session.end(&id).await? {
        return Err(Error::unknown("id", "session", id));
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn me(session: Session) -> Private<SessionData> {
    private(session.clone())
}

/// 403 unless it is this user's session. `field` names what is the user's.
pub(super) fn owner(session: &Session, field: &str, user_id: i64) -> Result<()> {
    if session.user_id == user_id.to_string() {
        return Ok(());
    }
    Err(Error::forbidden(
        field,
        "it is another user's: log in as that user",
    ))
}

fn private<T>(body: T) -> Private<T> {
    ([(header::CACHE_CONTROL, "no-store")], Answer(body))
}
