//! The header of an entry: where its fields are, how it is written, and whether bytes begin with one.

use std::time::Duration;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Unreadable;
use super::layers::Layers;
use super::origin::Origin;
use super::stamp::{Stamp, Tagged, new_stamp};
use crate::clock::whole_millis;
use crate::key::Key;

pub(crate) const MAGIC: &[u8] = &[0xca, 0xce, b'E'];
pub(super) const FORMAT: u8 = 3;
pub(crate) const HEADER: usize = 80;
pub(super) const COMPRESSED: u8 = 1;

/// The first format whose entries contain the length of the prefix of their key.
pub(crate) const PREFIXED_FORMAT: u8 = 3;

pub(super) const KIND_AT: usize = 4;
pub(super) const FLAGS_AT: usize = 5;
/// Where an entry keeps the length of its key's prefix, in [`PREFIXED_FORMAT`] and later ones.
pub(crate) const PREFIX_AT: usize = 6;
pub(super) const STAMP_AT: usize = 8;
pub(super) const KEY_AT: usize = 16;
const BUILD_AT: usize = 24;
const TYPE_AT: usize = 32;
pub(super) const VERSION_AT: usize = 40;
pub(super) const STORED_AT: usize = 48;
/// Where an entry keeps until when it is fresh, and a claim when it ends.
pub(crate) const FRESH_AT: usize = 56;
/// Where an entry keeps until when it is being refreshed.
pub(crate) const REFRESH_AT: usize = 64;
pub(super) const COST_AT: usize = 72;
const CHECKSUM_AT: usize = 76;

/// The first bytes of every entry of this format.
pub(crate) const START: [u8; 4] = [MAGIC[0], MAGIC[1], MAGIC[2], FORMAT];

/// The number of bytes that identify an entry.
pub(crate) const HEAD: usize = KIND_AT + 1;

/// Where a fence keeps the number of puts that share it.
pub(crate) const FENCE_COUNT_AT: usize = HEADER;

/// The size of that number in bytes.
const FENCE_COUNT: usize = 4;

/// What goes into the header of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) key: &'a Key,
    pub(crate) origin: Origin,
    pub(crate) layers: Layers,
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    pub(crate) fresh: Duration,
    /// How long the load took.
    pub(crate) cost: Duration,
    pub(crate) tags: &'a [Tagged],
}

/// An entry, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    bytes: Vec<u8>,
}

impl Entry {
    pub(crate) fn stamp(&self) -> Stamp {
        bytes_at(&self.bytes, STAMP_AT)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value that was loaded or set.
    Value = 1,
    /// A remembered `None`.
    None = 2,
    /// A caller loads.
    Lease = 3,
    /// A caller puts.
    Fence = 4,
}

pub(super) fn header(kind: Kind, draft: &Draft<'_>) -> [u8; HEADER] {
    let Draft {
        key,
        origin,
        layers: _,
        now,
        fresh,
        cost,
        tags: _,
    } = *draft;
    let fresh = whole_millis(fresh);
    let cost = u32::try_from(cost.as_micros()).unwrap_or(u32::MAX);
    let mut header = [0; HEADER];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, MAGIC);
    put(MAGIC.len(), &[FORMAT, kind as u8]);
    put(PREFIX_AT, &key.prefix_len().to_le_bytes());
    put(STAMP_AT, &new_stamp());
    put(KEY_AT, &key.hash().to_le_bytes());
    put(BUILD_AT, &origin.build.to_le_bytes());
    put(TYPE_AT, &origin.of_type.to_le_bytes());
    put(VERSION_AT, &origin.version.to_le_bytes());
    put(STORED_AT, &now.to_le_bytes());
    put(FRESH_AT, &now.saturating_add(fresh).to_le_bytes());
    put(COST_AT, &cost.to_le_bytes());
    header
}

pub(super) fn seal(mut bytes: Vec<u8>) -> Entry {
    let checksum = checksum(&bytes);
    bytes[CHECKSUM_AT..HEADER].copy_from_slice(&checksum);
    Entry { bytes }
}

/// The low half of one hash of everything but itself and what is changed in place; the hash of the header seeds that of the
/// rest.
pub(super) fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut header: [u8; CHECKSUM_AT] = bytes_at(bytes, 0);
    header[REFRESH_AT..COST_AT].fill(0);
    let start = match bytes[KIND_AT] == Kind::Fence as u8 {
        true => FENCE_COUNT_AT + FENCE_COUNT,
        false => HEADER,
    };
    let rest = bytes.get(start..).unwrap_or_default();
    let hash = xxh3_64_with_seed(rest, xxh3_64(&header));
    bytes_at(&hash.to_le_bytes(), 0)
}

pub(super) fn check_header(bytes: &[u8], key: &Key) -> Result<Kind, Unreadable> {
    check(bytes, key, |bytes| {
        checksum(bytes) == bytes[CHECKSUM_AT..HEADER]
    })
}

pub(super) fn check(
    bytes: &[u8],
    key: &Key,
    is_whole: fn(&[u8]) -> bool,
) -> Result<Kind, Unreadable> {
    let Some((format, _)) = bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first) else {
        return Err(Unreadable::Foreign);
    };
    if *format != FORMAT {
        return Err(Unreadable::Format);
    }
    if bytes.len() < HEADER {
        return Err(Unreadable::Corrupted);
    }
    let kind = match bytes[KIND_AT] {
        1 => Kind::Value,
        2 => Kind::None,
        3 => Kind::Lease,
        4 => Kind::Fence,
        _ => return Err(Unreadable::Corrupted),
    };
    if !is_whole(bytes) {
        return Err(Unreadable::Corrupted);
    }
    let prefix = u16::from_le_bytes(bytes_at(bytes, PREFIX_AT));
    if number_at(bytes, KEY_AT) != key.hash() || prefix != key.prefix_len() {
        return Err(Unreadable::OtherKey);
    }
    Ok(kind)
}

/// Returns the stamp of the value of a key for comparison, as much of it as exists.
pub(crate) fn stamp_of(bytes: &[u8]) -> &[u8] {
    let end = bytes.len().min(STAMP_AT + size_of::<Stamp>());
    bytes.get(STAMP_AT..end).unwrap_or_default()
}

/// Returns the stamp if it is complete.
pub(crate) fn whole_stamp_of(bytes: &[u8]) -> Option<Stamp> {
    stamp_of(bytes).try_into().ok()
}

/// Returns whether an entry that begins with this header is a value or a `None` of `key`, fresh or not.
pub(crate) fn is_value(header: &[u8], key: &Key) -> bool {
    matches!(check(header, key, |_| true), Ok(Kind::Value | Kind::None))
}

/// Returns how long a value or a `None` stays fresh, or [`None`] if the entry is neither. It needs only the header, so it
/// does not detect damage in the payload.
pub(crate) fn fresh_for(header: &[u8], key: &Key, now: u64) -> Option<Duration> {
    match check(header, key, |_| true) {
        Ok(Kind::Value | Kind::None) => {
            let left = number_at(header, FRESH_AT).saturating_sub(now);
            (left > 0).then(|| Duration::from_millis(left))
        }
        _ => None,
    }
}

/// Returns the same value or `None` with another TTL, and the stamp of the entry that it replaces.
pub(crate) fn with_ttl(bytes: &[u8], key: &Key, now: u64, ttl: Duration) -> Option<(Stamp, Entry)> {
    check_header(bytes, key).ok()?;
    fresh_for(bytes, key, now)?;
    let seen = bytes_at(bytes, STAMP_AT);
    let mut bytes = bytes.to_vec();
    set_refreshed_until(&mut bytes, 0);
    bytes[STAMP_AT..KEY_AT].copy_from_slice(&new_stamp());
    bytes[FRESH_AT..FRESH_AT + 8]
        .copy_from_slice(&now.saturating_add(whole_millis(ttl)).to_le_bytes());
    Some((seen, seal(bytes)))
}

/// Returns until when an entry is being refreshed, in milliseconds since 1970, or [`None`] if it is not an entry of this
/// format.
pub(crate) fn refreshed_until(bytes: &[u8]) -> Option<u64> {
    let mark = bytes
        .starts_with(&START)
        .then(|| bytes.get(REFRESH_AT..)?.first_chunk());
    mark.flatten().copied().map(u64::from_le_bytes)
}

/// Changes that in place.
pub(crate) fn set_refreshed_until(bytes: &mut [u8], until: u64) {
    if let Some(mark) = bytes.get_mut(REFRESH_AT..COST_AT) {
        mark.copy_from_slice(&until.to_le_bytes());
    }
}

/// The origin of a value or a `None`.
pub(crate) fn origin_of(bytes: &[u8]) -> Option<Origin> {
    (bytes.len() >= HEADER).then(|| Origin {
        build: number_at(bytes, BUILD_AT),
        of_type: number_at(bytes, TYPE_AT),
        version: number_at(bytes, VERSION_AT),
    })
}

pub(super) fn number_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

/// The bytes of a header that has been found long enough.
pub(super) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&bytes[at..at + N]);
    found
}
