//! The fallback mode: a deadline for every operation, a breaker, and one flag that is read before anything is sent.
//!
//! ```text
//!        no connection open, or 5 unanswered in a row        the probe got through
//! connected ────────────────────────────────────► fallback ───────────────────────► recovering
//!     ▲                                               ▲                                  │
//!     └────────── the journal was applied once ───────┼──────────────────────────────────┤
//!                                                     └──────── lost once more ──────────┘
//! ```
//!
//! The guard judges and remembers. `cache/reconnect.rs` probes, and `cache/recovery.rs` applies the journal.

mod beat;
mod books;
mod breaker;
mod span;
mod timer;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{Instrument, Span, info, warn};

use self::beat::Beat;
use self::books::Books;
pub(crate) use self::books::{On, Op, Via};
pub(in crate::store) use self::breaker::{Breaker, Late, Watched};
use self::timer::Timer;
use crate::clock::in_real_time;
use crate::config::{Config, Topology};
use crate::error::{Error, with_causes};
use crate::metrics::{Mode, StoreStats};
use crate::store::Store;
use crate::sync::Mutex;

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
    judge: Judge,
    /// Whether answers take real time, also in a test that pauses tokio's clock.
    has_connections: bool,
    /// Read by every call, so without a lock.
    state: AtomicU8,
    /// The same, for tasks that wait for a change.
    states: watch::Sender<State>,
    history: Mutex<History>,
    books: Books,
    /// Whether the maintenance task is polled.
    pub(crate) beat: Beat,
    /// Wakes the maintenance task.
    wake: Arc<Notify>,
}

/// What judges the store.
enum Judge {
    /// A store in this process is never late.
    Nobody,
    /// One server.
    Breaker(Breaker),
    /// The nodes of a cluster have breakers of their own. The whole is unavailable while none of them answers. An operation on
    /// several of them takes this long at most.
    Nodes { longest: Duration },
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
        Self::new(store, Judge::Nobody, State::Connected, config, wake)
    }

    /// Creates a guard for a store that may be unavailable. It begins in fallback mode, because nothing is known of the
    /// store yet.
    pub(crate) fn remote(store: Arc<dyn Store>, config: &Config, wake: Arc<Notify>) -> Self {
        let judge = match &config.redis {
            Some(Topology::Cluster { .. }) => Judge::Nodes {
                longest: config.operation_max(),
            },
            _ => Judge::Breaker(Breaker::new(config)),
        };
        let guard = Self::new(store, judge, State::Fallback, config, wake);
        guard.history().since = Some(Instant::now());
        guard
    }

    fn new(
        store: Arc<dyn Store>,
        judge: Judge,
        state: State,
        config: &Config,
        wake: Arc<Notify>,
    ) -> Self {
        Self {
            has_connections: matches!(store.stats(), StoreStats::Redis(_)),
            store,
            judge,
            state: AtomicU8::new(state as u8),
            states: watch::Sender::new(state),
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
        matches!(self.judge, Judge::Nobody)
    }

    /// Returns whether parts of the store can be unavailable alone.
    pub(crate) fn is_divided(&self) -> bool {
        matches!(self.judge, Judge::Nodes { .. })
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
        let result = match &self.judge {
            Judge::Breaker(breaker) if self.has_connections => {
                let in_time = breaker.in_time(op.began, operation, &*self.store);
                let in_time = async { Some(in_time.await) };
                let longest = breaker.longest();
                let outcome = in_real_time(longest, in_time).await;
                outcome.unwrap_or(Err(Late::TimedOut(longest)))
            }
            Judge::Breaker(breaker) => breaker.in_time(op.began, operation, &*self.store).await,
            Judge::Nodes { longest } => {
                let mut timer = Timer::until(op.began + *longest);
                let answered = in_real_time(*longest, timer.wait_for(operation)).await;
                answered.ok_or(Late::TimedOut(*longest))
            }
            Judge::Nobody => Ok(operation.await),
        };
        let result = result.unwrap_or_else(|late| Err(late.into()));
        let at = Instant::now();
        let error = result.as_ref().err();
        let unavailable = match &self.judge {
            Judge::Breaker(breaker) => {
                breaker.judge(op.began, at, error.map(Error::kind), &*self.store)
            }
            Judge::Nodes { .. } => {
                let is_lost = error.is_some() && !Store::is_open(&*self.store);
                is_lost.then_some("no node of the cluster answers")
            }
            Judge::Nobody => None,
        };
        if let Some(reason) = unavailable {
            self.trip(reason, error);
        }
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

    /// The number of connections to the server that were lost so far.
    pub(crate) fn losses(&self) -> u64 {
        Watched::losses(&*self.store)
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
        let is_lost = self.state() != State::Closed && !Store::is_open(&*self.store);
        if is_lost {
            self.trip("no connection is open", None);
        }
        is_lost
    }

    /// Ends the recovery: what the server of `term` lacks is in the journal, which blocks it key by key. If Redis is a different
    /// server by now, the recovery continues.
    pub(crate) fn finish_recovery(&self, term: u64) {
        if !self.store.admit(term) {
            return;
        }
        let mut history = self.history();
        if self.state() != State::Recovering {
            return;
        }
        if let Judge::Breaker(breaker) = &self.judge {
            breaker.reset();
        }
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

/// Returns whether a timer is available. Outside of tokio there is none, and creating one would panic.
pub(crate) fn in_runtime() -> bool {
    // The handle has a reference count that all threads share, so the task id is checked first.
    tokio::task::try_id().is_some() || Handle::try_current().is_ok()
}
