//! Sessions of requests: a layer that knows the cookie, and extractors for handlers.
//!
//! A session is read when a handler asks for it, once in a request, and a change is in Redis before the handler goes on: what a
//! response says has been stored. A request that nobody asks for its session costs nothing and extends nothing.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::mem;
use std::net::IpAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_layer::Layer;
use tower_service::Service;
use tracing::error;

use super::client_ip::ClientIp;
use super::cookie::SessionCookie;
use super::problem;
use crate::error::Error;
use crate::session::{
    self, ListedSession, NewSession, SessionData, SessionError, SessionStore, SessionToken,
};

/// A request with more cookies of the name is made by somebody who tries; the rest is not looked at.
const MOST_TOKENS: usize = 4;

/// When to try again while Redis is away, in seconds: by then it is usually back, or known to be away for longer.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("3");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Gives handlers the [`Session`] of a request, and clients its cookie.
///
/// ```
/// use axum::extract::Json;
/// use axum::routing::{get, post};
/// use axum::{Router, http::StatusCode};
/// use cache_runtime::http::{Session, SessionLayer, Sessions};
/// use cache_runtime::session::{NewSession, SessionError, SessionStore};
/// # use cache_runtime::{Cache, Error};
///
/// async fn log_in(sessions: Sessions, Json(password): Json<String>) -> Result<StatusCode, SessionError> {
///     if password != "as the database has it" {
///         return Ok(StatusCode::UNAUTHORIZED);
///     }
///     sessions.log_in(NewSession::new(42, "ada")).await?;
///     Ok(StatusCode::NO_CONTENT)
/// }
///
/// async fn log_out(sessions: Sessions) -> Result<StatusCode, SessionError> {
///     sessions.log_out().await?;
///     Ok(StatusCode::NO_CONTENT)
/// }
///
/// // 401 without a session, 503 while nobody can tell.
/// async fn whoami(session: Session) -> String {
///     session.username.clone()
/// }
///
/// # fn app(cache: &Cache) -> Result<Router, Error> {
/// let layer = SessionLayer::new(SessionStore::<()>::new(cache)?);
/// let app = Router::new()
///     .route("/login", post(log_in))
///     .route("/logout", post(log_out))
///     .route("/whoami", get(whoami))
///     .layer(layer);
/// # Ok(app)
/// # }
/// ```
///
/// The cookie is [`SessionCookie`]'s default; without TLS browsers need [`SessionCookie::insecure`]. Browsers send it along with requests
/// that other sites make them send as far as [`SameSite`](super::SameSite) says: with `Lax` with no `POST`, so let no `GET` change
/// anything.
///
/// Put a [`RateLimitLayer`](super::RateLimitLayer) around it: then sessions know the client's address behind proxies.
#[must_use]
pub struct SessionLayer<E = ()> {
    settings: Settings<E>,
}

/// What a [`SessionLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct SessionService<S, E = ()> {
    inner: S,
    settings: Settings<E>,
}

struct Settings<E> {
    store: SessionStore<E>,
    cookie: Arc<SessionCookie>,
    bearer: Bearer,
}

/// Whether tokens count that are no cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bearer {
    Ignored,
    Taken,
}

/// The session of a request, for handlers: [`SessionData`] to be read, and what can be done to it.
///
/// As an extractor it answers 401 where there is no session. `Option<Session>` is [`None`] then. Both answer 503 if Redis is away:
/// nobody knows then whether there is one. All of a request share one read.
///
/// `E` is what the application adds, and that of the [`SessionLayer`].
pub struct Session<E = ()> {
    visit: Arc<Visit<E>>,
    session: session::Session<E>,
}

/// For handlers that begin and end sessions, whether the request has one or not.
pub struct Sessions<E = ()> {
    visit: Arc<Visit<E>>,
}

/// A request, as far as sessions are concerned.
struct Visit<E> {
    store: SessionStore<E>,
    /// What the client sent that could be a token, and how.
    sent: Vec<SessionToken>,
    refused: Option<SessionError>,
    /// How it sent that; [`None`] if it sent nothing.
    carrier: Option<Carrier>,
    address: Option<IpAddr>,
    user_agent: Option<String>,
    /// What was read in this request.
    loaded: tokio::sync::Mutex<Option<session::Session<E>>>,
    answer: Mutex<Answer>,
}

/// How a client sends its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Cookie,
    Header,
}

/// What the response is to do with the client's cookie.
enum Answer {
    Leave,
    Set(SessionToken, Duration),
    Remove,
}

impl<E> SessionLayer<E> {
    /// Gives requests the sessions of this store.
    pub fn new(store: SessionStore<E>) -> Self {
        Self {
            settings: Settings {
                store,
                cookie: Arc::default(),
                bearer: Bearer::Ignored,
            },
        }
    }

    /// Which cookie carries the token.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with everything that browsers would refuse.
    pub fn cookie(mut self, cookie: SessionCookie) -> Result<Self, Error> {
        cookie.check()?;
        self.settings.store = self.settings.store.for_cookie(cookie.name_text());
        self.settings.cookie = Arc::new(cookie);
        Ok(self)
    }

    /// Also takes tokens from `Authorization: Bearer …`, for clients that are no browsers. Such a client finds a new token not in a
    /// cookie but where the handler puts it: [`Session::token`].
    pub fn bearer(mut self) -> Self {
        self.settings.bearer = Bearer::Taken;
        self
    }
}

impl<S, E> Layer<S> for SessionLayer<E> {
    type Service = SessionService<S, E>;

    fn layer(&self, inner: S) -> SessionService<S, E> {
        SessionService {
            inner,
            settings: self.settings.clone(),
        }
    }
}

impl<S, E, B, R> Service<Request<B>> for SessionService<S, E>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    E: Send + Sync + 'static,
    B: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The one that is ready is called; its clone has to become ready first.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        let cookie = Arc::clone(&self.settings.cookie);
        let visit = Arc::new(self.settings.visit(&request));
        request.extensions_mut().insert(Arc::clone(&visit));
        Box::pin(async move {
            let mut response = inner.call(request).await?;
            visit.write(&cookie, response.headers_mut());
            Ok(response)
        })
    }
}

impl<E> Settings<E> {
    fn visit<B>(&self, request: &Request<B>) -> Visit<E> {
        let headers = request.headers();
        let bearer = match self.bearer {
            Bearer::Taken => bearer(headers),
            Bearer::Ignored => None,
        };
        let (mut sent, mut refused) = (Vec::new(), None);
        let mut carrier = bearer.map(|_| Carrier::Header);
        let values = bearer.into_iter().chain(self.cookie.values(headers));
        for value in values.take(MOST_TOKENS) {
            carrier = carrier.or(Some(Carrier::Cookie));
            match self.store.verify(value) {
                Ok(token) if sent.contains(&token) => {}
                Ok(token) => sent.push(token),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let user_agent = headers.get(header::USER_AGENT);
        Visit {
            store: self.store.clone(),
            sent,
            refused,
            carrier,
            address: ClientIp::of(request.extensions()).map(|ClientIp(address)| address),
            user_agent: user_agent
                .map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()),
            loaded: tokio::sync::Mutex::new(None),
            answer: Mutex::new(Answer::Leave),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("Bearer")
        .then(|| token.trim_ascii())
}

impl<E> Visit<E> {
    /// The one token that counts. Who sends two that do is not told whose session it would be.
    fn token(&self) -> Result<&SessionToken, SessionError> {
        match &self.sent[..] {
            [token] => Ok(token),
            [] => Err(match &self.refused {
                Some(SessionError::UnknownKey) => SessionError::UnknownKey,
                Some(SessionError::BadSignature) => SessionError::BadSignature,
                Some(_) => SessionError::Malformed,
                None => SessionError::Missing,
            }),
            _ => Err(SessionError::Malformed),
        }
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// The client is to have the session's token, if it does not have it.
    fn issue(&self, session: &session::Session<E>) {
        if session.is_reissued() {
            self.answer(Answer::Set(session.token().clone(), session.longest()));
        }
    }

    fn write(&self, cookie: &SessionCookie, headers: &mut HeaderMap) {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let set = match (&*answer, self.carrier) {
            // A cookie that was not sent may be one that another site could not make the browser send.
            (Answer::Remove, None) | (Answer::Leave, _) | (_, Some(Carrier::Header)) => return,
            (Answer::Set(token, life), _) => cookie.set(token.expose(), *life),
            (Answer::Remove, Some(Carrier::Cookie)) => cookie.removal(),
        };
        if let Some(set) = set {
            headers.append(header::SET_COOKIE, set);
            // Nobody between here and the client shall keep a response with a token for others.
            headers.insert(header::CACHE_CONTROL, NO_STORE);
        }
    }

    async fn forget(&self) {
        *self.loaded.lock().await = None;
    }
}

impl<E: Clone + Serialize + DeserializeOwned> Visit<E> {
    async fn load(self: &Arc<Self>) -> Result<Session<E>, SessionError> {
        let mut loaded = self.loaded.lock().await;
        let session = match &*loaded {
            Some(session) => session.clone(),
            None => {
                let session = self.store.load(self.token()?).await?;
                self.issue(&session);
                *loaded = Some(session.clone());
                session
            }
        };
        Ok(Session {
            visit: Arc::clone(self),
            session,
        })
    }

    /// The session is now another one, or another revision.
    async fn keep(&self, session: &session::Session<E>) {
        self.issue(session);
        *self.loaded.lock().await = Some(session.clone());
    }
}

impl<E: Clone + Serialize + DeserializeOwned> Session<E> {
    /// Names the session in lists and logs, and is no secret.
    pub fn id(&self) -> String {
        self.session.id()
    }

    /// The token, for clients that send it themselves. A cookie is set without this.
    pub fn token(&self) -> &SessionToken {
        self.session.token()
    }

    /// When it ends if it is not used any more, in milliseconds since 1970.
    pub fn expires_at(&self) -> u64 {
        self.session.expires_at()
    }

    /// Changes what the session holds, and stores it before this returns. If another request of the client stored something meanwhile,
    /// the change is made once more, to that.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::update`]; nothing is stored then.
    pub async fn update(
        &mut self,
        change: impl FnMut(&mut SessionData<E>),
    ) -> Result<(), SessionError> {
        self.visit.store.update(&mut self.session, change).await?;
        self.visit.keep(&self.session).await;
        Ok(())
    }

    /// Gives the client a new token, and ends the old one. Do this whenever the user may do more than before.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::rotate`].
    pub async fn rotate(&mut self) -> Result<(), SessionError> {
        self.visit.store.rotate(&mut self.session).await?;
        self.visit.keep(&self.session).await;
        Ok(())
    }

    /// All sessions of this user, this one among them, as a page of devices shows them.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](SessionError::Unavailable).
    pub async fn list(&self) -> Result<Vec<ListedSession<E>>, SessionError> {
        self.visit.store.list_user(&self.user_id).await
    }

    /// Ends one of this user's sessions by its [`id`](ListedSession::id). Answers whether there was one.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::destroy`].
    pub async fn end(&self, id: &str) -> Result<bool, SessionError> {
        self.visit.store.destroy_listed(&self.user_id, id).await
    }

    /// Ends all other sessions of this user, as after a change of the password. Answers how many there were.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::destroy`].
    pub async fn log_out_others(&self) -> Result<usize, SessionError> {
        let store = &self.visit.store;
        store.destroy_user(&self.user_id, Some(self.token())).await
    }

    /// Ends all sessions of this user, this one too, and removes the cookie. Answers how many there were.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::destroy`]; the cookie stays then.
    pub async fn log_out_everywhere(self) -> Result<usize, SessionError> {
        let ended = self.visit.store.destroy_user(&self.user_id, None).await?;
        self.visit.forget().await;
        self.visit.answer(Answer::Remove);
        Ok(ended)
    }

    /// Ends this session, and removes the cookie.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::destroy`]; the cookie stays then.
    pub async fn log_out(self) -> Result<(), SessionError> {
        self.visit.store.destroy(self.token()).await?;
        self.visit.forget().await;
        self.visit.answer(Answer::Remove);
        Ok(())
    }
}

impl<E: Clone + Serialize + DeserializeOwned> Sessions<E> {
    /// Begins a session for whoever sent this request, and ends the one that the client had. Its address and browser are those of the
    /// request. The response sets the cookie.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::create`].
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
        visit.keep(&session).await;
        Ok(Session {
            visit: Arc::clone(visit),
            session,
        })
    }

    /// Ends the session that the client has, if any, and removes the cookie, also one that is no token of ours.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::destroy`]; the cookie stays then.
    pub async fn log_out(&self) -> Result<(), SessionError> {
        let mut outcome = Ok(());
        for token in &self.visit.sent {
            let ended = self.visit.store.destroy(token).await;
            outcome = outcome.and(ended);
        }
        self.visit.forget().await;
        outcome?;
        self.visit.answer(Answer::Remove);
        Ok(())
    }

    /// The session of this request, as the extractor [`Session`] finds it.
    ///
    /// # Errors
    ///
    /// Those of [`SessionStore::verify`] and [`SessionStore::load`], and [`Missing`](SessionError::Missing).
    pub async fn current(&self) -> Result<Session<E>, SessionError> {
        self.visit.load().await
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
    parts.extensions.get().cloned().ok_or_else(|| {
        let extension = type_name::<E>();
        error!(extension, "a handler asks for sessions, but its route has no `SessionLayer` with that extension; add one");
        SessionError::Invalid("there is no `SessionLayer` around this route; add one, with the same extension")
    })
}

impl<S, E> FromRequestParts<S> for Sessions<E>
where
    S: Sync,
    E: Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        visit(parts).map(|visit| Self { visit })
    }
}

impl<S, E> FromRequestParts<S> for Session<E>
where
    S: Sync,
    E: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        visit(parts)?.load().await
    }
}

impl<S, E> OptionalFromRequestParts<S> for Session<E>
where
    S: Sync,
    E: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, SessionError> {
        match visit(parts)?.load().await {
            Ok(session) => Ok(Some(session)),
            Err(error) if error.is_logged_out() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// 401 if nobody is logged in, in the same words whatever the reason; 503 with `Retry-After` while nobody can tell; 409 for a conflict,
/// and 500 for what the service did wrong.
impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        let (status, detail) = match &self {
            Self::Unavailable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "sessions are not available; try again",
            ),
            Self::Conflict => (
                StatusCode::CONFLICT,
                "the session was changed meanwhile; try again",
            ),
            error if error.is_logged_out() => (StatusCode::UNAUTHORIZED, "log in first"),
            _ => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "something went wrong on our side",
            ),
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            error!(error = %self, "a session could not be handled");
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

impl<E> Clone for SessionLayer<E> {
    fn clone(&self) -> Self {
        Self {
            settings: self.settings.clone(),
        }
    }
}

impl<E> Clone for Settings<E> {
    fn clone(&self) -> Self {
        let Self {
            store,
            cookie,
            bearer,
        } = self;
        Self {
            store: store.clone(),
            cookie: Arc::clone(cookie),
            bearer: *bearer,
        }
    }
}

impl<E> fmt::Debug for SessionLayer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionLayer").field(&self.settings).finish()
    }
}

impl<E> fmt::Debug for Settings<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            store,
            cookie,
            bearer,
        } = self;
        f.debug_struct("Settings")
            .field("store", store)
            .field("cookie", cookie)
            .field("bearer", bearer)
            .finish()
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

#[cfg(test)]
mod tests;
