//! What the functions of one test share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cache_runtime::Cache;
use serde::{Deserialize, Serialize};

/// A cache of its own, and a count of how often bodies ran.
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

    /// A body says that it runs, and learns how often that has happened.
    pub(crate) fn run(&self) -> usize {
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Whether something is stored under `key`.
    pub(crate) async fn holds(&self, key: &str) -> bool {
        self.cache.exists(key).await
    }
}

/// Something to cache.
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
