//! Which node of a cluster holds a key: the table of the owners of all slots. Nothing here does I/O.

mod answer;
mod place;
mod table;

pub(super) use self::answer::{Answer, Member, Open};
pub(super) use self::place::{Places, Redirect};
pub(super) use self::table::Table;
pub(super) use crate::slot::Slot;

use std::fmt;

/// Names slots, in their order, like `0-5460, 9000`.
pub(super) fn ranges(slots: impl IntoIterator<Item = Slot>) -> String {
    let mut ranges: Vec<(Slot, Slot)> = Vec::new();
    for slot in slots {
        match ranges.last_mut() {
            Some((_, last)) if last.index() + 1 == slot.index() => *last = slot,
            _ => ranges.push((slot, slot)),
        }
    }
    let text = |(first, last)| match first == last {
        true => format!("{first}"),
        false => format!("{first}-{last}"),
    };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The name that a node gives itself. It survives restarts and changes of the address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId([u8; 20]);

impl NodeId {
    /// Reads 40 hexadecimal digits.
    pub(super) fn read(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut id = [0; 20];
        let pairs = digits.chunks_exact(2);
        if digits.len() != 2 * id.len() {
            return None;
        }
        for (byte, pair) in id.iter_mut().zip(pairs) {
            let digit = |place: usize| char::from(*pair.get(place)?).to_digit(16);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
