//! `/api`: reads are open to the network of the company, writes need a session.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cache_runtime::http::{Session, Sessions};
use cache_runtime::session::{NewSession, SessionData};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::App;
use super::extract::{Id, Json, Query};
use crate::accounts::Credentials;
use crate::error::{Error, Result};
use crate::features::{Change, Feature, NewFeature};
use crate::preferences::Preferences;
use crate::requirements::{Filter, NewRequirement, Requirement, Status};
use crate::schemas::{Field, Name, Schema, Verdict};

/// Returns the user of the session.
fn user_of(session: &Session) -> Result<i64> {
    session
        .user_id
        .parse()
        .map_err(|error| Error::internal(Box::new(error) as Box<_>))
}

pub(super) async fn log_in(
    State(app): State<App>,
    sessions: Sessions,
    Json(credentials): Json<Credentials>,
) -> Result<Answer<SessionData>> {
    let user = app.accounts.log_in(credentials).await?;
    let session = sessions.log_in(NewSession::new(user.id, user.name)).await?;
    Ok(Answer(session.clone()))
}

/// Logging out twice has the same effect as once.
pub(super) async fn log_out(sessions: Sessions) -> Result<StatusCode> {
    sessions.log_out().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn me(session: Session) -> Answer<SessionData> {
    Answer(session.clone())
}

pub(super) async fn preferences(
    State(app): State<App>,
    session: Session,
) -> Result<Answer<Preferences>> {
    let preferences = app.preferences.of(user_of(&session)?).await?;
    Ok(Answer(preferences))
}

pub(super) async fn set_preferences(
    State(app): State<App>,
    session: Session,
    Json(new): Json<Preferences>,
) -> Result<Answer<Preferences>> {
    let preferences = app.preferences.set(user_of(&session)?, new).await?;
    Ok(Answer(preferences))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    status: Option<Status>,
    #[serde(default)]
    text: String,
    page: Option<u32>,
}

pub(super) async fn search(
    State(app): State<App>,
    Query(search): Query<Search>,
) -> Result<Answer<Vec<Requirement>>> {
    let filter = Filter::new(search.status, &search.text, search.page.unwrap_or(1))?;
    Ok(Answer(app.requirements.search(&filter).await?))
}

pub(super) async fn create(
    State(app): State<App>,
    session: Session,
    Json(new): Json<NewRequirement>,
) -> Result<(StatusCode, Answer<Requirement>)> {
    let created = app.requirements.create(user_of(&session)?, &new).await?;
    Ok((StatusCode::CREATED, Answer(created)))
}

pub(super) async fn find(State(app): State<App>, Id(id): Id) -> Result<Answer<Requirement>> {
    let found = app.requirements.find(id).await?;
    let found = found.ok_or_else(|| Error::unknown("id", "requirement", id))?;
    Ok(Answer(found))
}

pub(super) async fn update(
    State(app): State<App>,
    session: Session,
    Id(id): Id,
    Json(new): Json<NewRequirement>,
) -> Result<Answer<Requirement>> {
    let updated = app
        .requirements
        .update(id, user_of(&session)?, &new)
        .await?;
    Ok(Answer(updated))
}

pub(super) async fn delete(
    State(app): State<App>,
    session: Session,
    Id(id): Id,
) -> Result<StatusCode> {
    app.requirements.delete(id, user_of(&session)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn accept(
    State(app): State<App>,
    session: Session,
    Id(id): Id,
) -> Result<Answer<Requirement>> {
    let accepted = app.requirements.accept(id, user_of(&session)?).await?;
    Ok(Answer(accepted))
}

/// An unknown requirement has no features, too.
pub(super) async fn features(State(app): State<App>, Id(id): Id) -> Result<Answer<Vec<Feature>>> {
    Ok(Answer(app.features.of(id).await?))
}

pub(super) async fn propose(
    State(app): State<App>,
    session: Session,
    Id(id): Id,
    Json(new): Json<NewFeature>,
) -> Result<(StatusCode, Answer<Feature>)> {
    let created = app.features.propose(id, user_of(&session)?, &new).await?;
    Ok((StatusCode::CREATED, Answer(created)))
}

pub(super) async fn feature(State(app): State<App>, Id(id): Id) -> Result<Answer<Feature>> {
    let found = app.features.find(id).await?;
    let found = found.ok_or_else(|| Error::unknown("id", "feature", id))?;
    Ok(Answer(found))
}

pub(super) async fn set_feature(
    State(app): State<App>,
    session: Session,
    Id(id): Id,
    Json(change): Json<Change>,
) -> Result<Answer<Feature>> {
    let changed = app
        .features
        .set_status(id, user_of(&session)?, &change)
        .await?;
    Ok(Answer(changed))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    fields: Vec<Field>,
}

pub(super) async fn schema(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Answer<Value>> {
    let parsed = Name::try_from(name.clone())?;
    match app.schemas.find(&parsed).await? {
        Some(schema) => Ok(Answer(json!({ "fields": schema }))),
        None => Err(Error::unknown("name", "schema", name)),
    }
}

pub(super) async fn set_schema(
    State(app): State<App>,
    _session: Session,
    Path(name): Path<String>,
    Json(new): Json<Fields>,
) -> Result<StatusCode> {
    let schema = Schema::new(new.fields)?;
    app.schemas.set(&Name::try_from(name)?, &schema).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Needs a session, because each document leaves an entry.
pub(super) async fn validate(
    State(app): State<App>,
    _session: Session,
    Path(name): Path<String>,
    Json(document): Json<Map<String, Value>>,
) -> Result<Answer<Verdict>> {
    let parsed = Name::try_from(name.clone())?;
    match app.schemas.validate(&parsed, &document.into()).await? {
        Some(verdict) => Ok(Answer(verdict)),
        None => Err(Error::unknown("name", "schema", name)),
    }
}
