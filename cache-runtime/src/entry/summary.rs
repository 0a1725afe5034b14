//! What the header of an entry says about it, for people.

use serde::Serialize;

use super::header::{
    COMPRESSED, COST_AT, FLAGS_AT, FRESH_AT, Kind, STORED_AT, VERSION_AT, bytes_at, check,
    number_at, refreshed_until,
};
use super::{payload, tags};
use crate::key::Key;

/// A value or a claim, by its header. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) kind: &'static str,
    /// Since when it is stored.
    pub(crate) age_ms: u64,
    /// How long it is fresh, or how long a claim stands. 0 is over: a value is stale then.
    pub(crate) fresh_ms: u64,
    pub(crate) is_being_refreshed: bool,
    /// How long the body ran that returned the value.
    pub(crate) load_ms: f64,
    pub(crate) is_compressed: bool,
    pub(crate) version: u64,
}

/// Returns what the header of `key` says, or [`None`] for anything but an entry of this format. It does not detect damage.
pub(crate) fn summary(header: &[u8], key: &Key, now: u64) -> Option<Summary> {
    let kind = match check(header, key, |_| true).ok()? {
        Kind::Value => "value",
        Kind::None => "none",
        Kind::Lease => "lease",
        Kind::Fence => "fence",
    };
    let cost = u32::from_le_bytes(bytes_at(header, COST_AT));
    Some(Summary {
        kind,
        age_ms: now.saturating_sub(number_at(header, STORED_AT)),
        fresh_ms: number_at(header, FRESH_AT).saturating_sub(now),
        is_being_refreshed: refreshed_until(header).is_some_and(|until| until > now),
        load_ms: f64::from(cost) / 1_000.0,
        is_compressed: header[FLAGS_AT] & COMPRESSED != 0,
        version: number_at(header, VERSION_AT),
    })
}

/// Returns the JSON of the value in an entry of `key`, of at most `most` bytes.
pub(crate) fn json_of(entry: &[u8], key: &Key, most: usize) -> Option<Vec<u8>> {
    if check(entry, key, |_| true).ok()? != Kind::Value {
        return None;
    }
    let payload = tags::payload(entry);
    let json = match entry[FLAGS_AT] & COMPRESSED {
        0 => payload.to_vec(),
        _ => payload::decompress(payload, most).ok()?,
    };
    (json.len() <= most).then_some(json)
}
