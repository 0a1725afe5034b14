//! What can go wrong with a session.

use std::error::Error as StdError;
use std::fmt;

use crate::error::{Error, ErrorKind};

/// Why there is no session, or why it is not changed.
///
/// The kinds that mean that nobody is logged in are for logs and metrics; whoever sent the request is told the same in each case
/// ([`is_logged_out`](Self::is_logged_out)).
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// There is no token.
    Missing,
    /// What was sent is no token.
    Malformed,
    /// The token is not ours, or was changed, or was made for another cookie or another prefix.
    BadSignature,
    /// The token was made under a key that is not in the configuration any more, or not yet.
    UnknownKey,
    /// The session has ended: it expired, somebody logged out, or it never was.
    NotFound,
    /// What is stored was changed by somebody without the key, or belongs elsewhere.
    Tampered,
    /// What is stored does not fit the type of the extension. Give new fields `#[serde(default)]`.
    Unreadable,
    /// Somebody else has saved the session since it was loaded. Load it again, or use
    /// [`update`](super::SessionStore::update), which does.
    Conflict,
    /// The session ended since it was loaded. Nothing was stored, and nothing is.
    Gone,
    /// The data is larger than 16 KiB of JSON.
    TooLarge,
    /// The data cannot be: what is wrong, and what is allowed.
    Invalid(&'static str),
    /// The handler is on a route without sessions of this extension, whose type is named.
    NoLayer(&'static str),
    /// The service asked for what cannot be: the configuration or an argument is wrong. Trying again does not help.
    Refused(Error),
    /// Redis is away or late, so nobody knows whether there is such a session, or whether what was asked for is done. Never take this for
    /// "logged out".
    Unavailable(Error),
}

impl SessionError {
    /// Whether this means that nobody is logged in. Whoever sent the request shall not learn more than that.
    pub fn is_logged_out(&self) -> bool {
        match self {
            Self::Missing
            | Self::Malformed
            | Self::BadSignature
            | Self::UnknownKey
            | Self::NotFound
            | Self::Tampered
            | Self::Unreadable
            | Self::Gone => true,
            Self::Conflict
            | Self::TooLarge
            | Self::Invalid(_)
            | Self::NoLayer(_)
            | Self::Refused(_)
            | Self::Unavailable(_) => false,
        }
    }
}

/// [`Unavailable`](SessionError::Unavailable) if trying again may help, and else [`Refused`](SessionError::Refused).
impl From<Error> for SessionError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable
            | ErrorKind::Connection
            | ErrorKind::Timeout
            | ErrorKind::Stalled
            | ErrorKind::Command => Self::Unavailable(error),
            ErrorKind::Config
            | ErrorKind::Input
            | ErrorKind::Foreign
            | ErrorKind::Encode
            | ErrorKind::Refused => Self::Refused(error),
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the session token is missing",
            Self::Malformed => "the session token is malformed",
            Self::BadSignature => "the session token has an invalid signature",
            Self::UnknownKey => "the session token was signed with a key that is not configured",
            Self::NotFound => "the session has ended",
            Self::Tampered => "the stored session was tampered with",
            Self::Unreadable => "the stored session does not fit the type of its extension",
            Self::Conflict => "another request changed the session; load it again",
            Self::Gone => "the session ended after it was loaded; nothing was stored",
            Self::TooLarge => {
                "the session data is larger than 16 KiB; store it elsewhere and keep a reference in the session"
            }
            Self::Invalid(wrong) => wrong,
            Self::NoLayer(extension) => {
                return write!(
                    f,
                    "a handler extracts sessions with the extension `{extension}`, but no `SessionLayer` around its route has \
                     that extension; use the extension of the layer's `SessionStore`, or add a layer"
                );
            }
            Self::Refused(_) => "the session operation is invalid",
            Self::Unavailable(_) => "sessions are unavailable",
        })
    }
}

impl StdError for SessionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Refused(error) | Self::Unavailable(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_unavailable() {
        for (kind, is_retryable) in [
            (ErrorKind::Unavailable, true),
            (ErrorKind::Connection, true),
            (ErrorKind::Timeout, true),
            (ErrorKind::Stalled, true),
            (ErrorKind::Command, true),
            (ErrorKind::Config, false),
            (ErrorKind::Input, false),
            (ErrorKind::Foreign, false),
            (ErrorKind::Encode, false),
            (ErrorKind::Refused, false),
        ] {
            let error = SessionError::from(Error::new(kind, "because"));

            let is_unavailable = matches!(error, SessionError::Unavailable(_));
            assert_eq!(is_unavailable, is_retryable, "{kind:?}");
            assert!(!error.is_logged_out(), "{kind:?}");
            let source = error.source().expect("a cause").to_string();
            assert!(source.contains("because"), "{source}");
        }
    }
}
