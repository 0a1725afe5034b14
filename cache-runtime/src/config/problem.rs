//! The problems of a configuration: all at once, each by the name of its option.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::options::{SETTINGS, TIME_RANGE, time_range};
use super::redis::{ONLY_DATABASE, is_host_and_port};
use super::{Address, Config, Tls, Topology, text};
use crate::error::Error;

/// What is allowed for the `max_loads` of a policy.
pub(super) const MAX_LOADS: &str = "a whole number such as `10`, at least 1";

/// What is allowed for a quota.
pub(super) const QUOTA: &str =
    "units per time, such as `100/60s` or `5/s`: 1 to 4294967295 units per 1 ms to 31 days";

/// What a limiter can count in.
const WINDOW: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(31 * 86_400);

/// One wrong option or variable.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) name: String,
    what: String,
}

impl Problem {
    /// `found` is shown without parts that may be secret.
    pub(super) fn wrong(name: impl Into<String>, found: &str, allowed: impl fmt::Display) -> Self {
        Self {
            name: name.into(),
            what: format!("found `{}`, allowed: {allowed}", text::shown(found)),
        }
    }

    pub(super) fn new(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            what: what.into(),
        }
    }
}

/// All problems as one error.
pub(super) fn report(problems: &[Problem]) -> Result<(), Error> {
    Error::refuse_any("invalid configuration", problems)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, what } = self;
        write!(f, "{name}: {what}")
    }
}

/// Returns the options that are outside their limits or contradict another option. `called` turns the name of an option
/// into the name that the user set, such as a variable.
pub(super) fn problems(config: &Config, called: &dyn Fn(&str) -> String) -> Vec<Problem> {
    let config = &mut config.clone();
    let mut problems = Vec::new();
    for setting in SETTINGS {
        if let Some(allowed) = setting.problem(config) {
            problems.push(Problem::wrong(
                called(setting.name),
                &setting.show(config),
                allowed,
            ));
        }
    }
    for (name, policy) in &config.policies {
        for (field, value) in policy.times() {
            if let Some(value) = value.filter(|value| !TIME_RANGE.contains(value)) {
                let name = called(&format!("policies.{name}.{field}"));
                problems.push(Problem::wrong(
                    name,
                    &text::show_duration(value),
                    time_range(),
                ));
            }
        }
    }
    for (name, policy) in &config.policies {
        if policy.max_loads == Some(0) {
            let name = called(&format!("policies.{name}.max_loads"));
            problems.push(Problem::wrong(name, "0", MAX_LOADS));
        }
    }
    for (name, quota) in &config.limits {
        if quota.limit == 0 || !WINDOW.contains(&quota.window) {
            let name = called(&format!("limits.{name}"));
            problems.push(Problem::wrong(name, &text::show_quota(*quota), QUOTA));
        }
    }
    contradictions(config, called, &mut problems);
    connection(config, called, &mut problems);
    config.redis_fields().problems(called, &mut problems);
    let sentinels = config.sentinel_fields();
    sentinels.problems(called, &mut problems);
    let set = sentinels.set_options();
    if matches!(&config.redis, Some(topology) if !matches!(topology, Topology::Sentinel { .. })) {
        problems.extend(set.iter().map(|option| {
            let what = "is set, but the address names no sentinels; remove it, or use a `redis+sentinel://` address";
            Problem::new(called(option), what)
        }));
    }
    problems
}

fn contradictions(config: &Config, called: &dyn Fn(&str) -> String, problems: &mut Vec<Problem>) {
    let Config {
        pool_min,
        pool_max,
        lease,
        load_deadline,
        session_ttl,
        session_extend,
        session_idle,
        session_absolute,
        ..
    } = config;
    if session_idle.is_some() {
        let usual = Config::default();
        let others = [
            ("session_ttl", *session_ttl != usual.session_ttl),
            ("session_extend", *session_extend != usual.session_extend),
        ];
        let set = others.into_iter().filter(|(_, is_set)| *is_set);
        problems.extend(idle_excludes(called, set.map(|(name, _)| name)));
    }
    let (session_time, time) = match session_idle {
        Some(idle) => ("session_idle", idle),
        None => ("session_ttl", session_ttl),
    };
    if pool_min > pool_max {
        let allowed = format!(
            "at least {}, which is {pool_min}; or lower that option",
            called("pool_min")
        );
        problems.push(Problem::wrong(
            called("pool_max"),
            &pool_max.to_string(),
            allowed,
        ));
    }
    for (long, longer, short, shorter) in [
        ("load_deadline", load_deadline, "lease", lease),
        ("session_absolute", session_absolute, session_time, time),
    ] {
        if longer < shorter {
            let [found, least] = [longer, shorter].map(|time| text::show_duration(*time));
            let allowed = format!(
                "at least {}, which is {least}; or lower that option",
                called(short)
            );
            problems.push(Problem::wrong(called(long), &found, allowed));
        }
    }
}

/// Returns the problem of an idle time that is set together with one of the `others`, which set the expiry of a session in
/// another way.
pub(super) fn idle_excludes<'a>(
    called: &dyn Fn(&str) -> String,
    others: impl Iterator<Item = &'a str>,
) -> Option<Problem> {
    let others: Vec<_> = others.map(|name| format!("`{}`", called(name))).collect();
    let what = format!(
        "cannot be combined with {}: a session expires either after an idle time, or by its TTL and extension; remove one of them",
        others.join(" and ")
    );
    (!others.is_empty()).then(|| Problem::new(called("session_idle"), what))
}

fn connection(config: &Config, called: &dyn Fn(&str) -> String, problems: &mut Vec<Problem>) {
    let Config {
        redis,
        database,
        tls,
        cluster_map,
        evict_durability,
        ..
    } = config;
    let is_cluster = matches!(redis, Some(Topology::Cluster { .. }));
    if !cluster_map.is_empty() && !is_cluster {
        let what = format!(
            "is set, but {} is not a cluster; use `redis+cluster://`, or unset it",
            called("redis")
        );
        problems.push(Problem::new(called("cluster_map"), what));
    }
    if is_cluster && evict_durability.replicas().is_some() {
        let what = format!(
            "is `{evict_durability}`, but evictions in a cluster cannot wait for replicas; unset it"
        );
        problems.push(Problem::new(called("evict_durability"), what));
    }
    if is_cluster && *database > 0 {
        let what = format!("is {database}, but {ONLY_DATABASE}; unset it");
        problems.push(Problem::new(called("database"), what));
    }
    if *database < 0 {
        problems.push(Problem::wrong(
            called("database"),
            &database.to_string(),
            "a database index, such as `0`",
        ));
    }
    let Some(topology) = redis else { return };
    let addresses = match topology {
        Topology::Standalone(address) => std::slice::from_ref(address),
        Topology::Sentinel { sentinels, master } => {
            if sentinels.is_empty() || master.is_empty() {
                problems.push(Problem::new(
                    called("redis"),
                    "needs at least one sentinel, and the name of the master",
                ));
            }
            sentinels
        }
        Topology::Cluster { nodes } => {
            if nodes.is_empty() {
                problems.push(Problem::new(
                    called("redis"),
                    "needs at least one node of the cluster",
                ));
            }
            nodes
        }
    };
    if addresses.iter().any(|address| match address {
        Address::Tcp(..) => !is_host_and_port(address),
        Address::Unix(_) => is_cluster,
    }) {
        problems.push(Problem::wrong(
            called("redis"),
            &topology.to_string(),
            "a host and a port from 1 to 65535",
        ));
    }
    if *tls != Tls::Off
        && addresses
            .iter()
            .any(|address| matches!(address, Address::Unix(_)))
    {
        problems.push(Problem::new(
            called("tls"),
            "cannot be on for a Unix socket; use a host, or turn it off",
        ));
    }
}
