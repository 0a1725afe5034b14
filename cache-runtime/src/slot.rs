//! The slots of a Redis Cluster: the part of the keyspace that a key belongs to.

use std::fmt;

/// A part of the keyspace. One node owns all keys of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u16);

impl Slot {
    pub(crate) const COUNT: usize = 16_384;

    /// Returns the slot of a key, as the cluster specification of Redis defines it.
    pub(crate) fn of(key: &[u8]) -> Self {
        // The remainder is the last 14 bits, because 16,384 is a power of two.
        Self(checksum(hashed_part(key)) % 16_384)
    }

    /// Returns the slot with this number, if there is one.
    pub(crate) fn numbered(number: i64) -> Option<Self> {
        let number = u16::try_from(number).ok()?;
        (usize::from(number) < Self::COUNT).then_some(Self(number))
    }

    pub(crate) fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..16_384).map(Self)
    }

    /// Returns its number, as a place in a list of all slots.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
mod tests {
    use super::*;

    #[test]
    fn the_slots_of_keys_are_those_of_the_specification() {
        assert_eq!(checksum(b"123456789"), 0x31C3);
        // Answers of `CLUSTER KEYSLOT`.
        let keys: [(&[u8], i64); 10] = [
            (b"", 0),
            (b"a", 15_495),
            (b"foo", 12_182),
            (b"{user1000}.following", 3_443),
            (b"{user1000}.followers", 3_443),
            (b"foo{}{bar}", 8_363),
            (b"foo{{bar}}zap", 4_015),
            (b"foo{bar}{zap}", 5_061),
            (b"{bar", 4_015),
            (b"\xff\x00{", 159),
        ];
        for (key, number) in keys {
            assert_eq!(
                Slot::of(key),
                Slot::numbered(number).expect("a slot"),
                "{}",
                String::from_utf8_lossy(key)
            );
        }
    }
}
