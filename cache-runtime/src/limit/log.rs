//! The sliding log: when each unit of the window was used. Exact, and honest to the millisecond.

use std::collections::VecDeque;

use super::rule::{Rule, RuleCheck, Used};

/// The stamps of units, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    stamps: VecDeque<u64>,
}

impl Log {
    pub(super) fn look(&self, rule: &Rule, cost: u32, now: u64) -> RuleCheck {
        let first = self.first(rule, now);
        let used = self.stamps.len() - first;
        // The unit at this index in order of age must expire before this many units are free.
        let leaves = |free: usize| {
            let place = (first + used + free).checked_sub(rule.limit as usize + 1)?;
            let stamp = self.stamps.get(place.max(first))?;
            Some(stamp + rule.window - now)
        };
        let fits = used + cost as usize <= rule.limit as usize;
        RuleCheck {
            fits,
            used: Used::Units(u32::try_from(used).unwrap_or(u32::MAX).min(rule.limit)),
            retry: if fits {
                0
            } else {
                leaves(cost as usize).unwrap_or(0)
            },
            more: match used {
                0 => 0,
                _ => leaves(1.max((rule.limit as usize + 1).saturating_sub(used))).unwrap_or(0),
            },
        }
    }

    pub(super) fn add(&mut self, rule: &Rule, cost: u32, now: u64) {
        self.trim(rule, now);
        // Sorted even if the clock stepped back a little.
        let stamp = self.stamps.back().map_or(now, |newest| now.max(*newest));
        self.stamps.extend((0..cost).map(|_| stamp));
        let excess = self.stamps.len().saturating_sub(rule.limit as usize);
        self.stamps.drain(..excess);
    }

    /// Takes back the newest units.
    pub(super) fn refund(&mut self, rule: &Rule, cost: u32, now: u64) {
        if self.is_empty(rule, now) {
            return;
        }
        self.trim(rule, now);
        let kept = self.stamps.len().saturating_sub(cost as usize);
        self.stamps.truncate(kept);
    }

    /// Sets the number of used units. Units that this process did not count are dated now, and surplus units are removed
    /// from the oldest.
    pub(super) fn adjust(&mut self, rule: &Rule, used: u32, now: u64, may_shrink: bool) {
        self.trim(rule, now);
        let (known, used) = (self.stamps.len(), used as usize);
        if used > known {
            self.add(rule, u32::try_from(used - known).unwrap_or(u32::MAX), now);
        } else if may_shrink {
            self.stamps.drain(..known - used);
        }
    }

    pub(super) fn is_empty(&self, rule: &Rule, now: u64) -> bool {
        self.first(rule, now) == self.stamps.len()
    }

    fn trim(&mut self, rule: &Rule, now: u64) {
        let first = self.first(rule, now);
        self.stamps.drain(..first);
        if self.stamps.is_empty() && self.stamps.capacity() > 32 {
            self.stamps = VecDeque::new();
        }
    }

    /// Returns where the stamps of the current window begin. Stamps from the far future are ignored: the clock went back by
    /// more than a window, and one window of generosity is better than a client that waits forever.
    fn first(&self, rule: &Rule, now: u64) -> usize {
        match self.stamps.back() {
            Some(newest) if *newest <= now + rule.window => {
                let now = now.max(*newest);
                self.stamps
                    .partition_point(|stamp| stamp + rule.window <= now)
            }
            _ => self.stamps.len(),
        }
    }
}
