//! Login sessions: signed, encrypted, and ended in all processes together.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cache_runtime::Cache;
//! use cache_runtime::session::{NewSession, SessionStore};
//!
//! let cache = Cache::memory(); // a service calls `Cache::connect(Config::from_env()?).await?`
//! let store = SessionStore::new(&cache)?;
//!
//! let session = store.create(NewSession::new(42, "ada")).await?;
//! let sent = session.token().expose().to_owned(); // what the browser keeps
//!
//! let session = store.load(&store.verify(&sent)?).await?;
//! assert_eq!(session.data().username, "ada");
//!
//! store.destroy_user("42", None).await?; // logged out everywhere
//! assert!(store.load(&store.verify(&sent)?).await.is_err());
//! # Ok(())
//! # }
//! ```
//!
//! A web service does not call this directly: with the feature `http`, `cache_runtime::http::SessionLayer` reads and sets cookies.
//!
//! # Guarantees
//!
//! - **An ended session stays ended.** Each transition is one step in Redis. With Redis, no process keeps its own sessions. After
//!   [`destroy`](SessionStore::destroy) or [`destroy_user`](SessionStore::destroy_user) returns, every process refuses the
//!   sessions, and a request that saves later gets [`Gone`](SessionError::Gone).
//! - **A change is never lost silently.** A [`save`](SessionStore::save) of a session that another request saved first returns
//!   [`Conflict`](SessionError::Conflict). [`update`](SessionStore::update) then tries again with the stored session.
//! - **Redis holds nothing that can be used.** A token is a signed 256-bit secret. Redis sees a hash of the token, a hash of the
//!   user's id, and encrypted data. The data is encrypted with its own key and bound to its user, its session and its latest end.
//! - **An outage logs nobody out or in.** While Redis is unavailable, methods return [`Unavailable`](SessionError::Unavailable),
//!   never "no session". Tokens that this service did not sign are refused without asking Redis.
//! - **Nothing leaks.** A session is one key that expires by itself, and one member of a sorted set for its user, in the same slot
//!   of a cluster. The set ends with its last session.
//!
//! # Limits
//!
//! - After [`Unavailable`](SessionError::Unavailable), Redis may still have run the command if only its answer was late. A change
//!   may then be stored. After a rotation or a login, it may be that neither token is valid, and the user has to log in again.
//! - A logout that this process remembers during an outage is lost if the process ends.
//! - A logout from all devices has to know the user of the session. It is not remembered if the session could not be read.
//! - If Redis loses acknowledged writes, in an asynchronous failover or a crash before its file was written, an ended session can
//!   come back.
//! - A party with write access to Redis can restore an older version of a session, end it, or let it stay idle until its latest
//!   end.
//! - A Redis that is short of memory may drop sessions, which logs their users out. Give sessions a Redis with
//!   `maxmemory-policy noeviction`, or enough memory.
//! - A session does not exist before a login. Keep what a visitor collects until then in a cookie or a page of the application.
//!
//! # How long a session lives
//!
//! | option | default | meaning |
//! |---|---|---|
//! | [`session_ttl`](crate::Config::session_ttl) | 1 day | How long a new session lasts |
//! | [`session_extend`](crate::Config::session_extend) | 1 hour | How much each use extends it, at most to `session_ttl + session_extend` after that use |
//! | [`session_absolute`](crate::Config::session_absolute) | 7 days | The longest time that a session lasts, however much it is used |
//! | [`session_touch_every`](crate::Config::session_touch_every) | 0 s | A use within this time of another one extends nothing and writes nothing |
//! | [`sessions_per_user`](crate::Config::sessions_per_user) | 50 | The most sessions of a user. A further session replaces the one that would end first |
//!
//! With [`session_idle`](crate::Config::session_idle), for example `CACHE_SESSION_IDLE=30m`, a session ends this time after its
//! last use instead, and never after `session_absolute`. Each use is recorded to the millisecond, so the end is exact. With
//! `session_touch_every`, the session may end earlier by that time, but by at most 1/60 of the idle time (30 s for 30 minutes).
//!
//! All times follow Redis's clock. `created_at` may be up to 1 s early.
//!
//! # Keys
//!
//! `CACHE_SESSION_KEYS` holds the keys, newest first: see [`SessionKeys`](crate::SessionKeys). Without it, each process generates
//! its own keys and logs a warning, and sessions end with the process. In production this is an error.

mod backend;
mod data;
mod debug_token;
mod error;
mod inner;
mod memory;
mod place;
mod revocations;
mod ring;
mod seal;
mod stored;
#[cfg(test)]
mod tests;
mod token;
#[cfg(feature = "tower-sessions")]
mod tower;
mod transition;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::data::{NewSession, SessionData};
pub use self::debug_token::DebugTokens;
pub use self::error::SessionError;
use self::inner::Inner;
use self::place::{Place, Sid};
use self::seal::Pinned;
pub use self::stored::{ListedSession, StoredSession};
pub use self::token::SessionToken;
use self::token::Signer;
#[cfg(feature = "tower-sessions")]
pub use self::tower::TowerSessionStore;
use self::transition::{Begin, Begun, Change, Stored, Which};
use crate::cache::Cache;
use crate::error::{Error, ErrorKind};
use crate::metrics::SessionEvent;

/// The default name of the session cookie. Browsers send a cookie with the prefix `__Host-` only to the host that set it, over TLS
/// ([RFC 6265bis](https://datatracker.ietf.org/doc/draft-ietf-httpbis-rfc6265bis/) 4.1.3.2).
pub const COOKIE: &str = "__Host-session";

/// Stores sessions in Redis, or in this process without Redis.
///
/// Cloning is cheap. All clones are the same store.
///
/// `E` is the application's own type in [`SessionData`]. Services with the same Redis, prefix and keys share sessions, so they must
/// use the same `E`.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::session::{NewSession, SessionStore};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Cart {
///     articles: Vec<u32>,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::memory();
/// let store = SessionStore::<Cart>::new(&cache)?;
/// let mut session = store.create(NewSession::new(42, "ada").extension(Cart::default())).await?;
///
/// store.update(&mut session, |data| data.extension.articles.push(7)).await?;
///
/// let session = store.load(session.token()).await?;
/// assert_eq!(session.data().extension.articles, [7]);
/// # Ok(())
/// # }
/// ```
pub struct SessionStore<E = ()> {
    inner: Arc<Inner>,
    signer: Arc<Signer>,
    extension: PhantomData<fn() -> E>,
}

impl<E> SessionStore<E> {
    /// Creates a store for sessions in the Redis of `cache`, or in this process if the cache has no Redis. Without Redis, only this
    /// store and its clones know the sessions.
    ///
    /// The cache's configuration sets how long sessions live, and their keys.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if keys are missing in production, or if the prefix contains braces.
    pub fn new(cache: &Cache) -> Result<Self, Error> {
        let inner = Inner::new(cache)?;
        Ok(Self {
            signer: Signer::new(&inner.ring, &inner.prefix, COOKIE),
            inner,
            extension: PhantomData,
        })
    }

    /// Returns the same store for tokens that come only from the cookie with this name. Default: [`COOKIE`]. A `SessionLayer` sets
    /// it by itself.
    #[must_use]
    pub fn for_cookie(&self, name: &str) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            signer: Signer::new(&self.inner.ring, &self.inner.prefix, name),
            extension: PhantomData,
        }
    }

    /// Verifies the token that a client sent. This does not ask Redis and takes about 1 µs.
    ///
    /// # Errors
    ///
    /// [`Malformed`](SessionError::Malformed), [`UnknownKey`](SessionError::UnknownKey) or
    /// [`BadSignature`](SessionError::BadSignature).
    pub fn verify(&self, token: &str) -> Result<SessionToken, SessionError> {
        self.signer
            .verify(token)
            .inspect_err(|_| self.inner.count(SessionEvent::RefusedToken))
    }

    /// Ends a session. It is not an error if the session has already ended.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](SessionError::Unavailable). Then this process refuses the session from now on and ends it when Redis is
    /// back. Until then, other processes that reach Redis still accept the session, so ask the user to try again.
    pub async fn destroy(&self, token: &SessionToken) -> Result<(), SessionError> {
        let Place { tag, sid } = token.place();
        self.inner.destroy(tag, Which::One(sid)).await.map(drop)
    }

    /// Ends all sessions of a user, except the session of `except` if it is given. Returns how many sessions ended.
    ///
    /// # Errors
    ///
    /// The same as [`destroy`](Self::destroy).
    pub async fn destroy_user(
        &self,
        user_id: &str,
        except: Option<&SessionToken>,
    ) -> Result<usize, SessionError> {
        let which = Which::Others {
            except: except.map(|token| token.place().sid),
            began: None,
        };
        self.inner.destroy_of(user_id, which).await
    }

    /// Ends the session with the id of a [`ListedSession`]. Returns whether the session existed.
    ///
    /// # Errors
    ///
    /// The same as [`destroy`](Self::destroy).
    pub async fn destroy_listed(&self, user_id: &str, id: &str) -> Result<bool, SessionError> {
        let Some(sid) = Sid::parse(id) else {
            return Ok(false);
        };
        let ended = self.inner.destroy_of(user_id, Which::One(sid)).await?;
        Ok(ended > 0)
    }
}

impl<E: Serialize + DeserializeOwned> SessionStore<E> {
    /// Creates a session. Put only data into it that this service has checked itself.
    ///
    /// # Errors
    ///
    /// [`Invalid`](SessionError::Invalid), [`TooLarge`](SessionError::TooLarge) or [`Unavailable`](SessionError::Unavailable).
    pub async fn create(&self, new: NewSession<E>) -> Result<StoredSession<E>, SessionError> {
        self.create_instead(new, None).await
    }

    /// Creates a session that replaces the client's former session. The former token is no longer valid.
    ///
    /// This protects against session fixation: a token that an attacker gave the client before the login is worthless after it.
    /// For the same user this is one step in Redis.
    ///
    /// # Errors
    ///
    /// The same as [`create`](Self::create).
    pub async fn create_instead(
        &self,
        new: NewSession<E>,
        former: Option<&SessionToken>,
    ) -> Result<StoredSession<E>, SessionError> {
        let inner = &self.inner;
        let mut data = new.into_data();
        data.check()?;
        let key = inner.ring.newest();
        let tag = key.tag(&inner.prefix, &data.user_id);
        let token = self.signer.make(tag)?;
        let former = former.map(SessionToken::place);
        let replaced = former.filter(|former| former.tag == tag);
        // Later attempts use the time that Redis returned.
        for _ in 0..3 {
            let created = inner.backend.now();
            data.created_at = created;
            data.last_activity = created;
            let pinned = Pinned {
                revision: 0,
                created,
                absolute: created.saturating_add(inner.timeouts.absolute),
            };
            let sealed = inner.seal::<SessionData<E>>(token.place(), pinned, &data)?;
            let last = created.to_be_bytes();
            let record = [&pinned.bytes()[..], &last, &last, &sealed].concat();
            let begin = Begin {
                place: token.place(),
                ttl: inner.timeouts.ttl,
                most: inner.most,
                created,
                absolute: pinned.absolute,
                replaced: replaced.map(|former| former.sid),
                record: &record,
            };
            let begun = inner.backend.create(begin).await;
            let Begun::Until { ends, ended } = begun.map_err(|error| inner.unavailable(error))?
            else {
                continue;
            };
            if let Some(former) = replaced {
                inner.note_end(former.tag, Which::One(former.sid));
            }
            inner.count(SessionEvent::Created);
            inner.resume();
            inner.metrics().add(SessionEvent::Displaced, ended);
            if let Some(former) = former.filter(|_| replaced.is_none()) {
                // If this fails, the revocation is recorded: the login itself has succeeded.
                let _ = inner.destroy(former.tag, Which::One(former.sid)).await;
            }
            return Ok(StoredSession {
                token,
                reissued: true,
                pinned,
                seen: created,
                ends,
                unsaved: false,
                data,
            });
        }
        Err(inner.unavailable(Error::new(
            ErrorKind::Command,
            "the clock of Redis jumps, so no session can be created",
        )))
    }

    /// Loads a session and extends it. Takes one round trip.
    ///
    /// # Errors
    ///
    /// [`NotFound`](SessionError::NotFound) if the session has ended, [`Tampered`](SessionError::Tampered),
    /// [`Unreadable`](SessionError::Unreadable) or [`Unavailable`](SessionError::Unavailable).
    pub async fn load(&self, token: &SessionToken) -> Result<StoredSession<E>, SessionError> {
        let inner = &self.inner;
        let place = token.place();
        // When the session began is not known yet. It may have begun after all sessions of the user were ended.
        if inner.is_ending(place) {
            return Err(inner.not_found());
        }
        let loaded = inner.backend.load(place, inner.timeouts).await;
        let loaded = loaded.map_err(|error| inner.unavailable(error))?;
        let loaded = loaded.ok_or_else(|| inner.not_found())?;
        let (pinned, data) = inner.open::<E>(place, &loaded.record)?;
        if inner.revocations.ends(place, pinned.created) {
            return Err(inner.not_found());
        }
        inner.count(SessionEvent::Loaded);
        Ok(StoredSession {
            token: match token.is_old() {
                true => self.signer.renew(token),
                false => token.clone(),
            },
            reissued: token.is_old(),
            pinned,
            seen: loaded.now,
            ends: loaded.ends,
            unsaved: false,
            data,
        })
    }

    /// Stores the changes of a session since it was loaded. Takes one round trip.
    ///
    /// # Errors
    ///
    /// - [`Conflict`](SessionError::Conflict) if another request saved it since.
    /// - [`Gone`](SessionError::Gone) if it has ended.
    /// - The same as [`create`](Self::create).
    ///
    /// Nothing is stored then, except that after [`Unavailable`](SessionError::Unavailable) the changes may be stored.
    pub async fn save(&self, session: &mut StoredSession<E>) -> Result<(), SessionError> {
        self.change(session, None).await?;
        self.inner.count(SessionEvent::Saved);
        Ok(())
    }

    /// Gives a session a new token. The old token is no longer valid. Do this whenever the user gains rights.
    ///
    /// Requests with the old token that arrive later do not find the session. The old token can still end the session for another
    /// 60 s, so a logout in this time works.
    ///
    /// # Errors
    ///
    /// The same as [`update`](Self::update).
    pub async fn rotate(&self, session: &mut StoredSession<E>) -> Result<(), SessionError> {
        let mut tries = session.tries();
        loop {
            tries -= 1;
            match self.rename(session).await {
                Err(SessionError::Conflict) if tries > 0 => self.reload(session).await?,
                outcome => return outcome,
            }
        }
    }

    /// Returns all sessions of a user, ordered by their end, earliest first. Sessions that cannot be read are left out.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](SessionError::Unavailable).
    pub async fn list_user(&self, user_id: &str) -> Result<Vec<ListedSession<E>>, SessionError> {
        let inner = &self.inner;
        let mut sessions = Vec::new();
        for tag in inner.ring.tags(&inner.prefix, user_id) {
            let listed = inner.backend.list(tag).await;
            for listed in listed.map_err(|error| inner.unavailable(error))? {
                let place = Place {
                    tag,
                    sid: listed.sid,
                };
                let Ok((pinned, data)) = inner.open::<E>(place, &listed.record) else {
                    continue;
                };
                if !inner.revocations.ends(place, pinned.created) {
                    sessions.push(ListedSession {
                        id: listed.sid.text(),
                        expires_at: listed.ends,
                        data,
                    });
                }
            }
        }
        sessions.sort_by_key(|session| session.expires_at);
        Ok(sessions)
    }

    /// Replaces changes that could not be stored with the stored session.
    async fn reload(&self, session: &mut StoredSession<E>) -> Result<(), SessionError> {
        let reissued = session.reissued;
        *session = match self.load(&session.token).await {
            Err(SessionError::NotFound) => Err(SessionError::Gone),
            loaded => loaded,
        }?;
        session.reissued |= reissued;
        Ok(())
    }

    async fn rename(&self, session: &mut StoredSession<E>) -> Result<(), SessionError> {
        let token = self.signer.make(session.token.place().tag)?;
        self.change(session, Some(token)).await?;
        self.inner.count(SessionEvent::Rotated);
        Ok(())
    }

    async fn change(
        &self,
        session: &mut StoredSession<E>,
        renamed: Option<SessionToken>,
    ) -> Result<(), SessionError> {
        let inner = &self.inner;
        let place = session.token.place();
        session.data.tidy();
        session.data.check()?;
        if !inner.is_place_of(place.tag, &session.data.user_id) {
            return Err(SessionError::Invalid(
                "a session cannot change its user; create a new session for the other user",
            ));
        }
        let pinned = Pinned {
            revision: session.pinned.revision + 1,
            ..session.pinned
        };
        let target = renamed.as_ref().map_or(place, SessionToken::place);
        let change = Change {
            place,
            seen: session.pinned.bytes(),
            pinned: pinned.bytes(),
            sealed: &inner.seal::<SessionData<E>>(target, pinned, &session.data)?,
            renamed: renamed.as_ref().map(|_| target.sid),
        };
        if inner.revocations.ends(place, pinned.created) {
            return Err(inner.save_refused(SessionError::Gone));
        }
        let stored = inner.backend.change(change).await;
        match stored.map_err(|error| inner.unavailable(error))? {
            Stored::Gone => Err(inner.save_refused(SessionError::Gone)),
            Stored::Conflict => {
                session.unsaved = false;
                Err(inner.save_refused(SessionError::Conflict))
            }
            Stored::Until(ends) => {
                session.unsaved = false;
                session.pinned = pinned;
                session.ends = ends;
                if let Some(token) = renamed {
                    session.token = token;
                    session.reissued = true;
                }
                Ok(())
            }
        }
    }
}

impl<E: Clone + Serialize + DeserializeOwned> SessionStore<E> {
    /// Changes a session and stores it. If another request saved it first, it is loaded and changed again.
    ///
    /// `change` may run several times, each time on the stored session. If `update` fails, `session` holds what is stored, without the change.
    ///
    /// # Errors
    ///
    /// The same as [`save`](Self::save), but [`Conflict`](SessionError::Conflict) only if
    ///
    /// - other requests were faster ten times, or
    /// - `session` had earlier changes that are not stored yet and would be lost.
    pub async fn update(
        &self,
        session: &mut StoredSession<E>,
        mut change: impl FnMut(&mut SessionData<E>),
    ) -> Result<(), SessionError> {
        let mut tries = session.tries();
        loop {
            let before = session.data.clone();
            change(&mut session.data);
            tries -= 1;
            let outcome = match self.save(session).await {
                Err(SessionError::Conflict) if tries > 0 => match self.reload(session).await {
                    Ok(()) => continue,
                    failed => failed,
                },
                outcome => outcome,
            };
            if outcome.is_err() {
                session.data = before;
            }
            return outcome;
        }
    }
}

impl<E> Clone for SessionStore<E> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            signer: Arc::clone(&self.signer),
            extension: PhantomData,
        }
    }
}

impl<E> fmt::Debug for SessionStore<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStore")
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}
