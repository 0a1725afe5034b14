//! Requests that are not counted, such as health checks.

use ::http::Method;
use ::http::request::Parts;

use crate::error::{Error, ErrorKind};
use crate::escape::excerpt;

/// A method and a path, as a request line has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bypass {
    method: Method,
    path: String,
}

impl Bypass {
    pub(super) fn new(method: Method, path: &str) -> Result<Self, Error> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"{}*?#\"<>\\^`|".contains(&byte);
        if path.starts_with('/') && path.bytes().all(is_plain) {
            let path = path.to_owned();
            return Ok(Self { method, path });
        }
        let shown = excerpt(path, 50);
        let text = format!(
            "`{shown}` is not a path to bypass; use one exact path as clients send it, such as `/health`, without patterns and \
             without a query"
        );
        Err(Error::new(ErrorKind::Config, text))
    }

    /// Compares bytes: nothing is decoded, and no other part of the request matters.
    pub(super) fn is_for(&self, parts: &Parts) -> bool {
        self.path == parts.uri.path() && self.method == parts.method
    }
}

#[cfg(test)]
mod tests;
