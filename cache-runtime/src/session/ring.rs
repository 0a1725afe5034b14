//! Keys for each purpose, derived from the configured keys.
//!
//! ```text
//! CACHE_SESSION_KEYS ─HKDF─► sign   HMAC-SHA256 of tokens
//!                          ► index  HMAC-SHA256 of user ids: where a user's sessions are
//!                          ► debug  HMAC-SHA256 of debug tokens
//!                          ► data   ─HKDF, sid─► AES-256-GCM, a key for each session
//! ```
//!
//! The key that a session begins under determines its place for its whole lifetime, so removing that key ends the session.
//! Otherwise sessions would remain that are not found when all sessions of their user are ended.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::place::{TAG, UserTag};
use crate::config::{SessionKey, SessionKeys};

/// A keyed hash that is extended step by step.
pub(super) type Signature = Hmac<Sha256>;

/// The prefix of everything that is hashed or encrypted here, so the result is not valid anywhere else.
pub(super) const DOMAIN: &[u8] = b"cache-runtime session v1";

pub(super) struct Ring {
    keys: Vec<RingKey>,
}

pub(super) struct RingKey {
    pub(super) id: String,
    pub(super) sign: Signature,
    pub(super) debug: Signature,
    index: Signature,
    data: Zeroizing<[u8; 32]>,
}

impl Ring {
    pub(super) fn new(keys: &SessionKeys) -> Option<Self> {
        let keys: Option<Vec<_>> = keys.iter().map(RingKey::new).collect();
        keys.map(|keys| Self { keys })
    }

    /// What new tokens are signed with, and new data encrypted.
    pub(super) fn newest(&self) -> &RingKey {
        &self.keys[0]
    }

    pub(super) fn get(&self, id: &[u8]) -> Option<&RingKey> {
        self.keys.iter().find(|key| key.id.as_bytes() == id)
    }

    pub(super) fn keys(&self) -> &[RingKey] {
        &self.keys
    }

    /// Everywhere a user's sessions may be, the newest place first.
    pub(super) fn tags<'a>(
        &'a self,
        prefix: &'a str,
        user: &'a str,
    ) -> impl Iterator<Item = UserTag> + 'a {
        self.keys.iter().map(move |key| key.tag(prefix, user))
    }
}

impl RingKey {
    fn new(SessionKey { id, secret }: &SessionKey) -> Option<Self> {
        let derived = Hkdf::<Sha256>::new(Some(DOMAIN), secret);
        let key = |purpose| expand(&derived, &[purpose]);
        Some(Self {
            id: id.clone(),
            sign: Signature::new_from_slice(&*key(b"sign")?).ok()?,
            debug: Signature::new_from_slice(&*key(b"debug")?).ok()?,
            index: Signature::new_from_slice(&*key(b"index")?).ok()?,
            data: key(b"data")?,
        })
    }

    pub(super) fn tag(&self, prefix: &str, user: &str) -> UserTag {
        let mut hash = self.index.clone();
        absorb(&mut hash, &[DOMAIN, prefix.as_bytes(), user.as_bytes()]);
        let hash = hash.finalize().into_bytes();
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hash[..TAG]);
        UserTag(tag)
    }

    /// Returns the key that encrypts the data of one session. With one key per session, no key encrypts so many messages
    /// that a nonce may repeat (NIST SP 800-38D: 2^32 messages).
    pub(super) fn data_key(&self, sid: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let derived = Hkdf::<Sha256>::new(Some(sid), &*self.data);
        expand(&derived, &[DOMAIN, b"data"])
    }
}

fn expand(derived: &Hkdf<Sha256>, info: &[&[u8]]) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    derived.expand_multi_info(info, &mut *key).ok()?;
    Some(key)
}

/// Hashes parts so that no two lists of parts are the same: each with its length before it.
pub(super) fn absorb(hash: &mut Signature, parts: &[&[u8]]) {
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
}
