//! The traffic of a connection's socket. Arriving bytes are a sign of life while a long reply is on its way. Samples show how long
//! commands wait before they are written.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How many bytes have arrived on a connection, when the last bytes arrived, and how long a sampled command waited to be sent.
#[derive(Debug)]
pub(super) struct Traffic {
    opened: Instant,
    bytes: AtomicU64,
    /// When the last bytes arrived, in microseconds since the connection was opened.
    last: AtomicU64,
    sample: AtomicU64,
}

/// A sample of the wait before a command is sent. The two lowest bits are its stage. The other bits are microseconds: in `BEGUN`
/// the time since the connection was opened, in `TAKEN` the wait.
mod sample {
    pub(super) const NONE: u64 = 0;
    /// The next command is sampled.
    pub(super) const WANTED: u64 = 1;
    /// The command waits to be written.
    pub(super) const BEGUN: u64 = 2;
    /// The command was written.
    pub(super) const TAKEN: u64 = 3;

    pub(super) fn stage(sample: u64) -> u64 {
        sample & 3
    }

    pub(super) fn micros(sample: u64) -> u64 {
        sample >> 2
    }

    pub(super) fn of(stage: u64, micros: u64) -> u64 {
        micros << 2 | stage
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            bytes: AtomicU64::new(0),
            last: AtomicU64::new(0),
            sample: AtomicU64::new(sample::NONE),
        }
    }
}

impl Traffic {
    /// Returns how many bytes have arrived since the connection was opened.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns when the last bytes arrived, or when the connection was opened if nothing has arrived yet.
    pub(super) fn last(&self) -> Instant {
        self.opened + Duration::from_micros(self.last.load(Ordering::Relaxed))
    }

    /// Returns how long the sampled command waited before it was written, and requests a sample of the next command. Returns
    /// [`None`] if no sample was completed since the last call.
    pub(super) fn wait_before_sending(&self) -> Option<Duration> {
        let found = self.sample.load(Ordering::Relaxed);
        let is_taken = sample::stage(found) == sample::TAKEN;
        if is_taken || found == sample::NONE {
            self.advance(found, sample::WANTED);
        }
        is_taken.then(|| Duration::from_micros(sample::micros(found)))
    }

    /// Records that a command is about to be passed to the connection. It becomes the sample if a sample is wanted.
    pub(super) fn begin(&self) {
        if self.sample.load(Ordering::Relaxed) == sample::WANTED {
            self.advance(sample::WANTED, sample::of(sample::BEGUN, self.micros()));
        }
    }

    /// Records a write. It ends the wait of the sampled command, because commands are written in order and together.
    fn wrote(&self) {
        let found = self.sample.load(Ordering::Relaxed);
        if sample::stage(found) == sample::BEGUN {
            let waited = self.micros().saturating_sub(sample::micros(found));
            self.advance(found, sample::of(sample::TAKEN, waited));
        }
    }

    fn advance(&self, from: u64, to: u64) -> bool {
        self.sample
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn arrived(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.last.store(self.micros(), Ordering::Relaxed);
    }

    /// Returns the microseconds since the connection was opened.
    fn micros(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A socket whose traffic is observed.
pub(super) struct Observed<S> {
    pub(super) socket: S,
    pub(super) traffic: Arc<Traffic>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.socket).poll_read(context, buffer));
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.traffic.arrived(bytes);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(context, bytes));
        self.traffic.wrote();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(context, slices));
        self.traffic.wrote();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sample_is_the_time_from_the_command_to_the_next_write() {
        let traffic = Arc::<Traffic>::default();
        let (socket, _peer) = duplex(64);
        let mut socket = Observed {
            socket,
            traffic: Arc::clone(&traffic),
        };

        // No sample is wanted yet.
        traffic.begin();
        socket.write_all(b"PING").await.unwrap();
        assert_eq!(traffic.wait_before_sending(), None);

        traffic.begin();
        advance(Duration::from_millis(3)).await;
        // Only one command at a time is sampled.
        traffic.begin();
        assert_eq!(traffic.wait_before_sending(), None);
        advance(Duration::from_millis(4)).await;
        socket.write_all(b"PING").await.unwrap();
        advance(Duration::from_millis(5)).await;

        assert_eq!(
            traffic.wait_before_sending(),
            Some(Duration::from_millis(7))
        );
        assert_eq!(traffic.wait_before_sending(), None);
    }
}
