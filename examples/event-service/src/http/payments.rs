//! `/api/payments`

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use cache_runtime::http::Session;
use uuid::Uuid;

use super::App;
use super::auth::owner;
use super::extract::{Json, Path};
use crate::error::{Error, Result};
use crate::gateway::Verification;
use crate::payments::{NewPayment, Payment};

pub(super) async fn initiate(
    State(app): State<App>,
    session: Session,
    Json(new): Json<NewPayment>,
) -> Result<impl IntoResponse> {
    owner(&session, "user_id", new.user_id.get())?;
    super::events::event(&app, "event_id", new.event_id.get()).await?;
    let tx = Uuid::new_v4().to_string();
    let payment = app.payments.initiate(&tx, &new).await?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/api/payments/{tx}"))],
        Answer(payment),
    ))
}

pub(super) async fn find(
    State(app): State<App>,
    Path(tx): Path<String>,
) -> Result<Answer<Payment>> {
    Ok(Answer(payment(&app, &tx).await?))
}

pub(super) async fn confirm(
    State(app): State<App>,
    session: Session,
    Path(tx): Path<String>,
) -> Result<Answer<Payment>> {
    let payment = payment(&app, &tx).await?;
    owner(&session, "tx", payment.user_id)?;
    let settled = app.payments.confirm(&payment).await?;
    settled
        .map(Answer)
        .ok_or_else(|| Error::conflict("tx", "the payment was confirmed or has failed before"))
}

pub(super) async fn verify(
    State(app): State<App>,
    Path(reference): Path<String>,
) -> Result<Answer<Verification>> {
    let verification = app.payments.verify(&reference).await?;
    verification
        .map(Answer)
        .ok_or_else(|| Error::unknown("reference", "payment", reference))
}

async fn payment(app: &App, tx: &str) -> Result<Payment> {
    app.payments
        .find(tx)
        .await?
        .ok_or_else(|| Error::unknown("tx", "payment", tx))
}
