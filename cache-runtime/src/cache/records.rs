//! What the higher layers need from a cache: its store behind the guard, for records that are not entries.

use super::Cache;
use crate::error::Error;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::site::Site;
use crate::store::guard::{On, Op};
use crate::store::script::{Reply, Script};

impl Cache {
    /// Returns whether everything is in this process, by choice.
    pub(crate) fn is_local(&self) -> bool {
        self.inner.guard.is_local()
    }

    /// Runs a script on records, within the deadline. The log shows `record` for them. Without a server that runs scripts,
    /// nothing is sent.
    pub(crate) async fn run_script(
        &self,
        site: &'static Site,
        script: &Script,
        record: &Key,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<Reply, Error> {
        let inner = &self.inner;
        let metrics = inner.metrics.site(&site.metrics);
        let op = Op::new(site.template, site, &metrics, On::Key(record));
        inner
            .run(op, |store| match store.scripts() {
                Some(scripts) => scripts.run(script, site.template, keys, arguments),
                None => Box::pin(async { Err(Error::away()) }),
            })
            .await
    }

    /// Removes a record; `site` is on whose behalf.
    pub(crate) async fn remove_record(
        &self,
        site: &'static Site,
        record: &Key,
    ) -> Result<(), Error> {
        let keys = std::slice::from_ref(record);
        let metrics = self.inner.metrics.site(&site.metrics);
        let op = Op::new("delete", site, &metrics, On::Key(record));
        self.inner
            .run(op, |store| store.delete(keys))
            .await
            .map(drop)
    }

    /// How many connections to the server were lost so far.
    pub(crate) fn losses(&self) -> u64 {
        self.inner.guard.losses()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }
}
