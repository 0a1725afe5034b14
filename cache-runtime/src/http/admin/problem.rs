//! Why a request was not answered, as a problem (RFC 9457).

use ::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use ::http::{HeaderValue, Response, StatusCode};

use super::access::Refused;
use crate::error::{Error, ErrorKind};
use crate::http::problem::untyped;

/// How a client authenticates itself.
pub(super) const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"cache admin\"");

/// A response that is not what was asked for.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) detail: String,
    /// The methods of the route, if the method is the problem.
    allow: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            allow: None,
        }
    }

    pub(super) fn method(allow: String) -> Self {
        let text = format!("this route does not have that method; use {allow}");
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, text)
        }
    }

    pub(super) fn response<B: From<String>>(&self) -> Response<B> {
        let mut response = untyped(self.status, &self.detail);
        let headers = response.headers_mut();
        let allow = self.allow.as_deref().map(HeaderValue::from_str);
        if let Some(Ok(allow)) = allow {
            headers.insert(ALLOW, allow);
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, BEARER);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NoToken => Self::new(
                StatusCode::UNAUTHORIZED,
                "a token is needed; send `Authorization: Bearer <token>`, or log in on the page",
            ),
            Refused::WrongToken => Self::new(
                StatusCode::UNAUTHORIZED,
                "the token is wrong; send `Authorization: Bearer <token>` with the token that the service was started with",
            ),
            Refused::ReadRole { .. } => Self::new(
                StatusCode::FORBIDDEN,
                "the read role cannot change anything; use the write token",
            ),
            Refused::Forbidden(why) => Self::new(StatusCode::FORBIDDEN, why),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Input => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}
