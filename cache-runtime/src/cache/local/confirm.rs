//! Doubtful values: one caller asks the store for the stamp of the entry, and the others wait for that answer.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::{Heads, Kept, Local};
use crate::clock::in_real_time;
use crate::doubt::Reading;
use crate::entry::{self, Stamp};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::store::guard::in_runtime;
use crate::sync::Mutex;

/// The bytes of an entry that contain its stamp.
pub(in crate::cache) const HEAD: usize = 16;

/// The keys that are being asked about, each with the answer.
#[derive(Debug, Default)]
pub(super) struct Confirming(Mutex<HashMap<Key, Waiting>>);

type Waiting = watch::Receiver<Option<Told>>;

/// What a caller that asked tells the others.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) enum Told {
    Confirmed(Confirmed),
    Failed(ErrorKind),
}

/// An entry that the store still has.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct Confirmed {
    stamp: Stamp,
    /// Taken before the store was asked.
    reading: Reading,
}

/// The turn of a caller that finds a doubtful value.
pub(in crate::cache) enum Asking<'a> {
    Asker(Asker<'a>),
    Waiter(Waiting),
}

/// A caller that asks. When it is dropped, the waiters ask for themselves, unless it has their answer.
pub(in crate::cache) struct Asker<'a> {
    local: &'a Local,
    key: &'a Key,
    kept: Arc<Kept>,
    /// The key and the records of the tags.
    keys: Vec<Key>,
    answer: watch::Sender<Option<Told>>,
    /// Taken before the store is asked.
    reading: Reading,
}

/// What has become of a doubtful value.
pub(in crate::cache) enum Doubt {
    Confirmed,
    /// The entry is another one now, it is gone, or nothing is known of it.
    Changed,
    Failed(Error),
}

impl Local {
    /// Joins the callers that find a doubtful value of `key`.
    pub(in crate::cache) fn ask<'a>(&'a self, key: &'a Key, kept: &Arc<Kept>) -> Asking<'a> {
        self.counts.doubtful.fetch_add(1, Relaxed);
        let mut asked = self.confirming.0.lock();
        if let Some(answer) = asked.get(key) {
            return Asking::Waiter(answer.clone());
        }
        let (answer, waiters) = watch::channel(None);
        asked.insert(key.clone(), waiters);
        let tags = kept.tags().map(|tag| tag.key().clone());
        Asking::Asker(Asker {
            local: self,
            key,
            kept: Arc::clone(kept),
            keys: iter::once(key.clone()).chain(tags).collect(),
            answer,
            reading: self.reading_of(kept),
        })
    }

    /// Waits for the answer to another caller, for at most `patience`: that caller may not be polled. The answer counts if it is about
    /// the same entry, which has not changed since that caller asked. A slow reader may have put an older entry in the place of the
    /// one that is asked about.
    pub(in crate::cache) async fn answer_to_another(
        &self,
        kept: &Kept,
        mut answer: Waiting,
        patience: Duration,
    ) -> Doubt {
        if in_runtime() {
            // Without an answer the sender is dropped, which is an error here.
            let told = async {
                let told = timeout(patience, answer.wait_for(Option::is_some)).await;
                told.is_ok().then_some(())
            };
            let _ = in_real_time(patience, told).await;
        }
        let told = *answer.borrow();
        match told {
            Some(Told::Confirmed(confirmed))
                if confirmed.stamp == kept.facts.meta.stamp
                    && confirmed.reading == self.reading_of(kept) =>
            {
                Doubt::Confirmed
            }
            Some(Told::Failed(kind)) => Doubt::Failed(Error::new(
                kind,
                "another caller asked Redis about the same value and got no answer",
            )),
            Some(Told::Confirmed(_)) | None => Doubt::Changed,
        }
    }
}

impl Asker<'_> {
    /// The keys to be asked for the first [`HEAD`] bytes of.
    pub(in crate::cache) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Compares the answer of the store to the value.
    pub(in crate::cache) fn judge(self, heads: Result<Heads, Error>, period: Duration) -> Doubt {
        let heads = match heads {
            Ok(heads) => heads,
            Err(error) => {
                self.answer.send_replace(Some(Told::Failed(error.kind())));
                return Doubt::Failed(error);
            }
        };
        let facts = &self.kept.facts;
        let mut heads = heads.iter().map(Option::as_deref);
        let stamp = heads.next().flatten().and_then(entry::whole_stamp_of);
        let of_tags = heads.map(|record| entry::stamp_in(record?));
        let named = facts.tags.iter().map(|tag| Some(tag.stamp));
        if stamp != Some(facts.meta.stamp) || !of_tags.eq(named) {
            self.local.counts.dropped.fetch_add(1, Relaxed);
            self.local.forget(self.key);
            return Doubt::Changed;
        }
        self.local.counts.confirmed.fetch_add(1, Relaxed);
        self.kept.confirm(self.reading, self.local.until(period));
        self.answer.send_replace(Some(Told::Confirmed(Confirmed {
            stamp: facts.meta.stamp,
            reading: self.reading,
        })));
        Doubt::Confirmed
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.local.confirming.0.lock().remove(self.key);
    }
}
