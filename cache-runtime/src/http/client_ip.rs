//! Who a request comes from: the peer of the connection, or whom trusted proxies had it from.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::extract::connect_info::MockConnectInfo;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use super::hops::{Field, address};
use super::networks::Networks;
use super::problem;
use crate::error::{Error, ErrorKind};
use crate::escape::excerpt;

/// Nobody has so many proxies in a row. What a header says beyond that is not read.
const MAX_HOPS: usize = 32;

/// The address of a client, for handlers. IPv4 addresses are IPv4 here, also where a connection or a header spells them as
/// IPv6.
///
/// A [`RateLimitLayer`](super::RateLimitLayer) puts it into a request's extensions, as its
/// [`client_ip`](super::RateLimitLayer::client_ip) says. Without one, and on paths that bypass it, this is the peer of the
/// connection.
///
/// ```
/// use cache_runtime::http::ClientIp;
///
/// async fn whoami(ClientIp(address): ClientIp) -> String {
///     address.to_string()
/// }
/// # let _: axum::Router = axum::Router::new().route("/whoami", axum::routing::get(whoami));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientIp(pub IpAddr);

/// Nothing is known of a client's address: the rejection of [`ClientIp`], a 500, since it is the service that lacks something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingClientIp;

/// How the address of a client is found: the peer of the connection, unless something else is said.
///
/// Every header can be forged by whoever sends the request, so a header counts only as far as trusted proxies wrote it. Each
/// constructor says how that is known.
///
/// Entries are `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, with a port or without. Everything else, an empty entry, `unknown`,
/// an obfuscated `_hidden` and an address with a zone among it, is *no address*: it ends the search, and nothing to the left of
/// it is looked at.
///
/// ```
/// use cache_runtime::http::ClientIpSource;
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// let behind_a_balancer = ClientIpSource::trusted_proxies(["10.0.0.0/8", "2001:db8::1"])?;
/// let behind_a_platform = ClientIpSource::trusted_hops(1)?;
/// let behind_nginx = ClientIpSource::header("X-Real-IP", ["127.0.0.1", "::1"])?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientIpSource(Source);

#[derive(Clone, Debug)]
enum Source {
    Peer,
    Chain { trust: Trust, field: Field },
    Header { name: HeaderName, proxies: Networks },
}

/// Which part of a chain of proxies is believed.
#[derive(Clone, Debug)]
enum Trust {
    Networks(Networks),
    Hops(usize),
}

impl ClientIpSource {
    /// The peer of the connection, for services that no proxy stands before. Axum tells it to services that are made by
    /// `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn peer() -> Self {
        Self(Source::Peer)
    }

    /// The nearest address that is not in these networks: first the peer of the connection, then the entries of
    /// `X-Forwarded-For` from the right, over all lines of it.
    ///
    /// So the header counts only if the peer is a trusted proxy, and of it only what trusted proxies added. If all entries are
    /// trusted, it is the leftmost; where one is no address, it is the one to the right of it. Not more than 32 entries are read.
    ///
    /// A network is written as `10.0.0.0/8` or as a bare address.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with everything that is wrong: what is no network, one that is everybody, or none at all.
    pub fn trusted_proxies<T: AsRef<str>>(
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let trust = Trust::Networks(Networks::parse(networks)?);
        let field = Field::XForwardedFor;
        Ok(Self(Source::Chain { trust, field }))
    }

    /// What the outermost of so many proxies wrote: the entry of `X-Forwarded-For` that is so many from the right, over all
    /// lines of it. With one proxy, which is the peer of the connection, it is the last entry.
    ///
    /// Whether the peer is a proxy is not asked, so nobody may reach the service, or an inner proxy, in another way. Where there
    /// are fewer entries, it is the leftmost; where one is no address, it is the one to the right of it; without any, it is the
    /// peer. A service that listens on a Unix socket has no peer, and needs none for this.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for 0 and for more than 32 proxies.
    pub fn trusted_hops(proxies: usize) -> Result<Self, Error> {
        if !(1..=MAX_HOPS).contains(&proxies) {
            let text = format!(
                "invalid number of trusted hops {proxies}; use the number of proxies that append to the header, from 1 to \
                 {MAX_HOPS}, or use `ClientIpSource::peer()`"
            );
            return Err(Error::new(ErrorKind::Config, text));
        }
        let trust = Trust::Hops(proxies);
        let field = Field::XForwardedFor;
        Ok(Self(Source::Chain { trust, field }))
    }

    /// Whether the peer of a connection at this address may say who its clients are. Such a peer is a proxy: limits on connections
    /// that go by address do not fit it.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        match &self.0 {
            Source::Peer => false,
            Source::Chain {
                trust: Trust::Hops(_),
                ..
            } => true,
            Source::Chain {
                trust: Trust::Networks(networks),
                ..
            }
            | Source::Header {
                proxies: networks, ..
            } => networks.contain(peer.to_canonical()),
        }
    }

    /// The one address in this header, such as `X-Real-IP`, if the peer of the connection is in these networks. If the header
    /// is missing, occurs twice or holds anything else, it is the peer.
    ///
    /// The proxy has to replace the header, not only to add it where there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for what is no name of a header, and as [`trusted_proxies`](Self::trusted_proxies).
    pub fn header<T: AsRef<str>>(
        name: &str,
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let Ok(name) = name.parse() else {
            let shown = excerpt(name, 50);
            let text = format!("`{shown}` is not a header name; use a name such as `X-Real-IP`");
            return Err(Error::new(ErrorKind::Config, text));
        };
        let proxies = Networks::parse(networks)?;
        Ok(Self(Source::Header { name, proxies }))
    }

    /// Reads the standard `Forwarded` ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)) in place of `X-Forwarded-For`: in
    /// each member the address after `for=`. Name the one that your proxies write: the other is whatever the client sent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] unless this is made by [`trusted_proxies`](Self::trusted_proxies) or
    /// [`trusted_hops`](Self::trusted_hops), which alone read either.
    pub fn forwarded(self) -> Result<Self, Error> {
        match self.0 {
            Source::Chain { trust, .. } => {
                let field = Field::Forwarded;
                Ok(Self(Source::Chain { trust, field }))
            }
            Source::Peer | Source::Header { .. } => Err(Error::new(
                ErrorKind::Config,
                "this source does not read `Forwarded`; call `forwarded` on `trusted_proxies` or `trusted_hops`",
            )),
        }
    }

    /// The address of whoever sent this request; [`None`] if nothing is known of the peer and nothing else is believed.
    pub fn find(&self, parts: &Parts) -> Option<ClientIp> {
        self.address(peer(&parts.extensions), &parts.headers)
            .map(ClientIp)
    }

    fn address(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        match &self.0 {
            Source::Peer => peer,
            Source::Chain { trust, field } => {
                let mut hops = field.hops(headers).take(MAX_HOPS).map_while(|hop| hop);
                match trust {
                    Trust::Hops(proxies) => hops.take(*proxies).last().or(peer),
                    Trust::Networks(proxies) => {
                        let mut client = peer?;
                        while proxies.contain(client)
                            && let Some(hop) = hops.next()
                        {
                            client = hop;
                        }
                        Some(client)
                    }
                }
            }
            Source::Header { name, proxies } => {
                let peer = peer?;
                if !proxies.contain(peer) {
                    return Some(peer);
                }
                let mut lines = headers.get_all(name).iter();
                let (line, None) = (lines.next(), lines.next()) else {
                    return Some(peer);
                };
                let text = line.and_then(|line| line.to_str().ok());
                Some(
                    text.and_then(|text| address(text.trim_ascii()))
                        .unwrap_or(peer),
                )
            }
        }
    }
}

/// As axum's own extractor finds it, in its tests too.
fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let peer = match extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(peer)) => peer,
        None => &extensions.get::<MockConnectInfo<SocketAddr>>()?.0,
    };
    Some(peer.ip().to_canonical())
}

impl ClientIp {
    /// What a layer has found, or the peer.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        let found = extensions.get().copied();
        found.or_else(|| peer(extensions).map(Self))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ClientIp {
    type Rejection = MissingClientIp;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, MissingClientIp> {
        Self::of(&parts.extensions).ok_or(MissingClientIp)
    }
}

impl fmt::Display for MissingClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the address of the client is unknown; serve with `into_make_service_with_connect_info::<SocketAddr>()`, or add a \
             `RateLimitLayer` with a `ClientIpSource`",
        )
    }
}

impl StdError for MissingClientIp {}

impl IntoResponse for MissingClientIp {
    fn into_response(self) -> Response {
        problem::untyped(StatusCode::INTERNAL_SERVER_ERROR, &self.to_string())
    }
}

#[cfg(test)]
mod tests;
