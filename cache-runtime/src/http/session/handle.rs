//! Sessions for handlers.

use std::any::type_name;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ::http::{Extensions, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::error;

use super::request::{CookieAction, RequestSession};
use crate::http::problem::{self, NO_STORE};
use crate::session::{self, ListedSession, NewSession, SessionData, SessionError, SessionToken};
use crate::throttle::Throttle;

/// When to retry while Redis is unavailable, in seconds. By then it is usually back, or known to be unavailable for
/// longer.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("3");

/// The session of a request, for handlers: its [`SessionData`], and methods to change it. [`Sessions::current`] returns it. With the
/// feature `axum` it is also an extractor.
///
/// The extractor answers 401 if there is no session. `Option<Session>` is [`None`] then. Both answer 503 if Redis is
/// unavailable, because the session is unknown then. A page that works without knowing takes `Result<Session,
/// SessionError>`. All extractors of a request share one read.
///
/// `E` is the application's own data. It must be the same type here, in [`Sessions`] and in the
/// [`SessionLayer`](super::SessionLayer). It must be `Clone + Serialize + DeserializeOwned + Send + Sync`; otherwise the
/// compiler reports only that the function is not a `Handler`.
///
/// ```
/// use axum::http::StatusCode;
/// use cache_runtime::http::Session;
/// use cache_runtime::session::SessionError;
///
/// async fn greet(session: Option<Session>) -> String {
///     match session {
///         Some(session) => format!("hello, {}", session.username),
///         None => "hello".to_owned(),
///     }
/// }
///
/// async fn confirm(mut session: Session) -> Result<StatusCode, SessionError> {
///     session.update(|data| data.is_verified = true).await?;
///     session.rotate().await?; // the user has more rights now
///     Ok(StatusCode::NO_CONTENT)
/// }
/// # let _: axum::Router<()> = axum::Router::new().route("/", axum::routing::get(greet).post(confirm));
/// ```
pub struct Session<E = ()> {
    request: Arc<RequestSession<E>>,
    session: session::StoredSession<E>,
}

/// Creates and ends sessions. Unlike [`Session`], it also works for requests without a session. With the feature `axum` it is an
/// extractor, otherwise use [`of`](Self::of).
///
/// ```
/// use axum::http::StatusCode;
/// use cache_runtime::http::Sessions;
/// use cache_runtime::session::{NewSession, SessionError};
///
/// async fn log_in(sessions: Sessions) -> Result<StatusCode, SessionError> {
///     // After the password was checked:
///     sessions.log_in(NewSession::new(42, "ada")).await?;
///     Ok(StatusCode::NO_CONTENT)
/// }
/// # let _: axum::Router<()> = axum::Router::new().route("/login", axum::routing::post(log_in));
/// ```
pub struct Sessions<E = ()> {
    request: Arc<RequestSession<E>>,
}

impl<E: Clone + Serialize + DeserializeOwned> Session<E> {
    /// Returns the id of the session for lists and logs. It is not secret. [`rotate`](Self::rotate) changes it.
    pub fn id(&self) -> String {
        self.session.id()
    }

    /// Returns the token, for clients that send it themselves. Cookies are set without this call.
    pub fn token(&self) -> &SessionToken {
        self.session.token()
    }

    /// Returns when the session ends if it is not used again: milliseconds (not seconds) since 1970, by Redis's clock.
    pub fn expires_at(&self) -> u64 {
        self.session.expires_at()
    }

    /// Changes the session and stores it before this returns. If another request of the client stored the session first,
    /// `change` runs again on the stored session, up to ten times. Bound the size of client data before storing it: a
    /// session holds 16 KiB.
    ///
    /// # Errors
    ///
    /// The same as [`SessionStore::update`](session::SessionStore::update). The session at hand does not contain the
    /// change then.
    pub async fn update(
        &mut self,
        change: impl FnMut(&mut SessionData<E>),
    ) -> Result<(), SessionError> {
        self.request.store.update(&mut self.session, change).await?;
        self.request.keep(&self.session);
        Ok(())
    }

    /// Gives the client a new token. The old token is no longer valid. Do this whenever the user gains rights.
    ///
    /// # Errors
    ///
    /// The same as [`SessionStore::rotate`](session::SessionStore::rotate).
    pub async fn rotate(&mut self) -> Result<(), SessionError> {
        self.request.store.rotate(&mut self.session).await?;
        self.request.keep(&self.session);
        Ok(())
    }

    /// Returns all sessions of this user, for example for a page of devices. This session is the item whose `id` is
    /// [`id`](Self::id).
    ///
    /// # Errors
    ///
    /// [`Unavailable`](SessionError::Unavailable).
    pub async fn list(&self) -> Result<Vec<ListedSession<E>>, SessionError> {
        self.request.store.list_user(&self.user_id).await
    }

    /// Ends a session of this user by its [`id`](ListedSession::id). Returns whether the session existed.
    ///
    /// # Errors
    ///
    /// The same as [`SessionStore::destroy`](session::SessionStore::destroy).
    pub async fn end(&self, id: &str) -> Result<bool, SessionError> {
        self.request.store.destroy_listed(&self.user_id, id).await
    }

    /// Ends all other sessions of this user. Returns how many sessions ended. After a password change, call
    /// [`rotate`](Self::rotate) first.
    ///
    /// # Errors
    ///
    /// The same as [`SessionStore::destroy`](session::SessionStore::destroy).
    pub async fn log_out_others(&self) -> Result<usize, SessionError> {
        let store = &self.request.store;
        store.destroy_user(&self.user_id, Some(self.token())).await
    }

    /// Ends all sessions of this user, including this session, and removes the cookie. Returns how many sessions ended.
    ///
    /// # Errors
    ///
    /// The same as [`SessionStore::destroy`](session::SessionStore::destroy). The cookie stays then.
    pub async fn log_out_everywhere(self) -> Result<usize, SessionError> {
        let ended = self.request.store.destroy_user(&self.user_id, None).await?;
        self.request.forget();
        self.request.set_cookie_action(CookieAction::Remove);
        Ok(ended)
    }

    /// Ends this session and every session that the client sent a token of, and removes the cookie.
    ///
    /// # Errors
    ///
    /// The same as [`SessionStore::destroy`](session::SessionStore::destroy). The cookie stays then.
    pub async fn log_out(self) -> Result<(), SessionError> {
        let outcome = self.request.store.destroy(self.token()).await;
        self.request.log_out(outcome).await
    }
}

impl<E: Send + Sync + 'static> Sessions<E> {
    /// Returns the sessions of the request with these extensions.
    ///
    /// # Errors
    ///
    /// [`NoLayer`](SessionError::NoLayer) unless a [`SessionLayer`](super::SessionLayer) with the same `E` is around the service.
    pub fn of(extensions: &Extensions) -> Result<Self, SessionError> {
        match extensions.get() {
            Some(request) => Ok(Self {
                request: Arc::clone(request),
            }),
            None => Err(SessionError::NoLayer(type_name::<E>())),
        }
    }
}

impl<E: Clone + Serialize + DeserializeOwned> Sessions<E> {
    /// Creates a session for the client of this request and ends the client's former session. The address and the browser
    /// come from the request. The response sets the cookie.
    ///
    /// # Errors
    ///
    /// The same as [`SessionStore::create`](session::SessionStore::create).
    pub async fn log_in(&self, new: NewSession<E>) -> Result<Session<E>, SessionError> {
        let request = &self.request;
        let mut new = new;
        if let Some(address) = request.address {
            new = new.ip_address(address);
        }
        if let Some(name) = &request.user_agent {
            new = new.user_agent(name);
        }
        let former = request.sent.first();
        let session = request.store.create_instead(new, former).await?;
        for other in request.sent.iter().skip(1) {
            // If this fails, the revocation is recorded: the login itself has succeeded.
            let _ = request.store.destroy(other).await;
        }
        request.keep(&session);
        Ok(Session {
            request: Arc::clone(request),
            session,
        })
    }

    /// Ends the sessions of the client, if any, and removes the cookie, also if it is not a valid token.
    ///
    /// # Errors
    ///
    /// The same as [`SessionStore::destroy`](session::SessionStore::destroy), and
    /// [`UnknownKey`](SessionError::UnknownKey) if this process lacks the key of the only token. The cookie stays then.
    pub async fn log_out(&self) -> Result<(), SessionError> {
        if self.request.has_unknown_key() {
            return Err(SessionError::UnknownKey);
        }
        self.request.log_out(Ok(())).await
    }

    /// Returns the session of this request, like the extractor [`Session`].
    ///
    /// # Errors
    ///
    /// The same as [`SessionStore::verify`](session::SessionStore::verify) and
    /// [`SessionStore::load`](session::SessionStore::load), and [`Missing`](SessionError::Missing).
    pub async fn current(&self) -> Result<Session<E>, SessionError> {
        let request = Arc::clone(&self.request);
        let session = request.load().await?;
        Ok(Session { request, session })
    }
}

impl<E> Deref for Session<E> {
    type Target = SessionData<E>;

    fn deref(&self) -> &SessionData<E> {
        self.session.data()
    }
}

/// 401 if there is no session, with the same text for every reason; 503 with `Retry-After` if the session is unknown; 409
/// for a conflict; 413 if the data exceeds the limit of a session; and 500 for a mistake of the service.
/// Of the line about a request that failed.
static FAILED: Throttle = Throttle::new();

impl<B: From<String>> From<SessionError> for Response<B> {
    fn from(error: SessionError) -> Self {
        let (status, detail) = match &error {
            SessionError::Unavailable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "sessions are unavailable; try again",
            ),
            SessionError::Conflict => (
                StatusCode::CONFLICT,
                "another request changed the session; try again",
            ),
            SessionError::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the session data is too large",
            ),
            error if error.is_logged_out() => (StatusCode::UNAUTHORIZED, "log in first"),
            _ => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "something went wrong on our side",
            ),
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR
            && let Some(suppressed) = FAILED.admit()
        {
            error!(%error, suppressed, "a request failed because of a session error");
        }
        let mut response = problem::untyped(status, detail);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        match status {
            // RFC 9110 11.6.1 requires a scheme. No browser prompts for a password with this scheme.
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
