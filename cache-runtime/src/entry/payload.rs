//! The payload: encodes values as JSON, and checks the JSON of other programs.

use std::io;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::de::StrRead;

use super::inspect::{self, Array, Inspector, Lost, Written};
use super::layers::{Layered, Layers, OK_NONE};
use super::{Refusal, Unreadable, block};

/// How deeply `serde_json` reads: it refuses the 128th bracket in a bracket.
const DEEPEST: usize = 127;

/// A value without its type, so the code around its conversion is compiled once and not for each type. Its methods run the
/// code of the type, which may panic.
pub(crate) trait Value {
    /// Writes its JSON.
    fn write(&self, sink: &mut Sink<'_>) -> Result<(), serde_json::Error>;

    /// Reports what its JSON does not show.
    fn inspect(&self, inspector: Inspector<'_>) -> Result<Written, Lost>;

    /// Decodes a value of its type.
    fn again(&self, json: &[u8], layers: Layers) -> Result<Box<dyn Value + '_>, serde_json::Error>;
}

impl<T: Serialize + DeserializeOwned> Value for T {
    fn write(&self, sink: &mut Sink<'_>) -> Result<(), serde_json::Error> {
        self.serialize(&mut serde_json::Serializer::new(sink))
    }

    fn inspect(&self, inspector: Inspector<'_>) -> Result<Written, Lost> {
        self.serialize(inspector)
    }

    fn again(&self, json: &[u8], layers: Layers) -> Result<Box<dyn Value + '_>, serde_json::Error> {
        match decode::<Self>(json, layers) {
            Ok(again) => Ok(Box::new(again)),
            Err(error) => Err(error),
        }
    }
}

/// Appends a value of at most `most` bytes.
pub(super) fn encode(value: &dyn Value, bytes: &mut Vec<u8>, most: usize) -> Result<(), Refusal> {
    let before = bytes.len();
    let mut sink = Sink::Append {
        bytes,
        room: most,
        refused: 0,
    };
    let written = caught(|| value.write(&mut sink)).unwrap_or_else(|| Err(panicked()));
    let Sink::Append { bytes, refused, .. } = sink else {
        return Ok(());
    };
    written.map_err(|error| match refused {
        0 => Refusal::Encode(error),
        refused => Refusal::TooLarge {
            bytes: bytes.len() - before + refused,
        },
    })
}

/// A value out of its JSON. The code of its type may panic.
#[expect(
    clippy::question_mark,
    reason = "a conversion of the error is compiled again for every type"
)]
pub(super) fn decode<T: DeserializeOwned>(
    json: &[u8],
    layers: Layers,
) -> Result<T, serde_json::Error> {
    let mut from = match reader(json) {
        Ok(from) => from,
        Err(error) => return Err(error),
    };
    let inside = &mut from;
    match T::deserialize(Layered { layers, inside }) {
        Ok(value) => match from.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Reads text, since a check of all of it is faster than one of each string.
fn reader(json: &[u8]) -> Result<serde_json::Deserializer<StrRead<'_>>, serde_json::Error> {
    match str::from_utf8(json) {
        Ok(json) => Ok(serde_json::Deserializer::from_str(json)),
        Err(error) => Err(serde::de::Error::custom(error)),
    }
}

/// Returns whether each `null` in the JSON of a value round-trips.
pub(super) fn has_plain_nulls(value: &dyn Value, layers: Layers) -> bool {
    caught(|| inspect::nulls_round_trip(layers, |inspector| value.inspect(inspector)))
        .unwrap_or(false)
}

/// Decodes the JSON of a value and encodes it again, and compares.
pub(super) fn check_round_trip(
    value: &dyn Value,
    json: &[u8],
    layers: Layers,
) -> Result<(), Refusal> {
    let again = caught(|| value.again(json, layers)).unwrap_or_else(|| Err(panicked()));
    match is_encoded(&*again.map_err(Refusal::Undecodable)?, json, layers) {
        true => Ok(()),
        false => Err(Refusal::Changed),
    }
}

impl Layers {
    /// Returns whether the value, which has these layers, is `Ok(None)`.
    pub(crate) fn is_ok_none(self, value: &dyn Value) -> bool {
        let mut json = Vec::new();
        self == Self::OkSome
            && encode(value, &mut json, OK_NONE.len()).is_ok()
            && json == OK_NONE
            && has_plain_nulls(value, Self::Nothing)
    }
}

/// Returns whether no type could read it, since it is nested too deeply.
pub(super) fn is_too_deep(json: &[u8]) -> bool {
    let is_opening = |byte: &u8| matches!(byte, b'[' | b'{');
    // There are almost always fewer.
    if json.iter().filter(|byte| is_opening(byte)).count() <= DEEPEST {
        return false;
    }
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => match text_end(&json[at..]) {
                Some(length) => at += length - 1,
                None => return false,
            },
            b']' | b'}' => depth = depth.saturating_sub(1),
            byte if is_opening(byte) => depth += 1,
            _ => {}
        }
        if depth > DEEPEST {
            return true;
        }
        at += 1;
    }
    false
}

/// Returns whether a value that was decoded from `json` represents exactly that JSON: it encodes to the same JSON again,
/// except for the order of maps and sets, which differs each time.
///
/// A list cannot be told from a set, so a type that reads a list in another order than it has written passes; one that does so with a
/// tuple does not.
///
/// It rarely runs on the path of a hit, and then costs about as much as the decoding.
#[cold]
#[inline(never)]
pub(super) fn is_encoded(value: &dyn Value, json: &[u8], layers: Layers) -> bool {
    let mut sink = Sink::Compare(json);
    let written = caught(|| value.write(&mut sink));
    if matches!((written, sink), (Some(Ok(())), Sink::Compare([]))) {
        return true;
    }
    let mut again = Vec::with_capacity(json.len());
    if encode(value, &mut again, json.len() + layers.stripped()).is_err() {
        return false;
    }
    layers.strip(&mut again, 0);
    // In another order it has the same length.
    again.len() == json.len()
        && (again == json
            || caught(|| inspect::arrays(layers, |inspector| value.inspect(inspector)))
                .flatten()
                .is_some_and(|arrays| is_reordered(json, &again, &arrays)))
}

/// Returns whether two JSON texts differ only in the order of unordered parts. `arrays` lists what the arrays of `again`
/// are.
fn is_reordered(json: &[u8], again: &[u8], arrays: &[Array]) -> bool {
    let mut kinds = arrays.iter().copied();
    let again = Node::parse(again, &mut kinds);
    // Text that a type writes by itself, such as `RawValue`, may have arrays that serde does not report.
    let are_told = kinds.next().is_none();
    let json = Node::parse(json, &mut iter::repeat(Array::Tuple));
    match (json, again) {
        (Some(json), Some(again)) if are_told => again.is_same(&json),
        _ => false,
    }
}

/// A JSON value as it is written. Numbers and strings are not parsed, so no difference between two values is lost.
struct Node<'a> {
    /// In its quotes; empty unless it is a member of an object.
    key: &'a [u8],
    text: &'a [u8],
    /// The text with the parts of every object and array in one order.
    sorted: Vec<u8>,
    has_order: bool,
    parts: Vec<Self>,
}

impl<'a> Node<'a> {
    /// Returns [`None`] if the text is not JSON. `arrays` lists what its arrays are, in the order in which they begin.
    fn parse(json: &'a [u8], arrays: &mut dyn Iterator<Item = Array>) -> Option<Self> {
        let (node, rest) = Self::parse_start(json, arrays, DEEPEST)?;
        rest.is_empty().then_some(node)
    }

    /// The value at the beginning, and what follows it.
    fn parse_start(
        json: &'a [u8],
        arrays: &mut dyn Iterator<Item = Array>,
        depth: usize,
    ) -> Option<(Self, &'a [u8])> {
        let (first, inside) = json.split_first()?;
        let mut has_order = false;
        let (parts, rest) = match first {
            b'{' => {
                let depth = depth.checked_sub(1)?;
                parse_parts(inside, b'}', |json| {
                    let (key, value) = json.split_at_checked(text_end(json)?)?;
                    let value = value.strip_prefix(b":")?;
                    let (node, rest) = Self::parse_start(value, arrays, depth)?;
                    Some((Self { key, ..node }, rest))
                })?
            }
            b'[' => {
                let depth = depth.checked_sub(1)?;
                has_order = arrays.next()? == Array::Tuple;
                parse_parts(inside, b']', |json| Self::parse_start(json, arrays, depth))?
            }
            b'"' => (Vec::new(), json.get(text_end(json)?..)?),
            _ => {
                let end = json.iter().position(|byte| b",:]}".contains(byte));
                (Vec::new(), &json[end.unwrap_or(json.len())..])
            }
        };
        let text = &json[..json.len() - rest.len()];
        let node = Self {
            key: &[],
            text,
            sorted: sorted(text, &parts),
            has_order,
            parts,
        };
        Some((node, rest))
    }

    /// Returns whether `other` is the same, except for the order of parts that are known to be unordered.
    fn is_same(&self, other: &Self) -> bool {
        if self.key != other.key || self.text == other.text {
            return self.key == other.key;
        }
        // If so, both have the same parts, and the same number of them.
        self.sorted == other.sorted
            && if self.has_order {
                iter::zip(&self.parts, &other.parts).all(|(part, other)| part.is_same(other))
            } else {
                iter::zip(self.in_order(), other.in_order())
                    .all(|(part, other)| part.is_same(other))
            }
    }

    fn in_order(&self) -> Vec<&Self> {
        let mut parts: Vec<_> = self.parts.iter().collect();
        parts.sort_unstable_by_key(|part| (part.key, &part.sorted, part.text));
        parts
    }
}

/// The parts of an object or an array up to the bracket that ends it, and what follows it.
fn parse_parts<'a>(
    mut json: &'a [u8],
    last: u8,
    mut parse_part: impl FnMut(&'a [u8]) -> Option<(Node<'a>, &'a [u8])>,
) -> Option<(Vec<Node<'a>>, &'a [u8])> {
    let mut parts = Vec::new();
    if let Some(rest) = json.strip_prefix(&[last]) {
        return Some((parts, rest));
    }
    loop {
        let (part, rest) = parse_part(json)?;
        parts.push(part);
        let (separator, rest) = rest.split_first()?;
        match separator {
            b',' => json = rest,
            separator if *separator == last => return Some((parts, rest)),
            _ => return None,
        }
    }
}

/// The text of a value with its parts, each sorted itself, in one order.
fn sorted(text: &[u8], parts: &[Node<'_>]) -> Vec<u8> {
    let ([first, .., last], [_, ..]) = (text, parts) else {
        return text.to_vec();
    };
    let mut parts: Vec<_> = (parts.iter())
        .map(|part| match part.key {
            [] => part.sorted.clone(),
            key => [key, b":", &part.sorted].concat(),
        })
        .collect();
    parts.sort_unstable();
    [&[*first], parts.join(&b',').as_slice(), &[*last]].concat()
}

/// Where the text ends that `json` begins with.
fn text_end(json: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// An LZ4 block behind the length of the JSON, where that is smaller.
pub(super) fn compress(json: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(json.len()).ok()?.to_le_bytes();
    let start = length.len();
    let mut smaller = vec![0; start + block::get_maximum_output_size(json.len())];
    smaller[..start].copy_from_slice(&length);
    let end = start + block::compress_into(json, &mut smaller[start..]).ok()?;
    smaller.truncate(end);
    (end < json.len()).then_some(smaller)
}

/// Returns the length of the JSON that [`compress`] wrote.
pub(super) fn decompressed_bytes(payload: &[u8]) -> Option<usize> {
    let (length, _) = payload.split_first_chunk()?;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

/// The JSON of an LZ4 block, of at most `most` bytes.
pub(super) fn decompress(payload: &[u8], most: usize) -> Result<Vec<u8>, Unreadable> {
    let (length, block) = payload.split_first_chunk().ok_or(Unreadable::Corrupted)?;
    let length = u32::from_le_bytes(*length) as usize;
    // Before anything is allocated: a few bytes can claim gigabytes.
    if length > most {
        return Err(Unreadable::TooLarge);
    }
    let mut json = vec![0; length];
    match block::decompress_into(block, &mut json) {
        Ok(written) if written == length => Ok(json),
        Ok(_) | Err(_) => Err(Unreadable::Corrupted),
    }
}

/// Where JSON is written to. One type for both: each costs another copy of all code that writes the value.
pub(crate) enum Sink<'a> {
    /// Refuses what is too large while it is written, so a huge value is not encoded completely before it is refused.
    Append {
        bytes: &'a mut Vec<u8>,
        room: usize,
        /// The length of the value that did not fit.
        refused: usize,
    },
    /// Accepts only bytes that equal the existing ones.
    Compare(&'a [u8]),
}

impl io::Write for Sink<'_> {
    #[inline]
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.write_all(part).map(|()| part.len())
    }

    #[inline]
    fn write_all(&mut self, part: &[u8]) -> io::Result<()> {
        match self {
            Self::Append {
                bytes,
                room,
                refused,
            } => {
                let Some(left) = room.checked_sub(part.len()) else {
                    *refused = part.len();
                    return Err(io::ErrorKind::FileTooLarge.into());
                };
                *room = left;
                bytes.extend_from_slice(part);
            }
            Self::Compare(rest) => {
                *rest = rest.strip_prefix(part).ok_or(io::ErrorKind::InvalidData)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A type that panics while it turns into JSON or back must not take the call down, which would have been well without a
/// cache. Returns [`None`] then.
pub(crate) fn caught<T>(convert: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(convert)).ok()
}

pub(super) fn panicked() -> serde_json::Error {
    serde::de::Error::custom("its own code panicked")
}

#[cfg(test)]
mod tests;
