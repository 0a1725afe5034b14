//! Finds policies that a function names but the configuration lacks, and the reverse. Either may be a spelling mistake.

use std::collections::BTreeSet;

use super::finding::{Code, Finding, nearest};
use crate::config::{Config, plain_name};
use crate::site::Site;

/// Two lists of names that should agree, and where they do not.
#[derive(Debug, PartialEq, Eq)]
enum Mismatch<'a> {
    /// A function names a policy that is not configured.
    NotConfigured {
        function: &'static str,
        policy: &'a str,
        nearest: Option<&'a str>,
    },
    /// A policy is configured that no function names.
    NotNamed {
        policy: &'a str,
        nearest: Option<&'a str>,
    },
}

/// Returns a finding for each name that does not match.
pub(super) fn findings(
    config: &Config,
    sites: impl Iterator<Item = &'static Site>,
) -> Vec<Finding> {
    let like = |nearest: Option<&str>| {
        nearest.map_or(String::new(), |nearest| {
            format!("; did you mean `{nearest}`?")
        })
    };
    mismatches(config, sites)
        .into_iter()
        .map(|mismatch| match mismatch {
            Mismatch::NotConfigured {
                function,
                policy,
                nearest,
            } => {
                let variable = plain_name(policy).to_ascii_uppercase();
                Finding {
                    code: Code::UnknownPolicy,
                    functions: vec![function],
                    message: format!(
                        "the configuration has no policy `{policy}`, so the defaults apply{}",
                        like(nearest)
                    ),
                    advice: format!("set `CACHE_POLICY_{variable}_TTL`, or call `Config::policy`"),
                }
            }
            Mismatch::NotNamed { policy, nearest } => Finding {
                code: Code::UnusedPolicy,
                functions: Vec::new(),
                message: format!(
                    "no annotated function names the configured policy `{policy}`, so it has no effect{}",
                    like(nearest)
                ),
                advice: "remove it, or name it in an attribute".to_owned(),
            },
        })
        .collect()
}

fn mismatches<'a>(
    config: &'a Config,
    sites: impl Iterator<Item = &'static Site>,
) -> Vec<Mismatch<'a>> {
    let configured = &config.policies;
    let mut named = BTreeSet::new();
    let mut missing = BTreeSet::new();
    for site in sites {
        let Some(policy) = site.policy else { continue };
        named.insert(policy);
        // A cache of its own has a configuration of its own.
        if !site.has_own_cache && config.policy_of(policy).is_none() {
            missing.insert((site.name, policy));
        }
    }
    let not_configured = missing
        .into_iter()
        .map(|(function, policy)| Mismatch::NotConfigured {
            function,
            policy,
            nearest: nearest(policy, configured.keys().map(String::as_str)),
        });
    let not_named = configured
        .keys()
        .filter(|policy| {
            !named
                .iter()
                .any(|name| name == policy || plain_name(name) == **policy)
        })
        .map(|policy| Mismatch::NotNamed {
            policy,
            nearest: nearest(policy, named.iter().copied()),
        });
    not_configured.chain(not_named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TtlPolicy;

    static EVENTS: Site = Site::new("app::event", "event:<id>").policy("events");
    static EVENST: Site = Site::new("app::search", "search:<text>").policy("evenst");
    static OWN: Site = Site::new("app::report", "report:<id>")
        .policy("reports")
        .own_cache();
    static PLAIN: Site = Site::new("app::plain", "plain:<id>");

    fn config(policies: &[&str]) -> Config {
        policies.iter().fold(Config::default(), |config, name| {
            config.policy(*name, TtlPolicy::default())
        })
    }

    #[test]
    fn matching_names_are_not_reported() {
        let config = config(&["events", "reports"]);

        let mismatches = mismatches(&config, [&EVENTS, &OWN, &PLAIN].into_iter());

        assert_eq!(mismatches, []);
    }

    #[test]
    fn a_missing_policy_is_reported_with_the_nearest_name() {
        let config = config(&["events"]);

        let mismatches = mismatches(&config, [&EVENTS, &EVENST].into_iter());

        let expected = Mismatch::NotConfigured {
            function: "app::search",
            policy: "evenst",
            nearest: Some("events"),
        };
        assert_eq!(mismatches, [expected]);
    }

    #[test]
    fn a_policy_for_another_cache_is_not_reported() {
        let config = config(&[]);

        let mismatches = mismatches(&config, [&OWN].into_iter());

        assert_eq!(mismatches, []);
    }

    #[test]
    fn an_unused_policy_is_reported_with_the_nearest_name() {
        let config = config(&["event", "events", "unlike"]);

        let mismatches = mismatches(&config, [&EVENTS].into_iter());

        let unnamed = |policy, nearest| Mismatch::NotNamed { policy, nearest };
        let expected = [unnamed("event", Some("events")), unnamed("unlike", None)];
        assert_eq!(mismatches, expected);
    }
}
