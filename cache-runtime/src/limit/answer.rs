//! Turns an answer into the result for the caller, the statistics and the log.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::ask::Call;
use super::decision::{Backend, Decision, Status, Verdict as Said};
use super::policy::OnOutage;
use super::rule::{Answer, Verdict};
use super::state::How;
use super::table::Slot;
use super::{Identity, Inner};
use crate::metrics::LimitEvent;

/// A client that makes this many times the calls that its limit allows is logged.
const SUSPICIOUS: u64 = 10;

impl Inner {
    /// Counts the attempt. Returns the policies under which the client is suspicious now.
    pub(super) fn watch(
        &self,
        call: Call<'_>,
        slots: &mut [&mut Slot],
        is_shared: bool,
        now: u64,
    ) -> Vec<usize> {
        let mut found = Vec::new();
        if is_shared {
            for slot in slots {
                self.metrics[slot.policy].count(LimitEvent::Overflowed);
            }
        } else if call.how == How::Take {
            for slot in slots {
                let rule = &self.policies[slot.policy].rule;
                let most = u64::from(rule.limit) * SUSPICIOUS;
                if slot.attempts.count(call.cost, most, rule.window, now) {
                    found.push(slot.policy);
                }
            }
        }
        found
    }

    pub(super) fn report(&self, policy: usize, client: &Identity) {
        self.metrics[policy].count(LimitEvent::Suspicious);
        let Some(suppressed) = self.suspicious.admit() else {
            return;
        };
        let masked = self.cache.config().mask_keys;
        let client = if masked { None } else { Some(client.as_str()) };
        warn!(
            policy = self.policies[policy].name,
            client,
            suppressed,
            "a client makes more than {SUSPICIOUS} times the calls that its limit allows; this warning is logged once per window and client, and less often while there are many"
        );
    }

    pub(super) fn too_costly(&self, call: Call<'_>) -> Option<Decision> {
        let least = call
            .policies
            .iter()
            .map(|policy| self.policies[*policy].rule.limit)
            .min()?;
        if call.cost <= least {
            return None;
        }
        let policies = call.policies.iter().map(|policy| {
            let rule = &self.policies[*policy].rule;
            let verdict = if call.cost > rule.limit {
                Said::TooCostly
            } else {
                Said::Allowed
            };
            self.status(*policy, verdict, rule.limit, 0)
        });
        Some(Decision {
            verdict: Said::TooCostly,
            retry_after: None,
            policies: policies.collect(),
            backend: Backend::Known,
            charged: 0,
        })
    }

    /// Puts the answers into words, and counts them.
    pub(super) fn decision(
        &self,
        call: Call<'_>,
        answers: Vec<Answer>,
        backend: Backend,
        is_outage: bool,
    ) -> Decision {
        let denies = |policy: usize| {
            is_outage
                && backend == Backend::Memory
                && self.policies[policy].on_outage == OnOutage::Deny
        };
        let mut decision = Decision {
            verdict: Said::Allowed,
            retry_after: None,
            policies: Vec::with_capacity(answers.len()),
            backend,
            charged: 0,
        };
        for (policy, answer) in call.policies.iter().copied().zip(answers) {
            let rule = &self.policies[policy].rule;
            let (verdict, wait) = match answer.verdict {
                _ if denies(policy) => (Said::Unavailable, Some(self.reconnect)),
                Verdict::Fits => (Said::Allowed, None),
                Verdict::OverLimit => (
                    Said::Limited,
                    Some(Duration::from_millis(answer.retry.max(1))),
                ),
                Verdict::Blocked => (
                    Said::Blocked,
                    Some(Duration::from_millis(answer.retry.max(1))),
                ),
            };
            decision.retry_after = decision.retry_after.max(wait);
            decision.verdict = match (decision.verdict, verdict) {
                (Said::Unavailable, _) | (_, Said::Unavailable) => Said::Unavailable,
                (Said::Blocked, _) | (_, Said::Blocked) => Said::Blocked,
                (Said::Limited, _) | (_, Said::Limited) => Said::Limited,
                (_, verdict) => verdict,
            };
            let remaining = if verdict == Said::Unavailable {
                0
            } else {
                rule.remaining(answer.used)
            };
            decision
                .policies
                .push(self.status(policy, verdict, remaining, answer.more));
        }
        if decision.is_allowed() {
            decision.charged = call.charge();
        }
        if call.how == How::Take {
            self.count(call, &decision);
        }
        decision
    }

    fn status(&self, policy: usize, verdict: Said, remaining: u32, more: u64) -> Status {
        let rule = &self.policies[policy].rule;
        Status {
            policy: Arc::clone(&self.names[policy]),
            verdict,
            limit: rule.limit,
            window: Duration::from_millis(rule.window),
            remaining,
            more_after: Duration::from_millis(more),
        }
    }

    fn count(&self, call: Call<'_>, decision: &Decision) {
        for (policy, status) in call.policies.iter().copied().zip(&decision.policies) {
            let metrics = &self.metrics[policy];
            let event = match status.verdict {
                Said::Allowed if decision.is_allowed() => Some(LimitEvent::Allowed),
                Said::Limited => Some(LimitEvent::Limited),
                Said::Blocked => Some(LimitEvent::Blocked),
                Said::Unavailable => Some(LimitEvent::Unavailable),
                Said::Allowed | Said::TooCostly => None,
            };
            if let Some(event) = event {
                metrics.count(event);
            }
            match decision.backend {
                Backend::Memory => metrics.count(LimitEvent::InMemory),
                Backend::Known if status.verdict != Said::Allowed => {
                    metrics.count(LimitEvent::Known);
                }
                Backend::Known | Backend::Redis => {}
            }
            if matches!(status.verdict, Said::Limited | Said::Blocked) {
                self.top.count(policy, call.client);
            }
        }
        if !decision.is_allowed() {
            self.flush_in_background();
        }
    }
}
