//! The arguments and the reply of `decide.lua`: packed doubles, because Lua has no other numbers. Each is whole and below
//! 2^53, so it is exact.

use std::sync::LazyLock;

use super::rule::{Algorithm, Answer, PenaltyState, Rule, Used, Verdict};
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
