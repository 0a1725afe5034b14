//! Whether a request comes from a program on this machine.

use ::http::{HeaderName, Request};

use super::client_ip::peer;
use super::origin::is_to_loopback;

/// Returns whether a proxy adds this header. Behind a proxy on this machine, every client seems to be this machine.
fn is_of_proxies(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "forwarded" | "via" | "x-real-ip") || name.starts_with("x-forwarded-")
}

/// Why a request does not count as one from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// The address of the client is unknown.
    UnknownPeer,
    OtherPeer,
    /// It came through a proxy.
    Proxy,
    /// It is addressed to a name that may be one of another site, whose page a browser on this machine shows.
    OtherName,
}

/// Returns why the request does not come from this machine, or [`None`] if it does.
pub(super) fn elsewhere<B>(request: &Request<B>) -> Option<Elsewhere> {
    let is_from_proxy = || request.headers().keys().any(is_of_proxies);
    match peer(request.extensions()) {
        None => Some(Elsewhere::UnknownPeer),
        Some(peer) if !peer.is_loopback() => Some(Elsewhere::OtherPeer),
        Some(_) if is_from_proxy() => Some(Elsewhere::Proxy),
        Some(_) if !is_to_loopback(request) => Some(Elsewhere::OtherName),
        Some(_) => None,
    }
}
