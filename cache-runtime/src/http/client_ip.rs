//! The address of a client: the peer of the connection, or the address that trusted proxies report.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ::http::request::Parts;
use ::http::{Extensions, HeaderMap, HeaderName, Response, StatusCode};

use super::hops::{Field, address};
use super::networks::Networks;
use super::problem;
use crate::error::{Error, ErrorKind};
use crate::escape::excerpt;

/// No real chain of proxies is this long. Further entries of a header are not read.
const MAX_HOPS: usize = 32;

/// The address of a client, for handlers. With the feature `axum` it is an extractor; otherwise use [`of`](Self::of). An IPv4
/// address is always an `Ipv4Addr`, also if a connection or a header spells it as an IPv6 address.
///
/// A [`RateLimitLayer`](super::RateLimitLayer) stores it in the request's extensions, as configured by
/// [`client_ip`](super::RateLimitLayer::client_ip). Without a layer, and on paths that bypass it, this is the peer of the
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

/// The address and port of the peer of a connection, for servers other than axum's: insert it into the extensions of each request.
///
/// ```
/// use std::net::SocketAddr;
///
/// use cache_runtime::http::PeerAddr;
///
/// fn accepted<B>(request: &mut http::Request<B>, peer: SocketAddr) {
///     request.extensions_mut().insert(PeerAddr(peer));
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// The address of the client is unknown. The rejection of [`ClientIp`]: a 500, because the service is misconfigured.
///
/// ```
/// use cache_runtime::http::{ClientIp, MissingClientIp};
///
/// async fn whoami(client: Result<ClientIp, MissingClientIp>) -> String {
///     match client {
///         Ok(ClientIp(address)) => address.to_string(),
///         Err(missing) => missing.to_string(), // instead of a 500
///     }
/// }
/// # let _: axum::Router = axum::Router::new().route("/whoami", axum::routing::get(whoami));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingClientIp;

/// How the address of a client is found. Default: the peer of the connection.
///
/// A client can forge every header, so a header counts only as far as trusted proxies wrote it. The documentation of each
/// constructor states how that is decided.
///
/// Entries are `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, with or without a port. Everything else is *no address*,
/// for example an empty entry, `unknown`, an obfuscated `_hidden`, or an address with a zone. It ends the search: entries
/// to its left are not read.
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

/// Which part of a chain of proxies is trusted.
#[derive(Clone, Debug)]
enum Trust {
    Networks(Networks),
    Hops(usize),
}

impl ClientIpSource {
    /// Uses the peer of the connection, for services without a proxy in front. Axum reports the peer to services that are
    /// made by `into_make_service_with_connect_info::<SocketAddr>()`. With another server, insert a [`PeerAddr`].
    pub fn peer() -> Self {
        Self(Source::Peer)
    }

    /// Uses the nearest address that is not in these networks: first the peer of the connection, then the entries of
    /// `X-Forwarded-For` from the right, over all its lines.
    ///
    /// So the header counts only if the peer is a trusted proxy, and only the entries that trusted proxies added. If all
    /// entries are trusted, the leftmost is used. If an entry is no address, the entry to its right is used. At most 32
    /// entries are read.
    ///
    /// A network is written as `10.0.0.0/8` or as a bare address.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with every problem: an item that is not a network, a network that contains every address, or
    /// an empty list.
    pub fn trusted_proxies<T: AsRef<str>>(
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let trust = Trust::Networks(Networks::parse(networks)?);
        let field = Field::XForwardedFor;
        Ok(Self(Source::Chain { trust, field }))
    }

    /// Uses the entry that the outermost of `proxies` proxies wrote: the entry of `X-Forwarded-For` at that position from
    /// the right, over all its lines. With 1 proxy, which is the peer of the connection, it is the last entry.
    ///
    /// The peer is not checked, so clients must not be able to reach the service, or an inner proxy, in another way. If
    /// there are fewer entries, the leftmost is used. If an entry is no address, the entry to its right is used. Without
    /// entries, the peer is used. A service on a Unix socket has no peer and does not need it here.
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

    /// Returns whether a peer at this address may report the addresses of its clients. Such a peer is a proxy, so do not
    /// limit its connections by address.
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

    /// Uses the single address in this header, such as `X-Real-IP`, if the peer of the connection is in these networks.
    /// If the header is missing, occurs twice or holds anything else, the peer is used.
    ///
    /// The proxy must replace the header, not only add it if it is missing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if `name` is not a header name, and the same as [`trusted_proxies`](Self::trusted_proxies).
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

    /// Reads the standard `Forwarded` ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)) instead of `X-Forwarded-For`:
    /// the address after `for=` in each member. Choose the header that your proxies write: the other contains whatever
    /// the client sent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] unless this was created by [`trusted_proxies`](Self::trusted_proxies) or
    /// [`trusted_hops`](Self::trusted_hops). Other sources read neither header.
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

    /// Returns the address of the client; [`None`] if the peer is unknown and no header is trusted.
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

/// Returns the address of the peer of the connection.
pub(super) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let own = extensions.get().map(|PeerAddr(peer)| *peer);
    Some(own.or_else(|| connected(extensions))?.ip().to_canonical())
}

/// Finds the peer as axum's own extractor does, also in its tests.
#[cfg(feature = "axum")]
fn connected(extensions: &Extensions) -> Option<SocketAddr> {
    use axum::extract::ConnectInfo;
    use axum::extract::connect_info::MockConnectInfo;
    let mock = || extensions.get().map(|MockConnectInfo(peer)| *peer);
    let peer = extensions.get().map(|ConnectInfo(peer)| *peer);
    peer.or_else(mock)
}

#[cfg(not(feature = "axum"))]
fn connected(_: &Extensions) -> Option<SocketAddr> {
    None
}

impl ClientIp {
    /// Returns the address that a layer found for the request with these extensions, or else the peer.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let found = extensions.get().copied();
        found.or_else(|| peer(extensions).map(Self))
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

/// A 500, because the service is misconfigured.
impl<B: From<String>> From<MissingClientIp> for Response<B> {
    fn from(missing: MissingClientIp) -> Self {
        problem::untyped(StatusCode::INTERNAL_SERVER_ERROR, &missing.to_string())
    }
}

#[cfg(feature = "axum")]
#[cfg(test)]
mod tests;
