//! Errors as `application/problem+json` (RFC 9457), with the name of the field.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::Error;

#[derive(Serialize)]
struct Problem {
    /// `about:blank`: the status is sufficient.
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let retry_after = match self {
            Self::Busy { retry_after, .. } => Some(retry_after),
            _ => None,
        };
        let (status, field, detail) = match self {
            Self::Refused {
                status,
                field,
                detail,
            } => (status, field, detail),
            Self::Busy { detail, .. } => (StatusCode::SERVICE_UNAVAILABLE, None, detail.to_owned()),
            // Also a problem, with the headers that tell the client when to retry.
            Self::Limited(limited) => return limited.into_response(),
            Self::Session(error) => return error.into_response(),
            Self::Database(error) => {
                tracing::error!(%error, "the database failed");
                our_fault()
            }
            Self::Internal(error) => {
                tracing::error!(%error, "a request failed");
                our_fault()
            }
        };
        let title = status.canonical_reason().unwrap_or("Error");
        let problem = Problem {
            r#type: "about:blank",
            title,
            status: status.as_u16(),
            detail,
            field,
        };
        let mut response = (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            Json(problem),
        )
            .into_response();
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 11.6.1 requires a scheme: the same as the framework sends without a session.
            let headers = response.headers_mut();
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Session"),
            );
        }
        response
    }
}

fn our_fault() -> (StatusCode, Option<String>, String) {
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        None,
        "something went wrong on our side".to_owned(),
    )
}
