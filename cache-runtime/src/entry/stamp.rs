//! The stamps of entries.

/// Distinguishes an entry from every earlier or later one under its key.
pub(crate) type Stamp = [u8; 8];

/// Eight random bytes.
pub(crate) fn new_stamp() -> Stamp {
    use std::hash::{BuildHasher, RandomState};
    // The operating system hardly ever refuses. The standard library then still has a number that is different for every
    // process, and for every call in it.
    getrandom::u64()
        .unwrap_or_else(|_| RandomState::new().hash_one(std::time::Instant::now()))
        .to_le_bytes()
}
