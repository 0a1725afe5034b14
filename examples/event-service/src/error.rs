//! The errors of requests.

use std::fmt::Display;

use axum::http::StatusCode;
use cache_runtime::limit::Limited;
use cache_runtime::session::SessionError;

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
    /// Too many calls of one client: 429, or 503 if that is unknown during an outage.
    Limited(Limited),
    /// 503: the service is overloaded. The client may retry after this many seconds.
    Busy {
        detail: &'static str,
        retry_after: u64,
    },
    /// 401 without a session, 503 if that is unknown during an outage.
    Session(SessionError),
    /// 500: details are only in the log.
    Database(sqlx::Error),
    /// 500: an internal operation failed.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// 400: a parameter of the URL is invalid.
    pub fn malformed(field: &str, detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, Some(field), detail)
    }

    /// 403: `field` belongs to another user.
    pub fn forbidden(field: &str, detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::FORBIDDEN, Some(field), detail)
    }

    /// 403: only another user may see or change `field`.
    pub fn not_theirs(field: &str) -> Self {
        Self::forbidden(field, "this belongs to another user: log in as that user")
    }

    /// 404: `field` names something that does not exist.
    pub fn unknown(field: &str, what: &str, id: impl Display) -> Self {
        Self::refused(
            StatusCode::NOT_FOUND,
            Some(field),
            format!("there is no {what} {id}"),
        )
    }

    /// 409: the request is valid, but not possible now.
    pub fn conflict(field: &str, detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::CONFLICT, Some(field), detail)
    }

    /// 422: the field has an invalid value.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::UNPROCESSABLE_ENTITY, Some(field), detail)
    }

    /// 500: an internal operation failed.
    pub fn internal(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(cause))
    }

    /// Any other 4xx.
    pub fn refused(status: StatusCode, field: Option<&str>, detail: impl Into<String>) -> Self {
        Self::Refused {
            status,
            field: field.map(str::to_owned),
            detail: detail.into(),
        }
    }
}

/// For functions with `#[rate_limit]`.
impl From<Limited> for Error {
    fn from(limited: Limited) -> Self {
        Self::Limited(limited)
    }
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}
