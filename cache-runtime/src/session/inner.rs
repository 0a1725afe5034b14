//! The common part of the session stores: keys, sealing, and revocations that must reach Redis.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::SessionError;
use super::backend::Backend;
use super::data::SessionData;
use super::place::{Place, UserTag};
use super::revocations::{MAX_PENDING, Revocations};
use super::ring::Ring;
use super::seal::{self, Pinned};
use super::transition::{Timeouts, Which};
use crate::cache::Cache;
use crate::cache::recent::{Recent, Room};
use crate::cache::replay::Replay;
use crate::clock::whole_millis;
use crate::config::{Config, Environment, SessionKeys};
use crate::error::{Error, ErrorKind};
use crate::metrics::{SessionEvent, SessionMetrics};
use crate::singleton::Singleton;
use crate::store::reach::Reach;
use crate::throttle::Throttle;

/// The pause after an attempt to end sessions that failed although Redis is there.
const PAUSE: Duration = Duration::from_millis(100);

/// How long to wait for Redis until the cache is asked again. That starts its background task, if it ended with another runtime.
const PATIENCE: Duration = Duration::from_secs(1);

/// The minimum number of uses that are recorded within an idle time, independent of the touch interval. A session ends at
/// most a 60th of the idle time too early.
const TOUCHES: u64 = 60;

/// The state that all clones of a store share.
pub(super) struct Inner {
    pub(super) backend: Backend,
    pub(super) ring: Ring,
    pub(super) prefix: String,
    pub(super) timeouts: Timeouts,
    pub(super) most: usize,
    pub(super) revocations: Revocations,
    /// Endings that Redis acknowledged a short while ago.
    ended: Recent<(UserTag, Which)>,
    flushing: Singleton,
    lines: Lines,
    this: Weak<Self>,
}

/// How often lines are logged that each request could cause.
#[derive(Debug, Default)]
struct Lines {
    tampered: Throttle,
    unreadable: Throttle,
    unrecorded: Throttle,
}

impl Inner {
    pub(super) fn new(cache: &Cache) -> Result<Arc<Self>, Error> {
        let config = cache.config();
        let wrong = |text: String| Error::new(ErrorKind::Config, text);
        if let Some(braces) = config.braces_around("sessions") {
            return Err(wrong(braces));
        }
        let keys = match &config.session_keys {
            Some(keys) => keys.clone(),
            None if config.environment == Environment::PROD => {
                return Err(wrong(
                    "sessions in production need keys; set `CACHE_SESSION_KEYS` to `name:secret`, with a secret from `openssl rand -base64 32`"
                        .to_owned(),
                ));
            }
            None => {
                warn!(
                    "`CACHE_SESSION_KEYS` is not set: sessions are signed with a random key, so they end with this process and no other process accepts them"
                );
                SessionKeys::random()?
            }
        };
        if cache.is_local() && config.environment == Environment::PROD {
            warn!("no Redis is configured, so sessions end with this process; set `REDIS_URL`");
        }
        let ring = Ring::new(&keys)
            .ok_or_else(|| wrong("the session keys cannot be derived".to_owned()))?;
        let inner = Arc::new_cyclic(|this: &Weak<Self>| Self {
            backend: Backend::new(cache),
            prefix: config.prefix.clone(),
            timeouts: timeouts(config),
            most: config.sessions_per_user,
            revocations: Revocations::default(),
            ended: Recent::new(config.failover_memory, MAX_PENDING),
            flushing: Singleton::default(),
            lines: Lines::default(),
            this: Weak::clone(this),
            ring,
        });
        let replay = Arc::downgrade(&inner);
        cache.on_another_server(replay);
        Ok(inner)
    }

    /// Remembers a revocation that Redis is about to acknowledge, or has just acknowledged, because another server may not
    /// know it.
    pub(super) fn note_end(&self, tag: UserTag, which: Which) {
        if self.backend.memory.is_some() {
            return;
        }
        let ending = (tag, self.until_now(which));
        if self.ended.add([ending], self.backend.cache.confirmed()) == Room::Exceeded {
            warn!(
                "too many sessions ended to remember all of them; if Redis fails over now, some may become valid again"
            );
        }
    }

    /// The same revocation, without sessions that begin later.
    fn until_now(&self, which: Which) -> Which {
        match which {
            Which::Others {
                except,
                began: None,
            } => Which::Others {
                except,
                began: Some(self.backend.known_now().unwrap_or(u64::MAX)),
            },
            which => which,
        }
    }

    pub(super) fn metrics(&self) -> &SessionMetrics {
        self.backend.cache.metrics().sessions()
    }

    pub(super) fn count(&self, event: SessionEvent) {
        self.metrics().count(event);
    }

    pub(super) fn not_found(&self) -> SessionError {
        self.count(SessionEvent::NotFound);
        SessionError::NotFound
    }

    pub(super) fn save_refused(&self, error: SessionError) -> SessionError {
        self.count(SessionEvent::SaveRefused);
        error
    }

    pub(super) fn unavailable(&self, error: Error) -> SessionError {
        self.count(SessionEvent::Unavailable);
        SessionError::Unavailable(error)
    }

    /// Returns whether the sessions of this user may be at this place. They are not if the key that determines the place is
    /// gone.
    pub(super) fn is_place_of(&self, tag: UserTag, user: &str) -> bool {
        self.ring.tags(&self.prefix, user).any(|known| known == tag)
    }

    /// Encrypts what is to be stored, if it can be read back as an `R`.
    pub(super) fn seal<R: DeserializeOwned>(
        &self,
        place: Place,
        pinned: Pinned,
        data: &impl Serialize,
    ) -> Result<Vec<u8>, SessionError> {
        let invalid = |_| {
            SessionError::Invalid(
                "session data must round-trip through JSON: map keys must be strings, numbers must be finite, skipped fields \
                 need a default, and the nesting is at most 127 levels",
            )
        };
        let json = Zeroizing::new(serde_json::to_vec(data).map_err(invalid)?);
        if json.len() > seal::MAX_DATA {
            return Err(SessionError::TooLarge);
        }
        // Data that cannot be read back would log the user out with the next request.
        serde_json::from_slice::<R>(&json).map_err(invalid)?;
        let sealed = seal::seal(self.ring.newest(), &self.prefix, place, pinned, &json);
        sealed.ok_or_else(|| {
            self.unavailable(Error::new(
                ErrorKind::Unavailable,
                "the operating system provides no random bytes",
            ))
        })
    }

    pub(super) fn open<E: DeserializeOwned>(
        &self,
        place: Place,
        record: &[u8],
    ) -> Result<(Pinned, SessionData<E>), SessionError> {
        let (pinned, mut data) = self.unseal::<SessionData<E>>(place, record)?;
        if !self.is_place_of(place.tag, &data.user_id) {
            return Err(self.not_found());
        }
        data.created_at = pinned.created;
        data.last_activity = seal::last_use(record).unwrap_or_default();
        Ok((pinned, data))
    }

    pub(super) fn unseal<T: DeserializeOwned>(
        &self,
        place: Place,
        record: &[u8],
    ) -> Result<(Pinned, T), SessionError> {
        let Some(opened) = seal::open(&self.ring, &self.prefix, place, record) else {
            self.count(SessionEvent::Tampered);
            if let Some(suppressed) = self.lines.tampered.admit() {
                warn!(
                    session = place.sid.text(),
                    suppressed, "a stored session was tampered with, or its key is not configured"
                );
            }
            return Err(SessionError::Tampered);
        };
        let data = serde_json::from_slice(&opened.data).map_err(|error| {
            self.count(SessionEvent::Tampered);
            // The position, not the text, because the text could repeat stored data.
            if let Some(suppressed) = self.lines.unreadable.admit() {
            warn!(
                session = place.sid.text(),
                column = error.column(),
                suppressed,
                "a stored session does not fit the type of its extension; give new fields `#[serde(default)]`"
            );
            }
            SessionError::Unreadable
        })?;
        Ok((opened.pinned, data))
    }

    /// Ends sessions of a user, under any key.
    pub(super) async fn destroy_of(&self, user: &str, which: Which) -> Result<usize, SessionError> {
        let mut ended = Ok(0);
        for tag in self.ring.tags(&self.prefix, user) {
            // Each place is tried or remembered, independent of the result for the others.
            let here = self.destroy(tag, which).await;
            ended = ended.and_then(|ended: usize| Ok(ended + here?));
        }
        ended
    }

    /// Ends sessions. Records the revocation if Redis does not answer.
    pub(super) async fn destroy(&self, tag: UserTag, which: Which) -> Result<usize, SessionError> {
        let error = match self.end(tag, which).await {
            Ok(ended) => {
                self.resume();
                return Ok(ended);
            }
            Err(error) => error,
        };
        let which = self.until_now(which);
        if self.revocations.add(tag, which) {
            self.flush_in_background();
        } else if let Some(suppressed) = self.lines.unrecorded.admit() {
            warn!(
                suppressed,
                "too many revocations are pending; this one was not recorded"
            );
        }
        Err(self.unavailable(error))
    }

    async fn end(&self, tag: UserTag, which: Which) -> Result<usize, Error> {
        self.note_end(tag, which);
        let ended = self.backend.destroy(tag, which).await?;
        if matches!(which, Which::Others { began: None, .. }) {
            // Those that began while it was on its way have ended, too.
            self.note_end(tag, which);
        }
        self.metrics().add(SessionEvent::Destroyed, ended as u64);
        Ok(ended)
    }

    /// Returns whether this session has a pending revocation that may not have reached Redis.
    pub(super) fn is_ending(&self, place: Place) -> bool {
        self.resume() && self.revocations.ends_one(place)
    }

    /// Returns whether a revocation is pending. If so, it starts a task if there is none, because an earlier task may have
    /// ended with its runtime.
    pub(super) fn resume(&self) -> bool {
        let is_pending = !self.revocations.is_empty();
        if is_pending {
            self.flush_in_background();
        }
        is_pending
    }

    /// Sends pending revocations in the background, unless a task already does.
    fn flush_in_background(&self) {
        let this = Weak::clone(&self.this);
        self.flushing.start(|running| async move {
            while let Some(inner) = this.upgrade() {
                inner.flush().await;
                if inner.revocations.is_empty() {
                    drop(running);
                    // Another caller may have seen this task still running.
                    if !inner.revocations.is_empty() {
                        inner.flush_in_background();
                    }
                    return;
                }
                let cache = &inner.backend.cache;
                let back = (!cache.can_store()).then(|| cache.is_back_within(PATIENCE));
                drop(inner);
                match back {
                    Some(back) => drop(back.await),
                    None => sleep(PAUSE).await,
                }
            }
        });
    }

    async fn flush(&self) {
        for (tag, which) in self.revocations.all() {
            if !self.backend.cache.can_store() {
                return;
            }
            match self.end(tag, which).await {
                Ok(_) => self.revocations.remove(tag, which),
                // Another part of a cluster may be available.
                Err(error) => debug!(%error, "could not end a session yet"),
            }
        }
    }
}

fn timeouts(config: &Config) -> Timeouts {
    let touch_every = whole_millis(config.session_touch_every);
    let absolute = whole_millis(config.session_absolute);
    match config.session_idle.map(whole_millis) {
        Some(idle) => Timeouts {
            ttl: idle,
            extend: None,
            absolute,
            // A use that is not recorded ends the session earlier by this much.
            touch_every: touch_every.min(idle / TOUCHES),
        },
        None => Timeouts {
            ttl: whole_millis(config.session_ttl),
            extend: Some(whole_millis(config.session_extend)),
            absolute,
            touch_every,
        },
    }
}

impl Replay for Inner {
    fn replay(&self, part: &Reach) -> usize {
        let is_there = |(tag, _): &(UserTag, Which)| part.contains(&tag.index(&self.prefix));
        let mut owed = 0;
        for (tag, which) in self.ended.all_where(is_there) {
            owed += usize::from(self.revocations.add(tag, which));
        }
        if owed > 0 {
            self.flush_in_background();
        }
        owed
    }
}
