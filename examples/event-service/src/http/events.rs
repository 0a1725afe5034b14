//! `/api/events`

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use cache_runtime::http::Session;

use super::App;
use super::auth::owner;
use super::extract::{Json, Path};
use crate::error::{Error, Result};
use crate::events::{Analytics, Event, EventChange, EventPage, NewEvent};
use crate::page::Page;
use crate::tickets::Purchase;

pub(super) async fn published(State(app): State<App>, page: Page) -> Result<Answer<EventPage>> {
    Ok(Answer(app.events.published(page).await?))
}

pub(super) async fn trending(State(app): State<App>, page: Page) -> Result<Answer<EventPage>> {
    Ok(Answer(app.events.trending(page).await?))
}

pub(super) async fn near(
    State(app): State<App>,
    Path(location): Path<String>,
    page: Page,
) -> Result<Answer<EventPage>> {
    if location.chars().count() > 100 {
        return Err(Error::malformed(
            "location",
            "it must be text of 1 to 100 characters",
        ));
    }
    Ok(Answer(app.events.near(&location, page).await?))
}

pub(super) async fn find(State(app): State<App>, Path(id): Path<i64>) -> Result<Answer<Event>> {
    Ok(Answer(event(&app, "id", id).await?))
}

pub(super) async fn analytics(
    State(app): State<App>,
    Path(id): Path<i64>,
) -> Result<Answer<Analytics>> {
    let analytics = app.events.analytics(id).await?;
    analytics
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "event", id))
}

pub(super) async fn create(
    State(app): State<App>,
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

// A change is given the event as it was read, perhaps from the cache: it needs its number and its organiser, and these
// never change.

pub(super) async fn update(
    State(app): State<App>,
    session: Session,
    Path(id): Path<i64>,
    Json(change): Json<EventChange>,
) -> Result<Answer<Event>> {
    let event = own_event(&app, &session, id).await?;
    let updated = app.events.update(&event, &change).await?;
    updated
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "event", id))
}

pub(super) async fn publish(
    State(app): State<App>,
    session: Session,
    Path(id): Path<i64>,
) -> Result<Answer<Event>> {
    let event = own_event(&app, &session, id).await?;
    let published = app.events.publish(&event).await?;
    published
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "event", id))
}

pub(super) async fn delete(
    State(app): State<App>,
    session: Session,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    let event = own_event(&app, &session, id).await?;
    match app.events.delete(&event).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Error::unknown("id", "event", id)),
    }
}

pub(super) async fn buy(
    State(app): State<App>,
    session: Session,
    Path(id): Path<i64>,
    Json(purchase): Json<Purchase>,
) -> Result<impl IntoResponse> {
    let buyer = purchase.user_id.get();
    owner(&session, "user_id", buyer)?;
    let event = event(&app, "id", id).await?;
    let ticket = app.tickets.buy(&event, buyer, purchase.quantity.get());
    let ticket = ticket.await?;
    Ok((StatusCode::CREATED, Answer(ticket)))
}

/// The event that `field` names.
pub(super) async fn event(app: &App, field: &str, id: i64) -> Result<Event> {
    app.events
        .find(id)
        .await?
        .ok_or_else(|| Error::unknown(field, "event", id))
}

/// The event of this number, if the session is its organiser's.
async fn own_event(app: &App, session: &Session, id: i64) -> Result<Event> {
    let event = event(app, "id", id).await?;
    owner(session, "id", event.organizer_id)?;
    Ok(event)
}
