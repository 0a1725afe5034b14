//! `/api/referrals` and the leaderboard.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use cache_runtime::http::Session;

use super::App;
use super::auth::owner;
use super::extract::{Json, Path};
use crate::error::{Error, Result};
use crate::referrals::{Referral, Referred, Referrer};

pub(super) async fn find(
    State(app): State<Arc<App>>,
    Path(code): Path<String>,
) -> Result<Answer<Referral>> {
    let referral = app.referrals.find(&code).await?;
    referral
        .map(Answer)
        .ok_or_else(|| Error::unknown("code", "referral code", code))
}

pub(super) async fn redeem(
    State(app): State<Arc<App>>,
    session: Session,
    Path(code): Path<String>,
    Json(referred): Json<Referred>,
) -> Result<StatusCode> {
    let user_id = referred.user_id.get();
    owner(&session, "user_id", user_id)?;
    app.referrals.redeem(&code, user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn top_referrers(State(app): State<Arc<App>>) -> Result<Answer<Vec<Referrer>>> {
    Ok(Answer(app.referrals.top_referrers().await?))
}
