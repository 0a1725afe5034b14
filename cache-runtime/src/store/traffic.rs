//! The traffic of a connection: what is under way, and what its socket reads and writes.
//!
//! Arriving bytes are a sign of life while a long reply is on its way. Samples show how long commands wait before they are written.
//! Small writes are gathered into one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// With fewer commands under way, a write does not wait for more of them.
const FEW: usize = 4;

/// A write of so many bytes does not wait for more.
const FULL: usize = 4 << 10;

/// What is under way on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) commands: usize,
    pub(super) bytes: usize,
}

/// Commands under way in the upper bits and the bytes they expect in the lower: one atomic step counts both.
const COMMAND: u64 = 1 << 40;

/// How many bytes have arrived on a connection, when the last bytes arrived, and how long a sampled command waited to be sent.
#[derive(Debug)]
pub(super) struct Traffic {
    opened: Instant,
    bytes: AtomicU64,
    /// When the last bytes arrived, in microseconds since the connection was opened.
    last: AtomicU64,
    sample: AtomicU64,
    load: AtomicU64,
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
            load: AtomicU64::new(0),
        }
    }
}

impl Traffic {
    pub(super) fn load(&self) -> Load {
        let load = self.load.load(Ordering::SeqCst);
        // Both parts fit: the lower has 40 bits, the upper 24.
        Load {
            commands: (load / COMMAND) as usize,
            bytes: (load % COMMAND) as usize,
        }
    }

    /// Adds a command that moves `bytes`. Returns what must be subtracted when it is over.
    pub(super) fn add(&self, bytes: usize) -> u64 {
        let weight = COMMAND + (bytes as u64).min(COMMAND / 1024);
        self.load.fetch_add(weight, Ordering::SeqCst);
        weight
    }

    pub(super) fn subtract(&self, weight: u64) {
        self.load.fetch_sub(weight, Ordering::SeqCst);
    }

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

/// A socket whose traffic is observed, and whose small writes are gathered.
///
/// The driver of a connection writes as soon as it is polled, and tokio polls it right after the first task that sends a command.
/// Of 16 tasks that have just received their answers, each would make a write of its own. The socket therefore yields once before
/// a write: the other tasks run first, and their commands leave with it. Measured with 16 tasks, the server reads 11 commands at a
/// time instead of 4, and there are up to 40 % more hits per second.
pub(super) struct Observed<S> {
    pub(super) socket: S,
    pub(super) traffic: Arc<Traffic>,
    /// Whether the next write has waited for more commands.
    has_gathered: bool,
}

impl<S> Observed<S> {
    pub(super) fn new(socket: S, traffic: Arc<Traffic>) -> Self {
        Self {
            socket,
            traffic,
            has_gathered: false,
        }
    }

    /// Returns whether a write of `bytes` should wait until the tasks that are ready to run have run once. With few commands under
    /// way, they have nothing to add.
    fn gathers(&mut self, bytes: usize, context: &Context<'_>) -> bool {
        if self.has_gathered || bytes >= FULL || self.traffic.load().commands < FEW {
            return false;
        }
        self.has_gathered = true;
        context.waker().wake_by_ref();
        true
    }
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
        if self.gathers(bytes.len(), context) {
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut self.socket).poll_write(context, bytes));
        self.has_gathered = false;
        self.traffic.wrote();
        Poll::Ready(written)
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
    use std::future::poll_fn;
    use std::io::IoSlice;

    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sample_is_the_time_from_the_command_to_the_next_write() {
        let traffic = Arc::<Traffic>::default();
        let (socket, _peer) = duplex(64);
        let mut socket = Observed::new(socket, Arc::clone(&traffic));

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

    /// Polls one write of `bytes` while `commands` are under way, until it is done. Returns how often it was polled.
    async fn polls_of_a_write(commands: usize, bytes: usize, is_vectored: bool) -> u32 {
        let traffic = Arc::<Traffic>::default();
        for _ in 0..commands {
            traffic.add(0);
        }
        let (socket, _peer) = duplex(2 * FULL);
        let mut socket = Observed::new(socket, traffic);
        let data = vec![0; bytes];
        let mut polls = 0;
        for _ in 0..2 {
            let written = poll_fn(|context| {
                polls += 1;
                let socket = Pin::new(&mut socket);
                match is_vectored {
                    true => socket.poll_write_vectored(context, &[IoSlice::new(&data)]),
                    false => socket.poll_write(context, &data),
                }
            });
            assert_eq!(written.await.expect("a write"), bytes);
        }
        polls
    }

    #[tokio::test]
    async fn each_small_write_waits_once_if_several_commands_are_under_way() {
        for is_vectored in [false, true] {
            assert_eq!(polls_of_a_write(FEW, 40, is_vectored).await, 4);
            assert_eq!(polls_of_a_write(FEW - 1, 40, is_vectored).await, 2);
            assert_eq!(polls_of_a_write(FEW, FULL, is_vectored).await, 2);
        }
    }

    #[test]
    fn load_is_what_was_added_and_not_subtracted() {
        let traffic = Traffic::default();
        let small = traffic.add(200);
        let large = traffic.add(1 << 20);
        traffic.subtract(small);
        assert_eq!(
            traffic.load(),
            Load {
                commands: 1,
                bytes: 1 << 20
            }
        );
        traffic.subtract(large);
        assert_eq!(traffic.load(), Load::default());
    }
}
