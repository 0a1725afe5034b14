//! The steps that Redis has no command for: each a script that compares and changes one key.

use std::sync::LazyLock;

use redis::{Cmd, Pipeline, Value};

use super::{RedisStore, Route};
use crate::error::Error;
use crate::key::Key;
use crate::store::BoxFuture;
use crate::store::reply::{self, Failure};
use crate::store::script::{Reply, Script, Scripts};

pub(super) static REPLACE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/replace.lua")));
pub(super) static REFRESH: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/refresh.lua")));
pub(super) static FENCE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/fence.lua")));
pub(super) static CAPTURE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/capture.lua")));
pub(super) static DELETE_ENTRIES: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/delete_entries.lua")));
pub(super) static DELETE_DEAD: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/delete_dead.lua")));
pub(super) static DELETE_IF: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/delete_if.lua")));

impl RedisStore {
    /// Runs a script on `key` by its hash; a server that does not have it yet, or has lost it, gets the text once.
    pub(super) async fn run(
        &self,
        script: &Script,
        key: &Key,
        arguments: impl Fn(&mut Cmd),
        bytes: usize,
    ) -> Result<i64, Failure> {
        self.run_on(script, &[key.as_str()], arguments, bytes)
            .await
            .and_then(reply::integer)
    }

    pub(super) async fn run_on(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: impl Fn(&mut Cmd),
        bytes: usize,
    ) -> Result<Value, Failure> {
        let ask = async |command: Cmd| match script.is_repeatable {
            true => self.read(&command, bytes).await,
            false => self.ask(&command, bytes).await,
        };
        let answer = match ask(script.by_hash(keys, &arguments)).await {
            Err(Failure::Refused(error)) if reply::is_no_script(&error) => {
                ask(script.by_text(keys, &arguments)).await
            }
            answer => answer,
        };
        answer.map_err(|failure| match failure {
            Failure::Refused(error) => Failure::Refused(script.explained(error)),
            failure => failure,
        })
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
            by_hash
                .add_command(script.by_hash(&[key.as_str()], |command| arguments(item, command)));
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
                let explained = |answer| match answer {
                    Value::ServerError(error) => Value::ServerError(script.explained(error)),
                    answer => answer,
                };
                return Ok(answers.into_iter().map(explained).collect());
            }
            // The first brings the script, and the others find it.
            let mut again = Pipeline::with_capacity(missed.len());
            for (index, (_, (key, item))) in missed.iter().enumerate() {
                let arguments = |command: &mut Cmd| arguments(item, command);
                again.add_command(match index {
                    0 => script.by_text(&[key.as_str()], arguments),
                    _ => script.by_hash(&[key.as_str()], arguments),
                });
            }
            let again = self.ask_all(&again, 0).await?;
            for ((answer, _), new) in missed.into_iter().zip(again) {
                *answer = new;
            }
        }
    }
}

impl Scripts for RedisStore {
    fn run<'a>(
        &'a self,
        script: &'a Script,
        during: &'static str,
        keys: &'a [&'a str],
        arguments: &'a [&'a [u8]],
    ) -> BoxFuture<'a, Result<Reply, Error>> {
        #[cfg(test)]
        expect_one_slot(keys);
        Box::pin(async move {
            let bytes = arguments.iter().map(|argument| argument.len()).sum();
            let arguments = |command: &mut Cmd| {
                command.arg(arguments);
            };
            self.run_on(script, keys, arguments, bytes)
                .await
                .and_then(Reply::read)
                .map_err(|failure| failure.during(|| during.to_owned()))
        })
    }

    fn losses(&self) -> u64 {
        match &self.route {
            Route::Server(peer) => peer.pool.losses(),
            Route::Cluster(cluster, _) => cluster.losses(),
        }
    }
}

/// With this, the tests of limiters and sessions show that their scripts run in a cluster.
#[cfg(test)]
fn expect_one_slot(keys: &[&str]) {
    use crate::store::slots::Slot;

    let slots = keys.iter().map(|key| Slot::of(key.as_bytes()));
    let slots: std::collections::BTreeSet<_> = slots.collect();
    assert!(
        slots.len() <= 1,
        "a script on keys of {} slots: {keys:?}",
        slots.len()
    );
}

fn is_missing_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if reply::is_no_script(error))
}
