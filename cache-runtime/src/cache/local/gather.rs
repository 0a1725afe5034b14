//! Questions about doubtful values that are asked at the same time share a round trip.
//!
//! After a reconnect every value is doubtful. While [`ALONE`] callers ask, each in a round trip of its own, further callers gather.
//! A task asks for all of them, and for tags that many values have once. It is a task, because a caller may stop being polled.
//!
//! A question never fails its callers. If the store does not answer it, each of them asks alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;

use crate::key::Key;
use crate::queue::{self, Queue, Waiting};
use crate::store::guard::in_runtime;

/// With fewer callers that ask alone, callers would only wait for each other.
const ALONE: usize = 4;

/// The most questions of tasks that are under way at the same time.
const TASKS: usize = 2;

/// About how many keys a question has, so that other commands do not wait behind it for long.
const KEYS: usize = 256;

/// The first bytes of entries and of the records of tags, in the order in which they were asked for.
pub(in crate::cache) type Heads = Vec<Option<Vec<u8>>>;

/// The callers that ask.
#[derive(Debug)]
pub(super) struct Gathering {
    alone: Arc<AtomicUsize>,
    queue: Arc<Queue<Vec<Key>, Heads>>,
}

/// A task that asks until no caller waits.
pub(in crate::cache) type Runner = queue::Runner<Vec<Key>, Heads>;

/// How a caller asks.
pub(in crate::cache) enum Turn {
    Alone(Alone),
    /// A task asks. The caller starts it, if there is one to start.
    Gathers(oneshot::Receiver<Heads>, Option<Runner>),
}

/// A caller that asks alone, until this is dropped.
pub(in crate::cache) struct Alone(Arc<AtomicUsize>);

/// The keys that are asked for in one round trip, each of them once.
pub(in crate::cache) struct Question {
    keys: Vec<Key>,
    /// The callers, with the places of their keys.
    callers: Vec<(Vec<usize>, oneshot::Sender<Heads>)>,
}

impl Default for Gathering {
    fn default() -> Self {
        Self {
            alone: Arc::default(),
            queue: Queue::new(TASKS),
        }
    }
}

impl Gathering {
    /// Returns how a caller asks for the heads of these keys.
    pub(super) fn join(&self, keys: &[Key]) -> Turn {
        let joins = |alone| (alone < ALONE || !in_runtime()).then_some(alone + 1);
        if self.alone.fetch_update(Relaxed, Relaxed, joins).is_ok() {
            return Turn::Alone(Alone(Arc::clone(&self.alone)));
        }
        let (answer, runner) = self.queue.join(keys.to_vec());
        Turn::Gathers(answer, runner)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Question {
    /// Returns the next question.
    pub(in crate::cache) fn next(runner: &mut Runner) -> Option<Self> {
        let callers = runner.next(|_| {
            let mut seen = HashSet::new();
            move |keys: &Vec<Key>| {
                seen.extend(keys.iter().map(Key::hash));
                seen.len() < KEYS
            }
        })?;
        let (mut keys, mut places) = (Vec::new(), HashMap::new());
        let mut place = |key: Key| {
            *places.entry(key).or_insert_with_key(|key| {
                keys.push(key.clone());
                keys.len() - 1
            })
        };
        let caller_of = |Waiting { question, caller }: Waiting<Vec<Key>, _>| {
            (question.into_iter().map(&mut place).collect(), caller)
        };
        let callers = callers.into_iter().map(caller_of).collect();
        Some(Self { keys, callers })
    }

    pub(in crate::cache) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Answers its callers.
    pub(in crate::cache) fn answer(self, heads: &[Option<Vec<u8>>]) {
        for (places, caller) in self.callers {
            let own = places.into_iter().map(|at| heads.get(at)?.clone());
            // An error means that the caller was cancelled.
            let _ = caller.send(own.collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::parse("dev_", name).expect("a valid key")
    }

    fn alone(gathering: &Gathering) -> Alone {
        match gathering.join(&[key("alone")]) {
            Turn::Alone(alone) => alone,
            Turn::Gathers(..) => panic!("it should ask alone"),
        }
    }

    fn gathers(gathering: &Gathering, keys: &[&str]) -> (oneshot::Receiver<Heads>, Option<Runner>) {
        let keys: Vec<_> = keys.iter().map(|name| key(name)).collect();
        match gathering.join(&keys) {
            Turn::Gathers(answer, runner) => (answer, runner),
            Turn::Alone(_) => panic!("it should gather"),
        }
    }

    fn head(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn callers_gather_while_others_ask_and_each_gets_its_own_answer() {
        let gathering = Gathering::default();
        let crowd: Vec<_> = (0..ALONE).map(|_| alone(&gathering)).collect();
        let (one, runner) = gathers(&gathering, &["user:1", "team"]);
        let (other, _second) = gathers(&gathering, &["user:2", "team"]);
        let (cancelled, third) = gathers(&gathering, &["user:3"]);
        assert!(third.is_none(), "two tasks are enough");
        drop(cancelled);

        let mut runner = runner.expect("a task");
        let question = Question::next(&mut runner).expect("two callers wait");
        assert_eq!(question.keys(), [key("user:1"), key("team"), key("user:2")]);
        question.answer(&[head("one"), head("team"), None]);

        assert_eq!(one.await, Ok(vec![head("one"), head("team")]));
        assert_eq!(other.await, Ok(vec![None, head("team")]));
        assert!(Question::next(&mut runner).is_none());
        drop(crowd);
        alone(&gathering);
    }

    #[tokio::test]
    async fn callers_ask_alone_if_their_question_is_not_answered_or_their_task_ends() {
        let gathering = Gathering::default();
        let _crowd: Vec<_> = (0..ALONE).map(|_| alone(&gathering)).collect();
        let (unanswered, runner) = gathers(&gathering, &["user:1"]);
        let mut runner = runner.expect("a task");
        drop(Question::next(&mut runner));
        let (left, _second) = gathers(&gathering, &["user:2"]);

        drop(runner);

        assert!(unanswered.await.is_err());
        assert!(left.await.is_err());
        let (_, again) = gathers(&gathering, &["user:3"]);
        assert!(again.is_some(), "another task may begin");
    }
}
