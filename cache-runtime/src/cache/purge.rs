//! Removes targets from the store: keys and tags in batches, and all patterns in one scan of the keyspace.
//!
//! A target that Redis refuses does not keep the others from being removed, and neither does one whose node of a cluster is
//! unavailable. An error of any other kind stops the purge, and the next [`run`](Purge::run) goes on where it stopped.

use std::mem;

use tracing::warn;

use super::Inner;
use crate::error::{Error, ErrorKind};
use crate::key::{Key, Pattern};
use crate::metrics::{SiteMetrics, Warning};
use crate::site::Site;
use crate::store::guard::{On, Op, Via};
use crate::store::reach::Reach;
use crate::store::{Walk, Walked};
use crate::tag::Tag;
use crate::target::Target;

/// Keys in one operation. Each operation has a deadline of its own.
const BATCH: usize = 500;

/// A walk that looks at more keys for one eviction is warned about.
const LONG_WALK: usize = 100_000;

/// The number of other prefixes that are warned about.
const NEIGHBOURS: usize = 16;

/// A removal of targets that is under way.
#[derive(Debug, Default)]
pub(super) struct Purge {
    keys: Vec<Key>,
    tags: Vec<Tag>,
    /// Redis refused a batch of tags: one of them is enough for that.
    is_tag_refused: bool,
    scan: Option<Scan>,
    progress: Progress,
}

/// The outcome of a purge so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How many entries there were.
    pub(super) removed: u64,
    pub(super) applied: Vec<Target>,
    /// What Redis refuses, and its words for that.
    pub(super) refused: Vec<(Target, String)>,
    /// What nodes of a cluster have not seen because they are unavailable, and their part of the keyspace.
    pub(super) missed: Vec<(Target, Reach)>,
}

/// One scan of the keyspace for all patterns.
#[derive(Debug)]
struct Scan {
    targets: Vec<Target>,
    patterns: Vec<Pattern>,
    walk: Walk,
    /// The keys that it has looked at.
    looked: usize,
}

/// On whose behalf a purge runs.
#[derive(Clone, Copy)]
pub(super) struct Behalf<'a> {
    pub(super) site: &'static Site,
    pub(super) metrics: &'a SiteMetrics,
    pub(super) via: Via,
}

impl<'a> Behalf<'a> {
    fn op<'b>(self, name: &'static str, on: On<'b>) -> Op<'b>
    where
        'a: 'b,
    {
        Op {
            via: self.via,
            ..Op::new(name, self.site, self.metrics, on)
        }
    }
}

impl Purge {
    /// Removes `targets`, and patterns only from the part `within`.
    pub(super) fn new(
        targets: impl IntoIterator<Item = Target>,
        within: Reach,
        prefix: &str,
    ) -> Self {
        let mut purge = Self::default();
        let mut scan = Scan {
            targets: Vec::new(),
            patterns: Vec::new(),
            walk: Walk::within(within),
            looked: 0,
        };
        for target in targets {
            match &target {
                Target::Key(key) => purge.keys.push(key.clone()),
                Target::Pattern(pattern) => {
                    scan.patterns.push(pattern.clone());
                    scan.targets.push(target);
                }
                Target::Tag(tag) => purge.tags.push(tag.clone()),
                Target::All => {
                    scan.patterns.push(Pattern::all(prefix));
                    scan.targets.push(target);
                }
            }
        }
        purge.scan = (!scan.targets.is_empty()).then_some(scan);
        purge
    }

    /// Removes what is left, until all is removed or refused, or waits for a node.
    pub(super) async fn run(&mut self, inner: &Inner, behalf: Behalf<'_>) -> Result<(), Error> {
        let is_divided = inner.guard.is_divided();
        while !self.keys.is_empty() {
            match is_divided {
                true => self.remove_keys_each(inner, behalf, "delete").await?,
                false => self.remove_keys(inner, behalf).await?,
            }
        }
        while !self.tags.is_empty() {
            match is_divided {
                true => self.remove_tags_each(inner, behalf).await?,
                false => self.remove_tags(inner, behalf).await?,
            }
        }
        while self.scan.is_some() {
            self.step(inner, behalf).await?;
        }
        Ok(())
    }

    /// Resets the position of the scan, because the server or its state has changed.
    pub(super) fn restart_scan(&mut self) {
        if let Some(scan) = &mut self.scan {
            scan.walk = scan.walk.again();
        }
    }

    /// Returns whether a scan is under way.
    pub(super) fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// Returns the outcome since the last call.
    pub(super) fn take_progress(&mut self) -> Progress {
        mem::take(&mut self.progress)
    }

    /// What is neither removed nor refused.
    pub(super) fn into_rest(self) -> Vec<Target> {
        let scanned = self.scan.into_iter().flat_map(|scan| scan.targets);
        let keys = self.keys.into_iter().map(Target::Key);
        let tags = self.tags.into_iter().map(Target::Tag);
        keys.chain(tags).chain(scanned).collect()
    }

    async fn remove_keys(&mut self, inner: &Inner, behalf: Behalf<'_>) -> Result<(), Error> {
        let from = self.keys.len().saturating_sub(BATCH);
        let batch = &self.keys[from..];
        let op = behalf.op("delete", On::Key(&batch[0]));
        match inner.run(op, |store| store.delete(batch)).await {
            Ok(removed) => self.progress.removed += removed,
            Err(error) if error.kind() != ErrorKind::Command => return Err(error),
            Err(error) if batch.len() == 1 => {
                let refused = Target::Key(batch[0].clone());
                self.progress.refused.push((refused, error.cause()));
                self.keys.truncate(from);
                return Ok(());
            }
            Err(_) => {
                // One key of them is enough to be refused.
                return self.remove_keys_each(inner, behalf, "delete each").await;
            }
        }
        let removed = self.keys.drain(from..).map(Target::Key);
        self.progress.applied.extend(removed);
        Ok(())
    }

    /// Removes keys that fail one by one: because Redis refuses some of them, or because they are at several nodes of a cluster.
    async fn remove_keys_each(
        &mut self,
        inner: &Inner,
        behalf: Behalf<'_>,
        name: &'static str,
    ) -> Result<(), Error> {
        let from = self.keys.len().saturating_sub(BATCH);
        let batch = &self.keys[from..];
        let op = behalf.op(name, On::Key(&batch[0]));
        let outcomes = inner.run(op, |store| store.delete_each(batch)).await?;
        let existed = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Ok(true)));
        self.progress.removed += existed.count() as u64;
        let batch = self.keys.split_off(from).into_iter().zip(outcomes);
        self.progress.book_each(batch, Target::Key, &mut self.keys)
    }

    /// The same for tags. The marker of a family is removed before its tag: a load that captures the tag after its removal must
    /// find that the marker changed.
    async fn remove_tags_each(&mut self, inner: &Inner, behalf: Behalf<'_>) -> Result<(), Error> {
        let from = self.tags.len().saturating_sub(BATCH);
        let batch = &self.tags[from..];
        let op = || behalf.op("delete", On::Key(batch[0].key()));
        let prefix = &inner.config.prefix;
        let markers = batch.iter().map(|tag| Tag::marker(prefix, tag.family()));
        let markers: Vec<_> = markers.collect();
        let of_markers = inner.run(op(), |store| store.delete_each(&markers)).await?;
        let records = batch.iter().zip(&of_markers);
        let records = records.filter(|(_, outcome)| outcome.is_ok());
        let records: Vec<_> = records.map(|(tag, _)| tag.key().clone()).collect();
        let of_records = inner.run(op(), |store| store.delete_each(&records)).await?;
        let mut of_records = of_records.into_iter();
        let outcomes = of_markers
            .into_iter()
            .map(|of_marker| of_marker.and_then(|_| of_records.next().unwrap_or(Ok(false))));
        let batch = self.tags.split_off(from).into_iter().zip(outcomes);
        self.progress.book_each(batch, Target::Tag, &mut self.tags)
    }

    /// Removes the records of tags, each in one step with the marker of its family. How many entries have a tag is not known.
    async fn remove_tags(&mut self, inner: &Inner, behalf: Behalf<'_>) -> Result<(), Error> {
        let most = if self.is_tag_refused { 1 } else { BATCH / 2 };
        let from = self.tags.len().saturating_sub(most);
        let batch = &self.tags[from..];
        let op = behalf.op("delete", On::Key(batch[0].key()));
        let prefix = &inner.config.prefix;
        let records: Vec<_> = batch
            .iter()
            .flat_map(|tag| [Tag::marker(prefix, tag.family()), tag.key().clone()])
            .collect();
        match inner.run(op, |store| store.delete(&records)).await {
            Ok(_) => {
                let removed = self.tags.drain(from..).map(Target::Tag);
                self.progress.applied.extend(removed);
            }
            Err(error) if error.kind() != ErrorKind::Command => return Err(error),
            Err(error) if batch.len() == 1 => {
                let refused = self.tags.drain(from..).map(Target::Tag);
                let refused = refused.map(|tag| (tag, error.cause()));
                self.progress.refused.extend(refused);
            }
            Err(_) => self.is_tag_refused = true,
        }
        Ok(())
    }

    /// Looks at one slice of the keyspace.
    async fn step(&mut self, inner: &Inner, behalf: Behalf<'_>) -> Result<(), Error> {
        let Some(scan) = &mut self.scan else {
            return Ok(());
        };
        let op = behalf.op("scan", On::Pattern(&scan.patterns[0]));
        let walked = inner
            .run(op, |store| store.walk(&scan.patterns, &scan.walk))
            .await;
        let Walked {
            names,
            next,
            looked,
            missed,
        } = match walked {
            Ok(slice) => slice,
            Err(error) if error.kind() == ErrorKind::Command => {
                let cause = error.cause();
                let refused = scan.targets.drain(..).map(|target| (target, cause.clone()));
                self.progress.refused.extend(refused);
                self.scan = None;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        scan.looked += looked;
        if scan.looked > LONG_WALK && behalf.metrics.warn_once(Warning::LongWalk) {
            let pattern = scan.patterns[0].shown(inner.config.mask_keys);
            warn!(
                site = behalf.site.name,
                %pattern,
                looked = scan.looked,
                "an eviction by pattern looks at every key in Redis; give the functions whose entries it removes a `tag`, and evict \
                 by tag: that is one step, however many keys there are"
            );
        }
        match delete_entries(inner, behalf, &names).await {
            Ok(removed) => self.progress.removed += removed,
            Err(error) if error.kind() != ErrorKind::Command => return Err(error),
            Err(_) => {
                scan.delete_by_pattern(inner, behalf, &names, &mut self.progress)
                    .await?;
            }
        }
        match next {
            Some(next) if !scan.targets.is_empty() => scan.walk = next,
            _ => {
                let targets = scan.targets.drain(..);
                match missed.is_nothing() {
                    true => self.progress.applied.extend(targets),
                    false => {
                        let targets = targets.map(|target| (target, missed.clone()));
                        self.progress.missed.extend(targets);
                    }
                }
                self.scan = None;
            }
        }
        Ok(())
    }
}

impl Progress {
    /// Records what came of each item. Those that must be tried again soon are left, and the last of their errors is returned.
    fn book_each<T>(
        &mut self,
        outcomes: impl Iterator<Item = (T, Result<bool, Error>)>,
        target: fn(T) -> Target,
        left: &mut Vec<T>,
    ) -> Result<(), Error> {
        let mut hindrance = Ok(());
        for (item, outcome) in outcomes {
            match outcome.map_err(|error| (error.kind(), error)) {
                Ok(_) => self.applied.push(target(item)),
                Err((ErrorKind::Command, error)) => {
                    self.refused.push((target(item), error.cause()));
                }
                Err((ErrorKind::Unavailable, _)) => {
                    self.missed.push((target(item), Reach::Everything));
                }
                Err((_, error)) => {
                    left.push(item);
                    hindrance = Err(error);
                }
            }
        }
        hindrance
    }
}

impl Scan {
    /// Removes what was found pattern by pattern, and gives up those that Redis refuses.
    async fn delete_by_pattern(
        &mut self,
        inner: &Inner,
        behalf: Behalf<'_>,
        names: &[Key],
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let mut at = 0;
        while let Some(pattern) = self.patterns.get(at) {
            let meant: Vec<_> = names
                .iter()
                .filter(|name| pattern.matches(name.as_str()))
                .cloned()
                .collect();
            match delete_entries(inner, behalf, &meant).await {
                Ok(removed) => {
                    progress.removed += removed;
                    at += 1;
                }
                Err(error) if error.kind() == ErrorKind::Command => {
                    self.patterns.remove(at);
                    progress
                        .refused
                        .push((self.targets.remove(at), error.cause()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

async fn delete_entries(inner: &Inner, behalf: Behalf<'_>, names: &[Key]) -> Result<u64, Error> {
    let mut removed = 0;
    for names in names.chunks(BATCH) {
        let op = behalf.op("delete", On::Key(&names[0]));
        let deleted = inner.run(op, |store| store.delete_entries(names)).await?;
        removed += deleted.removed;
        if let Some(other) = deleted.other_prefix {
            inner.warn_of_neighbour(other);
        }
    }
    Ok(removed)
}

impl Inner {
    /// Warns once of each prefix that begins with this cache's own.
    fn warn_of_neighbour(&self, other: String) {
        let mut neighbours = self.neighbours.lock();
        if neighbours.len() < NEIGHBOURS && neighbours.insert(other.clone()) {
            warn!(
                prefix = self.config.prefix,
                other,
                "the prefix of another cache on this Redis starts with the prefix of this cache: evictions skip its entries, \
                 but some keys belong to both; choose prefixes that do not start with each other"
            );
        }
    }
}
