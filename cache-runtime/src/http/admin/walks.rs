//! Requests that walk the keyspace. Each takes up to 2 s and much of Redis, so they share a few places, and the others have the rest.

use std::future::Future;
use std::time::Instant;

use ::http::StatusCode;
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::problem::Problem;

/// Walks at a time. A person starts one after the other, and few persons do so at the same time.
pub(super) const MAX_WALKS: usize = 4;

/// Requests at a time that wait for one census. They cost nothing but their memory.
const MAX_WAITING: usize = 128;

#[derive(Debug)]
pub(super) struct Walks {
    places: Semaphore,
    pub(super) waiting: Semaphore,
    census: Mutex<Option<Census>>,
}

#[derive(Debug)]
struct Census {
    ended: Instant,
    result: Result<Value, Problem>,
}

impl Walks {
    pub(super) fn new() -> Self {
        Self {
            places: Semaphore::new(MAX_WALKS),
            waiting: Semaphore::new(MAX_WAITING),
            census: Mutex::const_new(None),
        }
    }

    /// Takes a place for a walk.
    pub(super) fn begin(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.places.try_acquire().map_err(|_| {
            let text = "too many requests walk the keyspace; try again in a second";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })
    }

    /// Returns the result of a census that ended after this call began. One census runs at a time. If the client of the request that
    /// runs it leaves, a request that waits for it begins another.
    pub(super) async fn census(
        &self,
        census: impl Future<Output = Result<Value, Problem>>,
    ) -> Result<Value, Problem> {
        let asked = Instant::now();
        let mut last = self.census.lock().await;
        if let Some(Census { ended, result }) = &*last
            && *ended >= asked
        {
            return result.clone();
        }
        let result = match self.begin() {
            Ok(_place) => census.await,
            Err(problem) => Err(problem),
        };
        *last = Some(Census {
            ended: Instant::now(),
            result: result.clone(),
        });
        result
    }
}
