//! Which node of a cluster holds a key: the slot of a key, and the table of the owners of all slots. Nothing here does I/O.

mod answer;
mod place;
mod table;

pub(super) use self::answer::{Answer, Member, Open};
pub(super) use self::place::{Places, Redirect};
pub(super) use self::table::Table;

use std::fmt;

/// A part of the keyspace. One node owns all keys of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u16);

impl Slot {
    pub(super) const COUNT: usize = 16_384;

    /// Returns the slot of a key, as the cluster specification of Redis defines it.
    pub(super) fn of(key: &[u8]) -> Self {
        // The remainder is the last 14 bits, because 16,384 is a power of two.
        Self(checksum(hashed_part(key)) % 16_384)
    }

    /// Returns the slot with this number, if there is one.
    pub(super) fn numbered(number: i64) -> Option<Self> {
        let number = u16::try_from(number).ok()?;
        (usize::from(number) < Self::COUNT).then_some(Self(number))
    }

    pub(super) fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..16_384).map(Self)
    }

    /// Returns its number, as a place in a list of all slots.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
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

/// Returns what decides the slot: the text between the first `{` and the next `}`, unless it is empty. So keys that share this
/// text share a slot.
fn hashed_part(key: &[u8]) -> &[u8] {
    let tag = || {
        let start = key.iter().position(|byte| *byte == b'{')? + 1;
        let rest = key.get(start..)?;
        let length = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..length).filter(|tag| !tag.is_empty())
    };
    tag().unwrap_or(key)
}

/// CRC-16/XMODEM.
fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |checksum: u16, byte| {
        let [high, low] = checksum.to_be_bytes();
        u16::from_be_bytes([low, 0]) ^ CHECKSUMS[usize::from(high ^ byte)]
    })
}

/// The checksum of each byte.
const CHECKSUMS: [u16; 256] = {
    const POLYNOMIAL: u16 = 0x1021;
    let mut checksums = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let mut checksum = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            let carry = checksum & 0x8000 != 0;
            checksum <<= 1;
            if carry {
                checksum ^= POLYNOMIAL;
            }
            bit += 1;
        }
        checksums[byte as usize] = checksum;
        byte += 1;
    }
    checksums
};

#[cfg(test)]
mod tests;
