//! The stamps of entries.

/// Distinguishes an entry from every earlier or later one under its key.
pub(crate) type Stamp = [u8; 8];

/// A tag of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tagged {
    /// Without the prefix of the cache.
    pub(crate) name: Box<str>,
    pub(crate) stamp: Stamp,
}

/// Eight random bytes.
pub(crate) fn new_stamp() -> Stamp {
    use std::hash::{BuildHasher, RandomState};
    // The operating system hardly ever refuses. The standard library then still has a number that is different for every
    // process, and for every call in it.
    getrandom::u64()
        .unwrap_or_else(|_| RandomState::new().hash_one(std::time::Instant::now()))
        .to_le_bytes()
}

/// The size of a stamp as text.
pub(crate) const STAMP_TEXT: usize = 16;

/// What stands in the place of the stamp of a tag while an eviction keeps loads from storing under it.
pub(crate) const FENCED: &[u8] = b"fenced";

/// Returns a stamp as the record of a tag holds it: hexadecimal digits, which people can compare in `redis-cli`.
pub(crate) fn stamp_text(stamp: Stamp) -> [u8; STAMP_TEXT] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; STAMP_TEXT];
    for (byte, digits) in stamp.iter().zip(text.chunks_exact_mut(2)) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// Returns the stamp in the record of a tag. [`None`] for anything else, such as [`FENCED`].
pub(crate) fn stamp_in(record: &[u8]) -> Option<Stamp> {
    let digits: &[u8; STAMP_TEXT] = record.try_into().ok()?;
    let mut stamp = Stamp::default();
    for (byte, digits) in stamp.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(stamp)
}
