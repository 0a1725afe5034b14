//! `/api/groupbuys`

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use cache_runtime::http::Session;
use serde::Serialize;

use super::App;
use super::auth::owner;
use super::extract::{Json, Path};
use crate::error::{Error, Result};
use crate::group_buys::{GroupBuy, Joining, NewGroupBuy, Status};

#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    group: GroupBuy,
    status: Status,
}

impl From<GroupBuy> for Shown {
    fn from(group: GroupBuy) -> Self {
        let status = group.status();
        Self { group, status }
    }
}

pub(super) async fn find(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Result<Answer<Shown>> {
    let group = app.group_buys.find(id).await?;
    let group = group.ok_or_else(|| Error::unknown("id", "group buy", id))?;
    Ok(Answer(group.into()))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    session: Session,
    Path(event_id): Path<i64>,
    Json(new): Json<NewGroupBuy>,
) -> Result<impl IntoResponse> {
    owner(&session, "user_id", new.user_id.get())?;
    let group = app.group_buys.create(event_id, &new).await?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/api/groupbuys/{}", group.id))],
        Answer(Shown::from(group)),
    ))
}

pub(super) async fn join(
    State(app): State<Arc<App>>,
    session: Session,
    Path(id): Path<i64>,
    Json(joining): Json<Joining>,
) -> Result<Answer<Shown>> {
    let user_id = joining.user_id.get();
    owner(&session, "user_id", user_id)?;
    let group = app.group_buys.join(id, user_id).await?;
    Ok(Answer(group.into()))
}
