//! A caller that waits for a load.

use std::sync::Arc;

use futures_util::future::select_all;
use tokio::time::{Instant, sleep_until};

use super::{Arrival, Flight, Flights, Leader, Observation, Phase, Stuck, Turn};
use crate::key::Key;

/// A caller that waits for the leader.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    pub(super) flights: &'a Flights,
    pub(super) key: &'a Key,
    pub(super) tags: &'a [u64],
    pub(super) flight: Arc<Flight>,
    pub(super) failed_loads: u32,
    pub(super) observation: Observation,
    /// Whether the load had not begun when the wait began.
    pub(super) is_queued: bool,
    /// No caller waits longer.
    pub(super) until: Instant,
}

impl<'a> Waiter<'a> {
    /// Waits until the load lands, until it is this caller's turn, or until the wait takes too long. If the load is too
    /// old, or its leader is stuck, one waiter begins another load and the rest wait for that.
    pub(crate) async fn arrival(mut self) -> Arrival<'a> {
        loop {
            match self.news().await {
                News::Arrival(arrival) => return arrival,
                News::Begun => {
                    self.is_queued = false;
                    continue;
                }
                News::Stuck | News::Overdue | News::TooOld => {}
            }
            match self
                .flights
                .enter(self.key, self.tags, self.observation, Stuck::Deposed)
            {
                Turn::Lead(leader) => return Arrival::Lead(leader),
                Turn::Wait(_) if Instant::now() >= self.until => return Arrival::Alone,
                Turn::Wait(next) => {
                    let until = self.until;
                    self = next;
                    self.until = until;
                }
            }
        }
    }

    /// Waits for a change of this load.
    async fn news(&self) -> News<'a> {
        let (ahead, overdue) = {
            let state = self.flight.state();
            match &state.phase {
                Phase::Queued(ahead) => (ahead.clone(), self.until),
                _ => {
                    let overdue = state.started + self.flights.deadline;
                    (Vec::new(), self.until.min(overdue))
                }
            }
        };
        let stuck = async {
            match ahead.is_empty() {
                true => self.flight.pulse.stuck().await,
                false => {
                    select_all(ahead.iter().map(|flight| Box::pin(flight.pulse.stuck()))).await;
                }
            }
        };
        let changed = async {
            loop {
                let changed = self.flight.changed.notified();
                if let Some(news) = self.look() {
                    return news;
                }
                changed.await;
            }
        };
        tokio::select! {
            biased;
            news = changed => news,
            () = sleep_until(overdue) => News::Overdue,
            () = stuck => News::Stuck,
        }
    }

    fn look(&self) -> Option<News<'a>> {
        let mut state = self.flight.state();
        let arrival = match &state.phase {
            Phase::Landed(_) if !state.serves(self.observation) => return Some(News::TooOld),
            Phase::Landed(entry) => Arrival::Landed(Arc::clone(entry)),
            Phase::Leaderless => {
                state.phase = Phase::Flying;
                drop(state);
                Arrival::Lead(Leader::new(
                    self.flights,
                    self.key,
                    Arc::clone(&self.flight),
                ))
            }
            Phase::Deposed => return Some(News::Stuck),
            Phase::Flying if self.is_queued => return Some(News::Begun),
            Phase::Flying if state.failed_loads > self.failed_loads => Arrival::Alone,
            Phase::Queued(_) | Phase::Flying => return None,
        };
        Some(News::Arrival(arrival))
    }
}

/// What a waiter learns of a load.
enum News<'a> {
    Arrival(Arrival<'a>),
    /// Its leader was woken and is not polled.
    Stuck,
    /// It takes too long.
    Overdue,
    /// Its result is from before this caller arrived.
    TooOld,
    /// It was queued and runs now.
    Begun,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(self.key);
        let mut state = self.flight.state();
        state.waiting -= 1;
        let (Phase::Leaderless | Phase::Queued(_)) = state.phase else {
            return;
        };
        if state.waiting > 0 {
            return;
        }
        let lease = state.claims.lease;
        drop(state);
        self.flights.remove(&mut shard, self.key, &self.flight);
        drop(shard);
        if let Some(lease) = lease {
            (self.flights.release)(self.key, lease);
        }
    }
}
