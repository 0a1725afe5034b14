//! The tags of an entry: their names, and the stamp that each of them had before the load began.
//!
//! They are in a section between the header and the payload, which only entries with tags have: the length of the rest in four
//! bytes, and for each tag the length of its name in two bytes, the name, and the stamp.

use super::header::{FLAGS_AT, HEADER};
use super::stamp::{Stamp, Tagged};

/// The flag of an entry that has tags.
pub(super) const TAGGED: u8 = 2;

/// The size of the length of the section.
const LENGTH: usize = 4;

/// Adds the section to an entry that consists of its header. No tags leave it as it is.
pub(super) fn write(tags: &[Tagged], bytes: &mut Vec<u8>) {
    if tags.is_empty() {
        return;
    }
    bytes[FLAGS_AT] |= TAGGED;
    let start = bytes.len();
    bytes.extend_from_slice(&[0; LENGTH]);
    for Tagged { name, stamp } in tags {
        // Names are shorter than the longest key.
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&name.as_bytes()[..usize::from(length)]);
        bytes.extend_from_slice(stamp);
    }
    let length = u32::try_from(bytes.len() - start - LENGTH).unwrap_or(u32::MAX);
    bytes[start..start + LENGTH].copy_from_slice(&length.to_le_bytes());
}

/// Returns whether bytes that begin with the header of an entry have tags.
#[inline]
pub(crate) fn has_tags(bytes: &[u8]) -> bool {
    bytes.get(FLAGS_AT).is_some_and(|flags| flags & TAGGED != 0) && bytes.len() >= HEADER
}

/// Returns the tags of an entry. They end where the bytes make no sense, which the checksum of the entry shows.
pub(crate) fn tags(bytes: &[u8]) -> Tags<'_> {
    let rest = match has_tags(bytes) {
        true => bytes.get(HEADER + LENGTH..payload_at(bytes)),
        false => None,
    };
    Tags {
        rest: rest.unwrap_or_default(),
    }
}

/// Returns where the payload of an entry begins. It may be behind the end of a damaged entry.
pub(super) fn payload_at(bytes: &[u8]) -> usize {
    if !has_tags(bytes) {
        return HEADER;
    }
    let length = bytes.get(HEADER..).and_then(<[u8]>::first_chunk);
    let length = length.map_or(u32::MAX, |length| u32::from_le_bytes(*length));
    (HEADER + LENGTH).saturating_add(usize::try_from(length).unwrap_or(usize::MAX))
}

/// Returns the payload of an entry; nothing of a damaged one.
pub(super) fn payload(bytes: &[u8]) -> &[u8] {
    bytes.get(payload_at(bytes)..).unwrap_or_default()
}

/// The names of tags and their stamps.
#[derive(Clone, Debug)]
pub(crate) struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tags<'a> {
    type Item = (&'a str, Stamp);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        let (stamp, rest) = rest.split_first_chunk()?;
        self.rest = rest;
        Some((str::from_utf8(name).ok()?, *stamp))
    }
}
