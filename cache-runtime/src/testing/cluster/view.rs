//! What a node reports about the cluster (`CLUSTER NODES`).

use std::io::{self, Error};

use super::SLOTS;

/// The nodes that a node knows, and which of them owns each slot.
#[derive(Debug)]
pub(super) struct View {
    nodes: Vec<Known>,
    /// The place of the owner among the nodes.
    owners: Vec<Option<usize>>,
}

#[derive(Debug)]
struct Known {
    id: String,
    primary: Option<String>,
    is_complete: bool,
}

impl View {
    pub(super) fn parse(text: &str) -> io::Result<Self> {
        let mut view = Self {
            nodes: Vec::new(),
            owners: vec![None; SLOTS],
        };
        for line in text.lines() {
            view.read(line)
                .ok_or_else(|| Error::other(format!("an unexpected line: {line}")))?;
        }
        Ok(view)
    }

    fn read(&mut self, line: &str) -> Option<()> {
        let mut fields = line.split(' ');
        let id = fields.next()?.to_owned();
        let flags = fields.nth(1)?;
        let primary = fields.next().filter(|id| *id != "-").map(str::to_owned);
        let place = self.nodes.len();
        self.nodes.push(Known {
            id,
            primary,
            is_complete: !flags.contains("handshake") && !flags.contains("noaddr"),
        });
        // The fields between them are times, an epoch, and the state of the link. Open slots are in brackets.
        for range in fields.skip(4).filter(|range| !range.starts_with('[')) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let range = first.parse::<usize>().ok()?..=last.parse().ok()?;
            self.owners.get_mut(range)?.fill(Some(place));
        }
        Some(())
    }

    /// Returns the number of nodes whose introduction is complete.
    pub(super) fn known(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_complete).count()
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&str> {
        let place = *self.owners.get(usize::from(slot))?;
        Some(&self.nodes[place?].id)
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = Option<&str>> {
        self.owners
            .iter()
            .map(|place| place.map(|place| self.nodes[place].id.as_str()))
    }

    /// Returns whether both have the same owners of all slots, and the same roles of these nodes.
    pub(super) fn agrees_with(&self, other: &Self, nodes: &[&str]) -> bool {
        let mut nodes = nodes.iter();
        self.owners().eq(other.owners())
            && nodes.all(|id| self.primary_of(id) == other.primary_of(id))
    }

    pub(super) fn owns_slots(&self, id: &str) -> bool {
        self.owners().any(|owner| owner == Some(id))
    }

    /// Returns the primary of a node, if the node is a replica.
    pub(super) fn primary_of(&self, id: &str) -> Option<&str> {
        let node = self.nodes.iter().find(|node| node.id == id)?;
        node.primary.as_deref()
    }
}
