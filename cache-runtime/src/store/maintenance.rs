//! The pool's background task: opens, asks, closes and watches connections.
//!
//! It sleeps while nothing happens. The first command after a pause wakes it, and from then on it looks at the load at short
//! intervals until there has been none for a while.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::connection::Connection;
use super::pool::{Lane, Pool};
use super::{backoff, watch};
use crate::clock::hold;
use crate::singleton::Running;
use crate::sync::Mutex;

/// If utilisation stays above this for `BUSY_FOR`, the pool is nearly full. The warning comes before it is full.
const BUSY: f64 = 0.80;
/// Below it the warning is over; the gap keeps a load near the edge from warning again and again.
const CALM: f64 = 0.70;
const BUSY_FOR: Duration = Duration::from_secs(5);
/// The number of quiet checks until the watch ends. Ending it at once would wake the maintenance task for every single
/// command of a slow caller.
const QUIET_LOOKS: u32 = 20;
/// Checks per time that an answer may take: a silent connection is found after one and a half of that time.
const LOOKS_PER_ANSWER: u32 = 2;

/// Starts the task, unless it runs. It ends with the pool.
pub(super) fn ensure(pool: &Arc<Pool>) {
    if pool.is_closed() {
        return;
    }
    pool.maintenance.start(|running| {
        watch::start(pool);
        run(running, Arc::downgrade(pool), Maintenance::new(pool))
    });
}

async fn run(_running: Running, pool: Weak<Pool>, mut maintenance: Maintenance) {
    loop {
        let (wake, next) = match pool.upgrade() {
            Some(pool) if !pool.is_closed() => (
                Arc::clone(&pool.wake_maintenance),
                maintenance.pass(&pool, Instant::now()),
            ),
            _ => return,
        };
        // A pass that ended after its own next one is no late timer.
        let due = next.max(Instant::now());
        tokio::select! {
            () = wake.notified() => {}
            () = sleep_until(due) => {}
        }
        // If both are ready, either is chosen.
        let Some(lag) = Instant::now().checked_duration_since(due) else {
            continue;
        };
        let Some(pool) = pool.upgrade() else { return };
        pool.lag.record(lag);
    }
}

/// What the task remembers from one pass to the next.
struct Maintenance {
    look: Duration,
    next_look: Option<Instant>,
    quiet_looks: u32,
    seen: HashMap<u64, Seen>,
    busy_since: Option<Instant>,
    warned: bool,
    failures: Arc<Mutex<Failures>>,
}

/// What is known of one connection.
struct Seen {
    progress: u64,
    answers: u64,
    silent_looks: u32,
    unused_since: Instant,
    next_ping: Instant,
}

/// The number of failed attempts in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    wait_until: Option<Instant>,
}

impl Maintenance {
    fn new(pool: &Pool) -> Self {
        let look = (pool.limits.answer / LOOKS_PER_ANSWER)
            .clamp(Duration::from_millis(5), Duration::from_secs(1));
        Self {
            look,
            next_look: None,
            quiet_looks: 0,
            seen: HashMap::new(),
            busy_since: None,
            warned: false,
            failures: Arc::default(),
        }
    }

    /// Does what is due. Returns when to run again.
    fn pass(&mut self, pool: &Arc<Pool>, now: Instant) -> Instant {
        pool.sweep();
        let connections: Vec<_> = pool.lanes().all().cloned().collect();
        self.seen
            .retain(|id, _| connections.iter().any(|connection| connection.id == *id));
        for connection in &connections {
            self.seen.entry(connection.id).or_insert_with(|| Seen {
                progress: connection.progress(),
                answers: connection.answers(),
                silent_looks: 0,
                unused_since: now,
                next_ping: now + pool.limits.health,
            });
        }
        self.watch(pool, &connections, now);
        self.ask(pool, &connections, now);
        self.close_unused(pool, &connections, now);
        pool.sweep();
        self.grow(pool, now);
        self.next(pool, now)
    }

    /// Checks the load, if a check is due.
    fn watch(&mut self, pool: &Pool, connections: &[Arc<Connection>], now: Instant) {
        if !pool.watched.load(Ordering::SeqCst) {
            self.next_look = None;
            return;
        }
        if self.next_look.is_some_and(|due| now < due) {
            return;
        }
        self.next_look = Some(now + self.look);
        let mut owed = false;
        for connection in connections {
            owed |= connection.is_owed();
            self.look_at(pool, connection, now);
        }
        self.judge_utilisation(pool.utilisation(), now);
        self.quiet_looks = if owed { 0 } else { self.quiet_looks + 1 };
        if self.quiet_looks > QUIET_LOOKS {
            self.quiet_looks = 0;
            self.next_look = None;
            pool.crowded.store(false, Ordering::Relaxed);
            pool.watched.store(false, Ordering::SeqCst);
            // A command that began just before the flag was cleared did not wake the task.
            if connections.iter().any(|connection| connection.is_owed()) {
                pool.watched.store(true, Ordering::SeqCst);
                self.next_look = Some(now + self.look);
            }
        }
    }

    /// Closes a connection that owes an answer and was silent for as long as an answer may take. Time is counted in checks
    /// and not by the clock: if this whole process was suspended, the connections had no chance to answer.
    fn look_at(&mut self, pool: &Pool, connection: &Arc<Connection>, now: Instant) {
        let Some(seen) = self.seen.get_mut(&connection.id) else {
            return;
        };
        if let Some(waited) = connection.wait_before_sending() {
            pool.send_wait.record(waited);
        }
        let (progress, answers) = (connection.progress(), connection.answers());
        if answers == seen.answers && connection.is_owed() {
            connection.be_late();
        }
        if answers != seen.answers || connection.load().commands > 0 {
            seen.answers = answers;
            seen.unused_since = now;
        }
        if progress != seen.progress || !connection.is_owed() {
            seen.progress = progress;
            seen.silent_looks = 0;
            return;
        }
        seen.silent_looks += 1;
        let is_bulk = pool
            .lanes()
            .bulk
            .as_ref()
            .is_some_and(|bulk| bulk.id == connection.id);
        // Commands on the bulk connection are large, and their callers expect that.
        let patience = if is_bulk {
            LOOKS_PER_ANSWER * 10
        } else {
            LOOKS_PER_ANSWER
        };
        if seen.silent_looks > patience {
            connection.lose(format!("no reply for {:?}", self.look * patience));
        } else if connection.is_in_doubt() {
            ask(connection, pool.limits.answer);
        }
    }

    /// Warns once when the pool has been nearly full for a while, and logs when that is over.
    fn judge_utilisation(&mut self, utilisation: f64, now: Instant) {
        if utilisation < CALM {
            self.busy_since = None;
            if std::mem::take(&mut self.warned) {
                info!(
                    utilisation,
                    "the Redis connections have spare capacity again"
                );
            }
        } else if utilisation > BUSY {
            let since = *self.busy_since.get_or_insert(now);
            if !self.warned && now - since >= BUSY_FOR {
                self.warned = true;
                warn!(
                    utilisation,
                    "the Redis connections are nearly full; raise `CACHE_POOL_MAX` or spread the load"
                );
            }
        } else if !self.warned {
            self.busy_since = None;
        }
    }

    /// Sends the pings that are due.
    fn ask(&mut self, pool: &Pool, connections: &[Arc<Connection>], now: Instant) {
        for connection in connections {
            let Some(seen) = self.seen.get_mut(&connection.id) else {
                continue;
            };
            if now >= seen.next_ping {
                seen.next_ping = now + pool.limits.health;
                ask(connection, pool.limits.answer);
                // The watchdog ends a silent connection.
                pool.watched.store(true, Ordering::SeqCst);
                self.next_look.get_or_insert(now + self.look);
            }
        }
    }

    /// Closes idle connections, the highest first, down to the minimum.
    fn close_unused(&mut self, pool: &Pool, connections: &[Arc<Connection>], now: Instant) {
        let mut open = connections
            .iter()
            .filter(|connection| connection.is_open())
            .count();
        for connection in connections.iter().rev() {
            let Some(seen) = self.seen.get_mut(&connection.id) else {
                continue;
            };
            if connection.answers() != seen.answers {
                seen.answers = connection.answers();
                seen.unused_since = now;
            }
            let unused = now.saturating_duration_since(seen.unused_since);
            if open <= pool.limits.min
                || unused < pool.limits.idle
                || connection.load().commands > 0
            {
                continue;
            }
            pool.change(|lanes| {
                lanes.data.retain(|other| other.id != connection.id);
                lanes.bulk.take_if(|other| other.id == connection.id);
            });
            open -= 1;
            info!(
                id = connection.id,
                ?unused,
                open,
                "closed an idle connection to Redis"
            );
        }
    }

    /// Opens one more connection if one is missing. If none is open, the probe opens it.
    fn grow(&mut self, pool: &Arc<Pool>, now: Instant) {
        let Some(lane) = missing(pool) else { return };
        let waits = self
            .failures
            .lock()
            .wait_until
            .is_some_and(|until| now < until);
        if waits || pool.is_connecting() {
            return;
        }
        let failures = self.failures.clone();
        let longest = pool.limits.longest_pause;
        let wake = pool.wake_maintenance.clone();
        match lane {
            Lane::Data => pool.crowded.store(false, Ordering::Relaxed),
            Lane::Bulk => pool.bulk_wanted.store(false, Ordering::Relaxed),
        }
        let opening = pool.open(lane);
        tokio::spawn(async move {
            match opening.await {
                Ok(()) => *failures.lock() = Failures::default(),
                Err(error) => {
                    let mut failures = failures.lock();
                    failures.count += 1;
                    failures.wait_until =
                        Some(Instant::now() + backoff::pause(failures.count, longest));
                    let error = with_cause(&error);
                    if failures.count == 1 {
                        warn!(error, "could not open another connection to Redis");
                    } else {
                        debug!(error, "could not open another connection to Redis");
                    }
                }
            }
            wake.notify_one();
        });
    }

    fn next(&self, pool: &Pool, now: Instant) -> Instant {
        let lanes = pool.lanes();
        let open = lanes.open();
        drop(lanes);
        let pings = self.seen.values().map(|seen| seen.next_ping);
        let closings = self
            .seen
            .values()
            .map(|seen| seen.unused_since + pool.limits.idle);
        let closings = closings.filter(|due| open > pool.limits.min && *due > now);
        let retry = self.failures.lock().wait_until.filter(|due| *due > now);
        pings
            .chain(closings)
            .chain(retry)
            .chain(self.next_look)
            .min()
            .unwrap_or(now + pool.limits.health)
    }
}

fn missing(pool: &Pool) -> Option<Lane> {
    let lanes = pool.lanes();
    let open = lanes.open();
    if open == 0 || open >= pool.limits.max {
        return None;
    }
    if pool.bulk_wanted.load(Ordering::Relaxed) && lanes.bulk.is_none() {
        return Some(Lane::Bulk);
    }
    (lanes.data.is_empty() || open < pool.limits.min || pool.crowded.load(Ordering::Relaxed))
        .then_some(Lane::Data)
}

/// Pings in a separate task. The watchdog handles a missing answer.
fn ask(connection: &Arc<Connection>, patience: Duration) {
    let connection = connection.clone();
    tokio::spawn(async move {
        let _real_time = hold(patience);
        connection.ping().await;
    });
}

fn with_cause(error: &crate::error::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Address, Config, Topology};

    #[test]
    fn high_utilisation_is_logged_once_if_it_lasts() {
        let mut maintenance = keeper();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);

        maintenance.judge_utilisation(0.81, at(0));
        maintenance.judge_utilisation(0.75, at(3));
        maintenance.judge_utilisation(0.81, at(4));
        maintenance.judge_utilisation(0.81, at(8));
        assert!(!maintenance.warned);
        maintenance.judge_utilisation(0.81, at(9));
        assert!(maintenance.warned);
        maintenance.judge_utilisation(0.71, at(10));
        assert!(maintenance.warned);
        maintenance.judge_utilisation(0.69, at(11));

        assert!(!maintenance.warned);
    }

    fn keeper() -> Maintenance {
        let redis = Some(Topology::Standalone(Address::Tcp("localhost".into(), 1)));
        Maintenance::new(
            &Pool::new(&Config {
                redis,
                ..Config::default()
            })
            .unwrap(),
        )
    }
}
