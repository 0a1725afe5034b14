//! A request, from the tokens that it brings to the cookie that its response sets.

use std::net::IpAddr;
use std::sync::MutexGuard;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Request, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Bearer, Settings};
use crate::http::client_ip::ClientIp;
use crate::http::cookie::SessionCookie;
use crate::http::problem::NO_STORE;
use crate::session::{Session, SessionError, SessionStore, SessionToken};
use crate::sync::Mutex;

/// A request with more cookies of the name is made by somebody who tries; the rest is not looked at. Each costs a microsecond.
const MAX_VALUES: usize = 64;

/// How many tokens are looked up, each for one command. A browser has several only after the cookie's domain or path has changed, or if
/// somebody planted them.
const MAX_LOADED: usize = 8;

const COOKIE_VARIES: HeaderValue = HeaderValue::from_static("cookie");
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// A request, as far as sessions are concerned.
pub(super) struct Visit<E> {
    pub(super) store: SessionStore<E>,
    /// What the client sent that could be a token, and how.
    pub(super) sent: Vec<SessionToken>,
    refused: Option<SessionError>,
    /// Whether a page of another origin could have made the client send it.
    is_at_risk: bool,
    host: Option<String>,
    /// How it sends its token; [`None`] if it has none.
    carrier: Option<Carrier>,
    pub(super) address: Option<IpAddr>,
    pub(super) user_agent: Option<String>,
    /// What was read in this request.
    loaded: Mutex<Option<Session<E>>>,
    answer: Mutex<Answer>,
}

/// How a client sends its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Cookie,
    Header,
}

/// What the response is to do with the client's cookie.
pub(super) enum Answer {
    Leave,
    Set(SessionToken, Duration),
    Remove,
}

impl<E> Visit<E> {
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
            // Other sites cannot make a browser send the header, so it is the client's own word.
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
        // A header that is none of ours may be another service's.
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
            answer: Mutex::new(Answer::Leave),
        }
    }

    /// Why there is no token.
    fn missing(&self) -> SessionError {
        match &self.refused {
            Some(SessionError::UnknownKey) => SessionError::UnknownKey,
            Some(SessionError::BadSignature) => SessionError::BadSignature,
            Some(_) => SessionError::Malformed,
            None => SessionError::Missing,
        }
    }

    /// Whether a page of another origin could have made the client send this request with what it proves, or log it in. A token in a header
    /// is nothing that a browser adds by itself.
    pub(super) fn is_at_risk(&self) -> bool {
        self.is_at_risk
    }

    /// Whether the client may have a session that this process cannot end, since it lacks the key.
    pub(super) fn has_unknown_key(&self) -> bool {
        self.sent.is_empty() && matches!(self.refused, Some(SessionError::UnknownKey))
    }

    pub(super) fn answer(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    /// The client is to have the session's token, if it does not have it.
    fn issue(&self, session: &Session<E>) {
        if session.is_reissued() {
            self.answer(Answer::Set(session.token().clone(), session.longest()));
        }
    }

    pub(super) fn write(&self, cookie: &SessionCookie, headers: &mut HeaderMap) {
        self.keep_private(headers);
        let answer = self.answer.lock();
        let set = match (&*answer, self.carrier) {
            // A cookie that was not sent may be one that another site could not make the browser send.
            (Answer::Remove, None) | (Answer::Leave, _) | (_, Some(Carrier::Header)) => return,
            (Answer::Set(token, life), _) => cookie.set(token.expose(), *life),
            (Answer::Remove, Some(Carrier::Cookie)) => cookie.removal(),
        };
        // First the other forms, so that a client that takes two of them for one cookie keeps what is set last.
        let is_ours = !self.sent.is_empty() && self.refused.is_none();
        let host = self.host.as_deref().filter(|_| is_ours);
        for set in cookie.other_removals(host).into_iter().chain(set) {
            headers.append(header::SET_COOKIE, set);
            // Nobody between here and the client shall keep a response with a token for others.
            headers.insert(header::CACHE_CONTROL, NO_STORE);
        }
    }

    /// What was made for one user is not for others, unless the handler says so.
    fn keep_private(&self, headers: &mut HeaderMap) {
        if self.loaded().is_some() {
            headers.append(header::VARY, COOKIE_VARIES);
            headers.entry(header::CACHE_CONTROL).or_insert(PRIVATE);
        }
    }

    /// What is read from now on is read anew.
    pub(super) fn forget(&self) {
        *self.loaded() = None;
    }

    fn loaded(&self) -> MutexGuard<'_, Option<Session<E>>> {
        self.loaded.lock()
    }
}

impl<E: Clone + Serialize + DeserializeOwned> Visit<E> {
    pub(super) async fn load(&self) -> Result<Session<E>, SessionError> {
        if let Some(session) = &*self.loaded() {
            return Ok(session.clone());
        }
        let session = self.find().await?;
        self.keep(&session);
        Ok(session)
    }

    /// The session that the client's tokens lead to. A token whose session is over counts as none, so of several the one that is alive
    /// counts; of two of the same user the newer one. Of two users' neither does: the client is not told whose session it would be.
    async fn find(&self) -> Result<Session<E>, SessionError> {
        let mut found: Option<Session<E>> = None;
        let mut ended = None;
        // From the last: what was planted for a longer path stands before it.
        for token in self.sent.iter().rev().take(MAX_LOADED) {
            let session = match self.store.load(token).await {
                Ok(session) => session,
                Err(error) if error.is_logged_out() => {
                    ended = Some(error);
                    continue;
                }
                // It may be another user's.
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

    /// Ends all sessions that the client sent a token of, after one of them was ended with this outcome.
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
        self.answer(Answer::Remove);
        Ok(())
    }

    /// The session is now this one, or at this revision.
    pub(super) fn keep(&self, session: &Session<E>) {
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
