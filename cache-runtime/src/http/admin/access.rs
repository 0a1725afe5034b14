//! Who may use the admin service: the holder of a token, a user that an outer layer knows, or a process on this machine.

use std::net::IpAddr;

use ::http::header::AUTHORIZATION;
use ::http::{HeaderMap, HeaderValue, Request};
use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{Error, ErrorKind};
use crate::http::client_ip::peer;
use crate::http::sent_cookies;
use crate::http::this_machine::{Elsewhere, elsewhere};

type Keyed = Hmac<Sha256>;

/// A shorter token can be guessed.
const SHORTEST: usize = 16;

/// A longer one does not fit into every header.
const LONGEST: usize = 512;

const COOKIE_NAME: &str = "cache_admin";

/// How long a login of a browser lasts, in seconds: a working day.
const LOGIN: u64 = 8 * 60 * 60;

/// What a user of the admin service may do.
///
/// See [`AdminUser`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminRole {
    /// See everything, and change nothing.
    Read,
    /// Also evict, switch patterns off and on, start jobs, reset clients and end sessions.
    Write,
}

/// A user that a layer of the service has authenticated: insert it into the extensions of a request. See
/// [`AdminConfig::users_from_layer`](super::AdminConfig::users_from_layer).
///
/// ```
/// use axum::Router;
/// use axum::extract::Request;
/// use axum::middleware::{self, Next};
/// use axum::response::Response;
/// use cache_runtime::http::{AdminConfig, AdminRole, AdminUser, admin};
/// # use cache_runtime::{Cache, Error};
///
/// async fn sign_on(mut request: Request, next: Next) -> Response {
///     // Asks the single sign-on of the company who sent the request. Then:
///     let user = AdminUser { name: "ada".to_owned(), role: AdminRole::Read };
///     request.extensions_mut().insert(user);
///     next.run(request).await
/// }
///
/// # fn app(cache: &Cache) -> Result<Router, Error> {
/// let operators = admin(cache, AdminConfig::default().users_from_layer()?);
/// let app = Router::new()
///     .nest_service("/admin/cache/", operators)
///     .layer(middleware::from_fn(sign_on));
/// # Ok(app)
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AdminUser {
    /// The name for the log.
    pub name: String,
    /// What the user may do.
    pub role: AdminRole,
}

impl AdminRole {
    /// Its name in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// How users are told from others.
#[derive(Clone, Debug)]
pub(super) enum Access {
    Loopback,
    Tokens {
        read: Option<Token>,
        write: Option<Token>,
    },
    Layer,
}

/// A token as the key of a hash. So it is compared in constant time, and never shown.
#[derive(Clone)]
pub(super) struct Token(Box<Keyed>);

/// Who sends a request.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) name: String,
    pub(super) role: AdminRole,
    pub(super) peer: Option<IpAddr>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has no token: the sender can add one.
    NoToken,
    WrongToken,
    /// Its user may only read.
    ReadRole {
        who: String,
        action: &'static str,
    },
    /// A token does not help.
    Forbidden(&'static str),
}

impl Access {
    pub(super) fn of<B>(&self, request: &Request<B>, now: u64) -> Result<Who, Refused> {
        let peer = peer(request.extensions());
        let (name, role) = match self {
            Self::Loopback => {
                if let Some(why) = elsewhere(request) {
                    return Err(Refused::Forbidden(advice(why)));
                }
                ("this machine".to_owned(), AdminRole::Write)
            }
            Self::Tokens { .. } => match self.role(request.headers(), now)? {
                AdminRole::Read => ("the read token".to_owned(), AdminRole::Read),
                AdminRole::Write => ("the write token".to_owned(), AdminRole::Write),
            },
            Self::Layer => match request.extensions().get::<AdminUser>() {
                Some(user) => (user.name.clone(), user.role),
                None => {
                    return Err(Refused::Forbidden(
                        "no layer has authenticated this request; insert an `AdminUser` into its extensions",
                    ));
                }
            },
        };
        Ok(Who { name, role, peer })
    }

    /// Returns the role of the token in the headers, or else of the cookie of a login.
    fn role(&self, headers: &HeaderMap, now: u64) -> Result<AdminRole, Refused> {
        if let Some(value) = headers.get(AUTHORIZATION) {
            let token = value.to_str().ok().and_then(|text| {
                let (scheme, token) = text.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
            });
            return token
                .and_then(|token| self.role_of(token))
                .ok_or(Refused::WrongToken);
        }
        let mut cookies = sent_cookies::values(headers, COOKIE_NAME);
        let cookie = cookies.next().ok_or(Refused::NoToken)?;
        self.role_by(|token| token.signed(cookie, now))
            .ok_or(Refused::NoToken)
    }

    /// Returns the role of a token.
    pub(super) fn role_of(&self, presented: &str) -> Option<AdminRole> {
        let presented = Token::keyed(presented.as_bytes())?.tag(b"token", b"");
        self.role_by(|token| token.verify(b"token", b"", &presented))
    }

    fn role_by(&self, is_it: impl Fn(&Token) -> bool) -> Option<AdminRole> {
        let Self::Tokens { read, write } = self else {
            return None;
        };
        // Both are compared, so the time does not depend on which one it is.
        let writes = write.as_ref().is_some_and(&is_it);
        let reads = read.as_ref().is_some_and(&is_it);
        match (writes, reads) {
            (true, _) => Some(AdminRole::Write),
            (false, true) => Some(AdminRole::Read),
            (false, false) => None,
        }
    }

    /// Returns the cookie of a login with the token of this role. It is limited to the path of the service, because it names none.
    pub(super) fn login(&self, role: AdminRole, now: u64, is_secure: bool) -> Option<HeaderValue> {
        let Self::Tokens { read, write } = self else {
            return None;
        };
        let token = match role {
            AdminRole::Read => read.as_ref()?,
            AdminRole::Write => write.as_ref()?,
        };
        let until = (now / 1_000 + LOGIN).to_string();
        let mac = Base64UrlUnpadded::encode_string(&token.tag(b"cookie", until.as_bytes()));
        let secure = if is_secure { "; Secure" } else { "" };
        format!("{COOKIE_NAME}={until}.{mac}; Max-Age={LOGIN}; HttpOnly; SameSite=Strict{secure}")
            .parse()
            .ok()
    }
}

/// The cookie that ends a login.
pub(super) const LOGOUT: HeaderValue =
    HeaderValue::from_static("cache_admin=; Max-Age=0; HttpOnly; SameSite=Strict");

impl Token {
    pub(super) fn new(text: &str) -> Result<Self, Error> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !(SHORTEST..=LONGEST).contains(&text.len()) || !is_plain {
            let problem = format!(
                "invalid admin token of {} bytes; use {SHORTEST} to {LONGEST} printable ASCII characters without spaces, such as \
                 the output of `openssl rand -hex 24`",
                text.len()
            );
            return Err(Error::new(ErrorKind::Config, problem));
        }
        Self::keyed(text.as_bytes())
            .ok_or_else(|| Error::new(ErrorKind::Config, "the admin token cannot be used as a key"))
    }

    fn keyed(text: &[u8]) -> Option<Self> {
        Keyed::new_from_slice(text)
            .ok()
            .map(|key| Self(Box::new(key)))
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.verify(b"token", b"", &other.tag(b"token", b""))
    }

    fn mac(&self, purpose: &[u8], text: &[u8]) -> Keyed {
        let mut mac = Keyed::clone(&self.0);
        mac.update(b"cache-runtime admin v1 ");
        mac.update(purpose);
        mac.update(b" ");
        mac.update(text);
        mac
    }

    fn tag(&self, purpose: &[u8], text: &[u8]) -> [u8; 32] {
        self.mac(purpose, text).finalize().into_bytes().into()
    }

    fn verify(&self, purpose: &[u8], text: &[u8], tag: &[u8]) -> bool {
        self.mac(purpose, text).verify_slice(tag).is_ok()
    }

    /// Returns whether this token signed the cookie, and its time is not over.
    fn signed(&self, cookie: &str, now: u64) -> bool {
        let Some((until, mac)) = cookie.split_once('.') else {
            return false;
        };
        let mut tag = [0; 32];
        let tag = Base64UrlUnpadded::decode(mac, &mut tag);
        let is_open = until.parse().is_ok_and(|until: u64| until > now / 1_000);
        is_open && tag.is_ok_and(|tag| self.verify(b"cookie", until.as_bytes(), tag))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Returns what to do for a request that does not come from this machine.
fn advice(why: Elsewhere) -> &'static str {
    match why {
        Elsewhere::UnknownPeer => {
            "the address of the client is unknown, and without a token only this machine may use the admin service; serve with \
             `into_make_service_with_connect_info::<SocketAddr>()`, insert a `PeerAddr`, or set a token"
        }
        Elsewhere::OtherPeer => {
            "without a token only this machine may use the admin service; set a token"
        }
        Elsewhere::Proxy => {
            "the request came through a proxy, and without a token only this machine may use the admin service; set a token"
        }
        Elsewhere::OtherName => {
            "without a token the admin service must be addressed as `localhost`, `127.0.0.1` or `[::1]`; use one of them, or set a \
             token"
        }
    }
}
