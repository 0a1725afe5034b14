//! What this process decides by itself, and what it learns from Redis.

use std::sync::atomic::Ordering::Relaxed;

use super::Inner;
use super::ask::Call;
use super::policy::OnOutage;
use super::rule::{Answer, PenaltyState, Rule, Used, Verdict};
use super::state::{Asked, How, decide};
use super::table::{Denied, Slot, shared};

/// How long a rejection is remembered without asking Redis again, in milliseconds. A reset may take this long to be visible
/// in every process.
const KNOWN: u64 = 1_000;

impl Inner {
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
    pub(super) fn decide_here(
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
            standing: PenaltyState::default(),
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
