//! `/api/events`

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::App;
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
    Json(new): Json<NewEvent>,
) -> Result<impl IntoResponse> {
    let organizer = super::users::user(&app, "organizer_id", new.organizer_id.get()).await?;
    let event = app.events.create(organizer.id, &new).await?;
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
    Path(id): Path<i64>,
    Json(change): Json<EventChange>,
) -> Result<Answer<Event>> {
    let updated = app
        .events
        .update(&event(&app, "id", id).await?, &change)
        .await?;
    updated
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "event", id))
}

pub(super) async fn publish(State(app): State<App>, Path(id): Path<i64>) -> Result<Answer<Event>> {
    let published = app.events.publish(&event(&app, "id", id).await?).await?;
    published
        .map(Answer)
        .ok_or_else(|| Error::unknown("id", "event", id))
}

pub(super) async fn delete(State(app): State<App>, Path(id): Path<i64>) -> Result<StatusCode> {
    match app.events.delete(&event(&app, "id", id).await?).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Error::unknown("id", "event", id)),
    }
}

pub(super) async fn buy(
    State(app): State<App>,
    Path(id): Path<i64>,
    Json(purchase): Json<Purchase>,
) -> Result<impl IntoResponse> {
    let event = event(&app, "id", id).await?;
    let user = super::users::user(&app, "user_id", purchase.user_id.get()).await?;
    let ticket = app
        .tickets
        .buy(&event, user.id, purchase.quantity.get())
        .await?;
    Ok((StatusCode::CREATED, Answer(ticket)))
}

/// The event that `field` names.
pub(super) async fn event(app: &App, field: &str, id: i64) -> Result<Event> {
    app.events
        .find(id)
        .await?
        .ok_or_else(|| Error::unknown(field, "event", id))
}
