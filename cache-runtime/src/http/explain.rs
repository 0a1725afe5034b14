//! The layer that answers with a report of what the cache did for a request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body::Body;
use http_body_util::Full;
use serde::Serialize;
use tower_layer::Layer;
use tower_service::Service;
use tracing::debug;

use super::body::{self, BoxError, ResponseBody};
use super::debug_access::{Debug, DebugAccess};
use super::problem::NO_STORE;
use super::take_ready;
use crate::cache::Cache;
use crate::explain::Explanation;

/// The fields that describe the body that is replaced.
const OF_BODY: [HeaderName; 8] = [
    header::ACCEPT_RANGES,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ETAG,
    header::LAST_MODIFIED,
];

/// Answers a request with `Cache-Debug: explain` with a report of what the cache did for it, if [`DebugAccess`] allows it. All other
/// requests pass unchanged.
///
/// ```
/// use axum::{Router, routing::get};
/// use cache_runtime::Cache;
/// use cache_runtime::http::{DebugAccess, ExplainLayer};
///
/// # let cache = Cache::memory();
/// let app: Router = Router::new()
///     .route("/events", get(|| async { "events" }))
///     .layer(ExplainLayer::new(&cache, DebugAccess::loopback()));
/// ```
///
/// ```text
/// curl -H 'Cache-Debug: explain' http://localhost:8080/api/events/7
/// ```
///
/// - The request is handled as usual, also if it changes something. Then the body of the response is replaced by the report: a JSON
///   object with the `status` of the response, and with `calls` and `omitted` of an [`Explanation`]. The status of the report is 200.
/// - Put the layer around all layers that read from the cache, and inside of those that limit requests.
/// - The report contains keys, unless [`mask_keys`](crate::Config::mask_keys) is set. It contains neither values nor what the handler
///   returned.
/// - Calls that a body makes while it is sent are not reported.
#[derive(Clone, Debug)]
#[must_use]
pub struct ExplainLayer {
    cache: Cache,
    access: DebugAccess,
}

/// A service with an [`ExplainLayer`] around it.
#[derive(Clone, Debug)]
pub struct ExplainService<S> {
    inner: S,
    layer: ExplainLayer,
}

/// The report about a request.
#[derive(Serialize)]
struct Report {
    /// Of the response without this layer.
    status: u16,
    #[serde(flatten)]
    explanation: Explanation,
}

impl ExplainLayer {
    /// Creates a layer that explains how `cache` answered. Requests that are explained [run](Cache::run) with it.
    pub fn new(cache: &Cache, access: DebugAccess) -> Self {
        Self {
            cache: cache.clone(),
            access,
        }
    }
}

impl<S> Layer<S> for ExplainLayer {
    type Service = ExplainService<S>;

    fn layer(&self, inner: S) -> ExplainService<S> {
        ExplainService {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S, B, R> Service<Request<B>> for ExplainService<S>
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
        if !self.layer.access.allows(Debug::Explain, &request) {
            let response = inner.call(request);
            return Box::pin(async move { Ok(response.await?.map(ResponseBody::new)) });
        }
        let cache = self.layer.cache.clone();
        debug!(method = %request.method(), "a request is explained");
        Box::pin(async move {
            // Created inside, because a service may call a function before it returns its future.
            let work = async move { inner.call(request).await };
            let (response, explanation) = cache.explain(work).await;
            Ok(report(response?, explanation))
        })
    }
}

/// Replaces the body of a response by the report.
fn report<R>(response: Response<R>, explanation: Explanation) -> Response<ResponseBody<R>> {
    let (mut parts, _) = response.into_parts();
    let report = Report {
        status: parts.status.as_u16(),
        explanation,
    };
    let json = serde_json::to_vec_pretty(&report).unwrap_or_default();
    parts.status = StatusCode::OK;
    for name in OF_BODY {
        parts.headers.remove(name);
    }
    let json_type = HeaderValue::from_static("application/json");
    parts.headers.insert(header::CONTENT_TYPE, json_type);
    parts.headers.insert(header::CACHE_CONTROL, NO_STORE);
    let body = body::boxed(Full::new(Bytes::from(json)));
    Response::from_parts(parts, ResponseBody::own(body))
}

#[cfg(feature = "axum")]
#[cfg(test)]
mod tests;
