//! The client whose calls are counted: an address, a user, or any other name, escaped for use in a key.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

/// A longer name is hashed, so clients cannot fill memory with names.
const MAX_NAME: usize = 64;

/// The bits of an IPv6 address that identify a client. A subscriber can choose from at least 64 bits of addresses.
const IPV6_PREFIX: u8 = 64;

/// A client, as a limiter knows it.
///
/// Each kind has its own names: the user `1.2.3.4` is not the address 1.2.3.4. Characters that mean something in a key are
/// escaped, and a name of more than 64 bytes is replaced by a 128-bit hash.
///
/// ```
/// use cache_runtime::limit::Identity;
///
/// let client = Identity::ip([203, 0, 113, 7].into()); // before a login
/// let user = Identity::user(42); // after it
/// assert_eq!((client.as_str(), user.as_str()), ("ip4:203.0.113.7", "user:42"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    name: Box<str>,
}

impl Identity {
    /// A client by its address. An IPv6 address that stands for an IPv4 client is that client; of other IPv6 addresses the first 64 bits
    /// count.
    ///
    /// | written as | standard | the IPv4 address |
    /// |---|---|---|
    /// | `::ffff:192.0.2.1` | mapped, RFC 4291 | the last 32 bits |
    /// | `64:ff9b::192.0.2.1` | NAT64, RFC 6052 | the last 32 bits |
    /// | `64:ff9b:1::192.0.2.1`, all of that /48 | NAT64 of a site, RFC 8215 | the last 32 bits, as with prefixes of 96 bits |
    /// | `2002:c000:201::1` | 6to4, RFC 3056 | the 32 bits after `2002:`; such a client has 65,536 networks of 64 bits to itself |
    /// | `2001:0:…` | Teredo, RFC 4380 | the last 32 bits inverted; otherwise all clients of one relay would be one |
    ///
    /// This is for counting only. A proxy is trusted by its actual address, independent of the notation.
    pub fn ip(address: IpAddr) -> Self {
        Self::ip_within(address, IPV6_PREFIX)
    }

    /// The same with another prefix of IPv6 addresses: 56 bits if that is what a subscriber commonly has, 48 for a site.
    /// More than 128 means 128.
    pub fn ip_within(address: IpAddr, ipv6_prefix: u8) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
            v4 => v4,
        };
        let name = match address {
            IpAddr::V4(address) => format!("ip4:{address}"),
            IpAddr::V6(address) => {
                let prefix = ipv6_prefix.min(128);
                let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
                let network = Ipv6Addr::from_bits(address.to_bits() & mask);
                format!("ip6:{network}/{prefix}")
            }
        };
        Self { name: name.into() }
    }

    /// A user. Take it from a verified session, never from unverified input of a client.
    pub fn user(id: impl fmt::Display) -> Self {
        Self::of_kind("user", &id)
    }

    /// Anything else that has a name: an API key, a tenant, an account. `#[rate_limit(key = "<user_id>")]` counts by this,
    /// so a layer that counts together with it must use `Identity::key(id)`, not `Identity::user(id)`.
    pub fn key(name: impl fmt::Display) -> Self {
        Self::of_kind("key", &name)
    }

    /// All clients together.
    pub fn global() -> Self {
        Self::of_kind("global", &"")
    }

    /// All unknown clients together.
    pub fn unknown() -> Self {
        Self::of_kind("unknown", &"")
    }

    /// Returns its form in keys: `ip4:203.0.113.7`, `user:42`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns the client with this form in keys. [`None`] for a text that no client has.
    #[cfg(feature = "admin")]
    pub(crate) fn of_name(text: &str) -> Option<Self> {
        const KINDS: [&str; 6] = ["ip4", "ip6", "user", "key", "global", "unknown"];
        let (kind, name) = text.split_once(':')?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-%:/".contains(&byte);
        let is_one = KINDS.contains(&kind) && name.len() <= MAX_NAME && name.bytes().all(is_plain);
        is_one.then(|| Self { name: text.into() })
    }

    fn of_kind(kind: &str, name: &dyn fmt::Display) -> Self {
        let mut written = format!("{kind}:");
        let start = written.len();
        let mut encoded = Encoded {
            name: &mut written,
            start,
            hash: Sha256::new(),
            is_long: false,
        };
        let outcome = write!(encoded, "{name}");
        let Encoded { hash, is_long, .. } = encoded;
        if is_long || outcome.is_err() {
            written.truncate(start);
            // No encoded text begins with two of them.
            written.push_str("%%");
            for byte in &hash.finalize()[..16] {
                let _ = write!(written, "{byte:02x}");
            }
        }
        Self {
            name: written.into(),
        }
    }
}

/// Returns the IPv4 client behind an address of a transition mechanism: see [`Identity::ip`].
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    let last = bits as u32;
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Some(last),
        [0x2002, ..] => Some((bits >> 80) as u32),
        [0x2001, 0, ..] => Some(!last),
        _ => None,
    }
    .map(Ipv4Addr::from_bits)
}

/// Shows the whole name, so log lines are useful. It is an address or a user, so mind where it is logged.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Percent-encodes what is written into it, until the text is so long that only its hash is used.
struct Encoded<'a> {
    name: &'a mut String,
    start: usize,
    hash: Sha256,
    is_long: bool,
}

impl fmt::Write for Encoded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.hash.update(text);
        for byte in text.bytes() {
            if self.is_long {
                break;
            }
            if byte.is_ascii_alphanumeric() || b"._@-".contains(&byte) {
                self.name.push(byte.into());
            } else {
                write!(self.name, "%{byte:02X}")?;
            }
            self.is_long = self.name.len() - self.start > MAX_NAME;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> String {
        Identity::ip(text.parse().unwrap()).to_string()
    }

    #[test]
    fn all_spellings_of_an_ipv4_address_are_equal() {
        assert_eq!(ip("1.2.3.4"), "ip4:1.2.3.4");
        assert_eq!(ip("::ffff:1.2.3.4"), "ip4:1.2.3.4");
        assert_eq!(ip("::ffff:102:304"), "ip4:1.2.3.4");
        assert_eq!(ip("2001:db8::1.2.3.4"), "ip6:2001:db8::/64");
    }

    #[test]
    fn an_ipv4_client_keeps_its_identity_behind_a_translator_or_a_tunnel() {
        for (written, client) in [
            ("64:ff9b::192.0.2.33", "ip4:192.0.2.33"),
            ("64:ff9b::c000:221", "ip4:192.0.2.33"),
            ("64:ff9b:1::192.0.2.33", "ip4:192.0.2.33"),
            ("64:ff9b:1:fffe::192.0.2.33", "ip4:192.0.2.33"),
            ("2002:c000:221::1", "ip4:192.0.2.33"),
            ("2002:c000:221:ffff::2", "ip4:192.0.2.33"),
            ("2001:0:4136:e378:8000:63bf:3fff:fdde", "ip4:192.0.2.33"),
        ] {
            assert_eq!(ip(written), client, "{written}");
            let within = Identity::ip_within(written.parse().unwrap(), 48);
            assert_eq!(within.as_str(), client, "{written}");
        }
        // Two clients of one translator stay distinct.
        assert_ne!(ip("64:ff9b::192.0.2.33"), ip("64:ff9b::192.0.2.34"));
    }

    #[test]
    fn addresses_next_to_translator_ranges_are_ordinary_networks() {
        for (written, client) in [
            ("64:ff9b:0:0:0:1::1", "ip6:64:ff9b::/64"),
            ("64:ff9b:2::192.0.2.33", "ip6:64:ff9b:2::/64"),
            ("64:ff9a::192.0.2.33", "ip6:64:ff9a::/64"),
            ("2001:1::1", "ip6:2001:1::/64"),
            ("2003:c000:221::1", "ip6:2003:c000:221::/64"),
            ("::192.0.2.33", "ip6:::/64"),
        ] {
            assert_eq!(ip(written), client, "{written}");
        }
    }

    #[test]
    fn an_ipv6_client_is_identified_by_its_network() {
        assert_eq!(ip("2001:db8:1:2:3:4:5:6"), ip("2001:db8:1:2:ffff::"));
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
        let within =
            |prefix| Identity::ip_within("2001:db8:1:2::1".parse().unwrap(), prefix).to_string();
        assert_eq!(within(48), "ip6:2001:db8:1::/48");
        assert_eq!(within(0), "ip6:::/0");
        assert_eq!(within(200), "ip6:2001:db8:1:2::1/128");
    }

    #[test]
    fn identities_of_different_kinds_are_different() {
        assert_ne!(Identity::user("1.2.3.4").to_string(), ip("1.2.3.4"));
        assert_ne!(Identity::user("a"), Identity::key("a"));
        assert_ne!(Identity::user(""), Identity::global());
    }

    #[test]
    fn special_characters_of_keys_are_escaped() {
        for name in [
            "{a}b", "a}{", "*", "a:b", "a\nb", "a\0b", "é", "%7B", "", " ",
        ] {
            let identity = Identity::user(name);
            let encoded = identity.as_str().strip_prefix("user:").unwrap();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-%".contains(&byte);
            assert!(encoded.bytes().all(is_plain), "{identity}");
        }
        assert_ne!(Identity::user("%7B"), Identity::user("{"));
    }

    #[test]
    fn a_long_name_becomes_a_unique_short_name() {
        let long = |tail: &str| Identity::user(format!("{}{tail}", "x".repeat(1 << 20)));

        assert!(long("").as_str().len() < 48);
        assert_ne!(long("a"), long("b"));
        let hash = long("a").as_str().trim_start_matches("user:").to_owned();
        assert_ne!(
            Identity::user(&hash),
            long("a"),
            "a name that equals the hash stays distinct"
        );
        assert_eq!(Identity::user("x".repeat(64)).as_str().len(), 69);
    }
}
