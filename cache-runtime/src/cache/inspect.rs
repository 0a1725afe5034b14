//! What a cache shows of its entries and its operations to an operator. Every call does a bounded amount of work.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Cache;
use super::handle::HANDLE;
use crate::entry::{self, Summary};
use crate::error::{Error, ErrorKind};
use crate::key::{Key, Pattern};
use crate::metrics::{Hot, Latencies, Mode, Slow};
use crate::store::guard::{On, Op, State};
use crate::store::{Cursor, Scanned};

/// Keys on a page. Redis may add some that share a bucket.
const PAGE: usize = 250;

/// Steps of a scan for one page. A pattern that matches few keys of many gets a page with few keys.
const STEPS_PER_PAGE: usize = 20;

/// How long a walk may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Steps of a scan for one walk, of about 250 keys each.
const STEPS_PER_WALK: usize = 400;

/// The longest value that is shown, in bytes of JSON.
const SHOWN_VALUE: usize = 64 * 1024;

/// The size of one entry before it is known.
const EXPECTED: usize = 4 * 1024;

/// A page of keys, and where the next one begins.
#[derive(Debug, Serialize)]
pub(crate) struct KeyPage {
    pub(crate) keys: Vec<ListedKey>,
    /// For the next page; [`None`] at the end.
    pub(crate) cursor: Option<String>,
}

/// A key on a page.
#[derive(Debug, Serialize)]
pub(crate) struct ListedKey {
    pub(crate) key: String,
    #[serde(flatten)]
    pub(crate) summary: Summary,
}

/// An entry and everything that is known about it.
#[derive(Debug, Serialize)]
pub(crate) struct EntryReport {
    pub(crate) key: String,
    #[serde(flatten)]
    summary: Summary,
    /// The size of the entry in the store.
    bytes: usize,
    /// When the store removes it: after its TTL and its grace. [`None`] means never.
    expires_ms: Option<u64>,
    /// Whether it is not served because a pattern is switched off.
    is_off: bool,
    /// Whether it is not served because its eviction waits for Redis.
    is_journaled: bool,
    /// What the body returned, if it was asked for and is short enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

/// How many entries match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Counted {
    pub(crate) keys: u64,
    /// Whether all of them were counted.
    pub(crate) is_complete: bool,
}

/// A walk through the entries that match, for at most 2 s and about 100,000 keys of the keyspace.
pub(super) struct Walk<'a> {
    cache: &'a Cache,
    pattern: [Pattern; 1],
    began: Instant,
    steps: usize,
    next: Option<Cursor>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(cache: &'a Cache, pattern: Pattern) -> Self {
        Self {
            cache,
            pattern: [pattern],
            began: Instant::now(),
            steps: 0,
            next: Some(Cursor::default()),
        }
    }

    /// Returns the keys of some more entries, of which it may have returned some before, or [`None`] at the end.
    pub(super) async fn step(&mut self) -> Result<Option<Vec<Key>>, Error> {
        let Some(cursor) = self.next else {
            return Ok(None);
        };
        if self.steps == STEPS_PER_WALK || self.began.elapsed() >= PATIENCE {
            return Ok(None);
        }
        self.steps += 1;
        let Scanned { names, next, .. } = self.cache.scan_step(&self.pattern, cursor).await?;
        let mut entries = Vec::with_capacity(names.len());
        // In memory mode there is one step with everything.
        for keys in names.chunks(PAGE) {
            let heads = self.cache.heads(keys).await?;
            let found = keys
                .iter()
                .zip(heads)
                .filter(|(key, head)| head.as_ref().is_some_and(|head| entry::is_value(head, key)));
            entries.extend(found.map(|(key, _)| key.clone()));
        }
        self.next = next;
        Ok(Some(entries))
    }

    /// Returns whether it has seen everything.
    pub(super) fn is_complete(&self) -> bool {
        self.next.is_none()
    }
}

/// Where a scan of Redis is. A restart of Redis makes it void.
struct Place {
    cursor: Cursor,
    term: u64,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (cursor, term) = text.split_once('.')?;
        Some(Self {
            cursor: Cursor::of(cursor.parse().ok()?),
            term: term.parse().ok()?,
        })
    }
}

impl Cache {
    /// Returns a page of the keys that match, in no order. `cursor` is that of the page before.
    ///
    /// # Errors
    ///
    /// A pattern or a cursor that cannot be used, or a Redis that is unavailable or was restarted between two pages.
    pub(crate) async fn key_page(
        &self,
        pattern: &str,
        cursor: Option<&str>,
    ) -> Result<KeyPage, Error> {
        let pattern = [Pattern::parse(self.prefix(), pattern)?];
        if self.is_local() {
            return self.local_page(&pattern, cursor.unwrap_or_default()).await;
        }
        let term = self.inner.guard.store().term();
        let mut place = Place {
            cursor: Cursor::default(),
            term,
        };
        if let Some(text) = cursor {
            place = Place::parse(text).ok_or_else(bad_cursor)?;
        }
        if place.term != term {
            let text = "Redis was restarted or replaced since the page before; start again without `cursor`";
            return Err(Error::new(ErrorKind::Input, text));
        }
        let (mut keys, mut next) = (Vec::new(), Some(place.cursor));
        for _ in 0..STEPS_PER_PAGE {
            let Some(cursor) = next else { break };
            if keys.len() >= PAGE {
                break;
            }
            let scanned = self.scan_step(&pattern, cursor).await?;
            keys.extend(self.listed(&scanned.names).await?);
            next = scanned.next;
        }
        let cursor = next.map(|cursor| format!("{}.{term}", cursor.number()));
        Ok(KeyPage { keys, cursor })
    }

    /// The same in memory mode, where a scan returns everything at once: the keys in their order, after the last key.
    async fn local_page(&self, pattern: &[Pattern], last: &str) -> Result<KeyPage, Error> {
        let last = [self.prefix(), last].concat();
        let scanned = self.scan_step(pattern, Cursor::default()).await?;
        let mut names = scanned.names;
        names.retain(|key| key.as_str() > last.as_str());
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        let is_last = names.len() <= PAGE;
        names.truncate(PAGE);
        let cursor = names.last().filter(|_| !is_last);
        let cursor = cursor.and_then(|key| key.as_str().strip_prefix(self.prefix()));
        Ok(KeyPage {
            cursor: cursor.map(str::to_owned),
            keys: self.listed(&names).await?,
        })
    }

    async fn listed(&self, names: &[Key]) -> Result<Vec<ListedKey>, Error> {
        let now = self.inner.config.clock.now_millis();
        let heads = self.heads(names).await?;
        let listed = names.iter().zip(heads).filter_map(|(key, head)| {
            Some(ListedKey {
                key: key.as_str().strip_prefix(self.prefix())?.to_owned(),
                summary: entry::summary(&head?, key, now)?,
            })
        });
        Ok(listed.collect())
    }

    /// Returns what is stored at `key`, whether or not it is served, or [`None`] for anything but an entry of this cache.
    ///
    /// # Errors
    ///
    /// An invalid key, or a Redis that is unavailable.
    pub(crate) async fn entry_at(
        &self,
        key: &str,
        with_value: bool,
    ) -> Result<Option<EntryReport>, Error> {
        let key = Key::parse(self.prefix(), key)?;
        let keys = std::slice::from_ref(&key);
        let metrics = self.inner.metrics.site(&HANDLE.metrics);
        let op = || Op::new("exists", &HANDLE, &metrics, On::Key(&key));
        let now = self.inner.config.clock.now_millis();
        let Some(head) = self.heads(keys).await?.into_iter().flatten().next() else {
            return Ok(None);
        };
        let measured = self.inner.run(op(), |store| store.measure(&key)).await?;
        let (Some((bytes, left)), Some(summary)) = (measured, entry::summary(&head, &key, now))
        else {
            return Ok(None);
        };
        let mut value = None;
        if with_value && bytes <= SHOWN_VALUE {
            let get = Op::new("get", &HANDLE, &metrics, On::Key(&key));
            let stored = self.inner.run(get, |store| store.get(&key, EXPECTED));
            let json = stored.await?;
            let json = json.and_then(|bytes| entry::json_of(&bytes, &key, SHOWN_VALUE));
            value = json.and_then(|json| serde_json::from_slice(&json).ok());
        }
        let name = key.as_str().strip_prefix(self.prefix());
        Ok(Some(EntryReport {
            key: name.unwrap_or_default().to_owned(),
            summary,
            bytes,
            expires_ms: (left != Duration::MAX)
                .then(|| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            is_off: self.inner.disabled.is_off(&key),
            is_journaled: self.inner.journal.blocks(&key),
            value,
        }))
    }

    /// Counts the entries that match, for at most 2 s and about 100,000 keys of the keyspace.
    ///
    /// # Errors
    ///
    /// A pattern that cannot be used, or a Redis that is unavailable.
    pub(crate) async fn count_matching(&self, pattern: &str) -> Result<Counted, Error> {
        let mut walk = Walk::new(self, Pattern::parse(self.prefix(), pattern)?);
        // A scan may return a key twice.
        let mut seen = HashSet::new();
        while let Some(keys) = walk.step().await? {
            seen.extend(keys.iter().map(Key::hash));
        }
        Ok(Counted {
            keys: seen.len() as u64,
            is_complete: walk.is_complete(),
        })
    }

    async fn scan_step(&self, pattern: &[Pattern], cursor: Cursor) -> Result<Scanned, Error> {
        let metrics = self.inner.metrics.site(&HANDLE.metrics);
        let op = Op::new("keys", &HANDLE, &metrics, On::Pattern(&pattern[0]));
        self.inner
            .run(op, |store| store.scan(pattern, cursor))
            .await
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let Some(first) = keys.first() else {
            return Ok(Vec::new());
        };
        let metrics = self.inner.metrics.site(&HANDLE.metrics);
        let op = Op::new("keys", &HANDLE, &metrics, On::Key(first));
        self.inner
            .run(op, |store| store.peek(keys, entry::HEADER))
            .await
    }

    /// Returns the patterns that are switched off in this process.
    pub(crate) fn patterns_off(&self) -> Vec<String> {
        self.inner.disabled.list(self.prefix())
    }

    /// Returns where entries are stored now.
    pub(crate) fn mode(&self) -> Mode {
        self.inner.guard.mode()
    }

    /// Returns the state of the connection to Redis and its changes.
    pub(crate) fn states(&self) -> watch::Receiver<State> {
        self.inner.guard.states()
    }

    /// Returns why Redis is unavailable.
    pub(crate) fn why_unavailable(&self) -> Option<String> {
        self.inner.guard.why_unavailable()
    }

    /// Returns how long store operations took so far.
    pub(crate) fn latencies(&self) -> Latencies {
        self.inner.metrics.latencies()
    }

    /// Returns the last slow operations, the newest first.
    pub(crate) fn slow_operations(&self) -> Vec<Slow> {
        self.inner.metrics.slow()
    }

    /// Returns the sketch of keys that are read most.
    pub(crate) fn hot_keys(&self) -> &Hot {
        self.inner.metrics.hot()
    }

    /// Returns how logs name a key or a pattern, which is a hash if `mask_keys` is set.
    pub(crate) fn shown_in_logs(&self, pattern: &str) -> String {
        let mask = self.inner.config.mask_keys;
        match Pattern::parse(self.prefix(), pattern) {
            Ok(pattern) => pattern.shown(mask).to_string(),
            Err(_) => "-".to_owned(),
        }
    }
}

fn bad_cursor() -> Error {
    Error::new(
        ErrorKind::Input,
        "`cursor` is not one that a page returned; start again without `cursor`",
    )
}
