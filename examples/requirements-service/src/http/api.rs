//! `/api`: reads are open to the network of the company, writes need a session.

use axum::Json;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use cache_runtime::http::{Session, Sessions};
use cache_runtime::session::{NewSession, SessionData};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::App;
use crate::accounts::Credentials;
use crate::error::{Error, Result};
use crate::features::{self, Change, Feature, NewFeature};
use crate::input::Text;
use crate::preferences::{self, Preferences};
use crate::requirements::{self, Filter, NewRequirement, Requirement, Status};
use crate::schemas::{self, Field, Verdict};

type Answer<T> = Result<Json<T>>;

/// The user of the session.
pub(super) struct User(i64);

impl FromRequestParts<App> for User {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let session = Session::<()>::from_request_parts(parts, app).await?;
        session.user_id.parse().map(Self).map_err(Error::internal)
    }
}

pub(super) async fn log_in(
    State(app): State<App>,
    sessions: Sessions,
    Json(credentials): Json<Credentials>,
) -> Answer<SessionData> {
    let user = app.accounts.log_in(credentials).await?;
    let session = sessions.log_in(NewSession::new(user.id, user.name)).await?;
    Ok(Json(session.clone()))
}

/// Logging out twice has the same effect as once.
pub(super) async fn log_out(sessions: Sessions) -> Result<StatusCode> {
    sessions.log_out().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn me(session: Session) -> Json<SessionData> {
    Json(session.clone())
}

pub(super) async fn preferences(State(app): State<App>, User(user): User) -> Answer<Preferences> {
    preferences::of(&app.db, user).await.map(Json)
}

pub(super) async fn set_preferences(
    State(app): State<App>,
    User(user): User,
    Json(new): Json<Preferences>,
) -> Answer<Preferences> {
    preferences::set(&app.db, user, new).await.map(Json)
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
) -> Answer<Vec<Requirement>> {
    let filter = Filter::new(search.status, &search.text, search.page.unwrap_or(1))?;
    requirements::search(&app.db, &filter).await.map(Json)
}

pub(super) async fn create(
    State(app): State<App>,
    User(user): User,
    Json(new): Json<NewRequirement>,
) -> Result<(StatusCode, Json<Requirement>)> {
    let created = requirements::create(&app.db, user, &new).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

pub(super) async fn find(State(app): State<App>, Path(id): Path<i64>) -> Answer<Requirement> {
    let found = requirements::find(&app.db, id).await?;
    let unknown = || Error::unknown("requirement", id);
    found.map(Json).ok_or_else(unknown)
}

pub(super) async fn update(
    State(app): State<App>,
    User(user): User,
    Path(id): Path<i64>,
    Json(new): Json<NewRequirement>,
) -> Answer<Requirement> {
    let updated = requirements::update(&app.db, id, user, &new).await?;
    Ok(Json(updated))
}

pub(super) async fn delete(
    State(app): State<App>,
    User(user): User,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    requirements::delete(&app.db, id, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn accept(
    State(app): State<App>,
    User(user): User,
    Path(id): Path<i64>,
) -> Answer<Requirement> {
    requirements::accept(&app.db, id, user).await.map(Json)
}

/// An unknown requirement has no features, too.
pub(super) async fn features(State(app): State<App>, Path(id): Path<i64>) -> Answer<Vec<Feature>> {
    features::of(&app.db, id).await.map(Json)
}

pub(super) async fn propose(
    State(app): State<App>,
    User(user): User,
    Path(id): Path<i64>,
    Json(new): Json<NewFeature>,
) -> Result<(StatusCode, Json<Feature>)> {
    let created = features::propose(&app.db, id, user, &new).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

pub(super) async fn feature(State(app): State<App>, Path(id): Path<i64>) -> Answer<Feature> {
    let found = features::find(&app.db, id).await?;
    found.map(Json).ok_or_else(|| Error::unknown("feature", id))
}

pub(super) async fn set_feature(
    State(app): State<App>,
    User(user): User,
    Path(id): Path<i64>,
    Json(change): Json<Change>,
) -> Answer<Feature> {
    let changed = features::set_status(&app.db, id, user, &change).await?;
    Ok(Json(changed))
}

/// Schemas belong to all teams.
pub(super) async fn set_schema(
    State(app): State<App>,
    User(_): User,
    Path(name): Path<Text<64>>,
    Json(fields): Json<Vec<Field>>,
) -> Result<StatusCode> {
    schemas::set(&app.db, &name, &fields).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Needs a session, because each document leaves an entry.
pub(super) async fn validate(
    State(app): State<App>,
    User(_): User,
    Path(name): Path<Text<64>>,
    Json(document): Json<Map<String, Value>>,
) -> Answer<Verdict> {
    let verdict = schemas::validate(&app.db, &name, &document.into()).await?;
    let unknown = || Error::unknown("schema", name.as_str());
    verdict.map(Json).ok_or_else(unknown)
}
