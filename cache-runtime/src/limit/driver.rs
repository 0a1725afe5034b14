//! Sends the calls of a crowd in batches.
//!
//! A caller that is cancelled while it waits is not charged. If a batch fails, the process decides each of its calls, as it does
//! for a single call that fails.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ask::{Call, answered, is_silence};
use super::crowd::{Told, Waiting};
use super::decision::Backend;
use super::state::How;
use super::table::Slot;
use super::wire::Batch;
use super::{Identity, Inner};
use crate::error::Error;
use crate::metrics::LimitEvent;

/// The most calls of a batch. The script takes hardly more time for many calls than for one call, but the callers are woken one
/// after another.
const MOST: usize = 1_024;

impl Inner {
    /// Starts a driver for the waiting calls of this kind.
    pub(super) fn drive(&self, call: Call<'_>) {
        if let Some(inner) = self.this.upgrade() {
            tokio::spawn(Driver::new(inner, call).run());
        }
    }

    /// A call has waited too long: the runtime of the driver may have ended or may not be running. All waiting calls begin again.
    pub(super) fn give_up(&self, call: Call<'_>) {
        let waiting = self.with(call, self.now(), |slots, crowds, _| {
            let waiting = crowds.abandon(call.kind());
            release(slots, call.cost, waiting.len());
            waiting
        });
        // Dropped without the lock, because this wakes the tasks of the callers.
        drop(waiting);
    }
}

/// Sends batches of equal calls of one client until none waits.
struct Driver {
    inner: Arc<Inner>,
    policies: Arc<[usize]>,
    client: Identity,
    cost: u32,
    /// Calls of the batch that is on its way.
    sent: u32,
    is_over: bool,
}

/// The calls that leave the queue together.
#[derive(Default)]
struct Departure {
    batch: Vec<Waiting>,
    /// How many answers each slot has had so far.
    seen: Vec<u32>,
    /// Calls that are decided without Redis.
    told: Vec<(Waiting, Told)>,
}

impl Driver {
    fn new(inner: Arc<Inner>, call: Call<'_>) -> Self {
        Self {
            inner,
            policies: Arc::clone(call.policies),
            client: call.client.clone(),
            cost: call.cost,
            sent: 0,
            is_over: false,
        }
    }

    async fn run(mut self) {
        while let Some(Departure { batch, seen, told }) = self.depart() {
            for (waiting, told) in told {
                tell(waiting, told);
            }
            if !batch.is_empty() {
                let result = self.ask(&batch).await;
                self.land(batch, &seen, result);
            }
        }
    }

    fn call(&self) -> Call<'_> {
        Call {
            policies: &self.policies,
            client: &self.client,
            cost: self.cost,
            how: How::Take,
        }
    }

    /// Takes the calls of the next batch. [`None`] if no call waits.
    fn depart(&mut self) -> Option<Departure> {
        let (inner, call) = (&self.inner, self.call());
        let now = inner.now();
        inner.notice_losses(now);
        let is_away = !inner.cache.can_store();
        let departure = inner.with(call, now, |slots, crowds, is_shared| {
            let (leaving, behind) = crowds.next(call.kind(), MOST)?;
            release(slots, call.cost, leaving.len());
            // Skips the calls of cancelled callers.
            let mut leaving = leaving.into_iter().filter(|waiting| !waiting.is_closed());
            if is_away {
                inner.doubt(now);
                return Some(Departure::told(leaving, || Told::Outage));
            }
            if let Some(answers) = inner.known(call, slots, is_shared, now) {
                let told = || Told::Decided(answers.clone(), Backend::Known);
                return Some(Departure::told(leaving, told));
            }
            // Redis may have been lost since these calls arrived. The calls behind them do not count yet.
            let behind = units(call.cost, behind);
            hold(slots, |pending| pending.saturating_sub(behind));
            let mut departure = Departure {
                seen: answered(slots),
                ..Departure::default()
            };
            for waiting in &mut leaving {
                match inner.refused(call, slots, is_shared, now) {
                    Some(answers) => {
                        let told = Told::Decided(answers, Backend::Memory);
                        departure.told.push((waiting, told));
                    }
                    None => {
                        hold(slots, |pending| pending.saturating_add(call.cost));
                        departure.batch.push(waiting);
                    }
                }
            }
            hold(slots, |pending| pending.saturating_add(behind));
            Some(departure)
        });
        match &departure {
            Some(departure) => self.sent = count(&departure.batch),
            None => self.is_over = true,
        }
        departure
    }

    async fn ask(&self, batch: &[Waiting]) -> Result<Batch, Error> {
        let (inner, call) = (&self.inner, self.call());
        let calls = count(batch);
        if calls == 1 {
            let answers = inner.ask_redis(call).await?;
            return Ok(Batch::single(call.cost, answers));
        }
        for policy in call.policies.iter() {
            inner.metrics[*policy].count(LimitEvent::Batches);
            inner.metrics[*policy].add(LimitEvent::Batched, calls.into());
        }
        inner.take_batch(call, calls).await
    }

    /// Learns from the answer of Redis, and answers the callers.
    fn land(&mut self, batch: Vec<Waiting>, seen: &[u32], result: Result<Batch, Error>) {
        self.sent = 0;
        let (inner, call) = (&self.inner, self.call());
        let now = inner.now();
        inner.note(result.as_ref().err(), now);
        let calls = count(&batch);
        let mut failed = VecDeque::new();
        inner.with(call, now, |slots, crowds, is_shared| {
            let sent = units(call.cost, batch.len());
            hold(slots, |pending| pending.saturating_sub(sent));
            match &result {
                Ok(answers) => {
                    let last = answers.answers(inner.rules(call.policies), calls - 1);
                    inner.learn(call, slots, is_shared, answers.fit, &last, seen, now);
                }
                // The waiting calls have already waited as long as a silent Redis may delay a call.
                Err(error) if is_silence(error) => {
                    failed = crowds.take(call.kind());
                    release(slots, call.cost, failed.len());
                }
                Err(_) => {}
            }
        });
        match result {
            Ok(answers) => {
                for (place, waiting) in (0..).zip(batch) {
                    let answers = answers.answers(inner.rules(call.policies), place);
                    tell(waiting, Told::Decided(answers, Backend::Redis));
                }
            }
            Err(_) => {
                for waiting in batch.into_iter().chain(failed) {
                    tell(waiting, Told::Outage);
                }
            }
        }
    }
}

impl Drop for Driver {
    /// The runtime of the driver may have ended. Waiting callers of other runtimes then begin again.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (inner, call) = (&self.inner, self.call());
        let sent = call.cost.saturating_mul(self.sent);
        inner.with(call, inner.now(), |slots, _, _| {
            hold(slots, |pending| pending.saturating_sub(sent));
        });
        inner.give_up(call);
    }
}

impl Departure {
    fn told(leaving: impl Iterator<Item = Waiting>, told: impl Fn() -> Told) -> Self {
        Self {
            told: leaving.map(|waiting| (waiting, told())).collect(),
            ..Self::default()
        }
    }
}

fn tell(waiting: Waiting, told: Told) {
    // An error means that the caller was cancelled.
    let _ = waiting.send(told);
}

/// Removes calls from the slots that do not wait any more and are not sent yet.
fn release(slots: &mut [&mut Slot], cost: u32, calls: usize) {
    let units = units(cost, calls);
    for slot in slots {
        slot.waiting = slot.waiting.saturating_sub(units);
        slot.pending = slot.pending.saturating_sub(units);
    }
}

fn hold(slots: &mut [&mut Slot], pending: impl Fn(u32) -> u32) {
    for slot in slots {
        slot.pending = pending(slot.pending);
    }
}

fn units(cost: u32, calls: usize) -> u32 {
    cost.saturating_mul(u32::try_from(calls).unwrap_or(u32::MAX))
}

fn count(batch: &[Waiting]) -> u32 {
    u32::try_from(batch.len()).unwrap_or(u32::MAX)
}
