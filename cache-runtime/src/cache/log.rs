//! Logs what calls do: changes and misses at `debug`, hits at `trace`. An event without a subscriber costs one comparison;
//! its fields are not rendered.

use std::fmt;
use std::time::Duration;

use tracing::{debug, trace};

use super::call::CallContext;
use super::codec::NewEntry;
use super::{Evicted, Inner};
use crate::key::Key;
use crate::metrics::Event;
use crate::site::Site;
use crate::target::Target;

impl CallContext<'_> {
    /// The entry was served.
    pub(super) fn log_hit(&self, event: Event, took: Duration) {
        trace!(
            function = self.site.name,
            key = %self.shown_key(),
            ttl = ?self.ttl,
            elapsed = ?took,
            is_stale = event == Event::HitStale,
            "cache hit"
        );
    }

    /// Logs a miss with the reason that the statistics count.
    pub(super) fn log_miss(&self, event: Event) {
        debug!(
            function = self.site.name,
            key = %self.shown_key(),
            reason = event.miss_reason(),
            ttl = ?self.ttl,
            elapsed = ?self.started.elapsed(),
            "cache miss"
        );
    }

    /// Logs whether a loaded value is stored.
    pub(super) fn log_fill(&self, event: Event, new: &NewEntry) {
        let (function, key) = (self.site.name, self.shown_key());
        match event {
            Event::Fill => debug!(
                function,
                %key,
                ttl = ?self.ttl_without_grace(new),
                elapsed = ?self.started.elapsed(),
                "cache fill"
            ),
            _ => debug!(
                function,
                %key,
                is_refused = event == Event::FillRefused,
                elapsed = ?self.started.elapsed(),
                "cache fill skipped"
            ),
        }
    }

    /// Logs that the value of a put is stored.
    pub(super) fn log_put(&self, new: &NewEntry) {
        debug!(
            function = self.site.name,
            key = %self.shown_key(),
            ttl = ?self.ttl_without_grace(new),
            elapsed = ?self.started.elapsed(),
            "cache put"
        );
    }

    /// For how long what is stored is fresh.
    pub(super) fn ttl_without_grace(&self, new: &NewEntry) -> Duration {
        new.expires_in.saturating_sub(self.grace)
    }

    fn shown_key(&self) -> impl fmt::Display + '_ {
        self.key.shown(self.inner.config.mask_keys)
    }
}

/// A value is stored by hand.
pub(super) fn set(inner: &Inner, site: &Site, key: &Key, ttl: Duration, took: Duration) {
    debug!(
        function = site.name,
        key = %key.shown(inner.config.mask_keys),
        ?ttl,
        elapsed = ?took,
        "cache set"
    );
}

/// Targets are removed, or owed to Redis.
pub(super) fn invalidated(
    inner: &Inner,
    site: &Site,
    targets: &[Target],
    evicted: Evicted,
    took: Duration,
) {
    let shown = shown(targets, inner.config.mask_keys);
    match evicted {
        Evicted::Applied { keys } => debug!(
            function = site.name,
            pattern = %shown,
            count = keys,
            elapsed = ?took,
            "cache invalidated"
        ),
        Evicted::Journaled => debug!(
            function = site.name,
            pattern = %shown,
            elapsed = ?took,
            "cache invalidation is pending until Redis answers"
        ),
        Evicted::Deferred | Evicted::Refused => {}
    }
}

/// Returns the text of a few targets.
pub(super) fn shown(targets: &[Target], mask: bool) -> impl fmt::Display + '_ {
    Shown { targets, mask }
}

/// A few targets in one line.
struct Shown<'a> {
    targets: &'a [Target],
    mask: bool,
}

/// The number of targets that are named. The rest are counted.
const NAMED: usize = 8;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, target) in self.targets.iter().take(NAMED).enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match target {
                Target::Key(key) => key.shown(self.mask).fmt(f)?,
                Target::Pattern(pattern) => pattern.shown(self.mask).fmt(f)?,
                Target::Tag(tag) => tag.shown(self.mask).fmt(f)?,
                Target::All => f.write_str("*")?,
            }
        }
        match self.targets.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
