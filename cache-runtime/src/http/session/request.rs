//! A request, from its tokens to the cookie that its response sets.

use std::net::IpAddr;
use std::sync::MutexGuard;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Request, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Bearer, Settings};
use crate::http::client_ip::ClientIp;
use crate::http::cookie::SessionCookie;
use crate::http::problem::NO_STORE;
use crate::session::{SessionError, SessionStore, SessionToken, StoredSession};
use crate::sync::Mutex;

/// A request with more cookies of this name is likely an attack. The rest is not checked. Each check takes 1 µs.
const MAX_VALUES: usize = 64;

/// The most tokens that are looked up, with one command each. A browser has several tokens only after the cookie's domain
/// or path changed, or if an attacker planted them.
const MAX_LOADED: usize = 8;

const COOKIE_VARIES: HeaderValue = HeaderValue::from_static("cookie");
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The session state of a request.
pub(super) struct RequestSession<E> {
    pub(super) store: SessionStore<E>,
    /// What the client sent that could be a token, and how it sent it.
    pub(super) sent: Vec<SessionToken>,
    refused: Option<SessionError>,
    /// Whether a page of another origin could have made the client send the request.
    is_at_risk: bool,
    host: Option<String>,
    /// How the client sends its token; [`None`] if it has no token.
    carrier: Option<Carrier>,
    pub(super) address: Option<IpAddr>,
    pub(super) user_agent: Option<String>,
    /// What was read during this request.
    loaded: Mutex<Option<StoredSession<E>>>,
    cookie_action: Mutex<CookieAction>,
}

/// How a client sends its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Cookie,
    Header,
}

/// What the response does with the client's cookie.
pub(super) enum CookieAction {
    Leave,
    Set(SessionToken, Duration),
    Remove,
}

impl<E> RequestSession<E> {
    pub(super) fn new<B>(settings: &Settings<E>, request: &Request<B>) -> Self {
        let Settings {
            store,
            cookie,
            bearer: taken,
            trusted: _,
            refused: _,
        } = settings;
        let headers = request.headers();
        let authorization = bearer(headers);
        let has_authorization = authorization.is_some();
        let bearer = authorization.filter(|_| *taken == Bearer::Taken);
        let (mut sent, mut refused, mut carrier) = (Vec::new(), None, None);
        let mut has_cookie = false;
        let bearer = bearer.map(|value| (Carrier::Header, value)).into_iter();
        let cookies = cookie.values(headers).take(MAX_VALUES);
        for (how, value) in bearer.chain(cookies.map(|value| (Carrier::Cookie, value))) {
            // Other sites cannot make a browser send this header, so the client sent it on purpose.
            if carrier == Some(Carrier::Header) {
                break;
            }
            has_cookie |= how == Carrier::Cookie;
            match store.verify(value) {
                Ok(token) if sent.contains(&token) => {}
                Ok(token) => {
                    sent.push(token);
                    carrier = carrier.or(Some(how));
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        // A header without one of our tokens may be for another service.
        let carrier = carrier.or(has_cookie.then_some(Carrier::Cookie));
        let user_agent = headers.get(header::USER_AGENT);
        Self {
            store: store.clone(),
            sent,
            refused,
            is_at_risk: carrier != Some(Carrier::Header) && (has_cookie || !has_authorization),
            host: headers
                .get(header::HOST)
                .and_then(|host| host.to_str().ok())
                .map(str::to_owned),
            carrier,
            address: ClientIp::of(request.extensions()).map(|ClientIp(address)| address),
            user_agent: user_agent
                .map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()),
            loaded: Mutex::new(None),
            cookie_action: Mutex::new(CookieAction::Leave),
        }
    }

    /// Returns why there is no token.
    fn missing(&self) -> SessionError {
        match &self.refused {
            Some(SessionError::UnknownKey) => SessionError::UnknownKey,
            Some(SessionError::BadSignature) => SessionError::BadSignature,
            Some(_) => SessionError::Malformed,
            None => SessionError::Missing,
        }
    }

    /// Returns whether a page of another origin could have made the client send this request with its credentials, or
    /// could log it in. A browser does not add a token to a header by itself.
    pub(super) fn is_at_risk(&self) -> bool {
        self.is_at_risk
    }

    /// Returns whether the client may have a session that this process cannot end, because the process lacks the key.
    pub(super) fn has_unknown_key(&self) -> bool {
        self.sent.is_empty() && matches!(self.refused, Some(SessionError::UnknownKey))
    }

    pub(super) fn set_cookie_action(&self, action: CookieAction) {
        *self.cookie_action.lock() = action;
    }

    /// Sends the session's token to the client, unless the client already has it.
    fn issue(&self, session: &StoredSession<E>) {
        if session.is_reissued() {
            self.set_cookie_action(CookieAction::Set(
                session.token().clone(),
                session.longest(),
            ));
        }
    }

    pub(super) fn write(&self, cookie: &SessionCookie, headers: &mut HeaderMap) {
        self.keep_private(headers);
        let action = self.cookie_action.lock();
        let set = match (&*action, self.carrier) {
            // A cookie that was not sent may exist: another site could not make the browser send it.
            (CookieAction::Remove, None)
            | (CookieAction::Leave, _)
            | (_, Some(Carrier::Header)) => return,
            (CookieAction::Set(token, ttl), _) => cookie.set(token.expose(), *ttl),
            (CookieAction::Remove, Some(Carrier::Cookie)) => cookie.removal(),
        };
        // The other forms come first, so a client that treats two of them as one cookie keeps the last.
        let is_ours = !self.sent.is_empty() && self.refused.is_none();
        let host = self.host.as_deref().filter(|_| is_ours);
        for set in cookie.other_removals(host).into_iter().chain(set) {
            headers.append(header::SET_COOKIE, set);
            // No shared cache may keep a response with a token.
            headers.insert(header::CACHE_CONTROL, NO_STORE);
        }
    }

    /// A response for one user is not for others, unless the handler decides otherwise.
    fn keep_private(&self, headers: &mut HeaderMap) {
        if self.loaded().is_some() {
            if !varies_by_cookie(headers) {
                headers.append(header::VARY, COOKIE_VARIES);
            }
            headers.entry(header::CACHE_CONTROL).or_insert(PRIVATE);
        }
    }

    /// Later reads in this request load the session again.
    pub(super) fn forget(&self) {
        *self.loaded() = None;
    }

    fn loaded(&self) -> MutexGuard<'_, Option<StoredSession<E>>> {
        self.loaded.lock()
    }
}

/// Returns whether a handler has stated already that the response depends on the cookies.
fn varies_by_cookie(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::VARY).iter();
    let mut names = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    names.any(|name| {
        matches!(name.trim_ascii(), b"*") || name.trim_ascii().eq_ignore_ascii_case(b"cookie")
    })
}

impl<E: Clone + Serialize + DeserializeOwned> RequestSession<E> {
    pub(super) async fn load(&self) -> Result<StoredSession<E>, SessionError> {
        if let Some(session) = &*self.loaded() {
            return Ok(session.clone());
        }
        let session = self.find().await?;
        self.keep(&session);
        Ok(session)
    }

    /// Returns the session of the client's tokens. A token whose session has ended is ignored, so of several tokens the
    /// live session counts, and of two sessions of one user the newer. If they belong to two users, neither counts,
    /// because the client would not know whose session it uses.
    async fn find(&self) -> Result<StoredSession<E>, SessionError> {
        let mut found: Option<StoredSession<E>> = None;
        let mut ended = None;
        // From the last: a cookie that was planted for a longer path comes first.
        for token in self.sent.iter().rev().take(MAX_LOADED) {
            let session = match self.store.load(token).await {
                Ok(session) => session,
                Err(error) if error.is_logged_out() => {
                    ended = Some(error);
                    continue;
                }
                // It may belong to another user.
                Err(error) => return Err(error),
            };
            found = match found {
                Some(known) if known.data().user_id != session.data().user_id => {
                    return Err(SessionError::Malformed);
                }
                Some(known) if known.data().created_at > session.data().created_at => Some(known),
                _ => Some(session),
            };
        }
        found.ok_or_else(|| ended.unwrap_or_else(|| self.missing()))
    }

    /// Ends all sessions that the client sent a token of, after a session was ended with this outcome.
    pub(super) async fn log_out(
        &self,
        mut outcome: Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        for token in &self.sent {
            let ended = self.store.destroy(token).await;
            outcome = outcome.and(ended);
        }
        self.forget();
        outcome?;
        self.set_cookie_action(CookieAction::Remove);
        Ok(())
    }

    /// Sets the current session, or its new revision.
    pub(super) fn keep(&self, session: &StoredSession<E>) {
        self.issue(session);
        *self.loaded() = Some(session.clone());
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("Bearer")
        .then(|| token.trim_ascii())
}
