//! Tags of calls and of entries: what a load captures before its body, and whether the tags of an entry still have the stamps
//! that it names.
//!
//! A tag is one record in the store, which holds a random stamp. A load captures the stamps of its tags before its body, and
//! the entry names them. An eviction removes the record, so the next load gets another stamp, and no reader takes an entry
//! that names the old one.
//!
//! A tag over the returned value has no name before the body. Its family has a record as well, its marker, which is captured
//! in its place. After the body, the tag is captured, and then the marker is read again. An eviction removes the marker
//! together with the tag. So a load that captured a tag only after an eviction finds that the marker changed, and stores
//! nothing. A fence takes the place of both.

use std::collections::HashSet;
use std::iter;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use super::call::CallContext;
use super::captured::{Captured, mixed};
use super::flight::Observed;
use super::lookup::{Answer, LoadMode, Miss};
use super::pending::{self, ScopeState};
use super::{Cache, boxed, caller};
use crate::doubt::Reading;
use crate::entry::{self, Stamp, Tagged};
use crate::error::Error;
use crate::key::Key;
use crate::metrics::Event;
use crate::store::Found;
use crate::tag::{Tag, family_hash};

/// What the tags of an entry mean for a call.
enum Tags {
    Current,
    /// One of them was evicted, or the entry does not have a tag of the call.
    Outdated,
    /// The stamps of these are not known.
    Unknown(Vec<Tag>),
}

/// Whether an entry may be served.
enum Checked {
    /// With the reading that a value of it gets in this process.
    Current(Option<Reading>),
    Outdated,
    /// An eviction by tag that is not in the store yet hides it.
    Hidden(Miss),
    Failed(Error),
}

/// The tags with their stamps, as an entry names them.
fn tagged<'a>(tags: &'a [Tag], stamps: &'a [Stamp]) -> impl Iterator<Item = Tagged> + 'a {
    tags.iter().zip(stamps).map(|(tag, stamp)| Tagged {
        name: tag.text().into(),
        stamp: *stamp,
    })
}

impl CallContext<'_> {
    fn has_tags(&self) -> bool {
        !self.tags.is_empty() || !self.site.tag_families.is_empty()
    }

    /// Returns what identifies the tags and families of the call among the loads of this process.
    pub(super) fn tag_hashes(&self) -> Vec<u64> {
        let tags = self.tags.iter().map(|tag| tag.key().hash());
        let families = self.site.tag_families.iter();
        tags.chain(families.map(|family| family_hash(family)))
            .collect()
    }

    /// Returns whether an eviction of what the call names is still in the journal.
    pub(super) fn is_blocked(&self) -> bool {
        let journal = &self.inner.journal;
        journal.depth() != 0 && journal.blocks_call(self.key, self.tags, self.site.tag_families)
    }

    /// Captures what the entry will depend on.
    pub(super) async fn capture(&self) -> Captured {
        self.capture_if(true).await
    }

    /// The same if the result may be stored.
    pub(super) async fn capture_if(&self, may_store: bool) -> Captured {
        match self.has_tags() {
            false => Captured::Untagged,
            true if may_store => boxed(|| self.capture_tags()).await,
            true => Captured::Unasked,
        }
    }

    async fn capture_tags(&self) -> Captured {
        let tags = self.tags.iter().map(|tag| tag.key().clone());
        let keys: Vec<_> = tags.chain(self.markers()).collect();
        let ttl = self.ttl.max(self.none_ttl.unwrap_or_default());
        let ttl = ttl.saturating_add(self.grace);
        let Ok(Some(stamps)) = self.stamps_for(&keys, ttl).await else {
            return Captured::Refused;
        };
        let (of_tags, families) = stamps.split_at(self.tags.len());
        Captured::Tags {
            tags: tagged(self.tags, of_tags).collect(),
            families: families.to_vec(),
            ttl,
        }
    }

    /// The records of the families.
    fn markers(&self) -> impl Iterator<Item = Key> {
        let families = self.site.tag_families.iter();
        families.map(|family| Tag::marker(&self.inner.config.prefix, family))
    }

    /// Captures records for an entry with this TTL. Returns [`None`] if one of them has no stamp.
    async fn stamps_for(&self, keys: &[Key], ttl: Duration) -> Result<Option<Vec<Stamp>>, Error> {
        let config = &self.inner.config;
        let until_stored = config.lease_wait + config.load_deadline + 2 * config.operation_max();
        let life = ttl.saturating_add(until_stored);
        let op = self.op("tags", Instant::now());
        let captured = self
            .inner
            .run(op, |store| store.capture(keys, entry::new_stamp(), life));
        Ok(captured.await?.into_iter().collect())
    }

    /// Returns the stamps of records at this moment.
    async fn stamps_now(&self, keys: &[Key]) -> Result<Vec<Option<Stamp>>, Error> {
        let op = self.op("tags", Instant::now());
        let records = self.inner.run(op, |store| store.get_many(keys)).await?;
        let stamps = records
            .iter()
            .map(|record| entry::stamp_in(record.as_ref()?));
        Ok(stamps.collect())
    }

    /// Returns the tags of an entry that lives for `ttl`, or [`None`] if it must not be stored.
    pub(super) async fn tags_of(
        &self,
        captured: Captured,
        has_value: bool,
        ttl: Duration,
    ) -> Option<Vec<Tagged>> {
        let (tags, families, covered) = match captured {
            Captured::Untagged => return Some(Vec::new()),
            Captured::Tags {
                tags,
                families,
                ttl,
            } => (tags, families, ttl),
            Captured::Unasked => return None,
            Captured::Refused => {
                self.metrics.count(Event::FillRefused);
                return None;
            }
        };
        let named = match has_value && !families.is_empty() {
            true => caller::tags(&self.inner.config.prefix).await,
            false => Vec::new(),
        };
        let outlived = if ttl > covered { self.tags } else { &[] };
        if named.is_empty() && outlived.is_empty() {
            return Some(tags);
        }
        let all = boxed(|| self.capture_again(tags, outlived, &families, &named, ttl)).await;
        if all.is_none() {
            self.metrics.count(Event::FillRefused);
        }
        all
    }

    /// Captures what could not be captured before the body: the tags over the returned value, and a longer life for tags
    /// that the entry would outlive.
    async fn capture_again(
        &self,
        mut tags: Vec<Tagged>,
        outlived: &[Tag],
        families: &[Stamp],
        named: &[Tag],
        ttl: Duration,
    ) -> Option<Vec<Tagged>> {
        let keys: Vec<_> = outlived
            .iter()
            .chain(named)
            .map(|tag| tag.key().clone())
            .collect();
        let stamps = self.stamps_for(&keys, ttl).await.ok()??;
        let (again, new) = stamps.split_at(outlived.len());
        if again
            .iter()
            .zip(&tags)
            .any(|(stamp, tag)| *stamp != tag.stamp)
        {
            return None;
        }
        let is_known = |tag: &Tag| self.site.tag_families.contains(&tag.family());
        if !named.iter().all(is_known) {
            return None;
        }
        // After the capture: an eviction before it has removed the marker.
        if !named.is_empty() && !self.markers_are(families).await {
            return None;
        }
        tags.extend(tagged(named, new));
        Some(tags)
    }

    async fn markers_are(&self, families: &[Stamp]) -> bool {
        let now = self.families_now().await.unwrap_or_default();
        now.into_iter().eq(families.iter().copied().map(Some))
    }

    /// Returns the stamps of the families at this moment; nothing if the store does not answer.
    async fn families_now(&self) -> Option<Vec<Option<Stamp>>> {
        let markers: Vec<_> = self.markers().collect();
        self.stamps_now(&markers).await.ok()
    }

    /// Returns what the call observed, for a load that may have begun before an eviction by tag. Such an eviction leaves the
    /// claim of the load in the store, so the stamps of the tags are a part of what was observed.
    pub(super) async fn observed(&self, miss: &mut Miss) -> Observed {
        let Observed::Entry(claim) = miss.observed else {
            return miss.observed;
        };
        if !self.has_tags() {
            return miss.observed;
        }
        let mut stamps = mem::take(&mut miss.stamps);
        if !self.site.tag_families.is_empty() {
            let families = boxed(|| self.families_now()).await;
            stamps.extend(families.unwrap_or_else(|| vec![None]));
        }
        mixed(claim, stamps.into_iter()).map_or(Observed::Nothing, Observed::Entry)
    }

    /// Checks the tags of what the store returned.
    #[inline]
    pub(super) async fn check_found(&self, found: Found) -> Answer {
        let Some(entry) = &found.entry else {
            return Answer::Found(found, None);
        };
        if self.tags.is_empty() && !entry::has_tags(entry) {
            return Answer::Found(found, self.reading);
        }
        match self.check(entry, &found.stamps).await {
            Checked::Current(reading) => Answer::Found(found, reading),
            Checked::Outdated => Answer::Outdated(found),
            Checked::Hidden(miss) => Answer::Unasked(miss),
            Checked::Failed(error) => Answer::Failed(error),
        }
    }

    /// Returns whether the tags of an entry allow it to be served. No stamp is known.
    pub(super) async fn is_current(&self, entry: &[u8]) -> Result<bool, Error> {
        if self.tags.is_empty() && !entry::has_tags(entry) {
            return Ok(true);
        }
        boxed(|| async {
            let keys: Vec<_> = self.tags.iter().map(|tag| tag.key().clone()).collect();
            let stamps = match keys.is_empty() {
                true => Vec::new(),
                false => self.stamps_now(&keys).await?,
            };
            match self.check(entry, &stamps).await {
                Checked::Current(_) => Ok(true),
                Checked::Outdated | Checked::Hidden(_) => Ok(false),
                Checked::Failed(error) => Err(error),
            }
        })
        .await
    }

    /// Keeps the tags of an entry alive for this long. Returns whether they still have the stamps that it names.
    pub(super) async fn keep_tags(&self, entry: &[u8], ttl: Duration) -> Result<bool, Error> {
        let keys: Vec<_> = entry::tags(entry)
            .map(|(name, _)| Tag::named(&self.inner.config.prefix, name).key().clone())
            .collect();
        let kept = match keys.is_empty() {
            true => Some(Vec::new()),
            false => boxed(|| self.stamps_for(&keys, ttl)).await?,
        };
        let kept = kept.unwrap_or_default();
        Ok(kept
            .into_iter()
            .eq(entry::tags(entry).map(|(_, stamp)| stamp)))
    }

    /// Checks an entry. `stamps` are those of the tags of the call.
    async fn check(&self, entry: &[u8], stamps: &[Option<Stamp>]) -> Checked {
        match self.compare(entry, self.tags, stamps) {
            Tags::Outdated => Checked::Outdated,
            Tags::Current if self.is_plain() => Checked::Current(self.reading),
            tags => boxed(|| self.check_more(entry, stamps, tags)).await,
        }
    }

    /// Returns whether no eviction by tag waits that could hide an entry from this call.
    pub(super) fn is_plain(&self) -> bool {
        self.scope == ScopeState::Outside && self.inner.journal.depth() == 0
    }

    async fn check_more(&self, entry: &[u8], stamps: &[Option<Stamp>], tags: Tags) -> Checked {
        if let Some(miss) = self.hidden_by_tags(entry) {
            return Checked::Hidden(miss);
        }
        let Tags::Unknown(unknown) = tags else {
            return Checked::Current(self.reading);
        };
        // Before the store is asked for the stamps.
        let reading = self.reading_with(&unknown);
        let keys: Vec<_> = unknown.iter().map(|tag| tag.key().clone()).collect();
        let more = match self.stamps_now(&keys).await {
            Ok(more) => more,
            Err(error) => return Checked::Failed(error),
        };
        let known: Vec<_> = self.tags.iter().chain(&unknown).cloned().collect();
        let stamps: Vec<_> = stamps.iter().copied().chain(more).collect();
        match self.compare(entry, &known, &stamps) {
            Tags::Current => Checked::Current(reading),
            Tags::Outdated | Tags::Unknown(_) => Checked::Outdated,
        }
    }

    /// Returns why the tags of an entry hide it from this call, if they do: an eviction of one of them is in the journal, or
    /// waits for the scope of the call.
    fn hidden_by_tags(&self, entry: &[u8]) -> Option<Miss> {
        if self.is_plain() {
            return None;
        }
        let tags = || {
            let names = entry::tags(entry);
            names.map(|(name, _)| Tag::named(&self.inner.config.prefix, name))
        };
        let is_scoped = |tag: Tag| pending::covers_tag(self.inner, &tag);
        let (event, mode) = if tags().any(is_scoped) {
            (Event::MissScoped, LoadMode::Solo)
        } else if tags().any(|tag| self.inner.journal.blocks_tag(&tag)) {
            (Event::MissJournaled, LoadMode::Share)
        } else {
            return None;
        };
        Some(self.unasked(event, mode, Observed::Nothing, None))
    }

    /// Compares the tags of an entry to the stamps of known tags.
    fn compare(&self, entry: &[u8], known: &[Tag], stamps: &[Option<Stamp>]) -> Tags {
        // Claims and unreadable entries are not served anyway.
        if !entry::is_value(entry, self.key) {
            return Tags::Current;
        }
        let mut unknown = Vec::new();
        for (name, stamp) in entry::tags(entry) {
            match known.iter().position(|tag| tag.text() == name) {
                Some(at) if stamps.get(at) == Some(&Some(stamp)) => {}
                Some(_) => return Tags::Outdated,
                None if unknown.iter().any(|tag: &Tag| tag.text() == name) => {}
                None => unknown.push(Tag::named(&self.inner.config.prefix, name)),
            }
        }
        let is_named = |tag: &Tag| entry::tags(entry).any(|(name, _)| name == tag.text());
        match self.tags.iter().all(is_named) {
            false => Tags::Outdated,
            true if unknown.is_empty() => Tags::Current,
            true => Tags::Unknown(unknown),
        }
    }
}

impl Cache {
    /// Checks the tags of many entries at once. Equal tags are asked for once.
    pub(super) async fn check_many(
        &self,
        calls: &[CallContext<'_>],
        found: Vec<Option<Vec<u8>>>,
    ) -> Result<Vec<Answer>, Error> {
        let names = found.iter().flatten().flat_map(|entry| entry::tags(entry));
        let names: HashSet<_> = names.map(|(name, _)| name).collect();
        let tags = names.into_iter();
        let keys: Vec<_> = tags.map(|name| Tag::named(self.prefix(), name)).collect();
        let stamps = match calls.first() {
            Some(call) if !keys.is_empty() => {
                let keys: Vec<_> = keys.iter().map(|tag| tag.key().clone()).collect();
                call.stamps_now(&keys).await?
            }
            _ => Vec::new(),
        };
        let answers = iter::zip(calls, found).map(|(call, entry)| {
            let tags = match &entry {
                Some(entry) if entry::has_tags(entry) => {
                    if let Some(miss) = call.hidden_by_tags(entry) {
                        return Answer::Unasked(miss);
                    }
                    call.compare(entry, &keys, &stamps)
                }
                _ => Tags::Current,
            };
            let found = Found {
                entry,
                stamps: Vec::new(),
            };
            match tags {
                Tags::Current => Answer::Found(found, None),
                Tags::Outdated | Tags::Unknown(_) => Answer::Outdated(found),
            }
        });
        Ok(answers.collect())
    }
}

#[cfg(test)]
mod tests;
