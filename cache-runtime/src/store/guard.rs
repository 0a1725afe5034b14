//! The fallback mode: a deadline for every operation, a breaker, and one flag that is read before anything is sent.
//!
//! ```text
//!        no connection open, or 5 unanswered in a row        the probe got through
//! connected ────────────────────────────────────► fallback ───────────────────────► recovering
//!     ▲                                               ▲                                  │
//!     └──────── the journal is empty or refused ──────┼──────────────────────────────────┤
//!                                                     └──────── lost once more ──────────┘
//! ```
//!
//! The guard judges and remembers. `cache/reconnect.rs` probes, and `cache/recovery.rs` applies the journal.

mod beat;
mod books;
mod span;
mod timer;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{Instrument, Span, info, warn};

use self::beat::Beat;
use self::books::Books;
pub(crate) use self::books::{On, Op, Via};
use self::timer::Timer;
use crate::clock::in_real_time;
use crate::config::Config;
use crate::error::{Error, ErrorKind, with_causes};
use crate::metrics::{Mode, StoreStats};
use crate::store::Store;
use crate::sync::Mutex;

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

/// The state of the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Connected,
    Fallback,
    Recovering,
    Closed,
}

/// Time spent in fallback mode.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outages {
    /// How often the fallback mode was entered.
    pub(crate) entered: u64,
    /// Time spent in it, the current outage included.
    pub(crate) total: Duration,
    /// How long the current one lasts.
    pub(crate) current: Option<Duration>,
}

/// A store behind a deadline and a breaker.
pub(crate) struct Guard {
    store: Arc<dyn Store>,
    /// `None` for a store in this process, which is never late.
    patience: Option<Patience>,
    /// Whether answers take real time, also in a test that pauses tokio's clock.
    has_connections: bool,
    /// Read by every call, so without a lock.
    state: AtomicU8,
    /// The same, for tasks that wait for a change.
    states: watch::Sender<State>,
    timeouts: AtomicU32,
    /// How many connections the pool had lost when an operation was lost last.
    seen_losses: AtomicU64,
    /// When Redis answered an operation last, in [`HEARING`]s since `made`. It is written only when it changes, because all
    /// callers read it.
    heard: AtomicU64,
    made: Instant,
    canaries: AtomicU32,
    history: Mutex<History>,
    books: Books,
    /// Whether the maintenance task is polled.
    pub(crate) beat: Beat,
    /// Wakes the maintenance task.
    wake: Arc<Notify>,
}

/// How long an operation waits.
#[derive(Clone, Copy)]
struct Patience {
    /// While nothing arrives from the server.
    silence: Duration,
    /// In total.
    total: Duration,
}

#[derive(Default)]
struct History {
    /// Why the store is unavailable.
    reason: Option<String>,
    since: Option<Instant>,
    entered: u64,
    total: Duration,
}

impl Guard {
    /// Around a store in this process, which is always there.
    pub(crate) fn local(store: Arc<dyn Store>, config: &Config, wake: Arc<Notify>) -> Self {
        Self::new(store, None, State::Connected, config, wake)
    }

    /// Creates a guard for a store that may be unavailable. It begins in fallback mode, because nothing is known of the
    /// store yet.
    pub(crate) fn remote(store: Arc<dyn Store>, config: &Config, wake: Arc<Notify>) -> Self {
        let patience = Patience {
            silence: config.command_timeout,
            total: config.operation_max(),
        };
        let guard = Self::new(store, Some(patience), State::Fallback, config, wake);
        guard.history().since = Some(Instant::now());
        guard
    }

    fn new(
        store: Arc<dyn Store>,
        patience: Option<Patience>,
        state: State,
        config: &Config,
        wake: Arc<Notify>,
    ) -> Self {
        Self {
            has_connections: matches!(store.stats(), StoreStats::Redis(_)),
            store,
            patience,
            state: AtomicU8::new(state as u8),
            states: watch::Sender::new(state),
            timeouts: AtomicU32::new(0),
            seen_losses: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            made: Instant::now(),
            canaries: AtomicU32::new(0),
            history: Mutex::default(),
            books: Books::new(config),
            beat: Beat::new(),
            wake,
        }
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Connected,
            1 => State::Fallback,
            2 => State::Recovering,
            _ => State::Closed,
        }
    }

    /// The state and its changes.
    pub(crate) fn states(&self) -> watch::Receiver<State> {
        self.states.subscribe()
    }

    #[inline]
    pub(crate) fn is_connected(&self) -> bool {
        self.state() == State::Connected
    }

    pub(crate) fn is_local(&self) -> bool {
        self.patience.is_none()
    }

    /// Where entries are kept at this moment.
    pub(crate) fn mode(&self) -> Mode {
        match self.state() {
            State::Connected if self.is_local() => Mode::Memory,
            State::Connected => Mode::Redis,
            State::Fallback | State::Recovering | State::Closed => Mode::Fallback,
        }
    }

    /// Returns what Redis refuses at present, one sentence per operation.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.books.refusals()
    }

    /// The store without its guard, for the maintenance task's own work and for what only reads counters.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(crate) fn outages(&self) -> Outages {
        let History {
            reason: _,
            since,
            entered,
            total,
        } = &*self.history();
        let current = since.map(|since| since.elapsed());
        Outages {
            entered: *entered,
            total: *total + current.unwrap_or_default(),
            current,
        }
    }

    /// Runs one operation within the deadline, and records it: its time, its failure, a log line if it was slow, and a
    /// warning if Redis refuses it. While the store is unavailable, an operation of a caller fails at once.
    pub(crate) async fn run<'a, T, F: Future<Output = Result<T, Error>>>(
        &'a self,
        op: Op<'_>,
        operation: impl FnOnce(&'a dyn Store) -> F,
    ) -> Result<T, Error> {
        if !self.admits(op.via) {
            return Err(Error::away());
        }
        let span = match self.has_connections {
            true => span::around(&op),
            false => Span::none(),
        };
        // Pinned once, because each future that it is moved into would reserve space for it.
        let operation = operation(match op.via {
            Via::Caller => &*self.store,
            Via::Recovery => self.store.for_recovery(),
        });
        let operation = pin!(operation.instrument(span.clone()));
        let result = match self.patience {
            Some(patience) if self.has_connections => {
                let in_time = self.in_time(op.began, operation, patience);
                in_real_time(patience.total, in_time).await
            }
            Some(patience) => self.in_time(op.began, operation, patience).await,
            None => Some(operation.await),
        };
        let at = Instant::now();
        let result = match result {
            None => Err(self.timed_out(op.began)),
            Some(result) => {
                match result.as_ref().map_err(Error::kind) {
                    Err(ErrorKind::Unavailable) => {
                        self.trip("no connection is open", result.as_ref().err());
                    }
                    Err(ErrorKind::Connection) => self.lost(op.began, result.as_ref().err()),
                    Err(ErrorKind::Stalled) => {}
                    Ok(_) | Err(_) => self.hear(at),
                }
                result
            }
        };
        if let Err(error) = &result {
            span::fail(&span, error.kind());
        }
        self.books
            .enter(&op, result.as_ref().err(), at - op.began, || self.mode());
        result
    }

    fn admits(&self, via: Via) -> bool {
        match via {
            Via::Caller => self.is_connected() && (self.is_local() || in_runtime()),
            Via::Recovery => true,
        }
    }

    /// Waits while answers arrive from the server: on a shared connection they come in order, so as long as others arrive, this
    /// one is coming. If nothing has arrived for half of the time that silence may last, the server is stalled. Then a few
    /// canaries keep waiting to find out whether it recovers. All other callers give up, and later callers do not wait at all.
    /// Returns [`None`] on timeout.
    async fn in_time<T>(
        &self,
        began: Instant,
        mut operation: Pin<&mut impl Future<Output = Result<T, Error>>>,
        patience: Patience,
    ) -> Option<Result<T, Error>> {
        if self.canaries.load(Ordering::Relaxed) >= CANARIES {
            return Some(Err(stalled()));
        }
        let Patience { silence, total } = patience;
        let give_up = began + total;
        let mut silent_since = began;
        let mut canary = None;
        let mut until = began + silence / 2;
        let mut timer = Timer::until(until.min(give_up));
        loop {
            if let Some(result) = timer.wait_for(operation.as_mut()).await {
                return Some(result);
            }
            let now = Instant::now();
            if now >= give_up {
                return None;
            }
            silent_since = match now.saturating_duration_since(until) {
                lag if lag >= LAG => now,
                _ => silent_since.max(self.last_sign()),
            };
            if now < silent_since + silence / 2 {
                canary = None;
                until = silent_since + silence / 2;
            } else if now < silent_since + silence {
                let canary = canary.get_or_insert_with(|| Canary::new(&self.canaries));
                if canary.index >= CANARIES {
                    return Some(Err(stalled()));
                }
                until = silent_since + silence;
            } else {
                return None;
            }
            timer.reset(until.min(give_up));
        }
    }

    /// Returns when Redis gave the last sign of life.
    fn last_sign(&self) -> Instant {
        let heard = self.heard.load(Ordering::Relaxed);
        let heard = Duration::new(
            heard / HEARINGS_PER_SECOND,
            (heard % HEARINGS_PER_SECOND) as u32 * HEARING.subsec_nanos(),
        );
        let heard = self.made + heard;
        self.store
            .last_arrival()
            .map_or(heard, |arrival| heard.max(arrival))
    }

    /// Records that Redis answered an operation.
    fn hear(&self, at: Instant) {
        let at = self.hearing(at);
        if self.heard.load(Ordering::Relaxed) != at {
            self.heard.store(at, Ordering::Relaxed);
        }
        if self.timeouts.load(Ordering::Relaxed) != 0 {
            self.timeouts.store(0, Ordering::Relaxed);
        }
    }

    fn timed_out(&self, began: Instant) -> Error {
        let waited = self.patience.map(|patience| match began.elapsed() {
            elapsed if elapsed < patience.total => patience.silence,
            _ => patience.total,
        });
        let error = Error::timeout(waited.unwrap_or_default());
        if self.is_one_too_many(began) {
            self.trip("operations time out", Some(&error));
        }
        error
    }

    /// The connection of an operation was lost. If others are open, this is not an outage: the server may have closed only
    /// this one.
    fn lost(&self, began: Instant, error: Option<&Error>) {
        // Operations that are lost with one connection count once.
        let losses = self.losses();
        let is_another = self.seen_losses.swap(losses, Ordering::Relaxed) != losses;
        if !self.store.is_open() || (is_another && self.is_one_too_many(began)) {
            self.trip("the connection is lost", error);
        }
    }

    /// The number of connections to the server that were lost so far.
    pub(crate) fn losses(&self) -> u64 {
        let scripts = self.store.scripts();
        scripts.map_or(0, |scripts| scripts.losses())
    }

    /// Counts an unanswered operation. If others are answered, the cause is its connection or a busy process, not the
    /// server.
    fn is_one_too_many(&self, began: Instant) -> bool {
        self.is_silent_since(began)
            && self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_IN_A_ROW
    }

    fn is_silent_since(&self, began: Instant) -> bool {
        self.last_sign() <= began
    }

    fn hearing(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.made);
        // Without a division of 128 bits, which `as_millis` would need.
        since.as_secs() * HEARINGS_PER_SECOND
            + u64::from(since.subsec_nanos() / HEARING.subsec_nanos())
    }

    /// Enters fallback mode, if it is not entered yet.
    fn trip(&self, reason: &str, cause: Option<&Error>) {
        let mut history = self.history();
        match self.state() {
            State::Connected => {
                history.since = Some(Instant::now());
                history.entered += 1;
                // Not the error itself: it names the operation and its key, which are not the cause.
                let cause = cause.and_then(StdError::source).map(ToString::to_string);
                warn!(
                    reason,
                    cause, "fallback mode entered: Redis is unavailable, functions run uncached"
                );
                history.reason = Some(match cause {
                    Some(cause) => format!("{reason}: {cause}"),
                    None => reason.to_owned(),
                });
            }
            State::Recovering => {}
            State::Fallback | State::Closed => return,
        }
        // The maintenance task must be polled from now on.
        self.beat.strike();
        self.set(State::Fallback, &history);
        drop(history);
        self.wake.notify_one();
    }

    /// The first attempt failed, so the service starts in fallback mode. `error` is the reason, unless a reason is already
    /// known.
    pub(crate) fn start_without(&self, error: &Error) {
        self.history().entered += 1;
        if self.why_unavailable().is_none() {
            self.is_unavailable_because(with_causes(error));
        }
    }

    /// Records why the last attempt to use the store failed. Logs each reason once, because attempts every second would
    /// fill the log with the same line. An outage is one warning.
    pub(crate) fn is_unavailable_because(&self, why: String) {
        let mut history = self.history();
        match &history.reason {
            Some(known) if *known == why => return,
            Some(_) => info!(why, "Redis is still unavailable"),
            None => warn!(
                why,
                "Redis is unavailable; functions run uncached until it is available"
            ),
        }
        history.reason = Some(why);
    }

    /// Returns why the store is unavailable, or [`None`] if it is available.
    pub(crate) fn why_unavailable(&self) -> Option<String> {
        self.history().reason.clone()
    }

    /// The store answered the probe: only the journal must be applied before callers may use it.
    pub(crate) fn begin_recovery(&self) {
        let history = self.history();
        if self.state() == State::Fallback {
            self.set(State::Recovering, &history);
        }
    }

    /// Enters fallback mode if no connection is open, before a caller finds that out. Returns whether it was entered.
    pub(crate) fn notice_loss(&self) -> bool {
        let is_lost = self.state() != State::Closed && !self.store.is_open();
        if is_lost {
            self.trip("no connection is open", None);
        }
        is_lost
    }

    /// Ends the recovery: everything left in the journal was refused, and the server of `term` lacks nothing else. The
    /// caller holds the lock of the journal, so nothing can be added. If Redis is a different server by now, the recovery
    /// continues.
    pub(crate) fn finish_recovery(&self, term: u64) {
        if !self.store.admit(term) {
            return;
        }
        let mut history = self.history();
        if self.state() != State::Recovering {
            return;
        }
        self.timeouts.store(0, Ordering::Relaxed);
        history.reason = None;
        let lasted = history
            .since
            .take()
            .map(|since| since.elapsed())
            .unwrap_or_default();
        history.total += lasted;
        self.set(State::Connected, &history);
        info!(after = ?lasted, "connected to Redis");
    }

    /// Ends the state machine.
    pub(crate) fn close(&self) {
        self.set(State::Closed, &self.history());
        self.wake.notify_one();
    }

    /// Changes are serialized: a caller that changes the state holds the history.
    fn set(&self, state: State, _held: &History) {
        self.state.store(state as u8, Ordering::Release);
        self.states.send_replace(state);
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("state", &self.state())
            .field("store", &self.store)
            .finish_non_exhaustive()
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

/// Returns whether a timer is available. Outside of tokio there is none, and creating one would panic.
pub(crate) fn in_runtime() -> bool {
    // The handle has a reference count that all threads share, so the task id is checked first.
    tokio::task::try_id().is_some() || Handle::try_current().is_ok()
}

fn stalled() -> Error {
    Error::new(
        ErrorKind::Stalled,
        "Redis does not respond; gave up early while a few operations keep probing",
    )
}
