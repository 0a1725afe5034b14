//! A request, from the tokens that it brings to the cookie that its response sets.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Request, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Bearer, Settings};
use crate::http::client_ip::ClientIp;
use crate::http::cookie::SessionCookie;
use crate::http::problem::NO_STORE;
use crate::session::{Session, SessionError, SessionStore, SessionToken};

/// A request with more cookies of the name is made by somebody who tries; the rest is not looked at. Each costs a microsecond.
const MOST_VALUES: usize = 64;

const COOKIE_VARIES: HeaderValue = HeaderValue::from_static("cookie");
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// A request, as far as sessions are concerned.
pub(super) struct Visit<E> {
    pub(super) store: SessionStore<E>,
    /// What the client sent that could be a token, and how.
    pub(super) sent: Vec<SessionToken>,
    refused: Option<SessionError>,
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
        } = settings;
        let headers = request.headers();
        let bearer = match taken {
            Bearer::Taken => bearer(headers),
            Bearer::Ignored => None,
        };
        let (mut sent, mut refused, mut carrier) = (Vec::new(), None, None);
        let mut has_cookie = false;
        let bearer = bearer.map(|value| (Carrier::Header, value)).into_iter();
        let cookies = cookie.values(headers).take(MOST_VALUES);
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
            carrier,
            address: ClientIp::of(request.extensions()).map(|ClientIp(address)| address),
            user_agent: user_agent
                .map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()),
            loaded: Mutex::new(None),
            answer: Mutex::new(Answer::Leave),
        }
    }

    /// The one token that counts. Who sends two that do is not told whose session it would be.
    fn token(&self) -> Result<&SessionToken, SessionError> {
        match &self.sent[..] {
            [token] => Ok(token),
            [] => Err(match &self.refused {
                Some(SessionError::UnknownKey) => SessionError::UnknownKey,
                Some(SessionError::BadSignature) => SessionError::BadSignature,
                Some(_) => SessionError::Malformed,
                None => SessionError::Missing,
            }),
            _ => Err(SessionError::Malformed),
        }
    }

    /// Whether the client may have a session that this process cannot end, since it lacks the key.
    pub(super) fn has_unknown_key(&self) -> bool {
        self.sent.is_empty() && matches!(self.refused, Some(SessionError::UnknownKey))
    }

    pub(super) fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// The client is to have the session's token, if it does not have it.
    fn issue(&self, session: &Session<E>) {
        if session.is_reissued() {
            self.answer(Answer::Set(session.token().clone(), session.longest()));
        }
    }

    pub(super) fn write(&self, cookie: &SessionCookie, headers: &mut HeaderMap) {
        self.keep_private(headers);
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let set = match (&*answer, self.carrier) {
            // A cookie that was not sent may be one that another site could not make the browser send.
            (Answer::Remove, None) | (Answer::Leave, _) | (_, Some(Carrier::Header)) => return,
            (Answer::Set(token, life), _) => cookie.set(token.expose(), *life),
            (Answer::Remove, Some(Carrier::Cookie)) => cookie.removal(),
        };
        if let Some(set) = set {
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
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Clone + Serialize + DeserializeOwned> Visit<E> {
    pub(super) async fn load(&self) -> Result<Session<E>, SessionError> {
        if let Some(session) = &*self.loaded() {
            return Ok(session.clone());
        }
        let session = self.store.load(self.token()?).await?;
        self.keep(&session);
        Ok(session)
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
