//! A store for services that have sessions of the crate `tower-sessions`.

#[cfg(test)]
mod middleware;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::{SessionStore, session_store};

use super::backend::nonsense;
use super::place::{Place, SID, Sid, TAG, UserTag};
use super::ring::DOMAIN;
use super::seal::{HEAD, PINNED, Pinned};
use super::transition::{If, Which};
use super::{Inner, SessionError};
use crate::cache::Cache;
use crate::error::{Error, with_causes};
use crate::key::Key;
use crate::metrics::SessionEvent;
use crate::site::Site;
use crate::store::script::{Reply, Script};

/// The site of these sessions in the statistics of operations.
static SITE: Site = Site::new("TowerSessionStore", "session");

static PUT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/tower_put.lua")));
static LOAD: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/tower_load.lua")));

/// How many ids are tried for a new session. With ids of 128 random bits the second is never needed.
const TRIES: usize = 4;

/// Keeps the sessions of the crate [`tower-sessions`](https://docs.rs/tower-sessions/0.15) 0.15, encrypted, in Redis, or in this process
/// where there is none. A cheap clone: all clones are the same store.
///
/// ```
/// use axum::{Router, routing::get};
/// use cache_runtime::Cache;
/// use cache_runtime::session::TowerSessionStore;
/// use tower_sessions::cookie::time::Duration;
/// use tower_sessions::{Expiry, Session, SessionManagerLayer};
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// let cache = Cache::memory(); // a service calls `Cache::connect(Config::from_env()?).await?`
/// let store = TowerSessionStore::new(&cache)?;
///
/// let sessions = SessionManagerLayer::new(store)
///     .with_name("__Host-id")
///     .with_expiry(Expiry::OnInactivity(Duration::hours(1)));
/// let app: Router = Router::new()
///     .route(
///         "/visits",
///         get(async |session: Session| {
///             let visits = session.get::<u64>("visits").await?.unwrap_or_default() + 1;
///             session.insert("visits", visits).await?;
///             Ok::<_, Problem>(visits.to_string())
///         }),
///     )
///     .layer(sessions);
/// # let _ = app;
/// # Ok(())
/// # }
/// # struct Problem;
/// # impl From<tower_sessions::session::Error> for Problem {
/// #     fn from(_: tower_sessions::session::Error) -> Self { Self }
/// # }
/// # impl axum::response::IntoResponse for Problem {
/// #     fn into_response(self) -> axum::response::Response {
/// #         axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response()
/// #     }
/// # }
/// ```
///
/// It is for services that already use that crate. Its trait has no users and no revisions, so this store offers less than
/// [`SessionStore`](super::SessionStore): **no list of a user's sessions, no end of all of them at once, and of two saves
/// at the same moment the last one wins.** The options for the expiry and the number of sessions are not used: the
/// application decides both. Only the keys are shared: see [`SessionKeys`](crate::SessionKeys).
///
/// # What holds
///
/// - **Redis holds nothing to use.** It sees a hash of a session's id, and data that is encrypted with a key of its own,
///   for this prefix, this session and this expiry. Data under an older of the configured keys is read; each save is under
///   the newest. An attacker that can write to Redis can only end a session, or restore an older version of it until that
///   version expires.
/// - **Data that was changed without the key is not a session.** `load` returns [`None`], and reports it in the log and in
///   [`SessionStats::tampered`](crate::SessionStats::tampered).
/// - **An ended session stays ended.** `save` changes an existing session and never restores one.
/// - **An outage logs no user out.** While Redis is unavailable each call is an error, never [`None`]. Deleting a session
///   is an error too; this process rejects the session from then on, and deletes it once Redis is available again.
///
/// The limits in [`session`](super) also apply to this store. Operations that the crate performs in two steps remain two
/// steps: `Session::cycle_id` deletes the session and lets the end of the request create it anew, so a logout between the
/// two does not end it, and a response with a status of 500 or above loses it.
///
/// # A save of what has ended
///
/// It is an error, `Backend("the session ended after it was loaded; …")`. The middleware responds with 500 and sets no
/// cookie. Without the error, it would report a change as stored that is not stored, and would send the ended id again.
/// That id would replace the new id in the browser of a user who logged in since then, and log them out.
///
/// A save without data is not an error, because nothing is lost. So a handler that calls `Session::clear` for a visitor
/// whose session has expired does not fail.
///
/// # Time
///
/// A session expires at the date that the application sets, by the clocks of the processes. Redis gets a duration, so its
/// own clock does not matter. Processes with different clocks disagree on the expiry by that difference. Redis removes
/// expired sessions by itself, so no cleanup job is needed.
///
/// `session_idle` is not used either, because the crate sets the expiry. For sessions that end 30 minutes after their last
/// use, say `.with_expiry(Expiry::OnInactivity(Duration::minutes(30))).with_always_save(true)`: without `with_always_save`,
/// the crate extends the expiry only with requests that change the session.
#[derive(Clone)]
pub struct TowerSessionStore {
    inner: Arc<Inner>,
}

/// What is encrypted.
#[derive(Serialize, Deserialize)]
struct Content<D> {
    /// When it expires, in nanoseconds since 1970, so that a record is returned exactly as it was saved.
    expires: i128,
    data: D,
}

impl TowerSessionStore {
    /// Keeps sessions in the Redis of `cache`, or in this process without Redis. In that case only this store and its
    /// clones know them.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::new`](super::SessionStore::new).
    pub fn new(cache: &Cache) -> Result<Self, Error> {
        let inner = Inner::new(cache)?;
        Ok(Self { inner })
    }

    /// Stores a record at its id. Returns whether it did.
    async fn put(&self, condition: If, record: &Record) -> Result<bool, SessionError> {
        let inner = &self.inner;
        let place = place(&record.id);
        let expires = record.expiry_date.unix_timestamp_nanos();
        let pinned = Pinned {
            // The trait provides neither.
            revision: 0,
            created: 0,
            absolute: u64::try_from(expires / 1_000_000).unwrap_or_default(),
        };
        let data = &record.data;
        let sealed = inner.seal::<Content<HashMap<String, Value>>>(
            place,
            pinned,
            &Content { expires, data },
        )?;
        // No use is recorded, because the trait reports none.
        let stored = [&pinned.bytes()[..], &[0; HEAD - PINNED], &sealed].concat();
        let put = inner.put(condition, place, pinned.absolute, &stored).await;
        put.map_err(|error| inner.unavailable(error))
    }

    async fn find(&self, id: &Id) -> Result<Option<Record>, SessionError> {
        let inner = &self.inner;
        let place = place(id);
        if inner.is_ending(place) {
            return Err(inner.not_found());
        }
        let stored = inner.get(place).await;
        let stored = stored.map_err(|error| inner.unavailable(error))?;
        let stored = stored.ok_or_else(|| inner.not_found())?;
        let (pinned, Content { expires, data }) =
            inner.unseal::<Content<HashMap<String, Value>>>(place, &stored)?;
        if pinned.absolute <= inner.backend.clock() {
            return Err(inner.not_found());
        }
        let expiry_date = OffsetDateTime::from_unix_timestamp_nanos(expires);
        let expiry_date = expiry_date.map_err(|_| SessionError::Unreadable)?;
        inner.count(SessionEvent::Loaded);
        Ok(Some(Record {
            id: *id,
            data,
            expiry_date,
        }))
    }
}

#[async_trait]
impl SessionStore for TowerSessionStore {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        for _ in 0..TRIES {
            if self.put(If::Absent, record).await.map_err(told)? {
                self.inner.count(SessionEvent::Created);
                return Ok(());
            }
            record.id = Id::default();
        }
        Err(session_store::Error::Backend(
            "every generated session id was already taken, which cannot be chance".to_owned(),
        ))
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        let inner = &self.inner;
        let has_ended = inner.is_ending(place(&record.id));
        if !has_ended && self.put(If::Present, record).await.map_err(told)? {
            inner.count(SessionEvent::Saved);
            return Ok(());
        }
        if record.data.is_empty() {
            return Ok(());
        }
        Err(told(inner.save_refused(SessionError::Gone)))
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        match self.find(id).await {
            Err(error) if error.is_logged_out() => Ok(None),
            found => found.map_err(told),
        }
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        let Place { tag, sid } = place(id);
        let ended = self.inner.destroy(tag, Which::One(sid)).await;
        ended.map(drop).map_err(told)
    }
}

impl Inner {
    async fn put(
        &self,
        condition: If,
        place: Place,
        ends: u64,
        record: &[u8],
    ) -> Result<bool, Error> {
        let now = self.backend.clock();
        if let Some(memory) = &self.backend.memory {
            return Ok(memory.put(condition, place, ends, record, now));
        }
        let condition: &[u8] = match condition {
            If::Absent => b"NX",
            If::Present => b"XX",
        };
        // A record that has already expired deletes what is stored, because Redis does not accept a TTL of 0.
        let ttl = ends.saturating_sub(now).max(1).to_string();
        let arguments = [condition, record, ttl.as_bytes()];
        match self.ask(&PUT, place, &arguments).await? {
            Reply::Number(stored) => Ok(stored == 1),
            _ => Err(nonsense()),
        }
    }

    async fn get(&self, place: Place) -> Result<Option<Vec<u8>>, Error> {
        if let Some(memory) = &self.backend.memory {
            return Ok(memory.get(place, self.backend.clock()));
        }
        match self.ask(&LOAD, place, &[]).await? {
            Reply::Bytes(record) => Ok(Some(record)),
            Reply::Nothing => Ok(None),
            _ => Err(nonsense()),
        }
    }

    async fn ask(
        &self,
        script: &Script,
        Place { tag, sid }: Place,
        arguments: &[&[u8]],
    ) -> Result<Reply, Error> {
        let record = Key::of_record(tag.base(&self.prefix) + &sid.text());
        let cache = &self.backend.cache;
        cache
            .run_script(&SITE, script, &record, &[record.as_str()], arguments)
            .await
    }
}

/// The place of a session: alone in its slot, under a hash of its id. The hash uses no key, so the session is found under
/// any newest key. 128 random bits cannot be guessed.
fn place(id: &Id) -> Place {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(b"tower-sessions");
    hash.update(id.0.to_be_bytes());
    let hash = hash.finalize();
    let (mut tag, mut sid) = ([0; TAG], [0; SID]);
    tag.copy_from_slice(&hash[..TAG]);
    sid.copy_from_slice(&hash[TAG..]);
    Place {
        tag: UserTag(tag),
        sid: Sid(sid),
    }
}

/// The trait's errors are texts.
fn told(error: SessionError) -> session_store::Error {
    let text = with_causes(&error);
    match error {
        SessionError::TooLarge | SessionError::Invalid(_) => session_store::Error::Encode(text),
        _ => session_store::Error::Backend(text),
    }
}

impl fmt::Debug for TowerSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerSessionStore")
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}
