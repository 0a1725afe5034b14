//! The layer that reports in each response which part the cache had in it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::{HeaderName, HeaderValue, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::debug_access::{Debug, DebugAccess};
use super::take_ready;
use crate::cache_status::CacheStatus;
use crate::error::{Error, ErrorKind};
use crate::escape::excerpt;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Adds the field `Cache-Status` ([RFC 9211](https://www.rfc-editor.org/rfc/rfc9211)) to each response whose request read from the
/// cache:
///
/// ```text
/// Cache-Status: shop; hit; ttl=1234
/// ```
///
/// ```
/// use axum::{Router, routing::get};
/// use cache_runtime::http::CacheStatusLayer;
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// let app: Router = Router::new()
///     .route("/events", get(|| async { "events" }))
///     .layer(CacheStatusLayer::new("shop")?);
/// # Ok(())
/// # }
/// ```
///
/// [`CacheStatus`] lists what the member says and which calls count. A response has one member, however many calls there were, and
/// however many of these layers. It follows the members that the service behind the layer wrote. A response of a request that read
/// nothing does not get the field.
///
/// - The field contains no key. But it tells a client whether others have requested the same data lately. Leave out the layer where
///   that must stay secret, and let the proxy in front remove the field if only developers should see it.
/// - The bodies of requests and responses are not touched. Calls that a body makes while it is sent do not count.
#[derive(Clone, Debug)]
#[must_use]
pub struct CacheStatusLayer {
    settings: Settings,
}

/// A service with a [`CacheStatusLayer`] around it.
#[derive(Clone, Debug)]
pub struct CacheStatusService<S> {
    inner: S,
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    /// As it is written in the field.
    name: String,
    timing: Option<DebugAccess>,
}

/// Marks a response that has the member of this service.
#[derive(Clone, Copy)]
struct Reported;

impl CacheStatusLayer {
    /// Creates a layer whose members have this name, such as the name of the service or its host.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the name is empty or contains characters other than printable ASCII.
    pub fn new(name: &str) -> Result<Self, Error> {
        let name = member(name).ok_or_else(|| {
            let shown = excerpt(name, 50);
            let text = format!("invalid name `{shown}` for `Cache-Status`; use printable ASCII");
            Error::new(ErrorKind::Config, text)
        })?;
        let settings = Settings { name, timing: None };
        Ok(Self { settings })
    }

    /// Also adds the field `Server-Timing` to responses to requests with `Cache-Debug: timing`, if `access` allows it. Default:
    /// never. [`CacheStatus::server_timing`] describes the field.
    pub fn server_timing(mut self, access: DebugAccess) -> Self {
        self.settings.timing = Some(access);
        self
    }
}

impl<S> Layer<S> for CacheStatusLayer {
    type Service = CacheStatusService<S>;

    fn layer(&self, inner: S) -> CacheStatusService<S> {
        CacheStatusService {
            inner,
            settings: self.settings.clone(),
        }
    }
}

impl<S, B, R> Service<Request<B>> for CacheStatusService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let settings = self.settings.clone();
        Box::pin(async move {
            let is_timed = settings.times(&request);
            // Created inside, because a service may call a function before it returns its future.
            let work = async move { inner.call(request).await };
            let (response, status) = CacheStatus::of(work).await;
            let mut response = response?;
            if let Some(status) = status {
                settings.report(&mut response, &status, is_timed);
            }
            Ok(response)
        })
    }
}

impl Settings {
    fn times<B>(&self, request: &Request<B>) -> bool {
        let access = self.timing.as_ref();
        access.is_some_and(|access| access.allows(Debug::Timing, request))
    }

    fn report<R>(&self, response: &mut Response<R>, status: &CacheStatus, is_timed: bool) {
        if response.extensions_mut().insert(Reported).is_some() {
            return;
        }
        let member = format!("{}; {status}", self.name);
        let headers = response.headers_mut();
        if let Ok(member) = HeaderValue::from_str(&member) {
            headers.append(CACHE_STATUS, member);
        }
        if is_timed && let Ok(timing) = HeaderValue::from_str(&status.server_timing()) {
            headers.append(SERVER_TIMING, timing);
        }
    }
}

/// Returns the name as an item of a structured field (RFC 9651): a token if it is one, otherwise a string.
fn member(name: &str) -> Option<String> {
    let is_text = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if name.is_empty() || !name.bytes().all(is_text) {
        return None;
    }
    let is_first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*');
    let is_inside = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(c);
    Some(match is_first && name.chars().all(is_inside) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
    })
}

#[cfg(feature = "axum")]
#[cfg(test)]
mod tests;
