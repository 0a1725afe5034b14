//! Listens for changes of entries, on a connection with nothing else on it.
//!
//! The server pushes the name of every key that changes, whoever changes it (`CLIENT TRACKING ON BCAST`). Pushes and the answers
//! to pings arrive in order, so an answer shows that everything before it has arrived. Redis writes the pushes of one turn of its
//! event loop after the answers of that turn. Therefore an answer counts for the ping before its own, which belongs to an earlier
//! turn.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, PushInfo, PushKind, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::backoff;
use super::pool::Pool;
use super::reply;
use super::topology::{Connector, Driver, Pushes};
use crate::clock::hold;
use crate::config::Config;
use crate::doubt::{Doubts, Feed};
use crate::error::{Error, ErrorKind};
use crate::sync::Mutex;

/// The pause before a server is asked again that did not report changes: its permissions may have changed.
const REFUSED: Duration = Duration::from_secs(60);

/// The beginnings of the keys whose changes are wanted.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    beginnings: Mutex<BTreeSet<String>>,
    /// For the listeners of all servers.
    grown: watch::Sender<()>,
}

impl Wanted {
    /// Asks for the changes of all keys that begin with this text.
    pub(crate) fn add(&self, beginning: String) {
        let mut beginnings = self.beginnings.lock();
        let is_covered = beginnings.iter().any(|known| beginning.starts_with(known));
        if !is_covered {
            beginnings.insert(beginning);
            drop(beginnings);
            self.grown.send_replace(());
        }
    }

    /// Returns them without those that begin with another: Redis answers twice if prefixes of one client overlap.
    fn reduced(&self) -> Vec<String> {
        let mut reduced: Vec<String> = Vec::new();
        // In order, so that a beginning comes before all that begin with it.
        for beginning in self.beginnings.lock().iter() {
            if reduced
                .last()
                .is_none_or(|last| !beginning.starts_with(last))
            {
                reduced.push(beginning.clone());
            }
        }
        reduced
    }
}

/// What decides whether a server is still the right one for its keys, if several servers share them.
pub(super) trait Ownership: Send + Sync {
    /// Returns a command that the server answers only while it owns keys. It changes nothing. [`None`] if it owns none.
    fn question(&self) -> Option<Cmd>;

    /// The server says that it does not own them.
    fn lost(&self);
}

/// Listens to the server of a pool.
pub(crate) struct Listener {
    pool: Weak<Pool>,
    connector: Arc<Connector>,
    doubts: Arc<Doubts>,
    feed: Arc<Feed>,
    wanted: Arc<Wanted>,
    ownership: Option<Box<dyn Ownership>>,
    staleness: Duration,
    /// How long the server may leave a ping unanswered.
    patience: Duration,
    longest_pause: Duration,
    pushes: Pushes,
}

/// Why a listener stopped listening.
enum End {
    /// There is nothing to listen for any more.
    Over,
    /// The server does not report changes.
    Refused(String),
    /// The connection must be opened again.
    Lost(String),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Command => Self::Refused(error.cause()),
            _ => Self::Lost(error.cause()),
        }
    }
}

/// What listeners tell, and what they listen for.
#[derive(Clone, Debug)]
pub(crate) struct Tracking {
    pub(crate) doubts: Arc<Doubts>,
    pub(crate) wanted: Arc<Wanted>,
}

impl Listener {
    /// Opens nothing yet. It tells `feed`.
    pub(super) fn new(
        pool: &Arc<Pool>,
        config: &Config,
        tracking: &Tracking,
        feed: Arc<Feed>,
        ownership: Option<Box<dyn Ownership>>,
    ) -> Result<Self, Error> {
        let Tracking { doubts, wanted } = tracking.clone();
        let heard = Arc::clone(&doubts);
        Ok(Self {
            pool: Arc::downgrade(pool),
            connector: connector(pool, config)?,
            doubts,
            feed,
            wanted,
            ownership,
            staleness: config.local_staleness,
            patience: config.local_staleness.max(config.command_timeout),
            longest_pause: config.reconnect_max_delay,
            pushes: Arc::new(move |push| hear(&heard, &push)),
        })
    }
}

#[cfg(any(test, feature = "testing"))]
fn connector(pool: &Arc<Pool>, config: &Config) -> Result<Arc<Connector>, Error> {
    use crate::config::Topology;

    match &config.listen_at {
        None => Ok(Arc::clone(pool.connector())),
        // A cluster has several networks.
        Some(_) if pool.is_node() => Ok(Arc::clone(pool.connector())),
        Some(address) => Ok(Arc::new(Connector::new(&Config {
            redis: Some(Topology::Standalone(address.clone())),
            ..config.clone()
        })?)),
    }
}

#[cfg(not(any(test, feature = "testing")))]
#[expect(clippy::unnecessary_wraps, reason = "tests may open another network")]
fn connector(pool: &Arc<Pool>, _: &Config) -> Result<Arc<Connector>, Error> {
    Ok(Arc::clone(pool.connector()))
}

/// Counts what a push reports.
fn hear(doubts: &Doubts, push: &PushInfo) {
    if push.kind != PushKind::Invalidate {
        return;
    }
    match push.data.first() {
        Some(Value::Array(names)) => {
            for name in names {
                match name {
                    Value::BulkString(name) => doubts.changed(name),
                    Value::SimpleString(name) => doubts.changed(name.as_bytes()),
                    _ => doubts.all_changed(),
                }
            }
        }
        // Without names: the whole database was emptied.
        _ => doubts.all_changed(),
    }
}

impl Listener {
    /// Listens until the pool is gone or closed.
    pub(crate) async fn run(self) {
        let mut failures = 0;
        let mut refused = None;
        let mut grown = self.wanted.grown.subscribe();
        loop {
            let began = Instant::now();
            let end = self.listen().await;
            self.feed.distrust();
            let server = self.server();
            let pause = match end {
                End::Over => return,
                End::Refused(reason) => {
                    self.feed.refused(reason.clone());
                    if refused.as_ref() != Some(&reason) {
                        warn!(
                            server,
                            reason,
                            "Redis does not report changes of keys: functions with `local` keep no values in this process"
                        );
                        refused = Some(reason);
                    }
                    REFUSED
                }
                End::Lost(reason) => {
                    debug!(
                        server,
                        reason, "the connection that listens for changes was lost"
                    );
                    // A connection that lasted was no failure.
                    failures = if began.elapsed() < self.patience {
                        failures + 1
                    } else {
                        1
                    };
                    backoff::pause(failures, self.longest_pause)
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                _ = grown.changed() => {}
            }
        }
    }

    /// The address of the server that callers use, for the log.
    fn server(&self) -> Option<String> {
        let server = self.pool.upgrade()?.server()?;
        Some(server.address.to_string())
    }

    /// The number of the server that callers use.
    fn term(&self) -> Result<u64, End> {
        match self.pool.upgrade() {
            Some(pool) if !pool.is_closed() => Ok(pool.term()),
            _ => Err(End::Over),
        }
    }

    async fn listen(&self) -> End {
        match self.try_listen().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn try_listen(&self) -> Result<std::convert::Infallible, End> {
        self.term()?;
        let opened = self.connector.open_with(Some(&self.pushes)).await?;
        let term = {
            let pool = self.pool.upgrade().ok_or(End::Over)?;
            let term = pool.term_of(&opened.identity);
            term.ok_or_else(|| {
                End::Lost("it leads to another server than those of callers".into())
            })?
        };
        let mut link = Link {
            link: opened.link,
            driver: opened.driver,
            patience: self.patience,
        };
        self.ping(&mut link).await?;
        let mut grown = self.wanted.grown.subscribe();
        let beginnings = self.wanted.reduced();
        link.track(&beginnings).await?;
        info!(
            server = self.server(),
            keys = beginnings.join("*, ") + "*",
            "listening for changes in Redis"
        );
        self.feed.covers(beginnings.clone());
        let mut earlier = None;
        loop {
            let sent = self.doubts.earliest();
            self.ping(&mut link).await?;
            if self.term()? != term {
                return Err(End::Lost("callers use another server".into()));
            }
            if let Some(heard) = earlier.replace(sent) {
                self.feed.trust(heard, self.staleness);
                tokio::select! {
                    () = sleep(self.staleness / 4) => {}
                    () = &mut link.driver => return Err(closed()),
                    _ = grown.changed() => {
                        if self.wanted.reduced() != beginnings {
                            return Err(End::Lost("more keys are wanted".into()));
                        }
                    }
                }
            }
        }
    }
}

impl Listener {
    /// Asks for an answer that only the right server gives.
    async fn ping(&self, link: &mut Link) -> Result<(), End> {
        let question = self.ownership.as_ref().and_then(|owner| owner.question());
        let question = question.unwrap_or_else(|| redis::cmd("PING"));
        match link.answer(&question).await? {
            // The slot is on its way to another node, and this one still owns it.
            Value::ServerError(error) if error.kind() == Some(ServerErrorKind::Ask) => Ok(()),
            Value::ServerError(error) if reply::is_elsewhere(&error) => {
                if let Some(owner) = &self.ownership {
                    owner.lost();
                }
                Err(End::Lost(reply::said(&error)))
            }
            answer => refuse(answer).map(drop),
        }
    }
}

/// A connection whose driver runs while it waits for an answer.
struct Link {
    link: MultiplexedConnection,
    driver: Driver,
    patience: Duration,
}

impl Link {
    async fn ask(&mut self, command: &Cmd) -> Result<Value, End> {
        refuse(self.answer(command).await?)
    }

    /// The answer, which may be an error of the server.
    async fn answer(&mut self, command: &Cmd) -> Result<Value, End> {
        let _real_time = hold(self.patience);
        let answer = tokio::select! {
            answer = timeout(self.patience, self.link.send_packed_command(command)) => answer,
            () = &mut self.driver => return Err(closed()),
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(End::Lost(error.to_string())),
            Err(_) => Err(End::Lost(format!("no answer within {:?}", self.patience))),
        }
    }

    /// Has the server report changes of all keys with these beginnings, and checks that it does.
    async fn track(&mut self, beginnings: &[String]) -> Result<(), End> {
        let mut command = redis::cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("BCAST");
        for beginning in beginnings {
            command.arg("PREFIX").arg(beginning);
        }
        self.ask(&command).await?;
        let info = self.ask(redis::cmd("CLIENT").arg("TRACKINGINFO")).await?;
        match tracks(info, beginnings) {
            true => Ok(()),
            false => Err(End::Refused(
                "`CLIENT TRACKINGINFO` shows another state".into(),
            )),
        }
    }
}

/// Returns an answer that is no error.
fn refuse(answer: Value) -> Result<Value, End> {
    match answer {
        Value::ServerError(error) if reply::is_out_of_service(&error) => {
            Err(End::Lost(reply::said(&error)))
        }
        Value::ServerError(error) => Err(End::Refused(reply::said(&error))),
        answer => Ok(answer),
    }
}

fn closed() -> End {
    End::Lost("the server closed the connection".into())
}

/// Returns whether the server reports the changes of all keys with these beginnings.
fn tracks(info: Value, beginnings: &[String]) -> bool {
    let Value::Map(fields) = info else {
        return false;
    };
    let texts = |name: &str| -> BTreeSet<String> {
        let field = fields
            .iter()
            .find(|(field, _)| reply::text(field.clone()).is_ok_and(|field| field == name));
        match field {
            Some((_, Value::Set(items) | Value::Array(items))) => items
                .iter()
                .filter_map(|item| reply::text(item.clone()).ok())
                .collect(),
            _ => BTreeSet::new(),
        }
    };
    let (flags, prefixes) = (texts("flags"), texts("prefixes"));
    flags.contains("on")
        && flags.contains("bcast")
        && prefixes.into_iter().eq(beginnings.iter().cloned())
}

#[cfg(test)]
mod tests;
