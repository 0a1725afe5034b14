//! The addresses that proxies wrote down, from the right: the last one first, since what a client wrote itself stands to the
//! left of all that its proxies added.

use std::iter;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str;

use axum::http::{HeaderMap, HeaderName, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where proxies write whom they had a request from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl Field {
    /// What each proxy wrote, the last one first, over all lines; `None` for what is no address. Nothing is read before it is
    /// asked for.
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

/// An address as it stands in a header: `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, with a port or without. The zone of an
/// address means something on one machine only, so an address with one is none.
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

/// The value of the one `for` in a member of `Forwarded`.
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
        // An address needs no escapes; where there are some, it is none.
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(value),
    }
}

/// The parts between separators that are not in quotes, from the right. Read from the left, a quote that a client opens and never
/// closes would swallow what its proxies added.
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

/// Whether what follows is escaped by a backslash that is not escaped itself.
fn is_escaped(before: &[u8]) -> bool {
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

#[cfg(test)]
mod tests;
