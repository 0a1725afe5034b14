//! Which requests may learn how they were answered.

use ::http::{HeaderName, Request};

use super::this_machine::elsewhere;
#[cfg(feature = "sessions")]
use crate::session::DebugTokens;

const CACHE_DEBUG: HeaderName = HeaderName::from_static("cache-debug");

/// What the header `Cache-Debug` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Debug {
    Explain,
    Timing,
}

/// Which requests may learn how the cache answered them, with the header `Cache-Debug`:
///
/// ```text
/// Cache-Debug: explain
/// Cache-Debug: explain; token=v1.2026-11.1795732800.mrQ…
/// Cache-Debug: timing
/// ```
///
/// `explain` is for the [`ExplainLayer`](super::ExplainLayer), and `timing` for the
/// [`CacheStatusLayer`](super::CacheStatusLayer::server_timing). A request that is not allowed to is answered as if it did not have the
/// header.
///
/// ```
/// use std::time::Duration;
///
/// use cache_runtime::http::{DebugAccess, ExplainLayer};
/// use cache_runtime::session::DebugTokens;
/// # use cache_runtime::{Cache, Config, SessionKeys};
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// # let keys = SessionKeys::parse("a:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")?;
/// # let config = Config::default().session_keys(keys);
/// # let cache = Cache::memory();
/// let tokens = DebugTokens::new(&config)?;
/// let an_hour = tokens.issue(Duration::from_secs(3600))?; // for a developer
///
/// let layer = ExplainLayer::new(&cache, DebugAccess::loopback().or_signed(tokens));
/// # drop((layer, an_hour));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct DebugAccess {
    is_loopback_refused: bool,
    #[cfg(feature = "sessions")]
    tokens: Option<DebugTokens>,
}

impl DebugAccess {
    /// Allows requests whose connection comes from this machine (`127.0.0.0/8` or `::1`).
    ///
    /// Only the peer of the connection counts ([`PeerAddr`](super::PeerAddr), or axum's `ConnectInfo`), never an address in a header. A
    /// request with `Forwarded`, `Via`, `X-Real-IP` or one of `X-Forwarded-…` is refused, because it comes from a proxy on this machine.
    /// A proxy that adds none of them would make every client local: use [`signed`](Self::signed) behind such a proxy. `Host` must be
    /// `localhost` or a loopback address, so that no page of another site can ask through a browser on this machine.
    pub fn loopback() -> Self {
        Self::default()
    }

    /// Allows only requests with a valid token.
    #[cfg(feature = "sessions")]
    pub fn signed(tokens: DebugTokens) -> Self {
        Self {
            is_loopback_refused: true,
            tokens: Some(tokens),
        }
    }

    /// Also allows requests with a valid token.
    #[cfg(feature = "sessions")]
    pub fn or_signed(mut self, tokens: DebugTokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Returns whether the request asks for this, and may.
    pub(super) fn allows<B>(&self, wanted: Debug, request: &Request<B>) -> bool {
        let mut fields = request.headers().get_all(CACHE_DEBUG).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return false;
        };
        let Ok(field) = field.to_str() else {
            return false;
        };
        let (word, parameters) = field.split_once(';').unwrap_or((field, ""));
        let is_wanted = match wanted {
            Debug::Explain => word.trim().eq_ignore_ascii_case("explain"),
            Debug::Timing => word.trim().eq_ignore_ascii_case("timing"),
        };
        is_wanted && (self.is_signed(parameters) || self.is_local(request))
    }

    #[cfg(feature = "sessions")]
    fn is_signed(&self, parameters: &str) -> bool {
        let Some(tokens) = &self.tokens else {
            return false;
        };
        let token = parameters.trim().strip_prefix("token=");
        token.is_some_and(|token| tokens.accepts(token.trim_matches('"')))
    }

    #[cfg(not(feature = "sessions"))]
    fn is_signed(&self, _: &str) -> bool {
        false
    }

    fn is_local<B>(&self, request: &Request<B>) -> bool {
        !self.is_loopback_refused && elsewhere(request).is_none()
    }
}
