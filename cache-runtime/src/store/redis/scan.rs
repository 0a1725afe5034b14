//! Scans of the keyspace: one step of a scan, and the removal of the entries that it found.

use redis::{Cmd, Value};

use super::scripts::DELETE_ENTRIES;
use super::{RedisStore, Route};
use crate::entry::{MAGIC, PREFIX_AT, PREFIXED_FORMAT};
use crate::error::Error;
use crate::key::{Key, Pattern};
use crate::store::pool::BULK;
use crate::store::reply::{self, Failure};
use crate::store::{Cursor, Deleted, Scanned};

impl RedisStore {
    pub(super) async fn scan_step(
        &self,
        patterns: &[Pattern],
        cursor: Cursor,
    ) -> Result<Scanned, Error> {
        let scanned = match &self.route {
            Route::Server(peer) => peer.scan(patterns, cursor).await,
            Route::Cluster(cluster, access) => cluster.scan(patterns, cursor, *access).await,
        };
        scanned.map_err(|failure| during(failure, patterns))
    }

    /// Removes the keys that hold an entry of their own prefix.
    pub(super) async fn delete_found(&self, keys: &[Key]) -> Result<Deleted, Error> {
        let Some(first) = keys.first() else {
            return Ok(Deleted::default());
        };
        let names: Vec<_> = keys.iter().map(Key::as_str).collect();
        let arguments = |command: &mut Cmd| {
            command
                .arg(MAGIC)
                .arg(PREFIXED_FORMAT)
                .arg(PREFIX_AT)
                .arg(first.prefix_len());
        };
        let answers = match &self.route {
            Route::Cluster(..) => {
                let keys: Vec<_> = keys.iter().map(|key| (key.clone(), ())).collect();
                let arguments = |(): &(), command: &mut Cmd| arguments(command);
                let answers = self.run_each(&DELETE_ENTRIES, &keys, arguments).await;
                answers.and_then(|answers| answers.into_iter().map(only_one).collect())
            }
            Route::Server(_) => {
                let answers = self.run_on(&DELETE_ENTRIES, &names, arguments, BULK).await;
                answers.and_then(reply::array)
            }
        };
        let answers: Vec<i64> = answers
            .and_then(|answers| answers.into_iter().map(reply::integer).collect())
            .map_err(|failure| failure.during(|| format!("delete of {} entries", keys.len())))?;
        let mut deleted = Deleted::default();
        for (name, answer) in names.iter().zip(answers) {
            match usize::try_from(answer) {
                Ok(removed) => deleted.removed += removed as u64,
                Err(_) => {
                    let length = usize::try_from(answer.unsigned_abs()).unwrap_or_default();
                    deleted.other_prefix = name.get(..length).map(str::to_owned);
                }
            }
        }
        Ok(deleted)
    }
}

pub(super) fn during(failure: Failure, patterns: &[Pattern]) -> Error {
    failure.during(|| format!("scan for `{}`", Pattern::common_glob(patterns)))
}

/// The answer of a script for its only key.
fn only_one(answer: Value) -> Result<Value, Failure> {
    let mut answers = reply::array(answer)?.into_iter();
    answers
        .next()
        .ok_or(Failure::Nonsense("as many answers as keys"))
}
