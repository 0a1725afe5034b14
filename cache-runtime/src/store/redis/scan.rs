//! Scans of the keyspace: one step of a scan, and the removal of the entries that it found.

use redis::Cmd;

use super::RedisStore;
use super::scripts::DELETE_ENTRIES;
use crate::entry::{MAGIC, PREFIX_AT, PREFIXED_FORMAT};
use crate::error::Error;
use crate::key::{Key, Pattern};
use crate::store::pool::BULK;
use crate::store::reply::{self, Failure};
use crate::store::{Cursor, Deleted, Scanned};

/// Keys that one step of a scan looks at. With 100 to 500 keys the slowest answers for other callers do not change; with
/// 1,000 they take five times as long.
const SCAN_COUNT: usize = 250;

impl RedisStore {
    pub(super) async fn scan_step(
        &self,
        patterns: &[Pattern],
        cursor: Cursor,
    ) -> Result<Scanned, Error> {
        self.names(patterns, cursor).await.map_err(|failure| {
            failure.during(|| format!("scan for `{}`", Pattern::common_glob(patterns)))
        })
    }

    /// One step of a scan: the next cursor, and the names that the patterns match.
    async fn names(&self, patterns: &[Pattern], cursor: Cursor) -> Result<Scanned, Failure> {
        let mut command = redis::cmd("SCAN");
        command
            .arg(cursor.0)
            .arg("MATCH")
            .arg(&*Pattern::common_glob(patterns))
            .arg("COUNT")
            .arg(SCAN_COUNT);
        let (next, names) = reply::page(self.read(&command, BULK, &[]).await?)?;
        // Redis matched a glob; this second look keeps other prefixes and reserved roots safe.
        let meant = |name: Vec<u8>| {
            let name = String::from_utf8(name).ok()?;
            let pattern = patterns.iter().find(|pattern| pattern.matches(&name))?;
            Some(pattern.key(name))
        };
        Ok(Scanned {
            names: names.into_iter().filter_map(meant).collect(),
            next: (next != 0).then_some(Cursor(next)),
            looked: SCAN_COUNT,
        })
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
        let answers = self
            .run_on(&DELETE_ENTRIES, &names, arguments, BULK)
            .await
            .and_then(reply::array)
            .and_then(|answers| answers.into_iter().map(reply::integer).collect());
        let answers: Vec<i64> = answers
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
