//! The token of a client for its session: `v1.<key>.<tag>.<secret>.<mac>`, with every part except the first two in
//! base64url.
//!
//! The MAC is over everything before it and over the prefix and the name of the cookie, so a token is valid for one of them
//! only, and guessed tokens are rejected before Redis is asked. The secret is 256 bits from the operating system; Redis
//! sees a hash of it.

use std::fmt;
use std::sync::Arc;

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::Mac;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::SessionError;
use super::place::{Place, SID, Sid, TAG, UserTag};
use super::ring::{DOMAIN, Ring, Signature, absorb};
use crate::error::{Error, ErrorKind};

const VERSION: &str = "v1";
const SECRET: usize = 32;
const MAC: usize = 32;

/// The longest that could be one: with a key's name of 16 characters it has 132.
const MAX_LEN: usize = 256;

/// A token of this service that was not changed. Only the store knows whether its session still exists.
///
/// It is a secret like a password: [`expose`](Self::expose) it only to its owner. `Debug` and logs never show it.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::session::{NewSession, SessionStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::memory();
/// let store = SessionStore::new(&cache)?;
/// let session = store.create(NewSession::new(42, "ada")).await?;
///
/// let sent = session.token().expose(); // the value of a cookie, for example
/// assert_eq!(&store.verify(sent)?, session.token());
/// assert!(!format!("{:?}", session.token()).contains(sent));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SessionToken {
    text: Zeroizing<String>,
    place: Place,
    secret: Secret,
    /// Whether it was signed with another key than new tokens are.
    is_old: bool,
}

#[derive(Clone)]
struct Secret([u8; SECRET]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl SessionToken {
    /// The token, to be handed to its owner.
    pub fn expose(&self) -> &str {
        &self.text
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn is_old(&self) -> bool {
        self.is_old
    }
}

/// Two tokens are equal if they belong to the same session.
impl PartialEq for SessionToken {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for SessionToken {}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(***)")
    }
}

/// Makes tokens for one cookie, and knows them again.
pub(super) struct Signer {
    /// A hash for each key, which has seen already what is the same in all tokens.
    keys: Vec<(String, Signature)>,
}

impl Signer {
    pub(super) fn new(ring: &Ring, prefix: &str, cookie: &str) -> Arc<Self> {
        let keys = ring.keys().iter().map(|key| {
            let mut hash = key.sign.clone();
            absorb(
                &mut hash,
                &[
                    DOMAIN,
                    prefix.as_bytes(),
                    cookie.as_bytes(),
                    VERSION.as_bytes(),
                ],
            );
            absorb(&mut hash, &[key.id.as_bytes()]);
            (key.id.clone(), hash)
        });
        Arc::new(Self {
            keys: keys.collect(),
        })
    }

    /// A token that never was.
    pub(super) fn make(&self, tag: UserTag) -> Result<SessionToken, Error> {
        let mut secret = Secret([0; SECRET]);
        getrandom::fill(&mut secret.0).map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                "the operating system provides no random bytes",
            )
            .because(error)
        })?;
        Ok(self.sign(tag, secret))
    }

    /// The same token under the newest key.
    pub(super) fn renew(&self, token: &SessionToken) -> SessionToken {
        self.sign(token.place.tag, token.secret.clone())
    }

    fn sign(&self, tag: UserTag, secret: Secret) -> SessionToken {
        let (id, hash) = &self.keys[0];
        let mut hash = hash.clone();
        absorb(&mut hash, &[&tag.0, &secret.0]);
        let mac = hash.finalize().into_bytes();
        let mut text = Zeroizing::new(String::with_capacity(MAX_LEN));
        text.push_str(VERSION);
        text.push('.');
        text.push_str(id);
        for part in [&tag.0[..], &secret.0, &mac] {
            text.push('.');
            text.push_str(&Zeroizing::new(Base64UrlUnpadded::encode_string(part)));
        }
        SessionToken {
            text,
            place: Place {
                tag,
                sid: sid(&secret),
            },
            secret,
            is_old: false,
        }
    }

    /// Reads a token. Costs a microsecond and no command.
    pub(super) fn verify(&self, written: &str) -> Result<SessionToken, SessionError> {
        let malformed = || SessionError::Malformed;
        if written.len() > MAX_LEN {
            return Err(malformed());
        }
        let mut parts = written.split('.');
        let mut part = || parts.next().ok_or_else(malformed);
        if part()? != VERSION {
            return Err(malformed());
        }
        let (id, tag, secret, mac) = (part()?, part()?, part()?, part()?);
        if parts.next().is_some() {
            return Err(malformed());
        }
        let tag = UserTag(decode::<TAG>(tag)?);
        let secret = Secret(decode::<SECRET>(secret)?);
        let mac = decode::<MAC>(mac)?;
        let known = self.keys.iter().position(|(known, _)| known == id);
        let key = known.ok_or(SessionError::UnknownKey)?;
        let mut hash = self.keys[key].1.clone();
        absorb(&mut hash, &[&tag.0, &secret.0]);
        hash.verify(&mac.into())
            .map_err(|_| SessionError::BadSignature)?;
        Ok(SessionToken {
            text: Zeroizing::new(written.to_owned()),
            place: Place {
                tag,
                sid: sid(&secret),
            },
            secret,
            is_old: key > 0,
        })
    }
}

/// The name of a session in Redis. A reader of Redis cannot derive the token from it.
fn sid(secret: &Secret) -> Sid {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(b"sid");
    hash.update(secret.0);
    let hash = hash.finalize();
    let mut sid = [0; SID];
    sid.copy_from_slice(&hash[..SID]);
    Sid(sid)
}

/// Decodes bytes, and accepts only the canonical spelling.
fn decode<const N: usize>(written: &str) -> Result<[u8; N], SessionError> {
    let mut bytes = [0; N];
    match Base64UrlUnpadded::decode(written, &mut bytes) {
        Ok(read) if read.len() == N => Ok(bytes),
        _ => Err(SessionError::Malformed),
    }
}
