//! The stored entry: the value of a key in Redis, how it is encoded, and why an entry is unreadable.
//!
//! A header of 80 bytes, numbers with the low byte first, then the payload:
//!
//! | bytes | |
//! |---|---|
//! | 0 to 3 | `CA CE 45` and the format, 3 |
//! | 4 | kind: 1 value, 2 none, 3 lease, 4 fence |
//! | 5 | flags: 1 means that the payload is compressed |
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
mod card;
mod layers;
mod origin;
mod payload;
mod walk;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(crate) use self::layers::Layers;
pub(crate) use self::origin::{Build, Origin};
use crate::clock::whole_millis;
use crate::key::Key;

pub(crate) const MAGIC: &[u8] = &[0xca, 0xce, b'E'];
const FORMAT: u8 = 3;
pub(crate) const HEADER: usize = 80;
const COMPRESSED: u8 = 1;

/// The first format whose entries contain the length of the prefix of their key.
pub(crate) const PREFIXED_FORMAT: u8 = 3;

const KIND_AT: usize = 4;
const FLAGS_AT: usize = 5;
/// Where an entry keeps the length of its key's prefix, in [`PREFIXED_FORMAT`] and later ones.
pub(crate) const PREFIX_AT: usize = 6;
const STAMP_AT: usize = 8;
const KEY_AT: usize = 16;
const BUILD_AT: usize = 24;
const TYPE_AT: usize = 32;
const VERSION_AT: usize = 40;
const STORED_AT: usize = 48;
/// Where an entry keeps until when it is fresh, and a claim when it ends.
pub(crate) const FRESH_AT: usize = 56;
/// Where an entry keeps until when it is being refreshed.
pub(crate) const REFRESH_AT: usize = 64;
const COST_AT: usize = 72;
const CHECKSUM_AT: usize = 76;

/// The first bytes of every entry of this format.
pub(crate) const START: [u8; 4] = [MAGIC[0], MAGIC[1], MAGIC[2], FORMAT];

/// The number of bytes that identify an entry.
pub(crate) const HEAD: usize = KIND_AT + 1;

/// Where a fence keeps the number of puts that share it.
pub(crate) const FENCE_COUNT_AT: usize = HEADER;

/// The size of that number in bytes.
const FENCE_COUNT: usize = 4;

/// Redis and entries count in milliseconds, so a shorter TTL is not possible.
pub(crate) const MIN_LIFE: Duration = Duration::from_millis(1);

/// Distinguishes an entry from every earlier or later one under its key.
pub(crate) type Stamp = [u8; 8];

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
}

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

/// An entry, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    bytes: Vec<u8>,
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

/// What the header contains about a value or a `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) stamp: Stamp,
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

/// A value to be stored, without its type, so the code that stores it is compiled once and not for each type.
pub(crate) trait Value {
    /// Appends its JSON of at most `max` bytes.
    fn encode(&self, json: &mut Vec<u8>, max: usize) -> Result<(), Refusal>;

    /// Returns whether each `null` in its JSON round-trips.
    fn has_plain_nulls(&self, layers: Layers) -> bool;

    /// Decodes its own JSON and encodes it again, and compares.
    fn check_round_trip(&self, json: &[u8], layers: Layers) -> Result<(), Refusal>;
}

impl<T: Serialize + DeserializeOwned> Value for T {
    fn encode(&self, json: &mut Vec<u8>, max: usize) -> Result<(), Refusal> {
        payload::encode(self, json, max)
    }

    fn has_plain_nulls(&self, layers: Layers) -> bool {
        payload::caught(|| Ok(walk::comes_back(self, layers))).unwrap_or(false)
    }

    fn check_round_trip(&self, json: &[u8], layers: Layers) -> Result<(), Refusal> {
        let again: T = payload::decode(json, layers).map_err(Refusal::Undecodable)?;
        match payload::is_encoded(&again, json, layers) {
            true => Ok(()),
            false => Err(Refusal::Changed),
        }
    }
}

/// The entry of a value.
pub(crate) fn value(
    draft: &Draft<'_>,
    value: &dyn Value,
    limits: &Limits,
) -> Result<Entry, Refusal> {
    let mut bytes = Vec::with_capacity(HEADER + 256);
    bytes.extend_from_slice(&header(Kind::Value, draft));
    let layers = draft.layers;
    value.encode(&mut bytes, limits.max_value)?;
    layers.strip(&mut bytes, HEADER);
    let json = &bytes[HEADER..];
    if json.windows(4).any(|word| word == b"null") && !value.has_plain_nulls(layers) {
        let text = "a `Some` around a null and a non-finite float do not round-trip through JSON";
        return Err(Refusal::Encode(serde::ser::Error::custom(text)));
    }
    if limits.card_guard && card::contains(json) {
        return Err(Refusal::Card);
    }
    if payload::is_too_deep(json) {
        return Err(Refusal::TooDeep);
    }
    if limits.checks {
        value.check_round_trip(json, layers)?;
    }
    if json.len() > limits.compress_above
        && let Some(compressed) = payload::compress(json)
    {
        bytes.truncate(HEADER);
        bytes[FLAGS_AT] |= COMPRESSED;
        bytes.extend_from_slice(&compressed);
    }
    Ok(seal(bytes))
}

/// The entry that remembers a `None`.
pub(crate) fn none(draft: &Draft<'_>) -> Entry {
    seal(header(Kind::None, draft).to_vec())
}

/// The claim of a load on its key, for `life` from now on.
pub(crate) fn lease(key: &Key, now: u64, life: Duration) -> Entry {
    seal(header(Kind::Lease, &claim(key, now, life)).to_vec())
}

/// The same claim, for `life` from now on.
pub(crate) fn renewed_lease(stamp: Stamp, key: &Key, now: u64, life: Duration) -> Entry {
    let mut bytes = header(Kind::Lease, &claim(key, now, life));
    bytes[STAMP_AT..KEY_AT].copy_from_slice(&stamp);
    seal(bytes.to_vec())
}

/// The fence of a put, which keeps every load from storing a value. It counts one put.
pub(crate) fn fence(key: &Key, now: u64, life: Duration) -> Entry {
    let mut bytes = header(Kind::Fence, &claim(key, now, life)).to_vec();
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    seal(bytes)
}

/// How far the clocks of the processes that share a store may differ. A claim ends this much later than it records.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(60);

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

/// Eight random bytes.
pub(crate) fn new_stamp() -> Stamp {
    use std::hash::{BuildHasher, RandomState};
    // The operating system hardly ever refuses. The standard library then still has a number that is different for every
    // process, and for every call in it.
    getrandom::u64()
        .unwrap_or_else(|_| RandomState::new().hash_one(std::time::Instant::now()))
        .to_le_bytes()
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
pub(crate) fn with_life(
    bytes: &[u8],
    key: &Key,
    now: u64,
    life: Duration,
) -> Option<(Stamp, Entry)> {
    check_header(bytes, key).ok()?;
    fresh_for(bytes, key, now)?;
    let seen = bytes_at(bytes, STAMP_AT);
    let mut bytes = bytes.to_vec();
    set_refreshed_until(&mut bytes, 0);
    bytes[STAMP_AT..KEY_AT].copy_from_slice(&new_stamp());
    bytes[FRESH_AT..FRESH_AT + 8]
        .copy_from_slice(&now.saturating_add(whole_millis(life)).to_le_bytes());
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

/// The `None` of a type that has layers.
pub(crate) fn none_of<T: DeserializeOwned>(layers: Layers) -> Option<T> {
    payload::decode(layers.none()?, Layers::Nothing).ok()
}

/// The origin of a value or a `None`.
pub(crate) fn origin_of(bytes: &[u8]) -> Option<Origin> {
    (bytes.len() >= HEADER).then(|| Origin {
        build: number_at(bytes, BUILD_AT),
        of_type: number_at(bytes, TYPE_AT),
        version: number_at(bytes, VERSION_AT),
    })
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
    /// Left out, behind the header.
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

    /// Returns the value, if it is a `T`.
    pub(crate) fn decode<T: Serialize + DeserializeOwned>(
        &self,
        layers: Layers,
    ) -> Result<T, Unreadable> {
        let Payload {
            decompressed,
            is_trusted,
        } = &self.payload;
        let text = match decompressed {
            Some(text) => text,
            None => self.entry.get(HEADER..).unwrap_or_default(),
        };
        match payload::decode(text, layers) {
            Ok(value) if *is_trusted || payload::is_encoded(&value, text, layers) => Ok(value),
            Err(error) if *is_trusted => Err(Unreadable::Undecodable(error.to_string())),
            Ok(_) | Err(_) => Err(Unreadable::OtherShape),
        }
    }
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

/// The same with the value.
#[cfg(test)]
pub(crate) fn read_as<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    reader: &Reader<'_>,
) -> Read<T> {
    match read(bytes, reader) {
        Read::Value(payload, meta) => {
            match Json::new(bytes.to_vec(), payload).decode(Layers::Nothing) {
                Ok(value) => Read::Value(value, meta),
                Err(reason) => Read::Unreadable(reason),
            }
        }
        Read::None(meta) => Read::None(meta),
        Read::Lease => Read::Lease,
        Read::Fence => Read::Fence,
        Read::Expired => Read::Expired,
        Read::Unreadable(reason) => Read::Unreadable(reason),
    }
}

/// Returns what the entry of `key` is, by its header, or why it cannot be read, or nothing for a claim that is over.
pub(crate) fn peek(bytes: &[u8], key: &Key, now: u64) -> Result<Kind, Option<Unreadable>> {
    match check_header(bytes, key)? {
        Kind::Lease | Kind::Fence if is_dead(bytes, now, now) => Err(None),
        kind => Ok(kind),
    }
}

fn check_header(bytes: &[u8], key: &Key) -> Result<Kind, Unreadable> {
    check(bytes, key, |bytes| {
        checksum(bytes) == bytes[CHECKSUM_AT..HEADER]
    })
}

fn check(bytes: &[u8], key: &Key, is_whole: fn(&[u8]) -> bool) -> Result<Kind, Unreadable> {
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

fn read_value(bytes: &[u8], kind: Kind, reader: &Reader<'_>) -> Result<Read<Payload>, Unreadable> {
    let origin = origin_of(bytes).ok_or(Unreadable::Corrupted)?;
    let is_same_build = reader.origin.is_same_build(&origin);
    if origin.version != reader.origin.version {
        return Err(Unreadable::OtherShape);
    }
    let is_trusted = is_same_build && origin.of_type == reader.origin.of_type;
    let meta = Meta {
        stamp: bytes_at(bytes, STAMP_AT),
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
    let payload = &bytes[HEADER..];
    let decompressed = match bytes[FLAGS_AT] {
        0 if payload.len() <= reader.max_value => None,
        0 => return Err(Unreadable::TooLarge),
        COMPRESSED => Some(payload::decompress(payload, reader.max_value)?),
        _ => return Err(Unreadable::Format),
    };
    let payload = Payload {
        decompressed,
        is_trusted,
    };
    Ok(Read::Value(payload, meta))
}

fn claim(key: &Key, now: u64, life: Duration) -> Draft<'_> {
    Draft {
        key,
        origin: Origin {
            build: Build::NONE,
            of_type: 0,
            version: 0,
        },
        layers: Layers::Nothing,
        now,
        fresh: life,
        cost: Duration::ZERO,
    }
}

fn header(kind: Kind, draft: &Draft<'_>) -> [u8; HEADER] {
    let Draft {
        key,
        origin,
        layers: _,
        now,
        fresh,
        cost,
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

fn seal(mut bytes: Vec<u8>) -> Entry {
    let checksum = checksum(&bytes);
    bytes[CHECKSUM_AT..HEADER].copy_from_slice(&checksum);
    Entry { bytes }
}

/// The low half of one hash of everything but itself and what is changed in place; the hash of the header seeds that of the
/// rest.
fn checksum(bytes: &[u8]) -> [u8; 4] {
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

fn number_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

/// The bytes of a header that has been found long enough.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&bytes[at..at + N]);
    found
}

#[cfg(test)]
mod tests;
