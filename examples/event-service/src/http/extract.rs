//! Extractors like those of axum, but every rejection is a problem that names the field.

use std::error::Error as StdError;
use std::str::FromStr;

use axum::RequestPartsExt;
use axum::body::Bytes;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{self, FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::page::Page;
use crate::server::TooSlow;

/// The parameters in a path.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let rejection = match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(parameters)) => return Ok(Self(parameters)),
            Err(rejection) => rejection,
        };
        let PathRejection::FailedToDeserializePathParams(failure) = rejection else {
            return Err(Error::refused(
                StatusCode::BAD_REQUEST,
                None,
                rejection.body_text(),
            ));
        };
        let index = match failure.into_kind() {
            ErrorKind::InvalidUtf8InPathParam { key } => {
                return Err(Error::malformed(&key, "it is not UTF-8"));
            }
            ErrorKind::ParseErrorAtIndex { index, .. } => index,
            _ => 0,
        };
        let names = parts.extract::<RawPathParams>().await.ok();
        let name = names
            .as_ref()
            .and_then(|names| names.iter().nth(index))
            .map_or("path", |(name, _)| name);
        Err(Error::malformed(name, "it must be a whole number"))
    }
}

/// The parameters after the `?`.
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match extract::Query::from_request_parts(parts, state).await {
            Ok(extract::Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Error::malformed("query", rejection.body_text())),
        }
    }
}

impl Query {
    /// Returns the parameter with this name, if there is one. `what` completes the sentence "it must be one …".
    pub(super) fn get<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Error> {
        let wrong = || Error::malformed(name, format!("it must be one {what}"));
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some((_, text)), None) => text.parse().map(Some).map_err(|_| wrong()),
            (Some(_), Some(_)) => Err(wrong()),
        }
    }
}

/// `?page=`, or 1 if it is missing.
impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let query = Query::from_request_parts(parts, state).await?;
        let page = query.get("page", "whole number from 1 to 4294967295")?;
        Ok(page.unwrap_or_default())
    }
}

/// A JSON body. Unreadable JSON is a 400, an invalid field is a 422.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        if !is_json(&request) {
            let advice = "send JSON, with the header `content-type: application/json`";
            return Err(Error::refused(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                None,
                advice,
            ));
        }
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match is_too_slow(&rejection) {
                    true => Error::refused(
                        StatusCode::REQUEST_TIMEOUT,
                        None,
                        "the body did not arrive in time",
                    ),
                    false => Error::refused(rejection.status(), None, rejection.body_text()),
                })?;
        let body: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::malformed("body", format!("it is not JSON: {error}")))?;
        if !body.is_object() {
            return Err(Error::malformed("body", "it must be a JSON object"));
        }
        serde_path_to_error::deserialize(body)
            .map(Self)
            .map_err(|error| {
                let path = error.path().to_string();
                let detail = error.into_inner().to_string();
                let field = if path == "." {
                    missing_field(&detail).unwrap_or("body")
                } else {
                    &path
                };
                Error::invalid(field, detail.as_str())
            })
    }
}

/// Returns whether the server has stopped waiting for the body.
fn is_too_slow(rejection: &BytesRejection) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(rejection);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_json(request: &Request) -> bool {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    content_type
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .eq_ignore_ascii_case("application/json")
}

/// Returns the name of a missing field. It has no path: serde names it only in its message.
fn missing_field(sentence: &str) -> Option<&str> {
    sentence.strip_prefix("missing field `")?.strip_suffix('`')
}
