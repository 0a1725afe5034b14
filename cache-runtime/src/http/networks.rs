//! The networks of trusted proxies.

use std::borrow::Borrow;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::error::{Error, ErrorKind};
use crate::escape::excerpt;

/// How many characters of an invalid text are shown.
const SHOWN: usize = 50;

/// Networks of IPv4 and IPv6 addresses, at least one.
#[derive(Clone, Debug)]
pub(super) struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` and bare addresses.
    pub(super) fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, Error> {
        let mut networks = Vec::new();
        let mut problems = String::new();
        for text in texts {
            match network(text.as_ref().trim()) {
                Ok(network) => networks.push(network),
                Err(what) => {
                    problems.push_str("\n  ");
                    problems.push_str(&what);
                }
            }
        }
        if networks.is_empty() && problems.is_empty() {
            problems.push_str(
                "\n  no network is given; list the networks of your proxies, or use `ClientIpSource::peer()`",
            );
        }
        if problems.is_empty() {
            Ok(Self(networks))
        } else {
            let text = format!("invalid trusted proxies:{problems}");
            Err(Error::new(ErrorKind::Config, text))
        }
    }

    /// Returns whether a network contains this address. The address must be canonical: an IPv4 address that is mapped to
    /// IPv6 is an IPv4 address.
    pub(super) fn contain(&self, address: impl Borrow<IpAddr>) -> bool {
        self.0
            .iter()
            .any(|network| network.contains(address.borrow()))
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let shown = || excerpt(text, SHOWN);
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| {
            format!(
                "`{}` is not a network; use an address, or an address with a prefix such as `10.0.0.0/8`",
                shown()
            )
        })?,
    };
    if network.prefix_len() == 0 {
        return Err(format!(
            "`{}` would let every client claim any address; list only the networks of your proxies",
            shown()
        ));
    }
    if network.addr() != network.network() {
        return Err(format!(
            "`{}` has bits set after its prefix; use `{}`, or the address alone",
            shown(),
            network.trunc()
        ));
    }
    canonical(network).ok_or_else(|| {
        format!(
            "`{}` covers all of IPv4; list only the networks of your proxies",
            shown()
        )
    })
}

/// A network of IPv4-mapped IPv6 addresses becomes a network of IPv4 addresses. The network of all of them is not
/// accepted.
fn canonical(network: IpNet) -> Option<IpNet> {
    let (IpNet::V6(mapped), IpAddr::V4(address)) = (network, network.addr().to_canonical()) else {
        return Some(network);
    };
    let prefix = mapped
        .prefix_len()
        .checked_sub(96)
        .filter(|prefix| *prefix > 0)?;
    Ipv4Net::new(address, prefix).ok().map(IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contain(networks: &[&str], address: &str) -> bool {
        let networks = Networks::parse(networks).unwrap();
        networks.contain(address.parse::<IpAddr>().unwrap().to_canonical())
    }

    fn problem(network: &str) -> String {
        let error = Networks::parse([network]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn an_address_alone_is_a_network_of_one() {
        assert!(contain(&["10.0.0.1"], "10.0.0.1"));
        assert!(!contain(&["10.0.0.1"], "10.0.0.2"));
        assert!(contain(&["::1"], "::1"));
        assert!(!contain(&["::1"], "::2"));
    }

    #[test]
    fn a_network_contains_the_addresses_of_its_prefix_and_family() {
        let networks = ["10.0.0.0/8", "2001:db8::/32"];

        assert!(contain(&networks, "10.255.0.1"));
        assert!(contain(&networks, "2001:db8:ffff::1"));
        assert!(!contain(&networks, "11.0.0.1"));
        assert!(!contain(&networks, "2001:db9::1"));
        assert!(!contain(&["::/1"], "10.0.0.1"));
    }

    #[test]
    fn ipv4_mapped_addresses_are_ipv4_on_both_sides() {
        for network in ["::ffff:10.0.0.0/104", "::ffff:a00:0/104", "10.0.0.0/8"] {
            for address in ["10.1.2.3", "::ffff:10.1.2.3", "::ffff:a01:203"] {
                assert!(contain(&[network], address), "{network} {address}");
            }
            assert!(!contain(&[network], "::a01:203"));
        }
    }

    #[test]
    fn invalid_networks_are_refused_with_advice() {
        for text in [
            "",
            "localhost",
            "10.0.0.0/33",
            "10.0.0/8",
            "::1/129",
            "fe80::1%eth0",
            "10.0.0.1:80",
        ] {
            let problem = problem(text);
            assert!(
                problem.contains(&format!("`{text}` is not a network; use ")),
                "{problem}"
            );
        }
        assert!(problem("10.1.2.3/8").contains("use `10.0.0.0/8`"));
        assert!(problem(&"é\n".repeat(1000)).len() < 300);
    }

    #[test]
    fn trusting_all_addresses_is_refused() {
        for text in ["0.0.0.0/0", "::/0", "::ffff:0:0/96"] {
            assert!(
                problem(text).contains("list only the networks of your proxies"),
                "{text}"
            );
        }
    }

    #[test]
    fn all_problems_are_reported_together() {
        let error = Networks::parse(["10.0.0.0/8", "a", "b"]).unwrap_err();
        assert!(error.to_string().contains("`a`") && error.to_string().contains("`b`"));

        let none: [&str; 0] = [];
        let error = Networks::parse(none).unwrap_err();
        assert!(error.to_string().contains("`ClientIpSource::peer()`"));
    }
}
