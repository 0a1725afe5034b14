//! What a request can fail with.

use std::fmt::Display;

use axum::http::StatusCode;
use cache_runtime::limit::Limited;
use cache_runtime::session::SessionError;

/// The result of everything that a request does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
#[derive(Debug)]
pub enum Error {
    /// What the client can mend: a 4xx status and, where one thing is to blame, the field or parameter by its name.
    Refused {
        status: StatusCode,
        field: Option<String>,
        detail: String,
    },
    /// 429, or 503 while nobody can tell: too many calls of one client.
    Limited(Limited),
    /// 503: there is too much to do. The client may come back after so many seconds.
    Busy {
        detail: &'static str,
        retry_after: u64,
    },
    /// 401 if nobody is logged in, 503 while nobody can tell.
    Session(SessionError),
    /// 500: the client learns nothing of it, the log everything.
    Database(sqlx::Error),
    /// 500, as well: our own work could not be done.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// 400: a parameter of the URL cannot be read.
    pub fn malformed(field: &str, detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, Some(field), detail)
    }

    /// 403: `field` names what is another user's.
    pub fn forbidden(field: &str, detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::FORBIDDEN, Some(field), detail)
    }

    /// 403: `field` names what another user alone may see or change.
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

    /// 409: the request is fine, but not now.
    pub fn conflict(field: &str, detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::CONFLICT, Some(field), detail)
    }

    /// 422: the field has a value that cannot be.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::refused(StatusCode::UNPROCESSABLE_ENTITY, Some(field), detail)
    }

    /// 500: our own work could not be done.
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
