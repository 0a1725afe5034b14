//! `/api/events`

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use cache_runtime::http::{Session, Sessions};

use super::auth::{owner, user_of, viewer};
use super::extract::{Json, Path, Query};
use super::{App, PRIVATE};
use crate::error::{Error, Result};
use crate::events::changes::{EventChange, NewEvent};
use crate::events::{Event, EventPage, EventType, Types};
use crate::page::Page;

/// Which published events a list has.
pub(super) enum Filter {
    Everywhere,
    In { state: String, types: Types },
}

impl<S: Send + Sync> FromRequestParts<S> for Filter {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let query = Query::from_request_parts(parts, state).await?;
        let types = match query.get::<EventType>("type", "type of events, such as `concert`")? {
            Some(kind) => Types::Only(kind),
            None => Types::All,
        };
        match query.get::<String>("state", "name of a state")? {
            Some(state) => {
                check_place("state", &state)?;
                Ok(Self::In { state, types })
            }
            None if types == Types::All => Ok(Self::Everywhere),
            None => Err(Error::malformed("state", "a type needs a state")),
        }
    }
}

/// With `?state=`, only the events in that state.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    filter: Filter,
    page: Page,
) -> Result<Answer<EventPage>> {
    let found = match filter {
        Filter::Everywhere => app.events.published(page).await,
        Filter::In { state, types } => app.events.in_state(&state, types, page).await,
    };
    Ok(Answer(found?))
}

pub(super) async fn trending(State(app): State<Arc<App>>, page: Page) -> Result<Answer<EventPage>> {
    Ok(Answer(app.events.trending(page).await?))
}

pub(super) async fn near(
    State(app): State<Arc<App>>,
    Path(location): Path<String>,
    page: Page,
) -> Result<Answer<EventPage>> {
    check_place("location", &location)?;
    Ok(Answer(app.events.near(&location, page).await?))
}

pub(super) async fn find(
    State(app): State<Arc<App>>,
    sessions: Sessions,
    Path(id): Path<i64>,
) -> Result<Response> {
    let event = event(&app, "id", id).await?;
    let (published, organizer_id) = (event.published, event.organizer_id);
    shown(&sessions, Answer(event), id, published, organizer_id).await
}

pub(super) async fn analytics(
    State(app): State<Arc<App>>,
    sessions: Sessions,
    Path(id): Path<i64>,
) -> Result<Response> {
    let found = app.events.analytics(id).await?;
    let found = found.ok_or_else(|| Error::unknown("id", "event", id))?;
    let (published, organizer_id) = (found.published, found.organizer_id);
    shown(
        &sessions,
        Answer(found.figures),
        id,
        published,
        organizer_id,
    )
    .await
}

/// Returns an event if the client may see it. Only its organiser sees a draft. The session is checked only for a draft.
async fn shown(
    sessions: &Sessions,
    answer: impl IntoResponse,
    id: i64,
    published: bool,
    organizer_id: i64,
) -> Result<Response> {
    if published {
        return Ok(answer.into_response());
    }
    match viewer(sessions).await? {
        Some(user) if user == organizer_id => Ok((PRIVATE, answer).into_response()),
        _ => Err(Error::unknown("id", "event", id)),
    }
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    session: Session,
    Json(new): Json<NewEvent>,
) -> Result<impl IntoResponse> {
    owner(&session, "organizer_id", new.organizer_id.get())?;
    let event = app.events.create(new.organizer_id.get(), &new).await?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/api/events/{}", event.id))],
        Answer(event),
    ))
}

pub(super) async fn update(
    State(app): State<Arc<App>>,
    session: Session,
    Path(id): Path<i64>,
    Json(change): Json<EventChange>,
) -> Result<Answer<Event>> {
    let organizer = user_of(&session)?;
    Ok(Answer(app.events.update(id, organizer, &change).await?))
}

pub(super) async fn publish(
    State(app): State<Arc<App>>,
    session: Session,
    Path(id): Path<i64>,
) -> Result<Answer<Event>> {
    Ok(Answer(app.events.publish(id, user_of(&session)?).await?))
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    session: Session,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    app.events.delete(id, user_of(&session)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns 400 unless a place may have this name.
pub(super) fn check_place(field: &str, name: &str) -> Result<()> {
    match (1..=100).contains(&name.chars().count()) {
        true => Ok(()),
        false => Err(Error::malformed(
            field,
            "it must be text of 1 to 100 characters",
        )),
    }
}

/// Returns the event that `field` names.
pub(super) async fn event(app: &App, field: &str, id: i64) -> Result<Event> {
    app.events
        .find(id)
        .await?
        .ok_or_else(|| Error::unknown(field, "event", id))
}
