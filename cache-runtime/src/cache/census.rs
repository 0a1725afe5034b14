//! How many entries each function has, and how large they are: from a sample of the keyspace.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Cache;
use super::handle::HANDLE;
use super::inspect::Walk;
use crate::catalog::{Catalog, Template};
use crate::error::Error;
use crate::key::{Key, Pattern};
use crate::store::guard::{On, Op};

/// Entries of each function whose size is read.
const MEASURED: u64 = 20;

/// What a sample of the keyspace contains.
#[derive(Debug, Serialize)]
pub(crate) struct Census {
    /// Whether all keys were looked at. Otherwise the numbers are of a part of them.
    pub(crate) is_complete: bool,
    pub(crate) functions: Vec<Population>,
}

/// The entries of one function.
#[derive(Debug, Serialize)]
pub(crate) struct Population {
    /// The template of the function, or [`None`] for entries that no function stores.
    pub(crate) cache: Option<&'static str>,
    pub(crate) keys: u64,
    /// The mean size of those that were measured.
    pub(crate) mean_bytes: Option<u64>,
    /// The mean size times the number.
    pub(crate) estimated_bytes: Option<u64>,
}

#[derive(Default)]
struct Tally {
    keys: u64,
    measured: u64,
    bytes: u64,
}

impl Cache {
    /// Counts the entries of each function in about 100,000 keys, for at most 2 s.
    ///
    /// # Errors
    ///
    /// If Redis is unavailable.
    pub(crate) async fn census(&self, catalog: &Catalog) -> Result<Census, Error> {
        let stores = catalog.functions.iter();
        let mut texts: Vec<_> = stores
            .filter(|function| function.stores.is_some())
            .map(|function| function.template)
            .collect();
        texts.sort_unstable();
        texts.dedup();
        let templates: Vec<_> = texts.iter().map(|text| Template::new(text, "")).collect();
        let mut tallies: BTreeMap<Option<&str>, Tally> = BTreeMap::new();
        let mut walk = Walk::new(self, Pattern::all(self.prefix()));
        while let Some(keys) = walk.step().await? {
            for key in keys {
                let Some(name) = key.as_str().strip_prefix(self.prefix()) else {
                    continue;
                };
                let of = Template::of_name(&templates, name).map(|template| template.text);
                let tally = tallies.entry(of).or_default();
                tally.keys += 1;
                if tally.measured < MEASURED
                    && let Some(bytes) = self.size(&key).await?
                {
                    tally.measured += 1;
                    tally.bytes += bytes;
                }
            }
        }
        let functions = tallies.into_iter().map(|(cache, tally)| {
            let mean = tally.bytes.checked_div(tally.measured);
            Population {
                cache,
                keys: tally.keys,
                mean_bytes: mean,
                estimated_bytes: mean.map(|mean| mean.saturating_mul(tally.keys)),
            }
        });
        Ok(Census {
            is_complete: walk.is_complete(),
            functions: functions.collect(),
        })
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, Error> {
        let metrics = self.inner.metrics.site(&HANDLE.metrics);
        let op = Op::new("keys", &HANDLE, &metrics, On::Key(key));
        let measured = self.inner.run(op, |store| store.measure(key)).await?;
        Ok(measured.map(|(bytes, _)| bytes as u64))
    }
}
