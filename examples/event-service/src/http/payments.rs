//! `/api/payments`

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use cache_runtime::http::Session;
use uuid::Uuid;

use super::App;
use super::auth::{owner, user_of};
use super::extract::{Json, Path};
use crate::error::{Error, Result};
use crate::gateway::Verification;
use crate::payments::{NewPayment, Payment, PaymentStatus};

pub(super) async fn initiate(
    State(app): State<Arc<App>>,
    session: Session,
    Json(new): Json<NewPayment>,
) -> Result<impl IntoResponse> {
    owner(&session, "user_id", new.user_id.get())?;
    let event_id = new.event_id.get();
    let event = super::events::event(&app, "event_id", event_id).await?;
    if !event.is_for(Some(new.user_id.get())) {
        return Err(Error::unknown("event_id", "event", event_id));
    }
    let tx = Uuid::new_v4().to_string();
    let payment = app.payments.initiate(&tx, &new).await?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/api/payments/{tx}"))],
        Answer(payment),
    ))
}

pub(super) async fn find(
    State(app): State<Arc<App>>,
    session: Session,
    Path(tx): Path<String>,
) -> Result<Answer<Payment>> {
    let payment = app.payments.find(&tx).await?;
    let payment = payment.ok_or_else(|| Error::unknown("tx", "payment", tx))?;
    owner(&session, "tx", payment.user_id)?;
    Ok(Answer(payment))
}

pub(super) async fn status(
    State(app): State<Arc<App>>,
    session: Session,
    Path(tx): Path<String>,
) -> Result<Answer<PaymentStatus>> {
    let status = app.payments.status(&tx).await?;
    let status = status.ok_or_else(|| Error::unknown("tx", "payment", tx))?;
    owner(&session, "tx", status.user_id)?;
    Ok(Answer(status))
}

pub(super) async fn confirm(
    State(app): State<Arc<App>>,
    session: Session,
    Path(tx): Path<String>,
) -> Result<Answer<Payment>> {
    let confirmed = app.payments.confirm(&tx, user_of(&session)?);
    Ok(Answer(confirmed.await?))
}

pub(super) async fn verify(
    State(app): State<Arc<App>>,
    session: Session,
    Path(reference): Path<String>,
) -> Result<Answer<Verification>> {
    let verification = app.payments.verify(&reference).await?;
    let verification =
        verification.ok_or_else(|| Error::unknown("reference", "payment", reference))?;
    owner(&session, "reference", verification.user_id)?;
    Ok(Answer(verification))
}
