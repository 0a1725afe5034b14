//! Sessions of requests: a layer that handles the cookie, and sessions for handlers.
//!
//! - A session is loaded when a handler first asks for it, once per request.
//! - A change is in Redis before the handler continues, so a response reports only what has been stored.
//! - A request whose handler does not use the session sends no command and does not extend the session.

mod handle;
mod request;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};

use ::http::{HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{debug, warn};

pub use self::handle::{Session, Sessions};
use self::request::RequestSession;
use super::body::{self, BoxError, ResponseBody};
use super::cookie::SessionCookie;
use super::origin::Trusted;
use super::problem::{self, NO_STORE};
use super::take_ready;
use crate::error::Error;
use crate::session::SessionStore;

const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

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
/// The application adds its own data with its own type, which must be the same everywhere:
///
/// ```
/// # use axum::extract::Path;
/// # use axum::{Router, http::StatusCode, routing::post};
/// # use cache_runtime::http::{Session, SessionLayer, Sessions};
/// # use cache_runtime::session::{NewSession, SessionError, SessionStore};
/// # use cache_runtime::{Cache, Error};
/// #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// struct Shop {
///     #[serde(default)] // sessions from before there was such a field go on
///     cart: Vec<u32>,
/// }
///
/// async fn add(mut session: Session<Shop>, Path(article): Path<u32>) -> Result<StatusCode, SessionError> {
///     session.update(|data| data.extension.cart.push(article)).await?;
///     Ok(StatusCode::NO_CONTENT)
/// }
///
/// async fn log_in(sessions: Sessions<Shop>) -> Result<StatusCode, SessionError> {
///     sessions.log_in(NewSession::new(42, "ada").extension(Shop::default())).await?;
///     Ok(StatusCode::NO_CONTENT)
/// }
///
/// # fn app(cache: &Cache) -> Result<Router, Error> {
/// let layer = SessionLayer::new(SessionStore::<Shop>::new(cache)?);
/// # Ok(Router::new().route("/login", post(log_in)).route("/cart/{article}", post(add)).layer(layer))
/// # }
/// ```
///
/// The cookie is the default of [`SessionCookie`]. Without TLS, browsers need [`SessionCookie::insecure`].
///
/// # Requests that pages of other origins make a browser send
///
/// A browser sends the cookie with requests of other sites as far as [`SameSite`](super::SameSite) allows. It also sends the cookie
/// with all requests of the same site, which includes every subdomain.
///
/// So the layer checks where requests come from:
///
/// - A request that may change something and comes from another origin does not reach a handler. It gets a 403 with a body of
///   `application/problem+json`.
/// - Methods that change nothing (`GET`, `HEAD`, `OPTIONS`, `TRACE`) pass, so their handlers must not change anything.
/// - A `GET` that opens a WebSocket is checked.
///
/// | the request has | it passes |
/// |---|---|
/// | an `Origin` that [is trusted](Self::trusted_origins) | Always |
/// | `Sec-Fetch-Site`, which browsers send to `https` and `localhost` | If it is `same-origin` or `none` |
/// | only `Origin` | If scheme, host and port are those of the service |
/// | neither | Always: it does not come from a browser |
/// | `Authorization: Bearer` and no session cookie, or one of our tokens there with [`bearer`](Self::bearer) | Always: a page cannot make a browser add that header without permission |
///
/// The host of the service is the one in `Host`. A proxy that ends TLS does not report the scheme, so the layer derives it: with
/// a `Secure` cookie the scheme is `https`, and on this machine also `http`. If a proxy in front changes `Host`, name the public
/// origin with [`trusted_origins`](Self::trusted_origins); `X-Forwarded-Host` is not read. Put a CORS layer outside of this one,
/// so that it answers preflights.
///
/// # Caches and addresses
///
/// If the session of a request was read, its response has `Cache-Control: private, no-cache`, unless the handler sets another
/// value.
///
/// Serve with `into_make_service_with_connect_info::<SocketAddr>()`: sessions take the client's address from it. Behind proxies
/// they take it from a [`RateLimitLayer`](super::RateLimitLayer) around this layer.
#[must_use]
pub struct SessionLayer<E = ()> {
    settings: Settings<E>,
}

/// A service with a [`SessionLayer`] around it.
#[derive(Clone, Debug)]
pub struct SessionService<S, E = ()> {
    inner: S,
    settings: Settings<E>,
}

struct Settings<E> {
    store: SessionStore<E>,
    cookie: Arc<SessionCookie>,
    bearer: Bearer,
    trusted: Arc<Trusted>,
    /// Whether the warning about a refused request of another origin was logged.
    refused: Arc<Once>,
}

/// Whether tokens outside of cookies are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bearer {
    Ignored,
    Taken,
}

impl<E> SessionLayer<E> {
    /// Creates a layer for the sessions of this store. It uses the cookie `__Host-session`, whatever cookie the store was created
    /// for.
    pub fn new(store: SessionStore<E>) -> Self {
        let cookie = SessionCookie::default();
        Self {
            settings: Settings {
                store: store.for_cookie(cookie.name_text()),
                cookie: Arc::new(cookie),
                bearer: Bearer::Ignored,
                trusted: Arc::default(),
                refused: Arc::new(Once::new()),
            },
        }
    }

    /// Sets the cookie that carries the token. Default: `__Host-session`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with every setting that browsers would refuse.
    pub fn cookie(mut self, cookie: SessionCookie) -> Result<Self, Error> {
        cookie.check()?;
        self.settings.store = self.settings.store.for_cookie(cookie.name_text());
        self.settings.cookie = Arc::new(cookie);
        Ok(self)
    }

    /// Also accepts tokens from `Authorization: Bearer …`, for clients that are not browsers. Default: not accepted.
    ///
    /// - For a request with one of our tokens in this header, only that token counts, whatever cookies it has.
    /// - Its response does not set a cookie. The handler has to return a new token, [`Session::token`], itself.
    /// - A login without such a token also sets the cookie.
    pub fn bearer(mut self) -> Self {
        self.settings.bearer = Bearer::Taken;
        self
    }

    /// Allows pages of these origins, such as `https://app.example.com`, to send requests that change something. Default: none.
    ///
    /// The service's own origin need not be listed, unless a proxy changes `Host`. The last call counts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with every item that is not an origin, or if `origins` is empty.
    pub fn trusted_origins<T: AsRef<str>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        self.settings.trusted = Arc::new(Trusted::parse(origins)?);
        Ok(self)
    }

    /// Disables the check of origins. Default: they are checked. Without the check, every route that changes something needs its own
    /// protection against requests that other sites forge.
    pub fn allow_any_origin(mut self) -> Self {
        self.settings.trusted = Arc::new(Trusted::Any);
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
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let cookie = Arc::clone(&self.settings.cookie);
        let bearer = self.settings.bearer;
        let session = Arc::new(RequestSession::new(&self.settings, &request));
        if session.is_at_risk() && self.settings.trusted.refuses(&request, cookie.is_secure()) {
            let refusal = self.settings.refuse_origin(&request);
            let refusal = refusal.map(|text| ResponseBody::own(body::boxed(text)));
            return Box::pin(async { Ok(refusal) });
        }
        request.extensions_mut().insert(Arc::clone(&session));
        Box::pin(async move {
            let mut response = inner.call(request).await?.map(ResponseBody::new);
            if response.status() == StatusCode::UNAUTHORIZED && bearer == Bearer::Taken {
                let challenges = response.headers_mut();
                challenges.append(header::WWW_AUTHENTICATE, BEARER);
            }
            session.write(&cookie, response.headers_mut());
            Ok(response)
        })
    }
}

impl<E> Settings<E> {
    fn refuse_origin<B>(&self, request: &Request<B>) -> Response<String> {
        let headers = request.headers();
        let [origin, site, host] = [
            headers.get(header::ORIGIN),
            headers.get("sec-fetch-site"),
            headers.get(header::HOST),
        ];
        debug!(
            ?origin,
            ?site,
            ?host,
            "refused a request from another origin"
        );
        self.refused.call_once(|| {
            warn!(
                ?origin,
                ?site,
                ?host,
                "refused a state-changing request because a page of another origin sent it; if you trust the origin, add it to \
                 `SessionLayer::trusted_origins`; this warning is logged once, and every refusal is logged at `debug`"
            );
        });
        let mut response = problem::untyped_or_grpc(
            request.method(),
            request.headers(),
            StatusCode::FORBIDDEN,
            "the request was sent by a page of another origin",
        );
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, NO_STORE);
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
            trusted,
            refused,
        } = self;
        Self {
            store: store.clone(),
            cookie: Arc::clone(cookie),
            bearer: *bearer,
            trusted: Arc::clone(trusted),
            refused: Arc::clone(refused),
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
            trusted,
            refused: _,
        } = self;
        f.debug_struct("Settings")
            .field("store", store)
            .field("cookie", cookie)
            .field("bearer", bearer)
            .field("trusted", trusted)
            .finish()
    }
}

#[cfg(feature = "axum")]
#[cfg(test)]
mod tests;
