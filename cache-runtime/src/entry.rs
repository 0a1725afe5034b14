//! The stored entry: the value of a key in Redis, how it is encoded, and why an entry is unreadable.
//!
//! A header of 80 bytes, numbers with the low byte first, then the payload:
//!
//! | bytes | |
//! |---|---|
//! | 0 to 3 | `CA CE 45` and the format, 3 |
//! | 4 | kind: 1 value, 2 none, 3 lease, 4 fence |
//! | 5 | flags: 1 means that the payload is compressed, 2 that [tags] stand between the header and the payload |
//! | 6 to 7 | length of the prefix of the key, by which caches whose prefixes begin with one another tell their entries apart |
//! | 8 to 15 | stamp: random, another for every entry |
//! | 16 to 23 | hash of the key |
//! | 24 to 31 | [build](origin) of the program that wrote it; 0 is unknown |
//! | 32 to 39 | the value's type, a number that only the same build understands |
//! | 40 to 47 | `version` of the attribute |
//! | 48 to 55 | when it was stored, in milliseconds since 1970 |
//! | 56 to 63 | until when it is fresh, the same; of a lease and a fence: when it ends |
//! | 64 to 71 | until when somebody refreshes it, the same by the store's clock; changed in place |
//! | 72 to 75 | what the load cost, in microseconds |
//! | 76 to 79 | checksum over all the rest but bytes 64 to 71, and but the count of a fence |
//!
//! An entry of the same build, type and version is trusted. One of another version is a miss. Any other is served if it encodes to
//! the same payload again after it was decoded: so a deploy that changes a type finds misses and no garbage, and programs that
//! have the same types share entries.
//!
//! A value's payload is JSON; when compressed, an LZ4 block behind the length of the JSON in four bytes. A fence's is a
//! count of four bytes, which Redis changes by a script.

mod block;
mod claim;
mod header;
mod inspect;
mod layers;
mod origin;
mod payload;
mod payment_card;
mod stamp;
#[cfg(feature = "admin")]
mod summary;
mod tags;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use self::claim::{CLOCK_SKEW, fence, is_dead, is_standing_claim, lease, renewed_lease};
use self::header::{
    COMPRESSED, FLAGS_AT, STAMP_AT, STORED_AT, bytes_at, check_header, header, number_at, seal,
};
pub(crate) use self::header::{
    Draft, Entry, FENCE_COUNT_AT, FRESH_AT, HEAD, HEADER, Kind, MAGIC, PREFIX_AT, PREFIXED_FORMAT,
    REFRESH_AT, START, fresh_for, is_value, origin_of, refreshed_until, set_refreshed_until,
    stamp_of, whole_stamp_of, with_ttl,
};
pub(crate) use self::layers::Layers;
pub(crate) use self::origin::{Build, Origin};
pub(crate) use self::payload::{Value, caught};
pub(crate) use self::stamp::{FENCED, STAMP_TEXT, Stamp, Tagged, new_stamp, stamp_in, stamp_text};
#[cfg(feature = "admin")]
pub(crate) use self::summary::{Summary, json_of, summary};
use self::tags::TAGGED;
pub(crate) use self::tags::{has_tags, tags};
use crate::key::Key;

/// Redis and entries count in milliseconds, so a shorter TTL is not possible.
pub(crate) const MIN_TTL: Duration = Duration::from_millis(1);

/// The limits for values that are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In bytes of JSON.
    pub(crate) max_value: usize,
    /// In bytes of JSON.
    pub(crate) compress_above: usize,
    pub(crate) card_guard: bool,
    /// Whether the value is decoded again, to check that it round-trips.
    pub(crate) checks: bool,
}

/// Why a value is not stored.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It has at least this many bytes of JSON. The rest was not encoded.
    TooLarge {
        bytes: usize,
    },
    /// It contains a payment card number.
    Card,
    Encode(serde_json::Error),
    /// It is nested too deeply to be read back.
    TooDeep,
    /// Its type cannot decode what it encodes.
    Undecodable(serde_json::Error),
    /// Its type decodes a different value than it encoded.
    Changed,
}

/// The entry of a value.
pub(crate) fn value(
    draft: &Draft<'_>,
    value: &dyn Value,
    limits: &Limits,
) -> Result<Entry, Refusal> {
    let mut bytes = Vec::with_capacity(HEADER + 256);
    bytes.extend_from_slice(&header(Kind::Value, draft));
    tags::write(draft.tags, &mut bytes);
    let (start, layers) = (bytes.len(), draft.layers);
    payload::encode(value, &mut bytes, limits.max_value)?;
    layers.strip(&mut bytes, start);
    let json = &bytes[start..];
    if json.windows(4).any(|word| word == b"null") && !payload::has_plain_nulls(value, layers) {
        let text = "a `Some` around a null and a non-finite float do not round-trip through JSON";
        return Err(Refusal::Encode(serde::ser::Error::custom(text)));
    }
    if limits.card_guard && payment_card::contains(json) {
        return Err(Refusal::Card);
    }
    if payload::is_too_deep(json) {
        return Err(Refusal::TooDeep);
    }
    if limits.checks {
        payload::check_round_trip(value, json, layers)?;
    }
    if json.len() > limits.compress_above
        && let Some(compressed) = payload::compress(json)
    {
        bytes.truncate(start);
        bytes[FLAGS_AT] |= COMPRESSED;
        bytes.extend_from_slice(&compressed);
    }
    Ok(seal(bytes))
}

/// Returns how many bytes of JSON the entry of a value holds, before compression.
pub(crate) fn json_bytes(entry: &[u8]) -> usize {
    let payload = tags::payload(entry);
    match entry.get(FLAGS_AT) {
        Some(flags) if flags & COMPRESSED != 0 => {
            payload::decompressed_bytes(payload).unwrap_or_default()
        }
        _ => payload.len(),
    }
}

/// Returns a hash of the value in an entry.
pub(crate) fn value_hash(entry: &[u8]) -> u64 {
    xxh3_64(tags::payload(entry))
}

/// The entry that remembers a `None`.
pub(crate) fn none(draft: &Draft<'_>) -> Entry {
    let mut bytes = header(Kind::None, draft).to_vec();
    tags::write(draft.tags, &mut bytes);
    seal(bytes)
}

/// What the header contains about a value or a `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) stamp: Stamp,
    /// When it was stored, in milliseconds since 1970.
    pub(crate) stored: u64,
    pub(crate) fresh_until: u64,
    /// Whether it has another origin than its reader and was checked.
    pub(crate) is_checked: bool,
}

impl Meta {
    /// Returns whether its TTL is over, so it may be served only within its grace.
    pub(crate) fn is_stale(&self, now: u64) -> bool {
        now >= self.fresh_until
    }
}

/// What a reader finds. A value or a `None` may be [stale](Meta::is_stale), within the grace of the reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read<T> {
    Value(T, Meta),
    None(Meta),
    Lease,
    Fence,
    /// A value or a `None` whose TTL and grace are over, which was not decoded. Or a claim that is over.
    Expired,
    Unreadable(Unreadable),
}

/// Why an entry is a miss and must be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not written by this framework.
    Foreign,
    /// Written by another version of it, in another format.
    Format,
    /// Damaged.
    Corrupted,
    /// JSON that its own type cannot decode, and the message of serde.
    Undecodable(String),
    /// Larger than the limit for stored values.
    TooLarge,
    /// The reply to another request.
    OtherKey,
    /// The value of another type, of this type before it changed, or of another version.
    OtherShape,
}

/// The reader, and what it may read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) key: &'a Key,
    pub(crate) origin: Origin,
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    /// How long it serves stale values, in milliseconds.
    pub(crate) grace: u64,
    /// In bytes of JSON.
    pub(crate) max_value: usize,
}

/// Reads the entry of the reader's key, up to the JSON of its value.
pub(crate) fn read(bytes: &[u8], reader: &Reader<'_>) -> Read<Payload> {
    match peek(bytes, reader.key, reader.now) {
        Ok(Kind::Lease) => Read::Lease,
        Ok(Kind::Fence) => Read::Fence,
        Ok(kind) => read_value(bytes, kind, reader).unwrap_or_else(Read::Unreadable),
        Err(Some(unreadable)) => Read::Unreadable(unreadable),
        Err(None) => Read::Expired,
    }
}

/// Returns what the entry of `key` is, by its header, or why it cannot be read, or nothing for a claim that is over.
pub(crate) fn peek(bytes: &[u8], key: &Key, now: u64) -> Result<Kind, Option<Unreadable>> {
    match check_header(bytes, key)? {
        Kind::Lease | Kind::Fence if is_dead(bytes, now, now) => Err(None),
        kind => Ok(kind),
    }
}

fn read_value(bytes: &[u8], kind: Kind, reader: &Reader<'_>) -> Result<Read<Payload>, Unreadable> {
    let origin = origin_of(bytes).ok_or(Unreadable::Corrupted)?;
    let is_same_build = reader.origin.is_same_build(&origin);
    if origin.version != reader.origin.version {
        return Err(Unreadable::OtherShape);
    }
    let is_trusted = is_same_build && origin.of_type == reader.origin.of_type;
    let meta = Meta {
        stamp: bytes_at(bytes, STAMP_AT),
        stored: number_at(bytes, STORED_AT),
        fresh_until: number_at(bytes, FRESH_AT),
        is_checked: !is_trusted,
    };
    if meta.is_stale(reader.now.saturating_sub(reader.grace)) {
        return Ok(Read::Expired);
    }
    if kind == Kind::None {
        // Another build has other numbers for its types, and a `None` has nothing to be checked by.
        return match is_trusted || !is_same_build {
            true => Ok(Read::None(meta)),
            false => Err(Unreadable::OtherShape),
        };
    }
    let start = tags::payload_at(bytes);
    let Some(payload) = bytes.get(start..) else {
        return Err(Unreadable::Corrupted);
    };
    let decompressed = match bytes[FLAGS_AT] & !TAGGED {
        0 if payload.len() <= reader.max_value => None,
        0 => return Err(Unreadable::TooLarge),
        COMPRESSED => Some(payload::decompress(payload, reader.max_value)?),
        _ => return Err(Unreadable::Format),
    };
    let payload = Payload {
        start,
        decompressed,
        is_trusted,
    };
    Ok(Read::Value(payload, meta))
}

/// The JSON of a value, in its entry.
#[derive(Debug)]
pub(crate) struct Json {
    entry: Vec<u8>,
    payload: Payload,
}

/// Where the JSON of a value is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Where it begins in the entry.
    start: usize,
    /// [`None`] if it is there as it is.
    decompressed: Option<Vec<u8>>,
    /// Whether it was written by this program from this type. Any other is checked.
    is_trusted: bool,
}

impl Json {
    pub(crate) fn new(entry: Vec<u8>, payload: Payload) -> Self {
        Self { entry, payload }
    }

    pub(crate) fn into_entry(self) -> Vec<u8> {
        self.entry
    }

    /// Returns the value, if it is a `T`. The code of the type may panic.
    #[inline(always)]
    pub(crate) fn decode<T: Serialize + DeserializeOwned>(
        &self,
        layers: Layers,
    ) -> Result<T, Unreadable> {
        let value = match payload::decode(self.text(), layers) {
            Ok(value) => value,
            Err(error) => return Err(self.undecodable(&error)),
        };
        match self.is_sound(&value, layers) {
            true => Ok(value),
            false => Err(Unreadable::OtherShape),
        }
    }

    /// Runs what decodes the value. If the code of its type panics, the value is undecodable.
    pub(crate) fn decode_by(
        &self,
        decode: impl FnOnce(&Self) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        payload::caught(|| decode(self))
            .unwrap_or_else(|| Err(self.undecodable(&payload::panicked())))
    }

    fn text(&self) -> &[u8] {
        match &self.payload.decompressed {
            Some(text) => text,
            None => self.entry.get(self.payload.start..).unwrap_or_default(),
        }
    }

    fn is_sound(&self, value: &dyn Value, layers: Layers) -> bool {
        self.payload.is_trusted || payload::is_encoded(value, self.text(), layers)
    }

    fn undecodable(&self, error: &serde_json::Error) -> Unreadable {
        match self.payload.is_trusted {
            true => Unreadable::Undecodable(error.to_string()),
            false => Unreadable::OtherShape,
        }
    }
}

/// The `None` of a type that has layers. The code of the type may panic.
#[expect(
    clippy::question_mark,
    clippy::manual_ok_err,
    reason = "a combinator is compiled again for every type"
)]
pub(crate) fn none_of<T: DeserializeOwned>(layers: Layers) -> Option<T> {
    let Some(none) = layers.none() else {
        return None;
    };
    match payload::decode(none, Layers::Nothing) {
        Ok(none) => Some(none),
        Err(_) => None,
    }
}

/// The same with the value.
#[cfg(test)]
pub(crate) fn read_as<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    reader: &Reader<'_>,
) -> Read<T> {
    match read(bytes, reader) {
        Read::Value(payload, meta) => {
            let mut value = None;
            let decoded = Json::new(bytes.to_vec(), payload).decode_by(|json| {
                value = Some(json.decode(Layers::Nothing)?);
                Ok(())
            });
            match (decoded, value) {
                (Ok(()), Some(value)) => Read::Value(value, meta),
                (decoded, _) => Read::Unreadable(decoded.expect_err("there is no value")),
            }
        }
        Read::None(meta) => Read::None(meta),
        Read::Lease => Read::Lease,
        Read::Fence => Read::Fence,
        Read::Expired => Read::Expired,
        Read::Unreadable(reason) => Read::Unreadable(reason),
    }
}

#[cfg(test)]
mod tests;
