//! Readers and writers of one process, and how they are paused.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::arguments::{Entries, Mode};
use crate::dice::Dice;
use crate::ledger::Ledger;
use crate::report::SHOWN;
use crate::service::{KEYS, Service};
use crate::waits::{Call, Kind, Watch};

/// The readers and writers of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crew {
    pub(crate) readers: u64,
    pub(crate) writers: u64,
    /// The longest pauses of a reader and of a writer between two calls, in milliseconds.
    pub(crate) pauses: (u64, u64),
    pub(crate) mode: Mode,
    pub(crate) entries: Entries,
    /// This process may be killed between a commit and its eviction, so it uses only operations with a fence.
    pub(crate) may_die: bool,
    pub(crate) seed: u64,
}

/// Tasks that read and write until they are stopped.
pub(crate) struct Hammer {
    pub(crate) tally: Arc<Tally>,
    tasks: JoinSet<()>,
}

/// The counts of all tasks.
pub(crate) struct Tally {
    pub(crate) watch: Watch,
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    /// Calls that returned an error although their own body did not.
    pub(crate) failed: AtomicU64,
    pub(crate) bodies_failed: AtomicU64,
    /// Reads that returned an older version than an eviction or a put of this process had acknowledged before they began.
    pub(crate) outdated: AtomicU64,
    /// The age of the oldest answer, in nanoseconds: how long before the call any process had applied a later eviction.
    pub(crate) oldest: AtomicU64,
    /// Answers that were older than [`Self::bound`].
    pub(crate) too_old: AtomicU64,
    pub(crate) bound: Duration,
    complaints: Mutex<Vec<String>>,
    stop: AtomicBool,
    /// Calls hold it for reading. A pause holds it for writing.
    gate: Arc<RwLock<()>>,
    /// For each key, the latest version whose write, including its eviction, has returned.
    acknowledged: Vec<AtomicU64>,
}

impl Hammer {
    pub(crate) fn start(service: &Service, crew: Crew) -> Self {
        let tally = Arc::new(Tally {
            watch: Watch::new(service.cache.config().clone()),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bodies_failed: AtomicU64::new(0),
            outdated: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            too_old: AtomicU64::new(0),
            bound: bound(service, crew.entries),
            complaints: Mutex::default(),
            stop: AtomicBool::new(false),
            gate: Arc::default(),
            acknowledged: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
        });
        let mut tasks = JoinSet::new();
        let ticking = Arc::clone(&tally);
        tasks.spawn(async move { ticking.watch.tick().await });
        for task in 0..crew.readers + crew.writers {
            let dice = Dice::new(crew.seed.wrapping_mul(31).wrapping_add(task));
            let (service, tally) = (service.clone(), Arc::clone(&tally));
            if task < crew.readers {
                tasks.spawn(reader(service, tally, dice, crew));
            } else {
                tasks.spawn(writer(service, tally, dice, crew));
            }
        }
        Self { tally, tasks }
    }

    /// Waits until no call runs. No call begins until the guard is dropped.
    pub(crate) async fn rest(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.tally.gate).write_owned().await
    }

    /// Waits for a task to end. A task ends only by a panic.
    pub(crate) async fn panic(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Err(error)) => error.into(),
            Some(Ok(())) | None => anyhow!("a task ended early"),
        }
    }

    /// Waits for running calls and stops all tasks.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.tally.stop.store(true, Ordering::Relaxed);
        drop(self.rest().await);
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                return Err(error.into());
            }
        }
        Ok(())
    }
}

impl Tally {
    /// Returns descriptions of the first errors.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn complain(&self, what: String) {
        let mut complaints = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if complaints.len() < SHOWN {
            complaints.push(what);
        }
    }

    fn acknowledged(&self, id: u64) -> &AtomicU64 {
        &self.acknowledged[id as usize]
    }

    /// Records the age of an answer.
    fn date(&self, id: u64, version: u64, age: Result<Duration>) {
        let age = match age {
            Ok(age) => age,
            Err(error) => return self.complain(format!("the ledger cannot be read: {error:#}")),
        };
        let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        self.oldest.fetch_max(nanos, Ordering::Relaxed);
        if age > self.bound {
            self.too_old.fetch_add(1, Ordering::Relaxed);
            self.complain(format!(
                "a read of {id} returned version {version}, which was evicted {age:.1?} before"
            ));
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Records the end of a call. Returns what it returned, unless it failed.
    fn over<T>(&self, call: &Call, id: u64, returned: Result<T>) -> Option<T> {
        self.watch.over(call);
        if call.is_body_failed() {
            self.bodies_failed.fetch_add(1, Ordering::Relaxed);
        }
        returned
            .inspect_err(|error| {
                if !call.is_body_failed() {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                }
                self.complain(format!("{:?} of {id} failed: {error:#}", call.kind));
            })
            .ok()
    }
}

async fn reader(service: Service, tally: Arc<Tally>, mut dice: Dice, crew: Crew) {
    while !tally.is_stopped() {
        let going = tally.gate.read().await;
        let id = dice.key();
        let at_least = tally.acknowledged(id).load(Ordering::SeqCst);
        let began = Ledger::now();
        let call = Arc::new(Call::begin(Kind::Read, dawdle(&mut dice)));
        let returned = service.get(id, &call).await;
        if let Some(row) = tally.over(&call, id, returned) {
            tally.reads.fetch_add(1, Ordering::Relaxed);
            let version = row.version as u64;
            tally.date(id, version, service.ledger.age(id, version, began));
            if version < at_least {
                tally.outdated.fetch_add(1, Ordering::Relaxed);
                tally.complain(format!(
                    "a read of {id} returned version {version} after {at_least} had been acknowledged"
                ));
            }
        }
        drop(going);
        idle(dice.below(crew.pauses.0 + 1)).await;
    }
}

async fn writer(service: Service, tally: Arc<Tally>, mut dice: Dice, crew: Crew) {
    while !tally.is_stopped() {
        let going = tally.gate.read().await;
        let id = dice.key();
        let kind = kind(crew, &mut dice);
        let is_dated = crew.entries != Entries::default() && kind != Kind::Put && dice.below(4) > 0;
        let call = Call::begin(kind, dawdle(&mut dice));
        let returned = if is_dated {
            service.change_and_record(id, &call).await
        } else {
            service.change(id, &call).await
        };
        if let Some(row) = tally.over(&call, id, returned) {
            tally.writes.fetch_add(1, Ordering::Relaxed);
            tally
                .acknowledged(id)
                .fetch_max(row.version as u64, Ordering::SeqCst);
        }
        drop(going);
        idle(dice.below(crew.pauses.1 + 1)).await;
    }
}

/// Returns how old an answer may be: values in a process are as old as its knowledge may be, and one operation.
fn bound(service: &Service, entries: Entries) -> Duration {
    let config = service.cache.config();
    if entries.local {
        config.local_staleness + config.command_timeout
    } else {
        Duration::MAX
    }
}

fn kind(crew: Crew, dice: &mut Dice) -> Kind {
    let kinds: &[Kind] = match (crew.mode, crew.may_die) {
        (Mode::Key, false) if crew.entries.tagged => &[Kind::EvictTag, Kind::EvictTagFenced],
        (Mode::Key, true) if crew.entries.tagged => &[Kind::EvictTagFenced],
        (Mode::Mixed, true) if crew.entries.tagged => {
            &[Kind::EvictFenced, Kind::EvictTagFenced, Kind::Put]
        }
        (Mode::Mixed, false) if crew.entries.tagged => &[
            Kind::Evict,
            Kind::EvictMatching,
            Kind::EvictTag,
            Kind::EvictTagFenced,
            Kind::Put,
        ],
        (Mode::Key, false) => &[Kind::Evict, Kind::EvictFenced],
        (Mode::Key, true) => &[Kind::EvictFenced],
        (Mode::Pattern, _) => &[Kind::EvictMatching],
        (Mode::Put, _) => &[Kind::Put],
        (Mode::Mixed, true) => &[Kind::EvictFenced, Kind::Put],
        (Mode::Mixed, false) => &[
            Kind::Evict,
            Kind::EvictFenced,
            Kind::EvictMatching,
            Kind::Put,
        ],
    };
    kinds[dice.below(kinds.len() as u64) as usize]
}

/// Returns how long a body works between the table and its return: up to 3 ms.
fn dawdle(dice: &mut Dice) -> Duration {
    dice.millis(4)
}

async fn idle(millis: u64) {
    if millis > 0 {
        sleep(Duration::from_millis(millis)).await;
    }
}
