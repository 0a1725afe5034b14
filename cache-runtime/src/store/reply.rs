//! The answer of Redis, or the reason that there is none, as an error of this crate.

use redis::{ServerError, ServerErrorKind, Value};

use super::ServerInfo;
use super::guard::Late;
use crate::error::{Error, ErrorKind};

/// Why a command has no answer.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// No connection is open: nothing was sent.
    Unavailable,
    /// No node of the cluster serves the key now: nothing was done.
    Away(&'static str),
    /// The node of the cluster did not answer in time.
    Late(Late),
    /// The connection was lost while the command was under way.
    Lost(String),
    /// The server answered with an error.
    Refused(ServerError),
    /// The server sent a reply that the command cannot have.
    Nonsense(&'static str),
}

impl Failure {
    /// Returns the kind of the error.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable | Self::Away(_) => ErrorKind::Unavailable,
            Self::Late(Late::TimedOut(_)) => ErrorKind::Timeout,
            Self::Late(Late::Stalled) => ErrorKind::Stalled,
            Self::Lost(_) => ErrorKind::Connection,
            Self::Refused(error) if is_wrong_type(error) => ErrorKind::Foreign,
            Self::Refused(_) | Self::Nonsense(_) => ErrorKind::Command,
        }
    }

    /// Returns the error with the name of the operation, such as "get of `dev_event:42`".
    pub(super) fn during(self, operation: impl FnOnce() -> String) -> Error {
        let operation = operation();
        match self {
            Self::Unavailable => Error::new(
                ErrorKind::Unavailable,
                format!("{operation}: no connection to Redis is open"),
            ),
            Self::Away(reason) => Error::new(
                ErrorKind::Unavailable,
                format!("{operation}: no node of the cluster serves the key now"),
            )
            .because(reason),
            Self::Late(late) => late.into(),
            Self::Lost(reason) => Error::new(
                ErrorKind::Connection,
                format!("{operation}: the connection to Redis was lost"),
            )
            .because(reason),
            Self::Refused(error) if is_wrong_type(&error) => Error::new(
                ErrorKind::Foreign,
                format!("{operation}: the key holds a value of another program"),
            ),
            Self::Refused(error) => Error::new(
                ErrorKind::Command,
                format!("{operation}: Redis answered with an error"),
            )
            .because(said(&error)),
            Self::Nonsense(expected) => Error::new(
                ErrorKind::Command,
                format!("{operation}: Redis did not answer with {expected}"),
            ),
        }
    }
}

/// Returns the message of the server without the arguments that it repeats, which may contain a value.
pub(super) fn said(error: &ServerError) -> String {
    let details = error.details().unwrap_or_default();
    let details = details.split(", with args").next().unwrap_or_default();
    format!("{} {}", error.code(), details)
        .trim_end()
        .to_owned()
}

/// Returns whether this answer means that the server is out of service: it is starting, or it is a replica.
pub(super) fn is_out_of_service(error: &ServerError) -> bool {
    use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
    matches!(error.kind(), Some(BusyLoading | MasterDown | ReadOnly))
}

/// Returns whether this answer of a node of a cluster means that it does not serve the slot.
pub(super) fn is_elsewhere(error: &ServerError) -> bool {
    use ServerErrorKind::{ClusterDown, Moved};
    matches!(error.kind(), Some(Moved | ClusterDown))
}

pub(super) fn is_no_script(error: &ServerError) -> bool {
    error.kind() == Some(ServerErrorKind::NoScript)
}

/// Returns whether the server does not know the command, or one of its arguments.
pub(super) fn is_unknown(error: &ServerError) -> bool {
    error.code() == "ERR"
}

/// Redis before 7 wraps what a command inside a script answered.
pub(super) fn is_wrong_type(error: &ServerError) -> bool {
    error.code() == "WRONGTYPE"
        || error
            .details()
            .is_some_and(|details| details.contains("WRONGTYPE"))
}

/// The value, unless it is an error inside a pipeline's answer.
pub(super) fn ok(value: Value) -> Result<Value, Failure> {
    match value {
        Value::ServerError(error) => Err(Failure::Refused(error)),
        value => Ok(value),
    }
}

pub(super) fn bytes(value: Value) -> Result<Option<Vec<u8>>, Failure> {
    match ok(value)? {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::Nil => Ok(None),
        _ => Err(Failure::Nonsense("a string")),
    }
}

/// The same where a value of another type counts as none.
pub(super) fn string(value: Value) -> Result<Option<Vec<u8>>, Failure> {
    match bytes(value) {
        Err(Failure::Refused(error)) if is_wrong_type(&error) => Ok(None),
        other => other,
    }
}

pub(super) fn integer(value: Value) -> Result<i64, Failure> {
    match ok(value)? {
        Value::Int(number) => Ok(number),
        _ => Err(Failure::Nonsense("a number")),
    }
}

pub(super) fn count(value: Value) -> Result<u64, Failure> {
    Ok(u64::try_from(integer(value)?).unwrap_or_default())
}

pub(super) fn array(value: Value) -> Result<Vec<Value>, Failure> {
    match ok(value)? {
        Value::Array(items) | Value::Set(items) => Ok(items),
        _ => Err(Failure::Nonsense("a list")),
    }
}

pub(super) fn text(value: Value) -> Result<String, Failure> {
    match ok(value)? {
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text),
        _ => Err(Failure::Nonsense("a text")),
    }
}

/// The next cursor and the names of one step of a scan.
pub(super) fn page(answer: Value) -> Result<(u64, Vec<Vec<u8>>), Failure> {
    let nonsense = Failure::Nonsense("a cursor and names");
    let mut parts = array(answer)?.into_iter();
    let (Some(Value::BulkString(cursor)), Some(names)) = (parts.next(), parts.next()) else {
        return Err(nonsense);
    };
    let Some(cursor) = std::str::from_utf8(&cursor)
        .ok()
        .and_then(|cursor| cursor.parse().ok())
    else {
        return Err(nonsense);
    };
    let names = array(names)?
        .into_iter()
        .filter_map(|name| bytes(name).ok().flatten())
        .collect();
    Ok((cursor, names))
}

/// Returns one field of the reply of `INFO`.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.split_once(':').filter(|(key, _)| *key == name))
        .map(|(_, value)| value.trim())
}

/// Returns what `INFO` reports about the server. Missing fields are empty or 0.
pub(super) fn server_info(info: &str) -> ServerInfo {
    let field = |name: &str| info_field(info, name);
    let number = |name: &str| {
        field(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or_default()
    };
    ServerInfo {
        version: field("redis_version").unwrap_or_default().to_owned(),
        run_id: field("run_id").unwrap_or_default().to_owned(),
        uptime_seconds: number("uptime_in_seconds"),
        memory_used: number("used_memory"),
        memory_peak: number("used_memory_peak"),
        memory_max: Some(number("maxmemory")).filter(|limit| *limit > 0),
        keys: info.lines().filter_map(keys_of_database).sum(),
        evicted_keys: number("evicted_keys"),
    }
}

/// Returns the keys that a line such as `db0:keys=42,expires=7,avg_ttl=0` counts.
fn keys_of_database(line: &str) -> Option<u64> {
    let (database, fields) = line.strip_prefix("db")?.split_once(":keys=")?;
    database.parse::<u32>().ok()?;
    fields.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_databases_count() {
        let info = "# Stats\r\nevicted_keys:3\r\n# Keyspace\r\ndb0:keys=40,expires=7,avg_ttl=0\r\ndb12:keys=2,expires=0\r\ndb_x:keys=9\r\n";

        let server = server_info(info);

        assert_eq!((server.keys, server.evicted_keys), (42, 3));
    }

    #[test]
    fn the_command_that_a_server_repeats_is_not_shown() {
        let error = answer(
            b"-ERR unknown command 'SETT', with args beginning with: 'dev_a' 'a secret' \r\n",
        );

        assert_eq!(said(&error), "ERR unknown command 'SETT'");
    }

    #[test]
    fn errors_name_the_operation_and_leave_the_cause_to_their_source() {
        let error = Failure::Refused(answer(b"-OOM command not allowed\r\n"))
            .during(|| "set of `dev_a`".to_owned());

        assert_eq!(error.kind(), ErrorKind::Command);
        assert_eq!(
            error.to_string(),
            "set of `dev_a`: Redis answered with an error"
        );
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("OOM command not allowed"));
    }

    #[test]
    fn a_wrong_type_inside_a_script_of_an_older_server_is_foreign_too() {
        let error = answer(
            b"-ERR Error running script: @user_script:3: WRONGTYPE Operation against a key\r\n",
        );

        assert_eq!(
            Failure::Refused(error).during(String::new).kind(),
            ErrorKind::Foreign
        );
    }

    fn answer(bytes: &[u8]) -> ServerError {
        match redis::parse_redis_value(bytes).unwrap() {
            Value::ServerError(error) => error,
            other => panic!("{other:?}"),
        }
    }
}
