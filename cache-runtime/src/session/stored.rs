//! A loaded session.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::data::SessionData;
use super::seal::Pinned;
use super::token::SessionToken;

/// How often an update is retried if other requests save at the same moment.
const TRIES: usize = 10;

/// A session that existed when it was loaded. Handlers of axum take an `http::Session`, which contains one.
///
/// What is changed in its [`data`](Self::data_mut) is not stored before [`SessionStore::save`](super::SessionStore::save).
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::session::{NewSession, SessionStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::memory();
/// let store = SessionStore::new(&cache)?;
/// let mut session = store.create(NewSession::new(42, "ada")).await?;
///
/// session.data_mut().is_verified = true;
/// store.save(&mut session).await?;
/// assert!(store.load(session.token()).await?.data().is_verified);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StoredSession<E = ()> {
    pub(super) token: SessionToken,
    pub(super) reissued: bool,
    pub(super) pinned: Pinned,
    /// When Redis was asked last, by its clock.
    pub(super) seen: u64,
    pub(super) ends: u64,
    /// Whether its data may have changed since it was loaded without being stored or reported as not stored.
    pub(super) unsaved: bool,
    pub(super) data: SessionData<E>,
}

/// One of a user's sessions, as a page of devices shows it. As JSON it has the extension, too: for a page make a type of your own.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::session::{NewSession, SessionStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::memory();
/// let store = SessionStore::new(&cache)?;
/// let laptop = store.create(NewSession::new(42, "ada")).await?;
/// let phone = store.create(NewSession::new(42, "ada")).await?;
///
/// for listed in store.list_user("42").await? {
///     if listed.id != laptop.id() {
///         store.destroy_listed("42", &listed.id).await?;
///     }
/// }
/// assert!(store.load(phone.token()).await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ListedSession<E = ()> {
    /// Identifies the session. It is not a secret: the session cannot be used with it.
    pub id: String,
    /// When it ends if it is not used, in milliseconds since 1970.
    pub expires_at: u64,
    /// What it holds.
    #[serde(flatten)]
    pub data: SessionData<E>,
}

impl<E> StoredSession<E> {
    /// What it holds.
    pub fn data(&self) -> &SessionData<E> {
        &self.data
    }

    /// What it holds, to be changed. [`SessionStore::save`](super::SessionStore::save) stores it.
    pub fn data_mut(&mut self) -> &mut SessionData<E> {
        self.unsaved = true;
        &mut self.data
    }

    /// Returns the current token for the client. It differs from the token that was sent if the session was
    /// [rotated](super::SessionStore::rotate), or if the sent token was signed with an older key: see
    /// [`is_reissued`](Self::is_reissued).
    pub fn token(&self) -> &SessionToken {
        &self.token
    }

    /// Returns whether its owner does not have the [`token`](Self::token) yet.
    pub fn is_reissued(&self) -> bool {
        self.reissued
    }

    /// Returns the id of the session for lists and logs. It is not a secret. It changes after a rotation.
    pub fn id(&self) -> String {
        self.token.place().sid.text()
    }

    /// When it ends if it is not used any more: milliseconds (not seconds) since 1970, by the clock of Redis.
    pub fn expires_at(&self) -> u64 {
        self.ends
    }

    /// How much longer it can last, however much it is used. A cookie need not live longer.
    pub fn longest(&self) -> Duration {
        Duration::from_millis(self.pinned.absolute.saturating_sub(self.seen))
    }

    /// How often a change may be tried. Loading the session again would lose earlier changes.
    pub(super) fn tries(&self) -> usize {
        if self.unsaved { 1 } else { TRIES }
    }
}

impl<E> fmt::Debug for StoredSession<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSession")
            .field("id", &self.id())
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for ListedSession<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedSession")
            .field("id", &self.id)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}
