//! What handlers get.

use std::any::type_name;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::error;

use super::visit::{Answer, Visit};
use crate::http::problem::{self, NO_STORE};
use crate::session::{self, ListedSession, NewSession, SessionData, SessionError, SessionToken};

/// When to try again while Redis is away, in seconds: by then it is usually back, or known to be away for longer.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("3");

/// The session of a request, for handlers: [`SessionData`] to be read, and what can be done to it.
///
/// As an extractor it answers 401 where there is no session. `Option<Session>` is [`None`] then. Both answer 503 if Redis is away:
/// nobody knows then whether there is one. A page that goes on without knowing takes `Result<Session, SessionError>`. All of a request
/// share one read.
///
/// `E` is what the application adds, and the same type here, in [`Sessions`] and in the [`SessionLayer`](super::SessionLayer). It is
/// `Clone + Serialize + DeserializeOwned + Send + Sync`; if it is not, the compiler says only that the function is no `Handler`.
pub struct Session<E = ()> {
    visit: Arc<Visit<E>>,
    session: session::Session<E>,
}

/// Begins and ends sessions. Unlike [`Session`] it is there for requests without one.
pub struct Sessions<E = ()> {
    visit: Arc<Visit<E>>,
}

impl<E: Clone + Serialize + DeserializeOwned> Session<E> {
    /// Names the session in lists and logs, and is no secret. It is another one after [`rotate`](Self::rotate).
    pub fn id(&self) -> String {
        self.session.id()
    }

    /// The token, for clients that send it themselves. A cookie is set without this.
    pub fn token(&self) -> &SessionToken {
        self.session.token()
    }

    /// When it ends if it is not used any more: milliseconds (not seconds) since 1970, by the clock of Redis.
    pub fn expires_at(&self) -> u64 {
        self.session.expires_at()
    }

    /// Changes what the session holds, and stores it before this returns. If another request of the client stored something meanwhile,
    /// the change is made once more, to that, and so up to ten times. What a client sends must be bounded before it goes in: a session
    /// holds 16 KiB.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::update`](session::SessionStore::update); what is at hand is as it was then.
    pub async fn update(
        &mut self,
        change: impl FnMut(&mut SessionData<E>),
    ) -> Result<(), SessionError> {
        self.visit.store.update(&mut self.session, change).await?;
        self.visit.keep(&self.session);
        Ok(())
    }

    /// Gives the client a new token, and ends the old one. Do this whenever the user may do more than before.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::rotate`](session::SessionStore::rotate).
    pub async fn rotate(&mut self) -> Result<(), SessionError> {
        self.visit.store.rotate(&mut self.session).await?;
        self.visit.keep(&self.session);
        Ok(())
    }

    /// All sessions of this user, as a page of devices shows them. This one is the one whose `id` is [`id`](Self::id).
    ///
    /// # Errors
    ///
    /// [`Unavailable`](SessionError::Unavailable).
    pub async fn list(&self) -> Result<Vec<ListedSession<E>>, SessionError> {
        self.visit.store.list_user(&self.user_id).await
    }

    /// Ends one of this user's sessions by its [`id`](ListedSession::id). Returns whether there was one.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::destroy`](session::SessionStore::destroy).
    pub async fn end(&self, id: &str) -> Result<bool, SessionError> {
        self.visit.store.destroy_listed(&self.user_id, id).await
    }

    /// Ends all other sessions of this user. Returns how many there were. After a change of the password call [`rotate`](Self::rotate)
    /// first, and then this.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::destroy`](session::SessionStore::destroy).
    pub async fn log_out_others(&self) -> Result<usize, SessionError> {
        let store = &self.visit.store;
        store.destroy_user(&self.user_id, Some(self.token())).await
    }

    /// Ends all sessions of this user, this one too, and removes the cookie. Returns how many there were.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::destroy`](session::SessionStore::destroy); the cookie stays then.
    pub async fn log_out_everywhere(self) -> Result<usize, SessionError> {
        let ended = self.visit.store.destroy_user(&self.user_id, None).await?;
        self.visit.forget();
        self.visit.answer(Answer::Remove);
        Ok(ended)
    }

    /// Ends this session and all others that the client sent a token of, and removes the cookie.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::destroy`](session::SessionStore::destroy); the cookie stays then.
    pub async fn log_out(self) -> Result<(), SessionError> {
        let outcome = self.visit.store.destroy(self.token()).await;
        self.visit.log_out(outcome).await
    }
}

impl<E: Clone + Serialize + DeserializeOwned> Sessions<E> {
    /// Begins a session for whoever sent this request, and ends the one that the client had. Its address and browser are those of the
    /// request. The response sets the cookie.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::create`](session::SessionStore::create).
    pub async fn log_in(&self, new: NewSession<E>) -> Result<Session<E>, SessionError> {
        let visit = &self.visit;
        let mut new = new;
        if let Some(address) = visit.address {
            new = new.ip_address(address);
        }
        if let Some(name) = &visit.user_agent {
            new = new.user_agent(name);
        }
        let former = visit.sent.first();
        let session = visit.store.create_instead(new, former).await?;
        for other in visit.sent.iter().skip(1) {
            // Where this fails it is remembered: the login itself is done.
            let _ = visit.store.destroy(other).await;
        }
        visit.keep(&session);
        Ok(Session {
            visit: Arc::clone(visit),
            session,
        })
    }

    /// Ends the sessions that the client has, if any, and removes the cookie, also one that is no token of ours.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::destroy`](session::SessionStore::destroy), and [`UnknownKey`](SessionError::UnknownKey) if this process lacks
    /// the key of the only token; the cookie stays then.
    pub async fn log_out(&self) -> Result<(), SessionError> {
        if self.visit.has_unknown_key() {
            return Err(SessionError::UnknownKey);
        }
        self.visit.log_out(Ok(())).await
    }

    /// The session of this request, as the extractor [`Session`] finds it.
    ///
    /// # Errors
    ///
    /// Those of [`SessionStore::verify`](session::SessionStore::verify) and [`SessionStore::load`](session::SessionStore::load), and
    /// [`Missing`](SessionError::Missing).
    pub async fn current(&self) -> Result<Session<E>, SessionError> {
        let visit = Arc::clone(&self.visit);
        let session = visit.load().await?;
        Ok(Session { visit, session })
    }
}

impl<E> Deref for Session<E> {
    type Target = SessionData<E>;

    fn deref(&self) -> &SessionData<E> {
        self.session.data()
    }
}

/// What the layer has left in a request.
fn visit<E: Send + Sync + 'static>(parts: &Parts) -> Result<Arc<Visit<E>>, SessionError> {
    let visit = parts.extensions.get().cloned();
    visit.ok_or(SessionError::NoLayer(type_name::<E>()))
}

impl<S, E> FromRequestParts<S> for Sessions<E>
where
    S: Send + Sync,
    E: Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        visit(parts).map(|visit| Self { visit })
    }
}

impl<S, E> FromRequestParts<S> for Session<E>
where
    S: Send + Sync,
    E: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        let visit = visit(parts)?;
        let session = visit.load().await?;
        Ok(Self { visit, session })
    }
}

impl<S, E> OptionalFromRequestParts<S> for Session<E>
where
    S: Send + Sync,
    E: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, SessionError> {
        let session = <Self as FromRequestParts<S>>::from_request_parts(parts, state).await;
        match session {
            Ok(session) => Ok(Some(session)),
            Err(error) if error.is_logged_out() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// 401 if nobody is logged in, in the same words whatever the reason; 503 with `Retry-After` while nobody can tell; 409 for a conflict;
/// 413 for more data than a session holds; and 500 for what the service did wrong.
impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        let (status, detail) = match &self {
            Self::Unavailable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "sessions are unavailable; try again",
            ),
            Self::Conflict => (
                StatusCode::CONFLICT,
                "another request changed the session; try again",
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the session data is too large",
            ),
            error if error.is_logged_out() => (StatusCode::UNAUTHORIZED, "log in first"),
            _ => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "something went wrong on our side",
            ),
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            error!(error = %self, "a request failed because of a session error");
        }
        let mut response = problem::untyped(status, detail);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        match status {
            // RFC 9110 11.6.1 wants a scheme; no browser asks for a password by this one.
            StatusCode::UNAUTHORIZED => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Session"),
                );
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            _ => {}
        }
        response
    }
}

impl<E> fmt::Debug for Session<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.session, f)
    }
}

impl<E> fmt::Debug for Sessions<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}
