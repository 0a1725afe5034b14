//! The rows of the storm, and the versions that a caller may see.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::whim::Whim;

pub(super) const GROUPS: usize = 5;
pub(super) const ROWS_OF_A_GROUP: usize = 10;

/// A cached value. It contains its own key, so that a caller notices the value of another key.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) version: u64,
    pub(super) text: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed;

/// The position of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) group: usize,
    pub(super) id: usize,
}

impl Place {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..GROUPS).flat_map(Self::of_group)
    }

    pub(super) fn of_group(group: usize) -> [Self; ROWS_OF_A_GROUP] {
        std::array::from_fn(|id| Self { group, id })
    }

    pub(super) fn any(whim: &mut Whim) -> Self {
        Self {
            group: whim.below(GROUPS),
            id: whim.below(ROWS_OF_A_GROUP),
        }
    }

    pub(super) fn next(self) -> Self {
        Self {
            id: (self.id + 1) % ROWS_OF_A_GROUP,
            ..self
        }
    }

    pub(super) fn index(self) -> usize {
        self.group * ROWS_OF_A_GROUP + self.id
    }

    /// From 1 byte to 100,000 bytes. Only two rows are that long, because they take most of the time.
    pub(super) fn text_bytes(self) -> usize {
        match self.index() {
            0 | 25 => 100_000,
            index => 10_usize.pow((index % 5) as u32),
        }
    }

    pub(super) fn key(self) -> String {
        format!("row:{}:{}", self.group, self.id)
    }

    /// Returns whether its entry always has the tag [`name`](Self::name).
    pub(super) fn is_named(self) -> bool {
        self.id < 3
    }

    /// The key with the prefix of the caches.
    pub(super) fn redis_key(self) -> String {
        format!("test_{}", self.key())
    }

    /// The tag over the returned value.
    pub(super) fn name(self) -> String {
        cache_runtime::key!("name:<key>", key = self.key())
    }

    /// The key of a value that is set by hand and is not in the database.
    pub(super) fn notes_key(self) -> String {
        format!("notes:{}:{}", self.group, self.id)
    }
}

/// Rows whose version changes and whose text does not.
pub(super) struct Database {
    /// The version of the latest write to any row.
    latest: AtomicU64,
    written: Vec<AtomicU64>,
    acknowledged: Vec<Mutex<Acknowledged>>,
    texts: Vec<String>,
    /// How long a process may see an older version after the eviction in another process has returned.
    bound: Duration,
    peace: RwLock<Peace>,
}

/// When the servers are not disturbed.
#[derive(Clone, Copy, Debug)]
struct Peace {
    /// The number of disturbances that have begun.
    disturbances: u64,
    /// When the last disturbance ended. [`None`] during a disturbance.
    since: Option<Instant>,
}

/// The versions that a call must see at least.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The latest that its own process has evicted.
    own: u64,
    /// The latest that any process has evicted. It holds if the call is not disturbed: a replica that is promoted may lack
    /// evictions of the other process until that process applies them again. And while a primary is not used, an eviction
    /// waits in the journal of its process, and calls of the other process share loads that began before it.
    of_any: u64,
    /// How many disturbances had begun before the call. [`None`] if it began during one.
    disturbances: Option<u64>,
}

/// The versions of a row whose evictions have returned to their writers.
#[derive(Default)]
struct Acknowledged {
    /// For each process, the latest of its own. Later callers in this process must not see an older version.
    own: [u64; 2],
    /// Those of all processes that were the latest, and when they were acknowledged.
    of_any: VecDeque<(Instant, u64)>,
}

impl Database {
    pub(super) fn new(bound: Duration) -> Self {
        // Random letters that do not compress well.
        let mut whim = Whim::of(0);
        let mut letter = |_| char::from(b'a' + whim.below(26) as u8);
        Self {
            latest: AtomicU64::new(0),
            written: Place::all().map(|_| AtomicU64::new(0)).collect(),
            acknowledged: Place::all().map(|_| Mutex::default()).collect(),
            texts: Place::all()
                .map(|row| (0..row.text_bytes()).map(&mut letter).collect())
                .collect(),
            bound,
            peace: RwLock::new(Peace {
                disturbances: 0,
                since: Some(Instant::now()),
            }),
        }
    }

    pub(super) fn read(&self, row: Place) -> Row {
        Row {
            key: row.key(),
            version: self.written[row.index()].load(Ordering::SeqCst),
            text: self.texts[row.index()].clone(),
        }
    }

    pub(super) fn write(&self, rows: &[Place]) -> u64 {
        let version = self.latest.fetch_add(1, Ordering::SeqCst) + 1;
        for row in rows {
            self.written[row.index()].fetch_max(version, Ordering::SeqCst);
        }
        version
    }

    pub(super) fn note(&self, row: Place) -> Row {
        Row {
            key: row.notes_key(),
            version: 0,
            text: self.texts[row.index()].clone(),
        }
    }

    pub(super) fn acknowledge(&self, process: usize, rows: &[Place], version: u64) {
        for row in rows {
            let mut acknowledged = self.of_row(*row);
            let Acknowledged { own, of_any } = &mut *acknowledged;
            own[process] = own[process].max(version);
            if of_any.back().is_none_or(|(_, latest)| version > *latest) {
                of_any.push_back((Instant::now(), version));
            }
        }
    }

    /// Returns what a call of this process must know if it begins now.
    pub(super) fn known(&self, process: usize, row: Place) -> Known {
        let Peace {
            disturbances,
            since,
        } = self.peace();
        let mut acknowledged = self.of_row(row);
        let Acknowledged { own, of_any } = &mut *acknowledged;
        let is_due = |(at, _): &(Instant, u64)| {
            // What was acknowledged during a disturbance may have reached Redis at its end.
            since.is_some_and(|since| since.max(*at).elapsed() >= self.bound)
        };
        while of_any.get(1).is_some_and(is_due) {
            of_any.pop_front();
        }
        let of_any = of_any.front().filter(|first| is_due(first));
        Known {
            own: own[process],
            of_any: of_any.map_or(0, |(_, version)| *version),
            disturbances: since.is_some().then_some(disturbances),
        }
    }

    pub(super) fn disturbance_begins(&self) {
        let mut peace = self.peace.write().unwrap_or_else(PoisonError::into_inner);
        peace.disturbances += 1;
        peace.since = None;
    }

    /// Everything that was acknowledged before is in Redis.
    pub(super) fn disturbance_ends(&self) {
        let mut peace = self.peace.write().unwrap_or_else(PoisonError::into_inner);
        peace.since = Some(Instant::now());
    }

    fn peace(&self) -> Peace {
        *self.peace.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_row(&self, row: Place) -> MutexGuard<'_, Acknowledged> {
        let acknowledged = &self.acknowledged[row.index()];
        acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check(&self, found: &Row, key: &str, row: Place, known: Known) {
        assert_eq!(found.key, key, "the value of another key");
        assert!(found.text == self.texts[row.index()], "{key} is damaged");
        let Known {
            own,
            of_any,
            disturbances,
        } = known;
        let version = found.version;
        assert!(
            version >= own,
            "{key} is {version} after its process evicted {own}"
        );
        let is_undisturbed = disturbances == Some(self.peace().disturbances);
        assert!(
            !is_undisturbed || version >= of_any,
            "{key} is {version} after {of_any}"
        );
    }
}
