//! Makes the transitions of a user's sessions: with one script each in Redis, or in this process without Redis.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::memory::Memory;
use super::place::{Place, Sid, UserTag};
use super::transition::{Begin, Begun, Change, Listed, Loaded, SEEN, Stored, Timeouts, Which};
use crate::cache::Cache;
use crate::error::{Error, ErrorKind};
use crate::site::Site;
use crate::store::script::{Reply, Script};

/// The site of sessions in the statistics of operations.
static SITE: Site = Site::new("SessionStore", "session");

macro_rules! scripts {
    ($($name:ident = $kind:ident($file:literal);)*) => {$(
        static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::$kind(concat!(
                include_str!("scripts/common.lua"),
                include_str!(concat!("scripts/", $file)),
            ))
        });
    )*};
}

scripts! {
    CREATE = new("create.lua");
    LOAD = repeatable("load.lua");
    SAVE = new("save.lua");
    ROTATE = new("rotate.lua");
    DESTROY = new("destroy.lua");
    LIST = repeatable("list.lua");
}

/// The clock offset before Redis has reported its time.
const UNKNOWN_OFFSET: i64 = i64::MIN;

pub(super) struct Backend {
    pub(super) cache: Cache,
    /// The store without Redis.
    pub(super) memory: Option<Memory>,
    /// How far the clock of Redis was ahead of ours at its last report.
    clock_offset: AtomicI64,
}

impl Backend {
    pub(super) fn new(cache: &Cache) -> Self {
        Self {
            memory: cache.is_local().then(Memory::default),
            clock_offset: AtomicI64::new(UNKNOWN_OFFSET),
            cache: cache.clone(),
        }
    }

    /// What time it is by this process's clock.
    pub(super) fn clock(&self) -> u64 {
        self.cache.config().clock.now_millis()
    }

    /// Returns the time by the clock of Redis, or by ours before Redis has reported its time.
    pub(super) fn now(&self) -> u64 {
        self.known_now().unwrap_or_else(|| self.clock())
    }

    /// Returns the time by the clock of Redis, if Redis has reported it.
    pub(super) fn known_now(&self) -> Option<u64> {
        match self.clock_offset.load(Relaxed) {
            UNKNOWN_OFFSET => self.cache.config().clock.driven(),
            offset => Some(self.clock().saturating_add_signed(offset)),
        }
    }

    /// Sets how far the clock of Redis is ahead of ours.
    #[cfg(test)]
    pub(super) fn set_clock_offset(&self, offset: i64) {
        self.clock_offset.store(offset, Relaxed);
    }

    /// Records the time of Redis. The offset is reduced by 1 ms because both clocks are read in whole milliseconds, and
    /// Redis rejects an assumed time that is ahead.
    fn observe_time(&self, now: u64) {
        let [theirs, ours] =
            [now, self.clock()].map(|time| i64::try_from(time).unwrap_or_default());
        self.clock_offset.store(theirs - ours - 1, Relaxed);
    }

    pub(super) async fn create(&self, begin: Begin<'_>) -> Result<Begun, Error> {
        if let Some(memory) = &self.memory {
            return Ok(memory.create(begin, self.clock()));
        }
        let Begin {
            place,
            ttl,
            most,
            created,
            absolute,
            replaced,
            record,
        } = begin;
        let replaced = replaced.map(Sid::text).unwrap_or_default();
        let numbers = [ttl, most as u64, created, absolute].map(|number| number.to_string());
        let [ttl, most, created, absolute] = numbers.each_ref().map(String::as_bytes);
        let sid = place.sid.text();
        let arguments = [
            sid.as_bytes(),
            ttl,
            most,
            created,
            absolute,
            replaced.as_bytes(),
            record,
        ];
        let (_, reply) = self.run(&CREATE, place.tag, &arguments).await?;
        match reply[..] {
            [Reply::Number(0), _] => Ok(Begun::WrongTime),
            [Reply::Number(ends), Reply::Number(ended)] => Ok(Begun::Until {
                ends: ends as u64,
                ended: ended as u64,
            }),
            _ => Err(nonsense()),
        }
    }

    pub(super) async fn load(
        &self,
        place: Place,
        timeouts: Timeouts,
    ) -> Result<Option<Loaded>, Error> {
        if let Some(memory) = &self.memory {
            return Ok(memory.load(place, timeouts, self.clock()));
        }
        let Timeouts {
            ttl,
            extend,
            absolute: _,
            touch_every,
        } = timeouts;
        let numbers = [Some(ttl), extend, Some(touch_every)];
        let numbers = numbers.map(|number| number.map_or_else(String::new, |it| it.to_string()));
        let [ttl, extend, touch_every] = numbers.each_ref().map(String::as_bytes);
        let sid = place.sid.text();
        let arguments = [sid.as_bytes(), ttl, extend, touch_every];
        let (now, reply) = self.run(&LOAD, place.tag, &arguments).await?;
        match <[Reply; 3]>::try_from(reply) {
            Ok(
                [
                    Reply::Number(ends),
                    Reply::Number(last),
                    Reply::Bytes(record),
                ],
            ) => Ok(Some(Loaded {
                now,
                ends: ends as u64,
                last: last as u64,
                record,
            })),
            Err(reply) if reply.is_empty() => Ok(None),
            _ => Err(nonsense()),
        }
    }

    /// Stores what a session holds, perhaps under another name.
    pub(super) async fn change(&self, change: Change<'_>) -> Result<Stored, Error> {
        if let Some(memory) = &self.memory {
            return Ok(memory.change(change, self.clock()));
        }
        let Change {
            place,
            seen,
            pinned,
            sealed,
            renamed,
        } = change;
        let (sid, renamed) = (place.sid.text(), renamed.map(Sid::text));
        let mut arguments = vec![sid.as_bytes(), &seen[..SEEN], &pinned, sealed];
        let script = match &renamed {
            Some(renamed) => {
                arguments.push(renamed.as_bytes());
                &ROTATE
            }
            None => &SAVE,
        };
        let (_, reply) = self.run(script, place.tag, &arguments).await?;
        match reply[..] {
            [Reply::Number(0)] => Ok(Stored::Gone),
            [Reply::Number(1)] => Ok(Stored::Conflict),
            [Reply::Number(ends)] => Ok(Stored::Until(ends as u64)),
            _ => Err(nonsense()),
        }
    }

    /// Ends sessions, and answers how many were alive.
    pub(super) async fn destroy(&self, tag: UserTag, which: Which) -> Result<usize, Error> {
        if let Some(memory) = &self.memory {
            return Ok(memory.destroy(tag, which, self.clock()));
        }
        let (which, named, began) = match which {
            Which::One(sid) => ("one", Some(sid), None),
            Which::Others { except, began } => ("others", except, began),
        };
        let named = named.map(Sid::text).unwrap_or_default();
        let began = began.map(|time| time.to_string()).unwrap_or_default();
        let arguments = [which.as_bytes(), named.as_bytes(), began.as_bytes()];
        let (_, reply) = self.run(&DESTROY, tag, &arguments).await?;
        match reply[..] {
            [Reply::Number(ended)] => usize::try_from(ended).map_err(|_| nonsense()),
            _ => Err(nonsense()),
        }
    }

    pub(super) async fn list(&self, tag: UserTag) -> Result<Vec<Listed>, Error> {
        if let Some(memory) = &self.memory {
            return Ok(memory.list(tag, self.clock()));
        }
        let (_, reply) = self.run(&LIST, tag, &[]).await?;
        let mut reply = reply.into_iter();
        let mut listed = Vec::new();
        while let Some(sid) = reply.next() {
            let (Reply::Bytes(sid), Some(Reply::Number(ends)), Some(Reply::Bytes(record))) =
                (sid, reply.next(), reply.next())
            else {
                return Err(nonsense());
            };
            let sid = std::str::from_utf8(&sid).ok().and_then(Sid::parse);
            // Any other member of the set is not a session.
            listed.extend(sid.map(|sid| Listed {
                sid,
                ends: ends as u64,
                record,
            }));
        }
        Ok(listed)
    }

    /// Runs a script on a user's sessions. Answers the time, and the rest of its answer.
    async fn run(
        &self,
        script: &Script,
        tag: UserTag,
        arguments: &[&[u8]],
    ) -> Result<(u64, Vec<Reply>), Error> {
        let config = self.cache.config();
        let (index, base) = (tag.index(&config.prefix), tag.base(&config.prefix));
        let driven = config.clock.driven().map(|now| now.to_string());
        let mut all: Vec<&[u8]> = vec![
            base.as_bytes(),
            driven.as_ref().map(String::as_bytes).unwrap_or_default(),
        ];
        all.extend_from_slice(arguments);
        let reply = self
            .cache
            .run_script(&SITE, script, &index, &[index.as_str()], &all)
            .await?;
        let Reply::List(mut reply) = reply else {
            return Err(nonsense());
        };
        match reply.first() {
            Some(Reply::Number(now)) => {
                let now = *now as u64;
                reply.remove(0);
                if driven.is_none() {
                    self.observe_time(now);
                }
                Ok((now, reply))
            }
            _ => Err(nonsense()),
        }
    }
}

pub(super) fn nonsense() -> Error {
    Error::new(ErrorKind::Command, "unexpected reply from a session script")
}
