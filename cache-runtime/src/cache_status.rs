//! The part that the cache had in some work, as the field `Cache-Status` of HTTP reports it.

use std::cmp::Ordering;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::cache::{CallReport, Spent, Wanted, collect};
use crate::metrics::Event;

/// The part that the cache had in some work, such as the handling of a request.
///
/// `Display` writes the parameters of a member of `Cache-Status` ([RFC 9211](https://www.rfc-editor.org/rfc/rfc9211)). With the feature
/// `http`, the `CacheStatusLayer` does this for every response. This type is for other servers:
///
/// ```
/// use cache_runtime::{Cache, CacheStatus, cacheable};
///
/// #[cacheable(key = "greeting:<name>", ttl = 60)]
/// async fn greeting(name: &str) -> String {
///     format!("hello, {name}")
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # Cache::memory().run(async {
/// let (text, status) = CacheStatus::of(greeting("Ada")).await;
///
/// let field = status.map(|status| format!("shop; {status}"));
/// assert_eq!(field.as_deref(), Some("shop; fwd=miss; stored"));
/// # assert_eq!(text, "hello, Ada");
/// # }).await;
/// # }
/// ```
///
/// | parameters | meaning |
/// |---|---|
/// | `hit; ttl=1234` | entries answered, from Redis or from this process. The first of them expires in 1,234 s |
/// | `hit; ttl=-12; detail=STALE` | an entry answered that expired 12 s ago, within its grace |
/// | `fwd=miss; collapsed` | the load of another caller provided the value |
/// | `fwd=miss; stored` | the body ran, and its value was stored |
/// | `fwd=stale; stored` | the same, because the entry had expired |
/// | `fwd=miss` | the body ran, and its value was not stored |
/// | `fwd=miss; detail=REFUSED` | it was not stored because the key was evicted or written in the meantime |
/// | `fwd=miss; detail=FAILED` | it was not stored because Redis did not store it |
/// | `fwd=bypass; detail=fallback` | the cache could not be used. The details are the reasons of `cache_bypass_total` |
///
/// If there were several reads, the status is that of the read that is furthest down in the table. Puts and evictions have no status.
/// A read that a body makes is a read of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    worst: Answer,
    spent: [Duration; 3],
}

/// How a read was answered. Later variants are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Milliseconds until the entry expires.
    Hit(i64),
    Stale(i64),
    Forwarded(Forward, Value),
    Bypass(&'static str),
}

/// Why a body had to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Forward {
    Miss,
    Stale,
}

/// Where the value came from, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Collapsed,
    Stored,
    NotStored,
    Refused,
    Failed,
}

impl CacheStatus {
    /// Runs `work`. Returns the status of all reads in it, or [`None`] if it read nothing.
    ///
    /// - These are the calls of functions with `#[cacheable]` and of methods such as [`Cache::get`](crate::Cache::get), also of caches
    ///   other than the installed one.
    /// - Only the first 256 calls count.
    /// - Work in another task counts only if it is wrapped in [`in_current_run`](crate::in_current_run), and only until `work` ends.
    pub async fn of<T>(work: impl Future<Output = T>) -> (T, Option<Self>) {
        let (output, calls) = collect(Wanted::Reports, work).await;
        let reports = calls.calls.iter().map(|call| &call.report);
        (output, Self::sum(reports))
    }

    fn sum<'a>(reports: impl Iterator<Item = &'a CallReport>) -> Option<Self> {
        let mut spent = [Duration::ZERO; 3];
        let mut worst = None;
        for report in reports {
            for (sum, micros) in spent.iter_mut().zip(report.spent) {
                *sum += Duration::from_micros(micros.into());
            }
            let answer = Answer::of(report);
            worst = match (worst, answer) {
                (Some(known), Some(answer)) if answer.compare(known).is_le() => Some(known),
                (known, answer) => answer.or(known),
            };
        }
        worst.map(|worst| Self { worst, spent })
    }

    /// Returns the value of the field `Server-Timing` ([W3C](https://www.w3.org/TR/server-timing/)), with durations in milliseconds:
    /// `cache;desc="hit";dur=0.412, wait;dur=0.000, load;dur=0.000`.
    ///
    /// - `cache` is the time that reads, puts and evictions spent in Redis.
    /// - `wait` is the time that they waited for loads of other callers.
    /// - `load` is the time that their bodies ran. It includes the time of calls inside.
    ///
    /// Times of calls that ran at the same time are added up. Show them only to developers: from the times, a client can learn
    /// which data others have requested.
    pub fn server_timing(&self) -> String {
        let millis = |on: Spent| self.spent[on as usize].as_secs_f64() * 1_000.0;
        format!(
            "cache;desc=\"{}\";dur={:.3}, wait;dur={:.3}, load;dur={:.3}",
            self.worst.word(),
            millis(Spent::Store),
            millis(Spent::Waiting),
            millis(Spent::Loading),
        )
    }
}

impl Answer {
    /// Returns [`None`] for a call that is not a read, and for one that was cancelled.
    fn of(report: &CallReport) -> Option<Self> {
        let result = report.result?;
        let value = match (report.load, report.outcome) {
            (Some(Event::LoadShared | Event::LoadAwaited), _) => Value::Collapsed,
            (_, Some(Event::Fill)) => Value::Stored,
            (_, Some(Event::FillRefused)) => Value::Refused,
            (_, Some(Event::FillFailed)) => Value::Failed,
            _ => Value::NotStored,
        };
        match (result.result()?, result.miss_reason()) {
            ("hit" | "local" | "none" | "outage", _) => Some(Self::Hit(report.ttl_left)),
            ("stale", _) => Some(Self::Stale(report.ttl_left)),
            ("miss", Some("stale")) => Some(Self::Forwarded(Forward::Stale, value)),
            ("miss", _) => Some(Self::Forwarded(Forward::Miss, value)),
            ("bypass", Some(reason)) => Some(Self::Bypass(reason)),
            _ => None,
        }
    }

    /// A greater answer is worse. Of two hits, that with less time left is worse.
    fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Hit(one), Self::Hit(other)) | (Self::Stale(one), Self::Stale(other)) => {
                other.cmp(&one)
            }
            (Self::Forwarded(forward, value), Self::Forwarded(other, other_value)) => {
                (value, forward).cmp(&(other_value, other))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Hit(_) => 0,
            Self::Stale(_) => 1,
            Self::Forwarded(..) => 2,
            Self::Bypass(_) => 3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Hit(_) => "hit",
            Self::Stale(_) => "stale",
            Self::Forwarded(..) => "miss",
            Self::Bypass(_) => "bypass",
        }
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worst {
            Answer::Hit(left) => write!(f, "hit; ttl={}", left / 1_000),
            // Rounded away from zero, because 0 would be fresh.
            Answer::Stale(left) => {
                write!(
                    f,
                    "hit; ttl={}; detail=STALE",
                    left.min(-1).div_euclid(1_000)
                )
            }
            Answer::Forwarded(forward, value) => {
                f.write_str(match forward {
                    Forward::Miss => "fwd=miss",
                    Forward::Stale => "fwd=stale",
                })?;
                f.write_str(match value {
                    Value::Collapsed => "; collapsed",
                    Value::Stored => "; stored",
                    Value::NotStored => "",
                    Value::Refused => "; detail=REFUSED",
                    Value::Failed => "; detail=FAILED",
                })
            }
            Answer::Bypass(reason) => write!(f, "fwd=bypass; detail={reason}"),
        }
    }
}

#[cfg(test)]
mod tests;
