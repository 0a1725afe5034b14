//! One open connection, its operations under way, and its end.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::reply::{self, Failure};
use super::topology::{Identity, Opened};
use super::traffic::{Load, Traffic};
use crate::config::Address;
use crate::sync::Mutex;

/// The server that connections lead to, as long as it is the same server and has lost no data.
#[derive(Debug)]
pub(super) struct Server {
    /// Counts the servers that a pool had.
    pub(super) term: u64,
    pub(super) address: Address,
    pub(super) identity: Identity,
    /// Whether callers may use it. It may lack what an earlier one acknowledged.
    is_admitted: AtomicBool,
    /// Whether its `SET` takes `IFEQ`, as far as is known.
    compares: AtomicBool,
    connections: Mutex<Vec<Weak<Connection>>>,
}

impl Server {
    pub(super) fn new(term: u64, opened: &Opened, is_admitted: bool) -> Self {
        Self {
            term,
            address: opened.address.clone(),
            identity: opened.identity.clone(),
            is_admitted: AtomicBool::new(is_admitted),
            compares: AtomicBool::new(opened.compares),
            connections: Mutex::default(),
        }
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.is_admitted.load(Ordering::Acquire)
    }

    pub(super) fn compares(&self) -> bool {
        self.compares.load(Ordering::Relaxed)
    }

    pub(super) fn set_compares(&self, compares: bool) {
        self.compares.store(compares, Ordering::Relaxed);
    }

    /// Lets callers use it.
    pub(super) fn admit(&self) {
        self.is_admitted.store(true, Ordering::Release);
    }

    /// Ends all connections to it at once.
    pub(super) fn lose_all(&self, reason: &str) {
        for connection in std::mem::take(&mut *self.connections()) {
            if let Some(connection) = connection.upgrade() {
                connection.lose(reason);
            }
        }
    }

    fn join(&self, connection: &Arc<Connection>) {
        let mut connections = self.connections();
        connections.retain(|other| other.strong_count() > 0);
        connections.push(Arc::downgrade(connection));
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Weak<Connection>>> {
        self.connections.lock()
    }
}

/// A connection that all callers share.
///
/// Its driver belongs to it and not to the link, so that losing the connection fails everything that is under way at once:
/// each caller holds a clone of the link, and redis-rs ends a driver only with the last of them.
pub(super) struct Connection {
    pub(super) id: u64,
    server: Arc<Server>,
    link: MultiplexedConnection,
    traffic: Arc<Traffic>,
    driver: AbortHandle,
    answers: AtomicU64,
    pongs: AtomicU64,
    pinging: AtomicBool,
    abandoned: AtomicBool,
    late: AtomicBool,
    lost: OnceLock<String>,
    wake_maintenance: Arc<Notify>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Starts the driver on the current runtime. When it ends, the connection is lost and the maintenance task is woken.
    pub(super) fn start(
        id: u64,
        opened: Opened,
        server: &Arc<Server>,
        wake_maintenance: Arc<Notify>,
    ) -> Arc<Self> {
        let Opened {
            link,
            driver,
            address: _,
            identity: _,
            evicts: _,
            compares: _,
            traffic,
        } = opened;
        let connection = Arc::new_cyclic(|connection: &Weak<Self>| {
            let ending = Ending(connection.clone());
            let task = tokio::spawn(async move {
                driver.await;
                ending.lose("the server closed the connection");
            });
            Self {
                id,
                server: Arc::clone(server),
                link,
                traffic,
                driver: task.abort_handle(),
                answers: AtomicU64::new(0),
                pongs: AtomicU64::new(0),
                pinging: AtomicBool::new(false),
                abandoned: AtomicBool::new(false),
                late: AtomicBool::new(false),
                lost: OnceLock::new(),
                wake_maintenance,
            }
        });
        server.join(&connection);
        connection
    }

    /// Ends the connection: it is no longer handed out, and operations on it fail now.
    pub(super) fn lose(&self, reason: impl Into<String>) {
        if self.lost.set(reason.into()).is_ok() {
            self.driver.abort();
            self.wake_maintenance.notify_one();
        }
    }

    /// Why the connection ended, if it did.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    pub(super) fn is_open(&self) -> bool {
        self.lost.get().is_none()
    }

    pub(super) fn load(&self) -> Load {
        self.traffic.load()
    }

    /// Reserves room for a command that moves `bytes`.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Ticket {
        Ticket {
            connection: self.clone(),
            weight: self.traffic.add(bytes),
            answered: false,
        }
    }

    /// How many commands were answered; grows while the connection is of use.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Grows with everything that arrives, including parts of a long answer.
    pub(super) fn progress(&self) -> u64 {
        self.answers()
            .wrapping_add(self.pongs.load(Ordering::Relaxed))
            .wrapping_add(self.traffic.bytes())
    }

    /// Returns when something arrived last.
    pub(super) fn last_arrival(&self) -> Instant {
        self.traffic.last()
    }

    /// Returns how long a command waited before it was sent, if one was sampled since the last call.
    pub(super) fn wait_before_sending(&self) -> Option<Duration> {
        self.traffic.wait_before_sending()
    }

    /// Returns whether an answer is late, so commands should use another connection.
    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    /// Records that an answer is late. The next answer resets it.
    pub(super) fn be_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    /// Returns whether the server owes an answer. An answer for a cancelled caller is owed until a later answer shows that
    /// it arrived.
    pub(super) fn is_owed(&self) -> bool {
        self.load().commands > 0
            || self.abandoned.load(Ordering::Relaxed)
            || self.pinging.load(Ordering::Relaxed)
    }

    /// Returns whether answers are owed only to cancelled callers, so only a ping can show that they arrived.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.load().commands == 0
            && self.abandoned.load(Ordering::Relaxed)
            && !self.pinging.load(Ordering::Relaxed)
    }

    /// Sends a ping, and loses the connection if the answer is an error. The ping counts neither as load nor as use.
    pub(super) async fn ping(&self) {
        self.pinging.store(true, Ordering::Relaxed);
        let answer = self
            .link
            .clone()
            .send_packed_command(&redis::cmd("PING"))
            .await;
        self.pinging.store(false, Ordering::Relaxed);
        self.pongs.fetch_add(1, Ordering::Relaxed);
        self.abandoned.store(false, Ordering::Relaxed);
        self.late.store(false, Ordering::Relaxed);
        match self.outcome(answer).and_then(reply::ok) {
            // A user without the right to ping may still have the right to read and write. A server that cannot write to
            // its disk refuses pings but still answers reads.
            Err(Failure::Refused(error))
                if error.kind() != Some(ServerErrorKind::NoPerm) && error.code() != "MISCONF" =>
            {
                self.lose(reply::said(&error));
            }
            _ => {}
        }
    }

    /// Loses the connection if the answer shows that it is of no use any more.
    fn outcome<T>(&self, answer: Result<T, RedisError>) -> Result<T, Failure>
    where
        T: Judge,
    {
        match answer {
            Ok(answer) => {
                // This affects the server, and so all connections to it.
                if let Some(error) = answer.out_of_service() {
                    self.lose(&error);
                    self.server.lose_all(&error);
                    return Err(Failure::Lost(error));
                }
                Ok(answer)
            }
            Err(error) => {
                self.lose(error.to_string());
                // The watchdog may have been first; then its reason is the better one.
                Err(Failure::Lost(self.lost().unwrap_or_default().to_owned()))
            }
        }
    }
}

/// Belongs to a connection's driver, and loses the connection when that ends, also when its runtime is shut down under it: all
/// connections of that runtime are then known to be lost, and not one by one.
struct Ending(Weak<Connection>);

impl Ending {
    fn lose(&self, reason: &str) {
        if let Some(connection) = self.0.upgrade() {
            connection.lose(reason);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.lose("the tokio runtime of the connection has ended");
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Finds in an answer that the server behind a connection is not one to talk to.
trait Judge {
    fn out_of_service(&self) -> Option<String>;
}

impl Judge for Value {
    fn out_of_service(&self) -> Option<String> {
        match self {
            Self::ServerError(error) if reply::is_out_of_service(error) => Some(reply::said(error)),
            _ => None,
        }
    }
}

impl Judge for Vec<Value> {
    fn out_of_service(&self) -> Option<String> {
        self.iter().find_map(Judge::out_of_service)
    }
}

/// Room on a connection for one command or one pipeline. Dropping it gives the room back, answered or not.
#[derive(Debug)]
pub(super) struct Ticket {
    connection: Arc<Connection>,
    weight: u64,
    answered: bool,
}

impl Ticket {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Returns whether a command was answered, or lost with its connection.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, Failure> {
        self.connection.traffic.begin();
        let answer = self
            .connection
            .link
            .clone()
            .send_packed_command(command)
            .await;
        self.answered = true;
        reply::ok(self.connection.outcome(answer)?)
    }

    /// Sends commands as one batch and waits for all answers, errors among them.
    pub(super) async fn ask_all(mut self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        self.connection.traffic.begin();
        let answers = self
            .connection
            .link
            .clone()
            .send_packed_commands(commands, 0, commands.len())
            .await;
        self.answered = true;
        self.connection.outcome(answers)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Connection {
            traffic,
            answers,
            abandoned,
            late,
            ..
        } = &*self.connection;
        traffic.subtract(self.weight);
        if self.answered {
            answers.fetch_add(1, Ordering::Relaxed);
            for flag in [abandoned, late] {
                if flag.load(Ordering::Relaxed) {
                    flag.store(false, Ordering::Relaxed);
                }
            }
        } else {
            abandoned.store(true, Ordering::Relaxed);
        }
    }
}
