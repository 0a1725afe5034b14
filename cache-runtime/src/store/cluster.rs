//! A Redis Cluster: sends each command to the node that owns the slot of its key.
//!
//! ```text
//! command ─► slot ─► node ─► its breaker ─► its connections ──answer────► caller
//!                     ▲                                      └─redirect─► the other node (`detour.rs`)
//!                     └── the table of slots, which a background task keeps (`keeper.rs`)
//! ```
//!
//! Each primary has its own connections, breaker and state (`node.rs`). While a node is unavailable, the keys of its slots are
//! unavailable, and no others.

mod detour;
mod keeper;
mod node;
mod tour;
mod tracking;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::{Arg, Cmd, Pipeline, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::detour::Detour;
pub(super) use self::detour::Errand;
use self::node::Node;
pub(super) use self::tour::Tour;
use super::connection::Server;
use super::listener::Tracking;
use super::peer;
use super::pool::Access;
use super::reach::Reach;
use super::reply::Failure;
use super::slots::{Answer, NodeId, Places, Slot, Table, ranges};
use super::{BoxFuture, Found, Moves, NodeHealth, ServerInfo, Signals};
use crate::config::{Address, Config, Topology};
use crate::entry::STAMP_TEXT;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::metrics::PoolStats;
use crate::singleton::Singleton;
use crate::sync::Mutex;
use crate::tag::Tag;

const NO_OWNER: Failure = Failure::Away("no node owns the slot");

const DOWN: &str = "the cluster is down (`CLUSTERDOWN`), so its nodes refuse keys; with `cluster-require-full-coverage yes` all nodes refuse all keys while some slots have no node";

/// The owner of a slot that no node owns.
const NOBODY: u16 = u16::MAX;

/// The nodes of a cluster, and which of them owns a slot.
pub(super) struct Cluster {
    /// For the nodes, which differ only in their address.
    config: Config,
    seeds: Vec<Address>,
    places: Places,
    this: Weak<Self>,
    /// Read by every command, so without a lock.
    map: ArcSwap<Map>,
    /// Held while the map or the state of a node is changed.
    known: Mutex<Known>,
    term: AtomicU64,
    /// Counts the events after which a part that was out of reach may be reached.
    reopened: watch::Sender<u64>,
    alarm: Arc<Alarm>,
    keeper: Singleton,
    moves: OnceLock<Weak<dyn Moves>>,
    /// What the listeners of the nodes tell, if there is something to listen for.
    tracking: OnceLock<Tracking>,
    /// Held by the only refresh of the table.
    refreshing: tokio::sync::Mutex<()>,
    /// Whether a node was asked for what the log says once.
    was_asked: AtomicBool,
    is_closed: AtomicBool,
}

/// What is known of the cluster.
#[derive(Default)]
struct Known {
    table: Arc<Table>,
    /// The latest report of each node that has nothing new for the table.
    settled: BTreeMap<NodeId, Answer>,
    /// When a node reported the table last.
    confirmed: Option<Instant>,
    /// The primaries that refuse keys because they see the cluster as down.
    down: BTreeSet<NodeId>,
    /// Whether callers have used any node.
    is_used: bool,
    /// Slots that moved between nodes that callers use. Callers do not use them until `moves` was told.
    moving: BTreeSet<Slot>,
    /// The losses of nodes that are not in the map any more.
    former_losses: u64,
}

impl Known {
    /// Adds the report of a node to the table. Returns whether the table changed.
    ///
    /// Nearly all reports say what is known, and each scan of the keyspace asks all nodes. So a report that a node repeats is not
    /// looked at slot by slot.
    fn learn(&mut self, answer: Answer) -> bool {
        if self.settled.get(&answer.reporter) == Some(&answer) {
            return false;
        }
        let mut table = Table::clone(&self.table);
        table.learn(answer.clone());
        if table == *self.table {
            self.settled.insert(answer.reporter, answer);
            return false;
        }
        self.table = Arc::new(table);
        self.settled.clear();
        true
    }

    /// Records that `by` answered `MOVED`, like [`Table::moved`].
    fn moved(&mut self, slot: Slot, by: NodeId, to: &Address) -> bool {
        let is_moved = Arc::make_mut(&mut self.table).moved(slot, by, to);
        if is_moved {
            self.settled.clear();
        }
        is_moved
    }
}

/// Wakes those who see to a change.
#[derive(Debug, Default)]
struct Alarm {
    /// For the task that keeps the table.
    table: Notify,
    signals: Arc<Signals>,
}

/// The primaries, in the order of their ids, and the owners of the slots by their place among them.
struct Map {
    nodes: Vec<Arc<Node>>,
    owners: Box<[u16]>,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            owners: vec![NOBODY; Slot::COUNT].into(),
        }
    }
}

impl Map {
    fn owner(&self, slot: Slot) -> Option<&Arc<Node>> {
        self.nodes.get(usize::from(*self.owners.get(slot.index())?))
    }

    fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.id == id)
    }

    fn at(&self, address: &Address) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.address == *address)
    }

    fn is_any_usable(&self) -> bool {
        self.nodes.iter().any(|node| node.is_usable())
    }
}

impl Cluster {
    /// Opens nothing yet.
    pub(super) fn new(config: &Config) -> Result<Arc<Self>, Error> {
        let seeds = match &config.redis {
            Some(Topology::Cluster { nodes }) => nodes.clone(),
            _ => Vec::new(),
        };
        if seeds.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "no node of the cluster is configured; use `redis+cluster://host:port`",
            ));
        }
        let places = Places::new(config.cluster_map.iter().cloned());
        Ok(Arc::new_cyclic(|this| Self {
            config: config.clone(),
            seeds,
            places,
            this: Weak::clone(this),
            map: ArcSwap::default(),
            known: Mutex::default(),
            term: AtomicU64::new(0),
            reopened: watch::Sender::new(0),
            alarm: Arc::default(),
            keeper: Singleton::default(),
            moves: OnceLock::new(),
            tracking: OnceLock::new(),
            refreshing: tokio::sync::Mutex::default(),
            was_asked: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        }))
    }

    /// Reads an entry and the records of tags, which may be at several nodes.
    pub(super) async fn lookup(
        &self,
        key: &Key,
        tags: &[Tag],
        expected: usize,
        access: Access,
    ) -> Result<Found, Failure> {
        let node = self.owner_of(key)?;
        let is_here = |tag: &Tag| {
            let owner = self.owner_of(tag.key());
            owner.is_ok_and(|other| Arc::ptr_eq(&node, &other))
        };
        if tags.iter().all(is_here) {
            let found = node.peer(access).lookup(key, tags, expected);
            match node.within(access, Instant::now(), found).await {
                Err(Failure::Refused(error)) if self.detour(&error, &node).is_some() => {}
                found => return found,
            }
        }
        let bytes = expected + tags.len() * STAMP_TEXT;
        let each = peer::get_each(key, tags);
        let answers = self.ask_each(&each, bytes, access).await;
        peer::found(answers.into_iter().collect::<Result<_, _>>()?, tags.len())
    }

    /// Returns the node that owns a slot.
    fn owner(&self, slot: Slot) -> Result<Arc<Node>, Failure> {
        self.map.load().owner(slot).cloned().ok_or(NO_OWNER)
    }

    /// Returns the node that owns the slot of a key.
    fn owner_of(&self, key: &Key) -> Result<Arc<Node>, Failure> {
        self.owner(Slot::of(key.as_str().as_bytes()))
    }

    /// Returns the server of a key, if any was reached.
    pub(super) fn server_of(&self, key: &Key) -> Option<Arc<Server>> {
        let node = self.owner_of(key).ok()?;
        node.peer(Access::Caller).pool.server()
    }

    /// Sends a command to the node of its key.
    pub(super) fn ask<'a>(&'a self, errand: Errand<'a>) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move {
            let began = Instant::now();
            let node = self.owner(slot_of(errand.command))?;
            let answer = errand.at(&node, began).await;
            match &answer {
                Err(Failure::Refused(error)) => match self.detour(error, &node) {
                    Some(detour) => Box::pin(self.follow(errand, node, detour, began)).await,
                    None => answer,
                },
                _ => answer,
            }
        })
    }

    /// Sends commands to the nodes of their keys, each node at the same time. An answer may be an error of the server.
    pub(super) async fn ask_each(
        &self,
        commands: &Pipeline,
        bytes: usize,
        access: Access,
    ) -> Vec<Result<Value, Failure>> {
        let began = Instant::now();
        let map = self.map.load_full();
        let mut answers = vec![Err(NO_OWNER); commands.len()];
        let mut parts: BTreeMap<NodeId, (&Arc<Node>, Pipeline, Vec<usize>)> = BTreeMap::new();
        for (place, command) in commands.cmd_iter().enumerate() {
            if let Some(node) = map.owner(slot_of(command)) {
                let new = || (node, Pipeline::new(), Vec::new());
                let (_, part, places) = parts.entry(node.id).or_insert_with(new);
                part.add_command(command.clone());
                places.push(place);
            }
        }
        let sent = parts.into_values().map(|(node, part, places)| async move {
            let share = bytes * part.len() / commands.len();
            let asked = node.peer(access).ask_all(&part, share);
            (node, places, node.within(access, began, asked).await)
        });
        let mut detours = Vec::new();
        for (node, places, part) in join_all(sent).await {
            let values = match part {
                Ok(values) => values,
                Err(failure) => {
                    for place in places {
                        answers[place] = Err(failure.clone());
                    }
                    continue;
                }
            };
            for (place, value) in places.into_iter().zip(values) {
                if let Value::ServerError(error) = &value
                    && let Some(detour) = self.detour(error, node)
                {
                    detours.push((place, Arc::clone(node), detour));
                }
                answers[place] = Ok(value);
            }
        }
        if !detours.is_empty() {
            self.follow_each(commands, detours, access, began, &mut answers)
                .await;
        }
        answers
    }

    /// Sends those commands of a batch that were redirected, each alone.
    async fn follow_each(
        &self,
        commands: &Pipeline,
        detours: Vec<(usize, Arc<Node>, Detour)>,
        access: Access,
        began: Instant,
        answers: &mut [Result<Value, Failure>],
    ) {
        let commands: Vec<_> = commands.cmd_iter().collect();
        let followed = detours.into_iter().map(|(place, node, detour)| {
            let errand = Errand::new(commands[place], 0, access);
            async move { (place, self.follow(errand, node, detour, began).await) }
        });
        for (place, answer) in join_all(followed).await {
            answers[place] = match answer {
                Err(Failure::Refused(error)) => Ok(Value::ServerError(error)),
                answer => answer,
            };
        }
    }

    pub(super) fn signals(&self) -> &Arc<Signals> {
        &self.alarm.signals
    }

    /// Returns a number that grows whenever a node may lack what was acknowledged.
    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// Returns a number that grows whenever a part that was out of reach may be reached.
    pub(super) fn reopened(&self) -> u64 {
        *self.reopened.borrow()
    }

    /// Lets callers use the nodes that answer. Returns whether `term` is still the current one.
    pub(super) fn admit(&self, term: u64) -> bool {
        let mut known = self.known.lock();
        if self.term() != term {
            return false;
        }
        for node in &self.map.load().nodes {
            if node.admit() {
                known.is_used = true;
            }
        }
        true
    }

    /// Returns when a node reported the table last.
    pub(super) fn confirmed(&self) -> Option<Instant> {
        self.known.lock().confirmed
    }

    pub(super) fn last_arrival(&self) -> Option<Instant> {
        let map = self.map.load();
        map.nodes
            .iter()
            .filter_map(|node| node.pool.last_arrival())
            .max()
    }

    /// Returns whether any node answers.
    pub(super) fn is_open(&self) -> bool {
        self.map.load().is_any_usable()
    }

    pub(super) fn losses(&self) -> u64 {
        let known = self.known.lock();
        let map = self.map.load();
        let losses = map.nodes.iter().map(|node| node.pool.losses());
        known.former_losses + losses.sum::<u64>()
    }

    /// The connections of all nodes together.
    pub(super) fn stats(&self) -> PoolStats {
        let map = self.map.load();
        let nodes = map.nodes.iter().map(|node| node.stats());
        let sum = nodes.fold(PoolStats::default(), PoolStats::plus);
        PoolStats {
            lost: self.losses(),
            ..sum
        }
    }

    /// The primaries, in the order of their addresses.
    pub(super) fn health(&self) -> Vec<NodeHealth> {
        let mut health: Vec<_> = self
            .map
            .load()
            .nodes
            .iter()
            .map(|node| node.health())
            .collect();
        health.sort_by(|one, other| one.address.cmp(&other.address));
        health
    }

    /// What does not work although the nodes are healthy, a sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let is_down = !self.known.lock().down.is_empty();
        let map = self.map.load();
        let is_served = |slot: &Slot| map.owner(*slot).is_some_and(|owner| owner.is_usable());
        let uncovered = ranges(Slot::all().filter(|slot| !is_served(slot)));
        let is_covered = uncovered.is_empty() || map.nodes.is_empty();
        let uncovered = (!is_covered).then(|| format!("no node serves the slots {uncovered}"));
        let down = is_down.then(|| DOWN.to_owned());
        down.into_iter().chain(uncovered).collect()
    }

    /// Returns what the nodes report about themselves, as one server: sums, and the latest start. There is no run id.
    pub(super) async fn info(&self, access: Access) -> Result<ServerInfo, Failure> {
        let map = self.map.load_full();
        let began = Instant::now();
        let asked = map.nodes.iter().map(|node| {
            let info = node.peer(access).info();
            node.within(access, began, info)
        });
        let mut whole = Err(Failure::Unavailable);
        for info in join_all(asked).await {
            whole = match (whole, info) {
                (Ok(whole), Ok(info)) => Ok(ServerInfo::plus(whole, info)),
                (Ok(whole), Err(_)) => Ok(whole),
                (Err(_), info) => info,
            };
        }
        Ok(ServerInfo {
            run_id: String::new(),
            ..whole?
        })
    }

    /// Closes everything. Operations under way fail.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        for node in &self.map.load().nodes {
            node.pool.close();
        }
        self.alarm.table.notify_one();
    }

    /// Records that `node` answers: it is used by callers once the recovery admits it. If its server is another one, what its slots may
    /// lack is owed before that.
    fn node_answers(&self, node: &Node) {
        let lacking = {
            let known = self.known.lock();
            let is_new = node.adopt_server();
            if is_new && let Some(feed) = node.feed.get() {
                feed.lost_track();
            }
            (is_new && known.is_used).then(|| Reach::of(known.table.slots_of(node.id)))
        };
        if let Some(part) = &lacking {
            self.owe(part);
        }
        {
            let _unchanged = self.known.lock();
            node.answers();
            if lacking.is_some() || self.term() == 0 {
                self.term.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.reopen();
    }

    /// What was out of reach may be reached now.
    fn reopen(&self) {
        self.reopened.send_modify(|count| *count += 1);
        self.alarm.signals.changed.notify_one();
        self.alarm.signals.moved.notify_one();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("nodes", &self.map.load().nodes)
            .finish_non_exhaustive()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The tasks find that the cluster is gone.
        self.alarm.table.notify_one();
    }
}

/// Returns the slot of the key of a command. The key is the first argument, and of a script the first after their number.
fn slot_of(command: &Cmd) -> Slot {
    let mut arguments = command.args_iter();
    let place = match arguments.next() {
        Some(Arg::Simple(b"EVAL" | b"EVALSHA")) => 2,
        _ => 0,
    };
    match arguments.nth(place) {
        Some(Arg::Simple(key)) => Slot::of(key),
        _ => Slot::of(b""),
    }
}

#[cfg(test)]
mod tests;
