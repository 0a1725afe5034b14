//! The stored entry: what stands in Redis under a key, how it is written, and what an unreadable one means.
//!
//! A header of 72 bytes, numbers with the low byte first, then the payload:
//!
//! | bytes | |
//! |---|---|
//! | 0 to 3 | `CA CE 45` and the format, 2 |
//! | 4 | kind: 1 value, 2 none, 3 lease, 4 fence |
//! | 5 | flags: 1 means that the payload is compressed |
//! | 6 to 7 | length of the section between header and payload, which readers skip |
//! | 8 to 15 | stamp: random, another for every entry |
//! | 16 to 23 | hash of the key |
//! | 24 to 31 | fingerprint of the value's [shape](shape) |
//! | 32 to 39 | epoch |
//! | 40 to 47 | when it was stored, in milliseconds since 1970 |
//! | 48 to 55 | until when it is fresh, the same |
//! | 56 to 63 | until when somebody refreshes it, the same by the store's clock; changed in place |
//! | 64 to 67 | what the load cost, in microseconds |
//! | 68 to 71 | checksum over all the rest but bytes 56 to 63; of a value and a none only |
//!
//! A value's payload is JSON; when compressed, an LZ4 block behind the length of the JSON in four bytes. A fence's is a
//! count of four bytes, which Redis changes by a script: that is why its checksum is not used.

mod card;
mod null;
pub(crate) mod shape;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::clock::whole_millis;
use crate::key::Key;

const MAGIC: &[u8] = &[0xca, 0xce, b'E'];
const FORMAT: u8 = 2;
const HEADER: usize = 72;
const COMPRESSED: u8 = 1;

const KIND_AT: usize = 4;
const FLAGS_AT: usize = 5;
const SECTION_AT: usize = 6;
const STAMP_AT: usize = 8;
const KEY_AT: usize = 16;
const SHAPE_AT: usize = 24;
const EPOCH_AT: usize = 32;
const STORED_AT: usize = 40;
const FRESH_AT: usize = 48;
/// Where an entry keeps until when somebody refreshes it.
pub(crate) const REFRESH_AT: usize = 56;
const COST_AT: usize = 64;
const CHECKSUM_AT: usize = 68;

/// How every entry of this format begins.
pub(crate) const START: [u8; 4] = [MAGIC[0], MAGIC[1], MAGIC[2], FORMAT];

/// How many bytes tell what an entry is.
pub(crate) const HEAD: usize = KIND_AT + 1;

/// Where a fence keeps how many puts it stands for.
pub(crate) const FENCE_COUNT_AT: usize = HEADER;

/// Redis counts in milliseconds, and so does an entry: less is no life.
pub(crate) const SHORTEST_LIFE: Duration = Duration::from_millis(1);

/// By what one entry is told from any other that stood or will stand under its key.
pub(crate) type Stamp = [u8; 8];

/// What goes into the header of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) key: &'a Key,
    pub(crate) shape: u64,
    pub(crate) epoch: u64,
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    pub(crate) fresh: Duration,
    /// How long the load took.
    pub(crate) cost: Duration,
}

/// Which values may be stored, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In bytes of JSON.
    pub(crate) max_value: usize,
    /// In bytes of JSON.
    pub(crate) compress_above: usize,
    pub(crate) card_guard: bool,
}

/// Why a value is not stored.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It has at least so many bytes of JSON; the rest was not written.
    TooLarge {
        bytes: usize,
    },
    /// It contains a payment card number.
    Card,
    Encode(serde_json::Error),
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
    /// Somebody loads.
    Lease = 3,
    /// Somebody puts.
    Fence = 4,
}

/// What the header says about a value or a none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) stamp: Stamp,
    pub(crate) epoch: u64,
    pub(crate) stored_at: u64,
    pub(crate) fresh_until: u64,
    pub(crate) cost: Duration,
}

impl Meta {
    /// Whether its fresh life is over, and only its grace lets it be served.
    pub(crate) fn is_stale(&self, now: u64) -> bool {
        now >= self.fresh_until
    }
}

/// What a reader finds. A value and a none may be [stale](Meta::is_stale), within the reader's grace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read<T> {
    Value(T, Meta),
    None(Meta),
    Lease,
    Fence,
    /// A value or a none whose fresh life is over, and its grace with it; it was not decoded.
    Expired,
    Unreadable(Unreadable),
}

/// Why an entry is a miss and has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Unreadable {
    /// Not written by this framework.
    Foreign,
    /// Written by another version of it, in another format.
    Format,
    /// Damaged, or JSON that its own type does not take back.
    Corrupted,
    /// The answer to somebody else's question.
    OtherKey,
    /// The value of another type, or of this type before it changed.
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

/// The entry of a value.
pub(crate) fn value<T: Serialize + ?Sized>(
    draft: &Draft<'_>,
    value: &T,
    limits: &Limits,
) -> Result<Entry, Refusal> {
    let mut bytes = Vec::with_capacity(HEADER + 256);
    bytes.extend_from_slice(&header(Kind::Value, draft));
    let mut payload = Bounded {
        bytes: &mut bytes,
        room: limits.max_value,
        refused: 0,
    };
    if let Err(error) = caught(|| serde_json::to_writer(&mut payload, value)) {
        return Err(match payload.refused {
            0 => Refusal::Encode(error),
            refused => Refusal::TooLarge {
                bytes: bytes.len() - HEADER + refused,
            },
        });
    }
    let json = &bytes[HEADER..];
    if json.windows(4).any(|word| word == b"null")
        && !caught(|| Ok(null::comes_back(value))).unwrap_or(false)
    {
        let text = "a `Some` around a null, or a float that is not finite, would come back as something else";
        return Err(Refusal::Encode(serde::ser::Error::custom(text)));
    }
    if limits.card_guard && card::contains(json) {
        return Err(Refusal::Card);
    }
    if json.len() > limits.compress_above
        && let Some(compressed) = compress(&bytes)
    {
        bytes = compressed;
    }
    Ok(seal(bytes))
}

/// The entry that remembers a `None`.
pub(crate) fn none(draft: &Draft<'_>) -> Entry {
    seal(header(Kind::None, draft).to_vec())
}

/// The claim of a load on its key.
pub(crate) fn lease(key: &Key, now: u64) -> Entry {
    Entry {
        bytes: header(Kind::Lease, &claim(key, now)).to_vec(),
    }
}

/// What a put stands behind, and with it every reader and every load; it counts one put.
pub(crate) fn fence(key: &Key, now: u64) -> Entry {
    let mut bytes = header(Kind::Fence, &claim(key, now)).to_vec();
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    Entry { bytes }
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

/// The stamp of whatever stands under a key, to compare it with: as much of it as there is.
pub(crate) fn stamp_of(bytes: &[u8]) -> &[u8] {
    let end = bytes.len().min(STAMP_AT + size_of::<Stamp>());
    bytes.get(STAMP_AT..end).unwrap_or_default()
}

/// The same where it is whole.
pub(crate) fn whole_stamp_of(bytes: &[u8]) -> Option<Stamp> {
    stamp_of(bytes).try_into().ok()
}

/// Whether an entry that begins so is a lease or a fence.
pub(crate) fn is_claim(head: &[u8]) -> bool {
    head.strip_prefix(MAGIC)
        .is_some_and(|rest| matches!(rest, [FORMAT, 3 | 4, ..]))
}

/// For how long a value or a none stays fresh; [`None`] where there is neither.
pub(crate) fn fresh_for(bytes: &[u8], key: &Key, now: u64) -> Option<Duration> {
    match check_header(bytes, key) {
        Ok(Kind::Value | Kind::None) => {
            let left = number_at(bytes, FRESH_AT).saturating_sub(now);
            (left > 0).then(|| Duration::from_millis(left))
        }
        _ => None,
    }
}

/// The same value or none with another life, and the stamp of the one that it is to replace.
pub(crate) fn with_life(
    bytes: &[u8],
    key: &Key,
    now: u64,
    life: Duration,
) -> Option<(Stamp, Entry)> {
    fresh_for(bytes, key, now)?;
    let seen = bytes_at(bytes, STAMP_AT);
    let mut bytes = bytes.to_vec();
    set_refreshed_until(&mut bytes, 0);
    bytes[STAMP_AT..KEY_AT].copy_from_slice(&new_stamp());
    bytes[FRESH_AT..FRESH_AT + 8]
        .copy_from_slice(&now.saturating_add(whole_millis(life)).to_le_bytes());
    Some((seen, seal(bytes)))
}

/// Until when somebody refreshes an entry, in milliseconds since 1970; [`None`] where no entry of this format can say so.
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

/// Reads the entry of `key`, if it is a `T` of this shape, and fresh at `served_from` or later. That is now, or as much earlier
/// as the reader's grace is long.
pub(crate) fn read<T: DeserializeOwned>(
    bytes: &[u8],
    key: &Key,
    shape: u64,
    served_from: u64,
) -> Read<T> {
    match check_header(bytes, key) {
        Ok(Kind::Lease) => Read::Lease,
        Ok(Kind::Fence) => Read::Fence,
        Ok(kind) => read_value(bytes, kind, shape, served_from).unwrap_or_else(Read::Unreadable),
        Err(unreadable) => Read::Unreadable(unreadable),
    }
}

fn check_header(bytes: &[u8], key: &Key) -> Result<Kind, Unreadable> {
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
    if matches!(kind, Kind::Value | Kind::None) && checksum(bytes) != bytes[CHECKSUM_AT..HEADER] {
        return Err(Unreadable::Corrupted);
    }
    if number_at(bytes, KEY_AT) != key.hash() {
        return Err(Unreadable::OtherKey);
    }
    Ok(kind)
}

fn read_value<T: DeserializeOwned>(
    bytes: &[u8],
    kind: Kind,
    shape: u64,
    served_from: u64,
) -> Result<Read<T>, Unreadable> {
    if number_at(bytes, SHAPE_AT) != shape {
        return Err(Unreadable::OtherShape);
    }
    let meta = Meta {
        stamp: bytes_at(bytes, STAMP_AT),
        epoch: number_at(bytes, EPOCH_AT),
        stored_at: number_at(bytes, STORED_AT),
        fresh_until: number_at(bytes, FRESH_AT),
        cost: Duration::from_micros(u32::from_le_bytes(bytes_at(bytes, COST_AT)).into()),
    };
    if meta.is_stale(served_from) {
        return Ok(Read::Expired);
    }
    if kind == Kind::None {
        return Ok(Read::None(meta));
    }
    let section = usize::from(u16::from_le_bytes(bytes_at(bytes, SECTION_AT)));
    let payload = bytes.get(HEADER + section..).ok_or(Unreadable::Corrupted)?;
    let whole;
    let json = match bytes[FLAGS_AT] {
        0 => payload,
        COMPRESSED => {
            whole = decompress(payload).ok_or(Unreadable::Corrupted)?;
            &whole
        }
        _ => return Err(Unreadable::Format),
    };
    match caught(|| serde_json::from_slice(json)) {
        Ok(value) => Ok(Read::Value(value, meta)),
        Err(_) => Err(Unreadable::Corrupted),
    }
}

/// A type that panics while it turns into JSON or back must not take the call down, which would have been well without a cache.
fn caught<T>(
    convert: impl FnOnce() -> Result<T, serde_json::Error>,
) -> Result<T, serde_json::Error> {
    catch_unwind(AssertUnwindSafe(convert))
        .unwrap_or_else(|_| Err(serde::de::Error::custom("its own code panicked")))
}

fn claim(key: &Key, now: u64) -> Draft<'_> {
    Draft {
        key,
        shape: 0,
        epoch: 0,
        now,
        fresh: Duration::ZERO,
        cost: Duration::ZERO,
    }
}

fn header(kind: Kind, draft: &Draft<'_>) -> [u8; HEADER] {
    let Draft {
        key,
        shape,
        epoch,
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
    put(STAMP_AT, &new_stamp());
    put(KEY_AT, &key.hash().to_le_bytes());
    put(SHAPE_AT, &shape.to_le_bytes());
    put(EPOCH_AT, &epoch.to_le_bytes());
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
    let hash = xxh3_64_with_seed(&bytes[HEADER..], xxh3_64(&header));
    bytes_at(&hash.to_le_bytes(), 0)
}

/// The entry with its payload compressed, where that makes it smaller.
fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let (header, json) = bytes.split_at(HEADER);
    let length = u32::try_from(json.len()).ok()?;
    let start = HEADER + size_of_val(&length);
    let mut smaller = vec![0; start + lz4_flex::block::get_maximum_output_size(json.len())];
    smaller[..HEADER].copy_from_slice(header);
    smaller[FLAGS_AT] |= COMPRESSED;
    smaller[HEADER..start].copy_from_slice(&length.to_le_bytes());
    let end = start + lz4_flex::block::compress_into(json, &mut smaller[start..]).ok()?;
    smaller.truncate(end);
    smaller.shrink_to_fit();
    (end < bytes.len()).then_some(smaller)
}

fn decompress(payload: &[u8]) -> Option<Vec<u8>> {
    // No byte of an LZ4 block stands for more than 255.
    const MOST: usize = 255;
    let (length, block) = payload.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length > block.len().saturating_mul(MOST) {
        return None;
    }
    let mut json = vec![0; length];
    let written = lz4_flex::block::decompress_into(block, &mut json).ok()?;
    (written == length).then_some(json)
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

/// Refuses what is too large while it is written, so that no gigabyte is rendered to find out that it is one.
struct Bounded<'a> {
    bytes: &'a mut Vec<u8>,
    room: usize,
    /// The length of what did not fit.
    refused: usize,
}

impl io::Write for Bounded<'_> {
    #[inline]
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.write_all(part).map(|()| part.len())
    }

    #[inline]
    fn write_all(&mut self, part: &[u8]) -> io::Result<()> {
        let Some(room) = self.room.checked_sub(part.len()) else {
            self.refused = part.len();
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        self.room = room;
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
