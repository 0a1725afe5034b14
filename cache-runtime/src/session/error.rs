//! The errors of sessions.

use std::error::Error as StdError;
use std::fmt;

use crate::error::{Error, ErrorKind};

/// The reason that there is no session, or that it was not changed.
///
/// The kinds that mean "not logged in" are for logs and metrics. The client gets the same response for all of them
/// ([`is_logged_out`](Self::is_logged_out)).
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::session::{SessionError, SessionStore};
///
/// async fn username(store: &SessionStore, sent: &str) -> Result<Option<String>, SessionError> {
///     let session = async { store.load(&store.verify(sent)?).await };
///     match session.await {
///         Ok(session) => Ok(Some(session.data().username.clone())),
///         Err(error) if error.is_logged_out() => Ok(None),
///         Err(error) => Err(error), // such as `Unavailable`: the user may be logged in
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::memory();
/// let store = SessionStore::new(&cache)?;
/// assert_eq!(username(&store, "forged").await?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// The request has no token.
    Missing,
    /// The text that was sent is not a token.
    Malformed,
    /// The token is not ours, or was changed, or was made for another cookie or another prefix.
    BadSignature,
    /// The token was made under a key that is not in the configuration any more, or not yet.
    UnknownKey,
    /// The session has ended: it expired, the user logged out, or it never existed.
    NotFound,
    /// The stored data was changed without the key, or belongs to another session.
    Tampered,
    /// What is stored does not fit the type of the extension. Give new fields `#[serde(default)]`.
    Unreadable,
    /// Another request has saved the session since it was loaded. Load it again, or use
    /// [`update`](super::SessionStore::update), which does that.
    Conflict,
    /// The session ended since it was loaded. Nothing was stored.
    Gone,
    /// The data is larger than 16 KiB of JSON.
    TooLarge,
    /// The data is invalid. The text says what is wrong and what is allowed.
    Invalid(&'static str),
    /// The handler is on a route without sessions of this extension, whose type is named.
    NoLayer(&'static str),
    /// The operation is invalid: the configuration or an argument is wrong. A retry does not help.
    Refused(Error),
    /// Redis is unavailable or too slow, so it is unknown whether the session exists or the operation is done. Never treat
    /// this as "logged out".
    Unavailable(Error),
}

impl SessionError {
    /// Returns whether this means "not logged in". The client should not learn more than that.
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

/// [`Unavailable`](SessionError::Unavailable) if a retry may succeed, otherwise [`Refused`](SessionError::Refused).
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
    fn only_transient_failures_are_unavailable() {
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
