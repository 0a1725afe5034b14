//! The handshake of a new connection: it names the client, identifies the server, and checks whether the cache can use that
//! server.

use std::collections::HashMap;
use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

use super::Connector;
use crate::config::Address;
use crate::error::{Error, ErrorKind};
use crate::store::reply;

/// The oldest Redis with `SET` that takes both `NX` and `GET`. The first Valkey is newer.
const OLDEST: u64 = 7;

/// The oldest Redis and the oldest Valkey whose `SET` takes `IFEQ`, by major and minor version.
const COMPARING_REDIS: (u64, u64) = (8, 4);
const COMPARING_VALKEY: (u64, u64) = (8, 1);

/// Which server a connection is meant to lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Expected {
    /// A server that is configured by its address.
    Primary,
    /// A server that sentinels reported.
    MasterOfSentinels,
    /// A node of a cluster, for what every node knows.
    Node,
    /// A node of a cluster that takes writes.
    PrimaryNode,
}

/// Distinguishes a server from another one, and from itself after it may have lost what it acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Identity {
    /// The address that was connected to.
    place: Option<SocketAddr>,
    /// A server generates it at every start.
    run: Option<String>,
    /// Identifies its data. It changes when a replica is promoted.
    replication: Option<String>,
}

impl Identity {
    pub(super) fn at(self, place: Option<SocketAddr>) -> Self {
        Self { place, ..self }
    }

    /// Returns whether this is the same server as `other`, with everything that it acknowledged. A server that does not
    /// report its run id counts as a different one, unless `is_open`: then a connection to `other` is still open.
    pub(in crate::store) fn is_same(&self, other: &Self, is_open: bool) -> bool {
        match (&self.run, &other.run) {
            (Some(run), Some(other_run)) => {
                run == other_run && self.replication == other.replication
            }
            _ => is_open && self.place == other.place,
        }
    }
}

/// What is known about a server that the cache can use.
#[derive(Debug)]
pub(super) struct Introduction {
    pub(super) identity: Identity,
    /// How it evicts keys when its memory is full, if it may evict sessions and if this process has any.
    pub(super) evicts: Option<String>,
    /// Whether its `SET` takes `IFEQ`, by its version.
    pub(super) compares: bool,
}

/// What a server reports about itself, as far as the user has the right to ask.
#[derive(Debug, Default)]
struct Said {
    version: Option<String>,
    is_valkey: bool,
    mode: Option<String>,
    role: Option<String>,
    primary: Option<String>,
    evicts: Option<String>,
    identity: Identity,
}

impl Connector {
    /// Names the connection, identifies the server, and selects the database.
    pub(super) async fn introduce(
        &self,
        link: &mut MultiplexedConnection,
        address: &Address,
        expected: Expected,
    ) -> Result<Introduction, Error> {
        let mut pipeline = redis::Pipeline::with_capacity(6);
        pipeline.cmd("CLIENT").arg("SETNAME").arg(&self.client_name);
        // Without arguments every user may ask this, if the command is there.
        pipeline.cmd("HELLO");
        pipeline.cmd("INFO").arg("server");
        pipeline.cmd("INFO").arg("replication");
        if self.keeps_sessions {
            pipeline.cmd("INFO").arg("memory");
        }
        if self.database != 0 {
            pipeline.cmd("SELECT").arg(self.database);
        }
        let replies = link
            .send_packed_commands(&pipeline, 0, pipeline.len())
            .await
            .map_err(|error| refusal(address, &error))?;
        let mut replies = replies.into_iter();
        if let Some(Value::ServerError(error)) = replies.next() {
            // In RESP2, nothing before this asked for credentials if none were configured.
            if error.code() == "NOAUTH" {
                return Err(refusal(address, &error.into()));
            }
            // The name is only for readers of `CLIENT LIST`. A server that does not allow it can still be used.
            tracing::debug!(%address, error = reply::said(&error), "Redis refused the client name");
        }
        let mut said = Said::default();
        said.hear_hello(replies.next());
        said.hear_server(replies.next());
        said.hear_replication(replies.next());
        if self.keeps_sessions {
            said.hear_memory(replies.next());
        }
        if said.role.is_none() && said.mode.as_deref() != Some("sentinel") {
            let role = link.send_packed_command(&redis::cmd("ROLE")).await;
            said.role = role.ok().as_ref().and_then(first_text);
        }
        let scheme = match self.gate.encrypts() {
            true => "rediss",
            false => "redis",
        };
        said.judge(address, expected, scheme)?;
        if let Some(Value::ServerError(error)) = replies.next() {
            let index = self.database;
            let text = if reply::said(&error).contains("out of range") {
                format!(
                    "Redis at {address} has no database {index}; use a smaller index, or raise `databases` in its configuration"
                )
            } else {
                format!("Redis at {address} refused `SELECT {index}`")
            };
            return Err(Error::new(ErrorKind::Command, text).because(reply::said(&error)));
        }
        Ok(Introduction {
            compares: said.compares(),
            identity: said.identity,
            evicts: said.evicts,
        })
    }
}

impl Said {
    fn hear_hello(&mut self, answer: Option<Value>) {
        let mut fields = answer.map(fields).unwrap_or_default();
        self.version = fields.remove("version");
        self.is_valkey = fields.remove("server").is_some_and(|name| name == "valkey");
        self.mode = fields.remove("mode");
        self.role = fields.remove("role");
    }

    fn hear_server(&mut self, answer: Option<Value>) {
        let Some(info) = answer.and_then(|answer| reply::text(answer).ok()) else {
            return;
        };
        let field = |name| reply::info_field(&info, name).map(str::to_owned);
        self.identity.run = field("run_id");
        // Valkey also reports the version of the Redis that it is compatible with, and may report only that one to `HELLO`.
        if let Some(version) = field("valkey_version") {
            self.version = Some(version);
            self.is_valkey = true;
        }
        self.version = self.version.take().or_else(|| field("redis_version"));
        self.mode = self.mode.take().or_else(|| field("redis_mode"));
    }

    fn hear_replication(&mut self, answer: Option<Value>) {
        let Some(info) = answer.and_then(|answer| reply::text(answer).ok()) else {
            return;
        };
        let field = |name| reply::info_field(&info, name).map(str::to_owned);
        self.identity.replication = field("master_replid");
        self.role = self.role.take().or_else(|| field("role"));
        if let (Some(host), Some(port)) = (field("master_host"), field("master_port")) {
            self.primary = Some(format!("{host}:{port}"));
        }
    }

    fn hear_memory(&mut self, answer: Option<Value>) {
        let Some(info) = answer.and_then(|answer| reply::text(answer).ok()) else {
            return;
        };
        let field = |name| reply::info_field(&info, name);
        let has_limit = field("maxmemory").is_some_and(|limit| limit != "0");
        let policy = field("maxmemory_policy").filter(|policy| *policy != "noeviction");
        self.evicts = policy.filter(|_| has_limit).map(str::to_owned);
    }

    /// Returns whether the version is known to be one whose `SET` takes `IFEQ`.
    fn compares(&self) -> bool {
        let oldest = match self.is_valkey {
            true => COMPARING_VALKEY,
            false => COMPARING_REDIS,
        };
        let version = self.version.as_deref().and_then(release);
        version.is_some_and(|version| version >= oldest)
    }

    /// Returns whether the cache can use this server. An error of kind `Config` means that another one must be configured.
    /// `scheme` is that of a URL with the same encryption.
    fn judge(&self, address: &Address, expected: Expected, scheme: &str) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Config, text));
        let is_node = matches!(expected, Expected::Node | Expected::PrimaryNode);
        match self.mode.as_deref() {
            Some("sentinel") => {
                return wrong(format!(
                    "{address} is a sentinel, not a Redis server; use `{scheme}+sentinel://{address}/<master>` with the name of the master"
                ));
            }
            Some("cluster") if !is_node => {
                return wrong(format!(
                    "{address} is a node of a Redis Cluster; use `{scheme}+cluster://{address}`"
                ));
            }
            Some("standalone") if is_node => {
                return wrong(format!(
                    "{address} is a single Redis server, not a node of a cluster; use `{scheme}://{address}`"
                ));
            }
            _ => {}
        }
        if let Some(version) = self
            .version
            .as_deref()
            .filter(|version| is_too_old(version))
        {
            return wrong(format!(
                "{address} runs version {version}; the cache needs Redis 7.0 or newer, or Valkey 7.2 or newer"
            ));
        }
        match (self.role.as_deref(), expected) {
            (Some("master"), _)
            | (_, Expected::Node)
            | (None, Expected::Primary | Expected::PrimaryNode) => Ok(()),
            (Some(_), Expected::PrimaryNode) => Err(Error::new(
                ErrorKind::Connection,
                format!("{address} is a replica now"),
            )),
            (Some(_), Expected::Primary) => {
                let primary = match &self.primary {
                    Some(primary) => format!(" ({primary})"),
                    None => String::new(),
                };
                wrong(format!(
                    "{address} is a replica, which rejects writes; use the address of its primary{primary}, or `redis+sentinel://`"
                ))
            }
            (Some(_), Expected::MasterOfSentinels) => Err(Error::new(
                ErrorKind::Connection,
                format!(
                    "{address} is no longer the master; the sentinels have not agreed on a new master yet"
                ),
            )),
            (None, Expected::MasterOfSentinels) => Err(Error::new(
                ErrorKind::Command,
                format!(
                    "{address} does not report its role: this user may run neither `ROLE` nor `INFO`; grant `+role`"
                ),
            )),
        }
    }
}

/// Returns whether a version is known to be too old. A version that is not a number belongs to a server with another
/// numbering.
fn is_too_old(version: &str) -> bool {
    let major = version.split('.').next().unwrap_or_default();
    major.parse::<u64>().is_ok_and(|major| major < OLDEST)
}

/// Returns the major and the minor version.
fn release(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Returns the fields of an answer that is a map, or a list of alternating names and values. Fields that are not strings
/// are left out.
pub(super) fn fields(answer: Value) -> HashMap<String, String> {
    let pairs: Vec<(Value, Value)> = match answer {
        Value::Map(pairs) => pairs,
        Value::Array(items) => {
            let mut items = items.into_iter();
            std::iter::from_fn(|| items.next().zip(items.next())).collect()
        }
        _ => return HashMap::new(),
    };
    pairs
        .into_iter()
        .filter_map(|(name, value)| reply::text(name).ok().zip(reply::text(value).ok()))
        .collect()
}

fn first_text(answer: &Value) -> Option<String> {
    match answer {
        Value::Array(parts) => parts
            .first()
            .cloned()
            .and_then(|first| reply::text(first).ok()),
        _ => None,
    }
}

/// Servers before version 6 do not know the command. Servers where it was renamed do not know it either, and of these
/// Valkey 9 asks for credentials first.
pub(super) fn refuses_resp3(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::RESP3NotSupported
        || matches!(error.code(), Some("NOPROTO" | "NOAUTH"))
        || error
            .detail()
            .is_some_and(|detail| detail.starts_with("unknown command") && detail.contains("HELLO"))
}

/// Returns whether a server wants other credentials, or any.
pub(super) fn refuses_credentials(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
        || error.detail().is_some_and(|detail| detail.contains("AUTH"))
}

/// Returns the error for a rejected handshake. Arguments that the server repeats are not included, because they contain the
/// credentials.
pub(super) fn refusal(address: &Address, error: &RedisError) -> Error {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    if refuses_credentials(error) {
        let text = format!(
            "Redis at {address} refused the credentials; check the user name and the password"
        );
        return Error::new(ErrorKind::Connection, text);
    }
    if error.is_io_error() {
        return Error::new(
            ErrorKind::Connection,
            format!("lost the connection to {address}"),
        )
        .because(error.to_string());
    }
    let detail = detail.split(", with args").next().unwrap_or_default();
    let cause = match detail.is_empty() {
        true => error.category().to_owned(),
        false => format!("{code} {detail}"),
    };
    Error::new(
        ErrorKind::Command,
        format!("Redis at {address} refused the connection"),
    )
    .because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_with_a_lower_number_are_too_old() {
        for old in ["6.2.14", "5.0.7", "6.0.16", "4", "6.3.4"] {
            assert!(is_too_old(old), "{old}");
        }
        for new in [
            "7.0.0",
            "7.2.5",
            "8.0.1",
            "10.1",
            "255.255.255",
            "df-1.2",
            "",
        ] {
            assert!(!is_too_old(new), "{new}");
        }
    }

    #[test]
    fn a_server_compares_from_its_version_on() {
        let said = |is_valkey, version: &str| Said {
            is_valkey,
            version: Some(version.to_owned()),
            ..Said::default()
        };

        for comparing in ["8.4.0", "8.10.1", "9.0.0"] {
            assert!(said(false, comparing).compares(), "Redis {comparing}");
        }
        for older in ["7.0.15", "8.3.9", "8", "df-1.2", ""] {
            assert!(!said(false, older).compares(), "Redis {older}");
        }
        for comparing in ["8.1.0", "8.1.8", "9.1.2"] {
            assert!(said(true, comparing).compares(), "Valkey {comparing}");
        }
        for older in ["7.2.4", "8.0.1"] {
            assert!(!said(true, older).compares(), "Valkey {older}");
        }
        assert!(!Said::default().compares());
    }

    #[test]
    fn a_valkey_reports_its_own_version_and_that_of_a_redis() {
        let mut said = Said::default();
        let hello = [("server", "redis"), ("version", "7.2.4")];
        let text = |text: &str| Value::BulkString(text.into());
        said.hear_hello(Some(Value::Map(
            hello.map(|(name, value)| (text(name), text(value))).into(),
        )));
        assert!(!said.compares());

        said.hear_server(Some(text(
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.8\r\n",
        )));

        assert!(said.compares());
        assert_eq!(said.version.as_deref(), Some("8.1.8"));
    }

    #[test]
    fn a_server_is_identified_by_its_run_and_data_or_by_an_open_connection() {
        let identity = |run: Option<&str>, replication: &str| Identity {
            place: None,
            run: run.map(str::to_owned),
            replication: Some(replication.to_owned()),
        };
        let known = identity(Some("a"), "x");

        assert!(known.is_same(&known, false));
        assert!(!identity(Some("b"), "x").is_same(&known, true));
        assert!(!identity(Some("a"), "y").is_same(&known, true));
        assert!(identity(None, "x").is_same(&known, true));
        assert!(!identity(None, "x").is_same(&known, false));
    }
}
