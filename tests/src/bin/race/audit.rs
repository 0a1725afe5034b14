//! Compares every entry with the table while no call runs.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use sqlx::SqlitePool;

use crate::servers::Servers;
use crate::service::{KEYS, PREFIX, Row, key};

/// Reads Redis directly, without the cache and its checks.
pub(crate) struct Audit {
    redis: Servers,
    table: SqlitePool,
    pub(crate) rests: u64,
    pub(crate) entries: u64,
    pub(crate) stale: u64,
    /// Entries that no reader takes, because one of their tags was evicted.
    pub(crate) outdated: u64,
}

/// The content of a key.
enum Stored {
    Value(Row, Vec<Tag>),
    /// A lease or a fence.
    Claim,
}

/// A tag of an entry: the name of its record, and what the record held when the load began.
struct Tag {
    name: String,
    stamp: String,
}

impl Audit {
    pub(crate) fn new(redis: Servers, table: SqlitePool) -> Self {
        Self {
            redis,
            table,
            rests: 0,
            entries: 0,
            stale: 0,
            outdated: 0,
        }
    }

    /// Compares all entries. Returns descriptions of the stale ones, and the number of claims.
    pub(crate) async fn compare(&mut self) -> Result<(Vec<String>, u64)> {
        let rows: Vec<Row> = sqlx::query_as("SELECT id, version FROM rows")
            .fetch_all(&self.table)
            .await?;
        let rows: HashMap<i64, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
        let (mut stale, mut claims) = (Vec::new(), 0);
        let keys: Vec<_> = (0..KEYS).map(|id| format!("{PREFIX}{}", key(id))).collect();
        let found = self.redis.get(&keys).await?;
        let entries = found.iter().enumerate();
        for (id, entry) in entries.flat_map(|(id, all)| all.iter().map(move |entry| (id, entry))) {
            match read(entry).with_context(|| format!("the entry of {id}"))? {
                Stored::Claim => claims += 1,
                Stored::Value(_, tags) if !self.are_current(&tags).await? => self.outdated += 1,
                Stored::Value(stored, _) => {
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

    /// Returns whether the record of each tag holds what the entry names.
    async fn are_current(&self, tags: &[Tag]) -> Result<bool> {
        if tags.is_empty() {
            return Ok(true);
        }
        let names: Vec<_> = tags.iter().map(|tag| tag.name.clone()).collect();
        let records = self.redis.get(&names).await?;
        let is = |tag: &Tag, record: &Vec<u8>| *record == *tag.stamp.as_bytes();
        let mut both = tags.iter().zip(records);
        Ok(both.all(|(tag, records)| records.iter().any(|record| is(tag, record))))
    }
}

/// Reads an entry as the table in `cache-runtime/src/entry.rs` describes it: a header of 80 bytes with the format and the
/// kind, the tags if there are any, and then JSON. A value this short is not compressed.
fn read(entry: &[u8]) -> Result<Stored> {
    const START: [u8; 4] = [0xca, 0xce, b'E', 3];
    const KIND_AT: usize = 4;
    const FLAGS_AT: usize = 5;
    const HEADER: usize = 80;
    const VALUE: u8 = 1;
    const CLAIMS: [u8; 2] = [3, 4];
    const TAGGED: u8 = 2;
    let (header, rest) = entry
        .split_at_checked(HEADER)
        .context("the entry is too short")?;
    ensure!(header.starts_with(&START), "the entry has another format");
    match header[KIND_AT] {
        VALUE => {
            let (tags, json) = match header[FLAGS_AT] & TAGGED {
                0 => (Vec::new(), rest),
                _ => tags(rest)?,
            };
            Ok(Stored::Value(serde_json::from_slice(json)?, tags))
        }
        kind if CLAIMS.contains(&kind) => Ok(Stored::Claim),
        kind => bail!("a row has an entry of kind {kind}"),
    }
}

/// Reads the tags of an entry as `cache-runtime/src/entry/tags.rs` describes them: the length of all of them in four bytes, and
/// for each tag the length of its name in two bytes, the name, and the stamp. Returns what is behind them, too.
fn tags(bytes: &[u8]) -> Result<(Vec<Tag>, &[u8])> {
    const SHORT: &str = "the tags of an entry are too short";
    let (length, rest) = bytes.split_first_chunk().context(SHORT)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (mut bytes, rest) = rest.split_at_checked(length).context(SHORT)?;
    let mut tags = Vec::new();
    while !bytes.is_empty() {
        let (length, behind) = bytes.split_first_chunk().context(SHORT)?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (name, behind) = behind.split_at_checked(length).context(SHORT)?;
        let (stamp, behind) = behind.split_first_chunk::<8>().context(SHORT)?;
        bytes = behind;
        let name = String::from_utf8_lossy(name);
        tags.push(Tag {
            name: format!("{PREFIX}cache:tag:{name}"),
            stamp: stamp.iter().map(|byte| format!("{byte:02x}")).collect(),
        });
    }
    Ok((tags, rest))
}
