//! The addresses that proxies recorded, from the right. The last entry comes first, because anything that a client wrote
//! itself is to the left of the entries that its proxies added.

use std::iter;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str;

use ::http::{HeaderMap, HeaderName, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header in which proxies record the address of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl Field {
    /// Returns the entries of the proxies, the last entry first, over all lines; `None` for an entry that is no address.
    /// Entries are read lazily.
    pub(super) fn hops(self, headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
        let name = match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::Forwarded => header::FORWARDED,
        };
        let lines = headers.get_all(name).iter().rev();
        let members = lines.flat_map(|line| split_from_right(line.as_bytes(), b','));
        members.map(move |member| {
            let member = str::from_utf8(member).ok()?.trim_ascii();
            match self {
                Self::XForwardedFor => address(member),
                Self::Forwarded => address(node(member)?),
            }
        })
    }
}

/// Parses an address from a header: `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, with or without a port. A zone is
/// meaningful on one machine only, so an address with a zone is not accepted.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    if text.contains('%') {
        return None;
    }
    let bracketed = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match bracketed {
        Some(text) => text.parse::<Ipv6Addr>().ok()?.into(),
        None => match text.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

/// Returns the value of the only `for` in a member of `Forwarded`.
fn node(member: &str) -> Option<&str> {
    let mut node = None;
    for pair in split_from_right(member.as_bytes(), b';') {
        let pair = str::from_utf8(pair).ok()?.trim_ascii();
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        if name.eq_ignore_ascii_case("for") && node.replace(value).is_some() {
            return None;
        }
    }
    let value = node?;
    match value.strip_prefix('"') {
        // An address needs no escapes, so a value with escapes is not an address.
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(value),
    }
}

/// Returns the parts between separators outside of quotes, from the right. If they were read from the left, a quote that
/// a client opens and never closes would swallow the entries that its proxies added.
fn split_from_right(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    iter::from_fn(move || {
        let text = rest?;
        let mut is_quoted = false;
        let cut = text.iter().enumerate().rposition(|(at, byte)| {
            if *byte == b'"' && !is_escaped(&text[..at]) {
                is_quoted = !is_quoted;
            }
            *byte == separator && !is_quoted
        });
        let (left, part) = match cut {
            Some(at) => (Some(&text[..at]), &text[at + 1..]),
            None => (None, text),
        };
        rest = left;
        Some(part)
    })
}

/// Returns whether the next character is escaped by a backslash that is not escaped itself.
fn is_escaped(before: &[u8]) -> bool {
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

#[cfg(test)]
mod tests;
