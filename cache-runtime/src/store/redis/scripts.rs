//! The steps that Redis has no command for: each a script that compares and changes one key.

use std::sync::LazyLock;

use redis::Cmd;

use super::RedisStore;
use crate::key::Key;
use crate::store::reply::{self, Failure};

pub(super) static RENEW: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/renew.lua")));
pub(super) static REPLACE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/replace.lua")));
pub(super) static FENCE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/fence.lua")));
pub(super) static DELETE_IF: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/delete_if.lua")));

/// A script, and the hash by which a server knows it.
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self {
            text,
            hash: redis::Script::new(text).get_hash().to_owned(),
        }
    }
}

impl RedisStore {
    /// Runs a script on `key` by its hash; a server that does not have it yet, or has lost it, gets the text once.
    pub(super) async fn run(
        &self,
        script: &Script,
        key: &Key,
        arguments: impl Fn(&mut Cmd),
        bytes: usize,
    ) -> Result<i64, Failure> {
        let call = |name, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(1).arg(key.as_str());
            arguments(&mut command);
            command
        };
        let answer = match self.ask(&call("EVALSHA", &script.hash), bytes).await {
            Err(Failure::Refused(error)) if reply::is_no_script(&error) => {
                self.ask(&call("EVAL", script.text), bytes).await
            }
            answer => answer,
        };
        answer.and_then(reply::integer)
    }
}
