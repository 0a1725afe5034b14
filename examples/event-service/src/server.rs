//! The edge: connections, how many there may be, and for how long each may keep us waiting.
//!
//! `axum::serve` waits for ever, so a thousand clients that send nothing would take all descriptors of the process. Limits by request
//! do not see them: they have not made one.

mod connections;
mod timed;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower_service::Service as _;

pub use self::connections::Limits;
use self::connections::{Connections, Place};
pub use self::timed::TooSlow;
use self::timed::{TimedBody, TimedStream};
use crate::error::Error;
use crate::http::HEALTH;

/// The longest head of a request, in bytes: as much as nginx takes.
const MAX_HEAD: usize = 32 * 1024;

/// After a failed `accept`, which is mostly for want of descriptors: one of them may be free then.
const PAUSE: Duration = Duration::from_millis(100);

/// For how long a client may keep a connection waiting.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until the head of a request is there: also the first, and the next on a connection that is kept.
    pub head: Duration,
    /// From the head of a request to the end of its body.
    pub body: Duration,
    /// Until a client takes some more of an answer.
    pub write: Duration,
}

/// Serves until `stop`, and then until all requests that are under way have ended. Nothing new begins then.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    timeouts: Timeouts,
    stop: impl Future<Output = ()>,
) {
    let connections = Connections::new(limits);
    let (stopping, is_stopping) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // What is refused is closed here.
                if let Some(place) = connections.admit(peer.ip()) {
                    let connection = Connection {
                        router: router.clone(),
                        place: Arc::new(place),
                        peer,
                        timeouts,
                    };
                    tokio::spawn(connection.serve(stream, is_stopping.clone()));
                }
            }
            Err(error) => {
                if !is_of_the_client(&error) {
                    connections.cannot_accept(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    drop((listener, is_stopping));
    let _ = stopping.send(true);
    // Each connection has a receiver.
    stopping.closed().await;
}

/// It went away before it was accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

struct Connection {
    router: Router,
    place: Arc<Place>,
    peer: SocketAddr,
    timeouts: Timeouts,
}

impl Connection {
    async fn serve(self, stream: TcpStream, mut is_stopping: watch::Receiver<bool>) {
        // Otherwise an answer waits for the acknowledgement of what was sent before.
        let _ = stream.set_nodelay(true);
        let Timeouts { head, write, .. } = self.timeouts;
        let place = Arc::clone(&self.place);
        let this = Arc::new(self);
        let service = service_fn(move |request| Arc::clone(&this).answer(request));
        let stream = TokioIo::new(TimedStream::new(stream, write, !place.is_reserved()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_header_size(MAX_HEAD)
            .serve_connection(stream, service);
        let mut connection = pin!(connection);
        tokio::select! {
            // A client that went away or was too slow is nothing to report.
            _ = connection.as_mut() => return,
            () = place.is_needed() => return,
            _ = is_stopping.wait_for(|stopping| *stopping) => {}
        }
        if place.has_begun() {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response, Infallible> {
        self.place.begin();
        let is_reserved = self.place.is_reserved();
        if is_reserved && !HEALTH.contains(&request.uri().path()) {
            let busy = Error::Busy {
                detail: "too many connections",
                retry_after: 1,
            };
            return Ok(closing(busy.into_response()));
        }
        let body = self.timeouts.body;
        let mut request = request.map(|incoming| Body::new(TimedBody::new(incoming, body)));
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let response = self.router.clone().call(request).await?;
        Ok(match is_reserved {
            true => closing(response),
            false => response,
        })
    }
}

/// The last answer on its connection.
fn closing(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, close);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
