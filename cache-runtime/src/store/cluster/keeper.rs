//! Keeps the table of slots: one background task asks the nodes, and no caller waits for it.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use redis::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::node::State;
use super::{Cluster, DOWN, Known, Map, NOBODY, Node};
use crate::clock::hold;
use crate::config::{Address, Tls};
use crate::error::{Error, ErrorKind};
use crate::store::Moves;
use crate::store::pool::Access;
use crate::store::reach::Reach;
use crate::store::reply::{self, Failure};
use crate::store::slots::{Answer, Member, NodeId, Slot, Table};
use crate::store::topology::{Connector, Expected, Opened};

/// How often the table is read if nothing happens.
const PERIOD: Duration = Duration::from_secs(10);

/// How often it is read while a node is away: another node takes its place within seconds.
const PERIOD_OF_LOSS: Duration = Duration::from_millis(250);

/// The shortest time between two readings. A redirected command sends nobody to the nodes again and again.
const PAUSE: Duration = Duration::from_millis(100);

/// The option that makes all nodes refuse all keys while some slots have no node.
const FULL_COVERAGE: &str = "cluster-require-full-coverage";

/// How many nodes are asked at the same time: one of them may be frozen, and one may know an old table.
const ASKED: usize = 3;

/// For how long the others may answer once one has.
const OTHERS: Duration = Duration::from_millis(50);

/// How many addresses are tried at the same time while no node is connected.
const TRIED: usize = 6;

/// The first usable node does not wait longer than this for the others.
const GRACE: Duration = Duration::from_millis(300);

impl Cluster {
    /// Starts what belongs to the cluster, and waits for an attempt to reach its nodes. One node is enough.
    pub(in crate::store) async fn probe(&self) -> Result<(), Error> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the cache was shut down",
            ));
        }
        if self.map.load().nodes.is_empty() {
            self.refresh().await?;
        }
        self.keep();
        let map = self.map.load_full();
        let away = map.nodes.iter().filter(|node| !node.is_usable());
        let attempts: Vec<_> = away.map(|node| node.attempt()).collect();
        let attempts = attempts.into_iter().map(|mut attempts| async move {
            let _ = attempts.changed().await;
        });
        tokio::select! {
            _ = join_all(attempts) => {}
            () = self.is_usable_for(GRACE) => {}
        }
        let map = self.map.load();
        match map.nodes.first() {
            _ if map.is_any_usable() => Ok(()),
            Some(node) => Err(node.trouble()),
            None => Err(Error::away()),
        }
    }

    async fn is_usable_for(&self, time: Duration) {
        let mut changes = self.reopened.subscribe();
        while !self.map.load().is_any_usable() {
            if changes.changed().await.is_err() {
                return;
            }
        }
        sleep(time).await;
    }

    /// Starts the tasks, unless they run. They end with the cluster.
    fn keep(&self) {
        for node in &self.map.load().nodes {
            node.tend(&self.this);
        }
        self.keeper.start(|running| {
            let cluster = Weak::clone(&self.this);
            async move {
                let _running = running;
                keep(cluster).await;
            }
        });
    }

    /// Reads the table from a few nodes.
    async fn refresh(&self) -> Result<(), Error> {
        let _one_at_a_time = self.refreshing.lock().await;
        let map = self.map.load_full();
        let usable: Vec<_> = map.nodes.iter().filter(|node| node.is_usable()).collect();
        let first = random(usable.len());
        let some = usable
            .iter()
            .cycle()
            .skip(first)
            .take(usable.len().min(ASKED));
        let mut asked: FuturesUnordered<_> = some.map(|node| self.ask_node(node)).collect();
        let mut until = None;
        loop {
            let next = match until {
                None => asked.next().await,
                Some(until) => timeout_at(until, asked.next()).await.ok().flatten(),
            };
            match next {
                Some(Ok(answer)) => {
                    self.learn(answer);
                    until.get_or_insert_with(|| Instant::now() + OTHERS);
                }
                Some(Err(failure)) => debug!(?failure, "a node did not report the slots"),
                None => break,
            }
        }
        match until {
            Some(_) => Ok(()),
            None => self.ask_any().await,
        }
    }

    /// Asks all primaries that answer, so that all slots are known that are under way from one to another.
    pub(super) async fn survey(&self, access: Access) -> Result<Arc<Table>, Failure> {
        let map = self.map.load_full();
        let is_meant = |node: &&Arc<Node>| match access {
            Access::Caller => node.state() == State::Open,
            Access::Recovery => node.is_usable(),
        };
        let nodes = map.nodes.iter().filter(is_meant);
        for answer in join_all(nodes.map(|node| self.ask_node(node))).await {
            self.learn(answer?);
        }
        Ok(Arc::clone(&self.known.lock().table))
    }

    async fn ask_node(&self, node: &Node) -> Result<Answer, Failure> {
        let patience = self.patience();
        let _real_time = hold(patience);
        let questions = Answer::questions();
        let asked = node.peer(Access::Recovery).ask_all(&questions, 0);
        let answers = match timeout(patience, asked).await {
            Ok(answers) => answers?,
            Err(_) => return Err(Failure::Lost("no answer in time".to_owned())),
        };
        self.read(answers, &node.address)
    }

    /// Asks addresses from the configuration and of all nodes, in random order and at the same time.
    async fn ask_any(&self) -> Result<(), Error> {
        let known: Vec<Address> = {
            let known = self.known.lock();
            known
                .table
                .members()
                .map(|member| member.address.clone())
                .collect()
        };
        let mut addresses = self.seeds.clone();
        addresses.extend(known);
        let order = RandomState::new();
        addresses.sort_by_cached_key(|address| order.hash_one(address));
        addresses.dedup();
        addresses.truncate(TRIED);
        let mut asked: FuturesUnordered<_> = addresses
            .iter()
            .map(|address| self.ask_at(address))
            .collect();
        let mut refusal: Option<Error> = None;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(answer) => {
                    self.learn(answer);
                    return Ok(());
                }
                // That an address must not be used says more than that another cannot be reached.
                Err(error) => match &refusal {
                    Some(known) if known.kind() == ErrorKind::Config => {}
                    _ => refusal = Some(error),
                },
            }
        }
        Err(refusal.unwrap_or_else(Error::away))
    }

    async fn ask_at(&self, address: &Address) -> Result<Answer, Error> {
        let _real_time = hold(self.config.connect_timeout);
        let connector = Connector::for_node(&self.config, address, Expected::Node)?;
        let Opened {
            mut link,
            mut driver,
            ..
        } = connector.open().await?;
        let mut questions = Answer::questions();
        let is_first = !self.was_asked.load(Ordering::Relaxed);
        if is_first {
            questions.cmd("CONFIG").arg("GET").arg(FULL_COVERAGE);
        }
        let asked = link.send_packed_commands(&questions, 0, questions.len());
        let answers = tokio::select! {
            answers = timeout(self.patience(), asked) => answers,
            () = &mut driver => {
                let text = format!("{address} closed the connection");
                return Err(Error::new(ErrorKind::Connection, text));
            }
        };
        let mut answers = match answers {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                let text = format!("lost the connection to {address}");
                return Err(Error::new(ErrorKind::Connection, text).because(error.to_string()));
            }
            Err(_) => return Err(Error::timeout(self.patience())),
        };
        // The user may not be allowed to ask it.
        if is_first
            && answers.pop().is_some_and(is_on)
            && !self.was_asked.swap(true, Ordering::Relaxed)
        {
            warn!(
                "`{FULL_COVERAGE}` is `yes`: if one part of the cluster is down, all nodes refuse all keys; set it to `no`"
            );
        }
        let answer = self.read(answers, address);
        answer.map_err(|failure| failure.during(|| format!("table of slots of {address}")))
    }

    fn read(&self, answers: Vec<Value>, asked: &Address) -> Result<Answer, Failure> {
        let is_encrypted = self.config.tls != Tls::Off;
        Answer::read(answers, asked, is_encrypted, &self.places)
    }

    /// How long a node may take to report the table.
    fn patience(&self) -> Duration {
        self.config.command_timeout.max(PERIOD_OF_LOSS)
    }

    /// Adds what a node reported.
    fn learn(&self, answer: Answer) {
        let moved = {
            let mut known = self.known.lock();
            known.confirmed = Some(Instant::now());
            let (reporter, is_down) = (answer.reporter, answer.is_down);
            let moved = match known.learn(answer) {
                true => self.redraw(&mut known),
                false => Vec::new(),
            };
            self.record_down(&mut known, reporter, is_down.unwrap_or(false));
            moved
        };
        self.open_moved(moved);
    }

    /// Records whether a primary sees the cluster as down. The primaries may disagree.
    fn record_down(&self, known: &mut Known, reporter: NodeId, is_down: bool) {
        let was_any_down = !known.down.is_empty();
        match is_down {
            true => known.down.insert(reporter),
            false => known.down.remove(&reporter),
        };
        let map = self.map.load();
        known.down.retain(|id| map.node(*id).is_some());
        match (was_any_down, !known.down.is_empty()) {
            (false, true) => warn!("{DOWN}"),
            (true, false) => info!("the cluster is up again"),
            _ => {}
        }
    }

    /// Learns from a node that a slot moved. Returns whether something must be applied at its new owner before callers use it.
    pub(super) fn learn_move(&self, slot: Slot, by: NodeId, to: &Address) -> bool {
        let moved = {
            let mut known = self.known.lock();
            match known.moved(slot, by, to) {
                true => self.redraw(&mut known),
                false => Vec::new(),
            }
        };
        self.alarm.table.notify_one();
        self.open_moved(moved)
    }

    /// Tells `moves` of slots that move from one node to another.
    pub(in crate::store) fn tell(&self, moves: Weak<dyn Moves>) {
        // There is one cache.
        let _ = self.moves.set(moves);
    }

    /// Has everything recent applied where a part is now. Returns whether there is something to apply.
    pub(super) fn owe(&self, part: &Reach) -> bool {
        let moves = self.moves.get().and_then(Weak::upgrade);
        moves.is_some_and(|moves| moves.slots_moved(part))
    }

    /// Lets callers use slots that moved, after those who must know it were told. Returns whether they have something to apply first.
    fn open_moved(&self, moved: Vec<Slot>) -> bool {
        if moved.is_empty() {
            return false;
        }
        let part = Reach::of(moved.iter().copied());
        let is_owed = self.owe(&part);
        let mut known = self.known.lock();
        for slot in &moved {
            known.moving.remove(slot);
        }
        self.redraw(&mut known);
        is_owed
    }

    /// Makes the map follow the table. Returns the slots that moved from one node to another that callers use. No caller uses them
    /// before [`open_moved`](Self::open_moved).
    fn redraw(&self, known: &mut Known) -> Vec<Slot> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let old = self.map.load_full();
        let mut nodes = Vec::new();
        let mut places = BTreeMap::new();
        let owners: BTreeSet<_> = known.table.owners().map(|owner| owner.id).collect();
        // A primary without slots may get some.
        let is_wanted = |member: &&Member| {
            (member.primary.is_none() && !member.is_failed) || owners.contains(&member.id)
        };
        for member in known.table.members().filter(is_wanted) {
            let known_node = old
                .node(member.id)
                .filter(|node| node.address == member.address);
            let node = match known_node {
                Some(node) => Arc::clone(node),
                None => match Node::new(member.id, &member.address, &self.config, &self.alarm) {
                    Ok(node) => node,
                    Err(error) => {
                        warn!(%error, node = %member.address, "a node of the cluster cannot be used");
                        continue;
                    }
                },
            };
            places.insert(member.id, u16::try_from(nodes.len()).unwrap_or(NOBODY));
            nodes.push(node);
        }
        let has_answered = |node: &&Arc<Node>| node.has_answered();
        let answered: BTreeSet<_> = nodes
            .iter()
            .filter(has_answered)
            .map(|node| node.id)
            .collect();
        let mut owners = vec![NOBODY; Slot::COUNT];
        let mut moved = Vec::new();
        for (place, slot) in owners.iter_mut().zip(Slot::all()) {
            let Some(owner) = known.table.owner(slot) else {
                continue;
            };
            let last = old.owner(slot);
            // A node that callers have not used yet gets everything that is recent before they do.
            if last.is_some_and(|last| last.id != owner.id) && answered.contains(&owner.id) {
                moved.push(slot);
            }
            if let Some(there) = places.get(&owner.id) {
                *place = *there;
            }
        }
        known.moving.extend(&moved);
        for slot in &known.moving {
            owners[slot.index()] = NOBODY;
        }
        let is_same = |(one, other): (&Arc<Node>, &Arc<Node>)| Arc::ptr_eq(one, other);
        if nodes.len() == old.nodes.len()
            && nodes.iter().zip(&old.nodes).all(is_same)
            && *owners == *old.owners
        {
            return moved;
        }
        let stays = |node: &Arc<Node>| nodes.iter().any(|other| Arc::ptr_eq(node, other));
        let gone: Vec<_> = old
            .nodes
            .iter()
            .filter(|node| !stays(node))
            .cloned()
            .collect();
        let new: Vec<_> = nodes
            .iter()
            .filter(|node| !old.nodes.iter().any(|other| Arc::ptr_eq(node, other)))
            .cloned()
            .collect();
        let map = Arc::new(Map {
            nodes,
            owners: owners.into(),
        });
        self.replace_map(&old, map);
        for node in &gone {
            // Its callers still wait for their answers, so its connections end with the last of them.
            // The node that has its slots now may lack what it had, which is one loss more.
            known.former_losses += node.pool.losses() + 1;
            info!(node = %node.address, "a node is no primary of the cluster any more");
        }
        if !gone.is_empty() {
            // The places of nodes in a scan have changed.
            self.term.fetch_add(1, Ordering::AcqRel);
        }
        for node in new {
            info!(node = %node.address, "a primary of the cluster");
            node.tend(&self.this);
        }
        self.reopen();
        moved
    }
}

/// Returns whether this is the answer about an option that is on.
fn is_on(answer: Value) -> bool {
    let options = match answer {
        Value::Map(options) => options.into_iter().map(|(_, value)| value).collect(),
        answer => reply::array(answer).unwrap_or_default(),
    };
    let mut texts = options.into_iter().map(reply::text);
    texts.any(|text| text.is_ok_and(|text| text == "yes"))
}

fn random(bound: usize) -> usize {
    let roll = RandomState::new().hash_one(bound);
    usize::try_from(roll)
        .unwrap_or_default()
        .checked_rem(bound)
        .unwrap_or_default()
}

async fn keep(cluster: Weak<Cluster>) {
    loop {
        let Some(here) = cluster.upgrade() else {
            return;
        };
        if here.is_closed.load(Ordering::SeqCst) {
            return;
        }
        if let Err(error) = here.refresh().await {
            debug!(%error, "could not read the table of slots");
        }
        let is_whole = here.map.load().nodes.iter().all(|node| node.is_usable());
        let is_whole = is_whole && here.known.lock().down.is_empty();
        let period = if is_whole { PERIOD } else { PERIOD_OF_LOSS };
        let alarm = Arc::clone(&here.alarm);
        drop(here);
        sleep(PAUSE).await;
        tokio::select! {
            () = alarm.table.notified() => {}
            () = sleep(period) => {}
        }
    }
}
