//! Doubtful values: one caller asks the store for the stamp of the entry, and the others wait for that answer.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use super::{Kept, Local};
use crate::doubt::Reading;
use crate::entry;
use crate::error::Error;
use crate::key::Key;
use crate::sync::Mutex;

/// The bytes of an entry that contain its stamp.
pub(in crate::cache) const HEAD: usize = 16;

/// The keys that are being asked about, each with the reading with which its value was found unchanged.
#[derive(Debug, Default)]
pub(super) struct Confirming(Mutex<HashMap<Key, watch::Receiver<Option<Reading>>>>);

/// The turn of a caller that finds a doubtful value.
pub(in crate::cache) enum Asking<'a> {
    Asker(Asker<'a>),
    Waiter(watch::Receiver<Option<Reading>>),
}

/// A caller that asks. When it is dropped, the waiters ask for themselves, unless it has their answer.
pub(in crate::cache) struct Asker<'a> {
    local: &'a Local,
    key: &'a Key,
    answer: watch::Sender<Option<Reading>>,
    /// Taken before the store is asked.
    reading: Reading,
}

/// What has become of a doubtful value.
pub(in crate::cache) enum Doubt {
    Confirmed,
    /// The entry is another one now, or it is gone.
    Changed,
    Failed(Error),
}

impl Local {
    /// Joins the callers that find a doubtful value of `key`.
    pub(in crate::cache) fn ask<'a>(&'a self, key: &'a Key) -> Asking<'a> {
        self.counts.doubtful.fetch_add(1, Relaxed);
        let mut asked = self.confirming.0.lock();
        if let Some(answer) = asked.get(key) {
            return Asking::Waiter(answer.clone());
        }
        let (answer, waiters) = watch::channel(None);
        asked.insert(key.clone(), waiters);
        Asking::Asker(Asker {
            local: self,
            key,
            answer,
            reading: self.reading(key),
        })
    }

    /// Waits for the answer to another caller. Returns whether the value is unchanged, also since that caller asked.
    pub(in crate::cache) async fn is_confirmed(
        &self,
        key: &Key,
        mut answer: watch::Receiver<Option<Reading>>,
    ) -> bool {
        // Without an answer the sender is dropped, which is an error here.
        let _ = answer.wait_for(Option::is_some).await;
        let confirmed = *answer.borrow();
        confirmed.is_some_and(|reading| reading == self.reading(key))
    }
}

impl Asker<'_> {
    /// The keys to be asked for the first [`HEAD`] bytes of.
    pub(in crate::cache) fn keys(&self) -> &[Key] {
        slice::from_ref(self.key)
    }

    /// Compares the answer of the store to the value.
    pub(in crate::cache) fn judge(
        self,
        kept: &Arc<Kept>,
        heads: Result<Vec<Option<Vec<u8>>>, Error>,
        period: Duration,
    ) -> Doubt {
        let heads = match heads {
            Ok(heads) => heads,
            Err(error) => return Doubt::Failed(error),
        };
        let stamp = match heads.first() {
            Some(Some(head)) => entry::whole_stamp_of(head),
            _ => None,
        };
        if stamp != Some(kept.facts.meta.stamp) {
            self.local.counts.dropped.fetch_add(1, Relaxed);
            self.local.forget(self.key);
            return Doubt::Changed;
        }
        self.local.counts.confirmed.fetch_add(1, Relaxed);
        kept.confirm(self.reading, self.local.until(period));
        self.answer.send_replace(Some(self.reading));
        Doubt::Confirmed
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.local.confirming.0.lock().remove(self.key);
    }
}
