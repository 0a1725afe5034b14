//! Waits until replicas have what Redis acknowledged, on a connection with nothing else on it: `WAIT` blocks its connection, and a
//! replica that does not answer must not delay anything else.
//!
//! A marker is written behind everything that was acknowledged before. A replica that has the marker has all of it, whichever
//! connection it was sent on. So one marker and one `WAIT` confirm everything that callers did in the meantime.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::pool::Pool;
use super::redis::RedisStore;
use super::reply;
use crate::clock::{hold, whole_millis};
use crate::config::Config;

/// For how long the marker stays: it is only written.
const MARKER_MILLIS: u64 = 1_000;

/// Confirms what the server of a pool has acknowledged.
pub(crate) struct Confirmations {
    pool: Weak<Pool>,
    replicas: u32,
    limit: Duration,
    marker: String,
    /// Counts the calls.
    next: AtomicU64,
    state: Mutex<State>,
}

struct State {
    link: Option<Link>,
    /// The outcome for all calls before this one.
    tried: u64,
    outcome: Result<(), String>,
}

/// A connection to one server. It ends when it is dropped.
struct Link {
    link: MultiplexedConnection,
    term: u64,
    driver: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl RedisStore {
    /// Returns what confirms evictions, if the configuration asks for that. It does not for a cluster.
    pub(crate) fn confirmations(&self, config: &Config) -> Option<Arc<Confirmations>> {
        let replicas = config.evict_durability.replicas()?;
        Some(Arc::new(Confirmations {
            pool: Arc::downgrade(self.connections()?),
            replicas,
            limit: config.command_timeout,
            marker: format!("{}cache:wait", config.prefix),
            next: AtomicU64::new(0),
            state: Mutex::new(State {
                link: None,
                tried: 0,
                outcome: Ok(()),
            }),
        }))
    }
}

impl Confirmations {
    /// Waits until enough replicas have all that the server of `term` acknowledged before this call, for at most one
    /// `command_timeout`. The error says why they do not.
    pub(crate) async fn confirm(self: &Arc<Self>, term: u64) -> Result<(), String> {
        let number = self.next.fetch_add(1, Ordering::AcqRel);
        let this = Arc::clone(self);
        let _real_time = hold(self.limit);
        // In a task of its own, so that a connection that takes longer to open is there for later calls.
        let attempt = tokio::spawn(async move { this.attempt(number, term).await });
        match timeout(self.limit, attempt).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err("the tokio runtime has ended".to_owned()),
            Err(_) => Err(self.too_few(0)),
        }
    }

    async fn attempt(&self, number: u64, term: u64) -> Result<(), String> {
        let mut state = self.state.lock().await;
        // Another call waited in the meantime. So there is at most one wait after the current one, however many calls there are.
        if number >= state.tried {
            // Everything that was acknowledged before is in front of the marker.
            let tried = self.next.load(Ordering::Acquire);
            state.outcome = self.wait(&mut state.link, term).await;
            state.tried = tried;
        }
        state.outcome.clone()
    }

    async fn wait(&self, slot: &mut Option<Link>, term: u64) -> Result<(), String> {
        let pool = self.pool.upgrade().filter(|pool| !pool.is_closed());
        let pool = pool.ok_or("the cache was shut down")?;
        if pool.term() != term {
            return Err("Redis is another server now".to_owned());
        }
        // It is put back only if it can be used again.
        let mut open = match slot.take() {
            Some(link) if link.term == term && !link.driver.is_finished() => link,
            _ => open(&pool, term).await?,
        };
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline
            .cmd("SET")
            .arg(&self.marker)
            .arg("")
            .arg("PX")
            .arg(MARKER_MILLIS);
        pipeline
            .cmd("WAIT")
            .arg(self.replicas)
            .arg(whole_millis(self.limit).max(1));
        let limit = self.limit * 2;
        let answers = timeout(limit, open.link.send_packed_commands(&pipeline, 0, 2)).await;
        let answers = answers
            .map_err(|_| format!("Redis did not answer within {limit:?}"))?
            .map_err(|error| error.to_string())?;
        *slot = Some(open);
        let mut count = 0;
        for answer in answers {
            let answer = reply::ok(answer);
            let answer = answer.map_err(|failure| failure.during(String::new).cause())?;
            // The answer to the marker is no number.
            count = reply::count(answer).unwrap_or_default();
        }
        match count < u64::from(self.replicas) {
            true => Err(self.too_few(count)),
            false => Ok(()),
        }
    }

    fn too_few(&self, count: u64) -> String {
        format!(
            "{count} of {} replicas confirmed it within {:?}",
            self.replicas, self.limit
        )
    }
}

/// Opens a connection to the server that callers use.
async fn open(pool: &Arc<Pool>, term: u64) -> Result<Link, String> {
    let opened = pool
        .connector()
        .open()
        .await
        .map_err(|error| error.to_string())?;
    if pool.term_of(&opened.identity) != Some(term) {
        return Err("the connection leads to another server than those of callers".to_owned());
    }
    Ok(Link {
        link: opened.link,
        term,
        driver: tokio::spawn(opened.driver).abort_handle(),
    })
}
