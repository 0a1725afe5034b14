//! The edge of the service: the number of connections, and their timeouts.
//!
//! `axum::serve` waits forever, so 1,000 silent clients would use all file descriptors of the process. Rate limits do not see them,
//! because they have sent no request.

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

/// The longest head of a request, in bytes: the same as in nginx.
const MAX_HEAD: usize = 32 * 1024;

/// The pause after a failed `accept`, usually because no file descriptor is free.
const PAUSE: Duration = Duration::from_millis(100);

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until the head of a request has arrived, both for the first request and the next one on an idle connection.
    pub head: Duration,
    /// From the head of a request to the end of its body.
    pub body: Duration,
    /// Until a client reads more of a response.
    pub write: Duration,
}

/// Serves until `stop`, and then finishes all running requests. No new request begins after that.
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
                // A refused connection is closed here.
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

/// Returns whether the client disconnected before it was accepted.
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
        // Otherwise a response waits for the acknowledgement of earlier data.
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
            // A client that disconnected or was too slow is not reported.
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

/// Marks the last response on its connection.
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
