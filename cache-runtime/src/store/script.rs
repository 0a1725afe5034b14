//! Scripts of the higher layers: atomic steps on a server that no single command performs.

use std::fmt;

use redis::{Cmd, ServerError, Value};

use super::BoxFuture;
use super::reply::{self, Failure};
use crate::error::Error;

/// What Redis 7 answers if the user may not run a command in a script.
const DENIED: &str = "can't run this command or subcommand";

/// A script, and the hash that identifies it on a server.
pub(crate) struct Script {
    text: &'static str,
    hash: String,
    /// Whether running it twice does what running it once does.
    pub(super) is_repeatable: bool,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self {
            text,
            hash: redis::Script::new(text).get_hash().to_owned(),
            is_repeatable: false,
        }
    }

    /// A script that is sent once more if its connection is lost: it does the same when it runs twice.
    pub(crate) fn repeatable(text: &'static str) -> Self {
        Self {
            is_repeatable: true,
            ..Self::new(text)
        }
    }

    pub(super) fn by_hash(&self, keys: &[&str], arguments: impl Fn(&mut Cmd)) -> Cmd {
        call("EVALSHA", &self.hash, keys, arguments)
    }

    /// Returns the error with the command that the user may not run. Redis 7 reports only its line, as `on @user_script:12.`, and
    /// a script may add the command. Other servers report the command.
    pub(super) fn explained(&self, error: ServerError) -> ServerError {
        let details = error.details().unwrap_or_default();
        let Some((_, place)) = details.split_once(DENIED) else {
            return error;
        };
        let added = place
            .strip_prefix(": ")
            .and_then(|rest| rest.split(' ').next());
        let Some(command) = added.or_else(|| self.line(place).and_then(command_in)) else {
            return error;
        };
        let command = command.to_ascii_lowercase();
        let text = format!(
            "-NOPERM this user may not run `{command}` in a script; grant `+{command}`\r\n"
        );
        match redis::parse_redis_value(text.as_bytes()) {
            Ok(Value::ServerError(named)) => named,
            _ => error,
        }
    }

    /// Returns the line of the script in which an error occurred.
    fn line(&self, place: &str) -> Option<&str> {
        let (_, number) = place.split_once("@user_script:")?;
        let (number, _) = number.split_once('.')?;
        self.text
            .lines()
            .nth(number.parse::<usize>().ok()?.checked_sub(1)?)
    }

    pub(super) fn by_text(&self, keys: &[&str], arguments: impl Fn(&mut Cmd)) -> Cmd {
        call("EVAL", self.text, keys, arguments)
    }
}

/// Returns the command that a line of a script runs: the first text in quotes that has only capitals.
fn command_in(line: &str) -> Option<&str> {
    let mut quoted = line.split('\'').skip(1).step_by(2);
    quoted.find(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase()))
}

fn call(name: &str, script: &str, keys: &[&str], arguments: impl Fn(&mut Cmd)) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(keys.len()).arg(keys);
    arguments(&mut command);
    command
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// A server that runs scripts.
pub(crate) trait Scripts: Send + Sync {
    /// Runs `script` on `keys`, which are in one slot. One round trip, and two where the server has to be given the text.
    /// `during` names the operation in errors.
    fn run<'a>(
        &'a self,
        script: &'a Script,
        during: &'static str,
        keys: &'a [&'a str],
        arguments: &'a [&'a [u8]],
    ) -> BoxFuture<'a, Result<Reply, Error>>;

    /// The number of connections lost so far. After a loss the server may be a different one, or may have lost its scripts.
    fn losses(&self) -> u64;
}

/// What a script answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nothing,
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
}

impl Reply {
    pub(super) fn read(value: Value) -> Result<Self, Failure> {
        match reply::ok(value)? {
            Value::Nil => Ok(Self::Nothing),
            Value::Int(number) => Ok(Self::Number(number)),
            Value::BulkString(bytes) => Ok(Self::Bytes(bytes)),
            Value::Array(items) => items
                .into_iter()
                .map(Self::read)
                .collect::<Result<_, _>>()
                .map(Self::List),
            _ => Err(Failure::Nonsense(
                "nothing, a number, a text or a list of them",
            )),
        }
    }
}
