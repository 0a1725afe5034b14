//! Claims on a key: the lease of a load, and the fence of a put.

use std::time::Duration;

use super::header::{Draft, Entry, FRESH_AT, KEY_AT, Kind, STAMP_AT, check_header, header, seal};
use super::layers::Layers;
use super::origin::{Build, Origin};
use super::stamp::Stamp;
use crate::clock::whole_millis;
use crate::key::Key;

/// How far the clocks of the processes that share a store may differ. A claim ends this much later than it records.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The claim of a load on its key, for `ttl` from now on.
pub(crate) fn lease(key: &Key, now: u64, ttl: Duration) -> Entry {
    seal(header(Kind::Lease, &claim(key, now, ttl)).to_vec())
}

/// The same claim, for `ttl` from now on.
pub(crate) fn renewed_lease(stamp: Stamp, key: &Key, now: u64, ttl: Duration) -> Entry {
    let mut bytes = header(Kind::Lease, &claim(key, now, ttl));
    bytes[STAMP_AT..KEY_AT].copy_from_slice(&stamp);
    seal(bytes.to_vec())
}

/// The fence of a put, which keeps every load from storing a value. It counts one put.
pub(crate) fn fence(key: &Key, now: u64, ttl: Duration) -> Entry {
    let mut bytes = header(Kind::Fence, &claim(key, now, ttl)).to_vec();
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    seal(bytes)
}

/// Returns whether a claim that ends in the store at `end` is dead by its own record: it is over, or ends in the store
/// later than it could. In that case its expiry was removed or changed.
pub(crate) fn is_dead(bytes: &[u8], now: u64, end: u64) -> bool {
    let says = bytes.get(FRESH_AT..).and_then(<[u8]>::first_chunk);
    let last = says
        .map_or(0, |says| u64::from_le_bytes(*says))
        .saturating_add(whole_millis(CLOCK_SKEW));
    now >= last || end > last
}

/// Returns whether the value of a key is a claim that is not over.
pub(crate) fn is_standing_claim(bytes: &[u8], key: &Key, now: u64) -> bool {
    matches!(check_header(bytes, key), Ok(Kind::Lease | Kind::Fence)) && !is_dead(bytes, now, now)
}

fn claim(key: &Key, now: u64, ttl: Duration) -> Draft<'_> {
    Draft {
        key,
        origin: Origin {
            build: Build::NONE,
            of_type: 0,
            version: 0,
        },
        layers: Layers::Nothing,
        now,
        fresh: ttl,
        cost: Duration::ZERO,
        tags: &[],
    }
}
