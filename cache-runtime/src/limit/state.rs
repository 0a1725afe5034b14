//! What is known of one client under one policy, and the function that decides from it. The process uses it while Redis is
//! unavailable, and tests compare the script with it.

use super::buckets::Buckets;
use super::gcra::Gcra;
use super::log::Log;
use super::rule::{Algorithm, Answer, Penalties, PenaltyState, Rule, RuleCheck, Used, Verdict};

/// More strikes change nothing, because the longest block is reached before.
const MAX_STRIKES: u8 = 32;

/// The longest block that can be set, in milliseconds: 31 days. The script has the same number.
const MAX_BLOCK: u64 = 31 * 86_400_000;

/// Whether a call is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Take,
    Peek,
}

/// What is known of one client under one policy.
#[derive(Clone, Debug)]
pub(super) struct State {
    level: Level,
    record: Record,
}

/// How much is used.
#[derive(Clone, Debug)]
enum Level {
    Log(Log),
    Buckets(Buckets),
    Gcra(Gcra),
}

/// What a client did before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    strikes: u8,
    struck: u64,
    /// When the block ends, and how long it is as a whole.
    until: u64,
    block: u64,
}

/// A client's state under one rule.
pub(super) struct Asked<'a> {
    pub(super) rule: Rule,
    pub(super) state: &'a mut State,
    /// Units of calls that Redis is being asked about at this moment: they may yet be charged.
    pub(super) pending: u32,
}

/// Decides a call under several rules: all of them charge it, or none does. Those that it is over may count a strike.
pub(super) fn decide(asked: &mut [Asked<'_>], cost: u32, now: u64, how: How) -> Vec<Answer> {
    let mut answers: Vec<_> = asked
        .iter()
        .map(|asked| match asked.pending {
            0 => asked.state.look(&asked.rule, cost, now),
            pending => {
                let mut expected = asked.state.clone();
                expected.add(&asked.rule, pending, now);
                expected.look(&asked.rule, cost, now)
            }
        })
        .collect();
    if how == How::Peek {
        return answers;
    }
    let all_fit = answers.iter().all(|answer| answer.verdict == Verdict::Fits);
    for (asked, answer) in asked.iter_mut().zip(&mut answers) {
        let Asked { rule, state, .. } = asked;
        if all_fit {
            state.add(rule, cost, now);
            *answer = state.look(rule, 0, now);
        } else if answer.verdict == Verdict::OverLimit
            && let Some(penalties) = &rule.penalties
        {
            state.record.strike(rule, penalties, now);
            answer.standing = state.record.standing(rule, now);
            answer.retry = answer.retry.max(answer.standing.blocked);
        }
    }
    answers
}

impl State {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self {
            level: match algorithm {
                Algorithm::SlidingLog => Level::Log(Log::default()),
                Algorithm::SlidingBuckets => Level::Buckets(Buckets::default()),
                Algorithm::Gcra => Level::Gcra(Gcra::default()),
            },
            record: Record::default(),
        }
    }

    /// Returns the answer of this rule alone.
    pub(super) fn look(&self, rule: &Rule, cost: u32, now: u64) -> Answer {
        let standing = self.record.standing(rule, now);
        if standing.blocked > 0 {
            return Answer {
                verdict: Verdict::Blocked,
                used: Used::Unknown,
                retry: standing.blocked,
                more: standing.blocked,
                standing,
            };
        }
        let RuleCheck {
            fits,
            used,
            retry,
            more,
        } = match &self.level {
            Level::Log(log) => log.look(rule, cost, now),
            Level::Buckets(buckets) => buckets.look(rule, cost, now),
            Level::Gcra(gcra) => gcra.look(rule, cost, now),
        };
        Answer {
            verdict: if fits {
                Verdict::Fits
            } else {
                Verdict::OverLimit
            },
            used,
            retry,
            more,
            standing,
        }
    }

    /// Counts units without asking whether they fit.
    pub(super) fn add(&mut self, rule: &Rule, cost: u32, now: u64) {
        if cost == 0 {
            return;
        }
        self.record = self.record.at(rule, now);
        match &mut self.level {
            Level::Log(log) => log.add(rule, cost, now),
            Level::Buckets(buckets) => buckets.add(rule, cost, now),
            Level::Gcra(gcra) => gcra.add(rule, cost, now),
        }
    }

    /// Takes over the answer of Redis, after [`add`](Self::add) of what it admitted. `may_shrink` is set if that answer is
    /// known to be complete. While Redis may have lost data, or other answers are on their way, only a stricter answer
    /// counts.
    pub(super) fn adopt(&mut self, rule: &Rule, answer: &Answer, now: u64, may_shrink: bool) {
        match (&mut self.level, answer.used) {
            (Level::Log(log), Used::Units(used)) => log.adjust(rule, used, now, may_shrink),
            (Level::Buckets(buckets), Used::Units(used)) => {
                buckets.adjust(rule, used, now, may_shrink);
            }
            (Level::Gcra(gcra), Used::Drained { millis, parts }) => {
                gcra.adjust((millis, parts), now, may_shrink);
            }
            _ => {}
        }
        self.record.adopt(answer.standing, now, may_shrink);
    }

    /// Takes back units that were charged, the newest first. A block stays, and so does what is known under it.
    pub(super) fn refund(&mut self, rule: &Rule, cost: u32, now: u64) {
        if self.record.standing(rule, now).blocked > 0 {
            return;
        }
        match &mut self.level {
            Level::Log(log) => log.refund(rule, cost, now),
            Level::Buckets(buckets) => buckets.refund(rule, cost, now),
            Level::Gcra(gcra) => gcra.refund(rule, cost, now),
        }
    }

    /// Blocks the client for this long from now on. 0 does not block.
    pub(super) fn block(&mut self, rule: &Rule, duration: u64, now: u64) {
        self.record = self.record.at(rule, now);
        // Not `now`, which would be a block again if the clock went back.
        self.record.until = match duration {
            0 => 0,
            _ => now.saturating_add(duration),
        };
        self.record.block = duration;
    }

    /// Returns whether it can be dropped without any effect.
    pub(super) fn is_idle(&self, rule: &Rule, now: u64) -> bool {
        let is_empty = match &self.level {
            Level::Log(log) => log.is_empty(rule, now),
            Level::Buckets(buckets) => buckets.is_empty(rule, now),
            Level::Gcra(gcra) => gcra.is_empty(now),
        };
        is_empty && self.record.at(rule, now) == Record::default()
    }
}

impl Record {
    /// Returns the part that still counts. A time too far in the future was set by a clock that has been set back since.
    fn at(self, rule: &Rule, now: u64) -> Self {
        let mut record = self;
        let left = self.until.saturating_sub(now);
        let is_over = left == 0 || left > self.block.saturating_add(rule.window);
        if is_over || self.block > MAX_BLOCK {
            (record.until, record.block) = (0, 0);
        }
        let forgive_after = rule
            .penalties
            .map_or(0, |penalties| penalties.forgive_after);
        let forgiven = forgive_after.saturating_mul(self.strikes.into());
        let forgiven = self.struck.saturating_add(forgiven);
        if forgiven <= now || self.struck > now.saturating_add(rule.window) {
            (record.strikes, record.struck) = (0, 0);
        }
        record
    }

    /// A rejection over the limit: a strike, unless the last one was in the same window.
    fn strike(&mut self, rule: &Rule, penalties: &Penalties, now: u64) {
        let record = self.at(rule, now);
        if record.strikes > 0 && now < record.struck.saturating_add(rule.window) {
            return;
        }
        let forgiven = now.saturating_sub(record.struck) / penalties.forgive_after;
        let left = u64::from(record.strikes).saturating_sub(forgiven);
        *self = record;
        self.strikes = u8::try_from(left + 1)
            .unwrap_or(MAX_STRIKES)
            .min(MAX_STRIKES);
        self.struck = now;
        if self.strikes >= 2 {
            let doubled = penalties.first.saturating_mul(1 << (self.strikes - 2));
            self.block = doubled.min(penalties.longest);
            self.until = now.saturating_add(self.block);
        }
    }

    fn standing(self, rule: &Rule, now: u64) -> PenaltyState {
        let Self {
            strikes,
            struck,
            until,
            block,
        } = self.at(rule, now);
        PenaltyState {
            strikes,
            struck: match strikes {
                0 => 0,
                _ => now.saturating_sub(struck),
            },
            blocked: until.saturating_sub(now),
            block,
        }
    }

    fn adopt(&mut self, standing: PenaltyState, now: u64, may_shrink: bool) {
        let PenaltyState {
            strikes,
            struck,
            blocked,
            block,
        } = standing;
        if may_shrink || strikes > self.strikes {
            (self.strikes, self.struck) = (strikes, now.saturating_sub(struck));
        }
        let until = match blocked {
            0 => 0,
            _ => now.saturating_add(blocked),
        };
        if may_shrink || until > self.until {
            (self.until, self.block) = (until, block);
        }
    }
}

#[cfg(test)]
mod tests;
