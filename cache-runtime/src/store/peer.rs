//! One server: sends commands to it, alone or as one batch, and reads from it.

mod batch;
mod long;

use std::iter;
use std::slice;
use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};

use self::batch::Batches;
use self::long::{Longest, Reading};
use super::pool::{Access, BULK, Pool};
use super::reply::{self, Failure};
use super::{Cursor, Found, Scanned, ServerInfo};
use crate::config::Config;
use crate::entry::{self, STAMP_TEXT};
use crate::key::{Key, Pattern};
use crate::metrics::PoolStats;
use crate::spare::Spare;
use crate::tag::Tag;

/// The size to plan for if the size of an entry is unknown.
pub(super) const USUAL_ENTRY: usize = 1 << 10;

/// Keys that one step of a scan looks at. With 100 to 500 keys the slowest answers for other callers do not change; with
/// 1,000 they take five times as long.
const SCAN_COUNT: usize = 250;

/// A server, or one node of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) pool: Arc<Pool>,
    access: Access,
    longest: Arc<Longest>,
    batches: Arc<Batches>,
}

impl Peer {
    pub(super) fn new(pool: Pool, config: &Config) -> Self {
        Self {
            pool: Arc::new(pool),
            access: Access::Caller,
            longest: Longest::new(config),
            batches: Batches::new(config),
        }
    }

    /// The same server for this access.
    pub(super) fn with(&self, access: Access) -> Self {
        Self {
            access,
            ..self.clone()
        }
    }

    /// Reads an entry and the records of tags.
    pub(super) async fn lookup(
        &self,
        key: &Key,
        tags: &[Tag],
        expected: usize,
    ) -> Result<Found, Failure> {
        if let Some(found) = self.read_in_batch(key, tags, expected).await {
            return Ok(found);
        }
        let expected = expected + tags.len() * STAMP_TEXT;
        if self.has_slots() && !tags.is_empty() {
            let values = self.ask_all(&get_each(key, tags), expected).await?;
            return found(values, tags.len());
        }
        let command = Get::of(key, tags);
        let answer = self
            .read(&command.0, expected, slice::from_ref(key))
            .await?;
        match tags {
            [] => Ok(Found {
                entry: reply::bytes(answer)?,
                stamps: Vec::new(),
            }),
            _ => found(reply::array(answer)?, tags.len()),
        }
    }

    /// Sends a command.
    pub(super) async fn ask(&self, command: &Cmd, bytes: usize) -> Result<Value, Failure> {
        self.pool.ticket(bytes, self.access)?.ask(command).await
    }

    /// Sends a command to a node that does not own the slot yet. Both commands are one write, so that no other command on the
    /// connection takes the permission of the first.
    pub(super) async fn ask_importer(&self, command: &Cmd, bytes: usize) -> Result<Value, Failure> {
        let mut both = Pipeline::with_capacity(2);
        both.cmd("ASKING");
        both.add_command(command.clone());
        let mut answers = self.ask_all(&both, bytes).await?.into_iter().skip(1);
        answers
            .next()
            .map_or(Err(Failure::Nonsense("two answers")), reply::ok)
    }

    /// Sends commands as one batch.
    pub(super) async fn ask_all(
        &self,
        commands: &Pipeline,
        bytes: usize,
    ) -> Result<Vec<Value>, Failure> {
        self.pool
            .ticket(bytes, self.access)?
            .ask_all(commands)
            .await
    }

    /// For a command that may run twice, such as one that changes nothing: if its connection is lost, it is sent once more
    /// on another. If the caller is cancelled before the answer arrives, a check finds out whether one of the `values` that
    /// the command reads is too long.
    pub(super) async fn read(
        &self,
        command: &Cmd,
        bytes: usize,
        values: &[Key],
    ) -> Result<Value, Failure> {
        let ticket = || self.pool.ticket(bytes, self.access);
        let mut reading = Reading::new(self, values, ticket()?);
        match reading.ticket.ask(command).await {
            Err(Failure::Lost(reason)) => match ticket() {
                Ok(second) => {
                    reading.ticket = second;
                    // Rare, so it is not worth room in the future of every read.
                    Box::pin(reading.ticket.ask(command)).await
                }
                Err(Failure::Unavailable) => Err(Failure::Lost(reason)),
                Err(failure) => Err(failure),
            },
            first => first,
        }
    }

    /// Returns the answer of a `GET` for each key. Without slots they are those of an `MGET`, which answers nothing where the
    /// value is not a string.
    pub(super) async fn fetch_each(
        &self,
        keys: &[Key],
        bytes: usize,
    ) -> Result<Vec<Value>, Failure> {
        if self.has_slots() {
            return self.ask_all(&each("GET", keys), bytes).await;
        }
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(key.as_str());
        }
        let values = reply::array(self.read(&command, bytes, keys).await?)?;
        if values.len() != keys.len() {
            return Err(Failure::Nonsense("as many values as keys"));
        }
        Ok(values)
    }

    /// One step of a scan: the next cursor, and the names that the patterns match.
    pub(super) async fn scan(
        &self,
        patterns: &[Pattern],
        cursor: Cursor,
    ) -> Result<Scanned, Failure> {
        let mut command = redis::cmd("SCAN");
        command
            .arg(cursor.0)
            .arg("MATCH")
            .arg(&*Pattern::common_glob(patterns))
            .arg("COUNT")
            .arg(SCAN_COUNT);
        let (next, names) = reply::page(self.read(&command, BULK, &[]).await?)?;
        // Redis matched a glob; this second look keeps other prefixes and reserved roots safe.
        let meant = |name: Vec<u8>| {
            let name = String::from_utf8(name).ok()?;
            let pattern = patterns.iter().find(|pattern| pattern.matches(&name))?;
            Some(pattern.key(name))
        };
        Ok(Scanned {
            names: names.into_iter().filter_map(meant).collect(),
            next: (next != 0).then_some(Cursor(next)),
            looked: SCAN_COUNT,
        })
    }

    /// What the server reports about itself.
    pub(super) async fn info(&self) -> Result<ServerInfo, Failure> {
        let command = redis::cmd("INFO").arg("default").take();
        let answer = self.read(&command, USUAL_ENTRY, &[]).await?;
        Ok(reply::server_info(&reply::text(answer)?))
    }

    pub(super) fn stats(&self) -> PoolStats {
        let (batches, batched_reads) = self.batches.counts();
        PoolStats {
            batches,
            batched_reads,
            ..self.pool.stats()
        }
    }

    /// Returns whether keys are in slots: a command that names keys of several slots is refused.
    fn has_slots(&self) -> bool {
        self.pool.is_node()
    }
}

thread_local! {
    static SPARE: Spare<Cmd> = const { Spare::new() };
}

/// A `GET`, or an `MGET` with tags. Every hit sends one, so its buffers are used again.
struct Get(Cmd);

impl Get {
    fn of(key: &Key, tags: &[Tag]) -> Self {
        let mut command = Spare::take(&SPARE).unwrap_or_default();
        command.clear();
        let name = if tags.is_empty() { "GET" } else { "MGET" };
        command.arg(name).arg(key.as_str());
        for tag in tags {
            command.arg(tag.key().as_str());
        }
        Self(command)
    }
}

impl Drop for Get {
    fn drop(&mut self) {
        Spare::keep(&SPARE, self.0.take());
    }
}

/// Reads an entry and its tags by a command of its own for each, because they may be in several slots.
pub(super) fn get_each(key: &Key, tags: &[Tag]) -> Pipeline {
    each("GET", iter::once(key).chain(tags.iter().map(Tag::key)))
}

/// Sends a command of its own for each key, so that one that is refused does not affect the others.
pub(super) fn each<'a>(command: &str, keys: impl IntoIterator<Item = &'a Key>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for key in keys {
        pipeline.cmd(command).arg(key.as_str());
    }
    pipeline
}

/// The answers for an entry and so many tags.
pub(super) fn found(values: Vec<Value>, tags: usize) -> Result<Found, Failure> {
    if values.len() != 1 + tags {
        return Err(Failure::Nonsense("as many values as keys"));
    }
    let mut values = values.into_iter();
    let entry = values.next().map_or(Ok(None), reply::bytes)?;
    let stamps = values.map(|record| {
        let record = reply::string(record)?;
        Ok(record.as_deref().and_then(entry::stamp_in))
    });
    Ok(Found {
        entry,
        stamps: stamps.collect::<Result<_, _>>()?,
    })
}
