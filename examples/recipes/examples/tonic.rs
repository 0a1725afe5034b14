//! A gRPC service with tonic: cached reads, and calls over a limit that get `RESOURCE_EXHAUSTED`.
//!
//! ```text
//! cargo run -p recipes --example tonic
//! grpcurl -plaintext -proto examples/recipes/proto/events.proto -d '{"id": 1}' 127.0.0.1:3000 events.Events/Get
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::{env, io};

use cache_runtime::http::RateLimitLayer;
use cache_runtime::limit::{Identity, Limited, Policy, RateLimiter, Verdict};
use cache_runtime::{Cache, Config, cache_evict, cacheable, rate_limit};
use recipes::events::events_server::{self, EventsServer};
use recipes::events::{Event, GetRequest, RenameRequest};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};
use tonic::{Request, Response, Status};

/// Stands for a database.
struct Events {
    titles: Mutex<BTreeMap<i64, String>>,
}

impl Events {
    /// Generated messages do not implement serde's traits, so the cache has the title.
    #[cacheable(key = "event:title:<id>", ttl = "30m")]
    async fn title(&self, id: i64) -> Option<String> {
        let titles = self.titles.lock().unwrap_or_else(PoisonError::into_inner);
        titles.get(&id).cloned()
    }

    // All clients share this limit of an event. To limit each client, name its verified user in the key.
    #[cache_evict(key = "event:title:<id>")]
    #[rate_limit(policy = "renames", key = "<id>")]
    async fn set_title(&self, id: i64, title: &str) -> Result<(), Failed> {
        let mut titles = self.titles.lock().unwrap_or_else(PoisonError::into_inner);
        match titles.get_mut(&id) {
            Some(present) => title.clone_into(present),
            None => return Err(Failed(unknown(id))),
        }
        Ok(())
    }
}

fn unknown(id: i64) -> Status {
    Status::not_found(format!("there is no event {id}"))
}

/// The error of limited functions. `Status` comes from another crate, so it cannot implement `From<Limited>` here.
struct Failed(Status);

impl From<Limited> for Failed {
    fn from(limited: Limited) -> Self {
        let message = limited.to_string();
        Self(match limited.decision().verdict {
            Verdict::Unavailable => Status::unavailable(message),
            _ => Status::resource_exhausted(message),
        })
    }
}

#[tonic::async_trait]
impl events_server::Events for Events {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Event>, Status> {
        let id = request.into_inner().id;
        let title = self.title(id).await.ok_or_else(|| unknown(id))?;
        Ok(Response::new(Event { id, title }))
    }

    async fn rename(&self, request: Request<RenameRequest>) -> Result<Response<Event>, Status> {
        let RenameRequest { id, title } = request.into_inner();
        self.set_title(id, &title)
            .await
            .map_err(|Failed(status)| status)?;
        Ok(Response::new(Event { id, title }))
    }
}

/// Waits for SIGTERM, as container platforms send it, or Ctrl-C. Listens from this call on.
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let cache = Cache::connect(Config::from_env()?).await?;
    cache.install()?;
    let renames = Policy::new("renames").limit(3).per("1m");
    let limiter = RateLimiter::new(&cache, [Policy::api(), renames])?;
    limiter.install()?; // for `#[rate_limit]`
    // tonic has the address of the client in an extension of its own.
    let by_address = RateLimitLayer::new(limiter.limit(&["api"])?).identify(|parts| {
        let connection: &TcpConnectInfo = parts.extensions.get()?;
        connection.remote_addr().map(|peer| Identity::ip(peer.ip()))
    });

    let bind = env::var("BIND").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(bind).await?;
    let stop = told_to_stop()?;
    println!("listening on http://{}", listener.local_addr()?);
    let titles = Mutex::new(BTreeMap::from([(1, "A quartet".to_owned())]));
    let served = Server::builder()
        .layer(by_address)
        .add_service(EventsServer::new(Events { titles }))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), stop)
        .await;
    cache.shutdown().await; // also if serving failed
    Ok(served?)
}
