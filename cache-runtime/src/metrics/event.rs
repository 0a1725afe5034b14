//! The table of everything that is counted.

/// What an event means for the call that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A read that an entry answered.
    Hit,
    /// A read without a result, and the reason.
    Miss(&'static str),
    /// A miss of a read that could not use the cache, and the reason.
    Bypass(&'static str),
    /// A put, an eviction, a set or a delete.
    Write,
    /// A put that stored nothing, and the reason.
    Degraded(&'static str),
    /// Something on the way.
    Step,
}

impl Kind {
    /// Returns whether the caller asked for it: those events, and no others, are the operations of the statistics.
    pub(super) fn is_operation(&self) -> bool {
        matches!(
            self,
            Self::Hit | Self::Miss(_) | Self::Bypass(_) | Self::Write
        )
    }

    /// Returns the reason of a miss, or [`None`] if it is not a miss.
    pub(super) fn miss_reason(&self) -> Option<&'static str> {
        match self {
            Self::Miss(reason) | Self::Bypass(reason) => Some(reason),
            _ => None,
        }
    }
}

impl Event {
    /// Returns the result of the call that this event answers, as metrics name it. [`None`] for a step on the way.
    pub(crate) fn result(self) -> Option<&'static str> {
        match (self, &Self::ALL[self as usize].1) {
            (Self::HitLocal, _) => Some("local"),
            (Self::HitOutage, _) => Some("outage"),
            (Self::HitNone, _) => Some("none"),
            (Self::HitStale, _) => Some("stale"),
            (Self::Put, _) => Some("put"),
            (Self::Evict, _) => Some("evict"),
            (_, Kind::Hit) => Some("hit"),
            (_, Kind::Miss(_)) => Some("miss"),
            (_, Kind::Bypass(_)) => Some("bypass"),
            (_, Kind::Write) => Some("write"),
            (_, Kind::Degraded(_) | Kind::Step) => None,
        }
    }

    /// Returns whether it tells what became of an eviction.
    pub(crate) fn is_eviction(self) -> bool {
        matches!(
            self,
            Self::EvictApplied | Self::EvictDeferred | Self::EvictJournaled
        )
    }

    /// Returns the reason why a put stored nothing, or [`None`] if the event is not such a put.
    pub(super) fn degraded_reason(self) -> Option<&'static str> {
        match Self::ALL[self as usize].1 {
            Kind::Degraded(reason) => Some(reason),
            _ => None,
        }
    }

    /// Returns the reason of a miss, or [`None`] if the event is not a miss.
    pub(crate) fn miss_reason(self) -> Option<&'static str> {
        Self::ALL[self as usize].1.miss_reason()
    }
}

/// Declares what is counted, and how many that are: one counter each.
macro_rules! counted {
    ($(#[doc = $doc:literal])* $name:ident: $($event:ident,)*) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($event,)*
        }

        impl $name {
            const COUNT: usize = [$(Self::$event,)*].len();
        }
    };
}

pub(super) use counted;

macro_rules! events {
    ($($(#[doc = $doc:literal])* $event:ident => $kind:expr,)*) => {
        /// What can happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Event {
            $($(#[doc = $doc])* $event,)*
        }

        impl Event {
            /// Every event with its kind, in the order of the counters.
            pub(super) const ALL: &'static [(Self, Kind)] = &[$((Self::$event, $kind),)*];
        }
    };
}

events! {
    /// A value was served.
    Hit => Kind::Hit,
    /// A remembered `None` was served.
    HitNone => Kind::Hit,
    /// A value or a `None` was served within its grace.
    HitStale => Kind::Hit,
    /// A value in this process was served.
    HitLocal => Kind::Hit,
    /// A value in this process was served although Redis is unavailable.
    HitOutage => Kind::Hit,
    /// There was no entry.
    MissAbsent => Kind::Miss("absent"),
    /// Another process loads, and the caller gave up waiting for it.
    MissLeased => Kind::Miss("leased"),
    /// A put is under way.
    MissFenced => Kind::Bypass("fenced"),
    /// Redis is known to be unavailable.
    MissFallback => Kind::Bypass("fallback"),
    /// The read itself timed out or failed.
    MissFailed => Kind::Bypass("failed"),
    /// The key is disabled.
    MissDisabled => Kind::Bypass("disabled"),
    /// An eviction of this key is still to be applied.
    MissJournaled => Kind::Bypass("journaled"),
    /// The key is evicted when the scope that this read is in is committed.
    MissScoped => Kind::Bypass("scoped"),
    /// The entry has expired. If it is within its grace, this caller refreshed it.
    MissStale => Kind::Miss("stale"),
    /// A tag of the entry was evicted, or the entry does not have a tag of the call.
    MissTag => Kind::Miss("tag"),
    /// Another program's data is at this key.
    MissForeign => Kind::Miss("foreign"),
    /// The entry is of a format that this version does not read.
    MissFormat => Kind::Miss("format"),
    /// The bytes of the entry are inconsistent, or its own type cannot decode them.
    MissCorrupted => Kind::Miss("corrupted"),
    /// The entry is larger than `max_value`.
    MissTooLarge => Kind::Miss("too_large"),
    /// The entry belongs to another key.
    MissOtherKey => Kind::Miss("other_key"),
    /// The entry holds a value of another type or version, or of a type that changed.
    MissOtherShape => Kind::Miss("other_shape"),
    /// The entry is of another build or type, but it fits and was used.
    Checked => Kind::Step,
    /// A load ended in a value or a `None`.
    LoadDone => Kind::Step,
    /// A load ended in `Err`.
    LoadErr => Kind::Step,
    /// A load ended by a panic or by cancellation.
    LoadDropped => Kind::Step,
    /// The load of another caller in this process provided the value.
    LoadShared => Kind::Step,
    /// The load of another process provided the value.
    LoadAwaited => Kind::Step,
    /// A loaded value was stored.
    Fill => Kind::Step,
    /// A loaded value was not stored: its lease no longer stood.
    FillRefused => Kind::Step,
    /// A loaded value was not stored: the store failed.
    FillFailed => Kind::Step,
    /// `unless` rejected the value.
    SkippedUnless => Kind::Step,
    /// A `None`, and the site has no `none_ttl`.
    SkippedNone => Kind::Step,
    /// The value exceeds `max_value`.
    TooLarge => Kind::Step,
    /// The value contains a payment card number.
    Card => Kind::Step,
    /// The value did not turn into bytes.
    EncodeFailed => Kind::Step,
    /// The value would not have come back as it is.
    Lossy => Kind::Step,
    /// A lease, or the mark of a refresh, ended before its load did.
    LeaseLost => Kind::Step,
    /// A load ran longer than `load_deadline` and no longer blocks other loads.
    LoadOverdue => Kind::Step,
    /// A load was woken and not polled, and no longer blocks other loads.
    LoadStuck => Kind::Step,
    /// A load waited because as many bodies ran as may.
    LoadQueued => Kind::Step,
    /// A stale value is being refreshed, by a caller or in the background.
    Refresh => Kind::Step,
    /// A refresh failed: the stale value stays for the time being.
    RefreshFailed => Kind::Step,
    /// The maximum number of background refreshes was reached, so the caller refreshed the value itself.
    RefreshCrowded => Kind::Step,
    /// A put's body returned something to store.
    Put => Kind::Write,
    /// A put stored its value.
    PutStored => Kind::Step,
    /// A put became an eviction: its fence was shared with other writers.
    PutJoined => Kind::Degraded("joined"),
    /// A put became an eviction: its fence had been replaced.
    PutReplaced => Kind::Degraded("replaced"),
    /// A put became an eviction: its fence had been evicted, had expired or was lost.
    PutGone => Kind::Degraded("gone"),
    /// A put became an eviction: Redis is unavailable, did not answer, or holds nothing at this key.
    PutUnanswered => Kind::Degraded("unanswered"),
    /// A put became an eviction: it is inside a scope, and what it would store is not committed.
    PutScoped => Kind::Degraded("scoped"),
    /// An eviction was issued.
    Evict => Kind::Write,
    /// Entries that an eviction removed; counted by [`SiteMetrics::add`](super::SiteMetrics::add).
    EvictedKeys => Kind::Step,
    /// The store acknowledged an eviction.
    EvictApplied => Kind::Step,
    /// An eviction joined a scope and waits for its commit.
    EvictDeferred => Kind::Step,
    /// An eviction went into the journal.
    EvictJournaled => Kind::Step,
    /// A value was stored through the handle.
    Set => Kind::Write,
    /// A key or pattern was removed through the handle.
    Delete => Kind::Write,
    /// A store operation failed.
    OperationFailed => Kind::Step,
    /// A store operation had no answer in time.
    OperationTimedOut => Kind::Step,
    /// A store operation gave up early, because Redis answered no operation.
    OperationReleased => Kind::Step,
    /// An operation took longer than `slow_threshold`.
    SlowOperation => Kind::Step,
}
