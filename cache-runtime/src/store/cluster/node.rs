//! One primary of a cluster: its connections, its breaker and its state.
//!
//! ```text
//!        it answers          the recovery admits it
//! away ─────────────► ready ────────────────────────► open
//!   ▲                   │                               │
//!   └───────────────────┴──── lost, or silent ──────────┘
//! ```

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{Alarm, Cluster};
use crate::clock::hold;
use crate::config::{Address, Config};
use crate::doubt::Feed;
use crate::error::{Error, ErrorKind, with_causes};
use crate::metrics::PoolStats;
use crate::singleton::Singleton;
use crate::store::guard::{Breaker, Watched};
use crate::store::peer::Peer;
use crate::store::pool::{Access, Pool};
use crate::store::reply::Failure;
use crate::store::slots::NodeId;
use crate::store::topology::{Connector, Expected};
use crate::store::{NodeHealth, NodeState, backoff, maintenance};
use crate::sync::Mutex;

const IS_AWAY: Failure = Failure::Away("the node of the slot is unavailable");

/// A primary.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) address: Address,
    pub(super) pool: Arc<Pool>,
    peer: Peer,
    /// The same for the recovery.
    recovery: Peer,
    breaker: Breaker,
    /// Read by every command.
    state: AtomicU8,
    /// The number of its server that the cluster knows of.
    server: AtomicU64,
    trouble: Mutex<Option<Trouble>>,
    /// Attempts to reach it that have ended.
    attempts: watch::Sender<u64>,
    /// Wakes the task that sees to its return.
    wake: Arc<Notify>,
    tending: Singleton,
    /// What its listener tells, if there is something to listen for.
    pub(super) feed: OnceLock<Arc<Feed>>,
    pub(super) listening: Singleton,
    alarm: Arc<Alarm>,
}

/// Why a node is away.
#[derive(Clone)]
struct Trouble {
    kind: ErrorKind,
    reason: String,
}

/// The state of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Away,
    /// It answers, and the recovery has not admitted it.
    Ready,
    Open,
}

impl State {
    fn of(number: u8) -> Self {
        match number {
            1 => Self::Ready,
            2 => Self::Open,
            _ => Self::Away,
        }
    }
}

impl Watched for Pool {
    fn last_arrival(&self) -> Option<Instant> {
        self.last_arrival()
    }

    fn losses(&self) -> u64 {
        self.losses()
    }

    fn is_open(&self) -> bool {
        self.is_open()
    }
}

impl Node {
    /// Opens nothing yet.
    pub(super) fn new(
        id: NodeId,
        address: &Address,
        config: &Config,
        alarm: &Arc<Alarm>,
    ) -> Result<Arc<Self>, Error> {
        let connector = Connector::for_node(config, address, Expected::PrimaryNode)?;
        let peer = Peer::new(Pool::of_node(connector, config), config);
        Ok(Arc::new(Self {
            id,
            address: address.clone(),
            pool: Arc::clone(&peer.pool),
            recovery: peer.with(Access::Recovery),
            peer,
            breaker: Breaker::new(config),
            state: AtomicU8::new(State::Away as u8),
            server: AtomicU64::new(0),
            trouble: Mutex::default(),
            attempts: watch::Sender::new(0),
            wake: Arc::default(),
            tending: Singleton::default(),
            feed: OnceLock::new(),
            listening: Singleton::default(),
            alarm: Arc::clone(alarm),
        }))
    }

    pub(super) fn state(&self) -> State {
        State::of(self.state.load(Ordering::Acquire))
    }

    /// Returns whether it has ever answered.
    pub(super) fn has_answered(&self) -> bool {
        self.server.load(Ordering::Acquire) != 0
    }

    /// Returns whether it answers.
    pub(super) fn is_usable(&self) -> bool {
        self.state() != State::Away
    }

    /// Sends commands to this node alone, whatever its state is.
    pub(super) fn peer(&self, access: Access) -> &Peer {
        match access {
            Access::Caller => &self.peer,
            Access::Recovery => &self.recovery,
        }
    }

    /// Waits for an operation on this node within the deadline, and judges the node by it. While the node is away, nothing is
    /// sent.
    pub(super) async fn within<T>(
        &self,
        access: Access,
        began: Instant,
        operation: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let is_let_in = match access {
            Access::Caller => self.state() == State::Open,
            Access::Recovery => self.is_usable(),
        };
        if !is_let_in {
            return Err(IS_AWAY);
        }
        let operation = pin!(operation);
        let outcome = self.breaker.in_time(began, operation, &*self.pool).await;
        let result = outcome.unwrap_or_else(|late| Err(Failure::Late(late)));
        let failure = result.as_ref().err().map(Failure::kind);
        if let Some(reason) = self
            .breaker
            .judge(began, Instant::now(), failure, &*self.pool)
        {
            self.lose(reason, result.as_ref().err());
        }
        result
    }

    /// Records that it is unavailable.
    pub(super) fn lose(&self, reason: &str, failure: Option<&Failure>) {
        if self.state.swap(State::Away as u8, Ordering::AcqRel) == State::Away as u8 {
            return;
        }
        let reason = match failure {
            Some(Failure::Lost(cause)) => format!("{reason}: {cause}"),
            _ => reason.to_owned(),
        };
        warn!(
            node = %self.address,
            reason,
            "a node of the cluster is unavailable: functions run uncached for the keys of its slots"
        );
        *self.trouble.lock() = Some(Trouble {
            kind: ErrorKind::Connection,
            reason,
        });
        self.wake.notify_one();
        self.alarm.table.notify_one();
        self.alarm.signals.changed.notify_one();
    }

    /// Records which server answers. Returns whether it is another one than before. The caller holds what is known of the cluster.
    pub(super) fn adopt_server(&self) -> bool {
        let server = self.pool.term();
        self.server.swap(server, Ordering::AcqRel) != server
    }

    /// Records that it answers.
    pub(super) fn answers(&self) {
        self.breaker.reset();
        self.state.store(State::Ready as u8, Ordering::Release);
    }

    /// Lets callers use it if it answers. Returns whether they could not before. The caller holds what is known of the cluster.
    pub(super) fn admit(&self) -> bool {
        let (ready, open) = (State::Ready as u8, State::Open as u8);
        let is_ready = self.state() == State::Ready
            && self.pool.admit(self.server.load(Ordering::Acquire))
            && self
                .state
                .compare_exchange(ready, open, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if is_ready {
            *self.trouble.lock() = None;
            info!(node = %self.address, "connected to a node of the cluster");
        }
        is_ready
    }

    /// Returns whether its connections lead to another server than the cluster knows of.
    fn is_another(&self) -> bool {
        self.pool.term() != self.server.load(Ordering::Acquire)
    }

    /// Returns why it is away, as an error.
    pub(super) fn trouble(&self) -> Error {
        match self.trouble.lock().clone() {
            Some(Trouble { kind, reason }) => Error::new(kind, reason),
            None => Error::away(),
        }
    }

    pub(super) fn health(&self) -> NodeHealth {
        let state = match self.state() {
            State::Away => NodeState::Unavailable,
            State::Ready => NodeState::Recovering,
            State::Open => NodeState::Connected,
        };
        NodeHealth {
            address: self.address.to_string(),
            state,
            reason: self.trouble.lock().clone().map(|trouble| trouble.reason),
        }
    }

    pub(super) fn stats(&self) -> PoolStats {
        self.peer.stats()
    }

    /// Asks for an attempt to reach it now. Notifies of its end.
    pub(super) fn attempt(&self) -> watch::Receiver<u64> {
        let attempts = self.attempts.subscribe();
        self.wake.notify_one();
        attempts
    }

    /// Starts the task that sees to its return, unless it runs. The task ends with the node.
    pub(super) fn tend(self: &Arc<Self>, cluster: &Weak<Cluster>) {
        self.tending.start(|running| {
            let (node, cluster) = (Arc::downgrade(self), Weak::clone(cluster));
            async move {
                let _running = running;
                tend(node, cluster).await;
            }
        });
    }

    async fn reach(&self, bound: Duration) -> Result<(), Error> {
        let _real_time = hold(bound);
        maintenance::ensure(&self.pool);
        match timeout(bound, self.pool.probe()).await {
            Ok(probed) => probed,
            Err(_) => Err(Error::timeout(bound)),
        }
    }
}

async fn tend(node: Weak<Node>, cluster: Weak<Cluster>) {
    let mut failures = 0;
    let signals = node.upgrade().map(|node| Arc::clone(node.pool.signals()));
    let signals = signals.unwrap_or_default();
    loop {
        let (Some(here), Some(whole)) = (node.upgrade(), cluster.upgrade()) else {
            return;
        };
        let config = &whole.config;
        let mut pause = None;
        if here.pool.is_closed() {
            return;
        }
        if !here.is_usable() {
            let bound = config.connect_timeout + config.command_timeout;
            match here.reach(bound).await {
                Ok(()) => {
                    failures = 0;
                    whole.node_answers(&here);
                }
                Err(error) => {
                    failures += 1;
                    let trouble = Trouble {
                        kind: error.kind(),
                        reason: with_causes(&error),
                    };
                    debug!(node = %here.address, failures, reason = trouble.reason, "a node of the cluster is not reachable");
                    *here.trouble.lock() = Some(trouble);
                    pause = Some(backoff::pause(failures, config.reconnect_max_delay));
                }
            }
            here.attempts.send_modify(|attempts| *attempts += 1);
        }
        let wake = Arc::clone(&here.wake);
        drop((here, whole));
        tokio::select! {
            () = wake.notified() => {}
            () = signals.changed.notified() => {}
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
        // The pool noticed it before any caller did.
        if let Some(here) = node.upgrade() {
            match here.state() {
                State::Away => {}
                _ if !here.pool.is_open() => here.lose("no connection is open", None),
                State::Ready | State::Open if here.is_another() => {
                    here.lose("it is a different server now, or it restarted", None);
                }
                State::Ready | State::Open => {}
            }
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .field("address", &self.address)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}
