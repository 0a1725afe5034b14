//! What handlers of axum take and return.

use axum::body::Body;
use axum::extract::FromRequestParts;
#[cfg(feature = "sessions")]
use axum::extract::OptionalFromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
#[cfg(feature = "sessions")]
use serde::{Serialize, de::DeserializeOwned};

use super::client_ip::{ClientIp, MissingClientIp};
#[cfg(feature = "sessions")]
use super::session::{Session, Sessions};
use crate::limit::Limited;
#[cfg(feature = "sessions")]
use crate::session::SessionError;

impl<S: Send + Sync> FromRequestParts<S> for ClientIp {
    type Rejection = MissingClientIp;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, MissingClientIp> {
        Self::of(&parts.extensions).ok_or(MissingClientIp)
    }
}

#[cfg(feature = "sessions")]
impl<S, E> FromRequestParts<S> for Sessions<E>
where
    S: Send + Sync,
    E: Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        Self::of(&parts.extensions)
    }
}

#[cfg(feature = "sessions")]
impl<S, E> FromRequestParts<S> for Session<E>
where
    S: Send + Sync,
    E: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        Sessions::of(&parts.extensions)?.current().await
    }
}

#[cfg(feature = "sessions")]
impl<S, E> OptionalFromRequestParts<S> for Session<E>
where
    S: Send + Sync,
    E: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, SessionError> {
        match Sessions::of(&parts.extensions)?.current().await {
            Ok(session) => Ok(Some(session)),
            Err(error) if error.is_logged_out() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The response that [`http`](crate::http) describes. A handler can return it unchanged.
impl IntoResponse for Limited {
    fn into_response(self) -> Response {
        Response::<Body>::from(self)
    }
}

impl IntoResponse for MissingClientIp {
    fn into_response(self) -> Response {
        Response::<Body>::from(self)
    }
}

#[cfg(feature = "sessions")]
impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        Response::<Body>::from(self)
    }
}
