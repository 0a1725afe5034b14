//! Connections that all callers share, filled first.
//!
//! Commands that share a connection share its system calls, so a command goes to the lowest connection that has room, and
//! the others stay quiet until they are needed and are closed when they no longer are. No caller waits for a connection to
//! open: the maintenance task opens connections (`maintenance.rs`), and a probe opens the first one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::Signals;
use super::connection::{Connection, Server, Ticket};
use super::reply::Failure;
use super::topology::{Connector, Identity, Opened, Sentinels};
use super::traffic::Load;
use crate::clock::hold;
use crate::config::{Address, Config};
use crate::error::{Error, ErrorKind};
use crate::metrics::{Histogram, PoolStats, Sampled};
use crate::singleton::Singleton;
use crate::sync::Mutex;

/// The bytes that may be expected on one connection: more would make small replies wait behind large ones.
const BYTES: usize = 1 << 20;
/// The most commands on one connection. Commands that share a connection share its system calls: measured with 1,000 callers
/// of 200 B values, one connection with all of them is 8 to 20 % faster than four with 256 each.
pub(super) const COMMANDS: usize = 1024;
/// A connection with fewer commands than this is never full, regardless of the size of the replies.
const FEW_COMMANDS: usize = 16;
/// A reply of this size would delay the small ones behind it, so it uses the bulk connection.
pub(super) const BULK: usize = 128 << 10;

/// Longer means forever. A point in time this far ahead can still be computed.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);
const MIN_PING: Duration = Duration::from_millis(10);

/// How many connections there are, and when they are opened, asked and closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) idle: Duration,
    pub(super) health: Duration,
    pub(super) answer: Duration,
    pub(super) longest_pause: Duration,
    /// For opening a connection.
    pub(super) connect: Duration,
}

/// The connections to one Redis.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) limits: Limits,
    connector: Arc<Connector>,
    /// Whether the server is a node of a cluster.
    is_node: bool,
    /// Read by every command and changed by few, so a reader takes no lock: two threads that share one wait for each other
    /// longer than the rest of a pick takes.
    lanes: ArcSwap<Lanes>,
    /// Held while the lanes are changed.
    changing: Mutex<()>,
    /// Set while the maintenance task looks at the load at short intervals.
    pub(super) watched: AtomicBool,
    /// Set when a command found no connection with room.
    pub(super) crowded: AtomicBool,
    /// Set when a bulk command found no bulk connection.
    pub(super) bulk_wanted: AtomicBool,
    pub(super) wake_maintenance: Arc<Notify>,
    pub(super) maintenance: Singleton,
    signals: Arc<Signals>,
    closed: AtomicBool,
    connecting: Arc<AtomicUsize>,
    opened: AtomicU64,
    lost: AtomicU64,
    dice: AtomicU64,
    /// How long commands wait before they are sent.
    pub(super) send_wait: Histogram,
    /// How late the timers of the maintenance task fire.
    pub(super) lag: Histogram,
}

/// What is open.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes {
    /// The server that all open connections lead to.
    server: Option<Arc<Server>>,
    /// Lowest first.
    pub(super) data: Vec<Arc<Connection>>,
    /// For scans, large batches and large values.
    pub(super) bulk: Option<Arc<Connection>>,
}

impl Lanes {
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.data.iter().chain(&self.bulk)
    }

    fn term(&self) -> u64 {
        self.server.as_ref().map_or(0, |server| server.term)
    }

    pub(super) fn open(&self) -> usize {
        self.all().filter(|connection| connection.is_open()).count()
    }
}

/// On whose behalf a command is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Caller,
    /// Whether a server may be used by callers.
    Recovery,
}

/// Which lane a new connection joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Data,
    Bulk,
}

impl Pool {
    /// Opens nothing yet.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self::with(Connector::new(config)?, config))
    }

    /// The same for a node of a cluster. No server of it is admitted by itself: it may be a replica that was promoted.
    pub(super) fn of_node(connector: Connector, config: &Config) -> Self {
        let mut pool = Self::with(connector, config);
        pool.is_node = true;
        pool
    }

    fn with(connector: Connector, config: &Config) -> Self {
        let max = config.pool_max.max(1);
        Self {
            limits: Limits {
                min: config.pool_min.clamp(1, max),
                max,
                idle: config.pool_idle.min(MAX_TIME),
                health: config.health_interval.clamp(MIN_PING, MAX_TIME),
                answer: config.command_timeout,
                longest_pause: config.reconnect_max_delay,
                connect: config.connect_timeout,
            },
            connector: Arc::new(connector),
            is_node: false,
            lanes: ArcSwap::default(),
            changing: Mutex::default(),
            watched: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            bulk_wanted: AtomicBool::new(false),
            wake_maintenance: Arc::default(),
            maintenance: Singleton::default(),
            signals: Arc::default(),
            closed: AtomicBool::new(false),
            connecting: Arc::default(),
            opened: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            dice: AtomicU64::new(0),
            send_wait: Histogram::new(),
            lag: Histogram::new(),
        }
    }

    pub(super) fn is_node(&self) -> bool {
        self.is_node
    }

    /// Room for one command or pipeline that moves `bytes`, at once or not at all.
    pub(super) fn ticket(&self, bytes: usize, access: Access) -> Result<Ticket, Failure> {
        let lanes = self.lanes();
        let is_admitted = |server: &Arc<Server>| server.is_admitted();
        if access == Access::Caller && !lanes.server.as_ref().is_some_and(is_admitted) {
            return Err(Failure::Unavailable);
        }
        let found = match (&lanes.bulk, bytes >= BULK) {
            (Some(bulk), true) if bulk.is_open() && !bulk.is_late() => Some(bulk),
            (_, true) => {
                self.ask_for(&self.bulk_wanted);
                self.least_loaded_of_two(&lanes.data)
            }
            (_, false) => self.first_with_room(&lanes.data, bytes),
        };
        // A bulk connection may be all that is left.
        let found = found.or_else(|| lanes.all().find(|connection| connection.is_open()));
        let ticket = found.ok_or(Failure::Unavailable)?.take(bytes);
        drop(lanes);
        if !self.watched.load(Ordering::SeqCst) && !self.watched.swap(true, Ordering::SeqCst) {
            self.wake_maintenance.notify_one();
        }
        Ok(ticket)
    }

    /// How many commands are under way on the connection that is filled first.
    pub(super) fn commands_ahead(&self) -> usize {
        let lanes = self.lanes();
        lanes
            .data
            .first()
            .map_or(0, |connection| connection.load().commands)
    }

    fn first_with_room<'a>(
        &self,
        open: &'a [Arc<Connection>],
        bytes: usize,
    ) -> Option<&'a Arc<Connection>> {
        let most = BYTES
            .checked_div(bytes)
            .unwrap_or(COMMANDS)
            .clamp(FEW_COMMANDS, COMMANDS);
        let has_room = |connection: &&Arc<Connection>| {
            let Load {
                commands,
                bytes: expected,
            } = connection.load();
            commands < most && expected + bytes <= BYTES && connection.is_open()
        };
        let is_free = |connection: &&Arc<Connection>| has_room(connection) && !connection.is_late();
        let with_room = || open.iter().find(has_room);
        open.iter().find(is_free).or_else(with_room).or_else(|| {
            self.ask_for(&self.crowded);
            self.least_loaded_of_two(open)
        })
    }

    /// Two at random are nearly as good as checking all, and simultaneous callers do not all choose the same one.
    fn least_loaded_of_two<'a>(&self, open: &'a [Arc<Connection>]) -> Option<&'a Arc<Connection>> {
        let count = u64::try_from(open.len()).ok().filter(|count| *count > 0)?;
        let roll = mix(self.dice.fetch_add(1, Ordering::Relaxed));
        let one = &open[(roll % count) as usize];
        let other = &open[((roll >> 32) % count) as usize];
        let weight = |connection: &Arc<Connection>| {
            let Load { commands, bytes } = connection.load();
            (
                !connection.is_open(),
                connection.is_late(),
                bytes.max(commands * (BYTES / COMMANDS)),
            )
        };
        let better = if weight(other) < weight(one) {
            other
        } else {
            one
        };
        if better.is_open() {
            Some(better)
        } else {
            open.iter().find(|connection| connection.is_open())
        }
    }

    fn ask_for(&self, what: &AtomicBool) {
        if !what.load(Ordering::Relaxed) && !what.swap(true, Ordering::Relaxed) {
            self.wake_maintenance.notify_one();
        }
    }

    /// Makes the pool usable if possible: opens a connection if none is open, and sends a ping.
    pub(super) async fn probe(self: &Arc<Self>) -> Result<(), Error> {
        if self.is_closed() {
            return Err(closed());
        }
        if self.ask_all().await.is_ok() {
            self.wake_maintenance.notify_one();
            return Ok(());
        }
        self.open(Lane::Data).await?;
        self.ask_all().await.map_err(|reason| {
            Error::new(
                ErrorKind::Connection,
                "Redis accepts connections but does not answer",
            )
            .because(reason)
        })
    }

    /// Pings all connections at once. One answer is enough, and connections without an answer are lost. After a network
    /// failure most may be dead, and checking them one by one would take one timeout each.
    async fn ask_all(&self) -> Result<(), String> {
        let open: Vec<_> = self
            .lanes()
            .all()
            .filter(|connection| connection.is_open())
            .cloned()
            .collect();
        let pings: Vec<_> = open
            .into_iter()
            .map(|connection| ping(connection, self.limits.answer))
            .collect();
        let mut result = Err("no connection is open".to_owned());
        for ping in pings {
            match ping.await {
                Ok(Ok(())) => result = Ok(()),
                Ok(Err(reason)) if result.is_err() => result = Err(reason),
                _ => {}
            }
        }
        result
    }

    /// Opens one more connection. It counts as under way from this call on, before the first poll.
    /// The future holds the pool only while it has something to do there, so that an attempt that takes long does not keep a
    /// dropped pool alive.
    pub(super) fn open(
        self: &Arc<Self>,
        lane: Lane,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let connecting = Counted::new(&self.connecting);
        let (connector, pool) = (self.connector.clone(), Arc::downgrade(self));
        let limit = self.limits.connect;
        async move {
            let _real_time = hold(limit);
            let opened = connector.open().await?;
            pool.upgrade()
                .ok_or_else(closed)?
                .add(lane, opened, connecting)
        }
    }

    fn add(&self, lane: Lane, opened: Opened, connecting: Counted) -> Result<(), Error> {
        let added = self.change(|lanes| {
            if self.is_closed() {
                return Err(closed());
            }
            let address = opened.address.clone();
            if !self.connector.still_means(&address) {
                let text =
                    format!("{address} stopped being the master while a connection was opened");
                return Err(Error::new(ErrorKind::Connection, text));
            }
            let server = self.server_of(&opened, lanes);
            // A probe and the maintenance task may both have opened the last one there is room for.
            if lanes.open() >= self.limits.max {
                return Ok(None);
            }
            let id = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
            let connection = Connection::start(id, opened, &server, self.wake_maintenance.clone());
            match lane {
                Lane::Data => lanes.data.push(connection),
                Lane::Bulk => lanes.bulk = Some(connection),
            }
            Ok(Some((id, address, lanes.open())))
        });
        let Some((id, address, open)) = added? else {
            return Ok(());
        };
        // Before the maintenance task checks whether one more is missing.
        drop(connecting);
        self.wake_maintenance.notify_one();
        debug!(id, %address, ?lane, open, "opened a connection to Redis");
        Ok(())
    }

    /// Returns the server that a new connection leads to. If it differs from the server of the other connections, or may
    /// have lost data since, those are lost at once: callers must not see two servers.
    fn server_of(&self, opened: &Opened, lanes: &mut Lanes) -> Arc<Server> {
        let is_open = lanes.open() > 0;
        let known = lanes.server.as_ref();
        if let Some(known) = known.filter(|known| opened.identity.is_same(&known.identity, is_open))
        {
            return Arc::clone(known);
        }
        if let Some(policy) = &opened.evicts {
            warn!(
                address = %opened.address,
                policy,
                "Redis evicts keys when its memory is full, and a user whose session is evicted is logged out; set \
                 `maxmemory-policy noeviction`, or keep sessions in a Redis of their own"
            );
        }
        let term = lanes.term() + 1;
        // Callers had no earlier server, so the first one lacks nothing.
        let is_admitted = term == 1 && !self.is_node;
        let server = Arc::new(Server::new(term, opened, is_admitted));
        if let Some(known) = lanes.server.replace(Arc::clone(&server)) {
            let address = &opened.address;
            info!(%address, "Redis is a different server now, or it restarted");
            known.lose_all("Redis is a different server now, or it restarted");
            self.signals.changed.notify_one();
        }
        server
    }

    /// Drops the connections to every server except the one at `address`, at once.
    pub(super) fn follow(&self, address: &Address) {
        self.change(|lanes| {
            if let Some(server) = lanes
                .server
                .as_ref()
                .filter(|server| server.address != *address)
            {
                info!(from = %server.address, to = %address, "the sentinels report another master");
                server.lose_all("the sentinels report another master");
                self.signals.moved.notify_one();
            }
        });
    }

    pub(super) fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    pub(super) fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// Returns the current server, if any was reached.
    pub(super) fn server(&self) -> Option<Arc<Server>> {
        self.lanes().server.clone()
    }

    /// Returns a number that grows whenever connections lead to another server.
    pub(super) fn term(&self) -> u64 {
        self.lanes().term()
    }

    /// Returns the number of the current server, if a connection to `identity` leads to it.
    pub(super) fn term_of(&self, identity: &Identity) -> Option<u64> {
        let lanes = self.lanes();
        let is_open = lanes.open() > 0;
        let server = lanes.server.as_ref()?;
        identity
            .is_same(&server.identity, is_open)
            .then_some(server.term)
    }

    /// Lets callers use the server of `term`. Returns whether it is still the current one.
    pub(super) fn admit(&self, term: u64) -> bool {
        // Under the lock, so nothing changes.
        self.change(|lanes| match &lanes.server {
            Some(server) if server.term == term => {
                server.admit();
                true
            }
            _ => false,
        })
    }

    /// Connections lost since the start.
    pub(super) fn losses(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Returns when the last part of any answer arrived. [`None`] if no connection is open.
    pub(super) fn last_arrival(&self) -> Option<Instant> {
        let lanes = self.lanes();
        let open = lanes.all().filter(|connection| connection.is_open());
        open.map(|connection| connection.last_arrival()).max()
    }

    pub(super) fn is_open(&self) -> bool {
        self.lanes().open() > 0
    }

    /// Returns when a sentinel confirmed last that this is the right server. [`None`] without sentinels.
    pub(super) fn confirmed(&self) -> Option<Instant> {
        self.connector.sentinels().and_then(Sentinels::confirmed)
    }

    /// Removes lost connections, and logs one line for all of them.
    pub(super) fn sweep(&self) {
        if self.lanes().all().all(|connection| connection.is_open()) {
            return;
        }
        let (gone, open) = self.change(|lanes| {
            let mut gone: Vec<_> = lanes
                .data
                .extract_if(.., |connection| !connection.is_open())
                .collect();
            gone.extend(lanes.bulk.take_if(|connection| !connection.is_open()));
            (gone, lanes.open())
        });
        let Some(reason) = gone.first().and_then(|connection| connection.lost()) else {
            return;
        };
        self.lost.fetch_add(gone.len() as u64, Ordering::Relaxed);
        match open {
            // What follows is an outage, which has a line of its own.
            0 => info!(lost = gone.len(), reason, "lost all connections to Redis"),
            _ => warn!(lost = gone.len(), open, reason, "lost connections to Redis"),
        }
        if open == 0 && !self.is_closed() {
            self.signals.changed.notify_one();
        }
    }

    /// Returns the load of all connections: the larger share of commands or bytes under way.
    pub(super) fn utilisation(&self) -> f64 {
        let whole = self.lanes().all().map(|connection| connection.load()).fold(
            Load::default(),
            |sum, load| Load {
                commands: sum.commands + load.commands,
                bytes: sum.bytes + load.bytes,
            },
        );
        let share = |part: usize, each: usize| part as f64 / (self.limits.max * each) as f64;
        share(whole.commands, COMMANDS).max(share(whole.bytes, BYTES))
    }

    pub(super) fn stats(&self) -> PoolStats {
        let sampled = Sampled {
            send_wait: self.send_wait.distribution(),
            lag: self.lag.distribution(),
        };
        let utilisation = self.utilisation();
        let lanes = self.lanes();
        PoolStats {
            open: lanes.open(),
            connecting: self.connecting.load(Ordering::Relaxed),
            max: self.limits.max,
            in_flight: lanes
                .all()
                .map(|connection| connection.load().commands)
                .sum(),
            utilisation,
            opened: self.opened.load(Ordering::Relaxed),
            lost: self.losses(),
            batches: 0,
            batched_reads: 0,
            send_wait: sampled.send_wait.times(),
            lag: sampled.lag.times(),
            sampled,
        }
    }

    /// Closes everything. Operations under way fail.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let lanes = self.change(std::mem::take);
        for connection in lanes.all() {
            connection.lose("the cache was shut down");
        }
        self.wake_maintenance.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.connecting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn lanes(&self) -> arc_swap::Guard<Arc<Lanes>> {
        self.lanes.load()
    }

    /// Changes the lanes, one change after another.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Lanes) -> T) -> T {
        let _one_at_a_time = self.changing.lock();
        let mut lanes = Lanes::clone(&self.lanes.load());
        let result = change(&mut lanes);
        self.lanes.store(Arc::new(lanes));
        result
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The maintenance task finds that the pool is gone.
        self.wake_maintenance.notify_one();
    }
}

/// Pings in a separate task, so a cancelled caller does not leave the ping unanswered.
fn ping(
    connection: Arc<Connection>,
    patience: Duration,
) -> tokio::task::JoinHandle<Result<(), String>> {
    tokio::spawn(async move {
        let _real_time = hold(patience);
        if timeout(patience, connection.ping()).await.is_err() {
            connection.lose("no reply to a ping");
        }
        connection
            .lost()
            .map_or(Ok(()), |reason| Err(reason.to_owned()))
    })
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the cache was shut down")
}

/// Counts while it exists, so a cancelled attempt is not counted forever.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Splitmix64: an even spread from a counter, without a generator to share.
fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests;
