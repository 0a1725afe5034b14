//! Listens to the changes of keys at all primaries: each node reports those of its slots.
//!
//! The values of a node are trusted as long as its own listener hears everything. A slot that moves leaves its values doubtful.

use std::sync::{Arc, Weak};

use redis::Cmd;
use tracing::warn;

use super::{Cluster, Map, Node};
use crate::store::listener::{Listener, Ownership, Tracking};
use crate::store::slots::{NodeId, Slot};
use crate::sync::Mutex;

/// The most names that are tried in order to find one whose slot a node owns. A node with one slot has no name with a probability of
/// 1 to 3,000.
const TRIED: u32 = 1 << 17;

impl Cluster {
    /// Hears the changes of wanted keys until the cluster is gone.
    pub(in crate::store) fn listen(
        self: &Arc<Self>,
        tracking: Tracking,
    ) -> impl Future<Output = ()> + Send + use<> {
        {
            let _unchanged = self.known.lock();
            let tracking = self.tracking.get_or_init(|| tracking);
            let map = self.map.load();
            give_slots(tracking, &map, Slot::all());
        }
        listen(Arc::downgrade(self))
    }

    /// Makes the values doubtful that were read from a node that does not own their slot.
    pub(super) fn doubt(&self, slot: Slot) {
        if let Some(tracking) = self.tracking.get() {
            tracking.doubts.missed_in(slot);
        }
    }

    /// Replaces the map. The caller holds what is known of the cluster.
    pub(super) fn replace_map(&self, old: &Map, new: Arc<Map>) {
        let Some(tracking) = self.tracking.get() else {
            self.map.store(new);
            return;
        };
        let owner = |map: &Map, slot| map.owner(slot).map(Arc::as_ptr);
        let is_other = |slot: &Slot| owner(old, *slot) != owner(&new, *slot);
        let moved: Vec<_> = Slot::all().filter(is_other).collect();
        give_slots(tracking, &new, moved.iter().copied());
        self.map.store(Arc::clone(&new));
        // Since the first time callers have asked the last owners, as if they were the new ones.
        give_slots(tracking, &new, moved.into_iter());
    }

    /// Starts to listen to a node, unless that is done.
    fn listen_to(&self, tracking: &Tracking, node: &Arc<Node>) {
        let Some(feed) = node.feed.get().filter(|feed| feed.has_place()) else {
            return;
        };
        node.listening.start(|running| {
            let claim = Claim {
                cluster: Weak::clone(&self.this),
                node: node.id,
                last: Mutex::default(),
            };
            let (feed, claim) = (Arc::clone(feed), Some(Box::new(claim) as _));
            let listener = Listener::new(&node.pool, &self.config, tracking, feed, claim);
            async move {
                let _running = running;
                match listener {
                    Ok(listener) => listener.run().await,
                    Err(error) => warn!(%error, "cannot listen for changes in Redis"),
                }
            }
        });
    }
}

/// Gives slots to the feeds of their owners.
fn give_slots(tracking: &Tracking, map: &Map, slots: impl Iterator<Item = Slot>) {
    let doubts = &tracking.doubts;
    for node in &map.nodes {
        node.feed.get_or_init(|| Arc::new(doubts.feed()));
    }
    for slot in slots {
        let feed = map.owner(slot).and_then(|owner| owner.feed.get());
        doubts.give(slot, feed.map(AsRef::as_ref));
    }
}

async fn listen(cluster: Weak<Cluster>) {
    let Some(mut changes) = cluster.upgrade().map(|here| here.reopened.subscribe()) else {
        return;
    };
    loop {
        {
            let Some(here) = cluster.upgrade() else {
                return;
            };
            if let Some(tracking) = here.tracking.get() {
                for node in &here.map.load().nodes {
                    here.listen_to(tracking, node);
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The claim of a node on its slots, as far as the map knows it.
struct Claim {
    cluster: Weak<Cluster>,
    node: NodeId,
    /// The name that was asked for last. It is asked for again as long as the node owns its slot.
    last: Mutex<Option<String>>,
}

impl Ownership for Claim {
    /// Reads a key of one of its slots. A replica answers that it moved, and a primary that most others cannot reach answers that the
    /// cluster is down.
    fn question(&self) -> Option<Cmd> {
        let cluster = self.cluster.upgrade()?;
        let map = cluster.map.load();
        let is_own = |slot| map.owner(slot).is_some_and(|owner| owner.id == self.node);
        let is_at_node = |name: &String| is_own(Slot::of(name.as_bytes()));
        let mut last = self.last.lock();
        if !last.as_ref().is_some_and(is_at_node) {
            *last = None;
            if !Slot::all().any(is_own) {
                return None;
            }
            let prefix = &cluster.config.prefix;
            // Braces put all names into one slot.
            let tried = if prefix.contains('{') { 1 } else { TRIED };
            let mut names = (0..tried).map(|number| format!("{prefix}cache:owner:{number}"));
            *last = names.find(is_at_node);
        }
        Some(redis::cmd("GET").arg(last.as_deref()?).take())
    }

    fn lost(&self) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.alarm.table.notify_one();
        }
    }
}
