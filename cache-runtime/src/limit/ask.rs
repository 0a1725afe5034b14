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
use super::policy::OnOutage;
use super::rule::{Answer, Rule, Used, Verdict};
use super::state::{Asked, How, decide};
use super::table::{Denied, Slot, shared};
use super::wire::{self, Batch};
use super::{Identity, Inner};
use crate::clock::in_real_time;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::site::Site;
use crate::store::script::Reply;

/// The site of the limiter in the statistics of operations.
pub(super) static SITE: Site = Site::new("RateLimiter", "rate limit");

/// How long a rejection is remembered without asking Redis again, in milliseconds. A reset may take this long to be visible
/// in every process.
const KNOWN: u64 = 1_000;

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

    /// In doubt the process must allow the call, too. Returns its answers if it does not.
    pub(super) fn refused(
        &self,
        call: Call<'_>,
        slots: &mut [&mut Slot],
        is_shared: bool,
        now: u64,
    ) -> Option<Vec<Answer>> {
        let doubts: Vec<bool> = slots
            .iter()
            .map(|slot| self.doubts(slot.policy, now))
            .collect();
        if !doubts.contains(&true) {
            return None;
        }
        let mut asked = self.ask_here(slots, is_shared);
        let mut answers = decide(&mut asked, call.cost, now, How::Peek);
        for (answer, doubts) in answers.iter_mut().zip(doubts) {
            if !doubts && answer.verdict != Verdict::Fits {
                answer.verdict = Verdict::Fits;
            }
        }
        let refuses = answers.iter().any(|answer| answer.verdict != Verdict::Fits);
        refuses.then_some(answers)
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

    /// A rejection that is less than a second old and still holds.
    pub(super) fn known(
        &self,
        call: Call<'_>,
        slots: &[&mut Slot],
        is_shared: bool,
        now: u64,
    ) -> Option<Vec<Answer>> {
        let denied = |slot: &Slot| {
            let denied = slot
                .denied
                .filter(|denied| now < denied.until && call.cost >= denied.cost)?;
            let passed = now.saturating_sub(denied.at);
            let Answer {
                verdict,
                used,
                retry,
                more,
                standing,
            } = denied.answer;
            Some(Answer {
                verdict,
                used,
                retry: retry.saturating_sub(passed).max(1),
                more: more.saturating_sub(passed),
                standing,
            })
        };
        if is_shared || call.cost == 0 || !slots.iter().any(|slot| denied(slot).is_some()) {
            return None;
        }
        let answers = slots.iter().map(|slot| {
            denied(slot).unwrap_or_else(|| {
                slot.state
                    .look(&self.policies[slot.policy].rule, call.cost, now)
            })
        });
        Some(answers.collect())
    }

    /// Decides from what the process knows. In an outage each policy defines whether that is allowed.
    fn decide_here(
        &self,
        call: Call<'_>,
        slots: &mut [&mut Slot],
        is_shared: bool,
        is_outage: bool,
        now: u64,
    ) -> Vec<Answer> {
        let allows =
            |slot: &Slot| is_outage && self.policies[slot.policy].on_outage != OnOutage::Memory;
        let mut places = Vec::with_capacity(slots.len());
        let mut asked = Vec::with_capacity(slots.len());
        for (place, slot) in slots.iter_mut().enumerate() {
            let checked = &self.policies[slot.policy];
            if allows(slot) {
                continue;
            }
            let rule = if is_shared {
                shared(checked.rule)
            } else {
                checked.rule
            };
            let Slot {
                state,
                own,
                pending,
                ..
            } = &mut **slot;
            places.push(place);
            asked.push(Asked {
                rule,
                state,
                pending: *pending,
            });
            if let Some(share) = checked.share.filter(|_| is_outage && !is_shared) {
                places.push(place);
                asked.push(Asked {
                    rule: Rule {
                        limit: share,
                        ..rule
                    },
                    state: own,
                    pending: 0,
                });
            }
        }
        // A call that costs more than the share can only be rejected. The limit itself was compared before.
        let decided = decide(&mut asked, call.cost, now, call.how);
        let mut answers: Vec<Option<Answer>> = vec![None; slots.len()];
        for (place, answer) in places.into_iter().zip(decided) {
            let worse =
                |known: &Answer| answer.verdict != Verdict::Fits && answer.retry >= known.retry;
            if answers[place].as_ref().is_none_or(worse) {
                answers[place] = Some(answer);
            }
        }
        let unasked = Answer {
            verdict: Verdict::Fits,
            used: Used::Units(0),
            retry: 0,
            more: 0,
            standing: super::rule::PenaltyState::default(),
        };
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or(unasked))
            .collect()
    }

    fn ask_here<'a>(&self, slots: &'a mut [&mut Slot], is_shared: bool) -> Vec<Asked<'a>> {
        let asked = slots.iter_mut().map(|slot| {
            let rule = self.policies[slot.policy].rule;
            Asked {
                rule: if is_shared { shared(rule) } else { rule },
                pending: slot.pending,
                state: &mut slot.state,
            }
        });
        asked.collect()
    }

    /// Takes over the answer of Redis. `fit` is how many equal calls it charged, and `answers` are those for the last call.
    #[expect(clippy::too_many_arguments, reason = "the answer and what it is about")]
    pub(super) fn learn(
        &self,
        call: Call<'_>,
        slots: &mut [&mut Slot],
        is_shared: bool,
        fit: u32,
        answers: &[Answer],
        seen: &[u32],
        now: u64,
    ) {
        let charged = call.charge().saturating_mul(fit);
        for ((slot, answer), seen) in slots.iter_mut().zip(answers).zip(seen) {
            let rule = self.policies[slot.policy].rule;
            if is_shared {
                slot.state.add(&shared(rule), charged, now);
                continue;
            }
            slot.state.add(&rule, charged, now);
            // Others' calls may be counted in it, or not; and in doubt Redis may have forgotten some.
            let sent = slot.pending.saturating_sub(slot.waiting);
            let is_alone = sent == 0 && slot.answers == *seen;
            let said = Answer {
                used: match answer.used {
                    Used::Units(used) => Used::Units(used.saturating_sub(sent)),
                    used => used,
                },
                ..*answer
            };
            slot.state.adopt(
                &rule,
                &said,
                now,
                is_alone && !self.doubts(slot.policy, now),
            );
            slot.answers = slot.answers.wrapping_add(1);
            if answer.verdict != Verdict::Fits && call.cost > 0 {
                slot.denied = Some(Denied {
                    at: now,
                    until: now.saturating_add(answer.retry.min(KNOWN)),
                    cost: call.cost,
                    answer: *answer,
                });
            }
        }
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

    /// Something may have been decided that Redis does not know of, or it may have forgotten something: for the window from now on
    /// both must agree.
    pub(super) fn doubt(&self, now: u64) {
        self.doubted.fetch_max(now, Relaxed);
    }

    fn doubts(&self, policy: usize, now: u64) -> bool {
        let doubted = self.doubted.load(Relaxed);
        doubted > 0 && now.saturating_sub(doubted) < self.policies[policy].rule.span()
    }

    /// A connection was lost: behind the next one may be a server that has forgotten.
    pub(super) fn notice_losses(&self, now: u64) {
        let losses = self.cache.losses();
        if self.losses.load(Relaxed) != losses {
            self.losses.store(losses, Relaxed);
            self.doubt(now);
        }
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
