//! A body and a stream with timeouts.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A client did not send its body in time.
#[derive(Clone, Copy, Debug)]
pub struct TooSlow;

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body did not arrive in time")
    }
}

impl StdError for TooSlow {}

/// The body of a request with a deadline. After the deadline it fails with [`TooSlow`].
pub(super) struct TimedBody {
    body: Incoming,
    /// `None` without a body.
    end: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, within: Duration) -> Self {
        let end = (!body.is_end_stream()).then(|| Box::pin(sleep(within)));
        Self { body, end }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(end) = &mut self.end else {
            return Poll::Pending;
        };
        end.as_mut()
            .poll(context)
            .map(|()| Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long and how much is read from a client that got its response before it had sent everything.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// A connection that fails if its peer reads nothing for this long.
pub(super) struct TimedStream {
    stream: TcpStream,
    within: Duration,
    end: Option<Pin<Box<Sleep>>>,
    closing: Closing,
}

/// How a connection ends.
enum Closing {
    /// After everything is written.
    AtOnce,
    /// After the remaining data of the client is read. Otherwise the system would reset the connection, and the client could lose the
    /// response.
    Lingering,
    /// This many bytes were read until now.
    Draining(usize, Pin<Box<Sleep>>),
}

impl TimedStream {
    pub(super) fn new(stream: TcpStream, within: Duration, lingers: bool) -> Self {
        Self {
            stream,
            within,
            end: None,
            closing: match lingers {
                true => Closing::Lingering,
                false => Closing::AtOnce,
            },
        }
    }

    fn drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Closing::Draining(seen, end) = &mut self.closing else {
            return Poll::Ready(());
        };
        let mut scratch = [0; 4096];
        while *seen < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    *seen += buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return end.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }

    /// Waits for the write, up to the timeout.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.end = None;
            return written;
        }
        let within = self.within;
        let end = self.end.get_or_insert_with(|| Box::pin(sleep(within)));
        match end.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is buffered here.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Closing::AtOnce | Closing::Lingering = self.closing {
            let closed = Pin::new(&mut self.stream).poll_shutdown(context);
            ready!(self.in_time(context, closed))?;
        }
        if let Closing::Lingering = self.closing {
            self.closing = Closing::Draining(0, Box::pin(sleep(LINGER)));
        }
        self.drain(context).map(Ok)
    }
}
