//! The steps that Redis has no command for: each a script that compares and changes one key.

use std::sync::LazyLock;

use redis::{Cmd, Pipeline, Value};

use super::RedisStore;
use crate::key::Key;
use crate::store::reply::{self, Failure};

pub(super) static RENEW: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/renew.lua")));
pub(super) static REPLACE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/replace.lua")));
pub(super) static REFRESH: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/refresh.lua")));
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

    fn by_hash(&self, key: &Key, arguments: impl Fn(&mut Cmd)) -> Cmd {
        call("EVALSHA", &self.hash, key, arguments)
    }

    fn by_text(&self, key: &Key, arguments: impl Fn(&mut Cmd)) -> Cmd {
        call("EVAL", self.text, key, arguments)
    }
}

fn call(name: &str, script: &str, key: &Key, arguments: impl Fn(&mut Cmd)) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(1).arg(key.as_str());
    arguments(&mut command);
    command
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
        let answer = match self.ask(&script.by_hash(key, &arguments), bytes).await {
            Err(Failure::Refused(error)) if reply::is_no_script(&error) => {
                self.ask(&script.by_text(key, &arguments), bytes).await
            }
            answer => answer,
        };
        answer.and_then(reply::integer)
    }

    /// The same for many keys at once, each with arguments of its own, as one batch. The answers are in the order of the
    /// items, and one of them may be an error.
    pub(super) async fn run_each<T>(
        &self,
        script: &Script,
        items: &[(Key, T)],
        arguments: impl Fn(&T, &mut Cmd),
    ) -> Result<Vec<Value>, Failure> {
        let mut by_hash = Pipeline::with_capacity(items.len());
        for (key, item) in items {
            by_hash.add_command(script.by_hash(key, |command| arguments(item, command)));
        }
        let mut answers = self.ask_all(&by_hash, 0).await?;
        loop {
            // Only those that did not run: the others must not run twice.
            let missed: Vec<_> = answers
                .iter_mut()
                .zip(items)
                .filter(|(answer, _)| is_missing_script(answer))
                .collect();
            if missed.is_empty() {
                return Ok(answers);
            }
            // The first brings the script, and the others find it.
            let mut again = Pipeline::with_capacity(missed.len());
            for (index, (_, (key, item))) in missed.iter().enumerate() {
                let arguments = |command: &mut Cmd| arguments(item, command);
                again.add_command(match index {
                    0 => script.by_text(key, arguments),
                    _ => script.by_hash(key, arguments),
                });
            }
            let again = self.ask_all(&again, 0).await?;
            for ((answer, _), new) in missed.into_iter().zip(again) {
                *answer = new;
            }
        }
    }
}

fn is_missing_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if reply::is_no_script(error))
}
