//! A service with actix-web: cached reads, a limit on a function, and a limit for each address.
//!
//! ```text
//! cargo run -p recipes --example actix
//! curl -i http://127.0.0.1:3000/events/1
//! curl -i -X POST -H 'x-user: 7' http://127.0.0.1:3000/events/1/likes
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fmt, io};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::{ErrorInternalServerError, ErrorUnauthorized};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, ResponseError, get, post, web};
use cache_runtime::limit::{Identity, Limit, Limited, Policy, RateLimiter, Verdict};
use cache_runtime::{Cache, Config, cache_evict, cacheable, rate_limit};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Event {
    id: u32,
    likes: u32,
}

/// Stands for a database with one event.
#[derive(Default)]
struct Events {
    likes: AtomicU32,
}

impl Events {
    #[cacheable(key = "event:<id>", ttl = "30m")]
    async fn find(&self, id: u32) -> Option<Event> {
        let likes = self.likes.load(Ordering::Relaxed);
        (id == 1).then_some(Event { id, likes })
    }

    // The limit is outside: a call that it refuses evicts nothing.
    #[cache_evict(key = "event:<id>")]
    #[rate_limit(policy = "likes", key = "<user>")]
    async fn like(&self, id: u32, user: &str) -> Result<(), TooMany> {
        self.likes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What a limited client gets: 429, or 503 if Redis is needed and unavailable, and when to try again.
#[derive(Debug)]
struct TooMany(Limited);

impl From<Limited> for TooMany {
    fn from(limited: Limited) -> Self {
        Self(limited)
    }
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for TooMany {
    fn status_code(&self) -> StatusCode {
        match self.0.decision().verdict {
            Verdict::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(wait) = self.0.retry_after() {
            response.insert_header((header::RETRY_AFTER, wait.as_secs() + 1));
        }
        response.body(self.to_string())
    }
}

/// Limits each address. Behind a proxy, take the last entry of `X-Forwarded-For`, which your proxy added.
/// actix's `realip_remote_addr` returns an address that clients can choose.
async fn limited(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let client = request
        .peer_addr()
        .map_or_else(Identity::unknown, |peer| Identity::ip(peer.ip()));
    let limit = request.app_data::<web::Data<Limit>>();
    let limit = limit.ok_or_else(|| ErrorInternalServerError("no limit"))?;
    let decision = limit.check(&client).await;
    if !decision.is_allowed() {
        let route = request.match_pattern();
        limit.count_rejection(&decision, route.as_deref().unwrap_or("unknown"));
    }
    decision.into_result().map_err(TooMany)?;
    next.call(request).await
}

#[get("/events/{id}")]
async fn find(events: web::Data<Events>, id: web::Path<u32>) -> Option<web::Json<Event>> {
    events.find(*id).await.map(web::Json) // `None` is 404
}

#[post("/events/{id}/likes")]
async fn like(
    events: web::Data<Events>,
    id: web::Path<u32>,
    request: HttpRequest,
) -> Result<HttpResponse, Error> {
    // Stands for a verified session. A real service takes the user from a verified session or token: clients choose headers.
    let user = request.headers().get("x-user");
    let user = user.and_then(|user| user.to_str().ok());
    let user = user.ok_or_else(|| ErrorUnauthorized("no user"))?;
    events.like(*id, user).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let config = Config::from_env().map_err(io::Error::other)?;
    let cache = Cache::connect(config).await.map_err(io::Error::other)?;
    cache.install().map_err(io::Error::other)?;
    let likes = Policy::new("likes").limit(3).per("1m");
    let limiter = RateLimiter::new(&cache, [Policy::api(), likes]).map_err(io::Error::other)?;
    limiter.install().map_err(io::Error::other)?; // for `#[rate_limit]`
    let by_address = web::Data::new(limiter.limit(&["api"]).map_err(io::Error::other)?);
    let events = web::Data::new(Events::default());

    let server = HttpServer::new(move || {
        App::new()
            .app_data(events.clone())
            .app_data(by_address.clone())
            .wrap(from_fn(limited))
            .service(find)
            .service(like)
    });
    let bind = env::var("BIND").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let server = server.workers(2).bind(bind)?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    let served = server.run().await; // until SIGTERM or Ctrl-C
    cache.shutdown().await;
    served
}
