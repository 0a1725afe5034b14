//! What the background task does with the journal once Redis answers: each eviction is tried, those that Redis refuses stay, and the
//! cache is opened for everything that they do not name.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Inner;
use super::journal::Batch;
use super::purge::{Behalf, Progress, Purge};
use crate::error::Error;
use crate::site::Site;
use crate::store::backoff;
use crate::store::guard::{On, Op, Via};
use crate::target::Target;

/// The site in the statistics for background work: recovery, and leases that are given back.
pub(super) static BACKGROUND: Site = Site::new("background", "");

/// This many failures in a row without an outage are not an accident.
const HINDERED: u32 = 3;

/// Targets that one line of the log names.
const NAMED: usize = 5;

/// When to look at the journal again.
pub(super) enum Next {
    /// After a pause, whatever happens.
    Pause(Duration),
    /// When there is something to do, or at this moment.
    WorkOrAt(Option<Instant>),
}

/// How far the journal is applied.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    current: Option<Round>,
    /// Errors in a row.
    failures: u32,
    /// Rounds in a row in which Redis refused something.
    refusals: u32,
    retry_at: Option<Instant>,
    /// How often parts of the store had come back when the journal was applied last.
    reopened: u64,
    /// The reasons that were warned about.
    warned: BTreeSet<String>,
}

/// One batch on its way to the store.
#[derive(Debug)]
struct Round {
    batch: Batch,
    purge: Purge,
    /// How many connections had been lost when it began, and which server it was.
    losses: u64,
    server: Option<String>,
}

impl Recovery {
    /// Applies what is in the journal at this moment, and opens the cache when all of that was tried.
    pub(super) async fn drain_and_open(&mut self, inner: &Inner) -> Next {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            inner.journal.retry_refused();
            // A node may serve its slots again without a change that anyone notices.
            inner.journal.retry_held();
        }
        let reopened = inner.guard.store().reopened();
        if reopened != self.reopened {
            self.reopened = reopened;
            inner.journal.retry_held();
        }
        let server = inner.catch_up();
        if inner.guard.is_divided() {
            // What a node may lack is in the journal, which blocks it key by key.
            inner.guard.store().admit(server);
        }
        // One round: under constant evictions the journal is never empty, and a server that is back must not wait for that.
        if let Err(error) = self.apply_round(inner).await {
            self.failures += 1;
            debug!(%error, failures = self.failures, "the journal could not be applied yet");
            if inner.guard.is_connected() {
                if self.failures >= HINDERED {
                    inner.journal.hindered(error.cause());
                }
            } else {
                inner.guard.is_unavailable_because(error.cause());
            }
            let longest = inner.config.reconnect_max_delay;
            return Next::Pause(backoff::pause(self.failures, longest));
        }
        self.failures = 0;
        // What was added since blocks its keys until it is applied.
        inner.guard.finish_recovery(server);
        if !inner.journal.is_any_put_off() {
            self.refusals = 0;
            self.retry_at = None;
            if !std::mem::take(&mut self.warned).is_empty() {
                info!("Redis accepted the evictions that it had refused");
            }
        } else if self.retry_at.is_none() {
            self.refusals += 1;
            let pause = backoff::pause(self.refusals, inner.config.reconnect_max_delay);
            self.retry_at = Some(Instant::now() + pause);
        }
        if inner.journal.is_any_pending() {
            return Next::Pause(Duration::ZERO);
        }
        Next::WorkOrAt(self.retry_at)
    }

    /// Redis is reachable again: targets that it refused before are tried at once.
    pub(super) fn begin_again(&mut self, inner: &Inner) {
        self.retry_at = None;
        inner.journal.retry_refused();
    }

    /// Applies what is in the journal at this moment, except for what Redis refuses. An error leaves the rest for the next call, which
    /// goes on where this one stopped.
    pub(super) async fn apply(&mut self, inner: &Inner) -> Result<(), Error> {
        while self.apply_round(inner).await? {}
        Ok(())
    }

    /// The same for one batch. Returns whether there was one.
    async fn apply_round(&mut self, inner: &Inner) -> Result<bool, Error> {
        let mut round = match self.current.take() {
            Some(round) => round,
            None => match inner.journal.pending() {
                Some(batch) => Round::begin(inner, batch).await,
                None => return Ok(false),
            },
        };
        let outcome = round.run(inner).await;
        self.book(inner, &round.batch, round.purge.take_progress());
        if outcome.is_err() {
            self.current = Some(round);
        }
        outcome.map(|()| true)
    }

    fn book(&mut self, inner: &Inner, batch: &Batch, progress: Progress) {
        let Progress {
            removed: _,
            applied,
            refused,
            missed,
        } = progress;
        inner.journal.applied(batch, &applied);
        for (target, part) in &missed {
            inner.journal.missed(batch, target, part);
        }
        inner.hold_unconfirmed(&applied);
        for (target, cause) in &refused {
            inner.journal.refused(batch, target, cause);
        }
        let Some((_, cause)) = refused.last() else {
            return;
        };
        if self.warned.insert(cause.clone()) {
            let targets = refused.iter().map(|(target, _)| target);
            warn!(
                error = cause,
                evictions = refused.len(),
                targets = inner.named(targets),
                "Redis refuses evictions: this process does not cache the affected entries, and other processes serve them until their TTL ends"
            );
        }
    }
}

impl Round {
    async fn begin(inner: &Inner, batch: Batch) -> Self {
        inner.note(batch.targets());
        let purge = Purge::new(batch.targets(), batch.reach(), &inner.config.prefix);
        let losses = inner.guard.losses();
        let server = match purge.is_scanning() && !inner.guard.is_divided() {
            true => server(inner).await,
            false => None,
        };
        Self {
            batch,
            purge,
            losses,
            server,
        }
    }

    async fn run(&mut self, inner: &Inner) -> Result<(), Error> {
        let losses = inner.guard.losses();
        // The walk of a cluster knows its servers itself.
        if self.purge.is_scanning() && losses != self.losses && !inner.guard.is_divided() {
            // A cursor has no meaning on another server, or on the same server after a restart.
            let server = server(inner).await;
            if server.is_none() || server != self.server {
                self.purge.restart_scan();
            }
            (self.losses, self.server) = (losses, server);
        }
        let metrics = inner.metrics.site(&BACKGROUND.metrics);
        let behalf = Behalf {
            site: &BACKGROUND,
            metrics: &metrics,
            via: Via::Recovery,
        };
        self.purge.run(inner, behalf).await
    }
}

/// Identifies one start of a server.
async fn server(inner: &Inner) -> Option<String> {
    let metrics = inner.metrics.site(&BACKGROUND.metrics);
    let op = Op {
        via: Via::Recovery,
        ..Op::new("info", &BACKGROUND, &metrics, On::Server)
    };
    let info = inner.run(op, |store| store.server()).await.ok()??;
    Some(info.run_id).filter(|id| !id.is_empty())
}

impl Inner {
    /// The first of these targets, for a line of the log.
    pub(super) fn named<'a>(&self, targets: impl Iterator<Item = &'a Target>) -> String {
        let mut text = String::new();
        for (index, target) in targets.enumerate() {
            if index == NAMED {
                text.push_str(", …");
                break;
            }
            if index > 0 {
                text.push_str(", ");
            }
            text.push_str(&target.shown(self.config.mask_keys).to_string());
        }
        text
    }
}
