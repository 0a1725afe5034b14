//! The generic cell rate algorithm (ITU-T I.371, annex A): a bucket that drains evenly. Its only memory is the time at which it
//! is empty, the theoretical arrival time.

use super::rule::{Rule, RuleCheck, Used};

/// When the bucket is empty.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gcra {
    empty: Moment,
}

/// A millisecond, and the number of parts of the next one that have passed. A millisecond has as many parts as the limit
/// has units, so each unit takes a whole number of parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    millis: u64,
    parts: u64,
}

impl Moment {
    /// Rounded up.
    fn whole(self) -> u64 {
        self.millis + u64::from(self.parts > 0)
    }
}

impl Gcra {
    pub(super) fn look(&self, rule: &Rule, cost: u32, now: u64) -> RuleCheck {
        let empty = self.begin(rule, now);
        let after = after(empty, rule, cost);
        let full = Moment {
            millis: now + rule.window,
            parts: 0,
        };
        let fits = after <= full;
        let used = Used::Drained {
            millis: empty.millis - now,
            parts: empty.parts,
        };
        let remaining = rule.remaining(used);
        RuleCheck {
            fits,
            used,
            retry: if fits {
                0
            } else {
                after.whole().saturating_sub(full.millis)
            },
            more: match rule.limit - remaining {
                0 => 0,
                // When one more fits than does now.
                _ => self::after(empty, rule, remaining + 1)
                    .whole()
                    .saturating_sub(full.millis),
            },
        }
    }

    pub(super) fn add(&mut self, rule: &Rule, cost: u32, now: u64) {
        self.empty = after(self.begin(rule, now), rule, cost);
    }

    /// Gives units back. The bucket is empty earlier by what they filled, but not before now.
    pub(super) fn refund(&mut self, rule: &Rule, cost: u32, now: u64) {
        let limit = u64::from(rule.limit);
        let Moment { millis, parts } = self.begin(rule, now);
        let filled = (millis - now).saturating_mul(limit).saturating_add(parts);
        if filled == 0 {
            return;
        }
        let left = filled.saturating_sub(u64::from(cost).saturating_mul(rule.window));
        self.empty = Moment {
            millis: now + left / limit,
            parts: left % limit,
        };
    }

    /// Takes over how full it is.
    pub(super) fn adjust(&mut self, (millis, parts): (u64, u64), now: u64, may_shrink: bool) {
        let empty = Moment {
            millis: now.saturating_add(millis),
            parts,
        };
        if may_shrink || empty > self.empty {
            self.empty = empty;
        }
    }

    pub(super) fn is_empty(&self, now: u64) -> bool {
        self.empty.whole() <= now
    }

    /// Returns when the bucket is empty, but not before now. A time in the far future is ignored, as in a log.
    fn begin(&self, rule: &Rule, now: u64) -> Moment {
        let begin = Moment {
            millis: now,
            parts: 0,
        };
        if self.empty.millis > now + 2 * rule.window {
            begin
        } else {
            self.empty.max(begin)
        }
    }
}

fn after(empty: Moment, rule: &Rule, cost: u32) -> Moment {
    let limit = u64::from(rule.limit);
    // Below 2^53, which is checked when the policy is.
    let parts = empty.parts + u64::from(cost) * rule.window;
    Moment {
        millis: empty.millis + parts / limit,
        parts: parts % limit,
    }
}
