//! What one node reports about its cluster: `CLUSTER SHARDS` has the addresses as the nodes announce them, and `CLUSTER NODES` has
//! epochs and open slots. They are joined by the ids of the nodes.

use std::collections::HashMap;

use redis::Value;

use super::{NodeId, Places, Slot};
use crate::config::Address;
use crate::store::reply::{self, Failure};

/// The report of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Answer {
    /// The node that was asked.
    pub(in crate::store) reporter: NodeId,
    pub(super) members: Vec<Member>,
    /// The first and the last slot of each range, and the place of its owner among the members.
    pub(super) ranges: Vec<(Slot, Slot, usize)>,
    /// Whether the node refuses keys because the cluster is down. [`None`] if it does not report that.
    pub(in crate::store) is_down: Option<bool>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Member {
    pub(in crate::store) id: NodeId,
    pub(in crate::store) address: Address,
    /// The version of its claim on its slots: the newest claim on a slot counts.
    pub(in crate::store) epoch: u64,
    /// The primary that it is a replica of.
    pub(in crate::store) primary: Option<NodeId>,
    /// Whether most primaries agree that it does not answer.
    pub(in crate::store) is_failed: bool,
    /// The slots that are on their way to or from this node, as far as the node itself reported them.
    pub(in crate::store) open: Vec<(Slot, Open)>,
}

/// The other side of an open slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Open {
    /// Keys leave for this node, which has all new ones.
    To(NodeId),
    /// Keys arrive from this node, which still owns the slot.
    From(NodeId),
}

impl Answer {
    /// The commands whose answers [`read`](Self::read) reads, in this order.
    pub(in crate::store) fn questions() -> redis::Pipeline {
        let mut questions = redis::Pipeline::with_capacity(3);
        questions.cmd("CLUSTER").arg("SHARDS");
        questions.cmd("CLUSTER").arg("NODES");
        // The user may not be allowed to ask it.
        questions.cmd("CLUSTER").arg("INFO");
        questions
    }

    /// Reads the answers of a node at the address `asked`, over TLS if `is_encrypted`.
    pub(in crate::store) fn read(
        answers: Vec<Value>,
        asked: &Address,
        is_encrypted: bool,
        places: &Places,
    ) -> Result<Self, Failure> {
        let mut answers = answers.into_iter();
        let (Some(shards), Some(nodes)) = (answers.next(), answers.next()) else {
            return Err(Failure::Nonsense("two answers"));
        };
        let info = answers.next().and_then(|info| reply::text(info).ok());
        let addresses = addresses(shards, asked, is_encrypted, places)?;
        let nodes = reply::text(nodes)?;
        let mut reporter = None;
        let mut members = Vec::new();
        let mut ranges = Vec::new();
        for line in nodes.lines() {
            let line = Line::read(line).ok_or(Failure::Nonsense("a list of nodes"))?;
            if line.is_unknown {
                continue;
            }
            if line.is_reporter {
                reporter = Some(line.id);
            }
            let Some(address) = addresses.get(&line.id) else {
                if line.slots.is_empty() {
                    continue;
                }
                // The slots were given to it between the two answers.
                return Err(Failure::Nonsense("an address for each owner of slots"));
            };
            let slots = line.slots.into_iter();
            ranges.extend(slots.map(|(first, last)| (first, last, members.len())));
            members.push(Member {
                id: line.id,
                address: address.clone(),
                epoch: line.epoch,
                primary: line.primary,
                is_failed: line.is_failed,
                open: line.open,
            });
        }
        Ok(Self {
            reporter: reporter.ok_or(Failure::Nonsense("a list with the node itself"))?,
            members,
            ranges,
            is_down: info.map(|info| info.contains("cluster_state:fail")),
        })
    }
}

/// Reads the addresses in `CLUSTER SHARDS`.
fn addresses(
    shards: Value,
    asked: &Address,
    is_encrypted: bool,
    places: &Places,
) -> Result<HashMap<NodeId, Address>, Failure> {
    let mut addresses = HashMap::new();
    for shard in reply::array(shards)? {
        let nodes = fields(shard)?.remove("nodes");
        let nodes = nodes.ok_or(Failure::Nonsense("the nodes of a shard"))?;
        for node in reply::array(nodes)? {
            let mut node = fields(node)?;
            let mut text = |name| node.remove(name).and_then(|value| reply::text(value).ok());
            let id = text("id").as_deref().and_then(NodeId::read);
            let id = id.ok_or(Failure::Nonsense("the id of a node"))?;
            let mut host = text("endpoint").unwrap_or_default();
            if host == "?" {
                // Names are preferred, and this node has none.
                host = text("ip").unwrap_or_default();
            }
            let mut port = |name| match node.remove(name)? {
                Value::Int(port) => u16::try_from(port).ok().filter(|port| *port > 0),
                _ => None,
            };
            let encrypted = port("tls-port").filter(|_| is_encrypted);
            let port = encrypted.or_else(|| port("port"));
            let port = port.ok_or(Failure::Nonsense("the port of a node"))?;
            addresses.insert(id, places.reach(&host, port, asked));
        }
    }
    Ok(addresses)
}

/// Reads a map, which RESP2 sends as a list of alternating names and values.
fn fields(value: Value) -> Result<HashMap<String, Value>, Failure> {
    let pairs: Vec<_> = match value {
        Value::Map(pairs) => pairs,
        other => {
            let mut items = reply::array(other)?.into_iter();
            std::iter::from_fn(|| items.next().zip(items.next())).collect()
        }
    };
    pairs
        .into_iter()
        .map(|(name, value)| Ok((reply::text(name)?, value)))
        .collect()
}

/// A line of `CLUSTER NODES`.
struct Line {
    id: NodeId,
    is_reporter: bool,
    is_failed: bool,
    /// Whether the reporter has not met this node yet, or does not know its address.
    is_unknown: bool,
    primary: Option<NodeId>,
    epoch: u64,
    slots: Vec<(Slot, Slot)>,
    open: Vec<(Slot, Open)>,
}

impl Line {
    /// Reads `<id> <address> <flags> <primary> <ping> <pong> <epoch> <link> <slot>…`.
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let id = NodeId::read(words.next()?)?;
        let flags: Vec<_> = words.nth(1)?.split(',').collect();
        let primary = match words.next()? {
            "-" => None,
            id => Some(NodeId::read(id)?),
        };
        let epoch = words.nth(2)?.parse().ok()?;
        words.next()?;
        let (mut slots, mut open) = (Vec::new(), Vec::new());
        for word in words {
            match word.strip_prefix('[') {
                None => slots.push(range(word)?),
                Some(word) => open.push(open_slot(word.strip_suffix(']')?)?),
            }
        }
        let has = |flag: &str| flags.contains(&flag);
        Some(Self {
            id,
            is_reporter: has("myself"),
            is_failed: has("fail"),
            is_unknown: has("handshake") || has("noaddr"),
            primary,
            epoch,
            slots,
            open,
        })
    }
}

/// Reads `5461-10922` or `93`.
fn range(text: &str) -> Option<(Slot, Slot)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (slot(first)?, slot(last)?);
    (first <= last).then_some((first, last))
}

/// Reads `93->-<id>` or `93-<-<id>`.
fn open_slot(text: &str) -> Option<(Slot, Open)> {
    let (number, to) = match text.split_once("->-") {
        Some((number, id)) => (number, Open::To(NodeId::read(id)?)),
        None => {
            let (number, id) = text.split_once("-<-")?;
            (number, Open::From(NodeId::read(id)?))
        }
    };
    Some((slot(number)?, to))
}

fn slot(text: &str) -> Option<Slot> {
    Slot::numbered(text.parse().ok()?)
}
