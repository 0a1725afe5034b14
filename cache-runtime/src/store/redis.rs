//! Entries in Redis 7 or newer (`SET` with both `NX` and `GET`): commands and scripts, blind to where the server is.

mod batch;
mod long;
mod scan;
mod scripts;

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use self::batch::Batches;
use self::long::{Longest, Reading};
use self::scripts::{CAPTURE, DELETE_DEAD, DELETE_IF, FENCE, REFRESH, REPLACE};
use super::maintenance;
use super::pool::{Access, Pool};
use super::reply::{self, Failure};
use super::script::Scripts;
use super::{
    BoxFuture, Cursor, Deleted, Found, Mark, Refreshing, Replaced, Scanned, ServerInfo, Signals,
    Store,
};
use crate::clock::whole_millis;
use crate::config::Config;
use crate::entry::{self, CLOCK_SKEW, FENCE_COUNT_AT, FRESH_AT, HEAD, REFRESH_AT, START};
use crate::error::Error;
use crate::key::{Key, Pattern};
use crate::metrics::{PoolStats, StoreStats};
use crate::spare::Spare;
use crate::tag::Tag;

/// Commands in one pipeline: enough to be cheap, few enough that others are not held up.
const SLICE: usize = 500;
/// Bytes in one pipeline, for the same reason.
const SLICE_BYTES: usize = 1 << 20;
/// The size to plan for if the size of an entry is unknown.
const USUAL_ENTRY: usize = 1 << 10;

/// Keeps entries in one Redis.
#[derive(Debug)]
pub(crate) struct RedisStore {
    pool: Arc<Pool>,
    access: Access,
    longest: Arc<Longest>,
    batches: Arc<Batches>,
    /// The same for recovery; `None` in that one.
    recovery: Option<Box<Self>>,
}

impl RedisStore {
    /// Does not connect. The first [`probe`](Store::probe) connects, on its own runtime.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let pool = Arc::new(Pool::new(config)?);
        let longest = Longest::new(config);
        let store = Self {
            pool,
            longest,
            batches: Batches::new(config),
            access: Access::Caller,
            recovery: None,
        };
        Ok(Self {
            recovery: Some(Box::new(store.with(Access::Recovery))),
            ..store
        })
    }

    /// The same store on behalf of another, which has no recovery of its own.
    fn with(&self, access: Access) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            longest: Arc::clone(&self.longest),
            batches: Arc::clone(&self.batches),
            access,
            recovery: None,
        }
    }

    /// [`Store::find`], for a caller that has a box already.
    pub(crate) async fn lookup(
        &self,
        key: &Key,
        tags: &[Tag],
        expected: usize,
    ) -> Result<Found, Error> {
        if let Some(found) = self.read_in_batch(key, tags, expected).await {
            return Ok(found);
        }
        let command = Get::of(key, tags);
        let expected = expected + tags.len() * entry::STAMP_TEXT;
        let answer = self.read(&command.0, expected, slice::from_ref(key)).await;
        let answer = match tags {
            [] => answer.and_then(reply::bytes).map(|entry| Found {
                entry,
                stamps: Vec::new(),
            }),
            _ => answer.and_then(|answer| found(answer, tags.len())),
        };
        answer.map_err(|failure| failure.during(|| format!("get of `{}`", key.as_str())))
    }

    pub(super) fn connections(&self) -> &Arc<Pool> {
        &self.pool
    }

    async fn ask(&self, command: &Cmd, bytes: usize) -> Result<Value, Failure> {
        self.pool.ticket(bytes, self.access)?.ask(command).await
    }

    async fn ask_all(&self, commands: &Pipeline, bytes: usize) -> Result<Vec<Value>, Failure> {
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

    async fn fetch_slice(
        &self,
        keys: &[Key],
        whole: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(key.as_str());
        }
        let values = reply::array(self.read(&command, whole, keys).await?)?;
        if values.len() != keys.len() {
            return Err(Failure::Nonsense("as many values as keys"));
        }
        values.into_iter().map(reply::bytes).collect()
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

/// The answer of an `MGET` of an entry and so many tags.
fn found(answer: Value, tags: usize) -> Result<Found, Failure> {
    let values = reply::array(answer)?;
    if values.len() != 1 + tags {
        return Err(Failure::Nonsense("as many values as keys"));
    }
    let mut values = values.into_iter().map(reply::bytes);
    Ok(Found {
        entry: values.next().transpose()?.flatten(),
        stamps: values
            .map(|record| Ok(record?.as_deref().and_then(entry::stamp_in)))
            .collect::<Result<_, _>>()?,
    })
}

impl Drop for Get {
    fn drop(&mut self) {
        Spare::keep(&SPARE, self.0.take());
    }
}

impl Store for RedisStore {
    fn get<'a>(
        &'a self,
        key: &'a Key,
        expected: usize,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, Error>> {
        Box::pin(async move { Ok(self.lookup(key, &[], expected).await?.entry) })
    }

    fn find<'a>(
        &'a self,
        key: &'a Key,
        tags: &'a [Tag],
        expected: usize,
    ) -> BoxFuture<'a, Result<Found, Error>> {
        Box::pin(self.lookup(key, tags, expected))
    }

    fn get_many<'a>(
        &'a self,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, Error>> {
        Box::pin(async move {
            let mut values = Vec::with_capacity(keys.len());
            for slice in keys.chunks(SLICE) {
                let found = self.fetch_slice(slice, slice.len() * USUAL_ENTRY).await;
                values.extend(
                    found.map_err(|failure| {
                        failure.during(|| format!("get of {} keys", keys.len()))
                    })?,
                );
            }
            Ok(values)
        })
    }

    fn lease<'a>(
        &'a self,
        key: &'a Key,
        lease: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, Error>> {
        Box::pin(async move {
            let mut command = redis::cmd("SET");
            command
                .arg(key.as_str())
                .arg(lease)
                .arg("NX")
                .arg("GET")
                .arg("PX")
                .arg(millis(life));
            let answer = self.ask(&command, USUAL_ENTRY).await.and_then(reply::bytes);
            answer.map_err(|failure| failure.during(|| format!("lease of `{}`", key.as_str())))
        })
    }

    fn replace<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
        entry: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<Replaced, Error>> {
        Box::pin(async move {
            let arguments = |command: &mut Cmd| {
                command.arg(&stamp[..]).arg(entry).arg(millis(life));
            };
            self.run(&REPLACE, key, arguments, entry.len())
                .await
                .map(|answer| match answer {
                    1 => Replaced::Done,
                    0 => Replaced::Gone,
                    _ => Replaced::Other,
                })
                .map_err(|failure| failure.during(|| format!("fill of `{}`", key.as_str())))
        })
    }

    fn refresh<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
        life: Duration,
        mark: Mark,
    ) -> BoxFuture<'a, Result<Refreshing, Error>> {
        Box::pin(async move {
            let life = if life.is_zero() { 0 } else { millis(life) };
            let arguments = |command: &mut Cmd| {
                command
                    .arg(&stamp[..])
                    .arg(life)
                    .arg(&START[..])
                    .arg(REFRESH_AT)
                    .arg(u8::from(mark == Mark::Claim));
            };
            self.run(&REFRESH, key, arguments, 0)
                .await
                .map(|answer| match u64::try_from(answer) {
                    Ok(0) => Refreshing::Marked,
                    Ok(millis) => Refreshing::Held(Duration::from_millis(millis)),
                    Err(_) => Refreshing::Gone,
                })
                .map_err(|failure| failure.during(|| format!("refresh of `{}`", key.as_str())))
        })
    }

    fn fence<'a>(
        &'a self,
        fences: &'a [(Key, Vec<u8>)],
        life: Duration,
    ) -> BoxFuture<'a, Result<Vec<u32>, Error>> {
        Box::pin(async move {
            let arguments = |fence: &Vec<u8>, command: &mut Cmd| {
                command
                    .arg(fence)
                    .arg(millis(life))
                    .arg(HEAD)
                    .arg(FENCE_COUNT_AT)
                    .arg(FRESH_AT)
                    .arg(millis(CLOCK_SKEW));
            };
            let during = |failure: Failure| {
                failure.during(|| match fences {
                    [(key, _)] => format!("fence of `{}`", key.as_str()),
                    _ => format!("fence of {} keys", fences.len()),
                })
            };
            let mut counts = Vec::with_capacity(fences.len());
            let mut refused = None;
            for slice in fences.chunks(SLICE) {
                let answers = self.run_each(&FENCE, slice, arguments).await;
                for answer in answers.map_err(during)? {
                    match reply::integer(answer) {
                        Ok(count) => counts.push(u32::try_from(count).unwrap_or(u32::MAX)),
                        // The other keys have their fences, and later keys still get theirs.
                        Err(failure) => refused = refused.or(Some(failure)),
                    }
                }
            }
            if let Some(failure) = refused {
                return Err(during(failure));
            }
            Ok(counts)
        })
    }

    fn capture<'a>(
        &'a self,
        tags: &'a [Key],
        stamp: [u8; 8],
        life: Duration,
    ) -> BoxFuture<'a, Result<Vec<Option<[u8; 8]>>, Error>> {
        Box::pin(async move {
            let record = entry::stamp_text(stamp);
            // Longer than it has to be, so that not every load changes it.
            let longer = life.saturating_add(life / 4);
            let arguments = |(): &(), command: &mut Cmd| {
                command
                    .arg(&record[..])
                    .arg(millis(life))
                    .arg(millis(longer));
            };
            let stamp_of = |answer| match reply::bytes(answer) {
                Ok(record) => Ok(record.as_deref().and_then(entry::stamp_in)),
                Err(Failure::Refused(error)) if reply::is_wrong_type(&error) => Ok(None),
                Err(failure) => Err(failure),
            };
            if tags.is_empty() {
                return Ok(Vec::new());
            }
            let tags: Vec<_> = tags.iter().map(|tag| (tag.clone(), ())).collect();
            // Sent once: if a stamp arrived again after an eviction, loads from before it could store under the same stamp.
            let answers = self.run_each(&CAPTURE, &tags, arguments).await;
            let stamps = answers.and_then(|answers| answers.into_iter().map(stamp_of).collect());
            stamps.map_err(|failure| failure.during(|| format!("stamps of {} tags", tags.len())))
        })
    }

    fn set_many<'a>(
        &'a self,
        entries: &'a [(Key, Vec<u8>)],
        life: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let during =
                |failure: Failure| failure.during(|| format!("set of {} keys", entries.len()));
            let mut rest = entries;
            while !rest.is_empty() {
                let (slice, after) = rest.split_at(slice_len(rest));
                let mut pipeline = Pipeline::with_capacity(slice.len());
                let mut bytes = 0;
                for (key, entry) in slice {
                    pipeline.add_command(set(key, entry, life));
                    bytes += 2 * entry.len();
                }
                let answers = self.ask_all(&pipeline, bytes).await.map_err(during)?;
                answers
                    .into_iter()
                    .try_for_each(|answer| reply::ok(answer).map(drop))
                    .map_err(during)?;
                rest = after;
            }
            Ok(())
        })
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(async move {
            let mut removed = 0;
            for slice in keys.chunks(SLICE) {
                let mut command = redis::cmd("UNLINK");
                for key in slice {
                    command.arg(key.as_str());
                }
                let count = self
                    .ask(&command, slice.len() * USUAL_ENTRY)
                    .await
                    .and_then(reply::count);
                removed += count.map_err(|failure| {
                    failure.during(|| match keys {
                        [key] => format!("delete of `{}`", key.as_str()),
                        _ => format!("delete of {} keys", keys.len()),
                    })
                })?;
            }
            Ok(removed)
        })
    }

    fn delete_if<'a>(
        &'a self,
        key: &'a Key,
        stamp: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let arguments = |command: &mut Cmd| {
                command.arg(stamp);
            };
            self.run(&DELETE_IF, key, arguments, 0)
                .await
                .map(is_one)
                .map_err(|failure| failure.during(|| format!("delete of `{}`", key.as_str())))
        })
    }

    fn delete_dead<'a>(
        &'a self,
        key: &'a Key,
        stamp: [u8; 8],
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let arguments = |command: &mut Cmd| {
                command
                    .arg(&stamp[..])
                    .arg(FRESH_AT)
                    .arg(millis(CLOCK_SKEW));
            };
            self.run(&DELETE_DEAD, key, arguments, 0)
                .await
                .map(is_one)
                .map_err(|failure| {
                    failure.during(|| format!("look for a dead claim at `{}`", key.as_str()))
                })
        })
    }

    fn delete_each<'a>(
        &'a self,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<Vec<Result<bool, Error>>, Error>> {
        Box::pin(async move {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let mut pipeline = Pipeline::with_capacity(keys.len());
            for key in keys {
                pipeline.cmd("UNLINK").arg(key.as_str());
            }
            let answers = self.ask_all(&pipeline, 0).await;
            let answers = answers.map_err(|failure| {
                failure.during(|| format!("delete of {} keys, one by one", keys.len()))
            })?;
            let answer = |(key, answer): (&Key, Value)| {
                let removed = reply::integer(answer).map(is_one);
                removed
                    .map_err(|failure| failure.during(|| format!("delete of `{}`", key.as_str())))
            };
            Ok(keys.iter().zip(answers).map(answer).collect())
        })
    }

    fn delete_entries<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Deleted, Error>> {
        Box::pin(self.delete_found(keys))
    }

    fn scan<'a>(
        &'a self,
        patterns: &'a [Pattern],
        cursor: Cursor,
    ) -> BoxFuture<'a, Result<Scanned, Error>> {
        Box::pin(self.scan_step(patterns, cursor))
    }

    fn peek<'a>(
        &'a self,
        keys: &'a [Key],
        length: usize,
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, Error>> {
        Box::pin(async move {
            let Some(last) = length.checked_sub(1).filter(|_| !keys.is_empty()) else {
                return Ok(vec![None; keys.len()]);
            };
            let mut pipeline = Pipeline::with_capacity(keys.len());
            for key in keys {
                pipeline.cmd("GETRANGE").arg(key.as_str()).arg(0).arg(last);
            }
            let answers = self.ask_all(&pipeline, keys.len() * length).await;
            // Without a key Redis answers with an empty string. A value that is not a string belongs to another program.
            let head = |answer| match answer {
                Value::ServerError(error) if !reply::is_wrong_type(&error) => {
                    Err(Failure::Refused(error))
                }
                Value::BulkString(head) if !head.is_empty() => Ok(Some(head)),
                _ => Ok(None),
            };
            let heads = answers.and_then(|answers| answers.into_iter().map(head).collect());
            heads.map_err(|failure| {
                failure.during(|| match keys {
                    [key] => format!("look at `{}`", key.as_str()),
                    _ => format!("look at {} keys", keys.len()),
                })
            })
        })
    }

    fn measure<'a>(
        &'a self,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<(usize, Duration)>, Error>> {
        Box::pin(async move {
            // STRLEN also rejects values that are not strings. PTTL accepts any type.
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline
                .cmd("STRLEN")
                .arg(key.as_str())
                .cmd("PTTL")
                .arg(key.as_str());
            let measured = self.ask_all(&pipeline, 0).await.and_then(|answers| {
                let numbers: Result<Vec<_>, _> = answers.into_iter().map(reply::integer).collect();
                Ok(numbers?.try_into().unwrap_or([0, -2]))
            });
            let [size, left] = measured
                .map_err(|failure| failure.during(|| format!("ttl of `{}`", key.as_str())))?;
            let left = match left {
                -2 => return Ok(None),
                // Another program removed its expiry.
                -1 => Duration::MAX,
                millis => Duration::from_millis(millis.unsigned_abs()),
            };
            Ok(Some((usize::try_from(size).unwrap_or_default(), left)))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            maintenance::ensure(&self.pool);
            self.pool.probe().await
        })
    }

    fn server(&self) -> BoxFuture<'_, Result<Option<ServerInfo>, Error>> {
        Box::pin(async move {
            let answer = self
                .read(redis::cmd("INFO").arg("default"), USUAL_ENTRY, &[])
                .await
                .and_then(reply::text);
            answer
                .map(|info| Some(reply::server_info(&info)))
                .map_err(|failure| failure.during(|| "info of the server".to_owned()))
        })
    }

    fn scripts(&self) -> Option<&dyn Scripts> {
        Some(self)
    }

    fn term(&self) -> u64 {
        self.pool.term()
    }

    fn admit(&self, term: u64) -> bool {
        self.pool.admit(term)
    }

    fn for_recovery(&self) -> &dyn Store {
        match &self.recovery {
            Some(recovery) => &**recovery,
            None => self,
        }
    }

    fn signals(&self) -> Arc<Signals> {
        Arc::clone(self.pool.signals())
    }

    fn confirmed(&self) -> Instant {
        let now = Instant::now();
        match self.pool.connector().sentinels() {
            Some(sentinels) => sentinels.confirmed().map_or(now, |at| at.min(now)),
            None => now,
        }
    }

    fn last_arrival(&self) -> Option<Instant> {
        let lanes = self.pool.lanes();
        let open = lanes.all().filter(|connection| connection.is_open());
        open.map(|connection| connection.last_arrival()).max()
    }

    fn is_open(&self) -> bool {
        self.pool.lanes().open() > 0
    }

    fn stats(&self) -> StoreStats {
        let (batches, batched_reads) = self.batches.counts();
        StoreStats::Redis(Box::new(PoolStats {
            batches,
            batched_reads,
            ..self.pool.stats()
        }))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.pool.close() })
    }
}

/// `GET` is there because it rejects a value that is not a string. A bare `SET` would replace a list of another program.
fn set(key: &Key, entry: &[u8], life: Duration) -> Cmd {
    let mut command = redis::cmd("SET");
    command
        .arg(key.as_str())
        .arg(entry)
        .arg("GET")
        .arg("PX")
        .arg(millis(life));
    command
}

/// How many of the entries make up one pipeline; at least one.
fn slice_len(entries: &[(Key, Vec<u8>)]) -> usize {
    let mut bytes = 0;
    let fits = |(_, entry): &&(Key, Vec<u8>)| {
        bytes += entry.len();
        bytes <= SLICE_BYTES
    };
    entries.iter().take(SLICE).take_while(fits).count().max(1)
}

/// Redis refuses a TTL of 0.
fn millis(life: Duration) -> u64 {
    whole_millis(life).clamp(1, 1 << 50)
}

fn is_one(number: i64) -> bool {
    number == 1
}
