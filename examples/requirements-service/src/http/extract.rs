//! Extractors like those of axum, but every rejection is a problem that names the field.

use axum::body::Bytes;
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;

/// The id in a path.
pub(super) struct Id(pub(super) i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let id = extract::Path::<i64>::from_request_parts(parts, state).await;
        id.map(|extract::Path(id)| Self(id))
            .map_err(|_| Error::malformed("id", "it must be a whole number"))
    }
}

/// The parameters behind the `?`.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let query = extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|extract::Query(parameters)| Self(parameters))
            .map_err(|rejection| Error::malformed("query", rejection.body_text()))
    }
}

/// A JSON body. Unreadable JSON is a 400, an invalid field is a 422.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        if !is_json(request.headers()) {
            let advice = "send JSON, with the header `content-type: application/json`";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Error::refused(status, None, advice));
        }
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes
            .map_err(|rejection| Error::refused(rejection.status(), None, rejection.body_text()))?;
        let body: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::malformed("body", format!("it is not JSON: {error}")))?;
        if !body.is_object() {
            return Err(Error::malformed("body", "it must be a JSON object"));
        }
        let read = serde_path_to_error::deserialize(body);
        read.map(Self).map_err(|error| {
            let path = error.path().to_string();
            let detail = error.into_inner().to_string();
            let field = match &*path {
                "." => missing_field(&detail).unwrap_or("body"),
                path => path,
            };
            Error::invalid(field, &*detail)
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Returns the name of a missing field. It has no path: serde names it only in its message.
fn missing_field(sentence: &str) -> Option<&str> {
    sentence.strip_prefix("missing field `")?.strip_suffix('`')
}
