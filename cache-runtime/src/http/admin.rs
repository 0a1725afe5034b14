//! An API and a page for operators: what the cache does, and what to do about it. Feature `admin`.

mod access;
mod config;
mod events;
mod history;
mod jobs;
mod page;
mod problem;
mod query;
mod reads;
mod routes;
#[cfg(feature = "sessions")]
mod sessions;
#[cfg(test)]
mod tests;
mod view;
mod walks;
mod writes;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, ORIGIN, REFERRER_POLICY};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_service::Service;
use tracing::{info, warn};

use self::access::{Access, LOGOUT, Refused, Who};
pub use self::access::{AdminRole, AdminUser};
pub use self::config::AdminConfig;
use self::events::Feed;
use self::history::History;
use self::problem::Problem;
use self::query::Parameters;
use self::routes::{Action, Needs, Route};
use self::walks::Walks;
use super::body::{BoxError, ResponseBody};
use super::origin::{self, Trusted};
use super::problem::NO_STORE;
use crate::cache::{Cache, Health};
use crate::catalog::Catalog;
use crate::sync::Mutex;
use crate::throttle::Throttle;

/// The longest body, in bytes: a key with every character escaped fits.
const MAX_BODY: usize = 16 * 1024;

/// How long a client may take to send a body, because it holds one of the places during that time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests at a time. Operators are few, and the service has other work.
const MAX_REQUESTS: usize = 32;

/// How old the health on the page may be. Pages must not cause load on Redis.
const FRESH: Duration = Duration::from_secs(1);

/// No script, style or request but those of this service. Nothing is inline, so injected text cannot run.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri \
     'none'; frame-ancestors 'none'",
);

type Answer = Response<ResponseBody<String>>;

/// A service with an API and a page for operators. [`admin()`] creates it.
#[derive(Clone)]
pub struct AdminService {
    shared: Arc<Shared>,
}

/// What all clones share.
struct Shared {
    cache: Cache,
    config: AdminConfig,
    /// It is the same as long as the program runs.
    catalog: Catalog,
    under_way: Semaphore,
    walks: Walks,
    feed: Feed,
    history: History,
    /// When Redis was asked last, and what it answered.
    health: Mutex<(Option<Instant>, Option<Health>)>,
    /// Of the line about a refused request.
    refused: Throttle,
}

/// A request, as handlers see it.
struct Asked<'a> {
    shared: &'a Arc<Shared>,
    who: &'a Who,
    query: &'a str,
    /// What stands for the placeholder in the path.
    name: String,
    body: Bytes,
}

/// Returns a service with an API and a page about `cache`, for operators. Nothing mounts it by itself.
///
/// Mount it at a path that ends with a slash, so that the relative links of the page work:
///
/// ```
/// use axum::Router;
/// use cache_runtime::{Cache, http};
///
/// # let cache = Cache::memory();
/// let admin = http::admin(&cache, http::AdminConfig::default());
/// let app: Router = Router::new().nest_service("/admin/cache/", admin);
/// ```
///
/// **Who may use it:** without a token and without users from a layer, only clients on this machine. The address of the peer decides,
/// never a header; if it is unknown, or a proxy forwarded the request, the request is refused. See [`AdminConfig`].
///
/// - A browser logs in on the page with a token. It keeps a signed cookie, which scripts cannot read and which ends after 8 h.
/// - Requests that change something must come from the page itself or from a program, not from a page of another origin. Each is
///   logged at the level `info` with the target `cache_runtime::admin`: who, what, and the outcome.
/// - Errors are `application/problem+json`. `openapi.json` under the same path describes all routes.
/// - The page works while Redis is unavailable. It sends requests to no other origin.
/// - A page of keys and a count do a bounded amount of work, at most 2 s of scanning. An eviction takes as long as it needs. At most 32
///   requests run at a time, and at most 4 of them scan keys without evicting them. Requests for the usage share one count.
///
/// `docs/book/src/reference/admin.md` describes the page and the routes.
pub fn admin(cache: &Cache, config: AdminConfig) -> AdminService {
    let shared = Arc::new(Shared {
        cache: cache.clone(),
        config,
        catalog: cache.catalog(),
        under_way: Semaphore::new(MAX_REQUESTS),
        walks: Walks::new(),
        feed: Feed::new(),
        history: History::default(),
        health: Mutex::default(),
        refused: Throttle::new(),
    });
    history::ensure(&shared);
    AdminService { shared }
}

impl<B> Service<Request<B>> for AdminService
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
    B::Data: Send,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            history::ensure(&shared);
            let is_head = request.method() == Method::HEAD;
            let mut response = match shared.respond(request).await {
                Ok(response) => response,
                Err(problem) => problem.response().map(ResponseBody::new),
            };
            if is_head {
                *response.body_mut() = ResponseBody::default();
            }
            secure(response.headers_mut());
            Ok(response)
        })
    }
}

impl Shared {
    async fn respond<B>(self: &Arc<Self>, request: Request<B>) -> Result<Answer, Problem>
    where
        B: Body<Error: Into<BoxError>> + Send + 'static,
        B::Data: Send,
    {
        let (route, name) = routes::find(request.method(), request.uri().path())?;
        let now = self.cache.config().clock.now_millis();
        let has_tokens = matches!(self.config.access, Access::Tokens { .. });
        if has_tokens && matches!(route.action, Action::Login) {
            // Also with a cookie: a person may log in with another token.
            return self.log_in(request, now).await;
        }
        let who = self.config.access.of(&request, now);
        let who = match (who.and_then(|who| permitted(who, route)), route.needs) {
            (Ok(who), _) => who,
            // What the page of the login consists of.
            (Err(Refused::NoToken | Refused::WrongToken), Needs::Nothing) => {
                return Ok(match route.action {
                    Action::Asset(asset) => page::asset(asset),
                    // There is no login to end.
                    _ => page::back(),
                });
            }
            (Err(refused), needs) => {
                self.log_refused(&request, &refused);
                // A person gets a page on which to log in.
                return match (route.action, needs, refused) {
                    (Action::Page, _, Refused::NoToken) => {
                        Ok(page::login(StatusCode::UNAUTHORIZED, None))
                    }
                    (_, _, refused) => Err(refused.into()),
                };
            }
        };
        let places = match route.action {
            // They wait for one census, so they keep nobody out.
            Action::Usage => &self.walks.waiting,
            _ => &self.under_way,
        };
        let Ok(_place) = places.try_acquire() else {
            return Err(too_many());
        };
        // A link may lead to the page from anywhere.
        let is_page = matches!(
            route.action,
            Action::Page | Action::LoginPage | Action::Asset(_)
        );
        let is_foreign = !is_page && origin::is_foreign(request.headers());
        if is_foreign || Trusted::default().refuses(&request, false) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "the request comes from a page of another origin; use the page of this service, or a program",
            ));
        }
        let (parts, body) = request.into_parts();
        let body = match route.method {
            "POST" => read(body).await?,
            _ => Bytes::new(),
        };
        let query = parts.uri.query().unwrap_or_default();
        let asked = Asked {
            shared: self,
            who: &who,
            query,
            name,
            body,
        };
        if route.needs == Needs::Write {
            return asked.write(route).await;
        }
        asked.read(route.action).await
    }

    /// Gives a cookie to a browser whose person has a token.
    async fn log_in<B>(&self, request: Request<B>, now: u64) -> Result<Answer, Problem>
    where
        B: Body<Error: Into<BoxError>> + Send + 'static,
        B::Data: Send,
    {
        if Trusted::default().refuses(&request, false) {
            let text =
                "the login comes from a page of another origin; use the page of this service";
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
        let (parts, body) = request.into_parts();
        let body = read(body).await?;
        // Anybody may try to log in, so a login takes none of the places of operators. A check of a token takes microseconds.
        let form = Parameters::parse(&String::from_utf8_lossy(&body), &["token"])?;
        let token = form.get("token").unwrap_or_default().trim();
        let Some(role) = self.config.access.role_of(token) else {
            let request = Request::from_parts(parts, ());
            self.log_refused(&request, &Refused::WrongToken);
            let wrong = Some("This token is wrong.");
            return Ok(page::login(StatusCode::UNAUTHORIZED, wrong));
        };
        // The browser states the scheme that it uses. A proxy in front may have ended TLS.
        let origin = parts.headers.get(ORIGIN);
        let is_secure = origin.is_some_and(|origin| origin.as_bytes().starts_with(b"https:"));
        let mut response = page::back();
        if let Some(cookie) = self.config.access.login(role, now, is_secure) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        let peer = super::client_ip::peer(&parts.extensions);
        info!(target: "cache_runtime::admin", ?peer, ?role, "a browser logged in");
        Ok(response)
    }

    fn log_refused<B>(&self, request: &Request<B>, refused: &Refused) {
        if let Some(suppressed) = self.refused.admit() {
            let peer = super::client_ip::peer(request.extensions());
            warn!(
                target: "cache_runtime::admin",
                ?peer,
                reason = ?refused,
                suppressed,
                "an admin request was refused"
            );
        }
    }

    /// Returns the health, as old as [`FRESH`] at most while requests come.
    async fn health(&self) -> Health {
        {
            let mut known = self.health.lock();
            let (asked, health) = &mut *known;
            if let Some(health) = health
                && asked.is_some_and(|asked| asked.elapsed() < FRESH)
                && health.mode == self.cache.mode()
            {
                return health.clone();
            }
            *asked = Some(Instant::now());
        }
        let health = self.cache.health().detail().await;
        self.health.lock().1 = Some(health.clone());
        health
    }
}

impl Asked<'_> {
    fn parameters(&self, known: &[&str]) -> Result<Parameters, Problem> {
        Parameters::parse(self.query, known)
    }

    async fn read(&self, action: Action) -> Result<Answer, Problem> {
        let value = match action {
            Action::Asset(asset) => return Ok(page::asset(asset)),
            Action::Page => return Ok(page::page(self.shared, self.who).await),
            Action::Login | Action::LoginPage => return Ok(page::back()),
            Action::Logout => {
                let mut response = page::back();
                response.headers_mut().insert(header::SET_COOKIE, LOGOUT);
                return Ok(response);
            }
            Action::OpenApi => return Ok(page::open_api()),
            Action::Events => return events::stream(self),
            other => self.look(other).await?,
        };
        Ok(json(StatusCode::OK, &value))
    }

    async fn write(&self, route: &Route) -> Result<Answer, Problem> {
        let mut record = Record::new(self.who, route.action.name());
        let result = match self.change(route.action) {
            Ok(change) => {
                record.what = self.what(&change);
                self.make(change).await
            }
            Err(problem) => Err(problem),
        };
        record.end(match &result {
            Ok(outcome) => outcome.to_string(),
            Err(problem) => problem.status.to_string(),
        });
        let outcome = result?;
        Ok(match route.method {
            // As Spring Boot's actuator answers.
            "DELETE" => no_content(),
            _ => json(StatusCode::OK, &outcome),
        })
    }
}

/// The line in the log about a change. It is written at the end, also if the client leaves before the change ends.
struct Record<'a> {
    who: &'a Who,
    action: &'static str,
    /// What is changed, as the log names it.
    what: String,
    outcome: String,
}

impl<'a> Record<'a> {
    fn new(who: &'a Who, action: &'static str) -> Self {
        Self {
            who,
            action,
            what: String::new(),
            outcome: "unknown: the client left before the end".to_owned(),
        }
    }

    fn end(mut self, outcome: String) {
        self.outcome = outcome;
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        info!(
            target: "cache_runtime::admin",
            who = self.who.name,
            peer = ?self.who.peer,
            action = self.action,
            what = self.what,
            outcome = self.outcome,
            "an admin request changed something, or tried to"
        );
    }
}

/// Returns a user that may use the route.
fn permitted(who: Who, route: &Route) -> Result<Who, Refused> {
    if route.needs == Needs::Write && who.role < AdminRole::Write {
        return Err(Refused::ReadRole {
            who: who.name,
            action: route.action.name(),
        });
    }
    Ok(who)
}

fn too_many() -> Problem {
    let text = "too many admin requests are under way; try again in a second";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// Returns the body of a request that may have one.
async fn read<B>(body: B) -> Result<Bytes, Problem>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
    B::Data: Send,
{
    let whole = Limited::new(body, MAX_BODY).collect();
    let Ok(whole) = timeout(PATIENCE, whole).await else {
        let text = format!("the body did not arrive within {PATIENCE:?}; send it again");
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, text));
    };
    match whole {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is too long; use at most {MAX_BODY} bytes"),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "the body did not arrive completely; send it again",
        )),
    }
}

fn json(status: StatusCode, value: &Value) -> Answer {
    let mut response = Response::new(ResponseBody::new(value.to_string()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn no_content() -> Answer {
    let mut response = Response::new(ResponseBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Adds the headers of every response.
fn secure(headers: &mut HeaderMap) {
    headers.entry(CACHE_CONTROL).or_insert(NO_STORE);
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    // Not `no-referrer`: browsers would then hide the origin of a login.
    for (name, value) in [
        (REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

impl fmt::Debug for AdminService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService")
            .field("cache", &self.shared.cache)
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
