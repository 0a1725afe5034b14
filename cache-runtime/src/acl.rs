//! What a Redis user must be allowed to do.

use std::fmt;

use crate::config::{Config, Topology};
use crate::registry;

/// A part of this crate that needs commands of its own.
///
/// See [`AclRule`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AclPart {
    /// What attributes and the methods of [`Cache`](crate::Cache) do, and the page for operators.
    Entries,
    /// Values in the process, for functions with `local`.
    Local,
    /// Rate limits.
    Limits,
    /// Sessions.
    Sessions,
}

/// The commands of each part, as in a rule of an ACL.
const COMMANDS: [(AclPart, &[&str]); 4] = [
    (
        AclPart::Entries,
        &[
            "get", "mget", "set", "unlink", "scan", "eval", "evalsha", "getrange", "strlen",
            "exists", "pttl", "pexpire", "setrange", "time",
        ],
    ),
    (AclPart::Local, &["client|tracking", "client|trackinginfo"]),
    (
        AclPart::Limits,
        &["append", "zincrby", "zremrangebyrank", "zunion"],
    ),
    (
        AclPart::Sessions,
        &[
            "del",
            "pexpireat",
            "zadd",
            "zcard",
            "zrange",
            "zrem",
            "zremrangebyscore",
            "zscore",
        ],
    ),
];

/// What every part needs in a Redis Cluster.
const IN_A_CLUSTER: [&str; 3] = ["asking", "cluster|shards", "cluster|nodes"];

/// Commands that the cache works without: `info` tells servers apart, the others are for people and for failing networks.
const OPTIONAL: [&str; 3] = ["info", "ping", "client|setname"];

/// The same in a Redis Cluster: it tells whether the cluster is down.
const OPTIONAL_IN_A_CLUSTER: &str = "cluster|info";

/// The permissions of a Redis user: [`Display`](fmt::Display) prints the command that creates it.
///
/// ```
/// use cache_runtime::{AclPart, Config};
///
/// let rule = Config::default().prefix("shop_").acl_rule();
/// let rule = rule.only(&[AclPart::Entries]).to_string();
/// assert!(rule.starts_with("ACL SETUSER app reset on >password ~shop_* +info +ping"), "{rule}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule {
    username: String,
    prefix: String,
    selects: bool,
    waits: bool,
    is_cluster: bool,
    parts: Vec<AclPart>,
}

impl Config {
    /// Returns the permissions that the user of this configuration needs, for the parts of this crate that the program has: the
    /// features with which it was built, and [`AclPart::Local`] if it has a function with `local`.
    ///
    /// The password in the rule is the word `password`, whatever the configuration has.
    pub fn acl_rule(&self) -> AclRule {
        let has = |part: &AclPart| match part {
            AclPart::Entries => true,
            AclPart::Local => registry::sites().any(|site| site.local.is_some()),
            AclPart::Limits => cfg!(feature = "limits"),
            AclPart::Sessions => cfg!(feature = "sessions"),
        };
        let parts = COMMANDS.iter().map(|(part, _)| *part);
        AclRule {
            username: self.username.clone().unwrap_or_else(|| "app".to_owned()),
            prefix: self.prefix.clone(),
            selects: self.database != 0,
            waits: self.evict_durability.replicas().is_some(),
            is_cluster: matches!(self.redis, Some(Topology::Cluster { .. })),
            parts: parts.filter(has).collect(),
        }
    }
}

impl AclRule {
    /// Returns the rule for these parts.
    #[must_use]
    pub fn only(mut self, parts: &[AclPart]) -> Self {
        self.parts = parts.to_vec();
        self
    }

    /// Returns what `ACL SETUSER` takes after the name of the user.
    pub fn rules(&self) -> Vec<String> {
        let user = ["reset", "on", ">password"].map(str::to_owned);
        let commands = self.commands().map(|command| format!("+{command}"));
        let optional = OPTIONAL.map(|command| format!("+{command}"));
        user.into_iter()
            .chain([format!("~{}*", self.prefix)])
            .chain(optional)
            .chain(self.is_cluster.then(|| format!("+{OPTIONAL_IN_A_CLUSTER}")))
            .chain(commands)
            .collect()
    }

    /// Returns the commands that nothing works without.
    pub fn commands(&self) -> impl Iterator<Item = &'static str> {
        let has = |part: &AclPart| self.parts.contains(part);
        let commands = COMMANDS.iter().filter(move |(part, _)| has(part));
        let select = self.selects.then_some("select");
        let wait = self.waits.then_some("wait");
        let cluster = self.is_cluster.then_some(IN_A_CLUSTER);
        select
            .into_iter()
            .chain(wait)
            .chain(cluster.into_iter().flatten())
            .chain(commands.flat_map(|(_, commands)| commands.iter().copied()))
    }
}

impl fmt::Display for AclRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ACL SETUSER {} {}",
            self.username,
            self.rules().join(" ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Address;

    #[test]
    fn a_cluster_needs_commands_of_its_own() {
        let nodes = vec![Address::Tcp("node".to_owned(), 7000)];
        let cluster = Config::default()
            .redis(Topology::Cluster { nodes })
            .acl_rule();
        let server = Config::default().acl_rule();

        for command in IN_A_CLUSTER {
            assert!(cluster.commands().any(|name| name == command), "{command}");
            assert!(server.commands().all(|name| name != command), "{command}");
        }
    }
}
