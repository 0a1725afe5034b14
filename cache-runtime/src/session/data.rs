//! What a session holds.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::SessionError;

/// Longer browser names are cut, because the client chooses this text.
const MAX_USER_AGENT: usize = 512;

/// Longer ids and names are refused, because a cut id would be a different id.
const MAX_NAME: usize = 256;

/// The data of a session: the user, and `extension`, which belongs to the application.
///
/// As JSON the names are in camelCase: `userId`, `isVerified`, `createdAt`. Times are milliseconds since 1970 of Redis's clock.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::session::{NewSession, SessionStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::memory();
/// let store = SessionStore::new(&cache)?;
/// let session = store.create(NewSession::new(42, "ada").verified(true)).await?;
///
/// let data = session.data();
/// assert_eq!((data.user_id.as_str(), data.username.as_str()), ("42", "ada"));
/// assert!(data.is_verified);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionData<E = ()> {
    /// The user id, as text. It never changes: another user gets another session.
    pub user_id: String,
    /// What the user is called.
    pub username: String,
    /// Whether the application has verified the user, for example by a confirmed address. The session store does not use
    /// it.
    pub is_verified: bool,
    /// When the session began. Changes of this field are not stored.
    #[serde(default)]
    pub created_at: u64,
    /// When it was used last. Changes of this field are not stored.
    #[serde(default)]
    pub last_activity: u64,
    /// Where the user logged in.
    pub ip_address: Option<IpAddr>,
    /// The browser: at most 512 bytes, without control characters.
    pub user_agent: Option<String>,
    /// The data of the application. `()` if there is none.
    pub extension: E,
}

/// A session that is to be created.
///
/// ```
/// use cache_runtime::session::NewSession;
///
/// let session = NewSession::new(42, "ada").verified(true).user_agent("Mozilla/5.0").extension(vec!["a book"]);
/// ```
#[derive(Clone)]
#[must_use]
pub struct NewSession<E = ()> {
    data: SessionData<E>,
}

impl NewSession {
    /// A session of the user with this id, which no other user ever has.
    pub fn new(user_id: impl fmt::Display, username: impl Into<String>) -> Self {
        Self {
            data: SessionData {
                user_id: user_id.to_string(),
                username: username.into(),
                is_verified: false,
                created_at: 0,
                last_activity: 0,
                ip_address: None,
                user_agent: None,
                extension: (),
            },
        }
    }
}

impl<E> NewSession<E> {
    /// Sets whether the application has verified the user. Default: `false`.
    pub fn verified(mut self, is_verified: bool) -> Self {
        self.data.is_verified = is_verified;
        self
    }

    /// Sets the address from which the user logs in. A layer sets it. Default: `None`.
    pub fn ip_address(mut self, address: IpAddr) -> Self {
        self.data.ip_address = Some(address);
        self
    }

    /// Sets the browser, as the header `User-Agent` names it. A longer text is cut to 512 bytes. A layer sets it. Default: `None`.
    pub fn user_agent(mut self, name: &str) -> Self {
        self.data.user_agent = Some(printable(name));
        self
    }

    /// Sets the data of the application. Default: `()`.
    pub fn extension<F>(self, extension: F) -> NewSession<F> {
        let SessionData {
            user_id,
            username,
            is_verified,
            created_at,
            last_activity,
            ip_address,
            user_agent,
            extension: _,
        } = self.data;
        NewSession {
            data: SessionData {
                user_id,
                username,
                is_verified,
                created_at,
                last_activity,
                ip_address,
                user_agent,
                extension,
            },
        }
    }

    pub(super) fn into_data(self) -> SessionData<E> {
        self.data
    }
}

impl<E> SessionData<E> {
    pub(super) fn check(&self) -> Result<(), SessionError> {
        if self.user_id.is_empty() || self.user_id.len() > MAX_NAME {
            return Err(SessionError::Invalid(
                "a session needs a user id of 1 to 256 bytes",
            ));
        }
        if self.username.len() > MAX_NAME {
            return Err(SessionError::Invalid(
                "a session needs a username of at most 256 bytes",
            ));
        }
        Ok(())
    }

    /// Changes after loading must follow the same rules.
    pub(super) fn tidy(&mut self) {
        if let Some(name) = &self.user_agent {
            self.user_agent = Some(printable(name));
        }
    }
}

/// Text without control characters, cut between two characters.
fn printable(text: &str) -> String {
    let mut printable = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if printable.len() + character.len_utf8() > MAX_USER_AGENT {
            break;
        }
        printable.push(character);
    }
    printable
}

/// Shows nothing about the user, because sessions end up in logs.
impl<E> fmt::Debug for SessionData<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionData")
            .field("is_verified", &self.is_verified)
            .field("created_at", &self.created_at)
            .field("last_activity", &self.last_activity)
            .finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for NewSession<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSession").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_agent_is_cut_between_characters_and_has_no_control_characters() {
        let name = format!("Mozilla\r\n\0{}", "é".repeat(300));

        let session = NewSession::new(1, "ada").user_agent(&name);

        let kept = session.into_data().user_agent.expect("given");
        assert_eq!(kept, format!("Mozilla{}", "é".repeat(252)));
        assert!(kept.len() <= MAX_USER_AGENT);
    }

    #[test]
    fn a_session_is_serialized_in_camel_case() {
        let address = "192.0.2.1".parse().expect("an address");
        let session = NewSession::new(42, "ada")
            .verified(true)
            .ip_address(address)
            .extension(["a book"]);

        let written = serde_json::to_value(session.into_data()).expect("JSON");

        let expected = serde_json::json!({
            "userId": "42", "username": "ada", "isVerified": true, "createdAt": 0, "lastActivity": 0,
            "ipAddress": "192.0.2.1", "userAgent": null, "extension": ["a book"],
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn an_empty_or_too_long_user_id_is_refused() {
        let check = |id: &str| NewSession::new(id, "").into_data().check();

        assert!(check("1").is_ok() && check(&"x".repeat(256)).is_ok());
        assert!(matches!(check(""), Err(SessionError::Invalid(_))));
        let long = "x".repeat(257);
        assert!(matches!(check(&long), Err(SessionError::Invalid(_))));
    }

    #[test]
    fn debug_output_contains_no_user_data() {
        let session = NewSession::new("user-4711", "ada")
            .user_agent("Mozilla")
            .extension("a book");

        let shown = format!("{session:?} {:?}", session.clone().into_data());

        for secret in ["4711", "ada", "Mozilla", "a book"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
