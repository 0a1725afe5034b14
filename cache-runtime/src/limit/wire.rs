//! The arguments and the reply of `decide.lua`: packed doubles, because Lua has no other numbers. Each is whole and below
//! 2^53, so it is exact.

use std::sync::LazyLock;

use super::gcra::Gcra;
use super::rule::{Algorithm, Answer, PenaltyState, Rule, RuleCheck, Used, Verdict};
use crate::store::script::Script;

pub(super) static DECIDE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("decide.lua")));

/// Added to a verdict that is followed by the penalty state of the client.
const MARK: u8 = 16;

/// The script works with whole numbers below this. Any program may have written the values that it reads in Redis, so a
/// larger value counts as this one, which leaves room to add a time.
const MAX_NUMBER: f64 = (1_u64 << 53) as f64;

/// A rule with what the call costs, or how long the client is to be blocked.
pub(super) fn rule(rule: &Rule, cost: u64) -> Vec<u8> {
    let Rule {
        algorithm,
        limit,
        window,
        penalties,
    } = *rule;
    let mut packed = Vec::with_capacity(49);
    packed.push(match algorithm {
        Algorithm::SlidingLog => 1,
        Algorithm::SlidingBuckets => 2,
        Algorithm::Gcra => 3,
    });
    let [first, longest, forgive_after] = penalties.map_or([0; 3], |penalties| {
        [penalties.first, penalties.longest, penalties.forgive_after]
    });
    for number in [limit.into(), window, cost, first, longest, forgive_after] {
        packed.extend_from_slice(&(number as f64).to_le_bytes());
    }
    packed
}

/// Returns the answers for each rule, in order, or [`None`] if the reply is malformed.
pub(super) fn answers<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    reply: &[u8],
) -> Option<Vec<Answer>> {
    let mut reply = Packed(reply);
    let answers: Option<Vec<_>> = rules.map(|rule| reply.answer(rule)).collect();
    answers.filter(|_| reply.0.is_empty())
}

/// Returns the answers for several equal calls, or [`None`] if the reply is malformed.
pub(super) fn batch<'a>(
    rules: impl Iterator<Item = &'a Rule> + Clone,
    calls: u32,
    cost: u32,
    reply: &[u8],
) -> Option<Batch> {
    let (fit, reply) = reply.split_first_chunk()?;
    let fit = u32::from_le_bytes(*fit);
    let mut reply = Packed(reply);
    let mut group = |is_there: bool| -> Option<Vec<Answer>> {
        let rules = rules.clone().filter(|_| is_there);
        rules.map(|rule| reply.answer(rule)).collect()
    };
    let charged = group(fit > 0)?;
    let rejected = group(fit < calls)?;
    let is_valid = fit <= calls
        && reply.0.is_empty()
        && charged.iter().all(|answer| answer.verdict == Verdict::Fits)
        && (fit == calls
            || rejected
                .iter()
                .any(|answer| answer.verdict != Verdict::Fits));
    is_valid.then_some(Batch {
        cost,
        fit,
        charged,
        rejected,
    })
}

/// The answers for equal calls that were decided together.
#[derive(Debug)]
pub(super) struct Batch {
    cost: u32,
    /// How many were charged. They are the first.
    pub(super) fit: u32,
    /// For the last that was charged.
    charged: Vec<Answer>,
    /// For the first that was rejected.
    rejected: Vec<Answer>,
}

impl Batch {
    /// The answers for a single call.
    pub(super) fn single(cost: u32, answers: Vec<Answer>) -> Self {
        let fits = answers.iter().all(|answer| answer.verdict == Verdict::Fits);
        let (charged, rejected) = if fits {
            (answers, Vec::new())
        } else {
            (Vec::new(), answers)
        };
        Self {
            cost,
            fit: fits.into(),
            charged,
            rejected,
        }
    }

    /// The answers for the call in this place, counted from 0.
    pub(super) fn answers<'a>(
        &self,
        rules: impl Iterator<Item = &'a Rule>,
        place: u32,
    ) -> Vec<Answer> {
        match place.checked_sub(self.fit) {
            Some(0) => self.rejected.clone(),
            Some(_) => self.rejected.iter().map(repeated).collect(),
            None => {
                let later = (self.fit - 1 - place).saturating_mul(self.cost);
                let answers = rules.zip(&self.charged);
                answers
                    .map(|(rule, answer)| before(rule, answer, later))
                    .collect()
            }
        }
    }
}

/// The answer for the same call right after this rejection.
fn repeated(answer: &Answer) -> Answer {
    let blocked = answer.standing.blocked;
    match blocked {
        0 => *answer,
        _ => Answer {
            verdict: Verdict::Blocked,
            used: Used::Unknown,
            retry: blocked,
            more: blocked,
            ..*answer
        },
    }
}

/// The answer before this many more units were charged at the same time.
fn before(rule: &Rule, answer: &Answer, units: u32) -> Answer {
    match answer.used {
        Used::Units(used) => Answer {
            used: Used::Units(used.saturating_sub(units)),
            ..*answer
        },
        Used::Drained { millis, parts } => {
            let limit = u64::from(rule.limit);
            let filled = millis.saturating_mul(limit).saturating_add(parts);
            let filled = filled.saturating_sub(u64::from(units).saturating_mul(rule.window));
            let mut level = Gcra::default();
            level.adjust((filled / limit, filled % limit), 0, true);
            let RuleCheck { used, more, .. } = level.look(rule, 0, 0);
            Answer {
                used,
                more,
                ..*answer
            }
        }
        Used::Unknown => *answer,
    }
}

/// What is left to read.
struct Packed<'a>(&'a [u8]);

impl Packed<'_> {
    fn answer(&mut self, rule: &Rule) -> Option<Answer> {
        let marked = self.byte()?;
        let verdict = match marked % MARK {
            0 => Verdict::Fits,
            1 => Verdict::OverLimit,
            2 => Verdict::Blocked,
            _ => return None,
        };
        let [used, parts, retry, more] = self.numbers()?;
        let used = match (verdict, rule.algorithm) {
            (Verdict::Blocked, _) => Used::Unknown,
            (_, Algorithm::Gcra) => Used::Drained {
                // No bucket takes longer than two windows to drain, and no millisecond has more parts.
                millis: used.min(2 * rule.window),
                parts: parts.min(u64::from(rule.limit) - 1),
            },
            _ => Used::Units(u32::try_from(used).map_or(rule.limit, |used| used.min(rule.limit))),
        };
        let standing = if marked < MARK {
            PenaltyState::default()
        } else {
            let strikes = self.byte()?;
            let [struck, blocked, block] = self.numbers()?;
            PenaltyState {
                strikes,
                struck,
                blocked,
                block,
            }
        };
        // Stamps in the wrong order could name a later time than any that can be set.
        let longest = standing.blocked.max(2 * rule.span());
        Some(Answer {
            verdict,
            used,
            retry: retry.min(longest),
            more: more.min(longest),
            standing,
        })
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            let (bytes, rest) = self.0.split_first_chunk()?;
            self.0 = rest;
            // A value that is not a number becomes 0.
            *number = f64::from_le_bytes(*bytes).clamp(0.0, MAX_NUMBER) as u64;
        }
        Some(numbers)
    }
}
