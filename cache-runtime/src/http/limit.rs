//! The layer: who asks, what the limiter says, and what the client is told.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::MatchedPath;
use axum::http::request::Parts;
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use tower_layer::Layer;
use tower_service::Service;
use tracing::warn;

use super::bypass::Bypass;
use super::client_ip::{ClientIp, ClientIpSource, MissingClientIp};
use super::fields::{self, RateLimitHeaders};
use super::problem;
use crate::error::{Error, ErrorKind};
use crate::limit::{Decision, Identity, Limit, Limited, Reservation};

/// How rejections of requests without a route are counted: under their path, anybody could fill the statistics.
const UNMATCHED: &str = "unmatched";

type Identify = dyn Fn(&Parts) -> Option<Identity> + Send + Sync;
type Counts = dyn Fn(StatusCode) -> bool + Send + Sync;
type Respond = dyn Fn(&Limited, &Parts) -> Response + Send + Sync;

/// Puts a [`Limit`] in front of a service: see [`http`](crate::http).
///
/// Whatever can be wrong is an error of the method that is told it, so a layer that exists works.
///
/// In front of a [`Router`](axum::Router), use its `layer`, which also counts requests without a route, or `route_layer`, which
/// does not. Outside of a router, rejections cannot be counted by route.
#[derive(Clone)]
#[must_use]
pub struct RateLimitLayer {
    settings: Settings,
}

/// What a [`RateLimitLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    settings: Arc<Settings>,
}

/// What happens to a request if nothing tells whose it is: there is no address, or [`identify`](RateLimitLayer::identify)
/// found nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnMissing {
    /// It is counted together with all others of that kind, as [`Identity::unknown`]: nobody gets around a limit, and nobody is
    /// shut out for a mistake in the configuration.
    #[default]
    Shared,
    /// It is rejected: 403 if `identify` found nobody, and 500 if there is no address, which is a mistake of the service.
    Reject,
    /// It passes, and is not counted.
    Skip,
}

#[derive(Clone)]
struct Settings {
    limit: Limit,
    /// Left out, what a layer further out has found, or the peer.
    client_ip: Option<ClientIpSource>,
    /// Left out, the limiter's own default.
    ipv6_prefix: Option<u8>,
    identify: Option<Arc<Identify>>,
    on_missing: OnMissing,
    bypasses: Vec<Bypass>,
    headers: RateLimitHeaders,
    /// Left out, every response counts.
    counts: Option<Arc<Counts>>,
    respond: Option<Arc<Respond>>,
    /// Whether it was said that addresses are missing.
    missing: Arc<Once>,
}

/// What becomes of a request.
enum Admission {
    Uncounted,
    Counted(Decision),
    /// Counted or not by its response.
    Reserved(Reservation, Arc<Counts>),
    Rejected(Response),
}

impl RateLimitLayer {
    /// Counts the requests of each client address.
    pub fn new(limit: Limit) -> Self {
        Self {
            settings: Settings {
                limit,
                client_ip: None,
                ipv6_prefix: None,
                identify: None,
                on_missing: OnMissing::default(),
                bypasses: Vec::new(),
                headers: RateLimitHeaders::default(),
                counts: None,
                respond: None,
                missing: Arc::new(Once::new()),
            },
        }
    }

    /// How the address of a client is found. Left out, it is what a layer further out has found, and else the peer of the
    /// connection.
    pub fn client_ip(mut self, source: ClientIpSource) -> Self {
        self.settings.client_ip = Some(source);
        self
    }

    /// How many bits of an IPv6 address tell clients apart: 64 unless said. Subscribers commonly have 56 or even 48 bits of their
    /// own, so with 64 one of them can be many clients; with more than 64, each of them can be as many as it likes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for less than 32 bits, in which whole providers are one client, and for more than 128.
    pub fn ipv6_prefix(mut self, bits: u8) -> Result<Self, Error> {
        if !(32..=128).contains(&bits) {
            let text =
                format!("an IPv6 prefix of {bits} bits; use 64, 56 or 48, and 32 to 128 at most");
            return Err(Error::new(ErrorKind::Config, text));
        }
        self.settings.ipv6_prefix = Some(bits);
        Ok(self)
    }

    /// Counts by something else than the address. Take a user from a verified session, never from what the client merely says:
    /// whoever can choose a name gets a new quota with each.
    ///
    /// The address, if it is known, is a [`ClientIp`] in the extensions.
    pub fn identify<F>(mut self, identify: F) -> Self
    where
        F: Fn(&Parts) -> Option<Identity> + Send + Sync + 'static,
    {
        self.settings.identify = Some(Arc::new(identify));
        self
    }

    /// What happens to a request if nothing tells whose it is.
    pub fn on_missing(mut self, on_missing: OnMissing) -> Self {
        self.settings.on_missing = on_missing;
        self
    }

    /// Does not count `GET` and `HEAD` of exactly this path, so that health checks always get through. It is compared byte by byte
    /// with what the client sent, before anything else is looked at: `//health`, `/health/` and `/HEALTH` are others. In a router
    /// that is nested into another, it is the rest of the path.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for what is no path, such as a pattern.
    pub fn bypass(self, path: &str) -> Result<Self, Error> {
        self.bypass_method(Method::GET, path)?
            .bypass_method(Method::HEAD, path)
    }

    /// The same for one method.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for what is no path, such as a pattern.
    pub fn bypass_method(mut self, method: Method, path: &str) -> Result<Self, Error> {
        self.settings.bypasses.push(Bypass::new(method, path)?);
        Ok(self)
    }

    /// On which responses `RateLimit-Policy` and `RateLimit` are.
    pub fn headers(mut self, headers: RateLimitHeaders) -> Self {
        self.settings.headers = headers;
        self
    }

    /// Counts only requests whose response has such a status, so that a limit on logins counts the failed ones:
    ///
    /// ```
    /// # use axum::http::StatusCode;
    /// # use cache_runtime::http::RateLimitLayer;
    /// # fn layer(limit: cache_runtime::limit::Limit) -> RateLimitLayer {
    /// RateLimitLayer::new(limit).count_if(|status| status == StatusCode::UNAUTHORIZED)
    /// # }
    /// ```
    ///
    /// Each request is charged when it arrives, so a crowd of guesses at the same time is limited, too, and what does not count is given
    /// back with its response. Where nothing is left but for requests whose response is still to come, the next one waits for them, 10 s
    /// at most ([`Limit::reserve`]). One that is cancelled, or that the service fails, stays charged.
    pub fn count_if<F>(mut self, counts: F) -> Self
    where
        F: Fn(StatusCode) -> bool + Send + Sync + 'static,
    {
        self.settings.counts = Some(Arc::new(counts));
        self
    }

    /// What a rejected client gets, in place of a body of `application/problem+json` with status 429 or 503. `Retry-After`,
    /// `Cache-Control` and the fields of [`headers`](Self::headers) are added, unless they are there.
    pub fn respond_with<F>(mut self, respond: F) -> Self
    where
        F: Fn(&Limited, &Parts) -> Response + Send + Sync + 'static,
    {
        self.settings.respond = Some(Arc::new(respond));
        self
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> RateLimitService<S> {
        RateLimitService {
            inner,
            settings: Arc::new(self.settings.clone()),
        }
    }
}

impl<S, B, R> Service<Request<B>> for RateLimitService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is called; its clone has to become ready first.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        let settings = Arc::clone(&self.settings);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let admission = settings.admit(&mut parts).await;
            if let Admission::Rejected(response) = admission {
                return Ok(response);
            }
            let response = inner.call(Request::from_parts(parts, body)).await?;
            let mut response = response.map(Body::new);
            let decision = admission.decide(response.status()).await;
            if let Some(decision) = decision
                && settings.headers == RateLimitHeaders::Always
            {
                fields::append(response.headers_mut(), &decision.policies);
            }
            Ok(response)
        })
    }
}

impl Admission {
    /// What the limiter says, now that the response is there.
    async fn decide(self, status: StatusCode) -> Option<Decision> {
        match self {
            Self::Counted(decision) => Some(decision),
            Self::Reserved(reservation, counts) if counts(status) => Some(reservation.count()),
            Self::Reserved(reservation, _) => Some(reservation.cancel().await),
            Self::Uncounted | Self::Rejected(_) => None,
        }
    }
}

impl Settings {
    async fn admit(&self, parts: &mut Parts) -> Admission {
        if self.bypasses.iter().any(|bypass| bypass.is_for(parts)) {
            return Admission::Uncounted;
        }
        let client = self.find_client(parts);
        let identity = match &self.identify {
            Some(identify) => identify(parts),
            None => client.map(|client| self.address(client)),
        };
        let identity = match (identity, self.on_missing) {
            (Some(identity), _) => identity,
            (None, OnMissing::Shared) => Identity::unknown(),
            (None, OnMissing::Reject) => return Admission::Rejected(self.nobody()),
            (None, OnMissing::Skip) => return Admission::Uncounted,
        };
        let admission = match &self.counts {
            None => {
                let decision = self.limit.check(&identity).await.into_result();
                decision.map(Admission::Counted)
            }
            Some(counts) => {
                let reserved = self.limit.reserve(&identity).await;
                reserved.map(|reserved| Admission::Reserved(reserved, Arc::clone(counts)))
            }
        };
        admission.unwrap_or_else(|limited| Admission::Rejected(self.refuse(&limited, parts)))
    }

    fn find_client(&self, parts: &mut Parts) -> Option<ClientIp> {
        let client = match &self.client_ip {
            Some(source) => source.find(parts),
            None => ClientIp::of(&parts.extensions),
        };
        if let Some(client) = client {
            parts.extensions.insert(client);
        } else if self.identify.is_none() {
            self.missing.call_once(|| {
                warn!(
                    on_missing = ?self.on_missing,
                    "a request to be limited by its address has none; serve with \
                     `into_make_service_with_connect_info::<SocketAddr>()`"
                );
            });
        }
        client
    }

    fn address(&self, ClientIp(address): ClientIp) -> Identity {
        match self.ipv6_prefix {
            Some(prefix) => Identity::ip_within(address, prefix),
            None => Identity::ip(address),
        }
    }

    /// Nobody knows whose request it is.
    fn nobody(&self) -> Response {
        match self.identify {
            Some(_) => problem::untyped(
                StatusCode::FORBIDDEN,
                "it is not known who sends this request, so it cannot be counted",
            ),
            None => MissingClientIp.into_response(),
        }
    }

    fn refuse(&self, limited: &Limited, parts: &Parts) -> Response {
        self.limit.count_rejection(limited.decision(), route(parts));
        let mut response = match &self.respond {
            Some(respond) => respond(limited, parts),
            None => problem::of(limited),
        };
        let headers = response.headers_mut();
        problem::complete(headers, limited);
        if self.headers != RateLimitHeaders::Never && !fields::are_in(headers) {
            fields::append(headers, &limited.decision().policies);
        }
        response
    }
}

/// What a router knows a request's path as, of which there are only so many.
fn route(parts: &Parts) -> &str {
    let path = parts.extensions.get();
    path.map_or(UNMATCHED, MatchedPath::as_str)
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RateLimitLayer")
            .field(&self.settings)
            .finish()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            limit,
            client_ip,
            ipv6_prefix,
            identify: _,
            on_missing,
            bypasses,
            headers,
            counts: _,
            respond: _,
            missing: _,
        } = self;
        f.debug_struct("Settings")
            .field("limit", limit)
            .field("client_ip", client_ip)
            .field("ipv6_prefix", ipv6_prefix)
            .field("on_missing", on_missing)
            .field("bypasses", bypasses)
            .field("headers", headers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
