//! The cookie that carries a session's token
//! ([RFC 6265bis](https://datatracker.ietf.org/doc/draft-ietf-httpbis-rfc6265bis/)).

use std::fmt::Write as _;
use std::iter;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};

use crate::error::Error;
use crate::session::COOKIE;

/// Some browsers refuse more than 4 KiB of name, value and attributes; nobody needs as much.
const MAX_LEN: usize = 128;

const REMOVED: &str = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";

/// How many domains a cookie is removed from that is not set there any more: each is a header of 100 bytes.
const MAX_DOMAINS: usize = 3;

/// How the cookie with a session's token looks: `__Host-session`, which browsers send to nobody but the host that set it, over TLS
/// alone, and show to no script.
///
/// What browsers would refuse is an error of [`SessionLayer::cookie`](super::SessionLayer::cookie): a `__Host-` cookie with a domain or
/// another path, one that is not `Secure` under such a name or for other sites, and names with characters that end them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct SessionCookie {
    name: String,
    path: String,
    domain: Option<String>,
    same_site: SameSite,
    is_secure: bool,
}

/// With which requests that begin at another site a browser sends the cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// With none: who follows a link from elsewhere is not logged in at first.
    Strict,
    /// With links that are followed, never with forms, scripts and images.
    #[default]
    Lax,
    /// With all. Requests that change something are then refused by their origin alone: see
    /// [`SessionLayer`](super::SessionLayer#requests-that-pages-of-other-origins-make-a-browser-send).
    None,
}

impl Default for SessionCookie {
    fn default() -> Self {
        Self {
            name: COOKIE.to_owned(),
            path: "/".to_owned(),
            domain: None,
            same_site: SameSite::default(),
            is_secure: true,
        }
    }
}

impl SessionCookie {
    /// For developing without TLS: the cookie `session`, which browsers send over plain HTTP, too. Everybody on the way can read it
    /// there.
    pub fn insecure() -> Self {
        Self {
            name: "session".to_owned(),
            is_secure: false,
            ..Self::default()
        }
    }

    /// Gives it another name. Tokens count only under the name for which they were made.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sends it only to paths below this one. That keeps nobody out: every page of the host can read the others.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sends it to this domain and all below it; each of them can then log in as whoever it likes. Needs another
    /// [`name`](Self::name), such as `__Secure-session`.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// With which requests from other sites it is sent.
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    pub(super) fn is_secure(&self) -> bool {
        self.is_secure
    }

    pub(super) fn name_text(&self) -> &str {
        &self.name
    }

    /// All that browsers would refuse.
    pub(super) fn check(&self) -> Result<(), Error> {
        let Self {
            name,
            path,
            domain,
            same_site,
            is_secure,
        } = self;
        let shown = name.escape_debug();
        let is_host = has_prefix(name, "__Host-");
        let mut problems = Vec::new();
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > MAX_LEN || !name.bytes().all(is_token) {
            problems.push(format!(
                "`{shown}` is not a cookie name; use 1 to {MAX_LEN} letters, digits, `-` and `_`"
            ));
        }
        if (is_host || has_prefix(name, "__Secure-") || has_prefix(name, "__Http-")) && !is_secure {
            problems.push(format!(
                "`{shown}` must be `Secure` because of its prefix; use another name, or do not start from `SessionCookie::insecure()`"
            ));
        }
        if is_host && path != "/" {
            problems.push(format!(
                "`{shown}` cannot set a path because of its prefix; use `__Secure-…`, or remove the path"
            ));
        }
        if is_host && domain.is_some() {
            problems.push(format!(
                "`{shown}` cannot set a domain because of its prefix; use `__Secure-…`, or remove the domain"
            ));
        }
        if *same_site == SameSite::None && !is_secure {
            problems.push("a cookie with `SameSite=None` must be `Secure`".to_owned());
        }
        if !path.starts_with('/') || path.len() > MAX_LEN || !path.bytes().all(is_plain) {
            problems.push(format!(
                "`{}` is not a cookie path; use a path such as `/app`",
                path.escape_debug()
            ));
        }
        if let Some(domain) = domain
            && !is_domain(domain)
        {
            problems.push(format!(
                "`{}` is not a cookie domain; use a domain such as `example.com`",
                domain.escape_debug()
            ));
        }
        Error::refuse_any("browsers would reject the session cookie", problems)
    }

    /// `Set-Cookie` with a token.
    pub(super) fn set(&self, token: &str, life: Duration) -> Option<HeaderValue> {
        // The last second is not worth a cookie that the server knows no more.
        self.render(token, &format!("Max-Age={}", life.as_secs()))
    }

    /// `Set-Cookie` that removes it. Browsers do so only if the attributes are those with which it was set.
    pub(super) fn removal(&self) -> Option<HeaderValue> {
        self.render("", REMOVED)
    }

    /// `Set-Cookie` headers that remove the forms which the cookie had if its domain or path was changed since: with the configured domain
    /// and path and without them, and with those domains above `host` that browsers would take. To browsers each is a cookie of its own, and
    /// they send all of them.
    pub(super) fn other_removals(&self, host: Option<&str>) -> Vec<HeaderValue> {
        // A name with this prefix has one form.
        if has_prefix(&self.name, "__Host-") {
            return Vec::new();
        }
        let host = host.map_or("", |host| host.split(':').next().unwrap_or_default());
        let above = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
        let mut domains: Vec<_> = [None, self.domain.as_deref()].into();
        let taken = iter::once(host).chain(above).filter(|name| is_domain(name));
        domains.extend(taken.take(MAX_DOMAINS).map(Some));
        domains.dedup();
        let mut forms: Vec<(&str, Option<&str>)> = Vec::new();
        for path in [self.path.as_str(), "/"] {
            for domain in &domains {
                let form = (path, *domain);
                if form != (self.path.as_str(), self.domain.as_deref()) && !forms.contains(&form) {
                    forms.push(form);
                }
            }
        }
        forms
            .into_iter()
            .filter_map(|(path, domain)| self.render_as(path, domain, "", REMOVED))
            .collect()
    }

    fn render(&self, value: &str, life: &str) -> Option<HeaderValue> {
        self.render_as(&self.path, self.domain.as_deref(), value, life)
    }

    fn render_as(
        &self,
        path: &str,
        domain: Option<&str>,
        value: &str,
        life: &str,
    ) -> Option<HeaderValue> {
        let Self {
            name,
            path: _,
            domain: _,
            same_site,
            is_secure,
        } = self;
        let mut text =
            format!("{name}={value}; Path={path}; {life}; HttpOnly; SameSite={same_site:?}");
        if *is_secure {
            text.push_str("; Secure");
        }
        if let Some(domain) = domain {
            let _ = write!(text, "; Domain={domain}");
        }
        let mut header = HeaderValue::try_from(text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// The values of this cookie in a request, in the order in which they came; empty for one that is no text. Other cookies in the
    /// line may be anything.
    pub(super) fn values<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
            .filter_map(|pair| {
                let (name, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
                let value = std::str::from_utf8(&value[1..]).unwrap_or_default();
                (name.trim_ascii() == self.name.as_bytes()).then(|| value.trim_ascii())
            })
    }
}

/// Whether a name begins so. Browsers compare it without regard to case.
fn has_prefix(name: &str, prefix: &str) -> bool {
    let start = name.get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// What stands in an attribute as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b';'
}

/// A host name of at least two labels: browsers refuse a cookie for all of `com`.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(is_inner)
    };
    // An address, or a part of one: no top-level domain is a number.
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = text.rsplit('.').next().is_some_and(is_number);
    text.len() <= 253 && !is_address && text.contains('.') && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(cookie: &SessionCookie) -> String {
        cookie.check().expect_err("refused").to_string()
    }

    #[test]
    fn what_browsers_refuse_is_refused_with_advice() {
        let host = SessionCookie::default;
        for (cookie, told) in [
            (host().domain("example.com"), "cannot set a domain"),
            (host().path("/app"), "cannot set a path"),
            (
                SessionCookie::insecure().name("__Host-x"),
                "must be `Secure` because of its prefix",
            ),
            (
                SessionCookie::insecure().name("__HOST-x"),
                "must be `Secure` because of its prefix",
            ),
            (
                SessionCookie::insecure().name("__Secure-x"),
                "must be `Secure` because of its prefix",
            ),
            (
                SessionCookie::insecure().same_site(SameSite::None),
                "with `SameSite=None` must be `Secure`",
            ),
            (host().name(""), "is not a cookie name"),
            (host().name("a b"), "is not a cookie name"),
            (host().name("a=b"), "is not a cookie name"),
            (host().name("a;b"), "is not a cookie name"),
            (host().name("a\r\nb"), "is not a cookie name"),
            (host().name("x").path("app"), "is not a cookie path"),
            (host().name("x").path("/; Domain=x"), "is not a cookie path"),
            (host().name("x").domain("com"), "is not a cookie domain"),
            (
                host().name("x").domain(".example.com"),
                "is not a cookie domain",
            ),
            (
                host().name("x").domain("192.0.2.1"),
                "is not a cookie domain",
            ),
            (
                host().name("x").domain("a.b; Path=/"),
                "is not a cookie domain",
            ),
        ] {
            let problem = problem(&cookie);
            assert!(problem.contains(told), "{cookie:?}: {problem}");
        }
    }

    #[test]
    fn no_part_of_an_address_is_taken_for_a_domain() {
        let removals = |host| SessionCookie::insecure().other_removals(Some(host)).len();

        assert_eq!(removals("127.0.0.1:8080"), 0);
        assert_eq!(removals("localhost"), 0);
        assert_eq!(removals("app.example.com"), 2);
    }

    #[test]
    fn all_problems_of_a_cookie_come_at_once() {
        let cookie = SessionCookie::insecure()
            .name("__Host-x")
            .domain("example.com")
            .path("/app");

        assert_eq!(problem(&cookie).lines().count(), 4);
    }

    #[test]
    fn what_browsers_take_is_taken() {
        for cookie in [
            SessionCookie::default(),
            SessionCookie::default().same_site(SameSite::None),
            SessionCookie::insecure().same_site(SameSite::Strict),
            SessionCookie::default()
                .name("__Secure-session")
                .domain("example.com")
                .path("/app"),
        ] {
            cookie.check().expect("fine");
        }
    }

    #[test]
    fn a_cookie_is_removed_with_the_attributes_with_which_it_is_set() {
        let attributes = |header: HeaderValue| {
            let text = header.to_str().expect("text").to_owned();
            let parts = text.split("; ").map(str::to_owned);
            let mut parts: Vec<_> = parts
                .filter(|part| !part.starts_with("Max-Age") && !part.starts_with("Expires"))
                .collect();
            parts[0] = parts[0].split('=').next().expect("a name").to_owned();
            parts
        };
        let whole = SessionCookie::default()
            .name("__Secure-s")
            .domain("example.com")
            .path("/app");
        for cookie in [SessionCookie::default(), SessionCookie::insecure(), whole] {
            let set = cookie.set("token", Duration::from_secs(60)).expect("set");
            let removal = cookie.removal().expect("removal");

            assert!(set.is_sensitive());
            assert_eq!(attributes(set), attributes(removal));
        }
        let set = SessionCookie::default().set("token", Duration::from_millis(60_999));
        assert_eq!(
            set.expect("set"),
            "__Host-session=token; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
        );
    }

    #[test]
    fn the_values_of_a_cookie_are_found_among_others() {
        let mut headers = HeaderMap::new();
        for line in [
            "a=1; session=one;session = two ; sessions=no; Session=no",
            "session; xsession=no; session=three=3",
            "session=\"quoted\"",
        ] {
            headers.append(header::COOKIE, line.parse().expect("a header"));
        }
        let broken = b"x=\xff; session=four; session=\xff; \xff=session=no";
        let broken = HeaderValue::from_bytes(broken).expect("a header");
        headers.append(header::COOKIE, broken);

        let cookie = SessionCookie::insecure();
        let values: Vec<_> = cookie.values(&headers).collect();

        assert_eq!(values, ["one", "two", "three=3", "\"quoted\"", "four", ""]);
    }
}
