//! The errors of requests, as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::body::to_bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cache_runtime::session::SessionError;
use serde_json::json;

/// The result of everything that a request does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
#[derive(Debug)]
pub enum Error {
    /// A 4xx: a mistake of the client. Or 503, if the client should try again later.
    Refused(StatusCode, String),
    /// 401 without a session, 503 if that is unknown during an outage.
    Session(SessionError),
    /// 500: details are only in the log.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// A 4xx, or 503.
    pub fn refused(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::Refused(status, detail.into())
    }

    /// 404: there is no `what` with this id.
    pub fn unknown(what: &str, id: impl std::fmt::Display) -> Self {
        Self::refused(StatusCode::NOT_FOUND, format!("there is no {what} {id}"))
    }

    /// 422: what was sent has an invalid value.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::UNPROCESSABLE_ENTITY, detail)
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
        match self {
            Self::Refused(status, detail) => problem(status, &detail),
            // Also a problem.
            Self::Session(error) => error.into_response(),
            Self::Internal(error) => {
                tracing::error!(%error, "a request failed");
                let detail = "something went wrong on our side";
                problem(StatusCode::INTERNAL_SERVER_ERROR, detail)
            }
        }
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let problem = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
    let mut response = (status, content_type, Json(problem)).into_response();
    let (name, value) = match status {
        // RFC 9110 11.6.1 requires a scheme: the same as the framework sends without a session.
        StatusCode::UNAUTHORIZED => (header::WWW_AUTHENTICATE, "Session"),
        StatusCode::SERVICE_UNAVAILABLE => (header::RETRY_AFTER, "5"),
        _ => return response,
    };
    let value = HeaderValue::from_static(value);
    response.headers_mut().insert(name, value);
    response
}

/// Turns the errors of axum into problems: they are plain text, or empty for a path or method that no route has.
pub async fn problems(response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_plain = content_type.is_none_or(|value| value.as_bytes().starts_with(b"text/plain"));
    if !status.is_client_error() || !is_plain {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, 4096).await.unwrap_or_default();
    let detail = match &*String::from_utf8_lossy(&text) {
        "" => format!("{status}: see the routes in the README"),
        text => text.to_owned(),
    };
    let mut response = problem(status, &detail);
    for (name, value) in &parts.headers {
        // Such as `Allow`, and what the layers have added.
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}
