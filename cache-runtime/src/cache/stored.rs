//! What one call stores and what it finds stored: a value becomes an entry, and bytes become a value or the reason why not.

use std::time::Duration;

use tracing::{debug, warn};

use super::refresh::Stale;
use super::visit::Visit;
use crate::clock::whole_millis;
use crate::entry::{self, Draft, Entry, Limits, Origin, Read, Reader, Refusal, Unreadable};
use crate::error::{Error, ErrorKind};
use crate::metrics::{Event, Warning};
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
        let value = O::value(returned);
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
        let entry = self.encode(value, fresh, cost).ok()?;
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
        fresh: Duration,
        cost: Duration,
    ) -> Result<Entry, Error> {
        let draft = Draft {
            key: self.key,
            origin: self.origin::<T>(),
            now: self.now(),
            fresh,
            cost,
        };
        let entry = match value {
            None => entry::none(&draft),
            Some(value) => entry::value(&draft, value, &self.limits())
                .map_err(|refusal| self.refused(refusal))?,
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
            served_from: now.saturating_sub(whole_millis(self.grace)),
        };
        let (output, meta, event) = match entry::read::<O::Value>(bytes, &reader) {
            Read::Value(value, meta) => (O::from_value(value), meta, Event::Hit),
            // A site that returned an option once may return none today.
            Read::None(meta) => match O::from_none() {
                Some(none) => (none, meta, Event::HitNone),
                None => return Err(Obstacle::Unreadable(Unreadable::OtherShape)),
            },
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
    fn origin<T>(&self) -> Origin {
        Origin::of::<T>(self.inner.build.id(), self.site.version)
    }

    pub(super) fn unreadable(&self, reason: Unreadable) -> Event {
        let event = match reason {
            Unreadable::Foreign => Event::MissForeign,
            Unreadable::Format => Event::MissFormat,
            Unreadable::Corrupted => Event::MissCorrupted,
            Unreadable::OtherKey => Event::MissOtherKey,
            Unreadable::OtherShape => Event::MissOtherShape,
        };
        let key = self.key.shown(self.inner.config.mask_keys);
        if reason == Unreadable::OtherKey {
            tracing::error!(site = self.site.name, %key, "a reply belongs to another key; it is not used");
        } else {
            debug!(site = self.site.name, %key, ?reason, "an entry cannot be read; it is replaced");
        }
        event
    }

    fn refused(&self, refusal: Refusal) -> Error {
        let (event, warning, error) = match refusal {
            Refusal::TooLarge { bytes } => {
                let most = self.inner.config.max_value;
                let text = format!(
                    "a value of at least {bytes} bytes is not stored: `max_value` is {most}"
                );
                (
                    Event::TooLarge,
                    Warning::TooLarge,
                    Error::new(ErrorKind::Refused, text),
                )
            }
            Refusal::Card => {
                let text =
                    "a value that contains a payment card number is not stored: `card_guard` is on";
                (
                    Event::Card,
                    Warning::Card,
                    Error::new(ErrorKind::Refused, text),
                )
            }
            Refusal::Encode(cause) => {
                let text = "a value does not turn into JSON and is not stored";
                (
                    Event::EncodeFailed,
                    Warning::Encode,
                    Error::new(ErrorKind::Encode, text).because(cause),
                )
            }
        };
        self.metrics.count(event);
        if self.metrics.warn_once(warning) {
            let key = self.key.shown(self.inner.config.mask_keys);
            warn!(site = self.site.name, %key, %error, "a value is not cached; this is said once per function");
        }
        error
    }

    fn limits(&self) -> Limits {
        let config = &self.inner.config;
        Limits {
            max_value: config.max_value,
            compress_above: config.compress_above,
            card_guard: config.card_guard,
        }
    }
}
