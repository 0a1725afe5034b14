//! Sessions that hold: signed, encrypted, and ended everywhere at once.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cache_runtime::Cache;
//! use cache_runtime::session::{NewSession, SessionStore};
//!
//! let cache = Cache::memory(); // a service says `Cache::connect(Config::from_env()?).await?`
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
//! A web service does not do this by hand: with the feature `http`, `cache_runtime::http::SessionLayer` reads and sets cookies.
//!
//! # What holds
//!
//! - **What was ended stays ended.** Each transition is one step in Redis, and with Redis no process keeps sessions of its own: from the answer
//!   to [`destroy`](SessionStore::destroy) and [`destroy_user`](SessionStore::destroy_user) on, every process refuses them, and a
//!   request that saves late gets [`Gone`](SessionError::Gone).
//! - **A change is never lost silently.** A [`save`](SessionStore::save) of what somebody else saved first is a
//!   [`Conflict`](SessionError::Conflict); [`update`](SessionStore::update) then tries again with what is there.
//! - **Redis holds nothing to use.** A token is a 256-bit secret that is signed; Redis sees a hash of it, a hash of the user's id, and
//!   data that is encrypted with a key of its own and bound to its user, its session and its latest end.
//! - **An outage logs nobody out, and nobody in.** While Redis is away the answer is [`Unavailable`](SessionError::Unavailable), never
//!   "no session". Tokens that are not ours are refused without asking.
//! - **Nothing leaks.** A session is one key that expires by itself, beside one sorted set for its user, in the same slot of a
//!   cluster; the set ends with its last session.
//!
//! What does not hold: an answer that is [`Unavailable`](SessionError::Unavailable) does not say that nothing happened, since Redis may
//! carry out what it answers too late. A change may be stored then, and after a rotation or a login neither token may count: the user has
//! to log in again. What this process remembers of a logout ends with it. A logout from everywhere has to know whose session it is, so it is
//! not remembered if that could not be read. A Redis that forgets what it has acknowledged, in an asynchronous failover or a crash before its file was
//! written, can bring back a session that was ended. Whoever can write to Redis can bring back an older version of a session, end it,
//! or let it idle until its latest end. A Redis that is short of memory may drop sessions, which logs their users out: give sessions
//! a Redis with `maxmemory-policy noeviction`, or enough memory. Nobody has a session before a login; what a visitor collects until then
//! belongs into a cookie or a page of the application.
//!
//! # How long a session lives
//!
//! | option | usual | meaning |
//! |---|---|---|
//! | [`session_ttl`](crate::Config::session_ttl) | a day | how long a new session lasts |
//! | [`session_extend`](crate::Config::session_extend) | an hour | how much later each use lets it end, at most `session_ttl + session_extend` after that use |
//! | [`session_absolute`](crate::Config::session_absolute) | 7 days | the end of every session, however much it is used |
//! | [`session_touch_every`](crate::Config::session_touch_every) | 0 | a use so soon after another one adds nothing, and writes nothing |
//! | [`sessions_per_user`](crate::Config::sessions_per_user) | 50 | the session that would end first makes room for one more |
//!
//! With [`session_idle`](crate::Config::session_idle), `CACHE_SESSION_IDLE=30m` for example, a session ends so long after its last use
//! instead, and never after `session_absolute`. Each use is noted to the millisecond, so that end is exact. With `session_touch_every` it may
//! be earlier by that time, but never by more than a 60th of the idle time (30 s of 30 minutes).
//!
//! All times are by Redis's clock; `created_at` may be up to a second early.
//!
//! # Keys
//!
//! `CACHE_SESSION_KEYS` holds them, newest first: see [`SessionKeys`](crate::SessionKeys). Without it each process makes its own, with a
//! warning, and sessions end with it; in production that is an error.

mod backend;
mod data;
mod error;
mod inner;
mod loaded;
mod memory;
mod pending;
mod place;
mod ring;
mod seal;
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
pub use self::error::SessionError;
use self::inner::Inner;
pub use self::loaded::{ListedSession, Session};
use self::place::{Place, Sid};
use self::seal::Pinned;
pub use self::token::SessionToken;
use self::token::Signer;
#[cfg(feature = "tower-sessions")]
pub use self::tower::TowerSessionStore;
use self::transition::{Begin, Begun, Change, Stored, Which};
use crate::cache::Cache;
use crate::error::{Error, ErrorKind};
use crate::metrics::SessionEvent;

/// What a cookie with a session is called, unless something else is said. Browsers send a cookie of such a name to nobody but the host
/// that set it, over TLS
/// ([RFC 6265bis](https://datatracker.ietf.org/doc/draft-ietf-httpbis-rfc6265bis/) 4.1.3.2).
pub const COOKIE: &str = "__Host-session";

/// Keeps sessions in Redis, or in this process where there is none. A cheap clone: all clones are the same store.
///
/// `E` is what the application adds to [`SessionData`]. Whoever shares a Redis, its prefix and the keys shares sessions, so has to agree
/// on it.
pub struct SessionStore<E = ()> {
    inner: Arc<Inner>,
    signer: Arc<Signer>,
    extension: PhantomData<fn() -> E>,
}

impl<E> SessionStore<E> {
    /// Keeps sessions in the Redis of `cache`, or in this process where there is none: then only this store and its clones know them.
    /// How long they live, and under which keys, is in the cache's configuration.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] without keys in production, and for a prefix with braces.
    pub fn new(cache: &Cache) -> Result<Self, Error> {
        let inner = Inner::new(cache)?;
        Ok(Self {
            signer: Signer::new(&inner.ring, &inner.prefix, COOKIE),
            inner,
            extension: PhantomData,
        })
    }

    /// The same store for tokens in a cookie of this name, and in no other: [`COOKIE`] unless said. A layer says it by itself.
    #[must_use]
    pub fn for_cookie(&self, name: &str) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            signer: Signer::new(&self.inner.ring, &self.inner.prefix, name),
            extension: PhantomData,
        }
    }

    /// Reads what a client sent as its token. This asks nobody, and takes about a microsecond.
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

    /// Ends a session; that it has ended already is fine.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](SessionError::Unavailable): then this process refuses the session from now on, and ends it once Redis is back.
    /// Until then others that reach Redis go on serving it, so tell the user to try again.
    pub async fn destroy(&self, token: &SessionToken) -> Result<(), SessionError> {
        let Place { tag, sid } = token.place();
        self.inner.destroy(tag, Which::One(sid)).await.map(drop)
    }

    /// Ends all sessions of a user, except the one with this token, if one is given. Answers how many there were.
    ///
    /// # Errors
    ///
    /// As [`destroy`](Self::destroy).
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

    /// Ends the session of a user that a [`ListedSession`] names. Answers whether there was one.
    ///
    /// # Errors
    ///
    /// As [`destroy`](Self::destroy).
    pub async fn destroy_listed(&self, user_id: &str, id: &str) -> Result<bool, SessionError> {
        let Some(sid) = Sid::parse(id) else {
            return Ok(false);
        };
        let ended = self.inner.destroy_of(user_id, Which::One(sid)).await?;
        Ok(ended > 0)
    }
}

impl<E: Serialize + DeserializeOwned> SessionStore<E> {
    /// Begins a session. Only what this service has checked itself may be in it.
    ///
    /// # Errors
    ///
    /// [`Invalid`](SessionError::Invalid), [`TooLarge`](SessionError::TooLarge) or [`Unavailable`](SessionError::Unavailable).
    pub async fn create(&self, new: NewSession<E>) -> Result<Session<E>, SessionError> {
        self.create_instead(new, None).await
    }

    /// Begins a session in place of the one that the client had before, whose token counts no more: what somebody may have planted
    /// with the client before it logged in is worth nothing afterwards. This is one step if it is the same user.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub async fn create_instead(
        &self,
        new: NewSession<E>,
        former: Option<&SessionToken>,
    ) -> Result<Session<E>, SessionError> {
        let inner = &self.inner;
        let mut data = new.into_data();
        data.check()?;
        let key = inner.ring.newest();
        let tag = key.tag(&inner.prefix, &data.user_id);
        let token = self.signer.make(tag)?;
        let former = former.map(SessionToken::place);
        let replaced = former.filter(|former| former.tag == tag);
        // After the first time with the time that Redis told.
        for _ in 0..3 {
            let created = inner.backend.now();
            data.created_at = created;
            data.last_activity = created;
            let pinned = Pinned {
                revision: 0,
                created,
                absolute: created.saturating_add(inner.lives.absolute),
            };
            let sealed = inner.seal::<SessionData<E>>(token.place(), pinned, &data)?;
            let last = created.to_be_bytes();
            let record = [&pinned.bytes()[..], &last, &last, &sealed].concat();
            let begin = Begin {
                place: token.place(),
                ttl: inner.lives.ttl,
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
                // Where this fails it is remembered: the login itself is done.
                let _ = inner.destroy(former.tag, Which::One(former.sid)).await;
            }
            return Ok(Session {
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
            "Redis's clock jumps, so no session can begin",
        )))
    }

    /// Finds a session, and extends it. One round trip.
    ///
    /// # Errors
    ///
    /// [`NotFound`](SessionError::NotFound) if it has ended, [`Tampered`](SessionError::Tampered),
    /// [`Unreadable`](SessionError::Unreadable) or [`Unavailable`](SessionError::Unavailable).
    pub async fn load(&self, token: &SessionToken) -> Result<Session<E>, SessionError> {
        let inner = &self.inner;
        let place = token.place();
        // When it began is not known yet; it may be later than that all of the user's were ended.
        if inner.is_ending(place) {
            return Err(inner.not_found());
        }
        let loaded = inner.backend.load(place, inner.lives).await;
        let loaded = loaded.map_err(|error| inner.unavailable(error))?;
        let loaded = loaded.ok_or_else(|| inner.not_found())?;
        let (pinned, data) = inner.open::<E>(place, &loaded.record)?;
        if inner.pending.ends(place, pinned.created) {
            return Err(inner.not_found());
        }
        inner.count(SessionEvent::Loaded);
        Ok(Session {
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

    /// Stores what was changed in a session since it was loaded. One round trip.
    ///
    /// # Errors
    ///
    /// [`Conflict`](SessionError::Conflict) if somebody else saved it since, [`Gone`](SessionError::Gone) if it has ended; or as
    /// [`create`](Self::create). Nothing is stored then; only with [`Unavailable`](SessionError::Unavailable) it may be.
    pub async fn save(&self, session: &mut Session<E>) -> Result<(), SessionError> {
        self.change(session, None).await?;
        self.inner.count(SessionEvent::Saved);
        Ok(())
    }

    /// Gives a session a new token; the old one counts no more. Do this whenever the user may do more than before.
    ///
    /// Requests that the client sent with the old token and that come in later find no session. Only to end it, the old token counts for
    /// another minute: whoever logs out meanwhile is logged out.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub async fn rotate(&self, session: &mut Session<E>) -> Result<(), SessionError> {
        let mut tries = session.tries();
        loop {
            tries -= 1;
            match self.rename(session).await {
                Err(SessionError::Conflict) if tries > 0 => self.reload(session).await?,
                outcome => return outcome,
            }
        }
    }

    /// All sessions of a user, the one that ends first first. What cannot be read is left out.
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
                if !inner.pending.ends(place, pinned.created) {
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

    /// What is there now, in place of what was changed and could not be stored.
    async fn reload(&self, session: &mut Session<E>) -> Result<(), SessionError> {
        let reissued = session.reissued;
        *session = match self.load(&session.token).await {
            Err(SessionError::NotFound) => Err(SessionError::Gone),
            loaded => loaded,
        }?;
        session.reissued |= reissued;
        Ok(())
    }

    async fn rename(&self, session: &mut Session<E>) -> Result<(), SessionError> {
        let token = self.signer.make(session.token.place().tag)?;
        self.change(session, Some(token)).await?;
        self.inner.count(SessionEvent::Rotated);
        Ok(())
    }

    async fn change(
        &self,
        session: &mut Session<E>,
        renamed: Option<SessionToken>,
    ) -> Result<(), SessionError> {
        let inner = &self.inner;
        let place = session.token.place();
        session.data.tidy();
        session.data.check()?;
        if !inner.is_place_of(place.tag, &session.data.user_id) {
            return Err(SessionError::Invalid(
                "a session stays with its user; create one for the other user",
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
        if inner.pending.ends(place, pinned.created) {
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
    /// Changes a session and stores it; if somebody else saved it meanwhile, it is loaded and changed again. So the change may be made
    /// several times, each time to what is stored; where it fails, `session` is as it was.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save), but [`Conflict`](SessionError::Conflict) only if others were faster ten times, or if there were changes
    /// before this one that are not stored yet and would be lost.
    pub async fn update(
        &self,
        session: &mut Session<E>,
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
