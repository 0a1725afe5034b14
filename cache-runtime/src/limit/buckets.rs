//! Sliding buckets: the window in 60 parts. A bucket that is partly outside the window still counts as a whole, so no
//! window ever holds more than the limit. An honest client waits for at most one part longer.

use std::collections::VecDeque;

use super::rule::{Rule, RuleCheck, Used};

/// Parts of a window.
const PARTS: u64 = 60;

/// The units of each part, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Buckets {
    /// Parts of another width cannot be used.
    width: u64,
    /// The index of the first bucket: its time over the width.
    first: u64,
    units: VecDeque<u32>,
}

impl Buckets {
    pub(super) fn look(&self, rule: &Rule, cost: u32, now: u64) -> RuleCheck {
        let width = width(rule);
        let live = || self.live(rule, now);
        let used: u64 = live().map(|(_, units)| u64::from(units)).sum();
        let limit = u64::from(rule.limit);
        // When this many units become free.
        let leaves = |free: u64| {
            let mut kept = used;
            live().find_map(|(index, units)| {
                kept -= u64::from(units);
                (kept + free <= limit).then(|| (index + PARTS + 1) * width - now)
            })
        };
        let fits = used + u64::from(cost) <= limit;
        RuleCheck {
            fits,
            used: Used::Units(u32::try_from(used.min(limit)).unwrap_or(u32::MAX)),
            retry: if fits {
                0
            } else {
                leaves(cost.into()).unwrap_or(0)
            },
            more: match used {
                0 => 0,
                _ => leaves(1.max((limit + 1).saturating_sub(used))).unwrap_or(0),
            },
        }
    }

    pub(super) fn add(&mut self, rule: &Rule, cost: u32, now: u64) {
        self.trim(rule, now);
        let current = now / self.width;
        if self.units.is_empty() {
            self.first = current;
        }
        let newest = self.first + self.units.len() as u64;
        let missing = (current + 1).saturating_sub(newest);
        self.units.extend((0..missing).map(|_| 0));
        if let Some(last) = self.units.back_mut() {
            *last = last.saturating_add(cost);
        }
    }

    /// Takes back the newest units.
    pub(super) fn refund(&mut self, rule: &Rule, cost: u32, now: u64) {
        if self.is_empty(rule, now) {
            return;
        }
        self.trim(rule, now);
        let mut left = cost;
        for units in self.units.iter_mut().rev() {
            let less = left.min(*units);
            *units -= less;
            left -= less;
        }
    }

    /// Sets the number of used units. Units that this process did not count are dated now, and surplus units are removed
    /// from the oldest.
    pub(super) fn adjust(&mut self, rule: &Rule, used: u32, now: u64, may_shrink: bool) {
        self.trim(rule, now);
        let known: u64 = self.units.iter().map(|units| u64::from(*units)).sum();
        let used = u64::from(used);
        if used > known {
            self.add(rule, u32::try_from(used - known).unwrap_or(u32::MAX), now);
        } else if may_shrink {
            let mut excess = known - used;
            for units in &mut self.units {
                let less = u64::from(*units).min(excess);
                *units -= u32::try_from(less).unwrap_or(*units);
                excess -= less;
            }
        }
    }

    pub(super) fn is_empty(&self, rule: &Rule, now: u64) -> bool {
        self.live(rule, now).next().is_none()
    }

    /// Returns the non-empty buckets in the window, with their indexes.
    fn live(&self, rule: &Rule, now: u64) -> impl Iterator<Item = (u64, u32)> {
        let current = now / width(rule);
        let newest = (self.first + self.units.len() as u64).saturating_sub(1);
        // From the far future, or of another width: the same as in a log.
        let is_known = self.width == width(rule) && newest <= current + PARTS;
        let counted = (self.first..).zip(self.units.iter().copied());
        counted.filter(move |(index, units)| is_known && *units > 0 && index + PARTS >= current)
    }

    fn trim(&mut self, rule: &Rule, now: u64) {
        let first = self.live(rule, now).next();
        match first {
            Some((index, _)) => {
                let gone = usize::try_from(index - self.first).unwrap_or(0);
                self.units.drain(..gone);
                self.first = index;
            }
            None => self.units.clear(),
        }
        self.width = width(rule);
    }
}

/// For how long a unit counts at most.
pub(super) fn span(window: u64) -> u64 {
    (PARTS + 1) * window.div_ceil(PARTS)
}

fn width(rule: &Rule) -> u64 {
    rule.window.div_ceil(PARTS)
}
