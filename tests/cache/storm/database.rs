//! The rows of the storm, and the versions that a caller may see.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// The version whose eviction has returned to its writer. Later callers must not see an older version.
    acknowledged: Vec<AtomicU64>,
    texts: Vec<String>,
}

impl Database {
    pub(super) fn new() -> Self {
        let versions = || Place::all().map(|_| AtomicU64::new(0)).collect();
        // Random letters that do not compress well.
        let mut whim = Whim::of(0);
        let mut letter = |_| char::from(b'a' + whim.below(26) as u8);
        Self {
            latest: AtomicU64::new(0),
            written: versions(),
            acknowledged: versions(),
            texts: Place::all()
                .map(|row| (0..row.text_bytes()).map(&mut letter).collect())
                .collect(),
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

    pub(super) fn acknowledge(&self, rows: &[Place], version: u64) {
        for row in rows {
            self.acknowledged[row.index()].fetch_max(version, Ordering::SeqCst);
        }
    }

    pub(super) fn acknowledged(&self, row: Place) -> u64 {
        self.acknowledged[row.index()].load(Ordering::SeqCst)
    }

    pub(super) fn check(&self, found: &Row, key: &str, row: Place, known: u64) {
        assert_eq!(found.key, key, "the value of another key");
        assert!(found.text == self.texts[row.index()], "{key} is damaged");
        let version = found.version;
        assert!(version >= known, "{key} is {version} after {known}");
    }
}
