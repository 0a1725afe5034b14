//! Records every operation, of any caller.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::key::{Key, Pattern};
use crate::metrics::{Event, Mode, SiteMetrics, Warning};
use crate::site::Site;
use crate::sync::Mutex;

/// A refusal is reported for this long after it was seen last. Without a limit, one refused write of a service that never
/// writes again would be reported forever.
const REMEMBERED: Duration = Duration::from_secs(60);

/// One store operation.
#[derive(Clone, Copy)]
pub(crate) struct Op<'a> {
    /// Its name in the log, such as `get`.
    pub(crate) name: &'static str,
    pub(crate) site: &'static Site,
    pub(crate) metrics: &'a SiteMetrics,
    pub(crate) on: On<'a>,
    pub(crate) via: Via,
    pub(crate) began: Instant,
}

/// What an operation is about. An operation on several keys is logged under the first of them.
#[derive(Clone, Copy)]
pub(crate) enum On<'a> {
    Key(&'a Key),
    Pattern(&'a Pattern),
    Server,
}

/// The origin of an operation: callers are refused while the store recovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Caller,
    Recovery,
}

impl<'a> Op<'a> {
    /// An operation of a caller that begins now.
    pub(crate) fn new(
        name: &'static str,
        site: &'static Site,
        metrics: &'a SiteMetrics,
        on: On<'a>,
    ) -> Self {
        Self::since(Instant::now(), name, site, metrics, on)
    }

    /// The same where the clock was read just now.
    pub(crate) fn since(
        began: Instant,
        name: &'static str,
        site: &'static Site,
        metrics: &'a SiteMetrics,
        on: On<'a>,
    ) -> Self {
        Self {
            name,
            site,
            metrics,
            on,
            via: Via::Caller,
            began,
        }
    }
}

/// How operations went.
pub(super) struct Books {
    slow_threshold: Duration,
    mask_keys: bool,
    refused: Mutex<BTreeMap<&'static str, Refused>>,
    /// Whether anything is refused, to be read without the lock.
    is_any_refused: AtomicBool,
}

/// An operation that Redis answered with an error when it was tried last.
struct Refused {
    reason: String,
    at: Instant,
}

impl Books {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            slow_threshold: config.slow_threshold,
            mask_keys: config.mask_keys,
            refused: Mutex::default(),
            is_any_refused: AtomicBool::new(false),
        }
    }

    /// Records an operation that ended after `took`.
    pub(super) fn enter(
        &self,
        op: &Op<'_>,
        error: Option<&Error>,
        took: Duration,
        mode: impl FnOnce() -> Mode,
    ) {
        let metrics = op.metrics;
        let failure = error.map(Error::kind);
        match failure {
            // Nothing was sent.
            Some(ErrorKind::Unavailable) => return,
            Some(ErrorKind::Timeout) => metrics.count(Event::OperationTimedOut),
            Some(ErrorKind::Stalled) => metrics.count(Event::OperationReleased),
            Some(kind) => {
                metrics.count(Event::OperationFailed);
                if let (ErrorKind::Command, Some(error)) = (kind, error) {
                    self.refuse(op, error);
                }
            }
            None if self.is_any_refused.load(Ordering::Relaxed) => self.accept(op.name),
            None => {}
        }
        let is_slow = took >= self.slow_threshold;
        metrics.operated(op.name, took, failure, is_slow);
        if is_slow {
            metrics.count(Event::SlowOperation);
            #[cfg(feature = "admin")]
            metrics.saw_slow(op.name, self.shown(op.on).to_string(), took);
            let Some(suppressed) = metrics.slow.admit() else {
                return;
            };
            warn!(
                target: "cache_runtime::slow",
                operation = op.name,
                site = op.site.name,
                key = %self.shown(op.on),
                elapsed = ?took,
                elapsed_secs = took.as_secs_f64(),
                mode = ?mode(),
                suppressed,
                "slow cache operation"
            );
        }
    }

    fn shown<'a>(&self, on: On<'a>) -> Shown<'a> {
        Shown {
            on,
            mask: self.mask_keys,
        }
    }

    /// Returns what Redis refuses at present, one sentence per operation.
    pub(super) fn refusals(&self) -> Vec<String> {
        let refused = self.refused();
        let recent = refused
            .iter()
            .filter(|(_, refused)| refused.at.elapsed() < REMEMBERED);
        recent
            .map(|(name, Refused { reason, .. })| format!("Redis refuses `{name}`: {reason}"))
            .collect()
    }

    fn refuse(&self, op: &Op<'_>, error: &Error) {
        let reason = error.cause();
        // The recovery warns once for each reason and names what it concerns.
        if op.via == Via::Caller && op.metrics.warn_once(Warning::Command) {
            warn!(
                site = op.site.name,
                operation = op.name,
                error = reason,
                "Redis refuses an operation; this warning is logged once per function"
            );
        }
        let at = Instant::now();
        self.refused().insert(op.name, Refused { reason, at });
        self.is_any_refused.store(true, Ordering::Relaxed);
    }

    fn accept(&self, name: &'static str) {
        let mut refused = self.refused();
        refused.remove(name);
        self.is_any_refused
            .store(!refused.is_empty(), Ordering::Relaxed);
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<&'static str, Refused>> {
        self.refused.lock()
    }
}

/// An [`On`] in the log.
struct Shown<'a> {
    on: On<'a>,
    mask: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.on {
            On::Key(key) => key.shown(self.mask).fmt(f),
            On::Pattern(pattern) => pattern.shown(self.mask).fmt(f),
            On::Server => f.write_str("-"),
        }
    }
}
