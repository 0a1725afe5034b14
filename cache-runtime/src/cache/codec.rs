//! What one call stores and what it finds stored: a value becomes an entry, and bytes become a value or the reason why not.

use std::time::Duration;

use super::refresh::Stale;
use super::visit::Visit;
use crate::clock::whole_millis;
use crate::entry::{self, Draft, Entry, Layers, Limits, Origin, Read, Reader, Unreadable};
use crate::error::{Error, ErrorKind};
use crate::metrics::Event;
use crate::site::{CacheValue, Outcome, Rules, Ttl};

/// An entry to be stored, and for how long.
pub(super) struct Fresh {
    pub(super) entry: Entry,
    pub(super) life: Duration,
}

/// An entry that is an answer.
pub(super) enum Answer<T> {
    /// A value, or a `None`.
    Fresh(T, Event),
    Stale(Stale<T>),
}

/// Why an entry is no answer.
pub(super) enum Obstacle {
    Lease,
    Fence,
    Expired,
    Unreadable(Unreadable),
}

impl Visit<'_> {
    /// The entry for what the body returned; [`None`] if that is not worth storing, or may not be stored.
    pub(super) fn fresh<O: Outcome>(
        &self,
        output: &O::Output,
        rules: &Rules<impl Fn(&O::Returned) -> bool, impl Fn(&O::Value) -> Option<Ttl>>,
        cost: Duration,
    ) -> Option<Fresh>
    where
        O::Value: CacheValue,
    {
        let returned = O::returned(output)?;
        if self.is_off {
            return None;
        }
        if (rules.unless)(returned) {
            self.metrics.count(Event::SkippedUnless);
            return None;
        }
        let layers = O::layers();
        let value = O::value(returned).filter(|value| !layers.is_ok_none(*value));
        let life = match value {
            Some(value) => (rules.ttl)(value).map_or(self.ttl, Ttl::as_duration),
            None => self.none_ttl.or_else(|| {
                self.metrics.count(Event::SkippedNone);
                None
            })?,
        };
        let fresh = self.with_jitter(life);
        if fresh < entry::SHORTEST_LIFE {
            return None;
        }
        let entry = self.encode(value, layers, fresh, cost).ok()?;
        let life = fresh.saturating_add(self.grace);
        Some(Fresh { entry, life })
    }

    /// A life that is shorter by chance, so that what is stored at once does not expire at once.
    fn with_jitter(&self, life: Duration) -> Duration {
        if self.ttl_jitter == 0 {
            return life;
        }
        let most = u128::from(self.ttl_jitter);
        let chance = u128::from(u64::from_le_bytes(entry::new_stamp()));
        // Of all that may be lost, a part from nothing to the whole.
        let lost = (life.as_nanos() * most / 100).saturating_mul(chance >> 32) >> 32;
        life.saturating_sub(Duration::from_nanos(
            u64::try_from(lost).unwrap_or(u64::MAX),
        ))
    }

    /// The entry for a value, or for a `None`.
    pub(super) fn encode<T: CacheValue>(
        &self,
        value: Option<&T>,
        layers: Layers,
        fresh: Duration,
        cost: Duration,
    ) -> Result<Entry, Error> {
        let origin = self.origin::<T>();
        let written = self.inner.types.written::<T>(self.site, origin.of_type);
        let draft = Draft {
            key: self.key,
            origin,
            layers,
            now: self.now(),
            fresh,
            cost,
        };
        let entry = match value {
            None => entry::none(&draft),
            Some(value) => entry::value(&draft, value, &self.limits(written.is_due()))
                .map_err(|refusal| self.refused(refusal, &written))?,
        };
        self.metrics.saw_bytes(entry.as_bytes().len());
        Ok(entry)
    }

    /// Refuses to store what nobody may read.
    pub(super) fn check_switched_on(&self) -> Result<(), Error> {
        match self.is_off {
            true => Err(Error::new(
                ErrorKind::Refused,
                "the key is switched off; nothing is stored until it is enabled",
            )),
            false => Ok(()),
        }
    }

    /// Reads an entry as what the function returns.
    pub(super) fn output<O: Outcome>(&self, bytes: &[u8]) -> Result<Answer<O::Output>, Obstacle>
    where
        O::Value: CacheValue,
    {
        let now = self.now();
        let reader = Reader {
            key: self.key,
            origin: self.origin::<O::Value>(),
            layers: O::layers(),
            now,
            grace: whole_millis(self.grace),
            max_value: self.inner.config.max_value,
        };
        let (output, meta, event) = match entry::read::<O::Value>(bytes, &reader) {
            Read::Value(value, meta) => (O::from_value(value), meta, Event::Hit),
            // A site that returned an option once may return none today.
            Read::None(meta) => {
                match O::from_none().or_else(|| entry::none_of(O::layers()).map(O::from_value)) {
                    Some(none) => (none, meta, Event::HitNone),
                    None => return Err(Obstacle::Unreadable(Unreadable::OtherShape)),
                }
            }
            Read::Lease => return Err(Obstacle::Lease),
            Read::Fence => return Err(Obstacle::Fence),
            Read::Expired => return Err(Obstacle::Expired),
            Read::Unreadable(reason) => return Err(Obstacle::Unreadable(reason)),
        };
        if meta.is_checked {
            self.metrics.count(Event::Checked);
        }
        if meta.is_stale(now) {
            let stamp = meta.stamp;
            return Ok(Answer::Stale(Stale { output, stamp }));
        }
        Ok(Answer::Fresh(output, event))
    }

    /// Who this function is, as a writer and as a reader of a `T`.
    pub(super) fn origin<T>(&self) -> Origin {
        Origin::of::<T>(self.inner.build.id(), self.site.version)
    }

    fn limits(&self, checks: bool) -> Limits {
        let config = &self.inner.config;
        Limits {
            max_value: config.max_value,
            compress_above: config.compress_above,
            card_guard: config.card_guard,
            checks,
        }
    }
}
