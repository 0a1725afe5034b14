//! A policy as numbers: what the script gets, and what the functions work with. Times are milliseconds.

/// How units are counted.
///
/// | | most units in any window | what an honest client waits longer than it must | memory of a client |
/// |---|---|---|---|
/// | [`SlidingLog`](Self::SlidingLog) | the limit | nothing | 4 bytes for each unit |
/// | [`SlidingBuckets`](Self::SlidingBuckets) | the limit | a 60th of the window at most | some 300 bytes |
/// | [`Gcra`](Self::Gcra) | twice the limit, less 1 | nothing | some 100 bytes |
///
/// The usual approximation by two counters is not among them: it lets through as much as a `Gcra` and costs as much as a log.
///
/// ```
/// use cache_runtime::Cache;
/// use cache_runtime::limit::{Algorithm, Policy, RateLimiter};
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// let cache = Cache::memory();
/// // Bursts of 50, then a webhook every 20 ms.
/// let webhooks = Policy::new("webhooks").limit(50).per("1s").algorithm(Algorithm::Gcra);
/// let limiter = RateLimiter::new(&cache, [webhooks])?;
/// # drop(limiter);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Remembers when each unit of the window was used.
    SlidingLog,
    /// Counts in 60 parts of the window; a part that has left it in part still counts as a whole.
    SlidingBuckets,
    /// The generic cell rate algorithm (ITU-T I.371): a bucket that drains evenly, so that after a burst there is one unit at a
    /// time.
    ///
    /// - At one time it admits at most `limit` units.
    /// - In `d` milliseconds it admits at most `limit + limit × d ÷ window` units, rounded down.
    /// - So a window, whose last millisecond is `window - 1` after its first, holds at most `2 × limit - limit ÷ window` units,
    ///   rounded down. That is `2 × limit - 1` if the limit is not larger than the number of milliseconds.
    ///
    /// A client reaches these bounds with a burst, after which it uses each unit as soon as there is one. A unit that was
    /// [counted and then cancelled](super::Reservation::cancel) does not count.
    Gcra,
}

/// A policy's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) algorithm: Algorithm,
    pub(crate) limit: u32,
    pub(crate) window: u64,
    pub(crate) penalties: Option<Penalties>,
}

/// A penalty's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Penalties {
    pub(crate) first: u64,
    pub(crate) longest: u64,
    pub(crate) forgive_after: u64,
}

/// The answer of one policy for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) verdict: Verdict,
    pub(crate) used: Used,
    /// When the same call may succeed; 0 if it just did.
    pub(crate) retry: u64,
    /// When more is to be had than now; 0 if all is.
    pub(crate) more: u64,
    pub(crate) standing: PenaltyState,
}

/// The answer of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fits,
    OverLimit,
    Blocked,
}

/// How much of the limit is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    /// The number of units, at most the limit.
    Units(u32),
    /// The bucket is empty in this many milliseconds and parts of a millisecond. One millisecond has as many parts as the
    /// limit.
    Drained { millis: u64, parts: u64 },
    /// All of it, or it was not asked: the client is blocked.
    Unknown,
}

/// The penalty state of a client. Times are relative to the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PenaltyState {
    pub(crate) strikes: u8,
    /// How long ago the last one was.
    pub(crate) struck: u64,
    /// For how long the client is still blocked.
    pub(crate) blocked: u64,
    /// How long that block is as a whole.
    pub(crate) block: u64,
}

impl Rule {
    /// For how long what is used now counts.
    pub(crate) fn span(&self) -> u64 {
        match self.algorithm {
            Algorithm::SlidingLog | Algorithm::Gcra => self.window,
            Algorithm::SlidingBuckets => super::buckets::span(self.window),
        }
    }

    /// How many units could be had.
    pub(crate) fn remaining(&self, used: Used) -> u32 {
        match used {
            Used::Units(units) => self.limit.saturating_sub(units),
            Used::Drained { millis, parts } => {
                let limit = u64::from(self.limit);
                let space = (self.window.saturating_sub(millis) * limit).saturating_sub(parts);
                u32::try_from(space / self.window).unwrap_or(u32::MAX)
            }
            Used::Unknown => 0,
        }
    }
}

/// The answer of an algorithm for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RuleCheck {
    pub(super) fits: bool,
    pub(super) used: Used,
    pub(super) retry: u64,
    pub(super) more: u64,
}
