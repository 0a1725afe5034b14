//! Judges one server: how long an operation waits for it, and when it counts as unavailable.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::timer::Timer;
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::store::Store;

/// This many unanswered operations in a row, each timed out or lost with a connection, are an outage. Fewer happen when a
/// server forks or sends a large reply.
const TIMEOUTS_IN_A_ROW: u32 = 5;

/// The number of callers that wait for the whole deadline if the server does not respond. They are enough to open the
/// breaker.
const CANARIES: u32 = TIMEOUTS_IN_A_ROW;

/// A timer that fires later than this shows that the process lags: an answer may be here that no task has read.
const LAG: Duration = Duration::from_millis(10);

/// The resolution of the time of the last answer.
const HEARING: Duration = Duration::from_millis(4);
const HEARINGS_PER_SECOND: u64 = 1_000_000_000 / HEARING.subsec_nanos() as u64;

/// The deadline of operations on one server, and the evidence that the server is unavailable.
pub(in crate::store) struct Breaker {
    patience: Patience,
    timeouts: AtomicU32,
    /// How many connections the server had lost when an operation was lost last.
    seen_losses: AtomicU64,
    /// When the server answered an operation last, in [`HEARING`]s since `made`. It is written only when it changes,
    /// because all callers read it.
    heard: AtomicU64,
    made: Instant,
    canaries: AtomicU32,
}

/// How long an operation waits.
#[derive(Clone, Copy)]
struct Patience {
    /// While nothing arrives from the server.
    silence: Duration,
    /// In total.
    total: Duration,
}

/// Why an operation has no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Late {
    /// It waited for this long.
    TimedOut(Duration),
    /// It gave up early, because others wait to find out whether the server recovers.
    Stalled,
}

/// What is known of a server without asking it.
pub(in crate::store) trait Watched {
    /// Returns when the last part of any answer arrived. [`None`] if nothing can arrive.
    fn last_arrival(&self) -> Option<Instant>;

    /// The number of connections to it that were lost so far.
    fn losses(&self) -> u64;

    /// Returns whether a command would be sent.
    fn is_open(&self) -> bool;
}

impl Watched for dyn Store {
    fn last_arrival(&self) -> Option<Instant> {
        Store::last_arrival(self)
    }

    fn losses(&self) -> u64 {
        self.scripts().map_or(0, |scripts| scripts.losses())
    }

    fn is_open(&self) -> bool {
        Store::is_open(self)
    }
}

impl Breaker {
    pub(in crate::store) fn new(config: &Config) -> Self {
        Self {
            patience: Patience {
                silence: config.command_timeout,
                total: config.operation_max(),
            },
            timeouts: AtomicU32::new(0),
            seen_losses: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            made: Instant::now(),
            canaries: AtomicU32::new(0),
        }
    }

    /// The longest time that an operation takes.
    pub(in crate::store) fn longest(&self) -> Duration {
        self.patience.total
    }

    /// Waits while answers arrive from the server: on a shared connection they come in order, so as long as others arrive, this
    /// one is coming. If nothing has arrived for half of the time that silence may last, the server is stalled. Then a few
    /// canaries keep waiting to find out whether it recovers. All other callers give up, and later callers do not wait at all.
    pub(in crate::store) async fn in_time<T>(
        &self,
        began: Instant,
        mut operation: Pin<&mut impl Future<Output = T>>,
        server: &(impl Watched + ?Sized),
    ) -> Result<T, Late> {
        if self.canaries.load(Ordering::Relaxed) >= CANARIES {
            return Err(Late::Stalled);
        }
        let Patience { silence, total } = self.patience;
        let give_up = began + total;
        let mut silent_since = began;
        let mut canary = None;
        let mut until = began + silence / 2;
        let mut timer = Timer::until(until.min(give_up));
        loop {
            if let Some(result) = timer.wait_for(operation.as_mut()).await {
                return Ok(result);
            }
            let now = Instant::now();
            if now >= give_up {
                return Err(Late::TimedOut(total));
            }
            silent_since = match now.saturating_duration_since(until) {
                lag if lag >= LAG => now,
                _ => silent_since.max(self.last_sign(server)),
            };
            if now < silent_since + silence / 2 {
                canary = None;
                until = silent_since + silence / 2;
            } else if now < silent_since + silence {
                let canary = canary.get_or_insert_with(|| Canary::new(&self.canaries));
                if canary.index >= CANARIES {
                    return Err(Late::Stalled);
                }
                until = silent_since + silence;
            } else {
                return Err(Late::TimedOut(silence));
            }
            timer.reset(until.min(give_up));
        }
    }

    /// Judges the server by the outcome of an operation that ended at `at`. Returns why the server is unavailable, if it is.
    pub(in crate::store) fn judge(
        &self,
        began: Instant,
        at: Instant,
        failure: Option<ErrorKind>,
        server: &(impl Watched + ?Sized),
    ) -> Option<&'static str> {
        let (is_over, reason) = match failure {
            Some(ErrorKind::Unavailable) => (true, "no connection is open"),
            Some(ErrorKind::Connection) => (self.is_lost(began, server), "the connection is lost"),
            Some(ErrorKind::Timeout) => {
                let is_over = self.is_one_too_many(began, server);
                (is_over, "operations time out")
            }
            Some(ErrorKind::Stalled) => return None,
            None | Some(_) => {
                self.hear(at);
                return None;
            }
        };
        is_over.then_some(reason)
    }

    /// Forgets the timeouts, because the server answers again.
    pub(in crate::store) fn reset(&self) {
        self.timeouts.store(0, Ordering::Relaxed);
    }

    /// Returns when the server gave the last sign of life.
    fn last_sign(&self, server: &(impl Watched + ?Sized)) -> Instant {
        let heard = self.heard.load(Ordering::Relaxed);
        let heard = Duration::new(
            heard / HEARINGS_PER_SECOND,
            (heard % HEARINGS_PER_SECOND) as u32 * HEARING.subsec_nanos(),
        );
        let heard = self.made + heard;
        server
            .last_arrival()
            .map_or(heard, |arrival| heard.max(arrival))
    }

    /// Records that the server answered an operation.
    fn hear(&self, at: Instant) {
        let at = self.hearing(at);
        if self.heard.load(Ordering::Relaxed) != at {
            self.heard.store(at, Ordering::Relaxed);
        }
        if self.timeouts.load(Ordering::Relaxed) != 0 {
            self.reset();
        }
    }

    fn hearing(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.made);
        // Without a division of 128 bits, which `as_millis` would need.
        since.as_secs() * HEARINGS_PER_SECOND
            + u64::from(since.subsec_nanos() / HEARING.subsec_nanos())
    }

    /// Counts an operation that was lost with its connection. If other connections are open, this is not an outage: the
    /// server may have closed only this one.
    fn is_lost(&self, began: Instant, server: &(impl Watched + ?Sized)) -> bool {
        // Operations that are lost with one connection count once.
        let losses = server.losses();
        let is_another = self.seen_losses.swap(losses, Ordering::Relaxed) != losses;
        !server.is_open() || (is_another && self.is_one_too_many(began, server))
    }

    /// Counts an unanswered operation. If others are answered, the cause is its connection or a busy process, not the
    /// server.
    fn is_one_too_many(&self, began: Instant, server: &(impl Watched + ?Sized)) -> bool {
        self.last_sign(server) <= began
            && self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_IN_A_ROW
    }
}

impl From<Late> for Error {
    fn from(late: Late) -> Self {
        match late {
            Late::TimedOut(waited) => Self::timeout(waited),
            Late::Stalled => Self::new(
                ErrorKind::Stalled,
                "Redis does not respond; gave up early while a few operations keep probing",
            ),
        }
    }
}

/// A caller that waits through the second half, by order of arrival.
struct Canary<'a> {
    count: &'a AtomicU32,
    index: u32,
}

impl<'a> Canary<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        let index = count.fetch_add(1, Ordering::Relaxed);
        Self { count, index }
    }
}

impl Drop for Canary<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
