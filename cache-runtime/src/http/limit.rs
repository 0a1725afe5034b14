//! The rate limit layer: it finds the client, asks the limiter and writes the response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};

use ::http::request::Parts;
use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;
use tracing::warn;

use super::body::{self, BoxError, OwnBody, ResponseBody};
use super::bypass::Bypass;
use super::client_ip::{ClientIp, ClientIpSource, MissingClientIp};
use super::fields::{self, RateLimitHeaders};
use super::{grpc, problem, take_ready};
use crate::error::{Error, ErrorKind};
use crate::limit::{Decision, Identity, Limit, Limited, Reservation};

/// The name under which rejections of requests without a route are counted. With their path, clients could fill the statistics.
const UNMATCHED: &str = "unmatched";

type Identify = dyn Fn(&Parts) -> Option<Identity> + Send + Sync;
type Counts = dyn Fn(StatusCode) -> bool + Send + Sync;
type Respond = dyn Fn(&Limited, &Parts) -> Response<OwnBody> + Send + Sync;

/// Applies a [`Limit`] to a service: see [`http`](crate::http).
///
/// ```
/// use axum::{Router, body::Body, http::{Request, StatusCode}, routing::get};
/// use cache_runtime::http::{OnMissing, RateLimitHeaders, RateLimitLayer};
/// use cache_runtime::limit::{Identity, Policy, RateLimiter};
/// # use cache_runtime::Cache;
/// # use tower::ServiceExt;
///
/// #[derive(Clone)]
/// struct UserId(i64); // a layer around this one inserts it
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cache = Cache::memory();
/// let limiter = RateLimiter::new(&cache, [Policy::api()])?;
/// let by_user = RateLimitLayer::new(limiter.limit(&["api"])?)
///     .identify(|request| request.extensions.get().map(|UserId(id)| Identity::user(id)))
///     .on_missing(OnMissing::Reject)
///     .headers(RateLimitHeaders::OnRejection);
/// let app: Router = Router::new().route("/search", get(async || "found")).layer(by_user);
///
/// let response = app.oneshot(Request::get("/search").body(Body::empty())?).await?;
/// assert_eq!(response.status(), StatusCode::FORBIDDEN); // it has no user
/// # Ok(())
/// # }
/// ```
///
/// Every setter checks its arguments and returns an error for invalid ones, so a layer that was built works.
///
/// With a `Router` of axum, use its `layer` to also count requests without a route, or its `route_layer` to exclude them.
/// Outside of a router and without the feature `axum`, rejections cannot be counted by route.
#[derive(Clone)]
#[must_use]
pub struct RateLimitLayer {
    settings: Settings,
}

/// A service with a [`RateLimitLayer`] around it.
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    settings: Arc<Settings>,
}

/// What happens to a request whose client is unknown, because its address is missing or [`identify`](RateLimitLayer::identify)
/// returned `None`. Default: `Shared`.
///
/// See [`RateLimitLayer`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnMissing {
    /// Counts it together with all other such requests, as [`Identity::unknown`]. So clients cannot avoid a limit, and a mistake in
    /// the configuration does not lock them out.
    #[default]
    Shared,
    /// Rejects it: 403 if `identify` returned `None`, and 500 if the address is missing, which is a mistake of the service.
    Reject,
    /// Lets it pass without counting.
    Skip,
}

#[derive(Clone)]
struct Settings {
    limit: Limit,
    /// `None`: the address that an outer layer found, or else the peer.
    client_ip: Option<ClientIpSource>,
    /// `None`: the limiter's own default.
    ipv6_prefix: Option<u8>,
    identify: Option<Arc<Identify>>,
    on_missing: OnMissing,
    bypasses: Vec<Bypass>,
    headers: RateLimitHeaders,
    /// `None`: every response counts.
    counts: Option<Arc<Counts>>,
    respond: Option<Arc<Respond>>,
    /// Whether the warning about missing addresses was logged.
    missing: Arc<Once>,
}

/// How a request is admitted.
enum Admission {
    Uncounted,
    Counted(Decision),
    /// Whether it counts depends on its response.
    Reserved(Reservation, Arc<Counts>),
    Rejected(Response<OwnBody>),
}

impl RateLimitLayer {
    /// Creates a layer that counts the requests of each client address.
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

    /// Sets how the address of a client is found. Default: the address that an outer layer found, or else the peer of the
    /// connection.
    pub fn client_ip(mut self, source: ClientIpSource) -> Self {
        self.settings.client_ip = Some(source);
        self
    }

    /// Sets how many bits of an IPv6 address distinguish clients. Default: 64.
    ///
    /// Subscribers commonly have a prefix of 56 or even 48 bits, so with 64 bits one subscriber can appear as many clients. With
    /// more than 64 bits, every subscriber can appear as any number of clients.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for less than 32 bits, with which whole providers would be one client, and for more than 128 bits.
    pub fn ipv6_prefix(mut self, bits: u8) -> Result<Self, Error> {
        if !(32..=128).contains(&bits) {
            let text = format!(
                "invalid IPv6 prefix of {bits} bits; use 64, 56 or 48, or another length from 32 to 128"
            );
            return Err(Error::new(ErrorKind::Config, text));
        }
        self.settings.ipv6_prefix = Some(bits);
        Ok(self)
    }

    /// Counts by something other than the address. Default: by the address.
    ///
    /// Take a user from a verified session, never from unverified data of the client: a client that can choose its name gets a new
    /// quota with each name.
    ///
    /// The extensions contain the address as a [`ClientIp`], if it is known.
    pub fn identify<F>(mut self, identify: F) -> Self
    where
        F: Fn(&Parts) -> Option<Identity> + Send + Sync + 'static,
    {
        self.settings.identify = Some(Arc::new(identify));
        self
    }

    /// Sets what happens to a request whose client is unknown. Default: [`OnMissing::Shared`].
    pub fn on_missing(mut self, on_missing: OnMissing) -> Self {
        self.settings.on_missing = on_missing;
        self
    }

    /// Does not count `GET` and `HEAD` of exactly this path, so that health checks always pass. Default: every request is counted.
    ///
    /// The path is compared byte by byte with the path that the client sent, before any other check: `//health`, `/health/` and
    /// `/HEALTH` are different paths. In a router nested into another one, it is the rest of the path.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if `path` is not a path, for example a pattern.
    pub fn bypass(self, path: &str) -> Result<Self, Error> {
        self.bypass_method(Method::GET, path)?
            .bypass_method(Method::HEAD, path)
    }

    /// Does not count requests with this method of exactly this path. Paths are compared as in [`bypass`](Self::bypass).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if `path` is not a path, for example a pattern.
    pub fn bypass_method(mut self, method: Method, path: &str) -> Result<Self, Error> {
        self.settings.bypasses.push(Bypass::new(method, path)?);
        Ok(self)
    }

    /// Sets which responses have the fields `RateLimit-Policy` and `RateLimit`. Default: all responses.
    pub fn headers(mut self, headers: RateLimitHeaders) -> Self {
        self.settings.headers = headers;
        self
    }

    /// Counts only requests whose response status satisfies `counts`. Default: every request. For example, a limit on logins counts
    /// only failed ones:
    ///
    /// ```
    /// # use ::http::StatusCode;
    /// # use cache_runtime::http::RateLimitLayer;
    /// # fn layer(limit: cache_runtime::limit::Limit) -> RateLimitLayer {
    /// RateLimitLayer::new(limit).count_if(|status| status == StatusCode::UNAUTHORIZED)
    /// # }
    /// ```
    ///
    /// - Each request is charged when it arrives, so many concurrent guesses are limited, too. If it does not count, it is refunded
    ///   with its response.
    /// - If the limit is used up only by requests whose response is still to come, the next request waits for them, at most 10 s
    ///   ([`Limit::reserve`]).
    /// - A request that is cancelled, or for which the service returns an error, stays charged.
    /// - For a response with a code of gRPC in its headers, it is the status that corresponds to the code: 401 for `UNAUTHENTICATED`. A
    ///   response with messages has its code in the trailers. It counts as a 200.
    pub fn count_if<F>(mut self, counts: F) -> Self
    where
        F: Fn(StatusCode) -> bool + Send + Sync + 'static,
    {
        self.settings.counts = Some(Arc::new(counts));
        self
    }

    /// Sets the response for rejected requests. Default: a body of `application/problem+json` with status 429 or 503, and for gRPC calls
    /// the code `RESOURCE_EXHAUSTED` or `UNAVAILABLE`.
    ///
    /// `Retry-After`, `Cache-Control` and the fields of [`headers`](Self::headers) are added unless the response has them.
    pub fn respond_with<F, B>(mut self, respond: F) -> Self
    where
        F: Fn(&Limited, &Parts) -> Response<B> + Send + Sync + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let respond =
            move |limited: &Limited, parts: &Parts| respond(limited, parts).map(body::boxed);
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
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let settings = Arc::clone(&self.settings);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let admission = settings.admit(&mut parts).await;
            if let Admission::Rejected(response) = admission {
                return Ok(response.map(ResponseBody::own));
            }
            let response = inner.call(Request::from_parts(parts, body)).await?;
            let mut response = response.map(ResponseBody::new);
            let status = grpc::status(response.headers()).unwrap_or_else(|| response.status());
            let decision = admission.decide(status).await;
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
    /// Returns the final decision of the limiter, once the status of the response is known.
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
            (None, OnMissing::Reject) => return Admission::Rejected(self.unknown_client(parts)),
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
                    "a request is limited by its client address but has none; serve with \
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

    /// Returns the response for a request whose client is unknown.
    fn unknown_client(&self, parts: &Parts) -> Response<OwnBody> {
        let (status, detail) = match self.identify {
            Some(_) => (
                StatusCode::FORBIDDEN,
                "the client of this request is unknown, so the request cannot be counted"
                    .to_owned(),
            ),
            None => (
                StatusCode::INTERNAL_SERVER_ERROR,
                MissingClientIp.to_string(),
            ),
        };
        problem::untyped_or_grpc(&parts.method, &parts.headers, status, &detail).map(body::boxed)
    }

    fn refuse(&self, limited: &Limited, parts: &Parts) -> Response<OwnBody> {
        self.limit.count_rejection(limited.decision(), route(parts));
        let mut response = match &self.respond {
            Some(respond) => respond(limited, parts),
            None => {
                let problem: Response<String> = problem::of(limited);
                grpc::refused(
                    &parts.method,
                    &parts.headers,
                    problem.status(),
                    &limited.to_string(),
                )
                .unwrap_or(problem)
                .map(body::boxed)
            }
        };
        let headers = response.headers_mut();
        problem::complete(headers, limited);
        if self.headers != RateLimitHeaders::Never && !fields::are_in(headers) {
            fields::append(headers, &limited.decision().policies);
        }
        response
    }
}

/// Returns the route of a request. The number of routes is bounded.
#[cfg(feature = "axum")]
fn route(parts: &Parts) -> &str {
    let path = parts.extensions.get();
    path.map_or(UNMATCHED, axum::extract::MatchedPath::as_str)
}

#[cfg(not(feature = "axum"))]
fn route(_: &Parts) -> &str {
    UNMATCHED
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

#[cfg(feature = "axum")]
#[cfg(test)]
mod tests;
