//! The leaderboard.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;

use super::App;
use crate::error::Result;
use crate::referrals::Referrer;

pub(super) async fn top_referrers(State(app): State<Arc<App>>) -> Result<Answer<Vec<Referrer>>> {
    Ok(Answer(app.referrals.top_referrers().await?))
}
