//! The check of unsafe requests against cross-site request forgery: which origins may make a browser change something.
//!
//! It follows Go's `net/http.CrossOriginProtection` ([design](https://words.filippo.io/csrf/)): a browser reports where a
//! request comes from, so no token is needed.

use std::net::{Ipv4Addr, Ipv6Addr};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use crate::error::{Error, ErrorKind};
use crate::escape::excerpt;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How many characters of an invalid text are shown.
const SHOWN: usize = 50;

/// Which other origins may send unsafe requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trusted {
    /// These origins and the service's own origin.
    Listed(Vec<Origin>),
    /// All origins: nothing is checked.
    Any,
}

/// An origin (RFC 6454): scheme, host and port, as a browser sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: Host,
    port: Option<u16>,
}

/// A host in its normalized spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    V6(Ipv6Addr),
}

impl Default for Trusted {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl Trusted {
    /// Parses an origin such as `https://app.example.com`.
    pub(super) fn parse<T: AsRef<str>>(
        origins: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let mut listed = Vec::new();
        let mut problems = Vec::new();
        for text in origins {
            let text = text.as_ref();
            match Origin::parse(text) {
                Some(origin) => listed.push(origin),
                None => {
                    let shown = excerpt(text, SHOWN);
                    problems.push(match text {
                        "*" => "`*` is not an origin; to trust all origins, use `allow_any_origin`".to_owned(),
                        "null" => "`null` is not an origin: every sandboxed page sends it".to_owned(),
                        _ => format!(
                            "`{shown}` is not an origin; use a scheme, a host and an optional port, such as `https://app.example.com`"
                        ),
                    });
                }
            }
        }
        if listed.is_empty() && problems.is_empty() {
            let text = "no trusted origin is given; list at least one, or remove the call";
            return Err(Error::new(ErrorKind::Config, text));
        }
        Error::refuse_any("invalid trusted origins", problems)?;
        Ok(Self::Listed(listed))
    }

    /// Returns whether a request that may change something comes from a page of an untrusted origin. `is_secure` is
    /// whether the cookie, and therefore the service, uses TLS only.
    pub(super) fn refuses<B>(&self, request: &Request<B>, is_secure: bool) -> bool {
        let Self::Listed(listed) = self else {
            return false;
        };
        let headers = request.headers();
        if is_safe(request.method(), headers) {
            return false;
        }
        let origin = match only(headers, &header::ORIGIN) {
            Field::Absent => None,
            Field::One(text) => Some(Origin::parse(text)),
            Field::Unclear => Some(None),
        };
        if let Some(Some(origin)) = &origin
            && listed.contains(origin)
        {
            return false;
        }
        match only(headers, &SEC_FETCH_SITE) {
            Field::One("same-origin" | "none") => return false,
            Field::Absent => {}
            Field::One(_) | Field::Unclear => return true,
        }
        match origin {
            // This is not a current browser: those send at least one of the two headers.
            None => false,
            Some(None) => true,
            Some(Some(origin)) => !own(request).is_some_and(|own| origin.is_at(&own, is_secure)),
        }
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = authority(rest)?;
        let default = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        Some(Self {
            scheme,
            host,
            port: port.or(default),
        })
    }

    /// Returns whether this is the origin of a service at this host. A proxy that ends TLS does not report the scheme,
    /// but a service with a TLS-only cookie uses `https`. On the local machine browsers also treat `http` as secure.
    fn is_at(&self, (host, port): &(Host, Option<u16>), is_secure: bool) -> bool {
        let default = match self.scheme.as_str() {
            "https" => 443,
            "http" if !is_secure || self.host.is_loopback() => 80,
            _ => return false,
        };
        self.host == *host && self.port == Some(port.unwrap_or(default))
    }
}

impl Host {
    fn is_loopback(&self) -> bool {
        match self {
            Self::V6(address) => address.is_loopback(),
            Self::Name(name) => {
                let is_local = name == "localhost" || name.ends_with(".localhost");
                is_local
                    || name
                        .parse()
                        .is_ok_and(|address: Ipv4Addr| address.is_loopback())
            }
        }
    }
}

/// Returns whether the method of the request changes nothing (RFC 9110 9.2.1). A request that opens a WebSocket is not
/// safe: a page of any origin can open a WebSocket with the cookie and write to it.
fn is_safe(method: &Method, headers: &HeaderMap) -> bool {
    let is_upgrade = || {
        let mut upgrades = headers.get_all(header::UPGRADE).iter();
        upgrades.any(|value| {
            value
                .as_bytes()
                .to_ascii_lowercase()
                .starts_with(b"websocket")
        })
    };
    match *method {
        Method::GET => !is_upgrade(),
        Method::HEAD | Method::OPTIONS | Method::TRACE => true,
        _ => false,
    }
}

/// Returns whether a browser says that a page of another origin sends the request. Even if that page cannot read the response, it
/// could make the service work.
#[cfg(feature = "admin")]
pub(super) fn is_foreign(headers: &HeaderMap) -> bool {
    !matches!(
        only(headers, &SEC_FETCH_SITE),
        Field::Absent | Field::One("same-origin" | "none")
    )
}

/// Returns whether the client addressed this machine by a name of its own, such as `localhost`. A page of another site cannot make a
/// browser do that, even if its own name leads to this machine.
pub(super) fn is_to_loopback<B>(request: &Request<B>) -> bool {
    own(request).is_some_and(|(host, _)| host.is_loopback())
}

/// Returns the host of the request as the client, or the last proxy that rewrote it, names it.
fn own<B>(request: &Request<B>) -> Option<(Host, Option<u16>)> {
    match request.uri().authority() {
        // The host in the request line overrides the header (RFC 9112 3.2.2). HTTP/2 has it only there.
        Some(named) => authority(named.as_str()),
        None => match only(request.headers(), &header::HOST) {
            Field::One(text) => authority(text),
            Field::Absent | Field::Unclear => None,
        },
    }
}

/// A host with an optional port.
fn authority(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':')?),
            };
            (Host::V6(address.parse().ok()?), port)
        }
        None => {
            let (name, port) = match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            };
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_plain) {
                return None;
            }
            (Host::Name(name.to_ascii_lowercase()), port)
        }
    };
    match port {
        None | Some("") => Some((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok()?)))
        }
        Some(_) => None,
    }
}

/// A header that a browser sends at most once.
enum Field<'a> {
    Absent,
    One(&'a str),
    /// The header occurs twice or is not text.
    Unclear,
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Field<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Field::Absent,
        (Some(Ok(text)), None) => Field::One(text),
        _ => Field::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri("/change");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    /// Returns whether a `POST` with these fields is refused if the cookie is `Secure`.
    fn refused(fields: &[(&str, &str)]) -> bool {
        Trusted::default().refuses(&request("POST", fields), true)
    }

    #[test]
    fn sec_fetch_site_decides_if_it_is_present() {
        for (site, is_refused) in [
            ("same-origin", false),
            ("none", false),
            ("same-site", true),
            ("cross-site", true),
            ("", true),
            ("Same-Origin", true),
            ("same-origin, none", true),
        ] {
            assert_eq!(refused(&[("sec-fetch-site", site)]), is_refused, "{site}");
            let contradicted = [
                ("sec-fetch-site", site),
                ("host", "a.example"),
                ("origin", "https://a.example"),
            ];
            assert_eq!(refused(&contradicted), is_refused, "{site}");
        }
        let twice = [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert!(refused(&twice));
    }

    #[test]
    fn otherwise_the_origin_is_compared_with_the_host() {
        for (origin, host, is_refused) in [
            ("https://a.example", "a.example", false),
            ("https://a.example", "A.Example", false),
            ("https://a.example", "a.example:443", false),
            ("https://a.example:443", "a.example", false),
            ("https://a.example:8443", "a.example:8443", false),
            ("https://[2001:db8::1]", "[2001:db8:0::1]", false),
            ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443", false),
            ("https://192.0.2.1", "192.0.2.1", false),
            ("http://localhost:3000", "localhost:3000", false),
            ("http://app.localhost", "app.localhost", false),
            ("http://127.0.0.1:80", "127.0.0.1", false),
            ("http://[::1]:3000", "[::1]:3000", false),
            ("https://b.example", "a.example", true),
            ("https://x.a.example", "a.example", true),
            ("https://a.example.evil.example", "a.example", true),
            ("https://a.example:8443", "a.example", true),
            ("https://a.example", "a.example:8443", true),
            ("https://a.example", "a.example:80", true),
            ("http://a.example:443", "a.example:443", true),
            ("http://a.example", "a.example", true),
            ("https://[2001:db8::2]", "[2001:db8::1]", true),
            ("http://localhost:3000", "localhost:3001", true),
            ("null", "a.example", true),
            ("null", "null", true),
            ("", "a.example", true),
            ("a.example", "a.example", true),
            ("https://", "a.example", true),
            ("https://a.example/", "a.example", true),
            ("https://user@a.example", "a.example", true),
            ("https://a.example:+443", "a.example", true),
            ("https://a.example:99999", "a.example:99999", true),
            ("ftp://a.example", "a.example", true),
            ("https://a.example", "", true),
            ("https://a.example", "a.example, b.example", true),
        ] {
            let fields = [("origin", origin), ("host", host)];
            assert_eq!(refused(&fields), is_refused, "{origin} at {host}");
        }
        assert!(refused(&[("origin", "https://a.example")]), "no host");
        let two = [
            ("host", "a.example"),
            ("origin", "https://a.example"),
            ("origin", "https://b.example"),
        ];
        assert!(refused(&two));
        let forwarded = [
            ("host", "a.example"),
            ("origin", "https://b.example"),
            ("x-forwarded-host", "b.example"),
        ];
        assert!(refused(&forwarded), "any client can write that header");
    }

    #[test]
    fn the_host_of_the_request_line_wins_over_the_header() {
        let mut request = request(
            "POST",
            &[("origin", "https://a.example"), ("host", "b.example")],
        );
        assert!(Trusted::default().refuses(&request, true));

        *request.uri_mut() = "https://a.example/change".parse().unwrap();

        assert!(!Trusted::default().refuses(&request, true));
    }

    #[test]
    fn a_service_without_tls_accepts_both_schemes() {
        for origin in ["http://a.example", "https://a.example"] {
            let request = request("POST", &[("origin", origin), ("host", "a.example")]);
            assert!(!Trusted::default().refuses(&request, false), "{origin}");
        }
        let other = request(
            "POST",
            &[("origin", "http://a.example"), ("host", "a.example:443")],
        );
        assert!(Trusted::default().refuses(&other, false));
    }

    #[test]
    fn requests_without_an_origin_and_safe_methods_pass() {
        assert!(!refused(&[("host", "a.example")]));
        let foreign = [
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://b.example"),
        ];
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(
                !Trusted::default().refuses(&request(method, &foreign), true),
                "{method}"
            );
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "PURGE", "get"] {
            assert!(
                Trusted::default().refuses(&request(method, &foreign), true),
                "{method}"
            );
        }
    }

    #[test]
    fn a_page_of_another_origin_cannot_open_a_websocket() {
        let mut socket = vec![("upgrade", "WebSocket"), ("host", "a.example")];
        socket.push(("origin", "https://b.example"));
        assert!(Trusted::default().refuses(&request("GET", &socket), true));

        socket[2].1 = "https://a.example";
        assert!(!Trusted::default().refuses(&request("GET", &socket), true));
    }

    #[test]
    fn a_trusted_origin_passes_in_any_spelling() {
        let trusted = Trusted::parse([
            "https://App.Example",
            "http://[2001:DB8::1]:80",
            "capacitor://localhost",
        ]);
        let trusted = trusted.unwrap();
        for origin in [
            "https://app.example",
            "https://app.example:443",
            "http://[2001:db8::1]",
            "capacitor://localhost",
        ] {
            for site in ["same-site", "cross-site"] {
                let fields = [
                    ("origin", origin),
                    ("sec-fetch-site", site),
                    ("host", "a.example"),
                ];
                assert!(
                    !trusted.refuses(&request("POST", &fields), true),
                    "{origin}"
                );
            }
        }
        for origin in [
            "http://app.example",
            "https://app.example:8443",
            "https://x.app.example",
            "null",
        ] {
            let fields = [("origin", origin), ("sec-fetch-site", "cross-site")];
            assert!(trusted.refuses(&request("POST", &fields), true), "{origin}");
        }
    }

    #[test]
    fn invalid_origins_are_refused_with_advice() {
        for (text, told) in [
            ("*", "allow_any_origin"),
            ("null", "sandboxed"),
            ("app.example", "https://app.example.com"),
            ("https://app.example/", "https://app.example.com"),
            ("https://app.example/path", "https://app.example.com"),
            ("https://*.example", "https://app.example.com"),
        ] {
            let problem = Trusted::parse([text]).unwrap_err().to_string();
            assert!(problem.contains(told), "{problem}");
        }
        let none: [&str; 0] = [];
        assert!(Trusted::parse(none).is_err());
    }
}
