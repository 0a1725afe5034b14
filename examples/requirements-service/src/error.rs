//! The errors of requests, as `application/problem+json` (RFC 9457) with the name of the field.

use std::fmt::Display;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cache_runtime::session::SessionError;
use serde_json::json;

/// The result of everything that a request does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
#[derive(Debug)]
pub enum Error {
    /// A mistake of the client: a 4xx status and, if a single field or parameter is wrong, its name.
    Refused {
        status: StatusCode,
        field: Option<String>,
        detail: String,
    },
    /// 401 without a session, 503 if that is unknown during an outage.
    Session(SessionError),
    /// 500: details are only in the log.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// A 4xx. `field` is the name of the wrong field or parameter.
    pub fn refused(status: StatusCode, field: Option<&str>, detail: impl Into<String>) -> Self {
        Self::Refused {
            status,
            field: field.map(str::to_owned),
            detail: detail.into(),
        }
    }

    /// 400: a parameter of the URL is invalid, or the body is not JSON.
    pub fn malformed(field: &str, detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, Some(field), detail)
    }

    /// 404: `field` names something that does not exist.
    pub fn unknown(field: &str, what: &str, id: impl Display) -> Self {
        let detail = format!("there is no {what} {id}");
        Self::refused(StatusCode::NOT_FOUND, Some(field), detail)
    }

    /// 403: only another team may change `field`.
    pub fn not_theirs(field: &str) -> Self {
        let detail = "this belongs to another team: log in as a member of it";
        Self::refused(StatusCode::FORBIDDEN, Some(field), detail)
    }

    /// 409: the request is valid, but not possible now.
    pub fn conflict(field: &str, detail: &str) -> Self {
        Self::refused(StatusCode::CONFLICT, Some(field), detail)
    }

    /// 422: the field has an invalid value.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::UNPROCESSABLE_ENTITY, Some(field), detail)
    }

    /// 500: an internal operation failed.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::internal(error)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, field, detail) = match self {
            Self::Refused {
                status,
                field,
                detail,
            } => (status, field, detail),
            // Also a problem.
            Self::Session(error) => return error.into_response(),
            Self::Internal(error) => {
                tracing::error!(%error, "a request failed");
                let detail = "something went wrong on our side".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, None, detail)
            }
        };
        let mut problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
        });
        if let Some(field) = field {
            problem["field"] = field.into();
        }
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, content_type, Json(problem)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 11.6.1 requires a scheme: the same as the framework sends without a session.
            let scheme = HeaderValue::from_static("Session");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
