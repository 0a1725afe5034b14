//! Compares every entry with the table while no call runs.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use redis::Client;
use sqlx::SqlitePool;

use crate::service::{KEYS, PREFIX, Row, key};

/// Reads Redis directly, without the cache and its checks.
pub(crate) struct Audit {
    redis: Client,
    table: SqlitePool,
    pub(crate) rests: u64,
    pub(crate) entries: u64,
    pub(crate) stale: u64,
}

/// The content of a key.
enum Stored {
    Value(Row),
    /// A lease or a fence.
    Claim,
}

impl Audit {
    pub(crate) fn new(redis: Client, table: SqlitePool) -> Self {
        Self {
            redis,
            table,
            rests: 0,
            entries: 0,
            stale: 0,
        }
    }

    /// Compares all entries. Returns descriptions of the stale ones, and the number of claims.
    pub(crate) async fn compare(&mut self) -> Result<(Vec<String>, u64)> {
        let rows: Vec<Row> = sqlx::query_as("SELECT id, version FROM rows")
            .fetch_all(&self.table)
            .await?;
        let rows: HashMap<i64, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
        let (mut stale, mut claims) = (Vec::new(), 0);
        for (id, entry) in self.entries().await?.iter().enumerate() {
            let Some(entry) = entry else { continue };
            match read(entry).with_context(|| format!("the entry of {id}"))? {
                Stored::Claim => claims += 1,
                Stored::Value(stored) => {
                    self.entries += 1;
                    let row = rows.get(&(id as i64)).context("a row is gone")?;
                    if stored != *row {
                        stale.push(format!(
                            "the entry of {id} is {stored:?} and the table has {row:?}"
                        ));
                    }
                }
            }
        }
        self.rests += 1;
        self.stale += stale.len() as u64;
        Ok((stale, claims))
    }

    async fn entries(&self) -> Result<Vec<Option<Vec<u8>>>> {
        let keys: Vec<String> = (0..KEYS).map(|id| format!("{PREFIX}{}", key(id))).collect();
        let mut connection = self.redis.get_multiplexed_async_connection().await?;
        Ok(redis::cmd("MGET")
            .arg(keys)
            .query_async(&mut connection)
            .await?)
    }
}

/// Reads an entry as the table in `cache-runtime/src/entry.rs` describes it: a header of 80 bytes with the format and the
/// kind, and then JSON. A value this short is not compressed.
fn read(entry: &[u8]) -> Result<Stored> {
    const START: [u8; 4] = [0xca, 0xce, b'E', 3];
    const KIND_AT: usize = 4;
    const HEADER: usize = 80;
    const VALUE: u8 = 1;
    const CLAIMS: [u8; 2] = [3, 4];
    let header = entry.get(..HEADER).context("the entry is too short")?;
    ensure!(header.starts_with(&START), "the entry has another format");
    match header[KIND_AT] {
        VALUE => Ok(Stored::Value(serde_json::from_slice(&entry[HEADER..])?)),
        kind if CLAIMS.contains(&kind) => Ok(Stored::Claim),
        kind => bail!("a row has an entry of kind {kind}"),
    }
}
