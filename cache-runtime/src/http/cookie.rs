//! The cookie that carries a session's token
//! ([RFC 6265bis](https://datatracker.ietf.org/doc/draft-ietf-httpbis-rfc6265bis/)).

use std::fmt::Write as _;
use std::iter;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue};

use super::sent_cookies;
use crate::error::Error;
use crate::session::COOKIE;

/// Some browsers refuse more than 4 KiB of name, value and attributes. No cookie of this kind needs that much.
const MAX_LEN: usize = 128;

const REMOVED: &str = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";

/// The most domains that a cookie is removed from after the configured domain changed. Each adds a header of 100 bytes.
const MAX_DOMAINS: usize = 3;

/// The settings of the cookie that carries a session's token. Default: `__Host-session`, which browsers send only to the
/// host that set it and only over TLS, and hide from scripts.
///
/// Settings that browsers would refuse are an error of [`SessionLayer::cookie`](super::SessionLayer::cookie): a `__Host-`
/// cookie with a domain or another path, a cookie that is not `Secure` although its name or its use by other sites
/// requires that, and names with characters that end them.
///
/// ```
/// use cache_runtime::http::{SameSite, SessionCookie, SessionLayer};
/// use cache_runtime::session::SessionStore;
/// # use cache_runtime::Cache;
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// # let cache = Cache::memory();
/// // For all subdomains of the company.
/// let cookie = SessionCookie::default()
///     .name("__Secure-session")
///     .domain("example.com")
///     .same_site(SameSite::Strict);
/// let layer = SessionLayer::new(SessionStore::<()>::new(&cache)?).cookie(cookie)?;
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct SessionCookie {
    name: String,
    path: String,
    domain: Option<String>,
    same_site: SameSite,
    is_secure: bool,
}

/// Which requests from other sites a browser sends the cookie with.
///
/// See [`SessionCookie`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// None. A user who follows a link from another site is not logged in at first.
    Strict,
    /// Links that are followed, but not forms, scripts and images.
    #[default]
    Lax,
    /// All. Requests that change something are then refused only by their origin: see
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
    /// Returns the settings for development without TLS: the cookie `session`, which browsers also send over plain HTTP.
    /// Anyone on the network path can read it there.
    pub fn insecure() -> Self {
        Self {
            name: "session".to_owned(),
            is_secure: false,
            ..Self::default()
        }
    }

    /// Sets the name. Default: `__Host-session`. Tokens are valid only under the name that they were created for.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sends the cookie only to paths below this path. Default: `/`. This does not isolate paths: every page of the host
    /// can read the other pages.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sends the cookie to this domain and all its subdomains. Default: only to the host that set it. Each subdomain can
    /// then log users in as any user. Needs another [`name`](Self::name), such as `__Secure-session`.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sets which requests from other sites the cookie is sent with. Default: [`SameSite::Lax`].
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

    /// Returns every setting that browsers would refuse.
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

    /// Returns the `Set-Cookie` header for a token.
    pub(super) fn set(&self, token: &str, ttl: Duration) -> Option<HeaderValue> {
        // Rounds down, so that the cookie does not outlive the session.
        self.render(token, &format!("Max-Age={}", ttl.as_secs()))
    }

    /// Returns the `Set-Cookie` header that removes the cookie. Browsers remove it only if the attributes are those that
    /// set it.
    pub(super) fn removal(&self) -> Option<HeaderValue> {
        self.render("", REMOVED)
    }

    /// Returns `Set-Cookie` headers that remove the forms of the cookie from before its domain or path was changed: with
    /// and without the configured domain and path, and with the domains above `host` that browsers accept. To browsers
    /// each form is a separate cookie, and they send all of them.
    pub(super) fn other_removals(&self, host: Option<&str>) -> Vec<HeaderValue> {
        // A cookie with this prefix has only one form.
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

    fn render(&self, value: &str, max_age: &str) -> Option<HeaderValue> {
        self.render_as(&self.path, self.domain.as_deref(), value, max_age)
    }

    fn render_as(
        &self,
        path: &str,
        domain: Option<&str>,
        value: &str,
        max_age: &str,
    ) -> Option<HeaderValue> {
        let Self {
            name,
            path: _,
            domain: _,
            same_site,
            is_secure,
        } = self;
        let mut text =
            format!("{name}={value}; Path={path}; {max_age}; HttpOnly; SameSite={same_site:?}");
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

    /// Returns the values of this cookie in a request.
    pub(super) fn values<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
        sent_cookies::values(headers, &self.name)
    }
}

/// Returns whether a name begins with a prefix. Browsers ignore case here.
fn has_prefix(name: &str, prefix: &str) -> bool {
    let start = name.get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Returns whether a text can be used in an attribute unchanged.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b';'
}

/// Returns whether this is a host name of at least two labels: browsers refuse a cookie for all of `com`.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(is_inner)
    };
    // This is an IP address or a part of it: no top-level domain is a number.
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = text.rsplit('.').next().is_some_and(is_number);
    text.len() <= 253 && !is_address && text.contains('.') && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use ::http::header;

    use super::*;

    fn problem(cookie: &SessionCookie) -> String {
        cookie.check().expect_err("refused").to_string()
    }

    #[test]
    fn cookies_that_browsers_refuse_are_refused_with_advice() {
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
    fn a_part_of_an_ip_address_is_not_a_domain() {
        let removals = |host| SessionCookie::insecure().other_removals(Some(host)).len();

        assert_eq!(removals("127.0.0.1:8080"), 0);
        assert_eq!(removals("localhost"), 0);
        assert_eq!(removals("app.example.com"), 2);
    }

    #[test]
    fn all_problems_of_a_cookie_are_reported_together() {
        let cookie = SessionCookie::insecure()
            .name("__Host-x")
            .domain("example.com")
            .path("/app");

        assert_eq!(problem(&cookie).lines().count(), 4);
    }

    #[test]
    fn cookies_that_browsers_accept_are_accepted() {
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
    fn a_cookie_is_removed_with_the_attributes_that_set_it() {
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
    fn the_values_of_a_cookie_are_found_among_other_cookies() {
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
