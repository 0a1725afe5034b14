//! Tokens with which developers may see how requests are answered: `v1.<key>.<end>.<mac>`, where the end is in seconds since 1970
//! and the MAC is in base64url.
//!
//! They are signed with a key of their own, which is derived from the configured ones, so no token of a session is one of these.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::Mac;

use super::ring::{DOMAIN, Ring, Signature, absorb};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Error, ErrorKind};

const VERSION: &str = "v1";
const MAC: usize = 32;

/// The longest that could be one.
const MAX_LEN: usize = 128;

/// The longest time that a token is valid. A token cannot be revoked, so it must end soon.
const MAX_VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes tokens for the header `Cache-Debug`, and verifies them. See `DebugAccess` in the module `http`.
///
/// The keys are those of sessions ([`session_keys`](Config::session_keys)), so all processes of a service accept a token of any of
/// them. A token is valid for every request until its end, at most for 24 hours. It is a secret like a password.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::session::DebugTokens;
/// use cache_runtime::{Config, SessionKeys};
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// # let secret = "a:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// let config = Config::default().session_keys(SessionKeys::parse(secret)?);
/// let tokens = DebugTokens::new(&config)?;
/// let token = tokens.issue(Duration::from_secs(600))?;
///
/// println!("Cache-Debug: explain; token={token}");
/// assert!(tokens.accepts(&token));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DebugTokens {
    /// The newest key first. Each hash has already seen the prefix.
    keys: Arc<[(String, Signature)]>,
    clock: Clock,
}

impl DebugTokens {
    /// Uses the keys and the prefix of this configuration.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it has no session keys.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let wrong = |text: &'static str| Error::new(ErrorKind::Config, text);
        let keys = config.session_keys.as_ref().ok_or_else(|| {
            wrong("debug tokens need keys; set `CACHE_SESSION_KEYS` to `name:secret`, with a secret from `openssl rand -base64 32`")
        })?;
        let ring = Ring::new(keys).ok_or_else(|| wrong("the session keys cannot be derived"))?;
        let keys = ring.keys().iter().map(|key| {
            let mut hash = key.debug.clone();
            let parts = [DOMAIN, config.prefix.as_bytes(), VERSION.as_bytes()];
            absorb(&mut hash, &parts);
            (key.id.clone(), hash)
        });
        Ok(Self {
            keys: keys.collect(),
            clock: config.clock.clone(),
        })
    }

    /// Returns a new token that is valid for this time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`] for less than 1 s and for more than 24 hours.
    pub fn issue(&self, valid_for: Duration) -> Result<String, Error> {
        if !(Duration::from_secs(1)..=MAX_VALID).contains(&valid_for) {
            let text = format!("invalid time {valid_for:?} of a debug token; use 1 s to 24 h");
            return Err(Error::new(ErrorKind::Input, text));
        }
        let (id, hash) = &self.keys[0];
        let end = (self.now() + valid_for.as_secs()).to_string();
        let mut hash = hash.clone();
        absorb(&mut hash, &[id.as_bytes(), end.as_bytes()]);
        let mac = Base64UrlUnpadded::encode_string(&hash.finalize().into_bytes());
        Ok(format!("{VERSION}.{id}.{end}.{mac}"))
    }

    /// Returns whether this is a token that is still valid.
    pub fn accepts(&self, token: &str) -> bool {
        self.end_of(token).is_some_and(|end| {
            let now = self.now();
            (now..=now + MAX_VALID.as_secs()).contains(&end)
        })
    }

    /// Verifies the token. Returns when it ends.
    fn end_of(&self, token: &str) -> Option<u64> {
        if token.len() > MAX_LEN {
            return None;
        }
        let mut parts = token.split('.');
        let (version, id, end, mac) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != VERSION || parts.next().is_some() {
            return None;
        }
        let (_, hash) = self.keys.iter().find(|(known, _)| known == id)?;
        let mut bytes = [0; MAC];
        let mac = Base64UrlUnpadded::decode(mac, &mut bytes).ok()?;
        let mut hash = hash.clone();
        absorb(&mut hash, &[id.as_bytes(), end.as_bytes()]);
        hash.verify_slice(mac).ok()?;
        end.parse().ok()
    }

    fn now(&self) -> u64 {
        self.clock.now_millis() / 1_000
    }
}

impl fmt::Debug for DebugTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|(id, _)| id).collect();
        f.debug_tuple("DebugTokens").field(&ids).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SessionKeys;
    use crate::session::SessionStore;
    use crate::{Cache, Clock};

    const OLD: &str = "old:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const NEW: &str = "new:-_-_Mjw0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGU";
    const MINUTE: Duration = Duration::from_secs(60);

    fn config(keys: &str) -> Config {
        Config::default().session_keys(SessionKeys::parse(keys).unwrap())
    }

    fn tokens(keys: &str) -> DebugTokens {
        DebugTokens::new(&config(keys)).unwrap()
    }

    #[test]
    fn a_token_is_valid_until_its_end() {
        let clock = Clock::stopped();
        let tokens = DebugTokens::new(&config(OLD).clock(clock.clone())).unwrap();
        let token = tokens.issue(MINUTE).unwrap();

        assert!(tokens.accepts(&token));
        clock.advance(Duration::from_secs(58));
        assert!(tokens.accepts(&token));
        clock.advance(Duration::from_secs(4));
        assert!(!tokens.accepts(&token));
    }

    #[test]
    fn tokens_survive_a_change_of_keys_until_the_old_key_is_removed() {
        let token = tokens(OLD).issue(MINUTE).unwrap();

        assert!(tokens(&format!("{NEW},{OLD}")).accepts(&token));
        assert!(!tokens(NEW).accepts(&token));
    }

    #[test]
    fn tokens_of_another_prefix_and_changed_tokens_are_refused() {
        let tokens = tokens(OLD);
        let token = tokens.issue(MINUTE).unwrap();
        let [version, id, end, mac] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("{token}")
        };
        let later = end.parse::<u64>().unwrap() + 60;

        let elsewhere = DebugTokens::new(&config(OLD).prefix("other_")).unwrap();
        assert!(!elsewhere.accepts(&token));
        for changed in [
            String::new(),
            format!("{version}.{id}.{later}.{mac}"),
            format!("{version}.{id}.{end}"),
            format!("{version}.{id}.{end}."),
            format!("{version}.{id}.{end}.{}", &mac[..10]),
            format!("{version}.{id}.{end}.{mac}.{mac}"),
            format!("v2.{id}.{end}.{mac}"),
            format!("{version}.none.{end}.{mac}"),
            format!("{token}{}", "A".repeat(100)),
        ] {
            assert!(!tokens.accepts(&changed), "{changed}");
        }
    }

    #[test]
    fn a_token_ends_within_a_day() {
        let tokens = tokens(OLD);

        for valid_for in [Duration::ZERO, Duration::from_secs(24 * 60 * 60 + 1)] {
            let error = tokens.issue(valid_for).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input);
        }
        assert!(tokens.issue(MAX_VALID).is_ok());
    }

    #[tokio::test]
    async fn a_token_of_a_session_is_none_of_these() {
        let config = config(OLD);
        let tokens = DebugTokens::new(&config).unwrap();
        let cache = Cache::connect(config).await.unwrap();
        let store = SessionStore::<()>::new(&cache).unwrap();
        let new = crate::session::NewSession::new(1, "ada");
        let session = store.create(new).await.unwrap();

        assert!(!tokens.accepts(session.token().expose()));
    }

    #[test]
    fn without_keys_there_are_no_tokens() {
        let error = DebugTokens::new(&Config::default()).unwrap_err();

        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("CACHE_SESSION_KEYS"), "{error}");
    }
}
