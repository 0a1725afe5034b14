//! Where a session is kept.

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::key::Key;

pub(super) const TAG: usize = 16;
pub(super) const SID: usize = 16;

/// Represents a user without revealing the id. All keys of a user are in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct UserTag(pub(super) [u8; TAG]);

/// Represents a session without revealing its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sid(pub(super) [u8; SID]);

/// Where a session is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) tag: UserTag,
    pub(super) sid: Sid,
}

impl UserTag {
    /// The sorted set of a user's sessions by their end.
    pub(super) fn index(self, prefix: &str) -> Key {
        Key::of_record(format!("{prefix}sessions:user:{{{}}}", text(&self.0)))
    }

    /// What the keys of all sessions of a user begin with.
    pub(super) fn base(self, prefix: &str) -> String {
        format!("{prefix}session:{{{}}}:", text(&self.0))
    }
}

impl Sid {
    pub(super) fn text(self) -> String {
        text(&self.0)
    }

    pub(super) fn parse(written: &str) -> Option<Self> {
        let mut sid = [0; SID];
        let read = Base64UrlUnpadded::decode(written, &mut sid).ok()?;
        (read.len() == SID).then_some(Self(sid))
    }
}

fn text(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}
