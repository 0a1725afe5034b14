//! A Redis Cluster for one test.

mod migration;
mod shared;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Error, ErrorKind};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub use self::migration::Migration;
use self::view::View;
use super::percent_encoded;
use super::server::{RedisServer, free_port};
use crate::config::{Address, Config, Secret, Topology};
use crate::sync::Mutex;

/// What the nodes are at the start: the first ones are primaries, and each of the others is the replica of one of them.
const PRIMARIES: usize = 3;
const NODES: usize = 6;
const SLOTS: usize = 16_384;

/// A start takes 3 s, and a failover less. On a busy machine both can take longer.
const LIMIT: Duration = Duration::from_secs(30);

/// After this time, something does not go as usual.
const USUAL: Duration = Duration::from_secs(8);

const POLL: Duration = Duration::from_millis(20);

/// Another process can take a free port before the server does.
const PORT_ATTEMPTS: u32 = 5;

/// A Redis Cluster of three primaries and three replicas for one test. All of them are real processes on free ports of 127.0.0.1.
/// They end when this is dropped.
///
/// The nodes have the numbers 0 to 5. At the start, nodes 0, 1 and 2 are primaries, and nodes 3, 4 and 5 are their replicas. A
/// failover changes that: [`primaries`](Self::primaries), [`owner`](Self::owner) and [`replica_of`](Self::replica_of) return the
/// present state.
///
/// ```
/// use cache_runtime::testing::{Cluster, Failover};
///
/// # fn main() -> std::io::Result<()> {
/// let mut cluster = Cluster::start()?;
/// let slot = cluster.slot("user:42")?;
/// let owner = cluster.owner(slot)?;
/// let replica = cluster.replica_of(owner)?;
///
/// cluster.failover(replica, Failover::Plain)?;
/// assert_eq!(cluster.owner(slot)?, replica);
///
/// let other = (owner + 1) % 3;                // another primary
/// cluster.reshard(slot..=slot, other)?;       // moves the slot with its keys
/// assert_eq!(cluster.owner(slot)?, other);
///
/// cluster.kill(other);                        // its replica takes over
/// cluster.settle()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the servers end when this is dropped"]
pub struct Cluster {
    nodes: Vec<Node>,
    /// How long a node counts the votes of an election.
    election: Duration,
}

/// The options of a [`Cluster`].
///
/// ```no_run
/// use cache_runtime::Cache;
/// use cache_runtime::testing::Cluster;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = Cluster::builder().password("secret").full_coverage().start()?;
/// let cache = Cache::connect(cluster.config()).await?;
/// assert!(cache.set("stock:7", &12, 60).await);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct ClusterBuilder {
    full_coverage: bool,
    node_timeout: Duration,
    password: Option<String>,
    arguments: Vec<String>,
}

/// How a replica takes the place of its primary (`CLUSTER FAILOVER`).
///
/// See [`Cluster`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// The primary stops accepting writes until the replica has all of them, so none is lost.
    Plain,
    /// The replica does not wait for the primary, which may be dead. The other primaries vote.
    Force,
    /// The replica asks nobody.
    Takeover,
}

struct Node {
    server: RedisServer,
    id: String,
    bus: u16,
    is_paused: AtomicBool,
    /// When a failover promoted it.
    promoted: Mutex<Option<Instant>>,
    wire: Mutex<Option<redis::Connection>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            id,
            bus,
            is_paused,
            promoted,
            wire: _,
        } = self;
        f.debug_struct("Node")
            .field("server", server)
            .field("id", id)
            .field("bus", bus)
            .field("is_paused", is_paused)
            .field("promoted", promoted)
            .finish_non_exhaustive()
    }
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            full_coverage: false,
            // Long enough for a busy machine, and short enough for a test.
            node_timeout: Duration::from_secs(1),
            password: None,
            arguments: Vec::new(),
        }
    }
}

impl ClusterBuilder {
    /// Makes all nodes refuse all keys while some slots have no node (`cluster-require-full-coverage yes`, the default of Redis).
    /// Otherwise only keys of those slots are refused.
    pub fn full_coverage(mut self) -> Self {
        self.full_coverage = true;
        self
    }

    /// Sets for how long a node may be silent before the others replace it (`cluster-node-timeout`). The default is 1 s.
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.node_timeout = timeout;
        self
    }

    /// Sets the password of the default user, on all nodes.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Adds arguments to the command line of all nodes, such as `["--cluster-preferred-endpoint-type", "unknown-endpoint"]`.
    pub fn args<I: IntoIterator<Item: Into<String>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts all nodes, and waits until the cluster serves all slots and each primary has a replica. This takes about 3 s.
    ///
    /// # Errors
    ///
    /// If a node does not start, or if the nodes do not form a cluster in time.
    pub fn start(self) -> io::Result<Cluster> {
        let nodes = (0..NODES).map(|_| self.node()).collect::<io::Result<_>>()?;
        let cluster = Cluster {
            nodes,
            election: (2 * self.node_timeout).max(Duration::from_secs(2)),
        };
        cluster.form()?;
        Ok(cluster)
    }

    fn node(&self) -> io::Result<Node> {
        let mut attempt = 1;
        loop {
            match self.try_node() {
                Err(error) if error.kind() == ErrorKind::AddrInUse && attempt < PORT_ATTEMPTS => {
                    attempt += 1;
                }
                node => return node,
            }
        }
    }

    fn try_node(&self) -> io::Result<Node> {
        let Self {
            full_coverage,
            node_timeout,
            password,
            arguments,
        } = self;
        let bus = free_port()?;
        let yes_or_no = |is_on| if is_on { "yes" } else { "no" };
        let options = [
            ("--cluster-enabled", "yes".to_owned()),
            ("--cluster-port", bus.to_string()),
            (
                "--cluster-node-timeout",
                node_timeout.as_millis().to_string(),
            ),
            (
                "--cluster-require-full-coverage",
                yes_or_no(*full_coverage).to_owned(),
            ),
            // A primary that has lost all slots stays a primary, so that a test can move them back.
            ("--cluster-allow-replica-migration", "no".to_owned()),
            // A replica would otherwise wait 5 s for other replicas before it copies its primary.
            ("--repl-diskless-sync-delay", "0".to_owned()),
        ];
        let options = options
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        let mut builder = RedisServer::builder().tcp().args(options);
        if let Some(password) = password {
            builder = builder
                .password(password)
                .args(["--masterauth", password.as_str()]);
        }
        let mut node = Node {
            server: builder.args(arguments.iter().cloned()).start()?,
            id: String::new(),
            bus,
            is_paused: AtomicBool::new(false),
            promoted: Mutex::default(),
            wire: Mutex::default(),
        };
        node.id = node.ask(&["CLUSTER", "MYID"])?;
        Ok(node)
    }
}

impl Cluster {
    /// Starts a cluster that serves the slots that have a node (`cluster-require-full-coverage no`).
    ///
    /// # Errors
    ///
    /// The same as [`ClusterBuilder::start`].
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// Returns a builder, for a cluster with a password, arguments, or full coverage.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// Returns `redis+cluster://…` with the first three nodes and the password.
    pub fn url(&self) -> String {
        let password = self.nodes[0].server.endpoint().password.as_deref();
        let password = password.map_or_else(String::new, |password| {
            format!(":{}@", percent_encoded(password))
        });
        let hosts: Vec<_> = self.nodes[..PRIMARIES]
            .iter()
            .map(|node| node.server.address().to_string())
            .collect();
        format!("redis+cluster://{password}{}", hosts.join(","))
    }

    /// Returns the default configuration with the prefix `test_` and the first three nodes.
    pub fn config(&self) -> Config {
        let nodes = &self.nodes[..PRIMARIES];
        let password = nodes[0].server.endpoint().password.as_deref();
        Config {
            prefix: "test_".into(),
            redis: Some(Topology::Cluster {
                nodes: nodes
                    .iter()
                    .map(|node| node.server.address().clone())
                    .collect(),
            }),
            password: password.map(Secret::from),
            ..Config::default()
        }
    }

    /// Returns the number of nodes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a cluster without nodes cannot be built"
    )]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns a node as a server of its own, for its address.
    ///
    /// # Panics
    ///
    /// If there is no such node. The same holds for all other methods.
    pub fn server(&self, node: usize) -> &RedisServer {
        &self.nodes[node].server
    }

    /// Returns the address of a node.
    pub fn address(&self, node: usize) -> &Address {
        self.nodes[node].server.address()
    }

    /// Returns the id of a node: 40 hexadecimal digits.
    pub fn id(&self, node: usize) -> &str {
        &self.nodes[node].id
    }

    /// Returns the slot of a key (`CLUSTER KEYSLOT`).
    ///
    /// # Errors
    ///
    /// If no node answers.
    pub fn slot(&self, key: &str) -> io::Result<u16> {
        let mut last = None;
        for (_, node) in self.running() {
            match node.ask(&["CLUSTER", "KEYSLOT", key]) {
                Ok(slot) => return Ok(slot),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(nobody))
    }

    /// Returns the nodes that own slots, as the running nodes see it.
    ///
    /// # Errors
    ///
    /// If no node answers.
    pub fn primaries(&self) -> io::Result<Vec<usize>> {
        let view = self.view()?;
        let owners = |node: &usize| view.owns_slots(self.id(*node));
        Ok((0..self.nodes.len()).filter(owners).collect())
    }

    /// Returns the node that owns a slot, as the running nodes see it.
    ///
    /// # Errors
    ///
    /// If no node answers, or if the slot has no owner.
    pub fn owner(&self, slot: u16) -> io::Result<usize> {
        let view = self.view()?;
        let owner = view.owner(slot).and_then(|id| self.number(id));
        owner.ok_or_else(|| nobody_owns(slot))
    }

    /// Returns a running replica of a node.
    ///
    /// # Errors
    ///
    /// If it has none.
    pub fn replica_of(&self, primary: usize) -> io::Result<usize> {
        let view = self.view()?;
        let of = self.id(primary);
        let mut running = self.running();
        running
            .find(|(_, node)| view.primary_of(&node.id) == Some(of))
            .map(|(number, _)| number)
            .ok_or_else(|| Error::other(format!("node {primary} has no running replica")))
    }

    /// Kills a node like a crash (SIGKILL). If it is a primary, its replica takes over later than the node timeout. If that replica
    /// was promoted less than two node timeouts ago, this first waits for the end of that time.
    pub fn kill(&mut self, node: usize) {
        self.wait_for_replicas_of(node);
        let node = &mut self.nodes[node];
        node.server.kill();
        *node.wire.lock() = None;
        node.is_paused.store(false, Ordering::SeqCst);
    }

    /// Restarts a node at the same address and with the same id, and kills it first if it still runs. It has no keys until it has
    /// copied them from a primary.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn restart(&mut self, node: usize) -> io::Result<()> {
        self.kill(node);
        self.nodes[node].server.restart()
    }

    /// Freezes a node (SIGSTOP). The system still accepts connections, but the node does not answer. Like [`kill`](Self::kill), it may
    /// first wait for a replica that was promoted.
    ///
    /// # Errors
    ///
    /// If the node is not running.
    pub fn pause(&self, node: usize) -> io::Result<()> {
        self.wait_for_replicas_of(node);
        let node = &self.nodes[node];
        node.server.stop()?;
        node.is_paused.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Resumes a frozen node (SIGCONT). It then handles everything that was sent while it was frozen.
    ///
    /// # Errors
    ///
    /// If the node is not running.
    pub fn resume(&self, node: usize) -> io::Result<()> {
        let node = &self.nodes[node];
        node.server.resume()?;
        node.is_paused.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Promotes a replica, and waits until all running nodes know it. If the same node was promoted less than two node timeouts ago,
    /// it first waits for the end of that time.
    ///
    /// # Errors
    ///
    /// If the node refuses, for example because it is a primary, or if it is not promoted in time.
    pub fn failover(&self, replica: usize, how: Failover) -> io::Result<()> {
        let command: &[&str] = match how {
            Failover::Plain => &["CLUSTER", "FAILOVER"],
            Failover::Force => &["CLUSTER", "FAILOVER", "FORCE"],
            Failover::Takeover => &["CLUSTER", "FAILOVER", "TAKEOVER"],
        };
        let node = &self.nodes[replica];
        let is_primary = || node.view().is_ok_and(|view| view.owns_slots(&node.id));
        let was_primary = is_primary();
        // A primary refuses. The replica of a silent primary can be promoted at any time, without this command.
        let ask = || match node.ask::<()>(command) {
            Err(_) if !was_primary && is_primary() => Ok(()),
            answer => answer,
        };
        self.wait_for_election_of(node);
        ask()?;
        let mut asked = Instant::now();
        self.wait("a replica is promoted", |cluster| {
            let promoted = is_primary();
            // A node gives up after 5 s, for example if an election has no majority.
            if !promoted && asked.elapsed() > Duration::from_secs(6) {
                ask()?;
                asked = Instant::now();
            }
            Ok(promoted && cluster.are_agreed()?)
        })?;
        *node.promoted.lock() = Some(Instant::now());
        Ok(())
    }

    /// Waits until all running nodes report `cluster_state:ok` and the same owners and roles, all owners run, and all running
    /// replicas follow a running primary. Nodes that were killed or paused are not asked.
    ///
    /// # Errors
    ///
    /// If this does not happen in time.
    pub fn settle(&self) -> io::Result<()> {
        self.wait("the cluster settles", |cluster| {
            Ok(cluster.are_agreed()? && cluster.are_ok())
        })
    }

    /// Moves slots with their keys, some at a time, to another node. Slots that this node owns already are skipped.
    ///
    /// # Errors
    ///
    /// If a node does not answer or refuses. Some slots then stay open, as after a `redis-cli --cluster reshard` that was ended.
    pub fn reshard(&self, slots: RangeInclusive<u16>, to: usize) -> io::Result<()> {
        let view = self.view()?;
        let mut moving: BTreeMap<usize, Vec<u16>> = BTreeMap::new();
        for slot in slots {
            let owner = view.owner(slot).and_then(|id| self.number(id));
            let from = owner.ok_or_else(|| nobody_owns(slot))?;
            if from != to {
                moving.entry(from).or_default().push(slot);
            }
        }
        for (from, slots) in moving {
            self.move_slots(&slots, from, to)?;
        }
        self.wait("all nodes know the new owners", Self::are_agreed)
    }

    /// Makes the started nodes one cluster.
    fn form(&self) -> io::Result<()> {
        for (number, node) in self.nodes[..PRIMARIES].iter().enumerate() {
            let first = SLOTS * number / PRIMARIES;
            let last = SLOTS * (number + 1) / PRIMARIES - 1;
            let range = [first.to_string(), last.to_string()];
            node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]])?;
            // Nodes with the same epoch would have to change it first.
            let epoch = (number + 1).to_string();
            node.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])?;
        }
        // Each node meets each other, because gossip alone takes longer.
        for (number, node) in self.nodes.iter().enumerate() {
            for other in &self.nodes[number + 1..] {
                let Address::Tcp(host, port) = other.server.address() else {
                    return Err(Error::other("the node of a cluster listens on a port"));
                };
                let [port, bus] = [port.to_string(), other.bus.to_string()];
                node.ask::<()>(&["CLUSTER", "MEET", host, &port, &bus])?;
            }
        }
        self.wait("the nodes know each other", |cluster| {
            let mut nodes = cluster.nodes.iter();
            Ok(nodes.all(|node| node.view().is_ok_and(|view| view.known() == NODES)))
        })?;
        for (replica, primary) in self.nodes[PRIMARIES..].iter().zip(&self.nodes) {
            replica.ask::<()>(&["CLUSTER", "REPLICATE", &primary.id])?;
        }
        self.settle()
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.is_running())
    }

    fn number(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// What the first running node sees that answers.
    fn view(&self) -> io::Result<View> {
        let mut last = None;
        for (_, node) in self.running() {
            match node.view() {
                Ok(view) => return Ok(view),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(nobody))
    }

    /// Returns whether all running nodes see the same owners of all slots, and the same roles of all running nodes.
    fn are_agreed(&self) -> io::Result<bool> {
        let view = self.view()?;
        let ids: Vec<_> = self.running().map(|(_, node)| node.id.as_str()).collect();
        Ok(self.running().all(|(_, node)| {
            node.view()
                .is_ok_and(|other| other.agrees_with(&view, &ids))
        }))
    }

    fn are_ok(&self) -> bool {
        let Ok(view) = self.view() else { return false };
        let is_running = |id: &str| {
            self.number(id)
                .is_some_and(|number| self.nodes[number].is_running())
        };
        view.owners().all(|owner| owner.is_some_and(is_running))
            && self.running().all(|(_, node)| node.is_ok(&is_running))
    }

    /// What each running node sees, for a person who must find out why the nodes do not do what they should.
    fn seen(&self) -> String {
        let running = self.running();
        let seen = running.map(|(number, node)| {
            let answer = |command: &[&str]| {
                let answer: io::Result<String> = node.ask(command);
                answer.unwrap_or_else(|error| format!("{error}\n"))
            };
            let (nodes, info) = (
                answer(&["CLUSTER", "NODES"]),
                answer(&["INFO", "replication"]),
            );
            format!("node {number}:\n{nodes}{info}")
        });
        seen.collect()
    }

    /// Waits for the end of the last election of a node. In a new one Redis would count the same votes, and the node would be promoted
    /// with an epoch that the others do not accept.
    fn wait_for_election_of(&self, node: &Node) {
        if let Some(promoted) = *node.promoted.lock() {
            thread::sleep(self.election.saturating_sub(promoted.elapsed()));
        }
    }

    /// The same for the replicas of a node, which the others elect when it is silent.
    fn wait_for_replicas_of(&self, primary: usize) {
        let Ok(view) = self.view() else { return };
        let of = self.id(primary);
        for (_, node) in self.running() {
            if view.primary_of(&node.id) == Some(of) {
                self.wait_for_election_of(node);
            }
        }
    }

    /// Gives slots to nodes that all others take for their owners, and that do not know it. Redis leaves a slot like that now and then
    /// when a primary is replaced soon after the slot was moved to it, and does not correct it. `redis-cli --cluster fix` does.
    fn fix_slots(&self) -> io::Result<()> {
        let running: Vec<_> = self.running().collect();
        let views = running.iter().map(|(_, node)| node.view());
        let views = views.collect::<io::Result<Vec<_>>>()?;
        let others = views.len().saturating_sub(1);
        for ((_, node), own) in running.iter().zip(&views) {
            let unowned = (0_u16..)
                .zip(own.owners())
                .filter(|(_, owner)| owner.is_none());
            for (slot, _) in unowned {
                let names_it = |view: &&View| view.owner(slot) == Some(&node.id);
                let naming = views.iter().filter(names_it).count();
                if naming > 0 && naming == others {
                    node.ask::<()>(&["CLUSTER", "ADDSLOTS", &slot.to_string()])?;
                }
            }
        }
        Ok(())
    }

    fn wait(&self, what: &str, mut holds: impl FnMut(&Self) -> io::Result<bool>) -> io::Result<()> {
        let began = Instant::now();
        let mut is_fixed = false;
        while !holds(self)? {
            if began.elapsed() > USUAL && !is_fixed {
                self.fix_slots()?;
                is_fixed = true;
            }
            if began.elapsed() > LIMIT {
                let seen = self.seen();
                return Err(Error::other(format!(
                    "not within {LIMIT:?}: {what}\n{seen}"
                )));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Node {
    fn is_running(&self) -> bool {
        self.server.is_running() && !self.is_paused.load(Ordering::SeqCst)
    }

    fn view(&self) -> io::Result<View> {
        let text: String = self.ask(&["CLUSTER", "NODES"])?;
        View::parse(&text)
    }

    /// Returns whether the node serves and, if it is a replica, follows a running primary.
    fn is_ok(&self, is_running: &impl Fn(&str) -> bool) -> bool {
        let says = |command: &[&str], line: &str| {
            let answer: io::Result<String> = self.ask(command);
            answer.is_ok_and(|answer| answer.lines().any(|other| other == line))
        };
        says(&["CLUSTER", "INFO"], "cluster_state:ok")
            && self
                .view()
                .is_ok_and(|view| match view.primary_of(&self.id) {
                    None => true,
                    Some(primary) => {
                        is_running(primary)
                            && says(&["INFO", "replication"], "master_link_status:up")
                    }
                })
    }

    fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> io::Result<T> {
        self.send(redis::cmd(command[0]).arg(&command[1..]))
    }

    /// Sends commands together. A node that saves its table of slots after a command saves it once for all of them.
    fn send_all(&self, commands: &redis::Pipeline) -> io::Result<()> {
        self.on_wire(|open| commands.exec(open))
    }

    fn send<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> io::Result<T> {
        self.on_wire(|open| command.query(open))
    }

    /// Uses a connection that stays open.
    fn on_wire<T>(
        &self,
        run: impl FnOnce(&mut redis::Connection) -> redis::RedisResult<T>,
    ) -> io::Result<T> {
        let mut wire = self.wire.lock();
        let mut open = match wire.take() {
            Some(open) => open,
            None => self.server.connection().map_err(Error::other)?,
        };
        let answer = run(&mut open);
        if !matches!(&answer, Err(error) if error.is_io_error()) {
            *wire = Some(open);
        }
        answer.map_err(Error::other)
    }
}

fn nobody_owns(slot: u16) -> Error {
    Error::other(format!("no node of this cluster owns slot {slot}"))
}

fn nobody() -> Error {
    Error::other("no node of the cluster is running")
}

#[cfg(test)]
mod tests;
