//! The path of a call.
//!
//! ```text
//!  call ─► known to be over? ──yes──────────────────────────────► rejected
//!             │ no
//!             ▼
//!          no Redis, or away ──────────────► the process decides ► its answer
//!             │ there
//!             ▼
//!          back for less than a window? ──► the process must allow it, too
//!             │
//!             ▼
//!          others of the client on their way? ──yes──► it waits, and leaves in a batch
//!             │ no
//!             ▼
//!          one script in Redis ──no answer─► the process decides ► its answer
//!             │
//!             ▼
//!          the process learns what it said ─────────────────────► its answer
//! ```

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::crowd::{Crowds, Kind, Told};
use super::decision::{Backend, Decision};
use super::rule::{Answer, Rule, Verdict};
use super::state::How;
use super::table::{Slot, shared};
use super::wire::{self, Batch};
use super::{Identity, Inner};
use crate::clock::in_real_time;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::site::Site;
use crate::store::script::Reply;

/// The site of the limiter in the statistics of operations.
pub(super) static SITE: Site = Site::new("RateLimiter", "rate limit");

/// The request of a call.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) policies: &'a Arc<[usize]>,
    pub(super) client: &'a Identity,
    pub(super) cost: u32,
    pub(super) how: How,
}

/// The operation of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Take,
    Peek,
    Refund,
    Block,
}

impl Step {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Take => b"take",
            Self::Peek => b"peek",
            Self::Refund => b"refund",
            Self::Block => b"block",
        }
    }
}

/// What to do with a call, based on what the process knows.
enum Turn {
    Decided(Vec<Answer>, Backend),
    /// Ask Redis; how many answers each slot has had.
    Ask(Vec<u32>),
    /// Wait for the answer of a batch. `drives` is set if nobody sends batches yet.
    Wait {
        told: oneshot::Receiver<Told>,
        drives: bool,
    },
}

impl Inner {
    pub(super) async fn decide(&self, call: Call<'_>) -> Decision {
        if let Some(decision) = self.too_costly(call) {
            return decision;
        }
        let now = self.now();
        self.notice_losses(now);
        let is_away = !self.cache.can_store();
        let (mut turn, suspicious) = self.with(call, now, |slots, crowds, is_shared| {
            let suspicious = self.watch(call, slots, is_shared, now);
            let turn = self.turn(call, slots, crowds, is_shared, is_away, now);
            (turn, suspicious)
        });
        for policy in suspicious {
            self.report(policy, call.client);
        }
        let mut until = None;
        loop {
            let (told, drives) = match turn {
                Turn::Decided(answers, backend) => {
                    return self.decision(call, answers, backend, is_away);
                }
                Turn::Ask(seen) => return self.asked(call, seen).await,
                Turn::Wait { told, drives } => (told, drives),
            };
            if drives {
                self.drive(call);
            }
            let longest = self.cache.config().operation_max();
            let until = *until.get_or_insert_with(|| Instant::now() + longest);
            let told = async { timeout_at(until, told).await.ok() };
            match in_real_time(longest, told).await {
                Some(Ok(Told::Decided(answers, backend))) => {
                    return self.decision(call, answers, backend, false);
                }
                Some(Ok(Told::Outage)) => return self.decided_in_outage(call),
                // The runtime of the driver has ended. If the call was in a batch, it may count twice.
                Some(Err(_)) => turn = self.turn_again(call),
                None => {
                    self.give_up(call);
                    return self.decided_in_outage(call);
                }
            }
        }
    }

    fn turn_again(&self, call: Call<'_>) -> Turn {
        let now = self.now();
        let is_away = !self.cache.can_store();
        self.with(call, now, |slots, crowds, is_shared| {
            self.turn(call, slots, crowds, is_shared, is_away, now)
        })
    }

    fn turn(
        &self,
        call: Call<'_>,
        slots: &mut [&mut Slot],
        crowds: &mut Crowds,
        is_shared: bool,
        is_away: bool,
        now: u64,
    ) -> Turn {
        if let Some(answers) = self.known(call, slots, is_shared, now) {
            return Turn::Decided(answers, Backend::Known);
        }
        if self.cache.is_local() || is_away {
            if is_away {
                self.doubt(now);
            }
            let answers = self.decide_here(call, slots, is_shared, is_away, now);
            return Turn::Decided(answers, Backend::Memory);
        }
        if let Some(answers) = self.refused(call, slots, is_shared, now) {
            return Turn::Decided(answers, Backend::Memory);
        }
        // One allowance of many is not held back for calls that may never be charged.
        if !is_shared {
            for slot in &mut *slots {
                slot.pending = slot.pending.saturating_add(call.charge());
            }
            if call.can_gather()
                && let Some((told, drives)) =
                    crowds.enter(call.kind(), self.is_silent.load(Relaxed))
            {
                for slot in slots {
                    slot.waiting = slot.waiting.saturating_add(call.charge());
                }
                return Turn::Wait { told, drives };
            }
        }
        Turn::Ask(answered(slots))
    }

    /// Asks Redis, and learns from its answer or does without.
    async fn asked(&self, call: Call<'_>, seen: Vec<u32>) -> Decision {
        let mut pending = Pending {
            inner: self,
            call: Some(call),
        };
        let answers = self.ask_redis(call).await;
        pending.call = None;
        let now = self.now();
        let is_away = answers.is_err();
        self.note(answers.as_ref().err(), now);
        let (answers, backend) = self.with(call, now, |slots, crowds, is_shared| {
            give_back(call, slots, crowds, is_shared);
            match answers {
                Ok(answers) => {
                    let all_fit = answers.iter().all(|answer| answer.verdict == Verdict::Fits);
                    self.learn(call, slots, is_shared, all_fit.into(), &answers, &seen, now);
                    (answers, Backend::Redis)
                }
                Err(_) => {
                    let answers = self.decide_here(call, slots, is_shared, true, now);
                    (answers, Backend::Memory)
                }
            }
        });
        self.decision(call, answers, backend, is_away)
    }

    /// Remembers whether Redis answered.
    pub(super) fn note(&self, error: Option<&Error>, now: u64) {
        if error.is_some() {
            self.doubt(now);
        }
        let is_silent = error.is_some_and(is_silence);
        if self.is_silent.load(Relaxed) != is_silent {
            self.is_silent.store(is_silent, Relaxed);
        }
    }

    /// The answer for a call that Redis did not answer as a part of a batch.
    fn decided_in_outage(&self, call: Call<'_>) -> Decision {
        let now = self.now();
        self.doubt(now);
        let answers = self.with(call, now, |slots, _, is_shared| {
            self.decide_here(call, slots, is_shared, true, now)
        });
        self.decision(call, answers, Backend::Memory, true)
    }

    pub(super) async fn ask_redis(&self, call: Call<'_>) -> Result<Vec<Answer>, Error> {
        let step = match call.how {
            How::Take => Step::Take,
            How::Peek => Step::Peek,
        };
        self.run(call.policies, call.client, step, call.cost.into())
            .await
    }

    /// Runs the script for one client. `number` is what the call costs, or how long the client is to be blocked.
    pub(super) async fn run(
        &self,
        policies: &[usize],
        client: &Identity,
        step: Step,
        number: u64,
    ) -> Result<Vec<Answer>, Error> {
        let reply = self.reply(policies, client, step, number, 1).await?;
        wire::answers(self.rules(policies), &reply).ok_or_else(unexpected)
    }

    /// Takes equal calls together.
    pub(super) async fn take_batch(&self, call: Call<'_>, calls: u32) -> Result<Batch, Error> {
        let Call {
            policies,
            client,
            cost,
            ..
        } = call;
        let reply = self
            .reply(policies, client, Step::Take, cost.into(), calls)
            .await?;
        wire::batch(self.rules(policies), calls, cost, &reply).ok_or_else(unexpected)
    }

    pub(super) fn rules(&self, policies: &[usize]) -> impl Iterator<Item = &Rule> + Clone {
        policies.iter().map(|policy| &self.policies[*policy].rule)
    }

    async fn reply(
        &self,
        policies: &[usize],
        client: &Identity,
        step: Step,
        number: u64,
        calls: u32,
    ) -> Result<Vec<u8>, Error> {
        let keys: Vec<Key> = policies
            .iter()
            .map(|policy| self.key(*policy, client))
            .collect();
        let names: Vec<&str> = keys.iter().map(Key::as_str).collect();
        let rules = self.rules(policies);
        let packed: Vec<Vec<u8>> = rules.map(|rule| wire::rule(rule, number)).collect();
        let mut arguments: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
        let driven = self.clock.driven().map(|now| now.to_string());
        let count = (calls > 1 || driven.is_some()).then(|| calls.to_string());
        if step != Step::Take || count.is_some() {
            arguments.push(step.word());
        }
        arguments.extend(count.as_ref().map(String::as_bytes));
        arguments.extend(driven.as_ref().map(String::as_bytes));
        match self
            .cache
            .run_script(&SITE, &wire::DECIDE, &keys[0], &names, &arguments)
            .await?
        {
            Reply::Bytes(reply) => Ok(reply),
            _ => Err(unexpected()),
        }
    }

    /// Takes back what `decision` charged, where it was charged.
    pub(super) async fn refund(
        &self,
        policies: &[usize],
        client: &Identity,
        decision: &mut Decision,
    ) {
        let cost = mem::take(&mut decision.charged);
        if cost == 0 || policies.is_empty() {
            return;
        }
        for status in &mut decision.policies {
            status.remaining = status.remaining.saturating_add(cost).min(status.limit);
            if status.remaining == status.limit {
                status.more_after = Duration::ZERO;
            }
        }
        if decision.backend == Backend::Redis
            && let Err(error) = self.run(policies, client, Step::Refund, cost.into()).await
        {
            debug!(%error, "a refund did not reach Redis; its units count until their window ends");
        }
        let now = self.now();
        self.table
            .with(client.as_str(), &self.policies, now, |known| {
                let is_shared = known.is_shared;
                for slot in known.slots(policies, &self.policies) {
                    let rule = self.policies[slot.policy].rule;
                    let rule = if is_shared { shared(rule) } else { rule };
                    slot.state.refund(&rule, cost, now);
                    if decision.backend == Backend::Memory {
                        slot.own.refund(&rule, cost, now);
                    }
                    slot.denied = None;
                }
            });
    }

    pub(super) fn with<T>(
        &self,
        call: Call<'_>,
        now: u64,
        work: impl FnOnce(&mut [&mut Slot], &mut Crowds, bool) -> T,
    ) -> T {
        self.table
            .with(call.client.as_str(), &self.policies, now, |client| {
                let is_shared = client.is_shared;
                let (mut slots, crowds) = client.parts(call.policies, &self.policies);
                work(&mut slots, crowds, is_shared)
            })
    }
}

impl Call<'_> {
    /// What is charged if it is allowed.
    pub(super) fn charge(self) -> u32 {
        match self.how {
            How::Take => self.cost,
            How::Peek => 0,
        }
    }

    pub(super) fn kind(&self) -> Kind<'_> {
        (self.policies, self.cost)
    }

    /// Whether it may leave with others.
    fn can_gather(self) -> bool {
        self.charge() > 0
    }
}

/// Whether Redis did not answer in time.
pub(super) fn is_silence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Stalled)
}

fn unexpected() -> Error {
    Error::new(
        ErrorKind::Command,
        "the rate limiter's script returned an unexpected reply",
    )
}

/// How many answers each slot has had.
pub(super) fn answered(slots: &[&mut Slot]) -> Vec<u32> {
    slots.iter().map(|slot| slot.answers).collect()
}

/// A call that Redis is being asked about. If the caller is cancelled, what the call may have charged is given back.
struct Pending<'a> {
    inner: &'a Inner,
    call: Option<Call<'a>>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(call) = self.call else { return };
        self.inner
            .with(call, self.inner.now(), |slots, crowds, is_shared| {
                give_back(call, slots, crowds, is_shared);
            });
    }
}

/// The call is not on its way any more.
fn give_back(call: Call<'_>, slots: &mut [&mut Slot], crowds: &mut Crowds, is_shared: bool) {
    if is_shared {
        return;
    }
    for slot in slots {
        slot.pending = slot.pending.saturating_sub(call.charge());
    }
    if call.can_gather() {
        crowds.leave(call.kind());
    }
}
