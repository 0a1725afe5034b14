//! Converts what one call stores and finds: a value becomes an entry, and bytes become a value or the reason that they are
//! not one.

use std::sync::Arc;
use std::time::Duration;

use super::call::CallContext;
use super::caller::{self, Appraisal, Caller, WriteJob};
use super::captured::Captured;
use super::types::Written;
use crate::clock::whole_millis;
use crate::entry::{
    self, Entry, Json, Limits, Meta, Payload, Read, Reader, Refusal, Stamp, Tagged, Unreadable,
    Value,
};
use crate::error::Error;
use crate::metrics::Event;
use crate::site::Ttl;

/// An entry to be stored.
pub(super) struct NewEntry {
    pub(super) entry: Entry,
    /// How long the store keeps it: its TTL and its grace.
    pub(super) expires_in: Duration,
    /// Otherwise it is only for the callers that wait for the load.
    pub(super) is_stored: bool,
}

/// How long an entry is fresh that is not stored. The callers that wait for it decode it at once.
const SHARED_TTL: Duration = Duration::from_secs(60);

/// The result of decoding the bytes of a key.
#[derive(Debug)]
pub(super) enum Decoded {
    /// A value or a `None`, which the caller keeps, and the event that it is counted as.
    Fresh(Event, Meta),
    /// A value within its grace, which the caller has.
    Stale(Stamp),
    Lease,
    Fence,
    Expired,
    Unreadable(Unreadable),
}

impl CallContext<'_> {
    /// Decodes an entry and leaves its value with the caller. Returns the bytes.
    pub(super) fn decode(&self, bytes: Vec<u8>, caller: &mut dyn Caller) -> (Decoded, Vec<u8>) {
        let now = self.now();
        match self.open(&bytes, now) {
            Ok((Some(payload), meta)) => {
                let json = Json::new(bytes, payload);
                let decoded = caller::decode_with(caller, &json);
                (self.decoded(decoded, meta, now), json.into_entry())
            }
            Ok((None, meta)) => (
                self.decoded_none(caller::decode_none_with(caller), meta, now),
                bytes,
            ),
            Err(other) => (other, bytes),
        }
    }

    /// The same inside the path, which asks for its caller.
    pub(super) async fn decode_later(&self, bytes: Vec<u8>) -> (Decoded, Vec<u8>) {
        let now = self.now();
        match self.open(&bytes, now) {
            Ok((Some(payload), meta)) => {
                let (decoded, json) = caller::decode(Json::new(bytes, payload)).await;
                (self.decoded(decoded, meta, now), json.into_entry())
            }
            Ok((None, meta)) => {
                let is_none = caller::decode_none().await;
                (self.decoded_none(is_none, meta, now), bytes)
            }
            Err(other) => (other, bytes),
        }
    }

    /// Reads an entry up to the JSON of its value; a `None` has none.
    fn open(&self, bytes: &[u8], now: u64) -> Result<(Option<Payload>, Meta), Decoded> {
        let reader = Reader {
            key: self.key,
            origin: self.origin(),
            now,
            grace: whole_millis(self.grace),
            max_value: self.inner.config.max_value,
        };
        match entry::read(bytes, &reader) {
            Read::Value(payload, meta) => Ok((Some(payload), meta)),
            Read::None(meta) => Ok((None, meta)),
            Read::Lease => Err(Decoded::Lease),
            Read::Fence => Err(Decoded::Fence),
            Read::Expired => Err(Decoded::Expired),
            Read::Unreadable(reason) => Err(Decoded::Unreadable(reason)),
        }
    }

    fn decoded(&self, decoded: Result<(), Unreadable>, meta: Meta, now: u64) -> Decoded {
        match decoded {
            Ok(()) => self.served(Event::Hit, meta, now),
            Err(reason) => Decoded::Unreadable(reason),
        }
    }

    /// A function that returned an `Option` before may not return an `Option` now.
    fn decoded_none(&self, is_none: bool, meta: Meta, now: u64) -> Decoded {
        match is_none {
            true => self.served(Event::HitNone, meta, now),
            false => Decoded::Unreadable(Unreadable::OtherShape),
        }
    }

    fn served(&self, event: Event, meta: Meta, now: u64) -> Decoded {
        if meta.is_checked {
            self.metrics.count(Event::Checked);
        }
        self.metrics.found(&meta, now);
        match meta.is_stale(now) {
            true => Decoded::Stale(meta.stamp),
            false => Decoded::Fresh(event, meta),
        }
    }

    /// Returns the entry for the body's result; [`None`] if it is not worth storing or must not be stored.
    pub(super) async fn encode(&self, cost: Duration, captured: Captured) -> Option<NewEntry> {
        self.encode_for(cost, false, captured).await
    }

    /// The same. If callers wait for the result, they get it also if it is not worth storing.
    pub(super) async fn encode_for(
        &self,
        cost: Duration,
        is_awaited: bool,
        captured: Captured,
    ) -> Option<NewEntry> {
        if self.is_off {
            return None;
        }
        let (is_none, ttl) = match caller::appraise().await {
            Appraisal::Failed => return None,
            Appraisal::Skipped { is_none } => {
                self.metrics.count(Event::SkippedUnless);
                (is_none, None)
            }
            Appraisal::Value(ttl) => (false, Some(ttl.map_or(self.ttl, Ttl::as_duration))),
            Appraisal::None => {
                if self.none_ttl.is_none() {
                    self.metrics.count(Event::SkippedNone);
                }
                (true, self.none_ttl)
            }
        };
        if ttl.is_none() && !is_awaited {
            return None;
        }
        let fresh = self.with_jitter(ttl.unwrap_or(SHARED_TTL));
        if fresh < entry::MIN_TTL {
            return None;
        }
        let expires_in = fresh.saturating_add(self.grace);
        let tags = match ttl {
            Some(_) => self.tags_of(captured, !is_none, expires_in).await,
            None => None,
        };
        let is_stored = tags.is_some();
        if !is_stored && !is_awaited {
            return None;
        }
        let tags = tags.unwrap_or_default();
        let entry = match is_none {
            // Only values are checked, and count towards the next check.
            true => self.sized(self.write_job(fresh, cost, false, tags).none()),
            false => {
                let job = self.write_job(fresh, cost, self.types_written().is_due(), tags);
                self.written(caller::write(job).await?).ok()?
            }
        };
        Some(NewEntry {
            entry,
            expires_in,
            is_stored,
        })
    }

    /// Returns the entry for a value that is stored by hand.
    pub(super) fn encode_value(
        &self,
        value: &dyn Value,
        ttl: Duration,
        tags: Vec<Tagged>,
    ) -> Result<Entry, Error> {
        let checks = self.types_written().is_due();
        let job = self.write_job(ttl, Duration::ZERO, checks, tags);
        self.written(job.write(value))
    }

    fn write_job(
        &self,
        ttl: Duration,
        cost: Duration,
        checks: bool,
        tags: Vec<Tagged>,
    ) -> WriteJob {
        let config = &self.inner.config;
        WriteJob {
            key: self.key.clone(),
            origin: self.origin(),
            layers: self.of.layers,
            now: self.now(),
            ttl,
            cost,
            limits: Limits {
                max_value: config.max_value,
                compress_above: config.compress_above,
                card_guard: config.card_guard,
                checks,
            },
            tags,
        }
    }

    fn written(&self, entry: Result<Entry, Refusal>) -> Result<Entry, Error> {
        entry
            .map(|entry| {
                let bytes = entry.as_bytes();
                self.metrics
                    .saw_value(entry::json_bytes(bytes), bytes.len());
                self.sized(entry)
            })
            .map_err(|refusal| self.refused(refusal, &self.types_written()))
    }

    /// Returns what this function stores of this type.
    fn types_written(&self) -> Arc<Written> {
        let types = &self.inner.types;
        types.written(self.site, self.of.number, self.of.name)
    }

    fn sized(&self, entry: Entry) -> Entry {
        self.metrics.saw_bytes(entry.as_bytes().len());
        entry
    }

    /// Returns a TTL that is shortened at random, so entries that are stored at the same time do not expire at the same
    /// time.
    fn with_jitter(&self, ttl: Duration) -> Duration {
        if self.ttl_jitter == 0 {
            return ttl;
        }
        let most = u128::from(self.ttl_jitter);
        let chance = u128::from(u64::from_le_bytes(entry::new_stamp()));
        // A random part of the jitter, from nothing to all of it.
        let lost = (ttl.as_nanos() * most / 100).saturating_mul(chance >> 32) >> 32;
        ttl.saturating_sub(Duration::from_nanos(
            u64::try_from(lost).unwrap_or(u64::MAX),
        ))
    }
}
