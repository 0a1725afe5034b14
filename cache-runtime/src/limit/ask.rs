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
//!          one script in Redis ──no answer─► the process decides ► its answer
//!             │
//!             ▼
//!          the process learns what it said ─────────────────────► its answer
//! ```

use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tracing::debug;

use super::decision::{Backend, Decision};
use super::policy::OnOutage;
use super::rule::{Answer, Used, Verdict};
use super::state::{Asked, How, decide};
use super::table::{Denied, Slot, shared};
use super::{Identity, Inner, wire};
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
    pub(super) policies: &'a [usize],
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
}

impl Inner {
    pub(super) async fn decide(&self, call: Call<'_>) -> Decision {
        if let Some(decision) = self.too_costly(call) {
            return decision;
        }
        let now = self.now();
        self.notice_losses(now);
        let is_away = !self.cache.can_store();
        let (turn, suspicious) = self.with(call, now, |slots, is_shared| {
            let suspicious = self.watch(call, slots, is_shared, now);
            (self.turn(call, slots, is_shared, is_away, now), suspicious)
        });
        for policy in suspicious {
            self.report(policy, call.client);
        }
        match turn {
            Turn::Decided(answers, backend) => self.decision(call, answers, backend, is_away),
            Turn::Ask(seen) => self.asked(call, seen).await,
        }
    }

    fn turn(
        &self,
        call: Call<'_>,
        slots: &mut [&mut Slot],
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
        let doubts: Vec<bool> = slots
            .iter()
            .map(|slot| self.doubts(slot.policy, now))
            .collect();
        if doubts.contains(&true) {
            let mut asked = self.ask_here(slots, is_shared);
            let mut answers = decide(&mut asked, call.cost, now, How::Peek);
            for (answer, doubts) in answers.iter_mut().zip(doubts) {
                if !doubts && answer.verdict != Verdict::Fits {
                    answer.verdict = Verdict::Fits;
                }
            }
            if answers.iter().any(|answer| answer.verdict != Verdict::Fits) {
                return Turn::Decided(answers, Backend::Memory);
            }
        }
        let seen = slots.iter().map(|slot| slot.answers).collect();
        // One allowance of many is not held back for calls that may never be charged.
        if !is_shared {
            for slot in slots {
                slot.pending += call.charge();
            }
        }
        Turn::Ask(seen)
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
        if is_away {
            self.doubt(now);
        }
        let (answers, backend) = self.with(call, now, |slots, is_shared| {
            give_back(call, slots, is_shared);
            match answers {
                Ok(answers) => {
                    self.learn(call, slots, is_shared, &answers, &seen, now);
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

    async fn ask_redis(&self, call: Call<'_>) -> Result<Vec<Answer>, Error> {
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
        let keys: Vec<Key> = policies
            .iter()
            .map(|policy| self.key(*policy, client))
            .collect();
        let names: Vec<&str> = keys.iter().map(Key::as_str).collect();
        let rules = || policies.iter().map(|policy| &self.policies[*policy].rule);
        let packed: Vec<Vec<u8>> = rules().map(|rule| wire::rule(rule, number)).collect();
        let mut arguments: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
        let driven = self.clock.driven().map(|now| now.to_string());
        if step != Step::Take || driven.is_some() {
            arguments.push(step.word());
        }
        arguments.extend(driven.as_ref().map(String::as_bytes));
        match self
            .cache
            .run_script(&SITE, &wire::DECIDE, &keys[0], &names, &arguments)
            .await?
        {
            Reply::Bytes(reply) => wire::answers(rules(), &reply),
            _ => None,
        }
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Command,
                "the rate limiter's script returned an unexpected reply",
            )
        })
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
    fn known(
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
                    rule: super::rule::Rule {
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

    /// Takes over the answer of Redis.
    fn learn(
        &self,
        call: Call<'_>,
        slots: &mut [&mut Slot],
        is_shared: bool,
        answers: &[Answer],
        seen: &[u32],
        now: u64,
    ) {
        let all_fit = answers.iter().all(|answer| answer.verdict == Verdict::Fits);
        for ((slot, answer), seen) in slots.iter_mut().zip(answers).zip(seen) {
            let rule = self.policies[slot.policy].rule;
            if is_shared {
                if all_fit {
                    slot.state.add(&shared(rule), call.charge(), now);
                }
                continue;
            }
            if all_fit {
                slot.state.add(&rule, call.charge(), now);
            }
            // Others' calls may be counted in it, or not; and in doubt Redis may have forgotten some.
            let is_alone = slot.pending == 0 && slot.answers == *seen;
            let said = Answer {
                used: match answer.used {
                    Used::Units(used) => Used::Units(used.saturating_sub(slot.pending)),
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

    fn with<T>(
        &self,
        call: Call<'_>,
        now: u64,
        work: impl FnOnce(&mut [&mut Slot], bool) -> T,
    ) -> T {
        self.table
            .with(call.client.as_str(), &self.policies, now, |client| {
                let is_shared = client.is_shared;
                work(&mut client.slots(call.policies, &self.policies), is_shared)
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
    fn notice_losses(&self, now: u64) {
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
}

/// A call that Redis is being asked about. If the caller is cancelled, what the call may have charged is given back.
struct Pending<'a> {
    inner: &'a Inner,
    call: Option<Call<'a>>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(call) = self.call else { return };
        self.inner.with(call, self.inner.now(), |slots, is_shared| {
            give_back(call, slots, is_shared);
        });
    }
}

/// The call is not on its way any more.
fn give_back(call: Call<'_>, slots: &mut [&mut Slot], is_shared: bool) {
    if !is_shared {
        for slot in slots {
            slot.pending = slot.pending.saturating_sub(call.charge());
        }
    }
}
