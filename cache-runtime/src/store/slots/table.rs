//! The owners of all slots, as far as the nodes reported them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Member, NodeId, Open, Slot};
use crate::config::Address;

/// The owner of each slot, and all nodes by their ids.
///
/// The reports of nodes arrive in any order, and a node that was frozen reports the past. The owner of a slot therefore changes
/// only in two cases:
///
/// - The claim of another node has a higher epoch.
/// - The owner itself reports that it is not the owner any more. Nodes take slots on their own, so no report of a node is older than
///   its own claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Table {
    members: BTreeMap<NodeId, Member>,
    /// By the number of the slot. Empty before the first report.
    claims: Vec<Option<Claim>>,
    /// The highest epoch of any report.
    newest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    owner: NodeId,
    epoch: u64,
}

impl Table {
    /// Adds the report of a node. Returns the slots whose owner is another one now.
    pub(in crate::store) fn learn(&mut self, answer: Answer) -> Vec<Slot> {
        let Answer {
            reporter,
            members,
            ranges,
            is_down: _,
        } = answer;
        let newest = members.iter().map(|member| member.epoch).max();
        let newest = newest.unwrap_or_default();
        let named: BTreeSet<_> = members.iter().map(|member| member.id).collect();
        if !named.iter().any(|id| self.members.contains_key(id)) {
            // This is the first report, or all nodes were reset.
            self.newest = 0;
            self.members.clear();
            self.claims.iter_mut().for_each(|claim| *claim = None);
        }
        self.claims.resize(Slot::COUNT, None);
        let is_new = newest >= self.newest;
        let mut owners = vec![None; Slot::COUNT];
        for (first, last, place) in ranges {
            owners[first.index()..=last.index()].fill(Some(place));
        }
        let mut changed = Vec::new();
        for (slot, owner) in Slot::all().zip(owners) {
            let next = owner.and_then(|place| members.get(place)).map(Claim::of);
            let known = &mut self.claims[slot.index()];
            let Some(last) = *known else {
                *known = next;
                changed.extend(next.is_some().then_some(slot));
                continue;
            };
            let is_known = next.is_some_and(|next| next.owner == last.owner);
            let is_newer = next.is_some_and(|next| next.epoch > last.epoch);
            let is_given_up = last.owner == reporter || is_new && !named.contains(&last.owner);
            if is_known || is_newer || is_given_up {
                *known = next.map(|next| Claim {
                    epoch: next.epoch.max(last.epoch),
                    ..next
                });
                changed.extend((!is_known).then_some(slot));
            }
        }
        self.newest = self.newest.max(newest);
        if is_new {
            self.members.retain(|id, _| named.contains(id));
        }
        for mut member in members {
            let is_reporter = member.id == reporter;
            match self.members.get_mut(&member.id) {
                // What an old report says about others is not news.
                Some(_) if !is_new && !is_reporter => {}
                Some(known) => {
                    if !is_reporter {
                        member.open = std::mem::take(&mut known.open);
                    }
                    *known = member;
                }
                None => {
                    self.members.insert(member.id, member);
                }
            }
        }
        changed
    }

    /// Records that `by` answered `MOVED` with the address of another node. Returns whether the table changed. It does not if `by`
    /// is not the owner, or if no node is known at `to`: then a new report is necessary.
    pub(in crate::store) fn moved(&mut self, slot: Slot, by: NodeId, to: &Address) -> bool {
        let mut members = self.members.values();
        let target = members.find(|member| member.address == *to).map(Claim::of);
        let (Some(target), Some(Some(claim))) = (target, self.claims.get_mut(slot.index())) else {
            return false;
        };
        if claim.owner != by || target.owner == by {
            return false;
        }
        *claim = Claim {
            owner: target.owner,
            epoch: target.epoch.max(claim.epoch),
        };
        true
    }

    /// Returns the owner of a slot, if there is one.
    pub(in crate::store) fn owner(&self, slot: Slot) -> Option<&Member> {
        let claim = (*self.claims.get(slot.index())?)?;
        self.members.get(&claim.owner)
    }

    /// Returns the slots of a node.
    pub(in crate::store) fn slots_of(&self, id: NodeId) -> impl Iterator<Item = Slot> {
        Slot::all()
            .zip(&self.claims)
            .filter_map(move |(slot, claim)| {
                let claim = claim.as_ref()?;
                (claim.owner == id).then_some(slot)
            })
    }

    /// Returns a node.
    pub(in crate::store) fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Returns all nodes, replicas too.
    pub(in crate::store) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Returns the nodes that own slots.
    pub(in crate::store) fn owners(&self) -> impl Iterator<Item = &Member> {
        let owners: BTreeSet<_> = self
            .claims
            .iter()
            .flatten()
            .map(|claim| claim.owner)
            .collect();
        self.members
            .values()
            .filter(move |member| owners.contains(&member.id))
    }

    /// Returns the open slots, each with the node that keys leave and the node that they go to, as far as one of both reported them.
    pub(in crate::store) fn open(&self) -> BTreeSet<(Slot, NodeId, NodeId)> {
        let of = |member: &Member| {
            let id = member.id;
            let open = member.open.iter().map(move |(slot, side)| match side {
                Open::To(to) => (*slot, id, *to),
                Open::From(from) => (*slot, *from, id),
            });
            open.collect::<Vec<_>>()
        };
        self.members.values().flat_map(of).collect()
    }
}

impl Claim {
    fn of(member: &Member) -> Self {
        Self {
            owner: member.id,
            epoch: member.epoch,
        }
    }
}
