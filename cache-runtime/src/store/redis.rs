//! Entries in Redis 7 or newer (`SET` with both `NX` and `GET`): commands and scripts, blind to where the servers are.

mod scan;
mod scripts;

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use self::scripts::{CAPTURE, DELETE_DEAD, DELETE_IF, FENCE, REFRESH, REPLACE};
use super::cluster::{Cluster, Errand};
use super::connection::Server;
use super::listener::{Listener, Tracking};
use super::maintenance;
use super::peer::{self, Peer, USUAL_ENTRY};
use super::pool::{Access, Pool};
use super::reply::{self, Failure};
use super::script::Scripts;
use super::{
    BoxFuture, Cursor, Deleted, Found, Mark, Moves, NodeHealth, Refreshing, Replaced, Scanned,
    ServerInfo, Signals, Store, Walk, Walked,
};
use crate::clock::whole_millis;
use crate::config::{Config, Topology};
use crate::entry::{self, CLOCK_SKEW, Entry, FENCE_COUNT_AT, FRESH_AT, HEAD, REFRESH_AT, START};
use crate::error::Error;
use crate::key::{Key, Pattern};
use crate::metrics::StoreStats;
use crate::tag::Tag;

/// Commands in one pipeline: enough to be cheap, few enough that others are not held up.
const SLICE: usize = 500;
/// Bytes in one pipeline, for the same reason.
const SLICE_BYTES: usize = 1 << 20;

/// Keeps entries in Redis: in one server, or in a cluster.
#[derive(Debug)]
pub(crate) struct RedisStore {
    route: Route,
    /// The same for recovery; `None` in that one.
    recovery: Option<Box<Self>>,
}

/// Where commands go.
#[derive(Debug)]
enum Route {
    Server(Peer),
    Cluster(Arc<Cluster>, Access),
}

impl Route {
    fn with(&self, access: Access) -> Self {
        match self {
            Self::Server(peer) => Self::Server(peer.with(access)),
            Self::Cluster(cluster, _) => Self::Cluster(Arc::clone(cluster), access),
        }
    }
}

impl RedisStore {
    /// Does not connect. The first [`probe`](Store::probe) connects, on its own runtime.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let route = match &config.redis {
            Some(Topology::Cluster { .. }) => Route::Cluster(Cluster::new(config)?, Access::Caller),
            _ => Route::Server(Peer::new(Pool::new(config)?, config)),
        };
        let recovery = Self {
            route: route.with(Access::Recovery),
            recovery: None,
        };
        Ok(Self {
            route,
            recovery: Some(Box::new(recovery)),
        })
    }

    /// [`Store::find`], for a caller that has a box already.
    pub(crate) async fn lookup(
        &self,
        key: &Key,
        tags: &[Tag],
        expected: usize,
    ) -> Result<Found, Error> {
        let answer = match &self.route {
            Route::Server(peer) => peer.lookup(key, tags, expected).await,
            Route::Cluster(cluster, access) => {
                Box::pin(cluster.lookup(key, tags, expected, *access)).await
            }
        };
        answer.map_err(|failure| failure.during(|| format!("get of `{}`", key.as_str())))
    }

    /// The connections to the only server; [`None`] in a cluster.
    pub(super) fn connections(&self) -> Option<&Arc<Pool>> {
        match &self.route {
            Route::Server(peer) => Some(&peer.pool),
            Route::Cluster(..) => None,
        }
    }

    /// Tells `moves` of all keys that move from one server to another.
    pub(crate) fn tell(&self, moves: Weak<dyn Moves>) {
        if let Route::Cluster(cluster, _) = &self.route {
            cluster.tell(moves);
        }
    }

    /// Returns a task that hears the changes of wanted keys, from each server that keeps some of them.
    pub(crate) fn listen(
        &self,
        config: &Config,
        tracking: Tracking,
    ) -> Result<BoxFuture<'static, ()>, Error> {
        match &self.route {
            Route::Server(peer) => {
                let feed = Arc::new(tracking.doubts.feed());
                let listener = Listener::new(&peer.pool, config, &tracking, feed, None)?;
                Ok(Box::pin(listener.run()))
            }
            Route::Cluster(cluster, _) => Ok(Box::pin(cluster.listen(tracking))),
        }
    }

    async fn ask(&self, command: &Cmd, bytes: usize) -> Result<Value, Failure> {
        match &self.route {
            Route::Server(peer) => peer.ask(command, bytes).await,
            Route::Cluster(cluster, access) => {
                cluster.ask(Errand::new(command, bytes, *access)).await
            }
        }
    }

    /// Sends commands as one batch. In a cluster, that is one batch for each node.
    async fn ask_all(&self, commands: &Pipeline, bytes: usize) -> Result<Vec<Value>, Failure> {
        match &self.route {
            Route::Server(peer) => peer.ask_all(commands, bytes).await,
            Route::Cluster(cluster, access) => {
                let answers = Box::pin(cluster.ask_each(commands, bytes, *access)).await;
                answers.into_iter().collect()
            }
        }
    }

    /// The same with an answer for each command, because the nodes of a cluster fail one by one.
    async fn ask_each(
        &self,
        commands: &Pipeline,
        bytes: usize,
    ) -> Result<Vec<Result<Value, Failure>>, Failure> {
        match &self.route {
            Route::Server(peer) => {
                let answers = peer.ask_all(commands, bytes).await?;
                Ok(answers.into_iter().map(Ok).collect())
            }
            Route::Cluster(cluster, access) => {
                Ok(Box::pin(cluster.ask_each(commands, bytes, *access)).await)
            }
        }
    }

    /// For a command that may run twice, such as one that changes nothing.
    async fn read(&self, command: &Cmd, bytes: usize) -> Result<Value, Failure> {
        match &self.route {
            Route::Server(peer) => peer.read(command, bytes, &[]).await,
            Route::Cluster(cluster, access) => {
                let errand = Errand::new(command, bytes, *access);
                cluster.ask(errand.repeatable()).await
            }
        }
    }

    /// Returns the server of a key, if any was reached.
    pub(super) fn server_of(&self, key: &Key) -> Option<Arc<Server>> {
        match &self.route {
            Route::Server(peer) => peer.pool.server(),
            Route::Cluster(cluster, _) => cluster.server_of(key),
        }
    }

    /// Returns whether `claim` was there and `entry` took its place.
    async fn compare_and_set(
        &self,
        key: &Key,
        claim: &Entry,
        entry: &[u8],
        life: Duration,
    ) -> Result<bool, Failure> {
        let mut command = redis::cmd("SET");
        command
            .arg(key.as_str())
            .arg(entry)
            .arg("IFEQ")
            .arg(claim.as_bytes())
            .arg("PX")
            .arg(millis(life));
        let answer = self.ask(&command, entry.len()).await.and_then(reply::ok)?;
        Ok(answer != Value::Nil)
    }

    async fn fetch_each(&self, keys: &[Key], bytes: usize) -> Result<Vec<Value>, Failure> {
        match &self.route {
            Route::Server(peer) => peer.fetch_each(keys, bytes).await,
            Route::Cluster(..) => self.ask_all(&peer::each("GET", keys), bytes).await,
        }
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
                let found = self.fetch_each(slice, slice.len() * USUAL_ENTRY).await;
                let found = found.and_then(|found| {
                    let found = found.into_iter().map(reply::string);
                    found.collect::<Result<Vec<_>, _>>()
                });
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

    /// `SET` with `IFEQ` where the server has it: the entry does not pass through Lua, so for 2 KB it takes a ninth of the server's
    /// time (`cargo bench -p tests --bench fill`). A claim that it does not find may have been renewed, so the script looks for the
    /// stamp then.
    fn fill<'a>(
        &'a self,
        key: &'a Key,
        claim: &'a Entry,
        entry: &'a [u8],
        life: Duration,
    ) -> BoxFuture<'a, Result<Replaced, Error>> {
        Box::pin(async move {
            if let Some(server) = self.server_of(key).filter(|server| server.compares()) {
                match self.compare_and_set(key, claim, entry, life).await {
                    Ok(true) => return Ok(Replaced::Done),
                    Ok(false) => {}
                    Err(Failure::Refused(error)) if reply::is_unknown(&error) => {
                        // Its version has it, and a proxy or another program with the same protocol does not.
                        server.set_compares(false);
                    }
                    Err(failure) => {
                        return Err(failure.during(|| format!("fill of `{}`", key.as_str())));
                    }
                }
            }
            self.replace(key, claim.stamp(), entry, life).await
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
            let stamp_of = |answer| {
                let record = reply::string(answer)?;
                Ok(record.as_deref().and_then(entry::stamp_in))
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
                let count = match &self.route {
                    Route::Cluster(..) => {
                        let answers = self.ask_all(&peer::each("UNLINK", slice), 0).await;
                        answers.and_then(|answers| answers.into_iter().map(reply::count).sum())
                    }
                    Route::Server(peer) => {
                        let mut command = redis::cmd("UNLINK");
                        for key in slice {
                            command.arg(key.as_str());
                        }
                        let bytes = slice.len() * USUAL_ENTRY;
                        peer.ask(&command, bytes).await.and_then(reply::count)
                    }
                };
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
            let answers = self.ask_each(&peer::each("UNLINK", keys), 0).await;
            let answers = answers.map_err(|failure| {
                failure.during(|| format!("delete of {} keys, one by one", keys.len()))
            })?;
            let answer = |(key, answer): (&Key, Result<Value, Failure>)| {
                let removed = answer.and_then(reply::integer).map(is_one);
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

    fn walk<'a>(
        &'a self,
        patterns: &'a [Pattern],
        walk: &'a Walk,
    ) -> BoxFuture<'a, Result<Walked, Error>> {
        Box::pin(async move {
            match &self.route {
                Route::Server(_) => {
                    let scanned = self.scan_step(patterns, walk.cursor).await?;
                    Ok(walk.step(scanned))
                }
                Route::Cluster(cluster, access) => {
                    let walked = cluster.walk(patterns, walk, *access).await;
                    walked.map_err(|failure| scan::during(failure, patterns))
                }
            }
        })
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
        match &self.route {
            Route::Server(Peer { pool, .. }) => Box::pin(async {
                maintenance::ensure(pool);
                pool.probe().await
            }),
            Route::Cluster(cluster, _) => Box::pin(cluster.probe()),
        }
    }

    fn server(&self) -> BoxFuture<'_, Result<Option<ServerInfo>, Error>> {
        Box::pin(async move {
            let info = match &self.route {
                Route::Server(peer) => peer.info().await,
                Route::Cluster(cluster, access) => cluster.info(*access).await,
            };
            info.map(Some)
                .map_err(|failure| failure.during(|| "info of the server".to_owned()))
        })
    }

    fn scripts(&self) -> Option<&dyn Scripts> {
        Some(self)
    }

    fn term(&self) -> u64 {
        match &self.route {
            Route::Server(Peer { pool, .. }) => pool.term(),
            Route::Cluster(cluster, _) => cluster.term(),
        }
    }

    fn admit(&self, term: u64) -> bool {
        match &self.route {
            Route::Server(Peer { pool, .. }) => pool.admit(term),
            Route::Cluster(cluster, _) => cluster.admit(term),
        }
    }

    fn reopened(&self) -> u64 {
        match &self.route {
            Route::Server(_) => 0,
            Route::Cluster(cluster, _) => cluster.reopened(),
        }
    }

    fn nodes(&self) -> Vec<NodeHealth> {
        match &self.route {
            Route::Server(_) => Vec::new(),
            Route::Cluster(cluster, _) => cluster.health(),
        }
    }

    fn problems(&self) -> Vec<String> {
        match &self.route {
            Route::Server(_) => Vec::new(),
            Route::Cluster(cluster, _) => cluster.problems(),
        }
    }

    fn for_recovery(&self) -> &dyn Store {
        match &self.recovery {
            Some(recovery) => &**recovery,
            None => self,
        }
    }

    fn signals(&self) -> Arc<Signals> {
        Arc::clone(match &self.route {
            Route::Server(Peer { pool, .. }) => pool.signals(),
            Route::Cluster(cluster, _) => cluster.signals(),
        })
    }

    fn confirmed(&self) -> Instant {
        let now = Instant::now();
        let confirmed = match &self.route {
            Route::Server(Peer { pool, .. }) => pool.confirmed(),
            Route::Cluster(cluster, _) => cluster.confirmed(),
        };
        confirmed.map_or(now, |at| at.min(now))
    }

    fn last_arrival(&self) -> Option<Instant> {
        match &self.route {
            Route::Server(Peer { pool, .. }) => pool.last_arrival(),
            Route::Cluster(cluster, _) => cluster.last_arrival(),
        }
    }

    fn is_open(&self) -> bool {
        match &self.route {
            Route::Server(Peer { pool, .. }) => pool.is_open(),
            Route::Cluster(cluster, _) => cluster.is_open(),
        }
    }

    fn stats(&self) -> StoreStats {
        StoreStats::Redis(Box::new(match &self.route {
            Route::Server(peer) => peer.stats(),
            Route::Cluster(cluster, _) => cluster.stats(),
        }))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match &self.route {
                Route::Server(Peer { pool, .. }) => pool.close(),
                Route::Cluster(cluster, _) => cluster.close(),
            }
        })
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
