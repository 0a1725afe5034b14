//! The secrets of sessions, as they are written down.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use base64ct::{Base64, Base64Unpadded, Base64Url, Base64UrlUnpadded, Encoding};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};

/// What an attacker would have to guess: as many bits as the MAC and the cipher that are derived from it.
const MIN_SECRET: usize = 32;

/// How many different bytes a secret has at least.
const MIN_BYTES: usize = 16;

/// The minimum number of different steps between its bytes. 0, 1, 2 … has one step, and two if it starts over.
const MIN_STEPS: usize = 3;

/// Long enough for any name. The name is part of each token.
const MAX_ID: usize = 16;

/// The allowed form, for an error that must not show the value.
const ALLOWED: &str = "keys as `name:secret`, separated by commas, newest first: a name has 1 to 16 letters, digits, `-` and \
     `_`, a secret has at least 32 random bytes in base64, as `openssl rand -base64 32` prints them";

/// The keys that sessions are signed and encrypted with, newest first: the first one makes tokens, all of them are accepted.
///
/// To change a key, put the new key after the old one until every process has it. A process without the new key rejects its
/// tokens, and does not find its sessions when it ends all sessions of a user. Then put the new key first. Remove the old
/// key once every session that began under it has ended, at the latest after
/// [`session_absolute`](crate::Config::session_absolute). Removing it earlier ends the sessions that began under it.
///
/// Keys are never logged, and their memory is overwritten on drop.
///
/// ```
/// use cache_runtime::{Config, SessionKeys};
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// // From `openssl rand -base64 32`. A service reads it from a file of secrets, or leaves it in `CACHE_SESSION_KEYS`.
/// let text = "2026-11:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// let config = Config::default().session_keys(SessionKeys::parse(text)?);
///
/// assert!(SessionKeys::parse("2026-11:c2hvcnQ=").is_err()); // fewer than 32 bytes
/// # drop(config);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SessionKeys(Arc<[SessionKey]>);

pub(crate) struct SessionKey {
    pub(crate) id: String,
    pub(crate) secret: Zeroizing<Vec<u8>>,
}

impl SessionKeys {
    /// Reads keys as `CACHE_SESSION_KEYS` holds them: `2026-11:c2Vj…,2026-05:b2xk…`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for any other form, for a guessable secret, and for a name or a secret that is listed twice.
    /// The error does not show the text. A secret is guessable if it has fewer than 32 bytes, has fewer than 16 different
    /// bytes (such as repeated words), or consists of bytes in equal steps (such as 0, 1, 2 and so on, even if they start
    /// over).
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::read(text).map_err(|wrong| Error::new(ErrorKind::Config, wrong))
    }

    /// The same; the error is only text.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut keys: Vec<SessionKey> = Vec::new();
        for written in text.split(',') {
            let key = SessionKey::read(written.trim())?;
            if keys.iter().any(|known| known.id == key.id) {
                return Err(format!("has two keys called `{}`; rename one", key.id));
            }
            if keys.iter().any(|known| known.secret == key.secret) {
                return Err(format!(
                    "contains the secret of `{}` twice; generate a new one",
                    key.id
                ));
            }
            keys.push(key);
        }
        Ok(Self(keys.into()))
    }

    /// Returns one random key. Everything that is made with it ends with this process.
    pub(crate) fn random() -> Result<Self, Error> {
        let mut secret = Zeroizing::new(vec![0; MIN_SECRET]);
        getrandom::fill(&mut secret).map_err(|error| {
            Error::new(
                ErrorKind::Config,
                "the operating system provides no random bytes",
            )
            .because(error)
        })?;
        let id = "random".to_owned();
        Ok(Self(Arc::new([SessionKey { id, secret }])))
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &SessionKey> {
        self.0.iter()
    }

    fn ids(&self) -> String {
        let ids: Vec<&str> = self.iter().map(|key| key.id.as_str()).collect();
        ids.join(",")
    }

    /// Returns only the names, which are not secret.
    pub(super) fn show(keys: Option<&Self>) -> String {
        keys.map_or_else(|| "none".to_owned(), Self::ids)
    }
}

impl SessionKey {
    fn read(written: &str) -> Result<Self, String> {
        let allowed = || format!("allowed: {ALLOWED}");
        let (id, secret) = written.split_once(':').ok_or_else(allowed)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(1..=MAX_ID).contains(&id.len()) || !id.bytes().all(is_plain) {
            return Err(allowed());
        }
        let secret = Zeroizing::new(decode(secret).ok_or_else(allowed)?);
        if secret.len() < MIN_SECRET || is_guessable(&secret) {
            return Err(format!("has a guessable secret for `{id}`; {}", allowed()));
        }
        let id = id.to_owned();
        Ok(Self { id, secret })
    }
}

/// Returns whether the secret has too few different bytes to be random, as repeated words have, or too few different steps
/// between bytes, as sequences have. 32 random bytes have 16 or fewer different values less often than once in 10^13 times.
fn is_guessable(secret: &[u8]) -> bool {
    let different = |bytes: &mut dyn Iterator<Item = u8>| bytes.collect::<BTreeSet<_>>().len();
    let steps = secret.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    different(&mut secret.iter().copied()) < MIN_BYTES || different(&mut { steps }) < MIN_STEPS
}

/// Any of the usual spellings.
fn decode(text: &str) -> Option<Vec<u8>> {
    let decoded = Base64::decode_vec(text).or_else(|_| Base64Unpadded::decode_vec(text));
    let decoded = decoded.or_else(|_| Base64Url::decode_vec(text));
    decoded
        .or_else(|_| Base64UrlUnpadded::decode_vec(text))
        .ok()
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKeys({})", self.ids())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const OTHER: &str = "-_-_Mjw0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGU";

    #[test]
    fn keys_are_read_in_any_usual_spelling_newest_first() {
        let keys = SessionKeys::parse(&format!("2026-11:{OTHER}, old_1:{ONE}")).expect("keys");

        let ids: Vec<_> = keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["2026-11", "old_1"]);
        let secrets: Vec<_> = keys.iter().map(|key| key.secret.as_slice()).collect();
        assert_eq!(secrets[0][..3], [0xfb, 0xff, 0xbf]);
        assert_eq!(secrets[1], b"0123456789abcdef0123456789abcdef");
    }

    #[test]
    fn guessable_and_ambiguous_keys_are_refused_without_being_shown() {
        let zeros = Base64::encode_string(&[0; 32]);
        let short = Base64::encode_string(b"hunter2-hunter2-hunter2-hunter2"); // 31 bytes
        for (text, told) in [
            (String::new(), "allowed: keys as `name:secret`"),
            (ONE.to_owned(), "allowed: keys as `name:secret`"),
            (format!(":{ONE}"), "a name has 1 to 16 letters"),
            (format!("a.b:{ONE}"), "a name has 1 to 16 letters"),
            (
                format!("seventeen-letters:{ONE}"),
                "a name has 1 to 16 letters",
            ),
            (format!("a:{ONE},"), "allowed: keys as `name:secret`"),
            ("a:hunter2".to_owned(), "in base64"),
            (format!("a:{short}"), "a guessable secret for `a`"),
            (format!("a:{zeros}"), "a guessable secret for `a`"),
            (format!("a:{ONE},a:{OTHER}"), "two keys called `a`"),
            (format!("a:{ONE},b:{ONE}"), "the secret of `b` twice"),
        ] {
            let error = SessionKeys::parse(&text).expect_err(&text);
            let error = format!("{error} {error:?}");
            assert!(error.contains(told), "{text}: {error}");
            for secret in ["hunter2", ONE, &zeros, &short] {
                assert!(!error.contains(secret), "{error}");
            }
        }
    }

    #[test]
    fn a_secret_that_is_not_random_is_refused() {
        let repeated = |word: &[u8]| word.iter().copied().cycle().take(32).collect::<Vec<_>>();
        let mut last = vec![0; 31];
        last.push(1);
        let descending: Vec<u8> = (0..48).rev().collect();
        let wrapping: Vec<u8> = (0..32).map(|step: u8| step.wrapping_mul(37)).collect();
        let again: Vec<u8> = (0..40).map(|step| step % 20).collect();
        for secret in [
            repeated(b"ab"),
            repeated(b"password"),
            repeated(&[0, 1]),
            repeated(b"correct horse "),
            (0..32).collect(),
            descending,
            wrapping,
            again,
            last,
            b"aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd".to_vec(),
        ] {
            let text = format!("a:{}", Base64::encode_string(&secret));
            let error = SessionKeys::parse(&text)
                .expect_err("guessable")
                .to_string();
            assert!(error.contains("guessable secret"), "{secret:?}: {error}");
        }
    }

    #[test]
    fn random_secrets_are_accepted() {
        for _ in 0..10_000 {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).expect("random bytes");
            assert!(!is_guessable(&secret), "{secret:?}");
        }
    }

    #[test]
    fn debug_output_contains_no_secret() {
        let keys = SessionKeys::parse(&format!("a:{ONE}")).expect("keys");

        assert_eq!(format!("{keys:?}"), "SessionKeys(a)");
    }

    #[test]
    fn random_keys_differ() {
        let secret = || {
            let keys = SessionKeys::random().expect("random");
            keys.iter().next().expect("one").secret.clone()
        };

        assert_ne!(secret(), secret());
    }
}
