//! The cache and the counter that the functions of one test share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cache_runtime::Cache;
use serde::{Deserialize, Serialize};

/// A separate cache, and a count of how often bodies ran.
#[derive(Clone)]
pub(crate) struct Lab {
    pub(crate) cache: Cache,
    runs: Arc<AtomicUsize>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self {
            cache: Cache::memory(),
            runs: Arc::default(),
        }
    }

    /// Counts a run of a body and returns the new count.
    pub(crate) fn run(&self) -> usize {
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Returns whether an entry is stored under `key`.
    pub(crate) async fn holds(&self, key: &str) -> bool {
        self.cache.exists(key).await
    }
}

/// A value to cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) id: i64,
    pub(crate) title: String,
}

impl Event {
    pub(crate) fn new(id: i64) -> Self {
        Self {
            id,
            title: format!("event {id}"),
        }
    }
}
