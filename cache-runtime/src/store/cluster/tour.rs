//! Scans of the keyspace of a cluster.
//!
//! A walk looks at all nodes at the same time. It must find each key that exists during the whole walk, even if the key moves to
//! another node. A node reports a key if it has it during its whole scan. If a key was missed, it moved from a node of this pass to
//! another node. So after a pass, all nodes that got slots from a node of the pass, or may have got keys of them, are scanned once
//! more, until there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{Cluster, Map};
use crate::error::ErrorKind;
use crate::key::{Key, Pattern};
use crate::store::pool::Access;
use crate::store::reach::Reach;
use crate::store::reply::Failure;
use crate::store::slots::{NodeId, Slot, Table};
use crate::store::{Cursor, Scanned, Walk, Walked};

/// With more passes than this, slots move faster than nodes are scanned.
const PASSES: u32 = 32;

/// The bits of a cursor that belong to the node: it counts at most as many keys as a server can have.
const OF_NODE: u32 = 48;

/// The position of a walk.
#[derive(Clone, Debug)]
pub(in crate::store) struct Tour {
    /// What was known when the pass began.
    before: Arc<Table>,
    stops: BTreeMap<NodeId, Stop>,
    missed: Reach,
    passes: u32,
}

/// One node of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stop {
    /// [`None`] at the end.
    cursor: Option<Cursor>,
    /// Which server the cursor belongs to.
    server: u64,
}

const BEGINNING: Stop = Stop {
    cursor: Some(Cursor(0)),
    server: 0,
};

impl Tour {
    fn new(table: Arc<Table>, within: &Reach, map: &Map) -> Self {
        let is_meant = |id: NodeId| {
            let mut slots = table.slots_of(id);
            *within == Reach::Everything || slots.any(|slot| within.has(slot))
        };
        let ids = map.nodes.iter().map(|node| node.id);
        let stops = ids.filter(|id| is_meant(*id)).map(|id| (id, BEGINNING));
        let stops: BTreeMap<_, _> = stops.collect();
        // A node that the map does not have is not scanned.
        let walked = Reach::of(stops.keys().flat_map(|id| table.slots_of(*id)));
        Self {
            missed: within.without(&walked),
            stops,
            before: table,
            passes: 1,
        }
    }

    fn is_pass_over(&self) -> bool {
        self.stops.values().all(|stop| stop.cursor.is_none())
    }

    /// Begins the next pass. Returns whether one is necessary.
    fn goes_on(&mut self, after: Arc<Table>) -> bool {
        let walked: BTreeSet<_> = self.stops.keys().copied().collect();
        let next = gained(&self.before, &after, &walked);
        self.stops = next.into_iter().map(|id| (id, BEGINNING)).collect();
        self.before = after;
        self.passes += 1;
        !self.stops.is_empty()
    }
}

/// Returns the nodes that may have got keys from `walked` nodes between two moments.
fn gained(before: &Table, after: &Table, walked: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let mut gained = BTreeSet::new();
    if std::ptr::eq(before, after) && after.open().is_empty() {
        // Nearly always. Otherwise each scan would compare all slots.
        return gained;
    }
    for slot in Slot::all() {
        let owner = |table: &Table| table.owner(slot).map(|owner| owner.id);
        let (old, new) = (owner(before), owner(after));
        if old != new && old.is_none_or(|old| walked.contains(&old)) {
            gained.extend(new);
        }
    }
    for (_, from, to) in before.open().into_iter().chain(after.open()) {
        if walked.contains(&from) {
            gained.insert(to);
        }
    }
    for member in after.members().filter(|member| member.primary.is_none()) {
        // It took slots, and may have lost them again.
        let old = before.member(member.id).map(|member| member.epoch);
        if old.is_some_and(|old| old < member.epoch) {
            gained.insert(member.id);
        }
    }
    gained
}

impl Cluster {
    /// Takes the next step: asks all nodes for the table of slots before and after each pass, and for their next slices during it. Each
    /// step is one round trip, because it must end within the deadline of one operation.
    pub(in crate::store) async fn walk(
        &self,
        patterns: &[Pattern],
        walk: &Walk,
        access: Access,
    ) -> Result<Walked, Failure> {
        let going_on = |tour| {
            Some(Walk {
                tour: Some(Box::new(tour)),
                ..walk.clone()
            })
        };
        let tour = match &walk.tour {
            Some(tour) if !tour.is_pass_over() => {
                let mut tour = Tour::clone(tour);
                let (names, looked) = self.look(patterns, &mut tour, access).await?;
                return Ok(Walked {
                    names,
                    next: going_on(tour),
                    looked,
                    missed: Reach::nothing(),
                });
            }
            tour => tour.as_deref().cloned(),
        };
        let table = self.survey(access).await?;
        let (next, missed) = match tour {
            None => {
                let tour = Tour::new(table, &walk.within, &self.map.load());
                (going_on(tour), Reach::nothing())
            }
            Some(mut tour) => match tour.goes_on(table) {
                true if tour.passes > PASSES => {
                    return Err(Failure::Lost("slots move faster than a scan".to_owned()));
                }
                true => (going_on(tour), Reach::nothing()),
                false => (None, tour.missed),
            },
        };
        Ok(Walked {
            names: Vec::new(),
            next,
            looked: 0,
            missed,
        })
    }

    /// Looks at the next slice of all nodes of the pass. Returns the names that were found, and how many keys were looked at.
    async fn look(
        &self,
        patterns: &[Pattern],
        tour: &mut Tour,
        access: Access,
    ) -> Result<(Vec<Key>, usize), Failure> {
        let began = Instant::now();
        let map = self.map.load_full();
        let stops = tour.stops.iter().filter_map(|(id, stop)| {
            let (id, cursor, server) = (*id, stop.cursor?, stop.server);
            let map = &map;
            Some(async move {
                // A node that left the cluster has no slots. Those that got them are scanned next.
                let node = map.node(id)?;
                let now = node.pool.term();
                let from = if server == now { cursor } else { Cursor(0) };
                let page = node.peer(access).scan(patterns, from);
                Some((id, now, node.within(access, began, page).await))
            })
        });
        let pages = join_all(stops).await;
        let (mut names, mut looked) = (Vec::new(), 0);
        let visited: BTreeSet<_> = pages.iter().flatten().map(|(id, ..)| *id).collect();
        for (id, stop) in &mut tour.stops {
            if !visited.contains(id) {
                stop.cursor = None;
            }
        }
        for (id, server, page) in pages.into_iter().flatten() {
            let stop = match page {
                Ok(page) => {
                    names.extend(page.names);
                    looked += page.looked;
                    Stop {
                        cursor: page.next,
                        server,
                    }
                }
                Err(failure) if failure.kind() == ErrorKind::Unavailable => {
                    let slots = tour.before.slots_of(id);
                    tour.missed = tour.missed.and(&Reach::of(slots));
                    Stop {
                        cursor: None,
                        server,
                    }
                }
                Err(failure) => return Err(failure),
            };
            tour.stops.insert(id, stop);
        }
        Ok((names, looked))
    }

    /// Looks at the next slice of one node after the other. A key that moves during the scan may be missing.
    pub(in crate::store) async fn scan(
        &self,
        patterns: &[Pattern],
        cursor: Cursor,
        access: Access,
    ) -> Result<Scanned, Failure> {
        let map = self.map.load_full();
        let place = cursor.0 >> OF_NODE;
        let node = usize::try_from(place)
            .ok()
            .and_then(|place| map.nodes.get(place));
        let node = node.ok_or(Failure::Away("the node of the scan left the cluster"))?;
        let page = node
            .peer(access)
            .scan(patterns, Cursor(cursor.0 & ((1 << OF_NODE) - 1)));
        let page = node.within(access, Instant::now(), page).await?;
        let next = match page.next {
            Some(Cursor(next)) if next >> OF_NODE == 0 => Some(place << OF_NODE | next),
            Some(_) => return Err(Failure::Nonsense("a cursor of 48 bits")),
            None => (place + 1 < map.nodes.len() as u64).then_some((place + 1) << OF_NODE),
        };
        Ok(Scanned {
            next: next.map(Cursor),
            ..page
        })
    }
}
