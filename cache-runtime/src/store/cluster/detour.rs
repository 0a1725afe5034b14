//! Commands that a node does not serve: what the answer means, and where the command is sent instead.
//!
//! Nothing was done where a node redirects, so the command may be sent again. It is sent twice more at most, within the deadline of
//! the first.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ServerError, ServerErrorKind, Value};
use tokio::time::{Instant, sleep};

use super::{Cluster, Node, slot_of};
use crate::store::pool::Access;
use crate::store::reply::Failure;
use crate::store::slots::Redirect;

/// The most redirections of one command.
const HOPS: u32 = 2;

/// The pauses before a command on several keys is tried again, some of which are under way to another node.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
];

const UNKNOWN_NODE: Failure = Failure::Away("the slot moved to a node that is not known yet");
const CATCHES_UP: Failure =
    Failure::Away("recent evictions are applied at the new owner of the slot first");
const TOO_MANY_HOPS: Failure = Failure::Away("the nodes do not agree who owns the slot");
const SPLIT_KEYS: Failure = Failure::Away("the keys are being moved to another node");
const IS_DOWN: Failure = Failure::Away("the cluster is down");

/// A command on its way to the node of its key.
#[derive(Clone, Copy)]
pub(in crate::store) struct Errand<'a> {
    pub(super) command: &'a Cmd,
    bytes: usize,
    access: Access,
    /// Whether it may run twice.
    is_repeatable: bool,
}

impl<'a> Errand<'a> {
    pub(in crate::store) fn new(command: &'a Cmd, bytes: usize, access: Access) -> Self {
        Self {
            command,
            bytes,
            access,
            is_repeatable: false,
        }
    }

    /// The same for a command that may run twice.
    pub(in crate::store) fn repeatable(self) -> Self {
        Self {
            is_repeatable: true,
            ..self
        }
    }

    /// Sends it to a node.
    pub(super) async fn at(&self, node: &Node, began: Instant) -> Result<Value, Failure> {
        let peer = node.peer(self.access);
        match self.is_repeatable {
            true => {
                let read = peer.read(self.command, self.bytes, &[]);
                node.within(self.access, began, read).await
            }
            false => {
                let asked = peer.ask(self.command, self.bytes);
                node.within(self.access, began, asked).await
            }
        }
    }

    /// Sends it to a node that gets the slot.
    async fn at_importer(&self, node: &Node, began: Instant) -> Result<Value, Failure> {
        let peer = node.peer(self.access);
        let asked = peer.ask_importer(self.command, self.bytes);
        node.within(self.access, began, asked).await
    }
}

/// Why a node does not serve a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Detour {
    /// Another node does.
    To(Redirect),
    /// Some of its keys are here and some are not.
    TryAgain,
    /// The cluster does not serve the slot.
    Down,
}

impl Cluster {
    /// Reads the answer of a node. [`None`] for an error of the command itself.
    pub(super) fn detour(&self, error: &ServerError, node: &Node) -> Option<Detour> {
        match error.kind()? {
            ServerErrorKind::TryAgain => Some(Detour::TryAgain),
            ServerErrorKind::ClusterDown => Some(Detour::Down),
            _ => {
                let redirect = self.places.redirect(error, &node.address)?;
                Some(Detour::To(redirect))
            }
        }
    }

    /// Sends a command where `detour` points, which `node` answered.
    pub(super) async fn follow(
        &self,
        errand: Errand<'_>,
        mut node: Arc<Node>,
        mut detour: Detour,
        began: Instant,
    ) -> Result<Value, Failure> {
        let mut pauses = PAUSES.iter();
        let mut hops = 0;
        loop {
            let answer = match &detour {
                Detour::Down => {
                    self.alarm.table.notify_one();
                    return Err(IS_DOWN);
                }
                Detour::TryAgain => {
                    sleep(*pauses.next().ok_or(SPLIT_KEYS)?).await;
                    node = self.owner(slot_of(errand.command))?;
                    errand.at(&node, began).await
                }
                Detour::To(redirect) => {
                    hops += 1;
                    if hops > HOPS {
                        return Err(TOO_MANY_HOPS);
                    }
                    node = self.target(redirect, &node)?;
                    match redirect {
                        Redirect::Moved(..) => errand.at(&node, began).await,
                        Redirect::Ask(..) => errand.at_importer(&node, began).await,
                    }
                }
            };
            match &answer {
                Err(Failure::Refused(error)) => match self.detour(error, &node) {
                    Some(next) => detour = next,
                    None => return answer,
                },
                _ => return answer,
            }
        }
    }

    /// Returns the node that `from` names. A slot that moved is learnt, and one that is under way is not.
    fn target(&self, redirect: &Redirect, from: &Node) -> Result<Arc<Node>, Failure> {
        let (Redirect::Moved(slot, address) | Redirect::Ask(slot, address)) = redirect;
        self.doubt(*slot);
        if let Redirect::Moved(slot, _) = redirect
            && self.learn_move(*slot, from.id, address)
        {
            return Err(CATCHES_UP);
        }
        let node = self.map.load().at(address).cloned();
        if node.is_none() {
            self.alarm.table.notify_one();
        }
        node.ok_or(UNKNOWN_NODE)
    }
}
