//! The stored form of a session: a head that scripts read, and data that cannot be read without the key.
//!
//! | bytes | what | who may change it |
//! |---|---|---|
//! | 1 | version of this form | nobody |
//! | 8, 8, 8 | revision, beginning, latest possible end | who has the key: they are authenticated with the data |
//! | 8, 8 | last use, twice, so that a bit that flipped shows | the script that extends |
//! | 1 | algorithm: 1 is AES-256-GCM | nobody |
//! | 1, n | length and name of the key | who has it |
//! | 12 | nonce, random | who has the key |
//! | … | JSON, encrypted, and 16 bytes that prove it | who has the key |
//!
//! Numbers are big-endian, times milliseconds since 1970. The authenticated part names the prefix, user and session of the
//! data, so the data is valid nowhere else. An attacker that can write to Redis can restore an older version of the same
//! session, end it, or let it idle longer, but not beyond the latest end.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use zeroize::Zeroizing;

use super::place::Place;
use super::ring::{DOMAIN, Ring, RingKey};

const VERSION: u8 = 1;
const AES_256_GCM: u8 = 1;
const NONCE: usize = 12;

/// Version, revision, beginning and latest end.
pub(super) const PINNED: usize = 25;

/// With both times of the last use.
pub(super) const HEAD: usize = PINNED + 16;

/// The largest data, in bytes of JSON: sessions are read with every request.
pub(super) const MAX_DATA: usize = 16 * 1024;

/// The part of the head that can be changed only with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pinned {
    pub(super) revision: u64,
    pub(super) created: u64,
    pub(super) absolute: u64,
}

/// A session as it is stored, taken apart.
pub(super) struct Opened {
    pub(super) pinned: Pinned,
    pub(super) data: Zeroizing<Vec<u8>>,
}

impl Pinned {
    pub(super) fn bytes(self) -> [u8; PINNED] {
        let mut bytes = [VERSION; PINNED];
        let Self {
            revision,
            created,
            absolute,
        } = self;
        for (place, number) in [revision, created, absolute].into_iter().enumerate() {
            bytes[1 + 8 * place..][..8].copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    pub(super) fn read(record: &[u8]) -> Option<Self> {
        let (version, rest) = record.split_first()?;
        let ([revision, created, absolute, ..], _) = rest.as_chunks() else {
            return None;
        };
        (*version == VERSION).then(|| Self {
            revision: u64::from_be_bytes(*revision),
            created: u64::from_be_bytes(*created),
            absolute: u64::from_be_bytes(*absolute),
        })
    }
}

/// When a stored session was used last; [`None`] if what is stored is damaged.
pub(super) fn last_use(record: &[u8]) -> Option<u64> {
    let ([one, other], _) = record.get(PINNED..HEAD)?.as_chunks() else {
        return None;
    };
    (one == other).then(|| u64::from_be_bytes(*one))
}

/// Returns what follows the head, or [`None`] if the operating system provides no random bytes.
pub(super) fn seal(
    key: &RingKey,
    prefix: &str,
    place: Place,
    pinned: Pinned,
    data: &[u8],
) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).ok()?;
    let mut sealed = vec![AES_256_GCM, u8::try_from(key.id.len()).ok()?];
    sealed.extend_from_slice(key.id.as_bytes());
    let payload = Payload {
        msg: data,
        aad: &bound(prefix, place, pinned, &sealed),
    };
    let encrypted = cipher(key, place)?
        .encrypt(&Nonce::from(nonce), payload)
        .ok()?;
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&encrypted);
    Some(sealed)
}

/// Takes apart what is stored at `place`; [`None`] if it was changed, or belongs elsewhere, or its key is gone.
pub(super) fn open(ring: &Ring, prefix: &str, place: Place, record: &[u8]) -> Option<Opened> {
    let pinned = Pinned::read(record)?;
    last_use(record)?;
    let sealed = record.get(HEAD..)?;
    let (&[algorithm, length], rest) = sealed.split_first_chunk()?;
    let (id, rest) = rest.split_at_checked(length.into())?;
    let (nonce, encrypted) = rest.split_first_chunk::<NONCE>()?;
    if algorithm != AES_256_GCM {
        return None;
    }
    let key = ring.get(id)?;
    let named = &sealed[..2 + id.len()];
    let payload = Payload {
        msg: encrypted,
        aad: &bound(prefix, place, pinned, named),
    };
    let data = cipher(key, place)?
        .decrypt(&Nonce::from(*nonce), payload)
        .ok()?;
    Some(Opened {
        pinned,
        data: Zeroizing::new(data),
    })
}

fn cipher(key: &RingKey, place: Place) -> Option<Aes256Gcm> {
    Aes256Gcm::new_from_slice(&*key.data_key(&place.sid.0)?).ok()
}

/// What the data is bound to, each part with its length before it.
fn bound(prefix: &str, place: Place, pinned: Pinned, named: &[u8]) -> Vec<u8> {
    let parts = [
        DOMAIN,
        prefix.as_bytes(),
        &place.tag.0,
        &place.sid.0,
        &pinned.bytes(),
        named,
    ];
    let mut bound = Vec::with_capacity(192);
    for part in parts {
        bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bound.extend_from_slice(part);
    }
    bound
}
