//! What a load captured of its tags before its body.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::entry::{Stamp, Tagged};
use crate::error::{Error, ErrorKind};

/// What a load captured before its body.
#[derive(Debug, Default)]
pub(super) enum Captured {
    /// Nothing was captured, and nothing will be stored.
    #[default]
    Unasked,
    /// The call has no tags.
    Untagged,
    Tags {
        /// The tags over arguments.
        tags: Vec<Tagged>,
        /// The stamps of the families of tags over the returned value.
        families: Vec<Stamp>,
        /// How long an entry with these tags may live.
        ttl: Duration,
    },
    /// A tag is fenced, or the store did not answer.
    Refused,
}

impl Captured {
    /// Returns the claim of a load that captured this, as callers that read the same stamps observe it.
    pub(super) fn mixed(&self, claim: Option<Stamp>) -> Option<Stamp> {
        match self {
            Self::Untagged => claim,
            Self::Tags { tags, families, .. } => {
                let tags = tags.iter().map(|tag| tag.stamp);
                mixed(claim?, tags.chain(families.iter().copied()).map(Some))
            }
            Self::Unasked | Self::Refused => None,
        }
    }

    /// Returns the tags of an entry that is stored at once.
    pub(super) fn into_tags(self) -> Result<Vec<Tagged>, Error> {
        match self {
            Self::Untagged => Ok(Vec::new()),
            Self::Tags { tags, .. } => Ok(tags),
            Self::Unasked | Self::Refused => Err(Error::new(
                ErrorKind::Refused,
                "a tag is being evicted, or Redis did not return its stamp; store again later",
            )),
        }
    }
}

/// Mixes the stamps of tags into the stamp of a claim, which an eviction by tag leaves in the store.
pub(super) fn mixed(claim: Stamp, tags: impl Iterator<Item = Option<Stamp>>) -> Option<Stamp> {
    let mut bytes = claim.to_vec();
    for stamp in tags {
        bytes.extend_from_slice(&stamp?);
    }
    Some(xxh3_64(&bytes).to_le_bytes())
}
